"""Digests: the same for the same weights in every process, another for others."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from casemate.adapters.digest import fingerprint
from casemate.errors import ModelError

SETUP = """
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
rng = np.random.default_rng(0)
x = rng.normal(size=(60, 3)); y = np.array(["no", "yes"])[(x[:, 0] > 0).astype(int)]
"""
MODELS = [
    "RandomForestClassifier(3, random_state=0)",
    "HistGradientBoostingClassifier(max_iter=2, random_state=0)",
    "make_pipeline(StandardScaler(), LogisticRegression())",
    "KNeighborsClassifier(algorithm='kd_tree')",
    "SVC()",
    "VotingClassifier([('a', LogisticRegression()), ('b', RandomForestClassifier(2, random_state=0))])",
]
NAMES = {
    item.__name__: item
    for item in (
        RandomForestClassifier,
        HistGradientBoostingClassifier,
        VotingClassifier,
        LogisticRegression,
        KNeighborsClassifier,
        make_pipeline,
        StandardScaler,
        SVC,
    )
}


def fitted(text: str, shift: float = 0.0) -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = np.array(["no", "yes"])[(x[:, 0] > 0).astype(int)]
    return eval(text, dict(NAMES)).fit(x + shift * x**2, y)


@pytest.mark.parametrize("text", MODELS)
def test_two_fits_are_one_model_and_other_data_make_another(text: str) -> None:
    assert fingerprint(fitted(text)) == fingerprint(fitted(text)) != fingerprint(fitted(text, 0.3))


@pytest.mark.parametrize("text", MODELS)
def test_a_reload_is_the_same_model(text: str) -> None:
    import skops.io

    model = fitted(text)
    data = skops.io.dumps(model)
    from_skops = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    from_pickle = pickle.loads(pickle.dumps(model))
    assert {fingerprint(from_skops), fingerprint(from_pickle)} == {fingerprint(model)}


@pytest.mark.parametrize("text", MODELS)
def test_answering_does_not_change_a_model(text: str) -> None:
    model = fitted(text)
    before = fingerprint(model)
    model.predict(np.zeros((5, 3)))
    assert fingerprint(model) == before


def test_another_process_with_another_hash_seed_agrees() -> None:
    code = SETUP + "from casemate.adapters.digest import fingerprint\n"
    code += "".join(f"print(fingerprint(({text}).fit(x, y)))\n" for text in MODELS)
    code += "print(fingerprint({'b': {3, 'x', (1, 2)}, 'a': frozenset('xyz')}))"
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    here = [
        *(fingerprint(fitted(text)) for text in MODELS),
        fingerprint({"a": frozenset("xyz"), "b": {(1, 2), 3, "x"}}),
    ]
    assert done.stdout.split() == here


def test_a_module_is_its_weights_and_its_structure_but_not_its_mode() -> None:
    def net(seed: int, *more: nn.Module) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 2), *more)

    base = fingerprint(net(0))
    assert base == fingerprint(net(0).eval()) == fingerprint(pickle.loads(pickle.dumps(net(0))))
    assert len({base, fingerprint(net(1)), fingerprint(net(0, nn.ReLU())), fingerprint(net(0).double())}) == 4


def test_half_precision_weights_have_bytes_too() -> None:
    assert fingerprint(nn.Linear(2, 2).to(torch.bfloat16)).startswith("sha256:")


def test_an_array_of_texts_is_its_texts_and_not_their_addresses() -> None:
    def texts(*values: str) -> np.ndarray:
        return np.array(values, dtype=np.dtypes.StringDType())

    assert fingerprint(texts("a" * 40)) == fingerprint(texts("a" * 40))
    assert fingerprint(texts("a" * 40)) != fingerprint(texts("b" * 40))


def test_a_scalar_buffer_counts() -> None:
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    assert fingerprint(first) == fingerprint(second)
    second.num_batches_tracked += 1
    assert fingerprint(first) != fingerprint(second)


def scaled(factor: float) -> Any:
    return lambda x: x * factor


def above(x: np.ndarray) -> np.ndarray:
    return x[:, 0] > 0.3


def test_a_function_is_its_code_its_constants_and_its_closure() -> None:
    assert fingerprint(scaled(2.0)) == fingerprint(scaled(2.0)) != fingerprint(scaled(3.0))
    names: dict[str, Any] = {"__name__": __name__}
    for constant in ("0.3", "0.4"):
        exec(f"def above(x):\n    return x[:, 0] > {constant}\nkept_{constant[2]} = above", names)
    assert fingerprint(names["kept_3"]) != fingerprint(names["kept_4"])
    assert fingerprint(above) == fingerprint(above)


def test_cycles_end() -> None:
    first: list[Any] = [1]
    first.append(first)
    second: list[Any] = [1]
    second.append(second)
    assert fingerprint(first) == fingerprint(second) != fingerprint([1, [1]])


def test_what_has_no_state_is_refused() -> None:
    with pytest.raises(ModelError, match="wrap its predict function"):
        fingerprint([threading.Lock()])


@given(arrays(np.float64, array_shapes(max_dims=3, max_side=4)), st.data())
def test_one_changed_number_changes_the_digest(array: np.ndarray, data: st.DataObject) -> None:
    other = array.copy()
    at = data.draw(st.integers(0, array.size - 1))
    other.flat[at] = data.draw(st.floats().filter(lambda v: v != array.flat[at] and v == v))
    assert fingerprint(array) == fingerprint(array.copy()) != fingerprint(other)
    assert fingerprint(array) != fingerprint(array[None])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_equal_plain_values_have_equal_digests(value: Any) -> None:
    assert fingerprint(value) == fingerprint(pickle.loads(pickle.dumps(value)))
    assert fingerprint([value]) != fingerprint(value)
