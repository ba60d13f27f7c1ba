"""Torch modules as models: modes, shapes, closed forms and files of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from tests.adapters import nets
from torch import nn

from casemate.adapters import torch as own
from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.digest import fingerprint
from casemate.adapters.torch import build_module, load_weights, save_weights, wrap_module
from casemate.core.facets import Facet
from casemate.core.model import Task
from casemate.errors import ModelError

NETS = "tests.adapters.nets"
X = np.random.default_rng(0).random((23, 1, 2, 2)).astype(np.float32)
SCHEMA = from_arrays(X, np.arange(23) % 3).schema


def trained() -> nn.Module:
    """A net whose running statistics differ from those of a batch, so that the modes disagree."""
    torch.manual_seed(0)
    net = nets.build()
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(16, 1, 2, 2) * 3)
    return net


def test_the_mode_is_recorded_and_left_while_answers_are_those_of_eval_mode() -> None:
    net = trained()
    assert net.training
    model = wrap(net, schema=SCHEMA)
    assert model.notes["mode"] == "train"
    assert net.training
    assert not model.module.training
    expected = net.eval()(torch.tensor(X)).detach().numpy()
    assert model.logits is not None
    np.testing.assert_allclose(model.logits(X), expected, atol=1e-6)
    assert wrap(net, schema=SCHEMA).notes["mode"] == "eval"


def test_one_layer_in_train_mode_is_train_mode() -> None:
    net = trained().eval()
    net[2].train()
    assert wrap(net, schema=SCHEMA).notes["mode"] == "train"


def test_wrapping_copies_so_that_later_training_does_not_reach_the_model() -> None:
    net = trained()
    model = wrap(net, schema=SCHEMA)
    before = model.labels(X), model.digest
    with torch.no_grad():
        net[1].weight.zero_()
    np.testing.assert_array_equal(model.labels(X), before[0])
    assert wrap(net, schema=SCHEMA).digest != before[1]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_answers_do_not_depend_on_the_batches(batch_size: int) -> None:
    net = trained()
    model, whole = wrap_module(net, schema=SCHEMA, batch_size=batch_size), wrap_module(net, schema=SCHEMA)
    for facet in (Facet.LABELS, Facet.SCORES, Facet.LOGITS, Facet.ACTIVATIONS):
        np.testing.assert_allclose(model.ask(facet, X), whole.ask(facet, X), rtol=1e-5, atol=1e-6)


def test_answers_fit_together() -> None:
    model = wrap(trained(), schema=SCHEMA)
    scores, logits, hidden = (model.ask(f, X) for f in (Facet.SCORES, Facet.LOGITS, Facet.ACTIVATIONS))
    assert (scores.dtype, logits.dtype, model.labels(X).dtype) == (np.float64, np.float32, np.int64)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(scores.argmax(axis=1), model.labels(X))
    last = model.module[-1]
    np.testing.assert_allclose(last(torch.tensor(hidden)).detach().numpy(), logits, atol=1e-5)
    assert model.classes == ("0", "1", "2")
    assert model.labels(X[:0]).shape == (0,)


def test_a_read_only_array_is_not_written_by_a_module_that_works_in_place() -> None:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 3))
    x = -X
    x.setflags(write=False)
    wrap(net).labels(x)
    assert x.max() <= 0


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(4, 3),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout(), nn.Linear(2, 3)),
    ],
    ids=["alone", "flat", "two"],
)
def test_the_closed_form_of_linear_layers_is_their_output(net: nn.Module) -> None:
    x = X.reshape(len(X), -1) if isinstance(net, nn.Linear) else X
    model = wrap(net, schema=from_arrays(x, kind="table" if x.ndim == 2 else "image").schema)
    assert model.affine is not None
    assert model.logits is not None
    flat = x.reshape(len(x), -1).astype(np.float64)
    np.testing.assert_allclose(flat @ model.affine.weights.T + model.affine.bias, model.logits(x), atol=1e-5)


def test_a_net_with_a_bend_offers_no_closed_form() -> None:
    assert wrap(trained(), schema=SCHEMA).affine is None


@pytest.mark.parametrize("flat", [True, False])
def test_one_logit_becomes_two(flat: bool) -> None:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(4, 1)]
    net = nn.Sequential(*layers, *([nn.Flatten(0)] if flat else []))
    model = wrap(net, schema=SCHEMA)
    z = net(torch.tensor(X)).reshape(-1).detach()
    assert model.scores is not None
    np.testing.assert_allclose(model.scores(X)[:, 1], torch.sigmoid(z).numpy(), atol=1e-6)
    np.testing.assert_array_equal(model.labels(X), (z > 0).numpy())
    assert model.module(torch.tensor(X)).shape == (23, 2)


def test_probabilities_become_logits_that_give_them_back() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(dim=1))
    model = wrap(net, schema=SCHEMA, logits=False)
    assert model.scores is not None
    np.testing.assert_allclose(model.scores(X), net(torch.tensor(X)).detach().numpy(), atol=1e-6)
    assert model.notes["outputs"] == "probabilities"


def test_double_precision_and_another_module_type_are_kept() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    assert wrap(net, schema=SCHEMA).notes["dtype"] == "float64"


@pytest.mark.parametrize(
    ("net", "classes", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), None, "mend the shape"),
        (nets.Pair(), None, "return the logits alone"),
        (nn.Identity(), None, "flatten the output"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), ("a", "b"), "expected 2 logits"),
    ],
    ids=["shape", "tuple", "image", "classes"],
)
def test_a_module_that_does_not_fit_is_refused(net: nn.Module, classes: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(net, classes=classes, schema=SCHEMA)


def test_a_model_travels_to_another_process() -> None:
    model = wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), schema=SCHEMA)
    again = cloudpickle.loads(cloudpickle.dumps(model))
    np.testing.assert_array_equal(again.labels(X), model.labels(X))


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "wrapped.pt"])
def test_weights_come_back_the_same(suffix: str, tmp_path: Path) -> None:
    net, path = trained(), tmp_path / f"m.{suffix}"
    if suffix == "safetensors":
        save_weights(path, net)
    else:
        state = net.state_dict()
        torch.save({"state_dict": state} if "wrapped" in suffix else state, path)
    again = load_weights(path, f"{NETS}:build")
    assert not again.training
    assert fingerprint(again) == fingerprint(net)


def test_tied_weights_are_written_twice_and_read_back(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save_weights(tmp_path / "m.safetensors", net)
    from safetensors.torch import load_file

    assert set(load_file(tmp_path / "m.safetensors")) == {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (f"{NETS}:raises", "RuntimeError: no graphics card"),
        (f"{NETS}:text", "got str: return the bare module"),
        (f"{NETS}:NUMBER", "to be a function, got int"),
        (f"{NETS}:buld", "did you mean build"),
        ("tests.adapters.no_such:build", "expected a module tests.adapters.no_such"),
        ("tests.adapters.nets", "module, colon, name"),
        (f"{NETS}:wider", r"1.weight of shape \(6, 4\)"),
        (f"{NETS}:shallow", "unknown 2.bias, 2.num_batches_tracked"),
    ],
)
def test_a_factory_that_does_not_fit_is_one_clear_error(factory: str, message: str, tmp_path: Path) -> None:
    net = trained()
    state = {name: value for name, value in net.state_dict().items() if factory[-7:] != "shallow" or name != "1.weight"}
    state |= {"1.weight": torch.zeros(3, 4), "1.bias": torch.zeros(3)} if factory.endswith("shallow") else {}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=message):
        load_weights(tmp_path / "m.pt", factory)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"got no 1.bias, 1.weight, 2.bias, ... \(8 in all\)"):
        load_weights(tmp_path / "m.pt", f"{NETS}:build")


@pytest.mark.parametrize(
    "cast",
    [
        lambda weight: (weight * 100).to(torch.int8),
        lambda weight: weight.to(torch.complex64) * 1j,
        lambda weight: weight.to("meta"),
        lambda weight: weight.to_sparse(),
    ],
)
def test_weights_that_torch_would_cast_into_others_are_refused(cast: Any, tmp_path: Path) -> None:
    state = trained().state_dict()
    torch.save({**state, "1.weight": cast(state["1.weight"])}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"expected 1\.weight as torch\.float32, .* got ") as caught:
        load_weights(tmp_path / "m.pt", f"{NETS}:build")
    assert "\n" not in str(caught.value)
    torch.save({**state, 1: state["1.weight"]}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match="expected a state_dict"):
        load_weights(tmp_path / "m.pt", f"{NETS}:build")


class Runs:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __reduce__(self) -> Any:
        return (Path.touch, (self.make(),))


def test_a_file_of_weights_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"1.weight": Runs(lambda: tmp_path / "ran")}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match="malicious"):
        load_weights(tmp_path / "m.pt", f"{NETS}:build")
    monkeypatch.setattr(own, "check_verdict", lambda *args, **how: None)  # it holds without the scan too
    with pytest.raises(ModelError, match="expected a file of weights, got UnpicklingError"):
        load_weights(tmp_path / "m.pt", f"{NETS}:build")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "absent.pt"])
def test_damaged_and_missing_weights_are_one_clear_error(name: str, tmp_path: Path) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"\x00broken")
    with pytest.raises(ModelError, match=r"expected a file of weights|m\.pt, unknown"):
        load_weights(tmp_path / name, f"{NETS}:build")


def test_a_factory_in_the_folder_is_importable_only_while_it_is_looked_up(tmp_path: Path) -> None:
    import sys

    (tmp_path / "local_net.py").write_text("from torch import nn\ndef build():\n    return nn.Linear(4, 3)\n")
    other = tmp_path / "other"
    other.mkdir()
    (other / "local_net.py").write_text("from torch import nn\ndef build():\n    return nn.Linear(4, 2)\n")
    net = build_module("local_net:build", folder=tmp_path)
    assert isinstance(net, nn.Linear)
    assert str(tmp_path) not in sys.path
    again = build_module("local_net:build", folder=other)  # the same name in another project
    assert isinstance(again, nn.Linear)
    assert (net.out_features, again.out_features) == (3, 2)


@pytest.mark.parametrize("flat", [False, True])
def test_a_regression_answers_with_the_modules_own_numbers(flat: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), *([nn.Flatten(0)] if flat else []))
    model = wrap_module(net, schema=SCHEMA, regression=True)
    with torch.no_grad():
        expected = net(torch.tensor(X)).double().numpy().reshape(-1)
        assert model.module(torch.tensor(X)).shape == (23, 1)
    assert model.task is Task.REGRESSION
    assert np.array_equal(model.labels(X), expected)
    assert model.offers == {Facet.LABELS, Facet.GRADIENTS}
    with pytest.raises(ModelError, match="one number for each sample"):
        wrap_module(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), schema=SCHEMA, regression=True)
