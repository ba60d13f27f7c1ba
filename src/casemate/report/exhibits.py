"""The exhibits of a report: samples before and after, curves and bars, read from the evidence beside report.json.

Exhibits illustrate: no number of a report comes from one, and one that is missing, damaged or not understood is told in
a sentence in its place. A report.json may come from anywhere, so only files inside its folder are read, each is held
against its digest, and what is drawn is bounded in size.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from casemate.core.exhibit import MOST
from casemate.core.report import Report
from casemate.errors import FormatError
from casemate.formats import arrays
from casemate.formats.digests import sha256_bytes
from casemate.report import group_bars, png
from casemate.report.plots import Plot, line_plots

__all__ = ["Cell", "Exhibit", "Picture", "Table", "Texts", "Words", "load_exhibits"]

Values = NDArray[Any]

_PIXELS = 1_200_000  # bytes of all pictures of a page before packing: the page stays far below 2.5 MB
_LARGEST, _SMALLEST = 160, 16  # pixels along the longer side
_FILE = 64 << 20  # bytes of one file that is read at all
_COLUMNS = 24  # columns of a table that are shown
_WORDS = 600  # words of a text that are compared
_AROUND = 12  # unchanged words that are shown on each side of a change


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: before, after and their difference as addresses of PNGs, and the answers."""

    before: str
    after: str
    difference: str
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a row, before and after."""

    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Whether the two differ."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class Table:
    """Rows before and after, a column of the data a line: `answers` are pairs (was, now), `same` counts the rest."""

    answers: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]
    same: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Words:
    """A stretch of a text: kept in both, only before, only after, or left out between two changes."""

    kind: Literal["same", "before", "after", "gap"]
    text: str


@dataclass(frozen=True, slots=True)
class Texts:
    """A text before and after as stretches, and the answers."""

    parts: tuple[Words, ...]
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Exhibit:
    """What one file shows, or one subject of a file of bars: one kind is filled, or `fault` says why none is.

    `metric` is named where it belongs to the evidence of one metric only.
    """

    plugin: str
    about: str
    caption: str
    pictures: tuple[Picture, ...] = ()
    amplified: float = 1.0
    table: Table | None = None
    texts: tuple[Texts, ...] = ()
    plots: tuple[Plot, ...] = ()
    groups: group_bars.Subject | None = None
    metric: str = ""
    fault: str = ""


def load_exhibits(report: Report, folder: Path) -> list[Exhibit]:
    """The exhibits of a report whose evidence lies in `folder`, in order of their paths."""
    paths = sorted((path, digest) for digest, path in report.files.items() if "/exhibit-" in path)
    found = [(path, _read(folder, path, digest)) for path, digest in paths]
    stacks = [kept.get("original") for _, kept in found if isinstance(kept, dict)]
    side = _side(value for value in stacks if isinstance(value, np.ndarray) and value.ndim == 4)
    return [exhibit for path, kept in found for exhibit in _shaped(path, kept, side)]


def _read(folder: Path, path: str, digest: str) -> dict[str, Any] | str:
    """The values of a file, or what is wrong with it."""
    place = folder / path
    try:
        if not place.resolve().is_relative_to(folder.resolve()):
            return "its path leads out of the report's folder"
        if not place.is_file():
            return "the file is not beside the report any more"
        if place.stat().st_size > _FILE:
            return "the file is too large to be shown"
        data = place.read_bytes()
        if sha256_bytes(data) != digest:
            return "the file is not the one that was measured"
        return dict(arrays.unpack(data))
    except (OSError, ValueError, FormatError):  # ValueError: a path that no file can have
        return "the file cannot be read"


def _side(stacks: Iterable[Values]) -> int:
    """The longer side, in pixels, at which all pictures together keep within the bytes that a page has for them."""
    drawn = sum(3 * 3 * min(len(stack), MOST) for stack in stacks)
    return min(_LARGEST, max(_SMALLEST, math.isqrt(_PIXELS // max(drawn, 1))))


def _shaped(path: str, kept: dict[str, Any] | str, side: int) -> list[Exhibit]:
    room, name = path.rsplit("/", 2)[-2:]
    plugin, called = room.replace(".", "/", 1), name.removeprefix("exhibit-").split(".")[0]
    if isinstance(kept, str):
        return [Exhibit(plugin, "", called, fault=kept)]
    about, caption = str(kept.get("about", "")), str(kept.get("caption", "") or called)
    try:
        if kept["exhibit"] == "bars":
            metric = str(kept["metric"])
            return [Exhibit(plugin, s.about, caption, groups=s, metric=metric) for s in group_bars.subjects(kept)]
        return [Exhibit(plugin, about, caption, **_KINDS[kept["exhibit"]](kept, side))]
    except (KeyError, TypeError, ValueError, IndexError):
        return [Exhibit(plugin, about, caption, fault="the file holds nothing that this release can draw")]


def _pictures(kept: Mapping[str, Any], side: int) -> dict[str, Any]:
    pair = [np.asarray(kept[name], dtype=np.float64)[:MOST] for name in ("original", "changed")]
    if pair[0].shape != pair[1].shape or pair[0].ndim != 4 or not pair[0].size:
        raise ValueError("expected two stacks (n, c, h, w)")
    before, after = (_reduced(np.nan_to_num(stack), side) for stack in pair)
    low, high = (float(x) for x in kept["bounds"])
    unit = high - low if high > low else 1.0
    largest = float(np.abs(after - before).max()) / unit
    amplified = 1.0 if largest == 0 else max(1.0, 1 / largest)
    shown = tuple(
        Picture(
            png.data_uri(_pixels((b - low) / unit)),
            png.data_uri(_pixels((a - low) / unit)),
            png.data_uri(_signed((a - b) / unit * amplified)),
            was,
            now,
        )
        for b, a, was, now in zip(before, after, *_answers(kept, len(before)), strict=True)
    )
    return {"pictures": shown, "amplified": amplified}


def _reduced(stack: Values, side: int) -> Values:
    """A stack `(n, c, h, w)` with blocks of pixels averaged until no side is longer than `side`."""
    step = math.ceil(max(stack.shape[2:]) / side)
    if step == 1:
        return stack
    rows, columns = (size // step * step or size for size in stack.shape[2:])
    high, wide = (step if size >= step else size for size in stack.shape[2:])
    n, c = stack.shape[:2]
    blocks = stack[:, :, :rows, :columns].reshape(n, c, rows // high, high, columns // wide, wide)
    return np.asarray(blocks.mean(axis=(3, 5)))


def _pixels(image: Values) -> NDArray[np.uint8]:
    """An image `(c, h, w)` in [0, 1] as bytes: three channels as colours, others as the grey of their mean."""
    flat = np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image.mean(axis=0)
    return np.asarray(np.rint(np.clip(flat, 0, 1) * 255), dtype=np.uint8)


_MORE, _LESS = np.array([179, 88, 6.0]), np.array([33, 102, 172.0])  # orange and blue: told apart by every reader


def _signed(change: Values) -> NDArray[np.uint8]:
    """A change `(c, h, w)` in [-1, 1] on white: orange where the mean of the channels grew, blue where it fell."""
    mean = np.clip(change.mean(axis=0), -1, 1)[..., None]
    tint = np.where(mean > 0, _MORE, _LESS)
    return np.asarray(np.rint(255 + np.abs(mean) * (tint - 255)), dtype=np.uint8)


def _rows(kept: Mapping[str, Any], side: int) -> dict[str, Any]:
    del side
    before, after = (np.asarray(kept[name]).astype(str)[:MOST] for name in ("original", "changed"))
    names = [str(name) for name in kept["names"]]
    if before.shape != after.shape or before.ndim != 2 or before.shape[1] != len(names):
        raise ValueError("expected two tables (n, d) and d names")
    moved = np.flatnonzero((before != after).any(axis=0))
    shown = moved[:_COLUMNS]
    lines = [
        (names[j], tuple(Cell(b, a) for b, a in zip(before[:, j].tolist(), after[:, j].tolist(), strict=True)))
        for j in shown
    ]
    answers = tuple(zip(*_answers(kept, len(before)), strict=True))
    return {"table": Table(answers, tuple(lines), len(names) - len(moved), len(moved) - len(shown))}


def _texts(kept: Mapping[str, Any], side: int) -> dict[str, Any]:
    del side
    before, after = ([str(text) for text in kept[name]][:MOST] for name in ("original", "changed"))
    answers = _answers(kept, len(before))
    told = zip(before, after, *answers, strict=True)
    return {"texts": tuple(Texts(_compared(b, a), was, now) for b, a, was, now in told)}


def _compared(before: str, after: str) -> tuple[Words, ...]:
    """Both texts as one run of stretches, word by word; what is far from every change is left out."""
    old, new = before.split(), after.split()
    cut = len(old) > _WORDS or len(new) > _WORDS
    old, new = old[:_WORDS], new[:_WORDS]
    parts: list[Words] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts += _unchanged(old[i:j], first=i == 0, last=j == len(old) and not cut)
            continue
        parts += [Words("before", " ".join(old[i:j]))] if j > i else []
        parts += [Words("after", _unlike(" ".join(new[k:m]), " ".join(old[i:j])))] if m > k else []
    return (*parts, Words("gap", "")) if cut and (not parts or parts[-1].kind != "gap") else tuple(parts)


def _unlike(after: str, before: str) -> str:
    """What took the place of plain ASCII, with the number of each letter of another alphabet: it may look the same."""
    if not before.isascii() or after.isascii():
        return after
    return "".join(f"{c}[U+{ord(c):04X}]" if c.isalpha() and not c.isascii() else c for c in after)


def _unchanged(words: Sequence[str], *, first: bool, last: bool) -> list[Words]:
    head, tail = 0 if first else _AROUND, 0 if last else _AROUND
    if len(words) <= head + tail + _AROUND:
        return [Words("same", " ".join(words))]
    ends = words[:head], words[len(words) - tail :]
    parts = [Words("same", " ".join(ends[0])), Words("gap", ""), Words("same", " ".join(ends[1]))]
    return [part for part in parts if part.kind == "gap" or part.text]


def _lines(kept: Mapping[str, Any], side: int) -> dict[str, Any]:
    del side
    series = {
        str(name): (np.asarray(kept[f"x{i}"], dtype=np.float64), np.asarray(kept[f"y{i}"], dtype=np.float64))
        for i, name in enumerate(kept["names"])
    }
    titles = str(kept["x_title"]), str(kept["y_title"])
    return {"plots": line_plots(series, titles, x_log=bool(kept["x_log"]), diagonal=bool(kept["diagonal"]))}


def _answers(kept: Mapping[str, Any], n: int) -> tuple[list[str], list[str]]:
    was, now = ([str(item) for item in kept[name]][:MOST] for name in ("was", "now"))
    if not n == len(was) == len(now):
        raise ValueError("expected an answer before and after for each sample")
    return was, now


_KINDS = {"pictures": _pictures, "rows": _rows, "texts": _texts, "lines": _lines}
