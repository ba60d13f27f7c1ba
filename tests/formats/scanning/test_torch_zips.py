from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from tests.formats.scanning.desks import PICKLE, Looked, corpus, looked

from casemate.formats.scanning.readers import natives, torch_zips, zips
from casemate.formats.scanning.signs import Level

torch = pytest.importorskip("torch")
READERS = (zips.READERS, torch_zips.READERS, natives.READERS)


def look(data: bytes) -> Looked:
    return looked(data, *READERS, name="m.pt")


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()


class Loops(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(x.shape[0]):
            x = torch.nn.functional.softmax(x * 2, dim=-1).clamp(0, 1)
        return torch.ops.aten.relu(x)


def test_saved_tensors_and_modules_are_clean_and_only_their_pickle_is_handed_on() -> None:
    for value in (net().state_dict(), net(), {"a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.arange(300_000)}):
        out = io.BytesIO()
        torch.save(value, out)
        found = look(out.getvalue())
        assert not found.signs
        assert [name.rpartition("/")[2] for name in found.handed] == ["data.pkl"]


def test_a_checkpoint_written_without_checksums_is_clean() -> None:
    kept = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        out = io.BytesIO()
        torch.save(net().state_dict(), out)
    finally:
        torch.serialization.set_crc32_options(kept)
    assert not look(out.getvalue()).signs


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_traced_modules_are_clean() -> None:
    for made in (torch.jit.script(net()), torch.jit.trace(net(), torch.zeros(1, 4)), torch.jit.script(Loops())):
        out = io.BytesIO()
        torch.jit.save(made, out)
        found = look(out.getvalue())
        assert not found.signs
        assert "torchscript" in found.formats
        assert all(name.endswith(("pkl", "_pkl")) for name in found.handed)


@pytest.mark.filterwarnings("ignore")
def test_exported_programs_are_clean_also_with_sizes_that_vary() -> None:
    for shapes in (None, ({0: torch.export.Dim("n", min=1, max=64)},)):
        program = torch.export.export(net(), (torch.zeros(3, 4),), dynamic_shapes=shapes)
        out = io.BytesIO()
        torch.export.save(program, out)
        found = look(out.getvalue())
        assert not found.signs
        assert "pt2" in found.formats
        assert {name.rpartition("/")[2] for name in found.handed} == {
            "model_weights_config.json", "model_constants_config.json", "data.pkl",
        }  # fmt: skip


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_package_of_tensors_is_clean_and_one_with_code_is_for_review() -> None:
    for code in (False, True):
        out = io.BytesIO()
        with torch.package.PackageExporter(out) as archive:
            archive.extern("torch.**")
            archive.save_pickle("model", "model.pkl", net().state_dict())
            if code:
                archive.save_source_string("mine", "def f(x):\n    return x\n")
        found = look(out.getvalue())
        assert found.rules == ({"torch-package/code"} if code else set())
        assert not any("storage" in name or "extern" in name for name in found.handed)


@pytest.mark.parametrize(
    ("code", "rule", "level"),
    [
        ("def f():\n  torch.save(1, '/x')", "torchscript/file", Level.MALICIOUS),
        ("def f():\n  torch \\\n .  from_file('/x', True)", "torchscript/file", Level.MALICIOUS),
        ("def f():\n  ops.aten.save(1, '/x')", "torchscript/file", Level.MALICIOUS),
        ("def f():\n  getattr(torch, 'from_file')('/x')", "torchscript/file", Level.SUSPICIOUS),
        ("def f():\n  t = torch\n  t.save(1, '/x')", "torchscript/alias", Level.SUSPICIOUS),
        ("def f():\n  ops.evil.run('x')", "torchscript/custom-op", Level.SUSPICIOUS),
        ("x : __torch__.torch.classes.evil.Run", "torchscript/custom-class", Level.SUSPICIOUS),
    ],
)
def test_torchscript_that_reaches_files_or_native_code_is_told(code: str, rule: str, level: Level) -> None:
    found = look(packed({"m/data.pkl": b"\x80\x02N.", "m/code/__torch__.py": code.encode(), "m/version": b"3"}))
    assert rule in found.rules
    assert found.level is level


def graph(target: str = "torch.ops.aten.relu.default", size: str = "Symbol('s0', positive=True)") -> bytes:
    node = {"target": target, "inputs": [{"arg": {"as_expr": {"expr_str": size}}}]}
    return json.dumps({"graph_module": {"graph": {"nodes": [node]}}}).encode()


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (graph(), Level.CLEAN),
        (graph("_operator.mul", "2*s0 + Max(1, s1//2)"), Level.CLEAN),
        (graph("math.floor", "Eq(Mod(s0, 8), 0)"), Level.CLEAN),
        (graph("torch.sym_max"), Level.CLEAN),
        (graph("torch.os.system"), Level.MALICIOUS),
        (graph("torch.ops.aten.from_file.default"), Level.MALICIOUS),
        (graph("torch.ops.load_library"), Level.MALICIOUS),
        (graph("_operator.methodcaller"), Level.MALICIOUS),
        (graph("torch.serialization.os.system"), Level.MALICIOUS),
        (graph("torch.ops.mine.run.default"), Level.SUSPICIOUS),
        (graph("torch.nn.functional.relu"), Level.SUSPICIOUS),
        (graph(size="__import__('os').system('true')"), Level.MALICIOUS),
        (graph(size="().__class__.__mro__"), Level.MALICIOUS),
        (graph(size="[x for x in (1,)]"), Level.MALICIOUS),
        (graph(size="eval('1')"), Level.MALICIOUS),
        (graph(size="Mystery(3)"), Level.SUSPICIOUS),
        (graph(size="((("), Level.SUSPICIOUS),
    ],
)
def test_an_exported_graph_may_call_operators_and_compute_sizes_and_nothing_else(data: bytes, level: Level) -> None:
    found = look(packed({"m/models/model.json": data}))
    assert found.level is level, found.signs


def test_weights_that_the_list_calls_pickled_are_handed_on_as_pickles() -> None:
    def exported(pickled: object) -> bytes:
        config = {"config": {"w": {"path_name": "weight_0", "use_pickle": pickled}}}
        weight = {
            "m/data/weights/weight_0": PICKLE,
            "m/data/weights/model_weights_config.json": json.dumps(config).encode(),
        }
        return packed(weight)

    assert PICKLE in look(exported(True)).handed.values()
    assert PICKLE not in look(exported(False)).handed.values()
    broken = packed({"m/data/weights/weight_0": PICKLE, "m/data/weights/model_weights_config.json": b"{"})
    assert PICKLE in look(broken).handed.values()


def test_compiled_code_in_an_archive_is_for_review() -> None:
    found = look(packed({"m/data/aotinductor/model/x.so": b"\x7fELF\2\1\1" + bytes(80)}))
    assert found.rules == {"native/program"}


@pytest.mark.parametrize(
    ("model", "rules"),
    [
        ({"handler": "image_classifier"}, set()),
        ({"handler": "handler.py"}, {"mar/handler"}),
        ({"handler": "os:system"}, {"mar/handler"}),
        ({"handler": "text_classifier", "requirementsFile": "r.txt"}, {"mar/requirements"}),
    ],
)
def test_a_torchserve_archive_is_judged_by_its_handler(model: dict[str, str], rules: set[str]) -> None:
    manifest = json.dumps({"runtime": "python", "model": {"modelName": "m", "serializedFile": "m.pt", **model}})
    assert look(packed({"MAR-INF/MANIFEST.json": manifest.encode()})).rules == rules


def test_a_payload_in_place_of_a_note_is_no_formality() -> None:
    found = look(packed({"m/data.pkl": b"\x80\x02N.", "m/version": PICKLE, "m/byteorder": b"cos\nsystem\n(S'x'\ntR."}))
    assert found.handed["m/version"] == PICKLE
    assert "m/byteorder" in found.handed


def test_tensors_of_random_numbers_are_clean() -> None:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    torch.save([torch.from_numpy(rng.integers(0, 255, 600, "u1")) for _ in range(200)], out)
    assert not look(out.getvalue()).signs


@pytest.mark.parametrize(
    "name",
    ["lightning.ckpt", "state_dict.pth", "state_dict_noext", "t_bufferlist.pt", "t_half.pt", "full_custom_main.pt"],
)
def test_benign_checkpoints_of_the_corpus_are_clean_but_for_their_pickles(name: str) -> None:
    assert not look(corpus(f"benign/generated/torch/{name}")).signs
