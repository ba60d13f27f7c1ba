from __future__ import annotations

import base64
import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import hdf5, keras, pickles, zips
from casemate.formats.scanning.signs import Level

READERS = (keras.READERS, pickles.READERS)


def unpacked(text: str) -> bytes:
    """A real file, kept as text."""
    return lzma.decompress(base64.b85decode(text))


FUNCTIONAL = unpacked(  # a functional model of Keras 3.15: attention, operations, schedules, losses
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;34k?$Xx(Eh>52&sX~le_%yx+Z@hE$Z>tPD4UlI7(n<%Z1j0RJ9^xNafQpSU6bM#_yF4FY1uau=D$nLRlu"
    "?6AEA4EW%>t9xYUAPhQP^KNru({QY@*r~DR?do%YXMC8xaS6{H}$vbKyzinS41S&I5c3B)mXzHa2SyPJ?{OyxAb33a)Y=8_C~I15spbNw`RmhFU`"
    "ZFYN7?0v$&G*qUOB%WE5MIQTUQQMXL~Jq3<Z2iVsh3PDuvu|DP69m8c^LH^<k$kdQ1ab-~Ococ|BpM5-CXdwZVuSY`Dl5H_kLa4<(vpDwzqL`leV"
    "@A=?5y_uwh>ACa@@TQ8eBuyaPD+}BiCA;Itcupxvip`xjb<VN9)8eOo##(zNflm!c;uxT7HoG8`J~!4G6WbO3EQLAz#xw|2J&ThvXu_LrX1F^w-Y"
    "L%TYzf&1%9Xu#A$+KrWS<+-OkV!PN}Wlb5`S%L*d-R7)6M3uSVf52AXZKE5Q*^D|Z$-K|FIX%+a!k1KrjfCYK^4880q(?S}r{6pi`aK7tjzWDv6k"
    "s{kUF$|-8v@gN}@I7WyYYi)dy%2vRhsDZI>Ad!`=E<r&u4LoI~dXB|975j5UWCtBt0nEbL18mG%gF1(ucXvAtRqqe<UGnpE{4jFO%axGDy(qLL)Q"
    "uI%5THz&LXmx>GyAsrzXG)fwd7FG;--|Sfg8gg%vBDKJBaum`O?<T#Y;sa;DHU9aSb0l030naB3ns;x!@5P`n~XK5b0O^i=rzMdE9#v7Q3n}k@Td"
    "2ar8kvuqv=GYBky1&0Rq2UD!}oaQg9iX;+jZg9MLp)imIa1+hsA=PRsfj{)0uTMpC>{H7h6><hsZGa1T8$5ZR5Qx_MO`p2jdu`UhlJ52k}98eu`^"
    "l;X`loh2>C}A3)L}ucKkFte!*Hcw=#;29Ll_E33*{PHYZo>ZgQ2Y`U2j-a8hsW_#;5oLobXzs87lHOYDrP_Rn^E#0MqZNbKM@0s{E&m;UEQ@`bbq"
    "qL_fP&arJZWx&l&)b!StgUvjLsVD*@j~xo@DMQ6xI?_c};E3*!wT;oCmluUquP&@sI&oRV=ghFPDOe(y43*iY7XS7sDV1^FvyufV_39lcR^8-VPu"
    "#2+f2#AQz}LHDIv&+NO`90Qx}h*Tj01-E``bWY)7NHxC>=B3uj4tS?$Z=TOF**~&<^LmkmOnmMJ)qqx$zr38gYP9$q;%KPoq1RY>Tr7<YZqU2xfQ"
    "uZMV|_Q9NrA;oDi-=b>UI9c(a;Z}ESo+jB3br(WUN?Wo)pELAD7x=<v;@JagT#nN+SDr|Kgm}e2UD^f;pjs)BzzSk*xU^h3Z&&h<SR`IFZ@@>g5l"
    "9JZQsjj%0^%E`Bv?ah3vuNh){l5{N1#QNG;S4f7U0crK^&yGqw-X}pBjlBs*w9gVtu5*Ersb0fqN2uqqNf^4l1xJ*L63=EMLVxJJ%V<PQPJ6y%}B"
    "uOD%eItNa0o%EVw$m+J2g>hEEE`19mmN)+Z$ON65fWLxs;Jv+vuiWpX|$v^wU_bCn_*!ls`tl$4|67E#BWqIhCe$yN`r+`GZa$2;*o9*<itcoi^g"
    "-(UYa1a05xo_X@Z`D3IQz`cTa9r)h?*1cw0%pM}oyIK&7c1UdqYj0f{O*zgNjQ1%+8&FnQZ$NvaRJcnKJ`(B8zTKND_$ABMvgVl7A6)!L8W+FeO+"
    "4yLloj~P<Xk(hOfL1L#D1+B19cGaA?B3Jj*;JG)N=AGr)m0w?gxJY5X6qfte*>s=1?Tq<qw)mve;r27Bs|hwKkk?O`iQtkt@*zU(_DsYg2nwwi9&"
    "BQ1NcavCFAg8s6(6uohzKhez@FXS#_1wogy#<>I!&k&@&8CW1#)6R``8U%QmWIo);R%8wGr*2F|V;3(>)==0LhW=f~!PBbTrif00G<!@IwFqrX0g"
    "1r~nH50ssI2003E9"
)


def look(tree: object, **more) -> Looked:
    return looked(tree if isinstance(tree, bytes) else json.dumps(tree).encode(), *READERS, **more)


def model(layer: object) -> dict[str, object]:
    """A layer deep inside wrappers."""
    inner = {"module": "keras.layers", "class_name": "Bidirectional", "config": {"layer": layer}}
    outer = {"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": inner}}
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": [outer]}, "registered_name": None}


def made(name: str, module: str | None = "keras.layers", registered: str | None = None, **config: object) -> object:
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def function(module: str | None, name: str) -> object:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


@pytest.mark.parametrize(
    ("layer", "rule", "level"),
    [
        ({"class_name": "__lambda__", "config": {"value": "4wEAAAAA"}}, "keras/lambda", Level.MALICIOUS),
        (made("Lambda", function=["4wEAAAAA", None, None], function_type="lambda"), "keras/lambda", Level.MALICIOUS),
        (made("Lambda", None, function=["4wEAAAAA", None, None]), "keras/lambda", Level.MALICIOUS),
        (made("Lambda", function=function("os", "system")), "keras/dangerous-name", Level.MALICIOUS),
        (made("Lambda", function=function("keras.utils", "get_file")), "keras/dangerous-name", Level.MALICIOUS),
        (made("Lambda", function=function("builtins", "eval")), "keras/dangerous-name", Level.MALICIOUS),
        (made("Lambda", function=function("keras.models", "load_model")), "keras/dangerous-name", Level.MALICIOUS),
        (made("Lambda", function="mine", function_type="function"), "keras/custom", Level.SUSPICIOUS),
        (made("Popen", "subprocess", args="true"), "keras/dangerous-name", Level.MALICIOUS),
        (made("Evil", "evil_pkg.layers"), "keras/custom", Level.SUSPICIOUS),
        (made("Dense", "evil_pkg.layers"), "keras/custom", Level.SUSPICIOUS),
        (made("Mine", None), "keras/custom", Level.SUSPICIOUS),
        (made("Dense", "keras.layers", "pkg>Dense"), "keras/custom", Level.SUSPICIOUS),
        (made("StringLookup", vocabulary="/etc/passwd"), "keras/file", Level.MALICIOUS),
        (made("TextVectorization", vocabulary="../../v.txt"), "keras/file", Level.MALICIOUS),
        (made("IntegerLookup", vocabulary="gs://bucket/v"), "keras/file", Level.MALICIOUS),
        (made("StringLookup", vocabulary="v.txt"), "keras/file", Level.SUSPICIOUS),
        (made("TFSMLayer", filepath="here"), "keras/foreign-layer", Level.MALICIOUS),
        (
            made("TorchModuleWrapper", module=base64.b64encode(PICKLE * 2).decode()),
            "pickle/dangerous-name",
            Level.MALICIOUS,
        ),
        (made("TFOpLambda", function="io.write_file"), "keras/dangerous-name", Level.MALICIOUS),
        (made("TensorFlowOpLayer", node_def='name: "x" op: "ReadFile"'), "keras/operation", Level.MALICIOUS),
        (made("Dense", units=1 << 40), "keras/size", Level.SUSPICIOUS),
        (made("\ud800", "os.\ud800"), "keras/dangerous-name", Level.MALICIOUS),
        (made("TensorShape", "evil"), "keras/custom", Level.SUSPICIOUS),
        ({"class_name": ["os"], "config": {}}, "keras/custom", Level.SUSPICIOUS),
    ],
)
def test_each_technique_is_told_wherever_it_hides(layer: object, rule: str, level: Level) -> None:
    found = look(model(layer))
    assert rule in found.rules
    assert found.level is level


@pytest.mark.parametrize(
    "layer",
    [
        made("Lambda", function=function("builtins", "relu")),
        made("Dense", units=3, activation=function("keras.activations", "gelu")),
        made("Functional", "keras.src.engine.functional"),
        made("Add", "keras.src.ops.numpy"),
        made("Adam", "keras.optimizers", learning_rate=0.1),
        made("Dense", "tensorflow.keras.layers"),
        made("StringLookup", vocabulary=None),
        made("StringLookup", vocabulary=["a", "/etc/passwd"]),
        made("TFOpLambda", function="math.multiply"),
        {"class_name": "__tensor__", "config": {"value": [1.0], "dtype": "float32"}},
    ],
)
def test_what_keras_writes_of_its_own_is_clean(layer: object) -> None:
    assert not look(model(layer)).signs


def test_a_real_functional_model_is_clean() -> None:
    found = look(FUNCTIONAL)
    assert not found.signs
    assert found.formats == ("keras-config",)


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("benign/generated/keras/dense.keras", Level.CLEAN),
        ("benign/generated/keras/lstm.keras", Level.CLEAN),
        ("malicious/generated/keras/cve_2025_1550.keras", Level.MALICIOUS),
        ("malicious/generated/keras/get_file.keras", Level.MALICIOUS),
        ("malicious/generated/keras/module_subprocess.keras", Level.MALICIOUS),
        ("malicious/generated/keras/stringlookup_file.keras", Level.MALICIOUS),
        ("suspicious/generated/keras/custom_class.keras", Level.SUSPICIOUS),
    ],
)
def test_the_corpus_has_its_verdicts(path: str, level: Level) -> None:
    assert looked(corpus(path), *READERS, zips.READERS, hdf5.READERS).level is level


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
def test_every_encoding_that_the_loader_reads_is_read(coding: str) -> None:
    data = json.dumps(model(made("Popen", "subprocess"))).encode(coding)
    assert look(data).level is Level.MALICIOUS


def test_keys_written_as_escapes_are_keys() -> None:
    data = json.dumps(model(made("Popen", "subprocess"))).encode()
    for key in (b"class_name", b"module", b"config", b"registered_name"):
        data = data.replace(b'"' + key, b'"' + b"".join(b"\\u%04X" % letter for letter in key))
    assert look(data).level is Level.MALICIOUS


def test_a_key_twice_is_told() -> None:
    assert "keras/same-key" in look(b'{"class_name": "Dense", "class_name": "Dense", "config": {}}').rules


def test_other_json_is_left_to_others() -> None:
    for text in (b'{"a": "\\u003cb"}', b'[{"class_name": "dog"}]', b'{"_class_name": "X", "config": 1}', b"{}"):
        assert not looked(text, keras.READERS).formats[1:]
        assert "keras-config" not in looked(text, keras.READERS).formats


def test_what_nests_too_deep_or_is_cut_off_is_unreadable() -> None:
    start = b'{"class_name": "A", "config": '
    assert look(start + b"[" * 100_000).level is Level.UNREADABLE
    assert look(FUNCTIONAL[:-1]).level is Level.UNREADABLE
    assert look(b" " * (1 << 23) + FUNCTIONAL).level is Level.UNREADABLE


def test_blanks_before_a_config_hide_nothing() -> None:
    assert look(b" \n" * 5000 + json.dumps(made("Popen", "subprocess")).encode()).level is Level.MALICIOUS


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FUNCTIONAL) - 1), st.integers(0, 255)), max_size=6))
def test_changed_bytes_are_held(changes: list[tuple[int, int]]) -> None:
    out = bytearray(FUNCTIONAL)
    for at, value in changes:
        out[at] = value
    held(bytes(out), *READERS)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["class_name", "config", "module", "function", "vocabulary", "units", "node_def"]),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_any_tree_is_held(tree: object) -> None:
    held(json.dumps({"class_name": "Lambda", "config": tree}).encode(), *READERS)
