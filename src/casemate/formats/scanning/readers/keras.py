"""Keras models as JSON: `config.json` of a .keras file, `model_config` of an .h5 file, metadata of a SavedModel.

Loading such a config imports the modules and calls the classes and functions that it names. So each name is held
against Keras' own; code (Lambda), files, addresses and pickles in it are told for themselves.
Source: `keras/src/saving/serialization_lib.py` of Keras 3; CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-12058.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.pickles.dangers import danger_of
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._keras_names import CLASSES, FUNCTIONS
from casemate.formats.scanning.readers._paths import leaves_folder
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, shown
from casemate.formats.scanning.readers._tensorflow_rules import rule_of
from casemate.formats.scanning.signs import Level, Sign, Used
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "config_signs", "looks_like_config"]

_HOMES: Final = ("module", "fn_module", "function_module", "output_shape_module", "mask_module")
_KERAS: Final = re.compile(
    r"(?:tensorflow\.(?:python\.)?|tf_)?keras(?:\.api|\.src|\._tf_keras\.keras|\.engine)*(?:\.(?P<part>\w+)(?:\.\w+)*)?"
)
_APPLICATIONS: Final = frozenset(f"{keras}.applications.convnext" for keras in ("keras", "keras.src"))
_ROOTS: Final = frozenset({"keras", "tf_keras", "tensorflow", "keras_hub", "keras_nlp", "keras_cv"})
_PARTS_TEXT: Final = (
    "layers models engine initializers regularizers constraints activations losses metrics optimizers dtype_policies "
    "quantizers ops random mixed_precision backend trainers feature_column legacy distillation preprocessing "
    "functional sequential training base_layer input_layer"
)
_PARTS: Final = frozenset(_PARTS_TEXT.split()) | {None}
_VALUES_TEXT: Final = (
    "__tensor__ __numpy__ __bytes__ __ellipsis__ __slice__ __keras_tensor__ __tuple__ __set__ __none__ __complex__ "
    "__dtype__ TensorShape tuple set TypeSpec DType dtype CompositeTensor"
)
_VALUES: Final = frozenset(_VALUES_TEXT.split())
_CODE_WHY: Final = "it is Python bytecode, which loading turns into a function and running the model calls"
_FOREIGN: Final = {  # layers that load or run what Keras itself does not describe
    "TFSMLayer": "it loads the SavedModel at a path and runs its graph, in safe mode too before 3.13.2 (CVE-2026-1462)",
    "TorchModuleWrapper": "it unpickles a torch module out of the config",
    "JaxLayer": "it calls Python functions that the config refers to",
    "FlaxLayer": "it calls Python functions that the config refers to",
}
_DANGERS: Final = {  # Keras' own names that do more than a model needs, as classes or as functions
    "turns off the refusal to load code (CVE-2025-9906)": "enable_unsafe_deserialization SafeModeScope",
    "turns bytes into code": "func_load TorchModuleWrapper LambdaCallback",
    "loads files or addresses that the config names": "get_file load_model load_weights load_img load_data TFSMLayer "
    "image_dataset_from_directory text_dataset_from_directory audio_dataset_from_directory model_from_json "
    "image_from_path count_loc",
    "writes files": "extract_archive save_model save_img save_weights plot_model model_to_dot export_savedmodel "
    "export_onnx BackupAndRestore ModelCheckpoint CSVLogger TensorBoard",
    "sends data to an address": "RemoteMonitor",
    "changes the process that loads it": "set_global_attribute LazyModule register_keras_serializable",
}
_DANGER_OF: Final = {name: why for why, names in _DANGERS.items() for name in names.split()}
_CLASSES_MADE: Final = frozenset(
    ["RaggedTensor", "SparseTensor", "sparse.SparseTensor", "TensorShape", "IndexedSlices", "Tensor"]
)
_FILES_TEXT: Final = (
    "vocabulary filepath file_path path origin fname file filename cache_dir vocabulary_file weights_path log_dir url "
    "model_path saved_model_path asset_path vocab_file merges weights idf_weights"
)
_FILES: Final = frozenset(_FILES_TEXT.split())
_SIZES_TEXT: Final = (
    "units filters input_dim output_dim max_tokens num_heads key_dim value_dim num_tokens vocabulary_size "
    "intermediate_dim kernel_size depth_multiplier n num_bins sequence_length output_sequence_length"
)
_SIZES: Final = frozenset(_SIZES_TEXT.split())
_SOUGHT: Final = 200  # names whose place is looked up
_USED: Final = 100_000
_LARGEST: Final = 1 << 31  # of any size of a layer; the largest vocabularies have millions of entries
_PACKED: Final = re.compile(r"(?:gA|UEsD|H4sI|4w|Yw)[A-Za-z0-9+/\s]{16,}+(?:={1,2}\s*)?")
_SYMBOL: Final = re.compile(
    r"(?:compat\.v[12]\.|keras\.(?:backend|activations|ops)\.)?"
    r"(?:(?:math|nn|linalg|image|signal|strings|sparse|random|bitwise|dtypes|quantization|__operators__|sets|ragged)\.)*"
    r"(?P<last>\w+)"
)
_GADGETS: Final = re.compile(
    r"(?:.*\.)?(?:io|raw_ops|summary|saved_model|data|gfile|distribute|py_func|py_function|numpy_function|"
    r"load_library|load_op_library|import_graph_def|train|profiler)(?:\..*)?"
)
_OP: Final = re.compile(r'op:\s*"([^"]*)"')
_LONGEST: Final = 1 << 23  # bytes: the largest models of Keras' own have configs of one million


def _key(*names: str) -> re.Pattern[bytes]:
    """JSON keys, with any of their letters written as an escape."""
    spelled = ("".join(rf"(?:{c}|\\u00{ord(c):02x})" for c in name) for name in names)
    return re.compile(rf'"(?i:{"|".join(spelled)})"\s*:'.encode())


_OPENING: Final = re.compile(rb"[\0\xff\xfe\xef\xbb\xbf \t\r\n]*[{\[]")  # after any mark of byte order
_FIRSTS: Final = b"\0\xff\xfe\xef\xbb\xbf \t\r\n{["
_VERSION: Final = _key("keras_version")
_CLASS: Final = _key("class_name")
_WITH: Final = _key("config", "module", "registered_name")
_MEND: Final = "rebuild the model in code that you trust and load its weights alone"


def looks_like_config(data: bytes | memoryview) -> bool:
    """Whether bytes are JSON that names classes as Keras does, in whatever encoding JSON may have."""
    if _OPENING.match(data) is None:
        return False
    if b"\0" in bytes(data[:8]) and len(data) <= _LONGEST:  # UTF-16 and UTF-32, which the parser reads too
        data = bytes(data).replace(b"\0", b"")
    if _VERSION.search(data) is not None:
        return True
    return _CLASS.search(data) is not None and _WITH.search(data) is not None


def config_signs(source: Source, desk: Desk) -> Iterator[Sign]:
    """Signs of a config, which is all of the source; raises `Damaged` where it is no JSON, or too long."""
    yield from few(_all(source, desk))


def _all(source: Source, desk: Desk) -> Iterator[Sign]:
    tree, doubled = _parsed(source, desk)
    walk = _Walk(source, desk, source.read())
    if doubled:
        why = "readers disagree on which of the two counts"
        yield walk.sign(SUSPICIOUS, "keras/same-key", f"the key {shown(doubled[0])} twice in one object", why)
    todo: list[Any] = [tree]
    while todo:
        desk.meter.tick()
        node = todo.pop()
        if isinstance(node, dict):
            yield from walk.object(node)
            todo += node.values()
        elif isinstance(node, list):
            todo += node
        elif isinstance(node, str) and len(node) > 16:
            yield from walk.text(node)


def _parsed(source: Source, desk: Desk) -> tuple[Any, list[str]]:
    if source.size > _LONGEST:
        raise Damaged(f"expected a config of at most {_LONGEST} bytes, got {source.size}")
    doubled: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                doubled.append(key)
                found[f"{key}, before it came again"] = found[key]
            found[key] = value
        return found

    try:
        return json.loads(source.read(), object_pairs_hook=once), doubled
    except RecursionError as error:
        raise Damaged("expected JSON, got objects that nest too deep for any reader") from error
    except ValueError as error:
        raise Damaged(f"expected JSON of a Keras model, got {str(error)[:80]}", getattr(error, "pos", None)) from error


@dataclass(slots=True)
class _Walk:
    """One config's rules."""

    source: Source
    desk: Desk
    data: bytes = b""
    looked: int = 0
    told: int = 0

    def sign(self, level: Level, rule: str, what: str, why: str, subject: str = "") -> Sign:
        """A sign at the place of the name it is about, as far as that can be found."""
        subject = subject.encode("utf-8", "replace").decode()  # JSON can name halves of characters
        last = subject.rpartition(".")[2].encode()
        at = self.data.find(b'"' + last + b'"') if last and self.told < _SOUGHT else 0
        self.told += 1
        return Sign(level, rule, what, self.source.place(max(at, 0)), why, _MEND, subject=subject)

    def object(self, node: dict[str, Any]) -> Iterator[Sign]:
        """Signs of one object of the config, without what lies in it."""
        yield from self._values(node)
        name = node.get("class_name")
        if name is None or not ("config" in node or "module" in node or "registered_name" in node):
            return
        if not isinstance(name, str):
            what = f"an object whose class_name is {shown(repr(name))}"
            yield self.sign(SUSPICIOUS, "keras/custom", what, "nothing that Keras writes is named so")
            return
        config = node.get("config")
        last = name.rpartition(">")[2]
        if name in _VALUES and (name.startswith("__") or not node.get("module")):
            return
        if name == "__lambda__" or last == "Lambda":
            yield from self._lambda(name, config, node)
        elif name == "function":
            yield from self._named(node, config if isinstance(config, str) else repr(config), calls=True)
        elif name == "__typespec__":
            yield from self._named(node, str(node.get("spec_name")), calls=True)
        elif last in _FOREIGN:
            level = MALICIOUS if last == "TFSMLayer" else SUSPICIOUS
            what = f"the layer {shown(name)}"
            yield self.sign(level, "keras/foreign-layer", what, _FOREIGN[last], f"keras.layers.{last}")
        else:
            yield from self._symbol(last, config)
            yield from self._named(node, name, calls=True)

    def _lambda(self, name: str, config: Any, node: dict[str, Any]) -> Iterator[Sign]:
        if name == "__lambda__":
            yield self.sign(MALICIOUS, "keras/lambda", "a function kept as code (__lambda__)", _CODE_WHY, "__lambda__")
            return
        yield from self._named(node, name, calls=True, known=frozenset({"Lambda"}))
        config = config if isinstance(config, dict) else {}
        for key in ("function", "output_shape", "mask"):
            value = config.get(key)
            if key == "output_shape" and config.get("output_shape_type") in (None, "raw"):
                continue  # a shape, or a function object that is ruled for itself
            if isinstance(value, list) or config.get(f"{key}_type") == "lambda":
                what = f"a Lambda layer with code as its {key}"
                yield self.sign(MALICIOUS, "keras/lambda", what, _CODE_WHY, "keras.layers.Lambda")
            elif isinstance(value, str):
                for module in {config.get(place) for place in _HOMES if isinstance(config.get(place), str)} or {""}:
                    yield from self._named({"module": module}, value, calls=True)

    def _named(
        self, node: dict[str, Any], name: str, *, calls: bool, known: frozenset[str] = frozenset()
    ) -> Iterator[Sign]:
        """Signs of one reference to a class or function."""
        module, registered = node.get("module"), node.get("registered_name")
        text = module if isinstance(module, str) else ""
        full = f"{text}.{name}" if text else name
        if len(self.desk.used) < _USED:
            home, own = (part[:200].encode("utf-8", "replace").decode() for part in (text, name))
            self.desk.used[Used("!/".join(self.source.path), home, own, calls)] = None
        custom = isinstance(registered, str) and ">" in registered
        if not custom and ((name in known and _family(text)) or _is_known(text, name)):
            return
        danger = danger_of(text, name) if text else ""
        if not danger and (not text or text.partition(".")[0] in _ROOTS):
            danger = _DANGER_OF.get(name, "")
        if danger:
            why = f"loading the model imports and calls it, and it {danger}"
            yield self.sign(MALICIOUS, "keras/dangerous-name", f"a reference to {shown(full)}", why, full[:200])
            return
        label = f" (registered as {shown(registered)})" if custom and isinstance(registered, str) else ""
        why = "it is not Keras' own: loading the model runs code that the config only refers to"
        yield self.sign(SUSPICIOUS, "keras/custom", f"a reference to {shown(full)}{label}", why, full[:200])

    def _symbol(self, last: str, config: Any) -> Iterator[Sign]:
        """Layers of Keras 2 that stand for a function or an operation of TensorFlow's."""
        if not isinstance(config, dict):
            return
        symbol, ops = config.get("function"), config.get("node_def")
        if last in ("TFOpLambda", "ClassMethod", "SlicingOpLambda") and isinstance(symbol, str):
            if _GADGETS.fullmatch(symbol):
                why = "it reads, writes or loads files, or runs code, with arguments out of the config"
                yield self.sign(MALICIOUS, "keras/dangerous-name", f"a call of tf.{shown(symbol)}", why, f"tf.{symbol}")
            elif not _SYMBOL.fullmatch(symbol):
                why = "it is not among the functions that only compute"
                yield self.sign(SUSPICIOUS, "keras/custom", f"a call of tf.{shown(symbol)}", why, f"tf.{symbol}")
        made = config.get("cls_symbol", config.get("cls_ref"))
        if last == "ClassMethod" and isinstance(made, str) and made.removeprefix("tf.") not in _CLASSES_MADE:
            why = "a method of it is called with arguments out of the config"
            level = MALICIOUS if _GADGETS.fullmatch(made.removeprefix("tf.")) else SUSPICIOUS
            yield self.sign(level, "keras/dangerous-name", f"the class tf.{shown(made)}", why, f"tf.{made}")
        if last == "TensorFlowOpLayer" and ops is not None:
            found = [ops.get("op")] if isinstance(ops, dict) else _OP.findall(str(ops))
            for op in found:
                level, why = rule_of(str(op))
                if level is not Level.CLEAN:
                    yield self.sign(level, "keras/operation", f"the operation {shown(str(op))}", why, str(op)[:200])

    def _values(self, node: dict[str, Any]) -> Iterator[Sign]:
        """Paths that are read, and sizes that nothing has."""
        for key, value in node.items():
            if key in _FILES and isinstance(value, str) and value:
                yield from self._file(key, value)
            elif key in _SIZES and isinstance(value, int) and value >= _LARGEST:
                what = f"{key} = {str(value)[:30]}"
                yield self.sign(SUSPICIOUS, "keras/size", what, "making such a layer exhausts the memory", key)

    def _file(self, key: str, value: str) -> Iterator[Sign]:
        reason = leaves_folder(value)
        if reason:
            what = f"{key} is {shown(value)}, which {reason}"
            why = "building the model reads that file or address, and what it holds becomes part of the model"
            yield self.sign(MALICIOUS, "keras/file", what, why, key)
        elif key == "vocabulary":
            what = f"vocabulary is the file {shown(value)}"
            yield self.sign(SUSPICIOUS, "keras/file", what, "building the model reads that file", key)

    def text(self, value: str) -> Iterator[Sign]:
        """Signs of what lies packed in a long text."""
        data = b""
        if value[0] == "\x80" or value.startswith("PK\3\4"):
            data = value.encode("latin-1", "ignore")
        elif _PACKED.fullmatch(value):
            try:
                data = base64.b64decode(value)
            except binascii.Error:
                return
        if data:
            self.looked += 1
            self.desk.meter.expand(len(data))
            yield from self.desk.look(self.source.member(f"text {self.looked}", data, inert=True))


def _family(module: str) -> bool:
    """Whether a module is one of Keras' own that hold the parts of models; a name without module is looked up there."""
    found = _KERAS.fullmatch(module)
    return not module or module in _APPLICATIONS or (found is not None and found["part"] in _PARTS)


def _is_known(module: str, name: str) -> bool:
    if module == "builtins":
        return name in FUNCTIONS
    return _family(module) and (name in CLASSES or name in FUNCTIONS or name in _SYMBOLIC)


_SYMBOLIC_TEXT: Final = "TFOpLambda SlicingOpLambda ClassMethod InstanceMethod InstanceProperty TensorFlowOpLayer"
_SYMBOLIC: Final = frozenset(_SYMBOLIC_TEXT.split())


def _claims(source: Source) -> bool:
    return not source.inert and looks_like_config(source.data)


READERS = (Reader("keras-config", _claims, config_signs, firsts=_FIRSTS),)
