"""What settings can make a loader import or fetch; the same for JSON and for YAML.

Libraries take names of modules, classes and files from such settings: transformers (`auto_map`), PEFT (`auto_mapping`),
diffusers (`model_index.json`), sentence-transformers (`modules.json`), MLflow (`loader_module`), Hydra (`_target_`),
jsonpickle (`py/...`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.pickles.dangers import danger_of
from casemate.formats.scanning.pickles.rulings import ruling
from casemate.formats.scanning.readers._json import every
from casemate.formats.scanning.readers._plain import words
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers.jinja_templates import template_signs
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["setting_signs"]

_Path = tuple[str | int, ...]
_WORDS: Final = {("model", "vocab"), ("model", "merges")}  # of tokenizer.json: words, which nothing runs
_REVIEW: Final = "read that code before you load the model, and pin its revision"
_MEND: Final = "do not load it; take the settings from the model's first publisher"
_OUTSIDE: Final = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\~]|^[A-Za-z]:[/\\]|^[a-z][a-z0-9+.\-]*://")
_TRUSTED: Final = words(  # packages whose classes settings name as a matter of course
    "torch torchvision torchaudio transformers diffusers peft sentence_transformers timm nemo pytorch_lightning "
    "lightning omegaconf monai mlflow optimum onnxruntime sklearn numpy scipy xgboost lightgbm catboost keras "
    "tensorflow flax jax open_clip fairseq2 speechbrain espnet2 spacy datasets tokenizers accelerate"
)
_PIPELINES: Final = words(  # modules of diffusers that stand for a library in its index
    "stable_diffusion stable_diffusion_xl deepfloyd_if kandinsky kandinsky2_2 kandinsky3 paint_by_example "
    "alt_diffusion versatile_diffusion latent_diffusion audioldm audioldm2 unidiffuser shap_e wuerstchen "
    "stable_cascade blip_diffusion pixart_alpha pixart_sigma hunyuandit flux stable_diffusion_3 "
    "stable_video_diffusion text_to_video_synthesis unclip semantic_stable_diffusion stable_diffusion_safe musicldm "
    "lumina cogvideo ltx"
)


def setting_signs(source: Source, settings: Any, desk: Desk) -> Iterator[Sign]:
    """Signs of settings that were parsed: dicts, lists, texts and numbers."""
    for path, value in every(settings, desk.meter.tick):
        if path[:2] in _WORDS:
            continue
        key = path[-1] if path else ""
        judge = _KEYS.get(key) if isinstance(key, str) else None
        if judge is not None:
            yield from judge(source, path, value)
        if isinstance(value, str) and "{" in value and any(str(part).startswith("chat_template") for part in path):
            data = value.encode("utf-8", "replace")
            yield from template_signs(source.member(_dotted(path), data), value, desk)
    if isinstance(settings, dict) and ("_diffusers_version" in settings or "_class_name" in settings):
        yield from _diffusers(source, settings)
    if isinstance(settings, list):
        yield from _modules(source, settings)


def _dotted(path: _Path) -> str:
    return shown(".".join(map(str, path)))


def _sign(source: Source, level: Level, rule: str, what: str, why: str) -> Sign:
    return noted(source, level, f"config/{rule}", what, why=why, mend=_MEND if level is MALICIOUS else _REVIEW, at=0)


def _texts(value: Any) -> list[str]:
    """All texts in a value, a few levels down."""
    found, todo = [], [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return found[::-1]


def _auto_map(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    names = _texts(value)
    if names:
        far = [name for name in names if "--" in name]
        why = "with trust_remote_code, loading runs that Python file" + (
            ", which lies in another repository" if far else ""
        )
        yield _sign(
            source, SUSPICIOUS, "own-code", f"auto_map names code of its own: {shown(', '.join(names[:6]))}", why
        )


def _custom_pipelines(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    names = (
        [item["impl"] for item in value.values() if isinstance(item, dict) and "impl" in item]
        if isinstance(value, dict)
        else []
    )
    if value:
        what = f"{path[-1]} names code of its own: {shown(', '.join(map(str, names)) or str(value))}"
        yield _sign(source, SUSPICIOUS, "own-code", what, "with trust_remote_code, loading runs that Python file")


def _trust(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if value is True or value in ("true", "True"):
        what = f"{_dotted(path)} is true"
        yield _sign(source, SUSPICIOUS, "trusts-code", what, "the model's own Python files are run without asking")


def _named(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    """A dotted name, or a module, that a loader imports because the settings say so."""
    for name in _texts(value):
        yield from _import(source, name, f"{_dotted(path)} names {shown(name)}")


def _import(source: Source, name: str, what: str) -> Iterator[Sign]:
    module, _, last = name.replace(":", ".").rpartition(".")
    why = danger_of(module or last, last)
    if why and ruling(module, last).level is not Level.CLEAN:
        yield _sign(source, MALICIOUS, "dangerous-name", what, f"loading imports it, and it {why}")
    elif name.split(".")[0] not in _TRUSTED:
        yield _sign(
            source, SUSPICIOUS, "unknown-module", what, "loading imports that module, whatever it is on that machine"
        )


def _auto_mapping(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if isinstance(value, dict) and isinstance(value.get("parent_library"), str):
        library, name = value["parent_library"], value.get("base_model_class")
        what = f"auto_mapping imports {shown(f'{library}.{name}')}"
        yield from _import(source, f"{library}.{name}", what)


def _weight_map(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    for name in dict.fromkeys(_texts(value)):
        if _OUTSIDE.search(name):
            what = f"weight_map leads to {shown(name)}"
            yield _sign(source, MALICIOUS, "leaves-folder", what, "the loader opens a file outside the model's folder")


def _attention(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if isinstance(value, str) and "/" in value:
        why = "loading fetches that repository and runs its code"
        yield _sign(source, SUSPICIOUS, "own-code", f"{_dotted(path)} is {shown(value)}", why)


def _code(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if "flavors" in path and isinstance(value, str) and value:
        level = MALICIOUS if path[-1] == "code" and _OUTSIDE.search(value) else SUSPICIOUS
        what = f"{_dotted(path)} is {shown(value)}"
        yield _sign(source, level, "own-code", what, "loading runs the Python code there")


def _reduce(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    what = f"{_dotted(path)}: {shown(', '.join(_texts(value)[:3]))}"
    yield _sign(source, MALICIOUS, "jsonpickle", what, "jsonpickle calls what it names when it decodes this")


def _object(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if isinstance(value, str):
        module, _, name = value.rpartition(".")
        level = Level.SUSPICIOUS if not danger_of(module, name) else MALICIOUS
        what = f"{_dotted(path)} names {shown(value)}"
        yield _sign(source, level, "jsonpickle", what, "jsonpickle makes an object of that class when it decodes this")


_KEYS: Final[dict[str, Callable[[Source, _Path, Any], Iterator[Sign]]]] = {
    "auto_map": _auto_map,
    "custom_pipelines": _custom_pipelines,
    "custom_pipeline": _custom_pipelines,
    "trust_remote_code": _trust,
    "auto_mapping": _auto_mapping,
    "weight_map": _weight_map,
    "loader_module": _named,
    "_target_": _named,
    "attn_implementation": _attention,
    "_attn_implementation": _attention,
    "_attn_implementation_internal": _attention,
    "code": _code,
    "model_code_path": _code,
    "py/reduce": _reduce,
    "py/repr": _reduce,
    "py/object": _object,
    "py/type": _object,
    "py/function": _object,
}


def _diffusers(source: Source, settings: dict[str, Any]) -> Iterator[Sign]:
    for key, value in settings.items():
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not isinstance(value[0], str)
            or not isinstance(value[1], str)
        ):
            continue
        what = f"{shown(key)} is of the class {shown(f'{value[0]}.{value[1]}')}"
        if key == "_class_name":
            yield _sign(source, SUSPICIOUS, "own-code", what, "loading runs that Python file beside it")
        elif value[0] not in _PIPELINES and not key.startswith("_"):
            yield from _import(source, f"{value[0]}.{value[1]}", what)


def _modules(source: Source, settings: list[Any]) -> Iterator[Sign]:
    """`modules.json` of sentence-transformers."""
    for item in settings[:1000]:
        if isinstance(item, dict) and {"idx", "name", "path", "type"} <= set(item) and isinstance(item["type"], str):
            yield from _import(
                source, item["type"], f"the module {shown(str(item['name']))} is a {shown(item['type'])}"
            )
