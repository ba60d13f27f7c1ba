"""Python source beside a model, by its syntax tree: what it does when it is imported, and what it could do later.

`auto_map`, `loader_module` and their kin import such files. Code that only builds layers is clean; a call that runs
commands, opens connections or loads other code is told: as malicious where importing alone makes it, or where it is
hidden by an encoding, else as something to review.
"""

from __future__ import annotations

import ast
import enum
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._plain import decoded, is_text, line_starts, offset_of, starts
from casemate.formats.scanning.readers._python_calls import COMMAND, DECODERS, kind_of
from casemate.formats.scanning.readers._python_names import Names, constant
from casemate.formats.scanning.readers._python_scopes import Scope, imports_in
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "imports_of", "module_signs", "python_signs"]

_ENDS = (".py", ".pyw", ".pyi")
_BEGIN = re.compile(
    r"#![^\n]*\bpython|(?:#[^\n]*\n\s*)*(?:from\s+[\w.]+\s+import\s+[\w(*]|import\s+[\w.]+(?:\s+as\s+\w+|\s*,\s*\w+)*\s*(?:\n|;|$))"
)
_COOKIE: Final = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_USUAL: Final = re.compile(
    r"(?!cp(?:037|273|424|500|875|1026|1140)$)(?:utf-?8(?:-sig)?|us-ascii|ascii|latin-?\d*|iso-?8859-?\d*|cp\d+|windows-\d+|gb\d+|gbk|big5|shift-jis|euc-\w+|koi8-\w)"
    r"(?:-(?:unix|dos|mac))?"
)
_LINE: Final = re.compile(rb"(?:^|\n)import[ \t]")
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_TOKENS: Final = 200_000  # in a large source file there are 70,000
_LONGEST: Final = 1 << 19  # characters: a syntax tree takes up to 700 times as much
_WHY: Final = {
    "runs": "it runs commands or code",
    "net": "it opens connections",
    "native": "it loads native code",
    "loads": "it loads a pickle or the like, which nobody has looked at",
    "deletes": "it deletes or changes files or processes",
    "installs": "it installs packages",
    "debug": "it reaches into the running interpreter",
}
_NOW: Final = frozenset({"runs", "net", "native", "installs"})  # kinds that importing a model's code never needs
_LOADED: Final = frozenset({"runs", "installs"})  # that making the model never needs
_COMPUTES: Final = frozenset({"builtins.eval", "types.FunctionType", "types.CodeType", "timeit.timeit"})
_OPENS: Final = frozenset({"builtins.open", "io.open", "os.open", "codecs.open", "pathlib.Path", "shutil.copy"})
_PLACES: Final = re.compile(
    r"(?:^|[/~])\.ssh/|authorized_keys|(?:^|/)\.(?:bashrc|bash_profile|zshrc|profile|netrc|git-credentials|pypirc)$"
    r"|^/etc/(?:passwd|shadow|cron|sudoers|ld\.so\.preload|rc\.local|init\.d|systemd|profile)|\.aws/credentials"
    r"|\.config/(?:autostart|systemd)|^/proc/self/(?:mem|environ)|\\Start Menu\\|CurrentVersion\\Run|\.kube/config"
    r"|^/var/spool/cron|/(?:site|user)customize\.py$|^/root/"
)
_ROOTS: Final = re.compile(r"[/~]|/(?:home|root|etc|usr|var|boot|bin|lib)/?|~/\*?|[A-Za-z]:[\\/]?")
_POWERS: Final = frozenset(
    {"os", "posix", "nt", "subprocess", "builtins", "importlib", "ctypes", "pty", "runpy", "socket"}
)
_LOOKS: Final = frozenset({"builtins.getattr", "builtins.hasattr", "builtins.vars"})
_HIDES: Final = "it is how code hides what it calls"
_MEND: Final = "read that code before you load the model; better take weights without code"


class _When(enum.IntEnum):
    """When a statement runs."""

    USED = 0
    LOADED = 1
    IMPORTED = 2


_TELLS: Final = {
    _When.USED: "when it is used", _When.LOADED: "when the model is loaded", _When.IMPORTED: "when it is imported",
}  # fmt: skip


def python_signs(
    source: Source, text: str, desk: Desk, *, imported: bool = True, entries: Sequence[str] = ()
) -> Iterator[Sign]:
    """Signs of Python source; `imported`: loading a model may import it (cells of a notebook run when a user says so).

    `entries`: its classes and functions that a loader is known to make or call.
    Raises `Damaged` where it is no Python.
    """
    tree = _parsed(text, desk)
    nodes = list(ast.walk(tree))
    desk.meter.tick()
    names, scope, lines = Names(nodes), Scope(tree, nodes, entries), line_starts(text)
    told: set[tuple[str, str, Level]] = set()
    for leak in _leaks(nodes, names, desk):
        at, what = lines[min(leak.lineno, len(lines)) - 1], f"hands on the module {shown(leak.id)}"
        yield noted(source, SUSPICIOUS, "python/module-value", what, why=_HIDES, mend=_MEND, at=at)
    callees = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for count, node in enumerate(nodes):
        if count % 1024 == 0:
            desk.meter.tick()
        now = imported and id(node) in scope.now
        when = _When.IMPORTED if now else _When.LOADED if id(node) in scope.loaded else _When.USED
        for level, rule, what, why in _judged(node, names, when, id(node) in callees):
            if (rule, what, level) not in told:
                told.add((rule, what, level))
                at = lines[min(getattr(node, "lineno", 1), len(lines)) - 1]
                yield noted(source, level, f"python/{rule}", what, why=why, mend=_MEND, at=at)


def _leaks(nodes: Sequence[ast.AST], names: Names, desk: Desk) -> Iterator[ast.Name]:
    """Where a module that can do harm is handed on as a value, so that what is called of it cannot be told."""
    plain: set[int] = set()
    for count, node in enumerate(nodes):
        if count % 1024 == 0:
            desk.meter.tick()
        if isinstance(node, ast.Attribute | ast.Assign):
            plain.add(id(node.value))
        elif isinstance(node, ast.Call) and names.dotted(node.func) in _LOOKS:
            plain.update(id(item) for item in node.args[:1])
    for count, node in enumerate(nodes):
        if count % 1024 == 0:
            desk.meter.tick()
        if isinstance(node, ast.Name) and id(node) not in plain and names.dotted(node) in _POWERS:
            yield node


def _parsed(text: str, desk: Desk) -> ast.Module:
    if len(text) > _LONGEST:
        raise Damaged(f"expected Python of at most {_LONGEST} characters, got {len(text)}", 0)
    if len(text) > _TOKENS and (count := len(_TOKEN.findall(text))) > _TOKENS:
        raise Damaged(f"expected Python of at most {_TOKENS} words and signs, got {count}", 0)
    desk.meter.tick()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        message = f"expected Python, got a fault in line {error.lineno}: {shown(error.msg)}"
        raise Damaged(message, offset_of(text, min(error.lineno or 1, text.count("\n") + 1))) from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise Damaged(f"expected Python, got what cannot be parsed ({type(error).__name__})", 0) from None


_Found = tuple[Level, str, str, str]


def _judged(node: ast.AST, names: Names, when: _When, called: bool) -> Iterator[_Found]:
    if isinstance(node, ast.Call):
        yield from _call(node, names, when)
        yield from _reference(node, names, when, called)
    elif isinstance(node, ast.Attribute | ast.Name | ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield from _reference(node, names, when, called)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not _is_prose(node.value):
        yield from _command(node.value)


def _command(text: str) -> Iterator[_Found]:
    if found := COMMAND.search(text):
        searched = "(?:" in text or "\\b" in text  # a pattern that looks for such commands
        why = "it fetches and runs what somebody else chose, or calls home"
        yield SUSPICIOUS if searched else MALICIOUS, "command", f"the command {shown(found[0])}", why


def _is_prose(text: str) -> bool:
    """Whether a text is documentation rather than a command."""
    return text.count("\n") > 3 and text.count(" ") > 40


def _is_internal(node: ast.Attribute) -> bool:
    """Whether it leads to anything at all; a registry of `cls.__subclasses__()` does not."""
    chained = isinstance(node.value, ast.Attribute | ast.Subscript | ast.Call)
    return node.attr in ("__globals__", "__builtins__") or (node.attr == "__subclasses__" and chained)


def _reference(node: ast.AST, names: Names, when: _When, called: bool) -> Iterator[_Found]:
    dotted, now = names.dotted(node), when is _When.IMPORTED
    if isinstance(node, ast.Attribute) and not dotted and _is_internal(node):
        yield MALICIOUS if now else SUSPICIOUS, "internals", f"reaches for {node.attr}", _HIDES
    owner, _, _ = dotted.partition(".<name>")
    if owner != dotted:
        if owner in ("os", "builtins", "sys.modules", "posix", "nt") or kind_of(f"{owner}.x"):
            what = f"takes a function of {shown(owner)} by a name that cannot be told"
            yield MALICIOUS if now and called else SUSPICIOUS, "hidden-name", what, _HIDES
    elif dotted == "torch.load" or (dotted.startswith("types.") and not called):
        return  # judged by its arguments; named in annotations
    elif (kind := kind_of(dotted)) and "." in dotted:
        last = dotted.rpartition(".")[2]
        harmful = now and kind in _NOW and (called or (kind == "runs" and last.islower()))
        harmful = harmful or (when is _When.LOADED and kind in _LOADED and called and dotted not in _COMPUTES)
        what = f"{shown(dotted.removeprefix('builtins.'))} {_TELLS[when]}"
        yield MALICIOUS if harmful else SUSPICIOUS, kind, what, _WHY[kind]


def _call(node: ast.Call, names: Names, when: _When) -> Iterator[_Found]:
    dotted = names.dotted(node.func)
    runs = dotted in ("builtins.exec", "builtins.eval", "builtins.compile", "types.FunctionType", "builtins.__import__")
    if runs or kind_of(dotted) == "runs":
        hidden = next((found for item in node.args for found in _decoders(item, names)), "")
        if hidden:
            what = f"{shown(dotted.removeprefix('builtins.'))} of what {hidden} gives"
            yield MALICIOUS, "hidden-code", what, "nobody hides code that does no harm"
    yield from _import_of(node, dotted, when is _When.IMPORTED)
    yield from _options(node, dotted)
    yield from _place(node, dotted, when)


def _place(node: ast.Call, dotted: str, when: _When) -> Iterator[_Found]:
    """A file of the user's or the system's that a call is given by its name."""
    given = [constant(item) for item in node.args[:2]]
    place = next((item for item in given if isinstance(item, str) and _PLACES.search(item)), "")
    if place and not _is_prose(place) and (dotted in _OPENS or isinstance(node.func, ast.Attribute)):
        level = MALICIOUS if when is not _When.USED and dotted in _OPENS else SUSPICIOUS
        yield (
            level,
            "place",
            f"{shown(place)} {_TELLS[when]}",
            "it holds secrets, or is run, on the machine of its user",
        )
    if dotted == "shutil.rmtree" and isinstance(given[:1] and given[0], str) and _ROOTS.fullmatch(str(given[0])):
        yield MALICIOUS, "wipes", f"shutil.rmtree of {shown(str(given[0]))} {_TELLS[when]}", _WHY["deletes"]


def _decoders(node: ast.AST, names: Names) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            dotted = names.dotted(inner.func)
            if dotted in DECODERS:
                yield dotted


def _import_of(node: ast.Call, dotted: str, now: bool) -> Iterator[_Found]:
    if dotted in ("builtins.__import__", "importlib.import_module") and node.args and constant(node.args[0]) is None:
        computed = not isinstance(node.args[0], ast.Name | ast.Attribute | ast.Subscript)
        if now or (computed and dotted == "builtins.__import__"):
            what = f"{dotted.removeprefix('builtins.')} of a name that cannot be told"
            yield SUSPICIOUS, "hidden-import", what, "it imports what this file does not show"


def _options(node: ast.Call, dotted: str) -> Iterator[_Found]:
    options = {item.arg: item.value for item in node.keywords if item.arg}

    def says(name: str, value: bool) -> bool:
        given = options.get(name)
        return isinstance(given, ast.Constant) and given.value is value

    if dotted == "torch.load" and not says("weights_only", True):
        yield SUSPICIOUS, "loads", "torch.load without weights_only=True", _WHY["loads"]
    if dotted == "yaml.load" and "Safe" not in ast.dump(node):
        yield SUSPICIOUS, "loads", "yaml.load without a safe loader", _WHY["loads"]
    if dotted == "numpy.load" and says("allow_pickle", True):
        yield SUSPICIOUS, "loads", "numpy.load with allow_pickle=True", _WHY["loads"]
    if says("trust_remote_code", True):
        yield (
            SUSPICIOUS,
            "trusts-code",
            "trust_remote_code=True",
            "it runs Python files of another repository without asking",
        )


def _is_named(source: Source) -> bool:
    begins = source.head.startswith(b"#!") and b"python" in source.head.split(b"\n", 1)[0]
    return (begins or source.name.endswith(_ENDS)) and is_text(source)


def _begins(source: Source) -> bool:
    return source.head[:1] in b"#fi" and bool(_BEGIN.match(starts(source)))


def _encoded(source: Source) -> Iterator[Sign]:
    """An encoding by which Python reads other code than an editor shows (PEP 263)."""
    for line in source.head.split(b"\n", 2)[:2]:
        found = _COOKIE.match(line)
        if found and not _USUAL.fullmatch(found[1].decode("ascii").lower().replace("_", "-")):
            what = f"source in the encoding {shown(found[1])}"
            why = "Python decodes it before it reads it, so that comments can be code"
            yield noted(source, MALICIOUS, "python/encoding", what, why=why, mend=_MEND, at=0)


def module_signs(source: Source, desk: Desk, entries: Sequence[str] = ()) -> Iterator[Sign]:
    """Signs of a file of Python, of which `entries` are made or called by a loader.

    Raises `Damaged` where it cannot be read, and is meant to be Python.
    """
    yield from _encoded(source)
    text = decoded(source, desk)
    yield from secrets_in(source, text)
    if source.name in ("sitecustomize.py", "usercustomize.py"):
        why = "every Python that finds it on its path runs it at its start"
        yield noted(source, SUSPICIOUS, "python/site", source.name, why=why, mend="take it away", at=0)
    try:
        yield from few(python_signs(source, text, desk, entries=entries))
    except Damaged:
        if source.name.endswith(_ENDS) or text.startswith("#!"):
            raise  # any other text may begin like Python


def imports_of(source: Source, desk: Desk) -> list[tuple[int, str, tuple[str, ...]]]:
    """The level (dots), module and names of each import; a module that is imported whole has no names.

    Raises `Damaged` where it is no Python.
    """
    return imports_in(_parsed(decoded(source, desk), desk))


def _is_paths(source: Source) -> bool:
    return source.name.endswith(".pth") and bool(_LINE.search(source.head)) and is_text(source)


def _read_paths(source: Source, desk: Desk) -> Iterator[Sign]:
    """A list of paths for site-packages, whose lines that begin with `import` Python runs at its start."""
    lines = [line for line in decoded(source, desk).splitlines() if line.startswith(("import ", "import\t"))]
    yield from few(python_signs(source, "\n".join(lines), desk))


READERS = (
    Reader("python", _is_named, module_signs),
    Reader("python", _begins, module_signs, last=True, rank=0),
    Reader("python-paths", _is_paths, _read_paths),
)
