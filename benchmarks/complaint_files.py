"""Benign files of which users of other scanners complain in their trackers, made here: one case for each complaint.

A pickle is written opcode by opcode from the names that the thread reports, so that none of the libraries is needed;
where this project has the library, the file is its own. `right` is what a scan should say, and `because` why it is not
clean where it is not. Shared by the test of them and by `evidence_complaints`.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

__all__ = ["Case", "cases", "of_libraries", "of_texts", "of_torch"]

SAFE = "torch.load(weights_only=True)"


@dataclass(frozen=True)
class Case:
    """A complaint: its thread, which tool it is about, what the file is, and what is right to say of it."""

    thread: str
    tool: str
    what: str
    name: str
    make: Callable[[], bytes]
    right: str = "clean"
    because: str = ""


# --------------------------------------------------------------------------------------------------- pickles by hand


class Name:
    """An import, by its module and name."""

    def __init__(self, name: str) -> None:
        self.module, self.name = name.split()


class Call:
    """A call (`REDUCE`), or with `new` an empty object (`NEWOBJ`); `state` is set on what it gives."""

    def __init__(self, by: str, *args: Any, state: Any = None, new: bool = False) -> None:
        self.by, self.args, self.state, self.new = Name(by), args, state, new


class Stored:
    """A storage of torch's, by its key, class and count of numbers."""

    def __init__(self, key: str, kind: str, count: int) -> None:
        self.parts = ("storage", Name(f"torch {kind}"), key, "cpu", count)


class Writer(pickle._Pickler):  # type: ignore[name-defined, misc]
    """CPython's pickler, for names that nobody here can import."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_name(self, item: Name) -> None:
        """Write an import."""
        self.write(f"c{item.module}\n{item.name}\n".encode())

    def save_call(self, item: Call) -> None:
        """Write a call and the state of what it gives."""
        self.save(item.by)
        self.save(item.args)
        self.write(pickle.NEWOBJ if item.new else pickle.REDUCE)
        self.memoize(item)
        if item.state is not None:
            self.save(item.state)
            self.write(pickle.BUILD)

    def save_stored(self, item: Stored) -> None:
        """Write the key by which torch's loader is asked for a storage."""
        self.save(item.parts)
        self.write(pickle.BINPERSID)

    dispatch[Name], dispatch[Call], dispatch[Stored] = save_name, save_call, save_stored


def pickled(value: Any, protocol: int = 2) -> bytes:
    """The pickle of plain values, names and calls."""
    out = io.BytesIO()
    Writer(out, protocol).dump(value)
    return out.getvalue()


def new(name: str, **state: Any) -> Call:
    """An object of a class, with its state."""
    return Call(name, state=state or None, new=True)


def module(name: str, /, **state: Any) -> Call:
    """A layer of a network."""
    empty = {key: Call("collections OrderedDict") for key in ("_parameters", "_buffers", "_modules", "_forward_hooks")}
    return new(name, training=True, **{**empty, **state})


def tensor(key: str = "0", count: int = 4, kind: str = "FloatStorage") -> Call:
    """A tensor whose numbers lie in the zip under `key`."""
    hooks = Call("collections OrderedDict")
    return Call("torch._utils _rebuild_tensor_v2", Stored(key, kind, count), 0, (count,), (1,), False, hooks)


def saved(value: Any, storages: dict[str, bytes] | None = None, folder: str = "archive") -> bytes:
    """As `torch.save` writes it; storage 0 holds four zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{folder}/data.pkl", pickled(value))
        archive.writestr(f"{folder}/byteorder", "little")
        for key, data in ({"0": bytes(16)} | (storages or {})).items():
            archive.writestr(f"{folder}/data/{key}", data)
        archive.writestr(f"{folder}/version", "3\n")
    return out.getvalue()


def member(cls: str, name: str) -> Call:
    """A member of an enumeration, as older Pythons pickle it."""
    return Call("__builtin__ getattr", Name(cls), name)


def scalar(value: float = 0.5) -> Call:
    """A number of numpy's, in protocol 2."""
    text = struct.pack("<d", value).decode("latin-1")
    return Call("numpy.core.multiarray scalar", dtype("f8"), Call("_codecs encode", text, "latin1"))


def dtype(kind: str = "f8") -> Call:
    """A type of numpy's numbers."""
    return Call("numpy dtype", kind, False, True, state=(3, "<", None, None, None, -1, -1, 0))


def array(kind: str = "u4", data: bytes = bytes(16), home: str = "numpy.core.multiarray") -> Call:
    """An array of numpy's, in protocol 2."""
    encoded = Call("_codecs encode", data.decode("latin-1"), "latin1")
    made = (Name("numpy ndarray"), (0,), Call("_codecs encode", "b", "latin1"))
    return Call(f"{home} _reconstruct", *made, state=(1, (4,), dtype(kind), False, encoded))


# ------------------------------------------------------------------------------------------------------------- torch


def training_args() -> Any:
    """The names that the hub lists for a `training_args.bin`."""
    hf, acc = "transformers.trainer_utils", "accelerate.utils.dataclasses"
    return new(
        "transformers.training_args TrainingArguments", output_dir="out", learning_rate=5e-5,
        optim=member("transformers.training_args OptimizerNames", "ADAMW_TORCH"),
        lr_scheduler_type=member(f"{hf} SchedulerType", "LINEAR"), hub_strategy=Call(f"{hf} HubStrategy", "every_save"),
        evaluation_strategy=member(f"{hf} IntervalStrategy", "EPOCH"), device=Call("torch device", "cuda", 0),
        accelerator_config=new("transformers.trainer_pt_utils AcceleratorConfig", split_batches=False),
        distributed_state=new("accelerate.state PartialState", distributed_type=Call(f"{acc} DistributedType", "NO")),
    )  # fmt: skip


def yolo() -> Any:
    """A network of Ultralytics with the method that its segmentation and pose models keep."""
    home = "ultralytics.nn.modules"
    head = module(
        f"{home}.head Segment", nc=1, detect=Call("__builtin__ getattr", Name(f"{home}.head Detect"), "forward")
    )
    block = module(f"{home}.block C2f", cv1=module(f"{home}.conv Conv", conv=module("torch.nn.modules.conv Conv2d")))
    layers = module("torch.nn.modules.container Sequential", _modules={"0": block, "1": head})
    net = module("ultralytics.nn.tasks SegmentationModel", model=layers, args={"task": "segment"}, names={0: "person"})
    return {"epoch": -1, "model": net, "ema": None, "train_args": {}, "date": "2023-05-01T00:00:00", "fit": scalar()}


def classifier() -> Any:
    """Ultralytics' classifiers keep the transforms of images."""
    home = "torchvision.transforms"
    mode = Call("__builtin__ getattr", Name(f"{home}.functional InterpolationMode"), "BILINEAR")
    parts = [new(f"{home}.transforms Resize", size=224, interpolation=mode), new(f"{home}.transforms ToTensor")]
    return {"model": module("ultralytics.nn.tasks ClassificationModel",
                            transforms=new(f"{home}.transforms Compose", transforms=parts))}  # fmt: skip


def lightning() -> Any:
    """A checkpoint of PyTorch Lightning with settings of OmegaConf, as voice activity models are published."""
    home = "omegaconf"
    meta = new(f"{home}.base ContainerMetadata", ref_type=Name("typing Any"), object_type=Name("__builtin__ list"))
    node = new(f"{home}.nodes AnyNode", _val=1, _metadata=new(f"{home}.base Metadata", ref_type=Name("typing Any")))
    task = "pyannote.audio.core.task"
    spec = new(f"{task} Specifications", problem=Call(f"{task} Problem", 1), resolution=Call(f"{task} Resolution", 1))
    return {
        "state_dict": Call("collections OrderedDict"), "callbacks": {
            Name("pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint"): {"best_model_score": tensor()},
            Name("pytorch_lightning.callbacks.early_stopping EarlyStopping"): {"wait_count": 0}},
        "hyper_parameters": new("omegaconf.listconfig ListConfig", _metadata=meta, _content=[node]),
        "pyannote.audio": {"versions": {"torch": Call("torch.torch_version TorchVersion", "2.0", new=True)},
                           "specifications": spec},
        "counts": Call("collections defaultdict", Name("__builtin__ int")),
    }  # fmt: skip


def history() -> Any:
    """What OpenMMLab's training keeps of its losses: methods of an object inside its own state."""
    buffer = new("mmengine.logging.history_buffer HistoryBuffer", _log_history=array())
    same = {name: Call("__builtin__ getattr", buffer, name) for name in ("min", "max", "current", "mean")}
    return {"message_hub": {"log": buffer}, "methods": same, "state_dict": {"w": tensor()}}


def weights(**more: Any) -> Any:
    """Names with tensors."""
    return {"state_dict": {"layer.weight": tensor()}, **more}


def numbers(count: int = 1500) -> bytes:
    """A checkpoint of many small tensors of half precision, as random as trained ones; some begin like files."""
    rng = np.random.default_rng(0)
    data = {str(key): bytes(rng.bytes(64)) for key in range(1, count)}
    data |= {"1": bytes(8) + b"\xa4{" + bytes(54), "2": b"\xff" * 8 + b"{\x01" + bytes(54)}
    data |= {"3": b"\x80\x02\x83\1\2" + bytes(59), "4": b"\x80\x04\x8e" + b"\xff" * 61, "5": b"\x1f\x8b" + bytes(62)}
    value = {f"w{key}": tensor(key, 32, "HalfStorage") for key in data}
    return saved(value, data)


def of_torch() -> Iterator[Case]:
    """Checkpoints."""
    hub, comfy, web = "Hugging Face", "ComfyUI (weights_only)", "stable-diffusion-webui"
    getattr_ = "a YOLO model that keeps the method Detect.forward by getattr"
    person = lambda: saved({"model": module("ultralytics.nn.tasks PoseModel", model=yolo())}, folder="person_yolov8n")  # noqa: E731
    yield Case("huggingface/transformers#28580", hub, "training_args.bin: getattr on enumerations", "training_args.bin",
               lambda: saved(training_args()))  # fmt: skip
    for thread, tool in (("Bing-su/adetailer#102", "picklescan"), ("Bing-su/adetailer#532", hub),
                         ("Comfy-Org/ComfyUI#6637", comfy), ("ltdrdata/ComfyUI-Impact-Subpack#36", comfy)):  # fmt: skip
        yield Case(thread, tool, getattr_, "person_yolov8n-seg.pt", lambda: saved(yolo()))
    yield Case("ultralytics/ultralytics#24852", SAFE, "a YOLO classifier with InterpolationMode.BILINEAR",
               "yolo11n-cls.pt", lambda: saved(classifier()))  # fmt: skip
    yield Case("ultralytics/ultralytics#24852", SAFE, "a pose model, whose name makes the zip look like a pickle",
               "yolov8n-pose.pt", person)  # fmt: skip
    for thread in ("m-bain/whisperX#1304", "pyannote/pyannote-audio#1908", "Comfy-Org/ComfyUI#2963"):
        yield Case(thread, SAFE, "a Lightning checkpoint with OmegaConf, callbacks by class and pyannote's task",
                   "pytorch_model.ckpt", lambda: saved(lightning()))  # fmt: skip
    plain = {
        ("open-mmlab/mmengine#1655", SAFE, "HistoryBuffer with its own methods"): history,
        ("RVC-Project/Retrieval-based-Voice-Conversion-WebUI#2575", SAFE, "fairseq's Dictionary"): lambda: weights(
            args=new("argparse Namespace", lr=[0.1]), task=new("fairseq.data.dictionary Dictionary", symbols=["a"])),
        ("OHF-Voice/piper1-gpl#108", SAFE, "a path among the settings"): lambda: weights(
            hyper_parameters={"dataset": Call("pathlib PosixPath", "/", "data", "x")}),
        ("DCY1117/MangaQuick#8", SAFE, "functools.partial of a layer"): lambda: weights(
            norm=Call("functools partial", Name("torch.nn.modules.normalization LayerNorm"), state=(
                Name("torch.nn.modules.normalization LayerNorm"), (), {"eps": 1e-6}, None))),
        ("Lightning-AI/pytorch-lightning#21757", SAFE, "a loss among the settings"): lambda: weights(
            hyper_parameters={"loss": module("torch.nn.modules.loss MSELoss", reduction="mean")}),
        ("modelscope/ms-swift#5808", SAFE, "DeepSpeed's LossScaler"): lambda: weights(
            scaler=new("deepspeed.runtime.fp16.loss_scaler LossScaler", cur_scale=1, dynamic=False),
            stage=Call("deepspeed.runtime.zero.config ZeroStageEnum", 2)),
        ("ROCm/Megatron-LM#64", SAFE, "Megatron's arguments, and a checkpoint inside a BytesIO"): lambda: weights(
            args=new("argparse Namespace", model_type=Call("megatron.core.enums ModelType", 1)),
            extra=_held(saved(weights()))),
        ("AUTOMATIC1111/stable-diffusion-webui#5634", web, "an embedding made on Apple's GPU"): lambda: {
            "string_to_param": {"*": Call("torch._utils _rebuild_device_tensor_from_numpy", array("f4"),
                                          Name("torch float32"), "mps", True)}},
        ("klimaleksus/stable-diffusion-webui-embedding-merge#14", web, "a file named byteorder in the zip"): weights,
        ("AUTOMATIC1111/stable-diffusion-webui#3878", web, "a textual inversion embedding"): lambda: {
            "string_to_token": {"*": 265}, "string_to_param": Call("torch.nn.modules.container ParameterDict", state={
                "_parameters": {"*": Call("torch._utils _rebuild_parameter", tensor(), True,
                                          Call("collections OrderedDict"))},
                "training": True}, new=True), "name": "x", "step": 0},
        ("invoke-ai/InvokeAI#7814", "picklescan", "the weights of an upscaler (ESRGAN)"): lambda: {
            "params_ema": {"w": tensor()}},
        ("huggingface/transformers#34631", SAFE, "rng_state.pth of the Trainer"): lambda: {
            "python": (3, (1, 2), None), "numpy": ("MT19937", array(home="numpy._core.multiarray"), 624, 0, 0.0),
            "cpu": tensor(kind="ByteStorage")},
        ("Comfy-Org/ComfyUI#9655", comfy, "a number of numpy's among the weights"): lambda: weights(best=scalar()),
        ("zxix/stable-diffusion-pickle-scanner#15", "pickle-scanner", "a Stable Diffusion .ckpt"): lambda: weights(
            global_step=1, lr_schedulers=[{"base_lrs": [scalar()]}]),
        ("promptfoo/modelaudit#408", "modelaudit", "a small BERT: many opcodes for few bytes"): lambda: {
            f"encoder.layer.{at}.weight": tensor() for at in range(203)},
    }  # fmt: skip
    for (thread, tool, what), make in plain.items():
        yield Case(thread, tool, what, "model.ckpt", functools.partial(_made, make))
    own = "the class is of a folder beside the model, or of an application: its code has to be looked at"
    yield Case("andrw3000/vespai#8", SAFE, "a YOLOv5 model, whose classes are of a folder named models",
               "yolov5s.pt", lambda: saved({"model": module("models.yolo DetectionModel")}), "suspicious",
               own)  # fmt: skip
    loads = "flair's embeddings fetch a model by a name of the file when they take their state back"
    yield Case("flairNLP/flair#3047", hub, "ner-english-large", "pytorch_model.bin", lambda: saved(weights(
        tag_dictionary=new("flair.data Dictionary", idx2item=["a"]),
        embeddings=new("flair.embeddings.token TransformerWordEmbeddings", model="x"))), "suspicious",
        loads)  # fmt: skip
    yield Case("promptfoo/modelaudit#253", "modelaudit", "thousands of tensors, some of which begin like other formats",
               "pytorch_model.bin", numbers)  # fmt: skip


def _held(data: bytes) -> Call:
    """An open file of bytes."""
    made = Call("_io BytesIO", new=True)
    made.state = (data, 0, None)
    return made


def _made(make: Callable[[], Any]) -> bytes:
    return saved(make())


# --------------------------------------------------------------------------------------- scikit-learn and other pickles


@functools.cache
def _fitted() -> tuple[Any, Any, Any]:
    from sklearn.ensemble import IsolationForest
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    rows = np.random.default_rng(0).normal(size=(20, 2))
    forest = IsolationForest(n_estimators=3, random_state=0).fit(rows)
    pipe = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression())
    return forest, pipe.fit(np.abs(rows), rows[:, 0] > 0), TfidfVectorizer().fit(["a model of texts", "another text"])


def _dumped(which: int, *, compress: int = 0) -> bytes:
    import joblib

    out = io.BytesIO()
    joblib.dump(_fitted()[which], out, compress=compress)
    return out.getvalue()


def _skops() -> bytes:
    """As skops 0.16 writes an estimator without parameters."""
    empty = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [], "__id__": 3}
    held = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}, "__id__": 2}
    home = {
        "__class__": "LogisticRegression",
        "__module__": "sklearn.linear_model._logistic",
        "__loader__": "ObjectNode",
    }
    schema = {**home, "__id__": 1, "content": {**held, "key_types": empty}, "protocol": 2, "_skops_version": "0.16.0"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
        archive.writestr(
            "README.md", "# Card\nTrained with `sklearn.linear_model.LogisticRegression`, saved with joblib.\n"
        )
    return out.getvalue()


def _npz() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, a=np.arange(9.0), b=np.ones((2, 2)))
    return out.getvalue()


def _booster() -> bytes:
    import xgboost

    rows = np.random.default_rng(0).normal(size=(20, 2))
    model = xgboost.train({"max_depth": 2}, xgboost.DMatrix(rows, rows[:, 0]), 2)
    return bytes(model.save_raw("json"))


def _onnx() -> bytes:
    from onnx import TensorProto, helper

    node = helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    known = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=known).SerializeToString()


def of_libraries() -> Iterator[Case]:
    """Models of scikit-learn and boosters, arrays, graphs."""
    own = "a class of one's own: its code has to be looked at"
    record = (Name("numpy recarray"), (0,), Call("_codecs encode", "b", "latin1"))
    yield Case("protectai/modelscan#5", "modelscan", "a pipeline of scikit-learn with np.log1p", "pipe.pkl",
               lambda: pickle.dumps(_fitted()[1]))  # fmt: skip
    yield Case("promptfoo/modelaudit#590", "modelaudit", "an IsolationForest", "isolation_forest.pkl",
               lambda: pickle.dumps(_fitted()[0], 2))  # fmt: skip
    yield Case("promptfoo/modelaudit#422", "modelaudit", "scikit-learn by joblib, compressed", "model.joblib",
               lambda: _dumped(0, compress=3))  # fmt: skip
    yield Case(
        "promptfoo/modelaudit#1339", "modelaudit", "skops with a README that names scikit-learn", "model.skops", _skops
    )
    yield Case("promptfoo/modelaudit#423", "modelaudit", ".npz, which is a zip", "weights.npz", _npz)
    yield Case(
        "promptfoo/modelaudit#389", "modelaudit", "XGBoost's JSON: numbers written as texts", "model.json", _booster
    )
    yield Case("promptfoo/modelaudit#400", "modelaudit", "ONNX with operators of com.microsoft", "model.onnx", _onnx)
    yield Case("mmaitre314/picklescan#57", "picklescan", "numbers beside an ONNX file, as .bin", "vitpose_data.bin",
               lambda: np.random.default_rng(1).bytes(4096), "unknown",
               "raw numbers have no format: no alarm, no pass")  # fmt: skip
    yield Case("mmaitre314/picklescan#11", "picklescan", "an array as .npy", "a.npy", lambda: _npy(np.arange(9.0)))
    yield Case("huggingface/setfit#224", "Hugging Face", "the head of a SetFit model", "model_head.pkl",
               lambda: pickled(module("setfit.modeling SetFitHead",
                                      linear=module("torch.nn.modules.linear Linear", in_features=8))))  # fmt: skip
    yield Case("trailofbits/fickling#226", "fickling", "a recarray, used later", "objs_t_test.pkl", lambda: pickled(
        [scalar(), Call("numpy.core.multiarray _reconstruct", *record, state=(1, (4,), dtype(), False, bytes(32)))],
        3))  # fmt: skip
    yield Case("trailofbits/fickling#63", "fickling", "an object of a plain class", "test.pkl",
               lambda: pickled(new("__main__ Test", a=1), 4), "suspicious", own)  # fmt: skip
    yield Case("NatLibFi/Annif#897", "Hugging Face", "TfidfVectorizer with an application's analyzer", "vectorizer",
               lambda: pickled(new("sklearn.feature_extraction.text TfidfVectorizer", tokenizer=Call(
                   "builtins getattr", new("annif.analyzer.snowball SnowballAnalyzer"), "tokenize_words")), 4),
               "suspicious", own)  # fmt: skip


def _npy(value: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, value)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------------- texts


COHERE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}You answer the "
    "user's requests. You may call tools; eval of your answers is done later.{% endif %}{% for message in messages %}"
    "<|START|>{{ message['role'] }}<|MID|>{{ message['content'] | trim }}<|END|>{% endfor %}"
)


def _gguf() -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    pairs = {
        "general.architecture": "llama", "general.license.link": "https://example.org/license?id=1",
        "tokenizer.chat_template": COHERE,
    }  # fmt: skip
    body = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def of_texts() -> Iterator[Case]:
    """What lies beside a model, and what lies in headers."""
    tool, vocab = (
        "modelaudit",
        {word: at for at, word in enumerate(("eval", "os.system", "password", "rm", "http://a.b/"))},
    )
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": ["e v"]}}
    labels = {
        "id2label": {"0": "execute", "1": "import", "2": "system"},
        "description": "runs commands",
        "model_type": "bert",
    }
    pmml = '<?xml version="1.0"?>\n<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/></PMML>'
    rows = (
        (1653, "vocab.txt with trojan and zombie", "vocab.txt", b"[PAD]\ntrojan\nzombie\n##s\nbotany\n"),
        (412, "addresses among the words of a vocabulary", "vocab.json", _json(vocab)),
        (1638, "tokenizer.json", "tokenizer.json", _json(tokenizer)),
        (229, "labels and descriptions in config.json", "config.json", _json(labels)),
        (
            1647,
            "prose in a chat template: the user's requests.",
            "tokenizer_config.json",
            _json({"chat_template": COHERE}),
        ),
        (1651, "GGUF with the address of its licence and a chat template", "model.gguf", _gguf()),
        (423, "PMML with an XML declaration and a namespace", "model.pmml", pmml.encode()),
        (164, "the hub's notes on its cache", ".gitignore", b"*\n"),
    )
    for number, what, name, data in rows:
        yield Case(f"promptfoo/modelaudit#{number}", tool, what, name, functools.partial(bytes, data))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from of_torch()
    yield from of_libraries()
    yield from of_texts()
