"""Make the tables of names that pickles may import: recorded from real files of the libraries, in many releases.

Usage: in each environment (any Python from 3.7 on, with some of the libraries installed), then once for all of them:

    python scripts/allowed_globals.py record RECORD.json
    python scripts/allowed_globals.py walk RECORD.json
    python scripts/allowed_globals.py read RECORD.json WHEEL...
    python scripts/allowed_globals.py merge RECORD.json...
    python scripts/allowed_globals.py traits TABLE.json...

`record` makes the things of `benchmarks/artifact_objects.py`, saves each in every protocol, by joblib, cloudpickle and
torch, and loads them again (they are our own) with an unpickler that writes down each name and how it is used. It also
walks the libraries for classes of the same kinds that could not be made. `read` finds networks in the source of wheels
that are too heavy to install, without importing them. `merge` writes `allowed/*.json`, and to
`benchmarks/artifact_left_out.json` the names known only from what the measurement leaves out, with `|built` those of
which only the calls are. `traits`, in each environment after the merge, notes in the tables which classes are lists,
dicts or sets (`filled`), have slots (`slotted`) or are enumerations (`members`).
"""

from __future__ import annotations

import argparse
import ast
import collections.abc
import contextlib
import enum
import importlib
import inspect
import io
import json
import operator
import os
import pickle
import pkgutil
import re
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from artifact_files import LEFT_OUT_PYTHON, dumps, left_out, made, versions  # noqa: E402

__all__ = ["classes", "merge", "note_traits", "read", "record", "uses_of"]

TABLES = ROOT / "src" / "casemate" / "formats" / "scanning" / "pickles" / "allowed"
LEFT_OUT = ROOT / "benchmarks" / "artifact_left_out.json"
RANKS = ("value", "class", "built", "call")
"""From least to most: kept; made empty, then given state; a class called with arguments; a function called."""
FAMILIES = (
    ("catboost.core", "catboost", "CatBoost"), ("imblearn", "sklearn.base", "BaseEstimator"),
    ("lightgbm", "sklearn.base", "BaseEstimator"), ("numpy", "numpy", "generic"), ("numpy.dtypes", "numpy", "dtype"),
    ("numpy.random", "numpy.random", "BitGenerator"), ("pandas", "pandas", "Index"),
    ("pandas.core", "pandas.core.generic", "NDFrame"),
    ("pandas", "pandas.api.extensions", "ExtensionArray"), ("pandas", "pandas.api.extensions", "ExtensionDtype"),
    ("pandas", "pandas.tseries.offsets", "BaseOffset"), ("torch.nn", "torch.nn", "Module"),
    ("torch.optim", "torch.optim", "Optimizer"), ("torch.optim", "torch.optim.lr_scheduler", "LRScheduler"),
    ("scipy.optimize", "scipy.optimize", "OptimizeResult"), ("scipy.optimize", "scipy.optimize",
    "HessianUpdateStrategy"),
    ("scipy.sparse", "scipy.sparse", "spmatrix"), ("scipy.sparse", "scipy.sparse._base", "_spbase"),
    ("torch.utils.data.dataset", "torch.utils.data", "Dataset"),
    ("transformers.training_args_seq2seq", "transformers", "TrainingArguments"),
    ("transformers.trainer_callback", "builtins", "object"), ("transformers.trainer_utils", "enum", "Enum"),
    ("transformers.training_args", "enum", "Enum"), ("category_encoders", "sklearn.base", "BaseEstimator"),
    ("gensim.corpora.dictionary", "gensim.utils", "SaveLoad"), ("gensim.models", "gensim.utils", "SaveLoad"),
    ("hmmlearn", "sklearn.base", "BaseEstimator"), ("lifelines.fitters", "builtins", "object"),
    ("transformers.models", "torch.nn", "Module"), ("transformers.models", "transformers", "PretrainedConfig"),
    ("xgboost", "sklearn.base", "BaseEstimator"), ("xgboost.callback", "xgboost.callback", "TrainingCallback"),
    *((package, "builtins", "object") for package in (
        "mlxtend.classifier", "mlxtend.cluster", "mlxtend.feature_extraction", "mlxtend.feature_selection",
        "mlxtend.preprocessing", "mlxtend.regressor", "nltk.classify", "nltk.probability", "nltk.stem",
        "nltk.tag.sequential", "nltk.tokenize.punkt", "nltk.tokenize.regexp",
        "numpy.polynomial", "omegaconf.base",
        "omegaconf.dictconfig", "omegaconf.listconfig", "omegaconf.nodes", "scipy.interpolate", "scipy.signal",
        "scipy.spatial", "scipy.optimize._constraints", "scipy.stats", "sklearn", "statsmodels.discrete",
        "statsmodels.duration", "statsmodels.genmod", "statsmodels.nonparametric", "statsmodels.regression",
        "statsmodels.robust", "statsmodels.tsa")),
)  # fmt: skip
"""Package that is walked, and the base class of those of its classes that count."""
OLDER = """
lightning_fabric.utilities.data AttributeDict class
pytorch_lightning.utilities.parsing AttributeDict class
numpy.core.defchararray chararray class
numpy.core.records recarray class
numpy.core.records record class
numpy.matrixlib.defmatrix matrix class
pandas.core.frame DataFrame class
pandas.core.index Index class
pandas.core.index Int64Index class
pandas.core.index MultiIndex class
pandas.core.index _new_Index call
pandas.core.internals BlockManager class
pandas.core.internals SingleBlockManager class
pandas.core.series Series class
pandas.indexes.base Index class
pandas.indexes.base _new_Index call
pandas.indexes.multi MultiIndex class
pandas.indexes.numeric Float64Index class
pandas.indexes.numeric Int64Index class
pandas.indexes.range RangeIndex class
sklearn.externals.joblib.numpy_pickle NumpyArrayWrapper class
"""
"""How releases that can no longer be installed spelled names that are known by their present ones."""
REPORTED = """
accelerate.utils.dataclasses DeepSpeedPlugin class
accelerate.utils.deepspeed HfDeepSpeedConfig class
lightning.fabric.utilities.data AttributeDict class
lightning.pytorch.utilities.parsing AttributeDict class
pytorch_lightning.callbacks.early_stopping EarlyStopping value
pytorch_lightning.callbacks.lr_monitor LearningRateMonitor value
pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint value
pytorch_lightning.callbacks.stochastic_weight_avg StochasticWeightAveraging value
pytorch_lightning.callbacks.timer Timer value
torch.torch_version TorchVersion class
torchvision.transforms.functional InterpolationMode built
torchvision.transforms.transforms Compose class
torchvision.transforms.transforms PILToTensor class
torchvision.transforms.transforms RandomChoice class
torchvision.transforms.transforms RandomOrder class
torchvision.transforms.transforms ToPILImage class
torchvision.transforms.transforms ToTensor class
transformers.deepspeed HfTrainerDeepSpeedConfig class
transformers.integrations.deepspeed HfTrainerDeepSpeedConfig class
transformers.trainer_utils EvaluationStrategy built
transformers.trainer_utils FSDPOption built
transformers.training_args ParallelMode built
ultralytics.nn.modules Bottleneck class
ultralytics.nn.modules C2f class
ultralytics.nn.modules Classify class
ultralytics.nn.modules Concat class
ultralytics.nn.modules Conv class
ultralytics.nn.modules DFL class
ultralytics.nn.modules Detect class
ultralytics.nn.modules Detect.forward value
ultralytics.nn.modules Proto class
ultralytics.nn.modules SPPF class
ultralytics.nn.modules Segment class
ultralytics.nn.modules.block AAttn class
ultralytics.nn.modules.head Detect.forward value
ultralytics.utils IterableSimpleNamespace class
ultralytics.yolo.utils IterableSimpleNamespace class
"""
"""Names of real files that users of other scanners complain of (docs/evidence/complaints.md), each read."""
VALUES = (
    "numpy", "numpy._core._multiarray_umath", "numpy._core.umath", "numpy.core._multiarray_umath", "numpy.core.umath",
    "numpy.linalg", "scipy.special", "scipy.special._special_ufuncs", "scipy.special._ufuncs",
    "sklearn.feature_selection",
    "sklearn.metrics", "sklearn.metrics.pairwise", "sklearn.preprocessing", "torch", "torch._C._nn",
     "torch.nn.functional",
)  # fmt: skip
"""Modules whose numerical functions a pickle may keep, and not call: FunctionTransformer, activations, scores."""
KINDS = {"torch": ("dtype", "layout", "memory_format", "qscheme"), "scipy": ("ufunc",)}
NOT_NUMERICAL = frozenset(
    """
    DataSource add_docstring add_newdoc apply_along_axis apply_over_axes datetime_data from_dlpack fromfile
    fromfunction fromiter frompyfunc fromregex fromstring genfromtxt get_include get_printoptions getbufsize
    geterr geterrcall info load loadtxt lookfor piecewise printoptions putmask safe_eval save savetxt savez
    savez_compressed set_printoptions set_string_function setbufsize seterr seterrcall show_config show_runtime
    source test vectorize who deprecate byte_bounds get_array_wrap handle_torch_function has_torch_function
    boolean_dispatch
    """.split()  # noqa: SIM905
)
"""Functions of those modules that read files, call what they are given, or change settings."""
FUNCTIONS = ("_ArrayFunctionDispatcher", "builtin_function_or_method", "function", "ufunc")
HOOKS = ("__reduce__", "__reduce_ex__", "__setstate__", "__new__")
REVIEWED = (
    "abc", "builtins", "catboost.core", "collections", "enum", "gensim", "nltk", "numpy", "omegaconf", "pandas._libs",
    "pandas.core.arrays", "pandas.core.base", "pandas.core.dtypes", "pandas.core.generic", "pandas.core.indexes",
    "scipy.interpolate", "scipy.signal", "scipy.sparse", "scipy.spatial", "scipy.stats", "sklearn",
    "statsmodels.base.wrapper", "statsmodels.discrete", "torch.nn.modules", "torch.optim", "typing", "xgboost.core",
)  # fmt: skip
"""Modules whose own hooks were read: they make an empty object, set attributes, or warn of a version.

Two of these libraries do more, which `pickles/states.py` knows: scipy's distributions run the text that their state
holds as `_parse_arg_template`, and statsmodels' data with `restore_model_spec` evaluate their `formula`.
"""
SKIPPED = frozenset(
    """
    tests test testing _testing conftest setup __main__ f2py distutils externals datasets utils parallel linalg
    dask _build_utils _plotting plotting _test_common
    """.split()  # noqa: SIM905
)
"""Parts of packages that hold no model."""


# ------------------------------------------------------------------------------------------------- what a file uses


class Recorder(pickle._Unpickler):
    """CPython's unpickler, which writes down in `seen` each name as spelled, with the most that is done with it."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)
    seen: ClassVar = {}  # shared: torch and joblib make their own instances

    def find_class(self, module, name):
        """What the name stands for; written down as a value."""
        found = super().find_class(module, name)
        self.__dict__.setdefault("_names", []).append((found, (module, name)))
        self.seen.setdefault((module, name), "value")
        return found

    def used(self, what, use):
        """Write down that something is made or called."""
        for found, key in self.__dict__.get("_names", ()):
            if found is what and RANKS.index(self.seen[key]) < RANKS.index(use):
                self.seen[key] = use

    def load_reduce(self):
        """REDUCE: a function is called, or a class; functions that are given a class first make an object of it."""
        function, args = self.stack[-2], self.stack[-1]
        self.used(function, "built" if isinstance(function, type) else "call")
        if args and isinstance(args[0], type) and function is not getattr and not isinstance(function, type):
            self.used(args[0], "class")
        super().load_reduce()

    def load_newobj(self):
        """NEWOBJ: a class is made."""
        self.used(self.stack[-2], "class")
        super().load_newobj()

    def load_newobj_ex(self):
        """NEWOBJ_EX: a class is made."""
        self.used(self.stack[-3], "class")
        super().load_newobj_ex()

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex


OWN = {code[0]: Recorder.dispatch[code[0]] for code in (pickle.REDUCE, pickle.NEWOBJ, pickle.NEWOBJ_EX)}


def uses_of(data, way):
    """`{(module, name): use}` of one saved object, by loading it; None where it cannot be loaded."""
    Recorder.seen = seen = {}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            _load(data, way)
    except Exception:
        return None
    return seen


def _load(data, way):
    if way.endswith(".joblib"):
        return _load_joblib(data)
    if way.endswith((".pt", ".pth")):
        import torch

        machine = types.SimpleNamespace(
            Unpickler=Recorder, load=lambda file, **_: Recorder(file).load(), __name__="recorder"
        )
        return torch.load(io.BytesIO(data), pickle_module=machine, weights_only=False)
    return Recorder(io.BytesIO(data)).load()


def _load_joblib(data):
    from joblib import numpy_pickle

    class Both(Recorder, numpy_pickle.NumpyUnpickler):
        """Joblib's reading of arrays, with the recording."""

        dispatch: ClassVar = {**numpy_pickle.NumpyUnpickler.dispatch, **OWN}

    file = io.BytesIO(data)
    with contextlib.suppress(TypeError):
        return Both("", file, mmap_mode=None, ensure_native_byte_order=True).load()
    file.seek(0)
    return Both("", file, mmap_mode=None).load()


def record(path, libraries=()):
    """Record what is installed here to a file."""
    found = {}
    for thing, held in made(libraries):
        known = found.setdefault(f"{thing.library}|{thing.kind}", {})
        with contextlib.suppress(Exception):  # a variant with no new names in one protocol has none in the others
            if known and not _noted(dict(known), uses_of(pickle.dumps(held, 4), "pickle4.pkl")):
                continue
        for way, data in dumps(held, thing.library).items():
            _noted(known, uses_of(data, way))
    made_up = {"python": sys.version.split()[0], "versions": versions(), "things": found, "classes": classes(libraries)}
    path.write_text(json.dumps(made_up, indent=1, sort_keys=True) + "\n")
    return made_up


def _noted(known, uses):
    """Add uses to what is known of a kind; whether that changed it."""
    before = dict(known)
    for (module, name), use in (uses or {}).items():
        _more(known, f"{module}|{name}", use)
    return uses is None or known != before


# -------------------------------------------------------------------------------------------------------- the walk


def classes(libraries=()):
    """`[[module, name, use]]` of what nothing was made of: classes of the families without hooks, functions, storages.

    A class counts where none of its bases outside `REVIEWED` defines one of `HOOKS`, so that making it and setting its
    state runs nothing but what was read.
    """
    found = set()
    for package, module, name in FAMILIES:
        if libraries and package.partition(".")[0] not in libraries:
            continue
        with contextlib.suppress(Exception):
            base = getattr(importlib.import_module(module), name)
            for part in _modules(importlib.import_module(package)):
                for one in list(vars(part).values()):
                    if inspect.isclass(one) and issubclass(one, base) and _plain(one, package):
                        found |= {(home, one.__qualname__, "class") for home in _homes(one)}
    for module in VALUES:
        with contextlib.suppress(ImportError):
            found |= set(_values(importlib.import_module(module)))
    return sorted(map(list, found if libraries else found | set(_extra())))


def _extra():
    """What files of other machines (CUDA) and of older releases hold; torch's were read: they only make tensors."""
    for name in ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool", "ComplexFloat",
                 "ComplexDouble", "QInt8", "QInt32", "QUInt8", "QUInt4x2", "QUInt2x4", "Untyped"):  # fmt: skip
        for module in ("torch", "torch.cuda", "torch.storage"):
            yield module, name + "Storage", "value"
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state",
                 "_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage", "_rebuild_xla_tensor",
                 "_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor",
                 "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor"):  # fmt: skip
        yield "torch._utils", name, "call"
    yield "torch._tensor", "_rebuild_from_type", "call"
    for module in ("numpy.core", "numpy._core"):
        yield module, "_ufunc_reconstruct", "call"
    yield from (tuple(line.split()) for line in (OLDER + REPORTED).split("\n") if line)


def _homes(one):
    """The module of a class, and the packages above it that offer it: releases move to their public spelling."""
    yield one.__module__
    parts = one.__module__.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts))] if parts[0] != "transformers" else []
    for home in [*above, f"{parts[0]}.arrays"]:
        if getattr(sys.modules.get(home), one.__qualname__, None) is one and "._" not in home:
            yield home


def _plain(one, package):
    if "<" in one.__qualname__ or not (one.__module__ + ".").startswith(package + ".") or hasattr(one, "__del__"):
        return False
    own = [
        base for base in one.__mro__ if not (base.__module__ + ".").startswith(tuple(item + "." for item in REVIEWED))
    ]
    return not SKIPPED & set(one.__module__.split(".")) and not any(
        hook in vars(base) for base in own for hook in HOOKS
    )


def _values(part):
    for name, item in sorted(vars(part).items()):
        kind = type(item).__name__
        wanted = KINDS.get(part.__name__.partition(".")[0] if part.__name__ != "torch.nn.functional" else "", FUNCTIONS)
        if kind in wanted and not name.startswith("_") and name not in NOT_NUMERICAL:
            yield part.__name__, name, "value"
            if kind == "function" and (item.__module__ or "").startswith(part.__name__.partition(".")[0]):
                yield item.__module__, item.__qualname__, "value"


def _modules(top):
    yield top
    for info in pkgutil.walk_packages(getattr(top, "__path__", ()), top.__name__ + ".", onerror=lambda name: None):
        parts = info.name.split(".")
        if SKIPPED & set(parts[1:]):
            continue
        if top.__name__ == "transformers.models" and not parts[-1].startswith(("modeling_", "configuration_")):
            continue
        with contextlib.suppress(Exception, SystemExit):
            yield importlib.import_module(info.name)


# ---------------------------------------------------------------------------------------------- wheels, only read


NETWORKS = ("Module", "ModuleList", "ModuleDict", "Sequential", "Linear", "Conv2d", "LayerNorm", "BatchNorm2d", "LSTM",
            "LightningModule", "AttributeDict", "SimpleNamespace")  # fmt: skip
"""Bases, by their last name, whose classes count: they hold weights or plain settings."""
NO_WEIGHTS = frozenset({"demos", "engine", "export", "hub", "serve", "solutions", "trackers"})
"""Parts of those wheels whose classes fetch files, by name, when they are made."""


def read(path, wheels):
    """Record the networks in the source of some wheels to a file: top-level classes without hooks of their own."""
    found, versions_read = [], {}
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        versions_read[name] = version
        found += [[module, one, "class"] for module, one in _networks(wheel)]
    plain = {"python": "", "versions": versions_read, "things": {}, "classes": sorted(found)}
    path.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


def _networks(wheel):
    bases, hooked = {}, set()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(".py") and not (SKIPPED | NO_WEIGHTS) & set(member[:-3].split("/")):
                with contextlib.suppress(SyntaxError, UnicodeDecodeError):
                    _classes_in(member, ast.parse(archive.read(member)), bases, hooked)
    known, grown = set(NETWORKS), True
    while grown:  # a class counts by the name of its bases, across files
        more = {name for (_, name), held in bases.items() if held & known and name not in known}
        grown = bool(more)
        known |= more
    return [key for key, held in bases.items() if held & known and key not in hooked]


def _classes_in(member, tree, bases, hooked):
    module = member[:-3].replace("/", ".").replace(".__init__", "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            key = (module, node.name)
            bases[key] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if {item.name for item in node.body if isinstance(item, ast.FunctionDef)} & set(HOOKS):
                hooked.add(key)


# ------------------------------------------------------------------------------------------------------- the tables


def merge(records, known=((), ())):
    """`{framework: table}` of all records, and the names that are known only from what the measurement leaves out.

    `known` are the tables that the records are added to, and the names that were left out when they were made.
    """
    whole, seen, used = {}, {}, {}
    for table in known[0]:
        used[table["framework"]] = set(table["versions"])
        for name, use in _uses_in(table):
            _more(whole, name, use)
            if name not in known[1]:
                _more(seen, name, "class" if f"{name}|built" in known[1] else use)
    for one in records:
        fresh = one["python"].startswith(LEFT_OUT_PYTHON)
        entries = [(key.partition("|")[2], *item) for key, uses in one["things"].items() for item in uses.items()]
        entries += [("", f"{module}|{name}", use) for module, name, use in one["classes"]]
        for kind, module_name, use in entries:
            for name, how in _aliases(module_name, use):
                _more(whole, name, how)
                if not fresh and not left_out(kind):
                    _more(seen, name, how)
        for library, version in one["versions"].items():
            used.setdefault(library, set()).add(version)
    tables = _tables(whole, used)
    return tables, sorted(
        name if name not in seen else f"{name}|built"
        for table in tables.values() for name, use in _uses_in(table)
        if name not in seen or (use == "built" and seen[name] != "built")
    )  # fmt: skip


def _uses_in(table):
    for module, names in table["names"].items():
        for name, use in names.items():
            yield f"{module}|{name}", "built" if name in table["built"].get(module, ()) else use


def _tables(whole, used):
    from casemate.formats.scanning.pickles.dangers import danger_of  # of this project: tables are merged here alone

    tables = {}
    for module_name, use in sorted(whole.items()):
        module, _, name = module_name.partition("|")
        framework = PARTS_OF.get(module.partition(".")[0], module.partition(".")[0])
        if (
            framework not in NOT_OURS
            and framework not in sys.stdlib_module_names
            and not REFUSED.fullmatch(module_name)
        ):
            if danger_of(module, name):
                continue
            table = tables.setdefault(framework, {"framework": framework, "names": {}, "built": {},
                "how": HOW, "versions": sorted(used.get(framework, ()), key=_order)})  # fmt: skip
            use = "value" if module_name in KEPT else use
            table["names"].setdefault(module, {})[name] = use if use != "built" else "class"
            if use == "built":
                table["built"].setdefault(module, []).append(name)
    return tables


def note_traits(table):
    """Note in a table what can be known of its classes here; what others noted stays. Imports the library."""
    for module, names in table["names"].items():
        for name, use in names.items():
            found = None
            if use == "class" and not module.startswith("transformers.models"):  # torch's modules: they have none
                with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                    found = operator.attrgetter(name)(importlib.import_module(module))
            for trait in _traits(found) if isinstance(found, type) else ():
                known = table.setdefault(trait, {}).setdefault(module, [])
                known[:] = sorted({*known, name})
    return table


def _traits(one):
    if issubclass(one, (list, dict, set, collections.abc.MutableSequence, collections.abc.MutableMapping)):
        yield "filled"
    if issubclass(one, enum.Enum):
        yield "members"
    if any(vars(base).get("__slots__") for base in one.__mro__):
        yield "slotted"


def _aliases(module_name, use):
    """A name and those that come with it: scikit-learn's losses as Cython writes them, a distribution's own entropy."""
    yield module_name, "built" if use == "class" and BUILT.fullmatch(module_name) else use
    module, _, name = module_name.partition("|")
    if module.startswith("scipy.stats.") and re.fullmatch(r"\w+_gen|rv_sample|rv_histogram", name):
        yield f"{module_name}._entropy", "value"
    if module == "sklearn._loss._loss" and name.startswith("Cy"):
        for home in (module, "_loss"):
            yield f"{home}|{name}", "built"
            yield f"{home}|__pyx_unpickle_{name}", "call"


def _more(uses, name, use):
    if RANKS.index(use) >= RANKS.index(uses.get(name, "value")):
        uses[name] = use


def _order(version):
    return [int(part) if part.isdigit() else 0 for part in version.split("+")[0].split(".")]


PARTS_OF = {
    "_catboost": "catboost", "_loss": "sklearn", "lightning": "pytorch_lightning",
    "lightning_fabric": "pytorch_lightning",
}  # fmt: skip
"""Modules that belong to a library of another name: Cython writes `_loss` for sklearn._loss._loss."""
BY_HAND = {
    "deepspeed", "fairseq", "flair", "megatron", "mmengine", "pyannote", "pyarrow", "sentence_transformers", "setfit",
    "stdlib", "trl",
}  # fmt: skip
"""Tables that were written by hand, name by name, and are never overwritten."""
TRAITS = ("filled", "members", "slotted")
NOT_OURS = BY_HAND | {"__main__", "__builtin__", "copy_reg", "cloudpickle", "dill"}
"""The standard library has a table of its own; cloudpickle's and dill's names make code of bytes."""
HOW = (
    "Recorded from files that scripts/allowed_globals.py made and loaded in these versions; and walked to: classes "
    "whose making and state run the language's own code or code that was read, and numerical functions."
)
BUILT = re.compile(r"pandas\._libs\.tslibs\.offsets\|[A-Z]\w+|(sklearn\._loss\.)?_loss\|Cy\w+")
"""`module|name` of families that pickle themselves as calls of their classes, whose constructors were read: they check
and keep numbers, texts and days.
"""
MEASURED = (
    "__builtin__|bytes", "__builtin__|hash", "builtins|hash", "cloudpickle.cloudpickle|_builtin_type",
    "cloudpickle.cloudpickle|subimport", "pyarrow.lib|_restore_array", "pyarrow.lib|py_buffer",
    "pyarrow.lib|type_for_alias", "typing|Any", "zoneinfo|ZoneInfo", "_loss|CyExponentialLoss|built",
    "sklearn._loss._loss|CyExponentialLoss|built",
    *(f"pandas._libs.tslibs.offsets|{name}|built" for name in (
        "BYearEnd", "FY5253Quarter", "LastWeekOfMonth", "Minute", "MonthEnd", "QuarterEnd", "Second", "Week",
        "YearBegin")),
)  # fmt: skip
"""What was let through after files of the measurement had been seen to need it, by hand or by `BUILT`: left out too."""
REFUSED = re.compile(
    r"torch(\._C)?\|ScriptObject"  # native code that nobody here has read
    # Runs a program, or opens a file, that its state names.
    r"|nltk(\.classify)?(\.\w+)?\|(Senna|SvmClassifier|WekaClassifier|ARFF_Formatter|Tadm\w+"
    r"|RTEFeatureExtractor|TextCat)"
    r"|xgboost\.callback\|TrainingCheckPoint"
    # Listens on a socket, or starts threads, once it takes its state back.
    r"|sklearn\.callback(\.\w+)*\|\w+"
    r"|torch\.nn\.cpp\|\w+|ultralytics\.nn\.autobackend\|\w+"  # loads native code or models
    # Calls what it is given, reads memory at an address, or changes what other code computes.
    r"|numpy(\.\w+)*\|(implement_array_function|int_asbuffer|mask_indices|disp|deprecate_with_doc|add_newdoc_ufunc"
    r"|set_\w+|[gs]eterrobj|test_interrupt|<lambda>|bmat)"
    r"|torch\.nn\.functional\|(boolean_dispatch\.<locals>\.fn|triplet_margin_with_distance_loss)"
)
"""`module|name` seen in files or walked to, and still not let through."""
KEPT = frozenset({"numpy|object_"})
"""Classes that a pickle may hold (dtypes), and not make: they give back what they are given."""


def _left(noted, names):
    """The classes of a trait that the table still has."""
    kept = {module: [name for name in held if names.get(module, {}).get(name) in ("class", "call")]
            for module, held in noted.items()}  # fmt: skip
    return {module: held for module, held in kept.items() if held}


def _text(table):
    return json.dumps(table, indent=1, sort_keys=True) + "\n"


def main():
    """Record or merge, as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("verb", choices=("record", "walk", "read", "merge", "traits"))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--only", nargs="*", default=(), help="libraries to record")
    parser.add_argument("--afresh", action="store_true", help="merge: forget what the tables hold")
    options = parser.parse_args()
    if options.verb == "record":
        record(options.files[0], options.only)
        return
    if options.verb == "walk":
        known = json.loads(options.files[0].read_text())
        known["classes"] = classes(options.only)
        options.files[0].write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        return
    if options.verb == "read":
        read(options.files[0], options.files[1:])
        return
    if options.verb == "traits":
        for path in options.files:
            path.write_text(_text(note_traits(json.loads(path.read_text()))))
        return
    old = [json.loads(path.read_text()) for path in sorted(TABLES.glob("*.json")) if path.stem not in BY_HAND]
    known = ((), ()) if options.afresh else (old, set(json.loads(LEFT_OUT.read_text())))
    tables, unseen = merge([json.loads(path.read_text()) for path in options.files], known)
    for framework, table in tables.items():
        for trait in TRAITS:
            for one in old:
                if one["framework"] == framework and trait in one:
                    table[trait] = _left(one[trait], table["names"])
        (TABLES / f"{framework}.json").write_text(_text(table))
        print(f"{framework}: {sum(map(len, table['names'].values()))} names")
    LEFT_OUT.write_text(json.dumps(sorted({*unseen, *MEASURED}), indent=0) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
