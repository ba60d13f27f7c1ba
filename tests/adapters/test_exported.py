"""`.pt2` programs: torch is the oracle; nothing that a file says is run beside tensor operators."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from casemate.adapters import exported, wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.loading import Declared, load_model
from casemate.core.facets import Facet
from casemate.core.model import Model
from casemate.errors import ModelError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((23, 1, 8, 8)).astype(np.float32)
SCHEMA = from_arrays(IMAGES, np.arange(23) % 3).schema


class Sequences(nn.Module):
    """What exports to lists of tensors, sizes that are computed, text arguments and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.last = nn.Linear(16, 3)
        self.register_buffer("shift", torch.linspace(0, 1, 8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.layer(x.reshape(x.shape[0], 8, 8) - self.shift)
        left, right = nn.functional.gelu(z, approximate="tanh").chunk(2, -1)
        z = torch.cat([left, right * 2, torch.zeros(x.shape[0], 8, 8)], -1).mean(1)
        out: torch.Tensor = self.last(z[:, : self.last.in_features])
        return out


def convolutional() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3))


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    net = make().train()
    with torch.no_grad():
        net(torch.tensor(IMAGES) * 2)
    return net.eval()


def saved(path: Path, net: nn.Module, *, dynamic: bool = True, x: Any = None) -> Path:
    sample = (torch.tensor(IMAGES[:3]) if x is None else x,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own pytree
        shapes = ({0: torch.export.Dim("n")},) if dynamic else None
        torch.export.save(torch.export.export(net, sample, dynamic_shapes=shapes), path)
    return path


def opened(path: Path, **how: Any) -> Model:
    return wrap(load_model(path), schema=SCHEMA, **how)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("make", [convolutional, Sequences])
def test_a_program_answers_and_slopes_as_its_module_did(make: Any, dynamic: bool, tmp_path: Path) -> None:
    net = trained(make)
    model = opened(saved(tmp_path / "m.pt2", net, dynamic=dynamic))
    expected = net(torch.tensor(IMAGES)).detach().numpy()
    np.testing.assert_allclose(model.ask(Facet.LOGITS, IMAGES), expected, atol=1e-5)
    slopes = []
    for module in (net, model.module):
        leaf = torch.tensor(IMAGES, requires_grad=True)
        nn.functional.cross_entropy(module(leaf), torch.arange(23) % 3).backward()
        assert leaf.grad is not None
        slopes.append(leaf.grad.numpy())
    np.testing.assert_allclose(slopes[1], slopes[0], atol=1e-6)
    assert np.abs(slopes[0]).max() > 1e-4
    assert model.notes["mode"] == "eval"
    assert ("batch" in model.notes) != dynamic


def test_the_digest_is_that_of_weights_and_steps(tmp_path: Path) -> None:
    net = trained(convolutional)
    digest = opened(saved(tmp_path / "m.pt2", net)).digest
    assert opened(saved(tmp_path / "again.pt2", net)).digest == digest
    wider = nn.Sequential(*net[:2], nn.LeakyReLU(0.5), *net[3:]).eval()
    assert opened(saved(tmp_path / "wider.pt2", wider)).digest != digest
    with torch.no_grad():
        net[-1].bias[0] += 1e-6
    assert opened(saved(tmp_path / "other.pt2", net)).digest != digest


def test_logits_are_read_before_a_last_softmax_unless_it_is_declared_to_give_them(tmp_path: Path) -> None:
    net = nn.Sequential(trained(convolutional), nn.Softmax(1)).eval()
    model = opened(saved(tmp_path / "m.pt2", net))
    np.testing.assert_allclose(
        model.ask(Facet.LOGITS, IMAGES), net[0](torch.tensor(IMAGES)).detach().numpy(), atol=1e-5
    )
    shares = net(torch.tensor(IMAGES)).detach().numpy()
    np.testing.assert_allclose(opened(tmp_path / "m.pt2", logits=True).ask(Facet.LOGITS, IMAGES), shares, atol=1e-6)
    assert wrap(load_model(tmp_path / "m.pt2")).classes == ("0", "1", "2")


def test_a_program_in_train_mode_is_said_to_be_and_its_buffers_stay_as_they_are(tmp_path: Path) -> None:
    model = opened(saved(tmp_path / "m.pt2", trained(convolutional).train()))
    assert model.notes["mode"] == "train"
    np.testing.assert_array_equal(model.ask(Facet.LOGITS, IMAGES), model.ask(Facet.LOGITS, IMAGES))


class Counts(nn.Module):
    """Works in place on a buffer and on what it is given, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1.0)
        out: torch.Tensor = self.last(x.mul_(2.0).flatten(1)) * self.calls
        return out


def test_what_a_program_changes_in_place_is_not_kept(tmp_path: Path) -> None:
    model = opened(saved(tmp_path / "m.pt2", Counts().eval()))
    np.testing.assert_array_equal(model.ask(Facet.LOGITS, IMAGES), model.ask(Facet.LOGITS, IMAGES))
    x = torch.tensor(IMAGES, requires_grad=True)
    assert model.module is not None
    model.module(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.detach(), IMAGES)


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x + 1, x + 2


def test_several_inputs_or_outputs_are_named(tmp_path: Path) -> None:
    x = torch.rand(3, 5)
    torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "two.pt2")
    with pytest.raises(ModelError, match=r"one tensor as input, got 2 \(x, y\)"):
        load_model(tmp_path / "two.pt2")
    with pytest.raises(ModelError, match=r"one tensor as output, got 2 \(add, add_1\)"):
        load_model(saved(tmp_path / "pair.pt2", Pair(), x=x))


# ----------------------------------------------------------------------------------------------------- hostile archives


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def changed(path: Path, edit: Callable[[str, bytes], bytes]) -> Path:
    """The archive with every file passed through `edit(name, data)`."""
    with zipfile.ZipFile(path) as archive:
        files = {name: edit(name.partition("/")[2], archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def described(edit: Callable[[Any], None], file: str = "models/model.json") -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if name != file:
            return data
        told = json.loads(data)
        edit(told)
        return json.dumps(told).encode()

    return change


def calling(target: str, argument: dict[str, Any]) -> Callable[[str, bytes], bytes]:
    def edit(told: Any) -> None:
        node = dict(told["graph_module"]["graph"]["nodes"][0], target=target, outputs=[])
        node["inputs"] = [{"name": "command", "arg": argument, "kind": 1}]
        told["graph_module"]["graph"]["nodes"].insert(0, node)

    return described(edit)


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.__class__.mro",
        "torch.hub.load",
        "_operator.methodcaller",
        "math.exp",
        "#own:op",
    ],
)
def test_a_node_that_calls_anything_but_a_tensor_operator_is_refused_before_it_runs(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.pt2", trained(convolutional))
    changed(path, calling(target, {"as_string": f"touch {tmp_path}/ran"}))
    with pytest.raises(ModelError, match="--trust"):
        load_model(path)
    monkeypatch.setattr(exported, "check_verdict", lambda *args, **how: None)  # it holds without the scan too
    with pytest.raises(ModelError, match=r"without running code, got a call of .*pass --trust"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore")  # of torch, which logs what it then does
def test_sample_inputs_run_code_in_torch_and_are_not_opened_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.pt2", nn.Linear(5, 3), x=torch.rand(3, 5))
    pickled = pickle.dumps(Runs(tmp_path / "ran"))
    changed(path, lambda name, data: pickled if name == "data/sample_inputs/model.pt" else data)
    with pytest.raises(ModelError, match="malicious"):
        load_model(path)
    monkeypatch.setattr(exported, "check_verdict", lambda *args, **how: None)
    assert wrap(load_model(path)).classes == ("0", "1", "2")
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert (tmp_path / "ran").exists()  # why `exported` has a reader of its own


def test_pickled_weights_are_refused_and_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.pt2", trained(convolutional))

    def edit(told: Any) -> None:
        told["config"]["0.weight"]["use_pickle"] = True

    with zipfile.ZipFile(path, "a") as archive:
        assert "m/data/weights/weight_0" in archive.namelist()
    changed(path, described(edit, "data/weights/model_weights_config.json"))
    changed(path, lambda name, data: pickle.dumps(Runs(tmp_path / "ran")) if name == "data/weights/weight_0" else data)
    with pytest.raises(ModelError, match="malicious"):
        load_model(path)
    monkeypatch.setattr(exported, "check_verdict", lambda *args, **how: None)
    with pytest.raises(ModelError, match=r"got the pickle of 0\.weight"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_strides_beyond_the_bytes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt2", trained(convolutional))

    def edit(told: Any) -> None:
        told["config"]["0.weight"]["tensor_meta"]["strides"][0]["as_int"] = 10**9

    changed(path, described(edit, "data/weights/model_weights_config.json"))
    with pytest.raises(ModelError, match=r"expected a program in m\.pt2, got RuntimeError"):
        load_model(path)


@pytest.mark.parametrize("what", ["weights", "batch"])
def test_a_claim_that_no_memory_holds_is_refused_before_it_is_taken(what: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt2", trained(convolutional))

    def weights(told: Any) -> None:
        meta = told["config"]["0.weight"]["tensor_meta"]
        meta |= {"sizes": [{"as_int": 10**6}] * 2, "strides": [{"as_int": 0}] * 2}

    def batch(told: Any) -> None:
        inside = told["graph_module"]
        name = inside["signature"]["input_specs"][-1]["user_input"]["arg"]["as_tensor"]["name"]
        inside["graph"]["tensor_values"][name]["sizes"][0] = {"as_int": 10**10}

    file = "data/weights/model_weights_config.json" if what == "weights" else "models/model.json"
    changed(path, described(weights if what == "weights" else batch, file))
    with pytest.raises(ModelError, match=r"fits? into memory"):
        load_model(path)


@pytest.mark.parametrize("again", ["m/models/model.json", "other/models/model.json"])
def test_an_archive_that_can_be_read_in_two_ways_is_refused(again: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt2", trained(convolutional))
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, about the name
        archive.writestr(again, archive.read("m/models/model.json"))
    with pytest.raises(ModelError, match=r"expected each name once|expected one folder"):
        load_model(path)


class Silent(nn.Module):
    """Exports to an operator of higher order, which our reader does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mean = x.mean()
        out: torch.Tensor = self.net(x - mean * 0)
        return out


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, when it copies a program
def test_what_only_torch_can_open_is_opened_where_the_user_trusts_it(tmp_path: Path) -> None:
    net = trained(Silent)
    path = saved(tmp_path / "m.pt2", net)
    with pytest.raises(ModelError, match=r"got a call of torch\.ops\.higher_order\.wrap_with_set_grad_enabled"):
        load_model(path)
    model = wrap(load_model(path, Declared(trust=True)), schema=SCHEMA)
    expected = net(torch.tensor(IMAGES)).detach().numpy()
    np.testing.assert_allclose(model.ask(Facet.LOGITS, IMAGES), expected, atol=1e-5)
    assert "--trust" in model.notes["trust"]


def test_a_damaged_archive_is_one_clear_error_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = saved(tmp_path / "m.pt2", nn.Linear(5, 3), x=torch.rand(3, 5)).read_bytes()
    for end in range(0, len(whole), 501):
        (tmp_path / "cut.pt2").write_bytes(whole[:end])
        with pytest.raises(ModelError, match=r"expected .*cut\.pt2"):
            load_model(tmp_path / "cut.pt2")
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
    with pytest.raises(ModelError, match=r"expected one program in empty\.pt2, got 0"):
        load_model(tmp_path / "empty.pt2")
