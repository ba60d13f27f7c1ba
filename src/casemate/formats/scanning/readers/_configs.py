"""What settings can make a loader import or fetch; the same for JSON and for YAML.

Libraries take names of modules, classes and files from such settings: transformers (`auto_map`), PEFT (`auto_mapping`),
diffusers (`model_index.json`), sentence-transformers (`modules.json`), MLflow (`loader_module`), Hydra (`_target_`,
CVE-2025-23304), torchtune (`_component_`), Lightning (`class_path`), MONAI (`$` before Python), GluonTS (`__kind__`),
LangChain (`lc`), jsonpickle (`py/...`). The subject of a sign about code that lies beside the file is that code's name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.pickles.dangers import danger_of
from casemate.formats.scanning.pickles.rulings import ruling
from casemate.formats.scanning.readers._json import every
from casemate.formats.scanning.readers._plain import words
from casemate.formats.scanning.readers._python_calls import COMMAND
from casemate.formats.scanning.readers._requirements import requirement_signs
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, shown
from casemate.formats.scanning.readers.jinja_templates import embedded_signs, hints, template_signs
from casemate.formats.scanning.readers.python_sources import python_signs
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["setting_signs"]

_Path = tuple[str | int, ...]
_WORDS: Final = {("model", "vocab"), ("model", "merges")}  # of tokenizer.json: words, which nothing runs
_CELLS: Final = {("cells",), ("worksheets",)}  # of a notebook, which has its own reader
_REVIEW: Final = "read that code before you load the model, and pin its revision"
_MEND: Final = "do not load it; take the settings from the model's first publisher"
_OUTSIDE: Final = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\~]|^[A-Za-z]:[/\\]|^[a-z][a-z0-9+.\-]*://")
_TRUSTED: Final = words(  # packages whose classes settings name as a matter of course
    "torch torchvision torchaudio transformers diffusers peft sentence_transformers timm nemo pytorch_lightning "
    "lightning omegaconf monai mlflow optimum onnxruntime sklearn numpy scipy xgboost lightgbm catboost keras "
    "tensorflow flax jax open_clip fairseq2 speechbrain espnet2 spacy datasets tokenizers accelerate torchtune "
    "gluonts langchain langchain_core langchain_openai langchain_community"
)
_DOES: Final = re.compile(  # functions of those packages that do more than make an object
    r"(?:load(?!_dataset|_from_disk)|run|exec|eval|import|instantiate|restore|download|fetch|open|read|write|save|main"
    r"|call|locate|optional_import|from_config_dict|get_(?:class|method|object)|direct_\w+)(?:_\w+|s)?"
)
_BUILTINS: Final = words(
    "eval exec open compile getattr setattr delattr globals vars locals breakpoint input __import__"
)
_TEMPLATE: Final = re.compile(r"(?i)template|prompt|jinja")
_RESOLVER: Final = re.compile(r"\$\{(eval|exec|py|python|python_code|code|import|shell|cmd|sh) {0,8}:")
_IN_FLAVOR: Final = words("model_path path data pickled_model python_model model_data code_paths python_model_artifact")
_IMPORTS: Final = "import os, sys, subprocess, shutil, importlib, socket, runpy, pty, ctypes, pickle, builtins\n"
_MOST: Final = 20  # names of one list that have a sign of their own
_LONG: Final = 100_000  # characters of a value that may be a command
_PIPELINES: Final = words(  # modules of diffusers that stand for a library in its index
    "stable_diffusion stable_diffusion_xl deepfloyd_if kandinsky kandinsky2_2 kandinsky3 paint_by_example "
    "alt_diffusion versatile_diffusion latent_diffusion audioldm audioldm2 unidiffuser shap_e wuerstchen "
    "stable_cascade blip_diffusion pixart_alpha pixart_sigma hunyuandit flux stable_diffusion_3 "
    "stable_video_diffusion text_to_video_synthesis unclip semantic_stable_diffusion stable_diffusion_safe musicldm "
    "lumina cogvideo ltx"
)


def setting_signs(source: Source, settings: Any, desk: Desk) -> Iterator[Sign]:
    """Signs of settings that were parsed: dicts, lists, texts and numbers."""
    whole = isinstance(settings, dict)
    for path, value in every(settings, desk.meter.tick):
        if path[:2] in _WORDS:
            continue
        key = path[-1] if path else ""
        judge = _KEYS.get(key) if isinstance(key, str) else None
        if judge is not None:
            yield from judge(source, path, value)
        if isinstance(value, str) and path[:1] not in _CELLS:
            yield from _text(source, path, value, desk, whole=whole)
        elif isinstance(value, dict):
            yield from _made(source, path, value)
    if isinstance(settings, dict) and ("_diffusers_version" in settings or "_class_name" in settings):
        yield from _diffusers(source, settings)
    if isinstance(settings, dict) and settings.get("model_type") == "lightglue" and settings.get("trust_remote_code"):
        what, why = (
            "trust_remote_code is set for LightGlue",
            "transformers 5.2 obeys it against its user (CVE-2026-5241)",
        )
        yield _sign(source, MALICIOUS, "trusts-code", what, why)
    if isinstance(settings, list):
        yield from _modules(source, settings)


def _text(source: Source, path: _Path, value: str, desk: Desk, *, whole: bool) -> Iterator[Sign]:
    """What a text among the settings is run as: a template, an expression, a command."""
    if "{" in value and any(str(part).startswith("chat_template") for part in path):
        yield from template_signs(source.member(_dotted(path), value.encode("utf-8", "replace")), value, desk)
    elif whole and "{" in value and hints(value):  # rows of data may speak of anything
        part = source.member(_dotted(path), value.encode("utf-8", "replace"))
        yield from embedded_signs(part, value, desk, rendered=any(_TEMPLATE.search(str(key)) for key in path))
    if "$" in value:
        yield from _expression(source, path, value, desk)
    if whole and ("|" in value or "/dev/" in value) and len(value) < _LONG and (found := COMMAND.search(value)):
        what = f"{_dotted(path)} holds the command {shown(found[0])}"
        yield _sign(source, SUSPICIOUS, "command", what, "it fetches and runs what somebody else chose")


def _expression(source: Source, path: _Path, value: str, desk: Desk) -> Iterator[Sign]:
    """Python that MONAI evaluates (`$...`), or a resolver of OmegaConf's whose name says that it does."""
    found = _RESOLVER.search(value)
    if found:
        what = f"{_dotted(path)} is resolved by {shown(found[1])}"
        yield _sign(source, SUSPICIOUS, "resolver", what, "a resolver of that name runs what the settings say")
        code = value[found.end() :].rpartition("}")[0].strip(" '\"")
    elif not value.startswith("$") or value.startswith("${"):
        return
    else:
        code = value[1:]
    part = source.member(_dotted(path), code.encode("utf-8", "replace"))
    try:
        for sign in python_signs(part, _IMPORTS + re.sub(r"@[\w:.]*", "_", code).strip(), desk):
            yield dataclasses.replace(sign, place=part.place(0))
    except Damaged:
        return  # a price, or a variable of a shell


def _made(source: Source, path: _Path, value: dict[str, Any]) -> Iterator[Sign]:
    """Objects that a decoder makes of a dict with certain keys."""
    kind, identity = value.get("__kind__"), value.get("id")
    if kind in ("instance", "stateful", "type") and isinstance(value.get("class"), str):
        yield from _import(source, value["class"], f"{_dotted(path)} makes {shown(value['class'])} by __kind__")
    if value.get("lc") == 1 and isinstance(identity, list):
        name = ".".join(map(str, identity))
        if value.get("type") == "constructor":
            yield from _import(source, name, f"{_dotted(path)} makes {shown(name)} by LangChain")
        elif value.get("type") == "secret":
            what, why = f"{_dotted(path)} asks for the secret {shown(name)}", "it is read from the environment"
            yield _sign(source, SUSPICIOUS, "secret", what, why)
    target = value.get("_target_")
    if isinstance(target, str) and target.startswith("hydra.") and isinstance(value.get("path"), str):
        yield from _import(source, value["path"], f"{_dotted(path)} finds {shown(value['path'])} by {shown(target)}")


def _dotted(path: _Path) -> str:
    return shown(".".join(map(str, path)))


def _sign(source: Source, level: Level, rule: str, what: str, why: str, *, subject: str = "") -> Sign:
    mend = _MEND if level is MALICIOUS else _REVIEW
    return Sign(level, f"config/{rule}", what, source.place(0), why, mend, subject=subject[:200])


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
    names = list(dict.fromkeys(_texts(value)))
    for name in names[:_MOST]:
        yield _own_code(source, f"auto_map names code of its own: {shown(name)}", name)
    if len(names) > _MOST:
        yield _own_code(source, f"auto_map names {len(names) - _MOST} more", "")


def _own_code(source: Source, what: str, name: str) -> Sign:
    far = ", which lies in another repository" if "--" in name or "/" in name else ""
    why = f"with trust_remote_code, loading runs that Python file{far}"
    return _sign(source, SUSPICIOUS, "own-code", what, why, subject=name)


def _custom_pipelines(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    items = list(value.values()) if isinstance(value, dict) else [value]
    names = [item.get("impl", "") if isinstance(item, dict) else item for item in items]
    for name in names[:_MOST] if value else ():
        yield _own_code(source, f"{path[-1]} names code of its own: {shown(str(name))}", str(name))


def _trust(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if value is True or value in ("true", "True"):
        what = f"{_dotted(path)} is true"
        yield _sign(source, SUSPICIOUS, "trusts-code", what, "the model's own Python files are run without asking")


def _named(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    """A dotted name, or a module, that a loader imports because the settings say so."""
    for name in _texts(value):
        yield from _import(source, name, f"{_dotted(path)} names {shown(name)}")


def _import(source: Source, name: str, what: str) -> Iterator[Sign]:
    file, _, _ = name.partition(".py:")
    if file != name:
        level = MALICIOUS if _OUTSIDE.search(file) else SUSPICIOUS
        yield _sign(source, level, "own-code", what, "loading runs that Python file", subject=f"{file}.py")
        return
    module, _, last = name.replace(":", ".").rpartition(".")
    plain = not module and last in _BUILTINS
    why = danger_of("builtins" if plain else module or last, last)
    if plain or (why and ruling(module, last).level is not Level.CLEAN):
        why = why or "reaches anything by its name"
        yield _sign(source, MALICIOUS, "dangerous-name", what, f"loading imports it, and it {why}")
    elif not module and last[:1].isupper():
        return  # a class that the reader of the settings has by that name: MONAI's components
    elif name.split(".")[0] not in _TRUSTED:
        why = "loading imports that module, whatever it is on that machine"
        yield _sign(source, SUSPICIOUS, "unknown-module", what, why, subject=name)
    elif _DOES.fullmatch(last):
        yield _sign(source, SUSPICIOUS, "function", what, "loading calls it with what the settings say", subject=name)


def _activation(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    """A function that sentence-transformers imports by its dotted name."""
    if isinstance(value, str) and "." in value:
        yield from _named(source, path, value)


def _base(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if isinstance(value, str) and ("://" in value or value.startswith("\\\\")):
        what, why = f"{_dotted(path)} is {shown(value)}", "loading fetches the base model from there"
        yield _sign(source, SUSPICIOUS, "address", what, why)


def _requirements(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    """Packages that a model asks for, in spaCy's `meta.json`."""
    if isinstance(value, list):
        yield from requirement_signs(source, "\n".join(item for item in value if isinstance(item, str)))


def _flavor(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    """A path in a flavor of MLflow's."""
    if "flavors" in path:
        yield from _weight_map(source, path, value if isinstance(value, str | list) else [])


def _auto_mapping(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if isinstance(value, dict) and isinstance(value.get("parent_library"), str):
        library, name = value["parent_library"], value.get("base_model_class")
        what = f"auto_mapping imports {shown(f'{library}.{name}')}"
        yield from _import(source, f"{library}.{name}", what)


def _weight_map(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    for name in dict.fromkeys(_texts(value)):
        if _OUTSIDE.search(name):
            what = f"{_dotted(path[-1:])} leads to {shown(name)}"
            yield _sign(source, MALICIOUS, "leaves-folder", what, "the loader opens a file outside the model's folder")


def _attention(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if isinstance(value, str) and "/" in value:
        unasked = str(path[-1]).endswith("_internal")  # CVE-2026-4372, transformers 4.56 to 5.2
        why = "loading fetches that repository and runs its code" + (
            ", with trust_remote_code or not" if unasked else ""
        )
        level = MALICIOUS if unasked else SUSPICIOUS
        yield _sign(source, level, "own-code", f"{_dotted(path)} is {shown(value)}", why, subject=value)


def _code(source: Source, path: _Path, value: Any) -> Iterator[Sign]:
    if "flavors" in path and isinstance(value, str) and value:
        level = MALICIOUS if _OUTSIDE.search(value) else SUSPICIOUS
        what = f"{_dotted(path)} is {shown(value)}"
        yield _sign(source, level, "own-code", what, "loading runs the Python code there", subject=value)


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
    "_component_": _named,
    "class_path": _named,
    "activation_fn": _activation,
    "activation_function": _activation,
    "sbert_ce_default_activation_function": _activation,
    "base_model_name_or_path": _base,
    **dict.fromkeys(_IN_FLAVOR, _flavor),
    "attn_implementation": _attention,
    "_attn_implementation": _attention,
    "_attn_implementation_internal": _attention,
    "_experts_implementation_internal": _attention,
    "requirements": _requirements,
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
            yield _own_code(source, what, f"{value[0]}.{value[1]}")
        elif value[0] not in _PIPELINES and not key.startswith("_"):
            yield from _import(source, f"{value[0]}.{value[1]}", what)


def _modules(source: Source, settings: list[Any]) -> Iterator[Sign]:
    """`modules.json` of sentence-transformers."""
    for item in settings[:1000]:
        if isinstance(item, dict) and {"idx", "name", "path", "type"} <= set(item) and isinstance(item["type"], str):
            yield from _import(
                source, item["type"], f"the module {shown(str(item['name']))} is a {shown(item['type'])}"
            )
            yield from _weight_map(source, ("path",), item["path"])
