"""Formats that are known by their first bytes and that nothing here reads: named, never passed."""

from __future__ import annotations

from collections.abc import Iterator

from casemate.formats.scanning.desk import Desk, Reader, begins, firsts_of
from casemate.formats.scanning.readers._signs import MALICIOUS, UNKNOWN, noted
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"MSCF\0\0\0\0": "Cabinet",
    b"LZIP\1": "lzip",
    **{bytes((0x1F, 0x9D, how | bits)): "compress (.Z)" for how in (0, 0x80) for bits in range(9, 17)},
    b"xar!\0": "xar",
}
_DATA = {
    b"SQLite format 3\0": "SQLite",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "OLE 2",
    b"MATLAB 5.0 MAT-file": "MATLAB 5",
    b"Obj\1": "Avro",
    b"%PDF-": "PDF",
    b"PARE": "encrypted Parquet",
}
_INNER = {b"TFL3": "TensorFlow Lite", b"ET12": "ExecuTorch", b"ET13": "ExecuTorch"}  # at byte 4
_MAGICS = tuple(_DATA)
# What loads these has one format of its own in mind, and none of them is an archive of this kind.
_MODELS = (
    ".pt", ".pth", ".pt2", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".sav", ".npy", ".npz", ".h5",
    ".hdf5", ".keras", ".onnx", ".safetensors", ".gguf", ".model", ".mar", ".skops", ".pb", ".tflite", ".ubj",
)  # fmt: skip


def _archive(source: Source) -> str:
    return next((name for magic, name in _ARCHIVES.items() if source.head.startswith(magic)), "")


def _is_data(source: Source) -> bool:
    return source.head[4:8] in _INNER or source.head.startswith(_MAGICS) or _is_packed(source)


def _is_packed(source: Source) -> bool:
    """Whether it is a map of MessagePack's, which has no magic: Flax writes such."""
    first = source.head[0] if source.head else 0
    return source.name.endswith(".msgpack") and (0x80 <= first < 0x90 or first in (0xDE, 0xDF))


def _data(source: Source) -> str:
    if source.head[4:8] in _INNER:
        return _INNER[source.head[4:8]]
    if _is_packed(source):
        return "MessagePack"
    return next((name for magic, name in _DATA.items() if source.head.startswith(magic)), "")


def _read_archive(source: Source, desk: Desk) -> Iterator[Sign]:
    desk.meter.tick()
    name = _archive(source)
    suffix = next((end for end in _MODELS if source.name.endswith(end)), "")
    if suffix:
        what = f"a {name} archive under a name that ends with {suffix}"
        why = (
            f"no library loads a model of that name from {name}: it hides what is inside from scanners that know "
            "zip and pickle, until a loader falls back to the bytes within (nullifAI)"
        )
        yield noted(source, MALICIOUS, "archive/disguised", what, why=why, mend="do not unpack it", at=0)
    yield from _unknown(source, f"{name} archive", "unpack it where nothing is run, and scan what comes out")


def _read_data(source: Source, desk: Desk) -> Iterator[Sign]:
    desk.meter.tick()
    yield from _unknown(source, _data(source), "convert it to a format that can be read")


def _unknown(source: Source, name: str, mend: str) -> Iterator[Sign]:
    why = "what cannot be read cannot be judged"
    yield noted(source, UNKNOWN, "format/not-read", f"{name}, which nothing here reads", why=why, mend=mend, at=0)


READERS = (
    Reader("archive", begins(*_ARCHIVES), _read_archive, firsts=firsts_of(*_ARCHIVES)),
    Reader("data", _is_data, _read_data),
)
