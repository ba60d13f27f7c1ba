# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import json
import operator
from functools import partial

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import json_configs, numpy_arrays, skops_files, zips
from casemate.formats.scanning.signs import Level

READERS = (zips.READERS, numpy_arrays.READERS, json_configs.READERS, skops_files.READERS)


def look(data: bytes, name: str = "m.skops") -> Looked:
    return looked(data, *READERS, name=name)


def node(loader: str, module: str, name: str, **more: object) -> dict[str, object]:
    return {"__class__": name, "__module__": module, "__loader__": loader, **more}


def schema(root: dict[str, object]) -> Looked:
    return looked(
        json.dumps({**root, "protocol": 2, "_skops_version": "0.13"}).encode(), skops_files.READERS, name="schema.json"
    )


X = np.random.default_rng(0).random((60, 3))
Y = (X[:, 0] > 0.5).astype(int)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(), SGDClassifier(), RandomForestClassifier(3, random_state=0), HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(), make_pipeline(StandardScaler(), FunctionTransformer(np.tanh), LogisticRegression()),
        make_pipeline(FunctionTransformer(operator.itemgetter(slice(None))), LogisticRegression(random_state=np.random.RandomState(0))),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_what_skops_saves_of_scikit_learn_is_clean(model) -> None:
    found = look(skops.io.dumps(model.fit(X, Y)))
    assert "skops" in found.formats
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    "value",
    [
        np.random.default_rng(0),
        {"a": {1, 2}, "b": b"x", "c": partial(np.add, 1)},
        np.ma.masked_array([1, 2], [0, 1]),
        [np.float32(1)],
    ],
)
def test_values_that_skops_saves_are_clean(value: object) -> None:
    found = look(skops.io.dumps(value))
    assert "skops" in found.formats
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    ("root", "rule", "level"),
    [
        (node("OperatorFuncNode", "operator", "methodcaller", attrs={}), "skops/operator", "malicious"),
        (node("OperatorFuncNode", "operator", "attrgetter", attrs={}), "skops/operator", "malicious"),
        (node("OperatorFuncNode", "os", "system", attrs={}), "skops/operator", "malicious"),
        (node("ObjectNode", "subprocess", "Popen", content=None), "skops/dangerous-name", "malicious"),
        (node("FunctionNode", "os", "system"), "skops/dangerous-name", "malicious"),
        (node("TypeNode", "builtins", "eval"), "skops/dangerous-name", "malicious"),
        (node("ConstructorFromReduceNode", "os", "system", content={}), "skops/dangerous-name", "malicious"),
        (node("NdArrayNode", "os", "system", type="numpy", file="a.npy"), "skops/dangerous-name", "malicious"),
        (node("ObjectNode", "evil.code", "Model", content=None), "skops/unknown-name", "suspicious"),
        (node("EvilNode", "builtins", "dict"), "skops/unknown-loader", "suspicious"),
        (node("ListNode", "builtins", "list", content=[node("DictNode", "builtins", "dict", content={"a": node("TypeNode", "os", "system")})]), "skops/dangerous-name", "malicious"),
        (node("MethodNode", "builtins", "dict", content={"func": "x", "obj": node("ObjectNode", "sklearn.linear_model._base", "LinearRegression")}), "skops/method", "malicious"),
        (node("MethodNode", "builtins", "str", content={"func": "__class__", "obj": node("ObjectNode", "builtins", "str")}), "skops/method", "malicious"),
        (node("MethodNode", "builtins", "str", content={"func": "upper", "obj": node("ObjectNode", "builtins", "str")}), "skops/method", "suspicious"),
        (node("RandomGeneratorNode", "numpy.random", "Generator", content={"bit_generator": node("DictNode", "builtins", "dict", content={"bit_generator": node("JsonNode", "builtins", "str", content='"seed"')})}), "skops/generator", "malicious"),
        (node("NdArrayNode", "numpy", "ndarray", type="numpy", file="../../a.npy"), "skops/path", "suspicious"),
    ],
)  # fmt: skip
def test_classes_and_loaders_that_are_not_known_to_be_harmless_are_told(
    root: dict[str, object], rule: str, level: str
) -> None:
    found = schema(root)
    assert rule in found.rules
    assert found.level == level


def test_a_loader_that_is_told_twice_is_suspicious() -> None:
    data = b'{"__class__": "dict", "__module__": "builtins", "__module__": "os", "__loader__": "DictNode"}'
    assert "skops/odd-node" in looked(data, skops_files.READERS, name="schema.json").rules


def test_a_skops_file_that_is_no_zip_would_be_unpickled() -> None:
    assert look(PICKLE).level is Level.MALICIOUS
    assert look(b"\x1f\x8b" + PICKLE).level is Level.MALICIOUS
    assert look(b"hello").level is Level.UNREADABLE


def test_files_of_the_corpus() -> None:
    assert look(corpus("sklearn/grid.skops")).level is Level.CLEAN
    assert look(corpus("sklearn/pipe.skops")).level is Level.CLEAN
    assert look(corpus("skops/operatorfunc.skops")).level is Level.MALICIOUS


def test_another_schema_is_not_judged() -> None:
    assert not looked(b'{"type": "object", "properties": {}}', skops_files.READERS, name="schema.json").signs


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 500), st.binary(max_size=2), st.booleans())
def test_damaged_schemas_end_without_failing(at: int, change: bytes, cut: bool) -> None:
    root = node("MethodNode", "a", "b", content={"func": 1, "obj": node("NdArrayNode", "numpy", "ndarray", file=3)})
    data = json.dumps(root).encode()
    held(data[:at] if cut else data[:at] + change + data[at + 1 :], skops_files.READERS)
