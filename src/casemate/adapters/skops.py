"""Files of estimators: skops with reviewed types; pickles that are clean, by a restricted unpickler, or on trust."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.apart import read_apart
from casemate.adapters.archives import check_archive
from casemate.adapters.loading import PICKLES
from casemate.adapters.verdicts import Held, check_verdict, hold
from casemate.errors import ModelError, Unavailable

__all__ = ["REVIEWED", "load_estimator", "load_skops", "parts_inside", "save_skops"]

REVIEWED = (
    # Data in compiled or private classes: no method of theirs runs what the file says.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    # `OneHotEncoder(dtype=...)` and `ColumnTransformer` keep a dtype.
    "numpy.dtype",
    # What HistGradientBoosting wraps `check_array` in. A partial can only call a function that is trusted by itself,
    # and scikit-learn's FunctionTransformer already calls such functions with arguments from the file.
    "functools.partial",
    "sklearn.utils.validation.check_array",
)
"""Types that skops does not trust by itself and that plain scikit-learn estimators need; reviewed one by one."""

_BOOSTERS = {
    "xgboost.core.Booster": "casemate.adapters.xgboost",
    "lightgbm.basic.Booster": "casemate.adapters.lightgbm",
}
_READER = """
import sys, numpy
from casemate.adapters.unpickling import unpickle
from casemate.adapters.verdicts import Held
from casemate.formats.scanning.walking import scan_bytes
data = sys.stdin.buffer.read()
model = unpickle(Held("model", data, scan_bytes(data, "model")))
width = getattr(model, "n_features_in_", None)
if width is not None and not hasattr(model, "feature_names_in_"):
    model.predict(numpy.random.default_rng(0).normal(size=(64, int(width))))
"""
_BRIDGE = "sklearn.externals.array_api_compat.torch"


def load_estimator(
    path: str | Path, *, trusted: Sequence[str] = (), trust: bool = False, notes: dict[str, str] | None = None
) -> Any:
    """The estimator in a `.skops` file, or in a pickle (`.pkl`, `.pickle`, `.joblib`).

    A pickle whose scan is clean is opened by a restricted unpickler and held to the checks of `load_skops`. With
    `trust` any other is opened as Python does, which runs the code in it. `notes` gets how a pickle was opened.
    Raises `ModelError` for a pickle that is neither clean nor trusted, for other files, and as `load_skops`.
    """
    file = _existing(path)
    suffix = file.suffix.lower()
    if suffix == ".skops":
        return _skops_in(hold(file), trusted, trust, notes)
    if suffix not in PICKLES:
        raise ModelError(f"expected a .skops file or a pickle of an estimator, got {file.name}: save it with skops")
    held = hold(file)
    check_verdict(held, runs=True, trust=trust)
    told = {} if notes is None else notes
    if held.clean:
        try:
            loaded = _clean(held)
            told["file"] = "a pickle whose scan is clean, opened by a restricted unpickler"
            return loaded
        except (ModelError, Unavailable):
            if not trust:
                raise
    loaded = _with_predict(_run(held), held.name)
    told["trust"] = f"a {held.scanned.level} pickle, unpickled because --trust said so"
    return loaded


def load_skops(path: str | Path, *, trusted: Sequence[str] = ()) -> Any:
    """The estimator in a skops file, made of types that skops trusts, `REVIEWED` ones and `trusted`.

    Trees and vocabularies are checked before anything uses them: compiled code follows the links and columns that the
    file gives without looking.
    Raises `ModelError` that names the types that are not trusted, and for a file that is missing or damaged.
    """
    return _skops_in(hold(_existing(path)), trusted)


def _skops_in(held: Held, trusted: Sequence[str], trust: bool = False, notes: dict[str, str] | None = None) -> Any:
    skops_io = _skops_io()
    file = Path(held.name)
    check_archive(file, ModelError, held.data)
    check_verdict(held, runs=False, trust=trust, notes=notes)
    try:
        untrusted = set(skops_io.get_untrusted_types(data=held.data))
        refused = sorted(untrusted - set(REVIEWED) - set(trusted))
        if refused:
            listed = ", ".join(f'"{name}"' for name in refused)
            raise ModelError(
                f"expected only trusted types in {file.name}, got {listed}: "
                f"if you know who wrote the file, set [model] trusted = [{listed}]"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Trying to unpickle estimator"
            )  # other versions load or fail below
            loaded = skops_io.loads(held.data, trusted=sorted(untrusted))
    except ModelError:
        raise
    except Exception as error:  # bytes from outside: zip, JSON and numpy each have their own errors
        raise ModelError(
            f"expected a skops file, got {type(error).__name__} from {file.name}: {error}: save it again with "
            "skops.io.dump"
        ) from error
    return _sound_parts(_with_predict(loaded, file.name), file)


def save_skops(path: str | Path, estimator: Any) -> None:
    """Write an estimator as a skops file, whole or not at all.

    Raises `ModelError` where skops cannot write a part of it.
    """
    from casemate.formats import atomic

    skops_io = _skops_io()
    try:
        data = skops_io.dumps(estimator)
    except Exception as error:  # skops raises what the part's own code raises
        raise ModelError(
            f"expected an estimator that skops can write, got {type(error).__name__}: {error}: replace that part"
        ) from error
    atomic.write(Path(path), data)


def parts_inside(
    part: Any, seen: set[int] | None = None, width: int = 0, *, staged: bool = False
) -> Iterator[tuple[Any, int]]:
    """The estimator and every part of it that is one or a compiled tree, wherever it is kept.

    Beside each is the number of features to which the estimator around it holds its samples, 0 where it does not say.
    """
    seen = set() if seen is None else seen
    if id(part) in seen:
        return
    seen.add(id(part))
    inside: list[Any] = []
    if isinstance(part, dict):
        inside = list(part.values())
    elif isinstance(part, list | tuple):
        inside = list(part)
    elif isinstance(part, np.ndarray):
        inside = list(part.reshape(-1)) if part.dtype == object else []
    elif type(part).__module__.partition(".")[0] == "sklearn" or hasattr(type(part), "get_params"):
        own = getattr(part, "__dict__", {}).get("n_features_in_", width)
        own = int(own) if isinstance(own, int | np.integer) else 0
        # Gradient boosting asks the trees of its stages without their estimators.
        width, staged = min(own, width) if staged else own, staged or hasattr(part, "init_")
        yield part, width
        if hasattr(part, "__dict__") and _name_of(type(part)) not in _TREES:
            inside = list(vars(part).values())
    for item in inside:
        yield from parts_inside(item, seen, width, staged=staged)


def _skops_io() -> Any:
    """skops.io, without torch: it walks all of scikit-learn, whose bridge to torch would load that (2 s, 200 MB)."""
    if "torch" not in sys.modules and "skops.io" not in sys.modules:
        sys.modules[_BRIDGE] = None  # type: ignore[assignment]  # documented: an import of it raises, and the walk goes on
        try:
            importlib.import_module("skops.io")
        finally:
            del sys.modules[_BRIDGE]
    return importlib.import_module("skops.io")


def _existing(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"expected a model file, got nothing at {file}: check [model] path")
    return file


def _clean(held: Held) -> Any:
    """The estimator in a clean pickle; boosters in it are read in a process of their own first."""
    from casemate.adapters.unpickling import BOOSTERS, names_in, unpack, unpickle

    if not BOOSTERS.isdisjoint(module for module, _ in names_in(unpack(held))):
        try:
            read_apart(_READER, held.data)
        except ValueError as error:
            raise ModelError(f"expected {held.name} to unpickle, got {error}: save it again") from error
    return _sound_parts(_with_predict(unpickle(held), held.name), Path(held.name))


def _run(held: Held) -> Any:
    """The object in a pickle that is trusted: whatever it says is done, but to the bytes that were scanned."""
    import joblib

    try:
        return joblib.load(io.BytesIO(held.data))
    except Exception as error:  # a pickle may raise anything
        raise ModelError(
            f"expected {held.name} to unpickle, got {type(error).__name__}: {error}: save it again"
        ) from error


def _with_predict(loaded: Any, name: str) -> Any:
    if not hasattr(loaded, "predict"):
        raise ModelError(f"expected an estimator in {name}, got {type(loaded).__name__}: save the fitted estimator")
    return loaded


def _sound_parts(loaded: Any, file: Path) -> Any:
    _check_trees(loaded, file)
    _check_vocabularies(loaded, file)
    _check_boosters(loaded, file)
    return loaded


def _check_trees(loaded: Any, file: Path) -> None:
    for tree, width in parts_inside(loaded):
        if type(tree).__module__ in _NEIGHBOURS and not _sound_neighbours(tree):
            raise ModelError(f"expected sound neighbours in {file.name}, got nodes outside them: damaged file")
        if _name_of(type(tree)) not in _TREES:
            continue
        if not (_sound if hasattr(tree, "node_count") else _sound_histogram)(tree, width):
            raise ModelError(f"expected sound trees in {file.name}, got a link or a feature outside them: damaged file")


def _check_vocabularies(loaded: Any, file: Path) -> None:
    """Each word of a vectorizer has a column of its own, and there are no others."""
    for part, _ in parts_inside(loaded):
        words = getattr(part, "vocabulary_", None)
        if words is None:
            continue
        if not isinstance(words, dict) or not all(isinstance(at, int | np.integer) for at in words.values()):
            raise ModelError(f"expected a vocabulary in {file.name}, got {type(words).__name__}: damaged file")
        if sorted(words.values()) != list(range(len(words))):
            raise ModelError(f"expected a column for each word in {file.name}, got others: damaged file")


def _check_boosters(loaded: Any, file: Path) -> None:
    """Boosters that an estimator keeps, held to what their own files are held to."""
    for part, _ in parts_inside(loaded):
        for native in list(getattr(part, "__dict__", {}).values()):
            adapter = _BOOSTERS.get(_name_of(type(native)))
            if adapter is None:
                continue
            try:
                importlib.import_module(adapter).check_booster(native)
            except (ArithmeticError, ValueError, KeyError, TypeError) as error:
                raise ModelError(f"expected a sound booster in {file.name}, got {error}: damaged file") from error


def _sound(tree: Any, width: int) -> bool:
    n, left, right, feature = tree.node_count, tree.children_left, tree.children_right, tree.feature
    inner = _forward(left, right, n) & (feature >= 0) & (feature < min(tree.n_features, width))
    return bool(((left == -1) | inner).all()) and len(tree.value) == n > 0


def _sound_histogram(tree: Any, width: int) -> bool:
    nodes = tree.nodes
    inner = _forward(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), len(nodes))
    inner &= (nodes["feature_idx"] >= 0) & (nodes["feature_idx"] < width)
    sets = min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
    inner &= (nodes["is_categorical"] == 0) | (nodes["bitset_idx"] < sets)
    return bool(((nodes["is_leaf"] != 0) | inner).all()) and len(nodes) > 0


def _sound_neighbours(tree: Any) -> bool:
    """A tree of neighbours is an array of nodes, in which those of the last level are leaves, over an index of rows."""
    rows, index, nodes, bounds, _, levels, count = tree.__getstate__()[:7]
    n, parents = len(rows), np.arange(len(nodes)) * 2 + 2 < len(nodes)
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    shaped = len(index) == n > 0 and len(nodes) == count == 2**levels - 1 and bounds.shape[1:] == (count, rows.shape[1])
    inside = (index >= 0).all() and (index < n).all() and (starts >= 0).all() and (starts <= ends).all()
    return bool(shaped and inside and (ends <= n).all() and ((nodes["is_leaf"] != 0) | parents).all())


def _forward(left: NDArray[Any], right: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Children come after their parent and exist, hence every walk ends at a leaf."""
    own = np.arange(n)
    return np.asarray((left > own) & (left < n) & (right > own) & (right < n))


_NEIGHBOURS = frozenset({"sklearn.neighbors._kd_tree", "sklearn.neighbors._ball_tree"})
_TREES = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
