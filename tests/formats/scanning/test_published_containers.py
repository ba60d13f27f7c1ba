"""Containers and model files that were published as bypasses of other scanners or as flaws of libraries.

The techniques are facts with their sources; the files are made here, their payloads are inert, and none is loaded.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import onnx
import pytest
import zstandard
from onnx import TensorProto, helper

from casemate.formats.scanning.signs import Level, Scanned
from casemate.formats.scanning.walking import scan_bytes

EVIL = b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03."
GOOD = pickle.dumps({"a": [1, 2, 3]}, 2)
CLEAN, MALICIOUS, SUSPICIOUS = Level.CLEAN, Level.MALICIOUS, Level.SUSPICIOUS


def rules(found: Scanned) -> set[str]:
    return {sign.rule for sign in found.signs}


# ------------------------------------------------------------------------------------------------------------------ zip

NAME = b"archive/data.pkl"


def local(name: bytes, data: bytes, *, extra: bytes = b"", **told: int) -> bytes:
    crc, size = told.get("crc", zlib.crc32(data)), told.get("size", len(data))
    head = (b"PK\3\4", 20, told.get("flags", 0), told.get("method", 0), 0, 0, crc, size, size, len(name), len(extra))
    return struct.pack("<4s5H3L2H", *head) + name + extra + data


def listed(name: bytes, data: bytes, *, extra: bytes = b"", note: bytes = b"", **told: int) -> bytes:
    crc, size, mode = told.get("crc", zlib.crc32(data)), told.get("size", len(data)), told.get("mode", 0)
    head = (b"PK\1\2", 20, 3, 20, 0, told.get("flags", 0), told.get("method", 0), 0, 0, crc, size, size)
    tail = (len(name), len(extra), len(note), told.get("disk", 0), 0, mode << 16, told.get("at", 0))
    return struct.pack("<4s4B4HL2L5H2L", *head, *tail) + name + extra + note


def zipped(*members: tuple[bytes, bytes]) -> bytes:
    """`members`: what lies before the data's end, and its record in the directory."""
    body, records = b"".join(item for item, _ in members), b"".join(item for _, item in members)
    end = (b"PK\5\6", 0, 0, len(members), len(members), len(records), len(body), 0)
    return body + records + struct.pack("<4s4H2LH", *end)


def one(name: bytes = NAME, data: bytes = EVIL, *, before: dict | None = None, within: dict | None = None) -> bytes:
    return zipped((local(name, data, **(before or {})), listed(name, data, **(within or {}))))


def second(name: bytes, of: bytes) -> bytes:
    return struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(of)) + name


BOTH = ("before", "within")
PLAIN = (b"a.txt", b"hello there, world")
FIELD = struct.pack("<HH", 0xCAFE, len(EVIL)) + EVIL
ZIPS = {
    "CVE-2025-1944: another name in the member's own header": zipped((local(b"x.txt", EVIL), listed(NAME, EVIL))),
    "CVE-2025-1945: marked as encrypted in the directory": one(within={"flags": 1}),
    "CVE-2025-1945: marked as encrypted in both": one(before={"flags": 1}, within={"flags": 1}),
    "CVE-2025-10156: a wrong checksum": one(before={"crc": 0}, within={"crc": 0}),
    "CVE-2025-1889: no name of a pickle": one(b"archive/config.txt"),
    "modelaudit PR 1043: in an odd member beside data.pkl": zipped(
        (local(NAME, GOOD), listed(NAME, GOOD)),
        (local(b"x.png", EVIL), listed(b"x.png", EVIL, at=len(local(NAME, GOOD)))),
    ),
    "a size of one byte in the directory": one(within={"size": 1}),
    "no size in either header": one(before={"size": 0}, within={"size": 0}),
    "on another disk": one(within={"disk": 7}),
    **{
        f"method {method} is claimed of what is stored": one(**{place: {"method": method} for place in BOTH})
        for method in (1, 9, 12, 14, 93, 95, 99)
    },
    "in the comment of a member": one(*PLAIN, within={"note": EVIL}),
    "in an extra field of the directory": one(*PLAIN, within={"extra": FIELD}),
    "in an extra field of the member": one(*PLAIN, before={"extra": FIELD}),
    "0x7075: a second name that climbs out": one(*PLAIN, within={"extra": second(b"../../x.py", PLAIN[0])}),
    "a file through a link to a link": zipped(
        (local(b"a", b"."), listed(b"a", b".", mode=0o120777)),
        (local(b"a/b", b".."), listed(b"a/b", b"..", mode=0o120777, at=len(local(b"a", b".")))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", ZIPS.values(), ids=ZIPS)
def test_a_published_trick_with_a_zip_is_malicious(data: bytes) -> None:
    assert scan_bytes(data, "model.pt").level is MALICIOUS


def test_a_second_name_in_unicode_may_be_the_same_name_with_accents() -> None:
    plain = b"na\x8bve.txt"
    for name, level in (("na\u00efve.txt", CLEAN), ("weights.pkl", SUSPICIOUS), ("na\u00efve.txt.pkl", SUSPICIOUS)):
        field = second(name.encode(), plain)
        assert (
            scan_bytes(one(plain, PLAIN[1], before={"extra": field}, within={"extra": field}), "x.zip").level is level
        )


def test_a_member_packed_by_zstandard_is_read_as_python_3_14_reads_it() -> None:
    packed = zstandard.ZstdCompressor().compress(EVIL * 3)
    told = {"method": 93, "crc": zlib.crc32(EVIL * 3)}
    head, record = bytearray(local(NAME, packed, **told)), bytearray(listed(NAME, packed, **told))
    head[22:26] = record[24:28] = struct.pack("<L", len(EVIL * 3))
    found = scan_bytes(zipped((bytes(head), bytes(record))), "x.zip")
    assert rules(found) == {"pickle/dangerous-name"} | (rules(found) & {"pickle/several"})
    assert found.level is MALICIOUS


# ------------------------------------------------------------------------------------------------------------------ tar


def tarred(*members: tuple[str, bytes | None, dict]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, told in members:
            info = tarfile.TarInfo(name)
            for key, value in told.items():
                setattr(info, key, value)
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, None, dict]:
    return name, None, {"type": kind, "linkname": target}


def block(name: bytes, data: bytes, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name.decode())
    info.size, info.type = len(data), kind
    return info.tobuf(tarfile.GNU_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


TEXT = b"hello there, world"
ONE = block(b"ok.txt", TEXT, b"0") + bytes(1024)
TARS = {
    "keras PR 22973: a hard link out of the folder": tarred(link("a", "../../etc/passwd", tarfile.LNKTYPE)),
    "keras PR 23015: a link, and a file through it": tarred(link("a", "/etc"), ("a/x.txt", TEXT, {})),
    "a link that climbs out only through another": tarred(
        ("a/b/c", None, {"type": tarfile.DIRTYPE}), link("s", "a/b/c"), link("x/y/l", "../.."), link("x/y/m", "l/..")
    ),
    "a link that lies behind a link": tarred(link("a", "."), link("a/b", ".."), ("a/b/x.txt", TEXT, {})),
    "the first of two long names, which Python takes": block(b"././@LongLink", b"../../x\0", b"L")
    + block(b"././@LongLink", b"ok.txt\0", b"L") + ONE,
    "a long name before an extended one, which Python takes": block(b"././@LongLink", b"../../x\0", b"L")
    + block(b"pax", b"15 path=ok.txt\n", b"x") + ONE,
    "two paths in one extended header": block(b"pax", b"16 path=../../x\n15 path=ok.txt\n", b"x") + ONE,
}  # fmt: skip


@pytest.mark.parametrize("data", TARS.values(), ids=TARS)
def test_a_tar_that_leaves_its_folder_for_some_tool_is_malicious(data: bytes) -> None:
    assert scan_bytes(data, "model.tar").level is MALICIOUS


def test_links_within_a_folder_are_harmless_and_files_with_holes_are_told() -> None:
    links = link("l", "d/a.txt"), link("d/up", "../l"), link("h", "d/a.txt", tarfile.LNKTYPE)
    plain = tarred(("d/a.txt", TEXT, {}), *links)
    assert scan_bytes(plain, "x.tar").level is CLEAN
    assert scan_bytes(tarred(link("l", "d"), ("l/a.txt", TEXT, {})), "x.tar").level is SUSPICIOUS
    again = [link(f"l{i}", f"l{i - 1}/" * 2000 if i else "x") for i in range(20)]  # each doubles what the next is
    assert scan_bytes(tarred(*again, ("l19/a.txt", TEXT, {})), "x.tar").level is MALICIOUS
    holes = tarred(("a.txt", TEXT, {"pax_headers": {"GNU.sparse.major": "0", "GNU.sparse.map": "0,5"}}))
    assert "tar/sparse" in rules(scan_bytes(holes, "x.tar"))


# ------------------------------------------------------------------------------------------------- streams and arrays

STREAMS = {
    "gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}  # fmt: skip


@pytest.mark.parametrize("pack", STREAMS.values(), ids=STREAMS)
def test_what_follows_a_stream_is_found_behind_zeros_too(pack) -> None:
    for rest in (EVIL, pack(EVIL), b"\0" * 700 + EVIL, b"\0" * 8 + pack(EVIL), gzip.compress(EVIL)):
        assert scan_bytes(pack(GOOD) + rest, "m.joblib").level is MALICIOUS


def test_a_pickle_is_read_as_far_as_python_unpacks_it_before_it_sees_the_damage() -> None:
    """`pickle.load` of a `GzipFile` has run all of it when the checksum is looked at."""
    assert pickle.load(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(GOOD)[:-8] + bytes(8)))) == {"a": [1, 2, 3]}
    assert scan_bytes(gzip.compress(EVIL)[:-8] + bytes(8), "m.pkl.gz").level is MALICIOUS
    long = EVIL + np.random.default_rng(0).bytes(40_000)
    for pack in (gzip.compress, zlib.compress, lzma.compress, bz2.compress):
        data = bytearray(pack(long))
        data[-2_000] ^= 0x55
        if pack is not bz2.compress:  # which checks a whole block before it gives any of it
            assert scan_bytes(bytes(data), "m.joblib").level is MALICIOUS, pack


def test_a_frame_of_zstandard_that_readers_skip_is_looked_at() -> None:
    aside = struct.pack("<II", 0x184D2A5A, len(EVIL)) + EVIL
    frame = STREAMS["zstd"](GOOD)
    for data in (frame + aside, aside + frame, frame + aside + frame):
        assert scan_bytes(data, "m.zst").level is MALICIOUS
    assert scan_bytes(struct.pack("<II", 0x184D2A50, 4) + b"note" + frame, "m.zst").level is CLEAN


def array(kind: str, data: bytes, shape: str = "(2,)") -> bytes:
    head = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + data


@pytest.mark.parametrize("kind", ["'|O'", "'object'", "'O,O'", "'f4,O'", "'2O'", "{'names': ['a'], 'formats': ['O']}"])
def test_objects_are_found_under_each_name_that_numpy_takes_for_them(kind: str) -> None:
    assert scan_bytes(array(kind, EVIL), "a.npy").level is MALICIOUS


def test_arrays_of_python_2_have_long_sizes() -> None:
    data = array("'<f4'", bytes(8), "(2L,)")
    with pytest.warns(UserWarning, match="Python 2"):
        assert np.load(io.BytesIO(data)).shape == (2,)
    assert scan_bytes(data, "a.npy").level is CLEAN
    assert scan_bytes(array("'|O'", EVIL, "(2L,)"), "a.npy").level is MALICIOUS


# ---------------------------------------------------------------------------------------------------------------- keras


def made(module: str, name: str, /, **config: object) -> dict:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def refers(module: str, name: str) -> dict:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def keras(layer: dict) -> bytes:
    model = made("keras", "Sequential", name="s", layers=[layer])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
    return out.getvalue()


TORCH = base64.b64encode(one()).decode()
LAYERS = {
    "CVE-2024-3660": made("keras.layers", "Lambda", function={"class_name": "__lambda__", "config": {"value": "4w=="}}),
    "CVE-2025-1550": made("keras.layers", "Lambda", function=refers("subprocess", "call")),
    "CVE-2025-1550, modelaudit PR 1558": made("keras.layers", "Lambda", function="relu", fn_module="subprocess"),
    "CVE-2025-8747": made("keras.layers", "Lambda", function=refers("keras.utils", "get_file")),
    "CVE-2025-9906": made("keras.layers", "Lambda", function=refers("keras.config", "enable_unsafe_deserialization")),
    "CVE-2025-9906, as a class": made("keras.src.saving.serialization_lib", "enable_unsafe_deserialization"),
    "CVE-2025-12058": made("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
    "CVE-2025-12058, an address": made("keras.layers", "TextVectorization", vocabulary="http://169.254.169.254/"),
    "CVE-2025-49655": made("keras.layers", "TorchModuleWrapper", module=TORCH),
    "CVE-2026-1462": made("keras.layers", "TFSMLayer", filepath="beside"),
    "weights from an address": made("keras.applications", "ResNet50", weights="http://host/w.h5"),
    "a class that writes": made("keras.src.layers", "ClassMethod", cls_symbol="io.gfile.GFile", fn_name="write"),
    "func_load": made("keras.layers", "Lambda", function=refers("keras.src.utils.python_utils", "func_load")),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_published_gadget_of_keras_is_malicious_also_in_a_wrapper(layer: dict) -> None:
    assert scan_bytes(keras(layer), "m.keras").level is MALICIOUS
    assert scan_bytes(keras(made("keras.layers", "TimeDistributed", layer=layer)), "m.keras").level is MALICIOUS


def test_plain_layers_with_words_of_those_names_are_clean() -> None:
    for layer in (
        made("keras.layers", "Embedding", weights=None, input_dim=3, output_dim=2),
        made("keras.layers", "Lambda", function="relu", module="keras.activations", function_type="function"),
        made("keras.src.layers", "ClassMethod", cls_symbol="RaggedTensor", fn_name="from_row_splits"),
    ):
        assert scan_bytes(keras(layer), "m.keras").level is CLEAN, layer


# ----------------------------------------------------------------------------------------------------------------- HDF5

EVERY = (
    "single implicit fixed fixed-filtered fixed-pages extensible extensible-blocks extensible-filtered tree "
    "tree-filtered record varied bytes"
)


def unpacked(text: str) -> bytes:
    return lzma.decompress(base64.b85decode(text))


INDEXES = unpacked(  # by h5py 3.14, libver "latest": a pickle as the last value under each index of chunks
    "{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;l`yAWnBP7k_3crdV6<D#@PA!NW{!&H+3AypNjDrf^hNTf?O>9!z6+k_Dw07M_5r~cQm!CiMe7Imu`v!11={"
    "O;HNmbojCVL=DM<PM-4@d_3FU%O=8c*fB_w<Hd0P$2K`$m{XjN-W(q#0_|=>uq4~R^OvjMHxx}3)=9M0XQ_KuBcVk!q(LiRNK?12@jCjyP!-BZI%Fo"
    ">|23-b@W+Y{M`%8~Bdyj~PUhk->eZkc~oPMS*r8OSTj=7XyM-G<H=n_^Qd>odt<dAP#2sEvJ#>-$^5WWLFJI&nL7bAH|-yv;cp2W(gl`Eb$*aD?f*A"
    "*-?auA>c_k1W<@^FbcjQsma`=!^@eTxirT$*hU5Jg}R(TT!v4$h~!37Mp?h$B2JZD>1&gXrH7@#e{G?zSFMQcP-L7B2hRSqqXaw~vn5wnCC-jp1r15"
    "mAsV1$5!8d(h<A=5eOxc?yliM+fTS@f2Bg%JJVsNVRyDww5XR!08gE5E!etmE5we9d!&I@*!><rQ&)byF!ldiL)fBJjXP*3R<$Bum|4HWnm6(FabpP"
    "{5ZN=H;lKpu^*8q{7U&fF$)qeQ~a}MCa~jT1Ypq*V#Cu~HyuenCZC&Mxb!!b6*_l+IICa3#z$Ik`AAQYw((#vBaezjDW<0V!FLc-O_uBezSGle|B?*"
    "p*TBG1BZDQxvE2v*<Taeyo@7vmC6T!@O9<S$hzOP1dU=(udRbm4)!O-ZFz8ith_NyNSWZHTG~Hdvr<rSC7!KFCv?fGixvj~|O6+$_i6qo@aoF>E$*="
    "48@xVsN@7qs*z$pqu?f~Z2Klh^e3`#0>(#_NyvZL@!nEpUAWwxbrY5T2n^_|Y~bQW6|7ao4O!DL=7_xRT#;~SYiS0XqAZiHfq^QXR#N_)7IhmP?EZw"
    "m^@L<ODT7SAG-KteB(Gn8gom@0ib<Tsi_lSv7ty|*X!cys-|veX=LS6E-#$`fVgoZX?puISK<*7+sru6JUNq3f3Dp6;a37t}MLaEgJRw~w%p2d0lkC"
    "0>BNme3*|W(oV-iNccE`|Gds@Er0+YsurVxBH&l920--%NZH|((F4{{{X{!k@C3(N3Lygl<Kbc6|E7&q98eIdZkEA>oEtrliS>8%XA#bYrKL(fl1Jv"
    "9Ji@*MWXzjqF;*1e>0sm=@hwusG~7NTK7N)pPn302d<h$zy3p;bYDKpynfi|TJU@a#QtKLf$cXAW3<^g8Wm!$J@N2Cb(Q~?x0&U3VUbl4K-@m{nX!%"
    "RGPX-n4!7Zjxcew3>W^RkGCbvt*c9wR{Lt~gSM1I#wisGq!wO;eK-0_daSqC)r-0C}75S$cI~Y1gn9@~tSsUWD?2QrHwp>mTz6(0JMwmAt|4l~&G=J"
    "aI+yS9E%WHQZ`%L`j99l*;r<VO9ZHjp~q_7e33?yLyjPCsti`$rYj<D!%;i}adpmO7}LTi?Vsn%K$6`rlq#%|V6;|bCE3J$^qU#&G65Q~4DUwm^G`D"
    "mRC=;!wWnCOCMzBt#uS~@N|6;!upy|>#r5CLZ`GNNQers#+241dwSB%cV72pTW^dWlA!Bcid$B^U!>WvxP^6z*t<sbZj8>z(l_po@K$^OqN_4lD5Yh"
    "o?}XaQYR|;!s0<W)_wS!n5hj`%uZISvM^G@;ykoIFTb-UT2mv;hxFBu3z2Ms(i02x-n+VFe8H<wg_%K@A*_r6t=OiGg~XQ2zS&ZGaH$}n8_6$yDo&6"
    "GAFr{5_xB|mm)ox!3F7~l~X4#2@}$-$gQ*NHJ}o*rFC-m>YOL3JQz{jewPk5{!(8#Z>|sX*JxPh|3lr2nNS4y<%E;u5HphKy65oPPIlui`t*@?Fvw`"
    "g+x;N4YP|lUdm?HLj9L(twk!Q1jZbN+zTrsQpE^4zKJPu)q{FxzTI#!fY@p#vK~$`brU%3tf4ETISDZ_xn7j*D^d__)w$r#-?+8AyM+6XpsrkFB8j^"
    "_v9#ZH6dT`u3LE=~qvR^0=5Fi4a!O>gdJ3eD<U}?w=u0gT6qEd!qJ0pwPg=Ehe=g@jIVPOb-H^h2gBfKY538SWvjNfpMaFN-q>&V1Qgp)UFiGu5`9)"
    "S5cJ)<h2wzQYK`*XU5;<Ow`ZFnd#iNy1@M=wB{W8J#6TH=J-54ubWQ@lZH*f>FyT#o<<kvXibwKzj}$H!rfMvr@>&MpV~AzEJ=pHj@>k$EXJJ=||TG"
    "gF!6#b@=Zl!oc8{|ear0&I~k(alxX{HYlg8r4JShmLW?$h(6v?~Al1+OZ=P`-UoY{nR6z+*9v5?7K_48y4T&wycB{I!`OhvuBy5O^uT=0%d2n@wX&="
    "-I>^_H1MWH`Rr*`QHdSOwIL>|q#15;3u~N(VL|gCT*j!p&!owz;;{Q5GaiEDD`>P4?mzCPJg<qD4_~#&f@9U8vMG7jk*Te2EtV4~^6D|$KkaEDZ}wB"
    "%o8YR^qAHaoQ4R!w!W8UKCX5oCu-900)mp2+@-<xk^!L{^VJtcL<Wk@oqBk9rKJY`LGx3RnfbICVym^24YW}e1wjyI7jKwwrbY%=SbwuHkK0``|ou`"
    "DTA5Ml5ALy9Qr_d(H#1TxsQ*f3?+TwpM0L>6x0}i5ASf)Yn7BFP4T@|rT=^(@`3Cc}{ZKfz|e6D0HcSG^!>J}d3R?l2g#=7&ib7(mEu(oNu30F8%*E"
    "2*pz+3Yl6D^X2o-#dGQyOT|=S7{LU<7p}Fx6)@;7B|wUtFUyD&F*Y)2hKbm^w+az7`<+bM-B8VN*c-e;xB8jBlf~u`2z4Pnv5ss=R(G2vsmze{6S!N"
    "D9cb3ausDowRH?%KO-*x)Q6qfY8CGG3Eg`>EPCqC64$2bI1@GyIcZ7;!+8aT7NCn5U-v@WH)9nlZJlAH=dA(>RW`pZpX$4Pe7%-SKK%?;2kpOeQ?ds"
    "z_x+L;;+C;VsxGC7CS6u(`uc`!`!PeB|A>O-yKV|#Z-!0@8s2bSM>N9R~R~eJ3DFYPpqOK_}==Xn8GhPdO8QSm*MjChHT%jacaa)9F${6ABx6NI|&^"
    "i5Z+U)C7^Lfs~zQ(7*a6W88);Sq^_JIPgM=}tJ(S0MXxqxFa+*SOhx?%3qj<%!H2OI!gZT&IbO(BGdj@YT%S#q?8_Y0M*4)KtX|rbiGv@iBS0ygUX%"
    "Fpk93mRml$5;&^Jl^CH~T{8kV4&xUTHJj6-3($&v58^7zOIKXPJn=^BsPUUj`63vz*Lp4&j;x?U9IoJ?87O`)b+J^l{NpXM-<&HtgrwtiPk1Eo7Q3c"
    "p?w^iR6rFiC0(>&W5A;=mx5)*I*v@UD=YoX=ywiOB8b9$EA=t+YUZ0NsF2pU9p@arR_^{Rk-?5!Tj2bZVUbBWk*h86nYr)Cr4&O%K`1_`?9$T1gczj"
    "jY&=LcqQbi=>dH*;D`lWeFSJX(*O!grtq{Rr+4l<J0VniPLH?TL0}Aiso7oQZy0u<Q~;cEQ=b{wN#$W6OR?xcsNuqu(tiwF*${wsyHv7Jz`o)KTCIA"
    "{R<^SGfe_+h<ntVns$w<oUk6}fH)+r`A6uN@q{X`K-x%mQkC?t)5!2d_;(J9+8=2#9QwGEQ6Zf@(WUd}a}bZi$_96*P|F4rLR<7Hh?;0kAl(hKXXCo"
    "dL0QR{04k7gH!VM>3g7zieykGt?PkenWhsI*vdh=;#a!FOa-G?J?n*LzzYhMiC{wHThw#u~Pt8I`PnhaIf=PIaM2MX~(0zu>P2eDa*BXAf0ip%bY{?"
    "sQH?TggKi5#B-eY9}>nt^xh~5|&HC+>r_G~agurutf@}vXBzbdw2JG6%+I8j(O=V$nYSLt#jKH;zxwk@}71_$Q<H&)m;)l=i2|61j|b%#Bm7NtozgO"
    "J8>+m!bv2;&7*$2dtp9^S}O_mPU7wQPO}MxOmRlqx!FB!65EB{aN`m<K5}>OA=tt_(KZ$p3jtKybJGwr$)m)w2K;%Y%%R4c#3dz<*Vqzj4pt0=E2lO"
    "uk5Dlka(`tQ?wb)W$-R$x}@SZOgMGbNK_`XBVi7wb^>~f~ABUr2*xh&+cXwxrXLw_L-PI4Fs3%rE%iOzfUDY=42yp&#z0Zjd;zQmN+Z1GYJLrt2!VV"
    "qmL8eds7iW0YBD_i~g0;4IOr1ko>tOEkNSpUtY}g1&~K9GG5r+f;(ee&!B=Vuh5X07F6-gE5SoFW#YR=$#6M~;i4V+e<gi$tRI^W_OV2Jip53%I8%o"
    "lbbq9@ZlQNQ-CQBK{Bx%EI)q{^I(Ix!ajpxC{dmW=FfGWvO)4U=8t@D|4N_1PgE!I7f(get{jPB^p}rL;Ps0_X^GHrsdleE`9R1f<1&!J4@{JSdcB("
    "SCBMpi71OqF5q?YB71>iJom_|wbFrmjM`)8w~3+dP(4R`_67}EC#mDsZep80{HgfIQ;I&n<>6FDL&uGnxL7Y`5Yme+7%-6voI&2JT?Yk2xvLs6+OG#"
    "J4<yIgg>b7H66TtmkKPo=WpROEC*;`?dWs+c8x!Fn2dv8$O8ch(Dvls?U&-4D)<QqxK_-q9-9Q?)B|kG~UuwbdCSU<@!|Jl|bY5#^vxg>{4Zco2v2+"
    "NKia)_^Jr?i}3b2P&<uog!kSehCLIJ_kUVOzgl>E79==@Vs)1lfH_Fyi8-fZWR$y*lOM6om2%*Yn8Tr$^v3Xd-)r~9ok4BdLb?&5}(QUv8GP!@Ox#o"
    "QGDj>iAToBDkQi^-E(Q=?IiNVwjitUgC)Buh+4Fv(*PI{>C+U@WYKt#aaco=z_WU|n`X-DK69Rn?Pxgw)Y5LXp#hlDX^@w?P8f{ugkQ@aT=P{c<Q{5"
    "?Omnn;o;9esx0+#p07H!>Io>(;9>A<8<ozUnl3#UuhN>WCqTg7El(_NfD34$#{ihCgae8U&1*|w<AVgxD3!2c~DLR%1uUh${x(fn2e(DZ*^fxrJ@O8"
    "%5<SN|>D-&B<W7I-W5v=NV#`Z^c9EIhh6a->g+JwMi60ccgH-0#C0|`Gquq;fR=lwYXEf@YP;n{gOr(G>F)a?Xxu26l_o2wevP}v-e-D$hYVM!n}Ut"
    "suF&VJ`jr6UGP)yHD~u;8ecp(*PjB;c(Psz@%_M0(eQN0FQo&mdR2+G2Nc*_Ho4#yZm41@Fc;HS$p1H-kKg5sj3}JrPXXmtp{X{2uj6nJpbx*{-zMA"
    "XKW^vTS40pk;Bro6+@)RudBQ&*%N^4!<w57BHsNdL7!Sr>vxTjDE@G6`o}GaBKGEsl@XxGZS1{e-gZm+`SZKd{-?R{o$d=Uc+mOu8ThNwI-4&$MxV-"
    "b_Zu4Xaz@o7QwzIN)c!CPC_xgoQJVV51!V3hy+Sr7BOY{<ysLu0}{4Q7QBVwJ#q>|xi(#4TidpihJj*o;lA;|onGwl5)`i8<gYJb@FGHUCep3$4kZ)"
    "l0v&4e&TeBzs7MK<zvoFjx1?V9LE{er-Oyl|pfxQO2?$OW-%Q})nanH<3V1!AifL4!KFWc8r96YF`lHLXQSnE5B{FeAuDA}rPy6p^JQl1+tmoY_Y(h"
    "#R`5j9MvNq+*S{*kjsrYhh>1&enYnlDy`;8bCnsmRuPnz8`!G8F~dqTUJR38B;DZV{R0?1d<yHBkgn_NI=HQlJ+Dzn;u?u^O3kFRBsuh(%p(58RnjK"
    "`&cw8VKIcD6L<6#0Q|$YegXnkT_m$qW6!|BNnN{Ru_#FOIZ<+8>wxA+Aha2zPw`ob3UkaST48<D%0OS+WI>TPb7`E9!t(Oc@EZ)dOQOX(o1~!i@_lU"
    "XdCl_h0)(b}#;2Gx0b800000Vz|j(N#8$200Ds`ri}*xxgK<0vBYQl0ssI200dcD"
)
WORDS = unpacked(  # the same with words alone
    "{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;kEJ*eq8`Wk_3crdV6<D#@PA!NW{$M@`g~$#6#HAetAHsCVaiZlt^=s*e}pO-E1LLgvT5b_EW9v;kDj_geEX"
    "%*hL`0F;_t+?V3YJ0{Q&OvYNKOeRXG9u1mmhm?J;EpSH7+@*2&rEudqYVD6`4B_v@=Zvz$ibh7^f%X6Qwu`y6ve$y$7M``c9X)1P(%(om-o?2&j(Lc"
    "W<IGDr<jcUW`MM}5kpXACgJ$1VmG4``IDr4Qu>|`N1b-u*MV0$-@IldXlP`aQ1-(8l8GRjn`l1#xlL1KOm1Fy%_c86EfAiTUv^m>5eiWfQ)HpQ`V$b"
    "1t&N_U<maGgN+g8>eC{gW^x^Y8S)6KHV9>=?$aGUwMP^-YAEEF%%4QfNcRv6rd|$ZZ70s(5asujuSucdvODMzEewc1E4<Xgt{qQUvk4Fw-4|m^Tx&X"
    "nv)`S(_Dw0(V#Cu{DL5u!o*+X@{t#lPNP^s<Xm1FDgReXvhj4Nw_eyP~3kmV-Pr&;ff@ypSV33d#5R&p&?41J8uGk4jg;%&@p!khSYk(<D!rWc@;^$"
    "E(9ncJDD_4aILfe0G&~9>qGzs*Yy*95uW?_XFEuboK!fR4ReUGDOG#iNP0KKe>m%eRRGp2b{c3wrtqlbT|+zs(eiCe4@uh(mFM+E^HJC5V5*zBzs1!"
    "XUTn~1c28daT}ev3iBSucoR1-`ST2!7O=8^u3GPPmFBpZOdAkl)e-$QJi=AzuH8Ro1;AYf?TQv%zIC-_vA^uD+<JEN6O#hhupl$2^^DbsvWbT4l3lM"
    "B86y^9_1E-gd(p^gx@=ke8`xai$anwNMs#73cS?FYANjHT=F@d$M@y@GV1ikiU1WDtTD41KpD)<sf7R8~+tSX9?0YtI|0sdoynNmly&b;FjT{qkgSr"
    "AS<NBgtY^hl=7Z0QtxxTwV9xY>%F9QjKcdiBZfgdZ3>j9@DHbzL0$39UgtYF&_hZi%t7<O8l%H`U1^P`iiC5()caPm9u{K$q?{&!BW+4Py5%%;a#++"
    "(Cl`J*@oBG{`-Hu4GTb7|l%o=iP!Gj68!&R{YF{T3%!5EEeOZ%&xYim38_uY?*KKPUs*ZJ5Yu$=DUHnL5}rK(*6061cTiV#AA3zir1orM3_-qJI^@P"
    "3K5>?X#$XVm*-59&)CKvO@3W-n17^%R0E#@pJo>N1>>^a4qp?kdImi>s0y8@R^Gfgz-q$pjrD>xWxz0Nun&O=V7lqP&!bSNuWeC`o^`^4I>8s+m2EV"
    "D>ZW6+GmrE)A+Eqq*j~)8nK+PW_v%_z*_=(pT3m4S2_D(Zq4aOL0DgUFx!mnqA=hW>2Ner2K^$rF;TCTB8uUJ3jb!+yudk%?mPvfmodQo)p%NM;6)N"
    "3eHIMpIbK+cBC4b*HcVpb?pG`7dglK8gJ}`~HW0KBWzx*-~g}z+UU5)>H1+LO>6`B7er%Dr1XM}lZM7x3FBqPAES*ARS67l7I{FtaMTS6|>#8OaNO$"
    "jjkr*W~k<bBRshv2jrHPsPZ=XfIhAwXKZUTeh23b${r3+e&4DI1d|vW3`lKcn}8=g<j^2toY^_qqZeMcEL0v^?TvPyXu=`dUK)tHtd3jPzS^g3nNR!"
    "+w!dK;__qUV%rbQ>@eML8zprVAbA`dK~{bBpLKj511NbCESKaD)g|o?Xi<@TJQ%AH$>R2G1fs0*8it-h8uwX)gVn2Pz9L0bCy0F?6~>G$@YWIN_>ko"
    "b~YCU7Z3*O#Xt|!Py*HIq_F$N1p`F+5S+g__cqT?XCrDW|5QWK0joTUVL_Rgp_q*_Q_B0SPYc!pO@TE$&6Aq*lBmL*-Q7qv1?{@EmmD8Y0Dr*>dDqx"
    "scK1Jg!Wu3TRfN3p7mU!@1*ly(H{YL^<G5PL<=F+3)af^0RPFUdu9ev-Q33G^fB7k<K%g#l>Q{@|#XWJxyqd0du`y4(*3F}<lzFSbhgoO6yZhDt^gn"
    "-HYa^whXcKAtDbF@qsxNb9Qhk?Ci2-t+#LaZSHq{s38E}D^XG*LqO|o2RT0k<383syy2r5CM3uHAxyoLdw>15VZ*hB&<2pSd^?wD;rE`Rp)3!Qjct+"
    "2S=3a%)SRc%%wErOs-UGDrE9P{J&S!tdnX=QkJKF9w+aIG)ya#A$ygHiPDzb}3qEF7F8oz-|-qJ_qGfTcHb_Wp1SA5aFk3AL%1rW*<Y%%!4br{{<&;"
    "bFaN<h#Py)K?A^-H}ufO6w=3NG{_WBx{j|q(`{Fk#RyLGN|Nvn>=SS^HKPARBr2EZmU9;o4lU?6utOn%DwE2v#nU1iMWdYThZ|!M#j)NRz=a@9Mp91"
    "4@JCN`08uY_Pwl9%Fo#fpxz;BoN3~|*x|TbVw9c3p&9RJ7;ZY7pXqu_#~u_<K?#&CdP?5_on*O^RDArx7KwkTlO=%;J%!X2sKsmP`g!8GgRk<mrQ9F"
    "s>z<|jg#6!Ra4;&Ik+~3Wg4J#V{h$Jg`*RfsG@Fo-;9V<DBTMFrt-HMN6GH>7Dh3kKC-xH`e5AP<L-8RwE{7Z_5I7o{_S1;m0KbPTaCsTKz?sSa-Iv"
    "%D5O)?gFPd;FVjzDR?A5918^EUZdy1L6p(>PY1WgX)*34FGB7EnP7)}ZIdq-mS<y203FDxUbHPJq3!=S=@kv$*FdgNH-lrur@tTxj#My?URbu@$N)r"
    "c?+?cW9D2)=Q<!7-xWCnJ_@cu`YGD}CiL>FR@8+FQP$Yv~KVP0H55;O?DF9tB;01pX&r#U|A>&$Vi&8#cZpLaplz<1SR}Zxu_WW4_|R5&vQ$LM>ovY"
    "0&L+kA>Cz<G%gH?;c9(vm;`dB7fn^FM<@50YHMKOA1KPh6E$83PiQPqtMqA!GhPbG4CO<<EwOD;5%nL?f_D0_`I@g%9`Z_Q$yx;aFGE>SJ}|e>E|Q9"
    "0Ykep^Hn6agQnDl&kTO`y~YZpDKycu!Vj?OWf6`f#9u=Kj*DJGZx%?>?MN~083H=(^8Grf*_+*rEYY#>Qw0Pdz=+YSPhXsaZWPA;N)i!^%XVW_!N+x"
    "7+Kz_rd*Z$xbG$>cxV>G)%Qi%@<LRrC#!8i`*`0}3;c1%bBJ;)JATf#wGpH>l4wG+F>`?|#FnP8x#_2vN^h1gJ3wbI(ELunndc};O74qTEudGH0T4F"
    "R3#xF+BFzxm)COOjN*0-^pZ*9@|L~X~=pOjz^yzi(tqoux!3+ym=#(mMYqu`<;chlLVOZ$vPUyy3p!Rra?5g588_}D|l#?desyRcR1WqS-_YD`p|eW"
    "iJ<@@tc62Icy#Wo^evmjeacn^m2ZyNs1r5;ad81sb76{twqnIhCRZbK;9$LZOoTMRwsI=@i9s(Zr^<MAJg*$W@c>DS>oi3&vxV<JO&3Bmt}CdP1-FW"
    "pwDJPs69ohM;2byz&niYE@cadsJ4ywRM95jd*y3nQO#}-&iCuy6ZOqYVJ(dyjY&06)&P;%24T5Z;#HMFxMjeRq{-Xqzz}9m%U(jVvNK5P{VCp&wt57"
    "J$|Ok<7_o19rSkbti$Ksh~H|Y08}2D^@TL|6e?1SYRB!m9Wt7)lzHT0L8YGmM5Dr5e-(!HTe137c?v+bY--Cfz_yw9$9+Vdt%U?HyQ!~#OoF3!E~C_"
    "_ZV2(i<G75kgM@-acZ~$CwWDoe4Ib|PA11fV<39971i^df90Lz~@9Q46RVR5}b01p&8_8xq=euFb0=QD=Oc`m57rUVHQ~jO5sKvp?2fGKP%l7e=Nn8"
    "^FOY^Md4gqSFSrA8r`(POa2kCVwCxoyOrFn>#qYKVO?Mr*<iyBh*ygoaYji7ncm`Wjnr%YI;5po^@BhW&wnf6Q$Ted(Y>pzs>Ek%ZMXVhz>)*@3%gO"
    "byv?x(d^nYQ^EmrL}U<)}fInchh?htMs;%Iyy`8*$v-^su`Lp8<bAL6$?@P}8=@`{^}3Knou*;Jh7v{v0r5C?uwn30F;&&4@3kmUdpZ>G2N=jeyo!2"
    "$;uV{~|Twnb}Mr|B~DZ8R@tY<@Ys#V!!@htGHPA#+zu}PE%AhPP*i4pC?%3E#@cme8x;xf~JW9%Y;6T@wZEHA^ZIA^C}CG8WM^{esdhcwxkvARj!bw"
    "I~TAK=U*+U<n(v|DWpnaJ2Pd3^o+h2XgWXO1u?Ur!oUYA2xDXwfW1Lp>PBkK`=?2HQ3;Z@qkjNi0O;MdTHGHH0Yn&vDt@{MBN(G`4s5X$Y}B1Pc8g;"
    "Yz0He!8}$Mu1BRc(lRCflNyT3eB=}rzjN_90=fuF#69eg{G2RM?>6YP4IOLVA=~|Q@?Ieh7RpD8`L6GZ4n?uSrI!>gVZ?y~wvE1sX(3=5&N!_QXc?!"
    "hkCh8?5IihKIiu=g(1xmYMsGI?+{!1|)9Js+uDc^_XGv)U#p*XPe{nyKwCCZ^g8?0=wud?`U&tgS)wVF2lv~-&>ndDn0V7$Ep#4f_CAogN^xJ>=Hs^"
    "sRum}qFF_g_K&ZZzfP6H8L^SW%Nz>?uN>TTpg@if&PUIe9XB0EtH{5_|FpHYeZV^pPJ8YZ!wz)bV_dP-sb>6;sQq!<6fkJ&VRL7?<bya7pxa4sGZoK"
    "1+h@4kpDh^#DAJ(k)F&Zpbl{!#({qBnQv-f;U~qBn3F_|3bbm+1H7NWO%QQqvq&HB5#JQE7tTxD`23+lzAm++gVckmL0khu!?`h6Zc}ymEp637lRII"
    "abg~p<CVlkA%tH@Un4}v>rZ>hn7@`!_-~XmdSRptK1@d+Y^hvwPR3s$G=4AMD)XDXftr2d_k=*4JJEP)i>tbb0(ZG+6Eq8-zec*$ILx+iYBZK$#BO$"
    "Vw2_xcz$U5%^BYJL7Z-g*@mD^DEtel@-#reZ5?-$Cnrz9JZ2oFu5LI+y&0q^ZS0U@SqlS*NaPZ@=>^bt-cnqQuFQ-mpw%IFvR3Vej<0WyP!>`{-bHi"
    "YmnW}nZM;GShEkcjI+eoFpSitl~gNgd)=6oYt9`aoFp*T#htN&e-<3CX!$*5?nXaD(%INY!;A86(pM<Lr`m}o+y3doNRjQqWb3U-6I;K)>R^;bMUU0"
    "Q5`7#}HkGON2Ayu2kgne+H9;F74Xo7YrdPP|h)bg30%w@z>0x&~m}LeT!oxA(x?LL@}V7QSEyOzSs?lNr7uf0j);##~15gJAnwzrOBdDK<j%ggwnc8"
    "%!-HF{rqBu{o*$f@qWGQS5x3%;tPH)Reb9DFKj~SUu_dH!S>FkZKvnNKq0s+DSJcfQoqcCf0>zu0zF;LC<=8crv!+wNQ1Lw5q-hw$(^QRUqBvmBr0w"
    "wt0k1g2-2qOwH-L)WO67Bb!Y(>L;`~aR200F~tOJ{P=DpJiuD2qLToNzrFtdyQ~(F4<-lOIt}3uw71)MzTLgr2|F33fEOS=gA7~4{c@q6hH70|!c!<"
    "$5pl7TL<p00{%+P$EcQ-Ucg4LrXu8cwh(q=Pqg>o$j-HP-Q{<f&^Mt$bGS;_6>^~-EG}*z400000LRA1a0$Y~300EjI^Xmox!p1k`vBYQl0ssI200d"
    "cD"
)


def test_each_index_of_chunks_is_followed_to_its_last_value() -> None:
    found = scan_bytes(INDEXES, "m.h5")
    told = {sign.place.member.removeprefix("/") for sign in found.signs if sign.level is MALICIOUS}
    assert told == set(EVERY.split())
    assert "hdf5/damaged" not in rules(found)
    assert scan_bytes(WORDS, "m.h5").level is CLEAN


def test_a_broken_index_of_chunks_is_never_passed_over() -> None:
    """Whatever byte after its mark is wrong, a pickle is found or the damage is told, and in time."""
    for mark in (b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EADB", b"EASB", b"BTHD", b"BTLF"):
        at = INDEXES.find(mark)
        assert at > 0, mark
        for place in range(at, at + 40, 7):
            data = bytearray(INDEXES)
            data[place] ^= 0xFF
            found = scan_bytes(bytes(data), "m.h5")
            assert found.level in (MALICIOUS, Level.UNREADABLE)
            assert "scan/reader-failed" not in rules(found)


# ----------------------------------------------------------------------------------------------------- ONNX, TensorFlow


def model(op: str, domain: str = "", **told: str) -> bytes:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    if told:
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", **told}.items():
            tensor.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", ends[:1], ends[1:], [tensor])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (model("Relu", length="4", offset="0", checksum="ab"), CLEAN),
        (model("Relu", prepacked_0="w|0;4;x"), CLEAN),  # ONNX Runtime's weights in the order of a processor
        (model("Relu", basepath_="x"), SUSPICIOUS),  # CVE-2026-34445
        (model("Relu", __class__="x"), MALICIOUS),  # CVE-2026-34445
        (model("Relu", location="../../etc/passwd"), MALICIOUS),  # CVE-2022-25882
        (model("Relu", location="a/../../etc/passwd"), MALICIOUS),  # CVE-2024-27318
        (model("Evil"), SUSPICIOUS),  # an operator of somebody's own in ONNX's domain
        (model("ATen", "com.microsoft"), SUSPICIOUS),
        (model("Relu") + b"\xa2\x06" + bytes([len(EVIL)]) + EVIL, MALICIOUS),  # in a field that no version has
    ],
)
def test_onnx(data: bytes, level: Level) -> None:
    assert scan_bytes(data, "m.onnx").level is level


def test_operators_are_kept_for_the_lock() -> None:
    used = scan_bytes(model("Relu"), "m.onnx").used
    assert [(item.module, item.name, item.called) for item in used] == [("ai.onnx", "Relu", True)]
    assert [item.module for item in scan_bytes(model("Gelu", "com.microsoft"), "m.onnx").used] == ["com.microsoft"]
    node = b"\n\1r\x12\4Relu"
    graph = b"\n" + bytes([len(node)]) + node
    assert [(item.module, item.name) for item in scan_bytes(graph, "m.pb").used] == [("tensorflow", "Relu")]
    text = b'node {\n  name: "r"\n  op: "Relu"\n}\n'
    assert [(item.module, item.name) for item in scan_bytes(text, "m.pbtxt").used] == [("tensorflow", "Relu")]


def test_all_operators_of_the_installed_onnx_are_known() -> None:
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in ("", "ai.onnx.ml"):
            found = scan_bytes(model(schema.name, schema.domain), "m.onnx")
            assert "onnx/custom-operator" not in rules(found), schema.name


# ---------------------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize(
    ("code", "level"),
    [
        ("ops.image.read_file('/etc/passwd')", MALICIOUS),  # CVE-2025-32434: reachable with weights_only=True
        ("ops.image.write_file('/tmp/x', x)", MALICIOUS),
        ("ops . torchaudio . sox_io_load('x')", MALICIOUS),
        ("ops.prim.rpc_async('host', x)", MALICIOUS),
        ("ops.aten.system('true')", MALICIOUS),
        ("torch.ops.own.run(x)", SUSPICIOUS),
        ("torch.relu(ops.image.decode_jpeg(x, 0))", CLEAN),
    ],
)
def test_operators_of_torchscript_that_reach_out(code: str, level: Level) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (("data.pkl", GOOD), ("constants.pkl", GOOD), ("version", "3\n")):
            archive.writestr(f"m/{name}", data)
        archive.writestr("m/code/__torch__.py", f"def f(x: Tensor) -> Tensor:\n  return {code}\n")
    assert scan_bytes(out.getvalue(), "m.pt").level is level


def test_a_graph_that_names_a_foreign_function_is_malicious() -> None:
    for target in ("os.system", "subprocess.Popen", "builtins.eval", "torch.hub.load"):
        graph = json.dumps({"graph_module": {"graph": {"nodes": [{"target": target}]}}})
        assert scan_bytes(graph.encode(), "model.json").level is MALICIOUS
    plain = json.dumps({"graph_module": {"graph": {"nodes": [{"target": "torch.ops.aten.relu.default"}]}}})
    assert scan_bytes(plain.encode(), "model.json").level is CLEAN


@pytest.mark.parametrize("head", [b"\x20\0\0\0ET12eh00", b"\x1c\0\0\0TFL3", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\1\0"])
def test_what_nothing_reads_is_unknown(head: bytes) -> None:
    assert scan_bytes(head + bytes(40), "m.dat").level is Level.UNKNOWN


def test_a_map_of_messagepack_is_unknown_and_no_text() -> None:
    assert scan_bytes(b"\x81\xa6params\xa9os.system", "flax_model.msgpack").level is Level.UNKNOWN
