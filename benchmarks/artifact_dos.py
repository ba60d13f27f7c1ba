# ruff: noqa: E501, C901 (a table of hand-made bytes)
"""Files that are made to exhaust whoever scans them, for every reader: what is said of each, after how long, in how much memory.

    python artifact_dos.py [PART ...]        # all cases whose name contains one of the parts

Files have up to 50 MB, or what their bomb needs. Each is scanned in a process of its own, which is killed after a minute
or at 4 GB; `seconds` is the processor's time after start-up (a busy machine changes nothing), `wall` the time that passed,
and `peak_mb` the whole process, mapped pages of the file included.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
LIMIT = 60.0
MEMORY = 4 << 30


class Measured(NamedTuple):
    """One case: the verdict (or how the scan broke), the processor's seconds, MB at the peak, seconds that passed."""

    case: str
    said: str
    seconds: float
    peak_mb: float
    wall: float


def measured(*parts: str) -> Iterator[Measured]:
    """Make, scan and drop each case whose name contains one of the parts; all without."""
    for case, (name, make) in CASES.items():
        if parts and not any(part in case for part in parts):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(make())
            yield _asked(case, path)


def _asked(case: str, path: Path) -> Measured:
    try:
        run = subprocess.run(
            [sys.executable, __file__, "--scan", str(path)], capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Measured(case, "timeout", LIMIT, 0.0, LIMIT)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit {run.returncode}"])[-1]
        return Measured(case, f"crash: {last[:100]}", 0.0, 0.0, 0.0)
    told = json.loads(run.stdout)
    return Measured(case, f"{told['level']}: {' '.join(told['rules'])}", told["seconds"], told["peak_mb"], told["wall"])


def scanned(path: Path) -> dict[str, object]:
    """Scan in this process: verdict, rules, seconds, peak."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from casemate.formats.scanning import readers
    from casemate.formats.scanning.walking import scan_file

    readers.known()
    start, begun = time.perf_counter(), time.process_time()
    found = scan_file(path)
    wall, seconds = time.perf_counter() - start, time.process_time() - begun
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rules = sorted({sign.rule for sign in found.signs})
    return {
        "level": str(found.level), "rules": rules[:4], "seconds": seconds, "wall": wall,
        "peak_mb": int(status["VmHWM"].split()[0]) / 1024,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- building


def varint(n: int) -> bytes:
    """A number as Protocol Buffers have it."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def message(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def nested(number: int, depth: int, inner: bytes = b"") -> bytes:
    """Messages in each other; the innermost first."""
    parts, size = [inner], len(inner)
    for _ in range(depth):
        head = varint(number << 3 | 2) + varint(size)
        parts.append(head)
        size += len(head)
    return b"".join(reversed(parts))


def zipped(count: int, data: bytes = b"", method: int = zipfile.ZIP_STORED, name: str = "{}") -> bytes:
    """Members of the same content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for index in range(count):
            archive.writestr(name.format(index), data)
    return out.getvalue()


def inside(make: Callable[[bytes], bytes], data: bytes, times: int) -> bytes:
    """Packed again and again."""
    for _ in range(times):
        data = make(data)
    return data


def ones(name: str, data: bytes) -> bytes:
    """A zip of one deflated member."""
    return zipped(1, data, zipfile.ZIP_DEFLATED, name)


def overlapping(count: int, size: int) -> bytes:
    """A zip whose directory lists one stream of zeros over and over."""
    plain = zipped(1, b"\0" * size, zipfile.ZIP_DEFLATED, "a")
    start = plain.index(b"PK\1\2")
    end = plain.index(b"PK\5\6")
    listed = plain[start:end] * count
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(listed), start, 0)
    return plain[:start] + listed + tail


def tarred(count: int, data: bytes = b"", name: str = "{}") -> bytes:
    """A tar of members of the same content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for index in range(count):
            info = tarfile.TarInfo(name.format(index))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    """A numpy file, version 2."""
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header.encode() + data


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file."""
    return struct.pack("<Q", len(header)) + header + data


def gguf(pairs: bytes, count: int, tensors: int = 0, rest: bytes = b"") -> bytes:
    """A GGUF file, version 3."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + pairs + rest


def text_of(data: bytes) -> bytes:
    """A string of GGUF."""
    return struct.pack("<Q", len(data)) + data


def gguf_template(template: bytes) -> bytes:
    """A GGUF file whose only key is a chat template."""
    return gguf(text_of(b"tokenizer.chat_template") + struct.pack("<I", 8) + text_of(template), 1)


def dtype_header(names: int) -> str:
    """A numpy header of a record of many fields."""
    fields = ", ".join(f"('f{index}', '<f8')" for index in range(names))
    return f"{{'descr': [{fields}], 'fortran_order': False, 'shape': (1,), }}"


# Bytes that each make something of their own when they are repeated.
PICKLES: dict[str, bytes] = {
    "lists": b"]", "marks": b"(", "memo": b"]\x940", "ints": b"K\x01", "texts": b"\x8c\x00\x94", "globals": b"cos\nfoo\n",
    "tuples": b")\x85\x940", "dicts": b"}\x94(", "calls": b"clist\nlist\n)R0", "empty": b"N.", "bytes": b"C\x04\x80\x04N.0",
    "puts": b"Nr\xff\xff\xff\x0f0", "deep": b"](", "twice": b"N2", "frames": b"\x95\x00\x00\x00\x00\x00\x00\x00\x00",
    "reduce": b"cbuiltins\nset\n]\x85R\x940", "build": b"cbuiltins\nset\n)\x81}b0", "double": b"h\x00h\x00\x86\x94",
}  # fmt: skip
PYTHON: dict[str, bytes] = {
    "calls": b"a(b);", "strings": b"'a';", "names": b"import os\nos.a\n", "attributes": b"a.b.c.d.e;", "sums": b"a+",
    "lambdas": b"lambda:", "brackets": b"(" , "defs": b"def f():f()\n", "assign": b"a=a;", "lines": b"os\n",
    "getattr": b"getattr(os,'a'+'b');", "concat": b"'a'+", "decoded": b"exec(a(b('x')));", "fstrings": b"f'{a}';",
}  # fmt: skip
YAML: dict[str, bytes] = {
    "items": b"- a\n", "flow": b"[", "keys": b"? a\n", "tags": b"- !!python/name:os.x a\n", "aliases": b"- &a b\n- *a\n",
    "maps": b"- {a: b}\n", "quotes": b"- 'a'\n", "comments": b"#\n", "documents": b"---\n", "inline": b"a,",
}  # fmt: skip
JSON: dict[str, bytes] = {
    "zeros": b"0,", "texts": b'"ab",', "objects": b"{},", "pairs": b'{"a":0},', "deep": b"[", "lists": b"[],",
    "keras": b'{"class_name":"A","config":{}},', "keys": b'"a":0,', "auto": b'{"auto_map":"a"},', "escapes": b'"\\u0041",',
    "packed": b'"gASVAAAAAAAAAAAAAAAAAAA=",', "targets": b'{"_target_":"os.system"},',
}  # fmt: skip
JINJA: dict[str, bytes] = {
    "prints": b"{{a}}", "loops": b"{% for a in b %}", "filters": b"{{a|b}}", "sets": b"{% set a=a+a %}",
    "ifs": b"{% if a %}b{% endif %}", "braces": b"{{ {", "comments": b"{##}", "joins": b"{% set a=a~a %}",
}  # fmt: skip
TEXT: dict[str, bytes] = {
    "addresses": b"://a:", "keys": b"-----BEGIN PRIVATE KEY-----", "sk": b"sk-", "blanks": b" ", "commands": b"curl ",
    "semicolons": b"a;|", "hf": b"hf_aaaaaaaaaa ", "long": b"A", "lines": b"a\n", "aws": b"aws_secret_access_key ",
    "xox": b"xoxb-1111111", "imports": b"import a\n", "hash": b"#\n", "pypi": b"==1.0\n", "braces": b"{ ", "gets": b"wget http://",
}  # fmt: skip
XML: dict[str, bytes] = {
    "tags": b"<a/>", "deep": b"<a>", "attributes": b'<a b="c"/>', "entities": b"&amp;", "comments": b"<!---->", "cdata": b"<![CDATA[]]>",
    "pis": b"<?a?>", "opened": b"<", "exts": b'<Extension name="x"/>',
}  # fmt: skip
NODE = message(4, b"Add")
TENSOR = message(8, b"w") + b"\x08\x01\x10\x01" + message(9, b"\0" * 4)


def times(data: bytes, size: int) -> bytes:
    """Repeated up to `size` bytes."""
    return data * max(1, size // len(data))


def onnx(graph: bytes) -> bytes:
    """An ONNX model."""
    return b"\x08\x08" + message(7, graph)


def _made() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Every case: its name, the name of its file, what makes it."""
    for key, item in PICKLES.items():
        for mib in (2, 30):
            yield f"pickle {key} {mib}", "m.pkl", lambda item=item, mib=mib: b"\x80\x04" + times(item, mib * MIB) + b"."
    for key, item in PYTHON.items():
        yield f"python {key}", "m.py", lambda item=item: times(item, 1 << 19)
        yield f"python {key} 40", "m.py", lambda item=item: times(item, 40 * MIB)
    for key, item in YAML.items():
        yield f"yaml {key}", "m.yaml", lambda item=item: times(item, (2 << 20) - 64)
        yield f"mlmodel {key}", "m.yaml", lambda item=item: times(item, 500_000)
    for key, item in JSON.items():
        for mib in (8, 45):
            for end, (a, b) in {"list": (b"[", b"0]"), "keys": (b"{", b'"z":0}')}.items():
                if (end == "keys") == (key == "keys"):
                    yield (
                        f"json {key} {mib}",
                        "m.json",
                        (lambda item=item, mib=mib, a=a, b=b: a + times(item, mib * MIB - 99) + b),
                    )
    for key, item in JINJA.items():
        yield f"jinja {key}", "m.jinja", lambda item=item: times(item, (1 << 19) - 64)
        yield f"gguf template {key}", "m.gguf", lambda item=item: gguf_template(times(item, (1 << 19) - 64))
    for key, item in TEXT.items():
        yield f"text {key}", "requirements.txt", lambda item=item: times(item, 45 * MIB)
        yield f"script {key}", "Dockerfile", lambda item=item: times(item, 10 * MIB)
        yield f"unnamed {key}", "m.bin", lambda item=item: times(item, 45 * MIB)
        yield f"bare {key}", "m.pkl", lambda item=item: times(item, 45 * MIB)
    for key, item in XML.items():
        yield f"xml {key}", "m.pmml", lambda item=item: b'<?xml version="1.0"?><PMML>' + times(item, 45 * MIB)
    yield from _messages()
    yield from _archives()
    yield from _others()


def _messages() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    for key, item in {
        "nodes": message(1, NODE), "tensors": message(5, TENSOR), "empty": b"\x0a\0", "attributes": message(1, NODE + times(b"\x2a\0", 100)),
        "names": message(1, message(4, b"A" * 4000)), "varints": b"\x08\x01", "notes": message(10, b"{{ "), "groups": b"\x0b\x0c",
        "external": message(5, TENSOR + times(message(13, message(1, b"location") + message(2, b"x")), 2000)),
    }.items():  # fmt: skip
        yield f"onnx {key}", "m.onnx", lambda item=item: onnx(times(item, 45 * MIB))
        yield f"onnx small {key}", "m.onnx", lambda item=item: onnx(times(item, 3 * MIB))
        yield (
            f"graph {key}",
            "m.pb",
            lambda item=item: message(1, message(1, b"a") + message(2, b"Add")) + times(item, 45 * MIB),
        )
    yield "onnx deep", "m.onnx", lambda: onnx(nested(1, 60_000, NODE))
    yield (
        "onnx subgraphs",
        "m.onnx",
        lambda: onnx(inside(lambda g: message(1, NODE + message(5, message(6, g))), NODE, 3000)),
    )
    yield "onnx wide", "m.onnx", lambda: times(b"\x08\x08", 10 * MIB) + onnx(message(1, NODE))
    yield "onnx many graphs", "m.onnx", lambda: b"\x08\x08" + times(message(7, message(1, NODE)), 40 * MIB)
    yield (
        "graph libraries",
        "m.pb",
        lambda: times(message(2, message(1, message(3, message(1, b"a") + message(2, b"Add")))), 40 * MIB),
    )
    yield "graph nodes", "m.pb", lambda: times(message(1, message(1, b"a") + message(2, b"ReadFile")), 40 * MIB)
    yield (
        "graph unique nodes",
        "m.pb",
        lambda: b"".join(
            message(1, message(1, b"n%d" % i) + message(2, b"Op%d" % i) + message(3, b"n%d" % (i - 1)))
            for i in range(1_500_000)
        ),
    )
    yield "graph constants", "m.pb", lambda: times(
        message(1, message(1, b"a") + message(2, b"Const") + message(5, message(1, b"value") + message(2, message(8, message(8, b"/etc/passwd"))))), 40 * MIB
    )  # fmt: skip
    yield "saved model", "saved_model.pb", lambda: b"\x08\x01" + message(
        2, message(2, times(message(1, message(1, b"a") + message(2, b"Add")), 40 * MIB))
    )  # fmt: skip
    yield "graph text", "m.pbtxt", lambda: times(b'node { op: "ReadFile" }\n', 40 * MIB)
    yield "graph text values", "m.pbtxt", lambda: b"node {" + times(b'string_val: "/x" ', 40 * MIB)
    yield "graph text comments", "m.pbtxt", lambda: b"node {" + times(b"op #a\n", 10 * MIB)
    yield "graph text blanks", "m.pbtxt", lambda: times(b" ", 40 * MIB) + b"node {"
    yield "checkpoint state", "checkpoint", lambda: times(b'model_checkpoint_path: "/a"\n', 40 * MIB)
    yield "checkpoint state blanks", "checkpoint", lambda: b"model_checkpoint_path:" + times(b" \n", 10 * MIB)


def _archives() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    zeros = 900 * MIB
    for key, pack in {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress}.items():
        yield f"{key} zeros", f"m.{key}", lambda pack=pack: pack(bytes(100 * MIB))
        yield f"{key} bomb", f"m.{key}", lambda pack=pack: pack(bytes(zeros))
        yield f"{key} twice", f"m.{key}", lambda pack=pack: inside(pack, bytes(zeros), 2)
        yield f"{key} streams", f"m.{key}", lambda pack=pack: times(pack(b"a"), 20 * MIB)
        yield f"{key} texts", f"m.{key}", lambda pack=pack: pack(times(b"import os\n", 60 * MIB))
    yield "gzip matryoshka", "m.gz", lambda: inside(gzip.compress, b"a", 2000)
    yield "zip many", "m.zip", lambda: zipped(300_000)
    yield "zip many pickles", "m.pt", lambda: zipped(100_000, b"\x80\x04N.", name="a/{}.pkl")
    yield "zip many texts", "m.zip", lambda: zipped(100_000, b"import os\nos.system('x')\n", name="{}.py")
    yield "zip long names", "m.zip", lambda: zipped(700, b"", name="{}" + "a/" * 32_000)
    yield "zip bomb", "m.zip", lambda: ones("a", bytes(zeros))
    yield "zip bombs in zips", "m.zip", lambda: zipped(40, ones("a", bytes(60 * MIB)))
    yield "zip matryoshka", "m.zip", lambda: inside(lambda data: ones("a.zip", data), bytes(zeros), 4)
    yield "zip overlap", "m.zip", lambda: overlapping(60_000, 1 << 20)
    yield "zip overlap large", "m.zip", lambda: overlapping(60_000, 60 << 20)
    yield "zip end records", "m.zip", lambda: times(b"PK\5\6" + bytes(18), 40 * MIB)
    yield "zip marks", "m.zip", lambda: b"PK\3\4" + times(b"PK\3\4", 40 * MIB)
    yield "zip empty heads", "m.zip", lambda: times(b"PK\3\4" + bytes(26), 40 * MIB)
    yield "zip directories", "m.zip", lambda: times(b"PK\1\2" + bytes(42), 30 * MIB) + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 30 * MIB // 46 * 46, 0, 0
    )  # fmt: skip
    yield "zip same name", "m.zip", lambda: _quiet(lambda: zipped(60_000, b"x", name="a"))
    yield "zip gaps", "m.zip", lambda: b"".join((b"PK\1\2x" + bytes(20)) for _ in range(MIB)) + zipped(2, b"a")
    yield (
        "npz many arrays",
        "m.npz",
        lambda: zipped(50_000, npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }"), name="{}.npy"),
    )
    yield (
        "npz objects",
        "m.npz",
        lambda: zipped(
            20_000, npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N."), name="{}.npy"
        ),
    )
    yield "torch records", "m.pt", lambda: zipped(100_000, b"\0" * 8, name="a/data/{}")
    yield (
        "torchscript",
        "m.pt",
        lambda: zipped(2000, times(b"def f(self):\n  return torch.add(a, b)\n", 10_000), name="a/code/{}.py"),
    )
    yield "tar many", "m.tar", lambda: tarred(80_000)
    yield "tar long names", "m.tar", lambda: tarred(300, b"", name="{}" + "a/" * 60_000)
    yield "tar zeros", "m.tar", lambda: tarred(1, bytes(40 * MIB))
    yield "tar pax", "m.tar", lambda: tarred(20_000, b"x", name="{}" + "b" * 300)
    yield "tar gz", "m.tar.gz", lambda: gzip.compress(tarred(150_000))
    yield "tar in tar", "m.tar", lambda: inside(lambda data: tarred(1, data), b"x", 200)
    yield (
        "lz4 lies",
        "m.lz4",
        lambda: b"\x04\x22\x4d\x18\x40\x70\xdf" + times(struct.pack("<I", 4) + b"\x1fa\1\0", 20 * MIB),
    )
    yield "lz4 bomb", "m.lz4", lambda: b"\x04\x22\x4d\x18\x40\x70\xdf" + times(
        struct.pack("<I", 16_000) + b"\x1fa\1\0" + b"\xff" * 15_990 + b"\0" * 6, 20 * MIB
    )  # fmt: skip


def _quiet(make: Callable[[], bytes]) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def _others() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    yield "npy long header", "m.npy", lambda: npy("{'descr': " + "(" * 30_000_000)
    yield "npy fields", "m.npy", lambda: npy(dtype_header(400_000))
    yield (
        "npy shape",
        "m.npy",
        lambda: npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9," * 5_000_000 + ")}"),
    )
    yield (
        "npy objects",
        "m.npy",
        lambda: npy("{'descr': '|O', 'fortran_order': False, 'shape': (9,)}", b"\x80\x04" + times(b"]\x940", 40 * MIB)),
    )
    yield (
        "safetensors tensors",
        "m.safetensors",
        lambda: safetensors(
            b"{"
            + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(700_000))
            + b"}"
        ),
    )
    yield "safetensors gaps", "m.safetensors", lambda: safetensors(
        b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}' % (i, 2 * i, 2 * i + 1) for i in range(400_000)) + b"}", b"a" * 800_000
    )  # fmt: skip
    yield "safetensors deep", "m.safetensors", lambda: safetensors(b'{"a":' + b"[" * 40_000_000)
    yield "safetensors same", "m.safetensors", lambda: safetensors(b"{" + times(b'"a":{},', 40 * MIB) + b'"a":{}}')
    yield (
        "safetensors shape",
        "m.safetensors",
        lambda: safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"9223372036854775807," * 2_000_000 + b'1],"data_offsets":[0,0]}}'
        ),
    )
    yield "safetensors numbers", "m.safetensors", lambda: safetensors(b'{"a":' + b"9" * 40_000_000 + b"}")
    yield (
        "gguf keys",
        "m.gguf",
        lambda: gguf(b"".join(text_of(b"k%d" % i) + struct.pack("<IB", 0, 1) for i in range(1_500_000)), 1_500_000),
    )
    yield (
        "gguf same key",
        "m.gguf",
        lambda: gguf(times(text_of(b"k") + struct.pack("<IB", 0, 1), 40 * MIB), 40 * MIB // 14),
    )
    yield (
        "gguf texts",
        "m.gguf",
        lambda: gguf(text_of(b"k") + struct.pack("<IIQ", 9, 8, 4_000_000) + text_of(b"") * 4_000_000, 1),
    )
    yield (
        "gguf tokens",
        "m.gguf",
        lambda: gguf(
            text_of(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 4_000_000) + text_of(b"") * 4_000_000, 1
        ),
    )
    yield (
        "gguf arrays",
        "m.gguf",
        lambda: gguf(text_of(b"k") + struct.pack("<IIQ", 9, 9, 3_000_000) + struct.pack("<IQ", 0, 0) * 3_000_000, 1),
    )
    yield (
        "gguf tensors",
        "m.gguf",
        lambda: gguf(b"", 0, 1_000_000, (text_of(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)) * 1_000_000),
    )
    yield (
        "gguf templates",
        "m.gguf",
        lambda: gguf(
            b"".join(
                text_of(b"tokenizer.chat_template.%d" % i) + struct.pack("<I", 8) + text_of(b"{{a.b}}" * 100)
                for i in range(30_000)
            ),
            30_000,
        ),
    )
    yield (
        "hdf5 marks",
        "m.h5",
        lambda: b"\x89HDF\r\n\x1a\n" + times(b"OHDRTREESNODHEAPFRHPBTHDGCOL\x89HDF\r\n\x1a\n", 40 * MIB),
    )
    yield "ubj deep", "m.ubj", lambda: b"{L" + bytes(7) + b"\1a" + b"[" * 40_000_000
    yield "ubj numbers", "m.ubj", lambda: b"{L" + bytes(7) + b"\1a[" + b"i\1" * 20_000_000
    yield "ubj objects", "m.ubj", lambda: b"{L" + bytes(7) + b"\1a[" + b"{}" * 20_000_000
    yield "xgboost binary", "m.model", lambda: b"binf" + bytes(45 * MIB)
    yield "lightgbm", "m.txt", lambda: b"tree\nversion=v4\n" + times(b"Tree=0\nnum_leaves=2\n\n", 45 * MIB)
    yield "lightgbm equals", "m.txt", lambda: b"tree\nversion=v4\n" + times(b"=", 45 * MIB)
    yield "catboost", "m.cbm", lambda: b"CBM1" + struct.pack("<I", 40 * MIB) + bytes(40 * MIB)
    yield "rds", "m.rds", lambda: b"X\n" + struct.pack(">III", 3, 0x40000, 0x30500) + struct.pack(">I", 5) + b"UTF-8" + times(
        struct.pack(">III", 0x13, 1, 0x13), 40 * MIB
    )  # fmt: skip
    yield (
        "rds lists",
        "m.rds",
        lambda: b"X\n" + struct.pack(">III", 2, 0x40000, 0x20300) + times(struct.pack(">II", 0x13, 1), 40 * MIB),
    )
    yield "png chunks", "m.png", lambda: b"\x89PNG\r\n\x1a\n" + times(bytes(4) + b"tEXt" + bytes(4), 45 * MIB)
    yield "jpeg markers", "m.jpg", lambda: b"\xff\xd8\xff" + times(b"\xd0\xff", 45 * MIB)
    yield "jpeg segments", "m.jpg", lambda: b"\xff\xd8" + times(b"\xff\xe0\0\2", 45 * MIB)
    yield "gif blocks", "m.gif", lambda: b"GIF89a" + bytes(7) + times(b"\x21\0\1\0\0", 45 * MIB)
    yield (
        "gif subblocks",
        "m.gif",
        lambda: b"GIF89a" + bytes(7) + b"\x21\0" + times(b"\1\0", 2) + b"\x21\0" + b"\1" * (45 * MIB),
    )
    yield (
        "parquet",
        "m.parquet",
        lambda: b"PAR1" + times(b"ARROW:schema\1AAAAAAAAAAAAAAAA", 40 * MIB) + struct.pack("<I", 40 * MIB) + b"PAR1",
    )
    yield "arrow", "m.arrow", lambda: b"ARROW1\0\0" + b"\xff" * 4 + struct.pack("<I", 40 * MIB) + bytes(40 * MIB)
    yield "notebook cells", "m.ipynb", lambda: b'{"nbformat":4,"metadata":{},"cells":[' + times(
        b'{"cell_type":"code","source":["import os"],"outputs":[]},', 8 * MIB
    ) + b"{}]}"  # fmt: skip
    yield "notebook sources", "m.ipynb", lambda: b'{"nbformat":4,"metadata":{},"cells":[' + (
        b'{"cell_type":"code","source":"' + b"a(b);" * 100_000 + b'","outputs":[]},'
    ) * 20 + b"{}]}"  # fmt: skip
    yield "skops nodes", "schema.json", lambda: b'{"__loader__":"A","content":[' + times(
        b'{"__loader__":"TypeNode","__module__":"os","__class__":"x"},', 40 * MIB
    ) + b"{}]}"  # fmt: skip
    yield "tokenizer config", "tokenizer_config.json", lambda: b'{"chat_template":[' + (
        b'{"name":"a","template":"' + b"{{a.b.c}}" * 5000 + b'"},'
    ) * 200 + b"{}]}"  # fmt: skip
    yield "json lines", "m.jsonl", lambda: times(b"{}\n", 40 * MIB)
    yield "json numbers", "m.json", lambda: b"[" + b"9" * 45_000_000 + b"]"
    yield "json blanks", "m.json", lambda: b" " * 45_000_000
    yield "keras text", "m.json", lambda: b'{"keras_version":1,"a":"' + b"A" * 8_000_000 + b'"}'
    yield "utf-16", "m.json", lambda: ("\ufeff[" + "0," * 10_000_000).encode("utf-16-le")
    yield (
        "tensorflow index",
        "m.index",
        lambda: times(b"\0\1\1a\1", 40 * MIB) + bytes(40) + bytes.fromhex("57fb808b247547db"),
    )
    yield "xml entities", "m.pmml", lambda: b'<?xml version="1.0"?><!DOCTYPE a [' + b"".join(
        b'<!ENTITY a%d "&a%d;&a%d;">' % (i, i - 1, i - 1) for i in range(1, 300_000)
    ) + b"]><a>&a9;</a>"  # fmt: skip
    yield "elf", "m.so", lambda: b"\x7fELF" + bytes(40 * MIB)
    yield "random", "m.bin", lambda: times(bytes(range(256)), 45 * MIB)


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {case: (name, make) for case, name, make in _made()}


def main() -> None:
    """Measure, or scan one file for the measuring process."""
    if sys.argv[1:2] == ["--scan"]:
        print(json.dumps(scanned(Path(sys.argv[2]))))
        return
    for row in measured(*sys.argv[1:]):
        bad = "  <<<" if row.seconds > 5 or row.peak_mb > 500 or row.said.startswith(("crash", "timeout")) else ""
        print(
            f"{row.case:28} {row.seconds:7.2f} s ({row.wall:.2f}) {row.peak_mb:7.0f} MB  {row.said[:90]}{bad}",
            flush=True,
        )


if __name__ == "__main__":
    main()
