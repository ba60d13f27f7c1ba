"""ONNX graphs as models: onnxruntime, torch and scikit-learn are the oracles; what is no classifier is refused."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.loading import Declared, load_model
from casemate.adapters.onnx_graph import GraphNet
from casemate.adapters.onnx_ops import OPERATORS
from casemate.core.data import texts
from casemate.core.facets import DataKind, Facet
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.errors import ModelError, Unavailable

RNG = np.random.default_rng(0)
IMAGES = RNG.random((23, 2, 8, 8)).astype(np.float32)
ROWS = RNG.normal(size=(60, 5)).astype(np.float32)
CLASSES = (ROWS @ RNG.normal(size=(5, 3))).argmax(1)


def written(path: Path, net: nn.Module, x: np.ndarray, *, dynamic: bool = True, new: bool = False) -> Path:
    """The net as torch itself exports it; `new` by tracing through `torch.export` (two seconds slower)."""
    sample = torch.tensor(x[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own old exporter
        if new:
            shapes = ({0: torch.export.Dim("n")},)
            torch.onnx.export(
                net, (sample,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
            )
        else:
            axes = {"x": {0: "n"}} if dynamic else None
            torch.onnx.export(
                net, (sample,), path, dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=17
            )
    return path


def opened(path: Path, x: np.ndarray | None = None, **how: Any) -> Model:
    schema = None if x is None else from_arrays(x, np.arange(len(x)) % 2).schema
    return wrap(load_model(path), schema=schema, **how)


def graph(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, Any],
    outputs: Sequence[str],
    weights: dict[str, Any],
    **how: Any,
) -> Path:
    """A model made by hand; its inputs are `name: shape`, or `name: (type, shape)`."""
    given = []
    for name, item in inputs.items():
        kind, shape = item if isinstance(item, tuple) else (TensorProto.FLOAT, item)
        given.append(helper.make_tensor_value_info(name, kind, shape))
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    asked = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in outputs]
    opsets = [helper.make_opsetid("", how.get("opset", 17))]
    made = helper.make_model(
        helper.make_graph(list(nodes), "g", given, asked, kept), opset_imports=opsets, ir_version=8
    )
    onnx.save(made, path)
    return path


class Small(nn.Module):
    """A transformer of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.layer(self.embed(x)).mean(1))
        return out


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=1),
        nn.BatchNorm2d(4),
        nn.Hardswish(),
        nn.MaxPool2d(2),
        nn.ReflectionPad2d(1),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


def dense() -> nn.Module:
    layers = [
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.LayerNorm(16),
        nn.GELU(),
        nn.Linear(16, 16),
        nn.ELU(),
        nn.Dropout(0.5),
    ]
    return nn.Sequential(*layers, nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 4))


NETS: dict[str, tuple[Callable[[], nn.Module], np.ndarray, bool]] = {
    "convolutions": (convolutional, IMAGES, False),
    "dense layers": (dense, IMAGES, False),
    "transformer": (Small, RNG.normal(size=(23, 5, 4)).astype(np.float32), False),
    "transformer, by torch.export": (Small, RNG.normal(size=(23, 5, 4)).astype(np.float32), True),
}


def trained(make: Callable[[], nn.Module], x: np.ndarray) -> nn.Module:
    """A net whose running statistics are not those it was made with."""
    torch.manual_seed(0)
    net = make().train()
    with torch.no_grad():
        net(torch.tensor(x) * 2)
    return net.eval()


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_torch_answers_and_slopes_as_it_did_before_export(name: str, tmp_path: Path) -> None:
    make, x, new = NETS[name]
    net = trained(make, x)
    model = opened(written(tmp_path / "m.onnx", net, x, new=new), x if x.ndim == 4 else None)
    expected = net(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(model.ask(Facet.LOGITS, x), expected, atol=1e-5)
    np.testing.assert_array_equal(model.labels(x), expected.argmax(1))
    slopes = []
    for module in (net, model.module):
        leaf = torch.tensor(x, requires_grad=True)
        torch.nn.functional.cross_entropy(module(leaf), torch.arange(len(x)) % 3).backward()
        assert leaf.grad is not None
        slopes.append(leaf.grad.numpy())
    np.testing.assert_allclose(slopes[1], slopes[0], atol=1e-6)
    assert np.abs(slopes[0]).max() > 1e-4


@pytest.mark.parametrize("last", ["softmax", "log_softmax", "sigmoid", "none"])
def test_logits_are_read_before_the_last_softmax_so_that_a_sure_model_still_has_gradients(
    last: str, tmp_path: Path
) -> None:
    ends = {"softmax": nn.Softmax(1), "log_softmax": nn.LogSoftmax(1), "sigmoid": nn.Sigmoid(), "none": nn.Identity()}
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(128, 1 if last == "sigmoid" else 3))
    with torch.no_grad():
        body[1].weight.mul_(500)
    model = opened(written(tmp_path / "m.onnx", nn.Sequential(body, ends[last]).eval(), IMAGES), IMAGES)
    z = body(torch.tensor(IMAGES)).double()
    z = torch.cat([-z / 2, z / 2], 1) if last == "sigmoid" else z
    np.testing.assert_allclose(model.ask(Facet.SCORES, IMAGES), z.softmax(1).detach().numpy(), atol=1e-5)
    leaf = torch.tensor(IMAGES, requires_grad=True)
    logits = model.module(leaf)
    (logits[:, 0] - logits[:, 1]).sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad.flatten(1).abs().amax(1) > 1).all()


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_batch_that_was_fixed_at_export_is_filled_up(dynamic: bool, tmp_path: Path) -> None:
    net = trained(convolutional, IMAGES)
    model = opened(written(tmp_path / "m.onnx", net, IMAGES, dynamic=dynamic), IMAGES)
    expected = net(torch.tensor(IMAGES)).detach().numpy()
    np.testing.assert_allclose(model.ask(Facet.LOGITS, IMAGES), expected, atol=1e-5)
    np.testing.assert_allclose(model.module(torch.tensor(IMAGES[:5])).detach().numpy(), expected[:5], atol=1e-5)
    assert ("batch" in model.notes) != dynamic
    assert model.labels(IMAGES[:0]).shape == (0,)


def test_images_are_transposed_for_a_graph_with_channels_last_and_rows_flattened(tmp_path: Path) -> None:
    weights = RNG.normal(size=(128, 3)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    last = graph(tmp_path / "last.onnx", nodes, {"x": [None, 8, 8, 2]}, ["y"], {"w": weights})
    flat = graph(tmp_path / "flat.onnx", nodes, {"x": [None, 128]}, ["y"], {"w": weights})
    for path, x in ((last, IMAGES.transpose(0, 2, 3, 1)), (flat, IMAGES)):
        model = opened(path, IMAGES)
        expected = x.reshape(len(x), -1) @ weights
        np.testing.assert_allclose(model.ask(Facet.LOGITS, IMAGES), expected, atol=1e-4)
        np.testing.assert_allclose(model.module(torch.tensor(IMAGES)).numpy(), expected, atol=1e-4)


# -------------------------------------------------------------------------------------------------------- scikit-learn


def fitted(name: str, names: Sequence[Any]) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    made = {
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression(C=1e3)),
        "forest": RandomForestClassifier(5, random_state=0),
        "bayes": GaussianNB(),
        "neural": MLPClassifier((8,), max_iter=300, tol=1e-2, random_state=0),
        "machine": LinearSVC(),
    }[name]
    return made.fit(ROWS, np.asarray(names)[np.minimum(CLASSES, len(names) - 1)])


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("names", [("a", "b", "c"), (3, 4, 5), (7, 9)], ids=["text", "numbers", "pair"])
@pytest.mark.parametrize("name", ["pipeline", "forest", "bayes", "neural", "machine"])
def test_an_estimator_labels_as_it_did_before_export(name: str, names: Any, zipmap: bool, tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    estimator = fitted(name, names)
    options = None if name == "machine" else {id(estimator): {"zipmap": zipmap}}
    (tmp_path / "m.onnx").write_bytes(to_onnx(estimator, ROWS[:1], options=options).SerializeToString())
    model = opened(tmp_path / "m.onnx", ROWS)
    assert model.classes == tuple(map(str, names))
    np.testing.assert_array_equal(np.asarray(names)[model.labels(ROWS.astype(np.float64))], estimator.predict(ROWS))
    if name != "machine":
        np.testing.assert_allclose(model.ask(Facet.SCORES, ROWS), estimator.predict_proba(ROWS), atol=1e-5)
    assert (model.module is None) == (name == "forest")
    if name == "forest":
        assert "TreeEnsembleClassifier" in model.notes["gradients"]
        return
    leaf = torch.tensor(ROWS, requires_grad=True)
    logits = model.module(leaf)
    np.testing.assert_allclose(logits.detach().numpy(), model.ask(Facet.LOGITS, ROWS), rtol=1e-4, atol=1e-4)
    if name == "pipeline":  # the slope of a margin is the difference of coefficients, scaled
        (logits[:, -1] - logits[:, 0]).sum().backward()
        coefficients, scale = estimator[-1].coef_, estimator[0].scale_
        slope = coefficients[-1] - (coefficients[0] if len(names) > 2 else 0)
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), np.tile(slope / scale, (len(ROWS), 1)), rtol=1e-3)


def test_classes_in_another_order_or_more_of_them_are_found_by_name(tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    estimator = fitted("pipeline", ("a", "b", "c"))
    (tmp_path / "m.onnx").write_bytes(to_onnx(estimator, ROWS[:1]).SerializeToString())
    turned, more = (opened(tmp_path / "m.onnx", ROWS, classes=tuple(names)) for names in ("cab", "xcab"))
    expected = estimator.predict_proba(ROWS)[:, [2, 0, 1]]
    np.testing.assert_allclose(turned.ask(Facet.SCORES, ROWS), expected, atol=1e-5)
    np.testing.assert_array_equal(turned.module(torch.tensor(ROWS)).argmax(1).numpy(), turned.labels(ROWS))
    assert Facet.LOGITS not in more.offers
    assert more.module is None
    np.testing.assert_array_equal(more.labels(ROWS), turned.labels(ROWS) + 1)
    with pytest.raises(ModelError, match="one that answers a, b, c"):
        opened(tmp_path / "m.onnx", ROWS, classes=("x", "y", "z"))


def test_a_pipeline_of_texts_takes_texts(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    said = ["good day", "bad spam", "spam now", "day light"] * 3
    pipeline = make_pipeline(CountVectorizer(lowercase=False), LogisticRegression()).fit(
        said, ["ham", "spam", "spam", "ham"] * 3
    )
    made = to_onnx(
        pipeline, initial_types=[("said", StringTensorType([None, 1]))], options={id(pipeline): {"zipmap": False}}
    )
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    model = wrap(load_model(tmp_path / "m.onnx"), schema=Schema(DataKind.TEXT, ()))
    x = texts([*said, "light spam", ""])
    np.testing.assert_allclose(model.ask(Facet.SCORES, x), pipeline.predict_proba(x.tolist()), atol=1e-6)
    with pytest.raises(ModelError, match="expected texts as data"):
        opened(tmp_path / "m.onnx", ROWS)


# ----------------------------------------------------------------------------------------------------------- operators

ONES = np.ones(4, np.float32)
OPS: dict[str, tuple[str, dict[str, Any], list[Any], int]] = {
    "uneven pads": ("Conv", {"pads": [0, 1, 2, 1], "strides": [2, 1]}, [RNG.normal(size=(3, 4, 3, 2))], 17),
    "same lower": ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [RNG.normal(size=(3, 4, 2, 3))], 17),
    "same upper": ("MaxPool", {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3], "strides": [2, 2]}, [], 17),
    "dilated": ("Conv", {"dilations": [2, 1], "group": 2}, [RNG.normal(size=(6, 2, 2, 2)), RNG.normal(size=6)], 17),
    "transposed": ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [RNG.normal(size=(4, 3, 3, 3))], 17),
    "ceil": ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, [], 17),
    "counted": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [], 17),
    "local": ("LRN", {"size": 3, "alpha": 0.5}, [], 17),
    "instance": ("InstanceNormalization", {}, [ONES * 2, ONES], 17),
    "groups": ("GroupNormalization", {"num_groups": 2}, [ONES * 2, ONES], 21),
    "layers": ("LayerNormalization", {"axis": 2}, [RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5))], 17),
    "old softmax": ("Softmax", {"axis": 1}, [], 11),
    "new softmax": ("Softmax", {"axis": 1}, [], 13),
    "selu": ("Selu", {}, [], 17),
    "hard": ("HardSigmoid", {"alpha": 0.3}, [], 17),
    "rectified": ("PRelu", {}, [np.full((4, 1, 1), 0.25)], 17),
    "threshold": ("ThresholdedRelu", {"alpha": 0.3}, [], 17),
    "old clip": ("Clip", {"min": -0.5, "max": 0.25}, [], 7),
    "clip from above": ("Clip", {}, [None, np.float32(0.25)], 17),
    "power": ("Pow", {}, [np.float32(2)], 17),
    "old pad": ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 1.5}, [], 9),
    "edge": ("Pad", {"mode": "edge"}, [np.array([0, 0, 1, 2, 0, 0, 1, 0])], 17),
    "backwards": ("Slice", {}, [np.array([-1, 1]), np.array([-9, 2**62]), np.array([2, 3]), np.array([-2, 2])], 17),
    "old slice": ("Slice", {"starts": [1], "ends": [-1], "axes": [3]}, [], 9),
    "gather": ("Gather", {"axis": 1}, [np.array([[0, -1], [2, 1]])], 17),
    "reshaped": ("Reshape", {}, [np.array([0, -1, 5])], 17),
    "old squeeze": ("Unsqueeze", {"axes": [0, 3]}, [], 11),
    "tiled": ("Tile", {}, [np.array([1, 2, 1, 3])], 17),
    "expanded": ("Expand", {}, [np.array([3, 4, 6, 5])], 17),
    "old mean": ("ReduceMean", {"axes": [1, 3], "keepdims": 0}, [], 17),
    "new mean": ("ReduceMean", {}, [np.array([1, -1])], 18),
    "norm": ("ReduceL2", {"axes": [1]}, [], 17),
    "product": ("ReduceProd", {"axes": [1, 2], "keepdims": 0}, [], 17),
    "log of sum": ("ReduceLogSumExp", {"axes": [2]}, [], 17),
    "lower": ("Trilu", {"upper": 0}, [np.array(1)], 17),
    "tanh gelu": ("Gelu", {"approximate": "tanh"}, [], 20),
    "product of matrices": ("MatMul", {}, [RNG.normal(size=(5, 2))], 17),
    "sums": ("Einsum", {"equation": "nchw,hk->nck"}, [RNG.normal(size=(6, 2))], 17),
    "largest": ("Max", {}, [np.float32(0.1), np.float32(-0.2)], 17),
    "average": ("Mean", {}, [np.float32(0.1)], 17),
    "modulus": ("Mod", {"fmod": 1}, [np.float32(0.3)], 17),
    "running sum": ("CumSum", {}, [np.array(3)], 17),
    "unit length": ("LpNormalization", {"axis": 1, "p": 2}, [], 17),
}


def asked(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("name", OPS)
def test_an_operator_in_torch_does_what_onnxruntime_does(name: str, tmp_path: Path) -> None:
    op, settings, given, opset = OPS[name]
    x = RNG.normal(size=(3, 4, 6, 5)).astype(np.float32)
    weights = {
        f"w{i}": np.asarray(value, np.float32 if np.asarray(value).dtype.kind == "f" else np.int64)
        for i, value in enumerate(given)
        if value is not None
    }
    names = ["x", *(f"w{i}" if value is not None else "" for i, value in enumerate(given))]
    nodes = [helper.make_node(op, names, ["y"], **settings)]
    path = graph(tmp_path / "m.onnx", nodes, {"x": [3, 4, 6, 5]}, ["y"], weights, opset=opset)
    found = GraphNet(onnx.load(path), given="x", output="y")(torch.tensor(x)).numpy()
    expected = asked(path, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    assert "NonZero" not in OPERATORS
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    model = onnx.load(graph(tmp_path / "m.onnx", nodes, {"x": [3, 4]}, ["y"], {}))
    with pytest.raises(Unavailable, match="convert to torch, got NonZero"):
        GraphNet(model, given="x", output="y")


# ------------------------------------------------------------------------------------------------------------ meanings


def linear(path: Path, weights: np.ndarray, *, kind: int = TensorProto.FLOAT, **how: Any) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if kind != TensorProto.FLOAT:
        nodes = [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ]
    return graph(path, nodes, {"x": (kind, [None, len(weights)])}, ["y"], {"w": weights.astype(np.float32)}, **how)


def test_what_is_declared_of_the_outputs_wins(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 3), nn.Softmax(1))
    path = written(tmp_path / "m.onnx", net, IMAGES)
    shares = net(torch.tensor(IMAGES)).detach()
    as_logits, as_scores = (opened(path, IMAGES, logits=declared) for declared in (True, False))
    np.testing.assert_allclose(as_logits.ask(Facet.SCORES, IMAGES), shares.softmax(1).numpy(), atol=1e-6)
    np.testing.assert_allclose(as_scores.ask(Facet.SCORES, IMAGES), shares.numpy(), atol=1e-6)
    with pytest.raises(ModelError, match="expected probabilities in y, as declared"):
        opened(linear(tmp_path / "l.onnx", RNG.normal(size=(5, 3))), ROWS, logits=False)


def test_one_column_is_a_regression_until_two_classes_are_named(tmp_path: Path) -> None:
    weights = RNG.normal(size=(5, 1))
    path = linear(tmp_path / "m.onnx", weights)
    with pytest.raises(ModelError, match="a regression, or one logit"):
        opened(path, ROWS)
    model = opened(path, ROWS, classes=("no", "yes"))
    np.testing.assert_array_equal(model.labels(ROWS), (ROWS @ weights > 0).reshape(-1))
    np.testing.assert_allclose(model.module(torch.tensor(ROWS)).numpy(), model.ask(Facet.LOGITS, ROWS), atol=1e-5)


def test_whole_numbers_are_rounded_to_and_have_no_gradient(tmp_path: Path) -> None:
    weights = RNG.normal(size=(5, 3))
    model = opened(linear(tmp_path / "m.onnx", weights, kind=TensorProto.INT32), ROWS)
    np.testing.assert_allclose(model.ask(Facet.LOGITS, ROWS), np.rint(ROWS) @ weights, atol=1e-4)
    assert model.module is None
    assert "type int32" in model.notes["gradients"]


def test_labels_alone_are_a_model_once_the_classes_are_named(tmp_path: Path) -> None:
    weights = RNG.normal(size=(5, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("ArgMax", ["z"], ["y"], axis=1, keepdims=0),
    ]
    path = graph(tmp_path / "m.onnx", nodes, {"x": [None, 5]}, [], {"w": weights})
    made = onnx.load(path)
    made.graph.output.append(helper.make_tensor_value_info("y", TensorProto.INT64, [None]))
    onnx.save(made, path)
    with pytest.raises(ModelError, match="list the classes"):
        opened(path, ROWS)
    model = opened(path, ROWS, classes=("a", "b", "c"))
    assert model.offers == {Facet.LABELS}
    np.testing.assert_array_equal(model.labels(ROWS), (ROWS @ weights).argmax(1))
    with pytest.raises(ModelError, match="expected labels among the classes a, b, got 2"):
        opened(path, ROWS, classes=("a", "b")).labels(ROWS)


def test_the_digest_is_that_of_weights_and_nodes_and_not_of_the_file(tmp_path: Path) -> None:
    weights = RNG.normal(size=(5, 3)).astype(np.float32)
    model = opened(linear(tmp_path / "m.onnx", weights), ROWS)
    again = onnx.load(tmp_path / "m.onnx")
    again.producer_name, again.doc_string, again.graph.name = "someone", "else", "h"
    again.graph.node[0].name, again.graph.node[0].input[1], again.graph.initializer[0].name = "n", "v", "v"
    values = again.graph.initializer[0]
    values.float_data.extend(weights.reshape(-1).tolist())  # the other way to keep the same numbers
    values.ClearField("raw_data")
    onnx.save(again, tmp_path / "again.onnx")
    assert opened(tmp_path / "again.onnx", ROWS).digest == model.digest
    weights[0, 0] += 1e-6
    assert opened(linear(tmp_path / "other.onnx", weights), ROWS).digest != model.digest
    transposed = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    path = graph(tmp_path / "gemm.onnx", transposed, {"x": [None, 5]}, ["y"], {"w": weights})
    assert opened(path, ROWS).digest != opened(tmp_path / "other.onnx", ROWS).digest


def branching(path: Path, constant: float, *, turned: bool = False) -> Path:
    """Both branches see tensors from around them: the weights `c`, and `a`, which is -z, or |z| where `turned`."""
    seen = [helper.make_node("Add", ["a", "c"], ["out"])]
    told = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 3])
    branches = {name: helper.make_graph(seen, name, [], [told]) for name in ("then_branch", "else_branch")}
    one, other = ("b", "a") if turned else ("a", "b")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Neg", ["z"], [one]),
        helper.make_node("Abs", ["z"], [other]),
        helper.make_node("If", ["which"], ["y"], **branches),
    ]
    weights = {"w": np.eye(5, 3, dtype=np.float32), "c": np.float32([constant, 0, 0]), "which": np.array(True)}
    return graph(path, nodes, {"x": [None, 5]}, ["y"], weights)


def test_the_digest_sees_what_a_graph_inside_sees_of_the_graph_around_it(tmp_path: Path) -> None:
    paths = [branching(tmp_path / "a", 0), branching(tmp_path / "b", 9), branching(tmp_path / "c", 0, turned=True)]
    models = [opened(path.rename(path.with_suffix(".onnx")), ROWS) for path in paths]
    answers = [model.ask(Facet.LOGITS, ROWS) for model in models]
    assert not any(np.array_equal(answers[0], other) for other in answers[1:])
    assert len({model.digest for model in models}) == 3


# ------------------------------------------------------------------------------------------------------------- refused


def test_functions_that_write_out_to_billions_of_nodes_are_refused_before_they_are(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(40):
        call = {"op_type": "Relu"} if level == 39 else {"op_type": f"f{level + 1}", "domain": "own"}
        body = [helper.make_node(inputs=[a], outputs=[b], **call) for a, b in ("ab", "bc")]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["c"], body, opsets))
    made = onnx.load(linear(tmp_path / "m.onnx", np.eye(5, 3, dtype=np.float32)))
    made.graph.node.insert(0, helper.make_node("f0", ["x"], ["bent"], domain="own"))
    made.graph.node[1].input[0] = "bent"
    made.opset_import.append(opsets[1])
    for kept, fits in ((functions[-3:], True), (functions, False)):
        del made.functions[:]
        made.functions.extend(kept)
        made.graph.node[0].op_type = kept[0].name
        (tmp_path / "f.onnx").write_bytes(made.SerializeToString())
        if fits:
            np.testing.assert_allclose(opened(tmp_path / "f.onnx", ROWS).ask(Facet.LOGITS, ROWS), ROWS[:, :3].clip(0))
            continue
        with pytest.raises(ModelError, match=r"functions that make [\d.e+]+ nodes"):
            load_model(tmp_path / "f.onnx")


def test_one_file_beside_the_graph_counts_as_often_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = onnx.load(linear(tmp_path / "m.onnx", np.zeros((5, 3), np.float32)))
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    again = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    (tmp_path / "m.bin").write_bytes(bytes(50_000))
    for number in range(99):
        copy = again.graph.initializer.add()
        copy.CopyFrom(again.graph.initializer[0])
        copy.name = f"copy{number}"
        del copy.external_data[1:]  # no length: all of the file
    (tmp_path / "m.onnx").write_bytes(again.SerializeToString())
    monkeypatch.setattr("casemate.adapters.onnx_session.memory", lambda: 4 << 20)
    with pytest.raises(ModelError, match="to have at most"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["nul\0", "a" * 5000])
def test_what_is_no_name_of_a_file_is_one_clear_error(location: str, tmp_path: Path) -> None:
    made = onnx.load(linear(tmp_path / "m.onnx", np.zeros((5, 3), np.float32)))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=r"expected an ONNX model in m\.onnx") as caught:
        load_model(tmp_path / "m.onnx", Declared(trust=True))
    with pytest.raises(ModelError, match=r"m\.onnx") as scanned:
        load_model(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value) + str(scanned.value)


@pytest.mark.parametrize("shape", [[10**12, 5], [None, 10**12]])
def test_an_input_that_no_memory_holds_is_refused(shape: list[Any], tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, ["y"], {})
    with pytest.raises(ModelError, match="expected samples that fit into memory"):
        wrap(load_model(path))


def test_weights_beside_the_file_are_read_from_its_own_folder_only(tmp_path: Path) -> None:
    weights = RNG.normal(size=(64, 32)).astype(np.float32)
    x = RNG.normal(size=(20, 64)).astype(np.float32)
    (tmp_path / "in").mkdir()
    made = onnx.load(linear(tmp_path / "m.onnx", weights))
    onnx.save(made, tmp_path / "in" / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=16)
    model = opened(tmp_path / "in" / "m.onnx", x)
    np.testing.assert_allclose(model.ask(Facet.LOGITS, x), x @ weights, atol=1e-4)
    assert model.digest == opened(tmp_path / "m.onnx", x).digest
    outside = onnx.load(tmp_path / "in" / "m.onnx", load_external_data=False)
    (tmp_path / "m.bin").write_bytes((tmp_path / "in" / "m.bin").read_bytes())
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "m.bin")
    for location in ("../m.bin", str(tmp_path / "m.bin"), "link.bin", ""):
        for entry in outside.graph.initializer[0].external_data:
            entry.value = location if entry.key == "location" else entry.value
        (tmp_path / "in" / "o.onnx").write_bytes(outside.SerializeToString())
        with pytest.raises(ModelError, match=r"expected the data of o\.onnx in its own folder"):
            load_model(tmp_path / "in" / "o.onnx", Declared(trust=True))
        with pytest.raises(ModelError, match=r"o\.onnx"):
            load_model(tmp_path / "in" / "o.onnx")


def bad_graph(name: str, path: Path) -> Path:
    product = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    added = [helper.make_node("Add", ["x", "h"], ["y"])]
    made: dict[str, Callable[[], Path]] = {
        "two inputs": lambda: graph(path, added, {"x": [None, 5], "h": [None, 5]}, ["y"], {}),
        "an image": lambda: graph(path, [helper.make_node("Relu", ["x"], ["y"])], {"x": [None, 2, 8, 8]}, ["y"], {}),
        "no batch": lambda: graph(path, product, {"x": [5]}, ["y"], {"w": np.ones((5, 3), np.float32)}),
        "two heads": lambda: graph(
            path,
            [*product, helper.make_node("Neg", ["y"], ["z"])],
            {"x": [None, 5]},
            ["y", "z"],
            {"w": np.ones((5, 3), np.float32)},
        ),
        "another width": lambda: linear(path, RNG.normal(size=(7, 3))),
        "own operators": lambda: graph(
            path, [helper.make_node("Own", ["x"], ["y"], domain="own")], {"x": [5]}, ["y"], {}
        ),
    }
    return made[name]()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two inputs", r"one input, the batch of samples, got 2 \(x \(\?, 5\), h \(\?, 5\)\)"),
        ("an image", r"got y \(16, 2, 8, 8\) for 16 samples: not a classifier"),
        ("no batch", "expected "),
        ("two heads", r"expected one output .*, got y \(16, 3\), z \(16, 3\): keep the one"),
        ("another width", r"expected samples of shape \(7\), as x takes, got \(5,\)"),
        ("own operators", "expected a"),
    ],
)
def test_what_is_no_classifier_of_samples_is_refused_with_the_mend(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        opened(bad_graph(name, tmp_path / "m.onnx"), IMAGES if name == "an image" else ROWS)


def test_a_damaged_file_is_one_clear_error_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = linear(tmp_path / "m.onnx", RNG.normal(size=(5, 3))).read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "cut.onnx").write_bytes(whole[:end])
        with pytest.raises(ModelError, match=r"expected .*cut\.onnx"):
            load_model(tmp_path / "cut.onnx")


def test_samples_of_another_width_or_kind_are_refused(tmp_path: Path) -> None:
    model = opened(linear(tmp_path / "m.onnx", RNG.normal(size=(5, 3))), ROWS)
    with pytest.raises(ModelError, match="batch of shape"):
        model.labels(ROWS[:, :4])
    with pytest.raises(ModelError, match="expected samples as float32"):
        model.labels(texts(["a"]))


def test_without_onnxruntime_the_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Unavailable, match=r"pip install 'casemate\[onnx\]'"):
        load_model(linear(tmp_path / "m.onnx", RNG.normal(size=(5, 3))))
