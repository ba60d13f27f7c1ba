"""Code that settings name: it decides how bad they are, from whichever file of the folder the scan sets out."""

# ruff: noqa: E501 - a sample is one line

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casemate.artifacts import own_code
from casemate.artifacts.allowances import Allowance
from casemate.artifacts.scans import Scan, scan_paths
from casemate.formats.scanning.signs import Level

RUN = "import os\nos.system('true')\n"
MADE = "import os\nclass X:\n    def __init__(self, config):\n        os.system('true')\n"
LAYERS = (
    "import torch\nclass X(torch.nn.Module):\n    def __init__(self, config):\n        self.a = torch.nn.Linear(1, 1)\n"
)
WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"
NAMED = {"auto_map": {"AutoModel": "modeling_x.X"}}
MLMODEL = "flavors:\n  python_function:\n    loader_module: my_loader\n    code: code\n"


def folder(home: Path, files: dict[str, object]) -> Path:
    for name, content in {"model.safetensors": WEIGHTS, **files}.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = content if isinstance(content, bytes | str) else json.dumps(content)
        path.write_bytes(whole if isinstance(whole, bytes) else whole.encode())
    return home


def told(scan: Scan) -> str:
    return " ".join(sign.what for scanned in scan.files for sign in scanned.signs)


CASES = {  # what lies in the folder, the file that names code, the verdict, and what is said
    "run at import": ({"modeling_x.py": RUN}, "malicious", "modeling_x.py: os.system when it is imported"),
    "run when made": ({"modeling_x.py": MADE}, "malicious", "os.system when the model is loaded"),
    "layers": ({"modeling_x.py": LAYERS}, "suspicious", "modeling_x.py was read, and does nothing"),
    "missing": ({}, "suspicious", "no file of that name lies in its folder"),
    "broken": ({"modeling_x.py": "def (\n"}, "suspicious", "could not be read to the end"),
    "helper": ({"modeling_x.py": f"from .helper import a\n{LAYERS}", "helper.py": RUN}, "malicious", "helper.py: os.system"),
    "helper of a helper": (
        {"modeling_x.py": f"from . import helper\n{LAYERS}", "helper.py": "from .deep.er import a\n", "deep/er.py": RUN},
        "malicious", "er.py: os.system",
    ),
    "helper's function": (
        {"modeling_x.py": f"from .helper import go\n{LAYERS}", "helper.py": "import os\ndef go():\n    os.system('true')\n"},
        "malicious", "helper.py: os.system when the model is loaded",
    ),
    "ancestor": ({"modeling_x.py": MADE.replace("class X", "class B") + "class X(B): pass\n"}, "malicious", "is loaded"),
    "own method": (
        {"modeling_x.py": "import os\nclass X:\n  def __init__(s):\n    s.go()\n  def go(s):\n    os.system('true')\n"},
        "malicious", "is loaded",
    ),
    "ring": ({"modeling_x.py": f"from .helper import a\n{LAYERS}", "helper.py": "from .modeling_x import X\n"}, "suspicious", "helper.py, modeling_x.py was read"),
    "tool that is not run": (
        {"modeling_x.py": "import subprocess\nclass X:\n  def __init__(s, c):\n    s.a = eval(c.act)\n  def export(s):\n    subprocess.run(['nvcc'])\n"},
        "suspicious", "was read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_auto_map_is_as_bad_as_the_code_that_it_names(name: str, tmp_path: Path) -> None:
    files, level, said = CASES[name]
    folder(tmp_path, {"config.json": NAMED, **files})
    for asked in ("config.json", "model.safetensors", ""):
        scan = scan_paths([str(tmp_path / asked)])
        assert scan.level == level, asked
        assert said in told(scan), asked


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["modeling_x.X", None]}}, "modeling_x.py": MADE}, "tokenizer_config.json"),
        ({"MLmodel": MLMODEL, "code/my_loader.py": RUN}, "MLmodel"),
        ({"MLmodel": MLMODEL, "code/my_loader.py": "import os\ndef _load_pyfunc(path):\n    os.system('true')\n"}, "MLmodel"),
        ({"MLmodel": MLMODEL.replace("my_loader", "mlflow.sklearn"), "code/a.py": "x = 1\n", "code/z.py": RUN}, "MLmodel"),
        ({"MLmodel": MLMODEL.replace("code: code", "model_code_path: agent.py"), "agent.py": RUN}, "MLmodel"),
        ({"modules.json": [{"idx": 0, "name": "0", "path": "", "type": "modeling_x.X"}], "modeling_x.py": MADE}, "modules.json"),
        ({"model_index.json": {"_class_name": ["pipe", "X"], "_diffusers_version": "1"}, "pipe.py": MADE}, "model_index.json"),
        ({"model_index.json": {"_class_name": "P", "unet": ["my_unet", "X"]}, "unet/my_unet.py": MADE}, "model_index.json"),
        ({"model_config.yaml": "a:\n  _target_: modeling_x.X\n", "modeling_x.py": MADE}, "model_config.yaml"),
        ({"custom_generate/generate.py": "import os\ndef generate(model):\n    os.system('true')\n"}, "model.safetensors"),
    ],
)  # fmt: skip
def test_code_is_found_where_each_library_looks_for_it(files: dict[str, object], asked: str, tmp_path: Path) -> None:
    folder(tmp_path, files)
    assert scan_paths([str(tmp_path / asked)]).level is Level.MALICIOUS
    assert scan_paths([str(tmp_path / "model.safetensors")]).level is Level.MALICIOUS


def test_code_of_another_repository_is_said_to_be_unread(tmp_path: Path) -> None:
    folder(tmp_path, {"config.json": {"auto_map": {"AutoModel": "a/b--modeling_x.X"}}, "modeling_x.py": RUN})
    scan = scan_paths([str(tmp_path / "config.json")])
    assert (scan.level, scan.files[0].signs[0].subject) == (Level.SUSPICIOUS, "a/b--modeling_x.X")
    assert "in another repository, and was not read" in told(scan)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text(RUN)
    home = folder(tmp_path / "home", {"config.json": NAMED})
    for target in (tmp_path / "outside.py", home / "modeling_x.py"):  # the second leads to itself
        (home / "modeling_x.py").unlink(missing_ok=True)
        (home / "modeling_x.py").symlink_to(target)
        scan = scan_paths([str(home / "config.json")])
        assert (scan.level, "no file of that name" in told(scan)) == (Level.SUSPICIOUS, True)


def test_the_cache_of_hugging_face_links_to_its_own_blobs(tmp_path: Path) -> None:
    home = folder(tmp_path / "models--a--b" / "snapshots" / "1f", {"config.json": NAMED})
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (blobs / "77").write_text(RUN)
    (home / "modeling_x.py").symlink_to("../../blobs/77")
    assert scan_paths([str(home / "config.json")]).level is Level.MALICIOUS


@pytest.mark.parametrize("limit", ["_FILES", "_SECONDS"])
def test_what_is_too_much_to_read_is_said_to_be_unread(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"m{i}.py": f"from .m{i + 1} import a\n" for i in range(5)}
    folder(tmp_path, {"config.json": {"auto_map": {"AutoModel": "m0.X"}}, **files})
    monkeypatch.setattr(own_code, limit, 2 if limit == "_FILES" else -1.0)
    scan = scan_paths([str(tmp_path / "config.json")])
    assert Level.UNREADABLE in {sign.level for sign in scan.files[0].signs}
    assert "more code than can be read" in told(scan)


def test_code_is_told_once_where_it_is_scanned_for_itself(tmp_path: Path) -> None:
    folder(tmp_path, {"config.json": NAMED, "modeling_x.py": RUN})
    scan = scan_paths([str(tmp_path)])
    by_name = {Path(item.path).name: [sign.rule for sign in item.signs] for item in scan.files}
    assert by_name == {"config.json": ["config/own-code"], "model.safetensors": [], "modeling_x.py": ["python/runs"]}


def test_a_folder_without_code_is_clean_and_code_that_is_not_named_is_not_read(tmp_path: Path) -> None:
    folder(tmp_path, {"config.json": {"architectures": ["BertModel"]}, "train.py": RUN})
    assert scan_paths([str(tmp_path / "model.safetensors"), str(tmp_path / "config.json")]).level is Level.CLEAN


def test_a_policy_allows_code_that_was_read_but_not_code_that_does_harm(tmp_path: Path) -> None:
    import datetime as dt

    today = dt.date(2026, 11, 25)
    allowed = [Allowance("modeling_x.X", today, "read by us")]
    for code, level in ((LAYERS, Level.CLEAN), (RUN, Level.MALICIOUS)):
        folder(tmp_path, {"config.json": NAMED, "modeling_x.py": code})
        assert scan_paths([str(tmp_path / "config.json")], allowances=allowed, today=today).level is level
