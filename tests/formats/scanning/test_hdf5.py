"""Files of the real library are kept here as text: h5py 3.16 made them, and is no dependency of this project.

Each has twelve groups (or sixty), as many attributes, data in chunks, a soft link, a committed type, and in the group
`g05` a Keras model with a Lambda layer: whoever does not find that has not followed the file to its end.
"""

from __future__ import annotations

import base64
import lzma
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import hdf5, keras, pickles
from casemate.formats.scanning.signs import Level

READERS = (hdf5.READERS, keras.READERS, pickles.READERS)


def unpacked(text: str) -> bytes:
    """A real file, kept as text."""
    return lzma.decompress(base64.b85decode(text))


OLD = unpacked(  # superblock 0 behind 512 bytes of user block, symbol tables, attributes in headers
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;9D;P?_B@@Z~gwYxU>?e;YFh@`<k2mwX*7|1Ud&ZKN;Mq3>+(X?+3fHSK{%bwR>8*1atsVVh|?|t^qm|B!"
    "V5iPSe<v(LcV%7wjR1DWef<n;VNDx{i(Z4s`7*l}i@De0^ZUN}ZJaOC=g>!9|ijL7(Vyy)9*G?7TO2Iat8tvisF8H*2*nU#svCAEPEH39|bV6&_T"
    "EAT>Y<06y<wQ2)}?^{XjpqyY{|Uvhin&#<;JrW#$rRt*Hff>hctnmUUipmw#Xk#4$^y<cBRkIM@&;00L{KCj8vpeYpy$HwL?Cp_L<$j!`#5LZc5L"
    "^ZsOi*;cNNmiaIoddidTRRA=-=#Vp`Phr)5eq_evm|DQD=-C=a`=H=1Ri*Ys)D&LQDj7&myAGXtf{=7nyLZs96QP4?->@TPx|Yn`Kwe#WORz!#cf"
    "w(_7d-nFx|EomVoCUgaw?0WpsaFYzhc5`@Ru9IDf6#KFkBSx`sV|G`}a#gAELeC4_dE-Vd_0d+FQPo#%eED-I3WlnEv7E&cjvtTZp%7-PF^O2u$*"
    "t~~DMoUGlOX$1BlH4uA+*7~|HGc^CHkm0nW#>9OVj064Yf?~suWmfaM%f!TrOjQB+1WLx0K(@Xy6VxV@TE=IrjJ*`h!8`u)0}DsiJD06AZd1S7b^"
    "0QrmcLa;T`h840!+94a!v94MpJsW3Ni~Xp3aO5`itdu*&Vt0+)qO2pCjm=Y1;Q+%DXSJ*3P->C6{#!zB_FkK7ob#qyF;eNFd=0ht!DX8UZC(-$;a"
    "vyy1GP?!*nf-f1>L<>{E{Yqg6<vJ|LZBYBk&k^cFpH4j9DTILhdI|l!meKEHTGne#`H601aMU*HoSQ}U_Jb^fy*3LuM_!Bda7`qLsZ<uGOop%W@&"
    "xzsIcA))b(RSRHX%m3OuWCZCePB5U!&$q`!<!b_=;A6768-}TRLgEHtfzW6eA-r%)v9&_d2^I-xR;I2)<iT7Jaoq+zme7dPCHpC-CJ7P0)+J3uy<"
    "9R>Okr?vW1!Gu<YRATMOd_=Tua3p>lu!AM+=#4~K9?e{sO###4M@n$nhDR%&KB#cJ-Ky|@)1-tTwM!4R;^+i2^#6^N=glKjSphX!Kst)=oP;)y@I"
    "Mu{yrr8#$Y5wfe;AArFqR7CSA=M|Zc&h_Bsqs3%H8CoI>U1e}UE8#h$l7}grz6wlJQEitXdkDs|z=9~aJAyYdGO+IBmgB@$<4<P7@z@7M%G0^~A`"
    "$IT?vUyup^X{{k?OeYJ;BMOj)P#gx^sr?=YiuI9~PM)oki?|C>fy`oS55Q-fXbR()a)X00Dytu(kmJ69l`ir~nH50ssI2003E9"
)
NEW = unpacked(  # superblock 3, headers of version 2, links in headers, attributes in a fractal heap, one of them huge
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;ZkG;;#~klk_3crdV6<D#@PA!NW{zh)aD~&>*=Q7P8EsqP{`4<wCVZbHtf+4&gK;?O7pe3rRjI4R7lIr<8"
    "R!{lgwXbOouT{H8^%?=kUN1K}Sa-+4Q{0Z|QT1`Ob*@$uuUoLHseBwKssVEe|q_7Uy7Db%N*rVBF16*(;8lt@OOQK;zUl@Q0+@Fj&Kh6Z*&p3U}Z"
    "05ZiUzA=)6Z$#n^mo8W|BxIP=5DM^S7r{C(M-p^X+>ng*78gZgHs_~4Xok#T+9kLL1gn@^6Ukb$k)(O^mL(|9a)szuqH!^ZmsQJ-TG+|(nTbWI}?"
    "e>?nq+LkW#+}rEeO>kceH?fVv-FcHbN|sz(_4m})<yMU9CZw3Go(fPk#`9<9FS3?kn;O45n=__keLQTUfF7&3ea94y0U<mn)Vx^Z%8deE=t~S-0;"
    "x(!>goQk+@B@S#qUz{Yv9n>4LgoWZ2pQ%%yBDqgVUBP41>XQ-=Bh>e)sy>7r`=0a74gbw?{GxY^c;UoBu_xV7xC+B&#_`hk5>g}VYYr^)nNg3{L%"
    "q8%^97K%8^cwh3sh)Mu}VGH2yy}^C~`<ehnlmL$>NX?fx4X{FkWJrl;H5hX!A);fAZHtXwItPfokwgAzuPQc(8ZpO4MOmKcL9*08z~oVWpU&7u+^"
    "FEo#X%9C{Sa5b=`(e`bWYCO%W`pK?GPB+QwYfhCYseA0Qr}b-L?-2{cK~NiY=aNOC}47#WUgdTfm@C?qHWN!HNW#&@kd*sv0sK`7O@oFHSh=EKJU"
    "~YZFfuHyjp2GMh^_3+z9|`4uZ0_k?h`^g2URec3fX1y3L6m_RZ`MeXq`?nTMmI7j!TmZovPN;hkVCsqIXNgGvHFc3Fw0iN8T|B-1_<R`Rk5#B5xj"
    "H6Pt9Pb$K08sx_D-n#RoQuU>zd;*zi|LDZgxL9hk%l}3s~cW(!@h=y@zxoLyrqurQ#sT?FHkFy^9Cl^YLE?iQm!ova$F34bmhxssJZvrP%_M!vJ+"
    ")7(h^Q87`nw`$u2>PXvi_W97>ZKB~kS71(B><@=@?OF8^TPhMqr)ugwHf4|T`SC1KE9H>BjrFaB(7=i`*2{U7!{Ey@TD4$c@I-m!X48x`<3hT$6V"
    "P&NDN1MBa{k(%DRLW1fIsnm|$d~t{_X$dV1wbRO8+(OnMT2Il0Em^)Vg8hKX|AZPb=;_~qG{R>FossX+j2LJXi64^&#JV27@&Q23D*y=>MTwx9^N"
    "KK3z=e}-UTQ(cyE;FVa!_UXeazZg8jRjmX6~DO4JGDg-K4I!c$IJAO#G|#7fs9s>^=z~l-m3m`<Y)G3P9ENGS9U<0$J;f&HFn;pN%9#&5Ewy83r4"
    "{0?9ilY|GwrmZ@*lH?7_>U>v-RR90W|5{m!frsC>0(W<tYHna}vsAu#SLSfo|edrehCG1N2+*^sc@OH4?<mi0Jv&%2rQ3Ju%C{iUs&%cu}-rVTr="
    "9oetMo$M_x}pds+%m}G6<VDTc3yD@h%!!;E$$@iV(FP6l5cJQUAq#$i1>{PAJpjZ#o3eU{ow!%s|mk<G*`PG3ZSSOTQhstb$(+87#vb81u#dI0W2"
    "}Egh!0AW=0QeJdPxg+)&6g?JGBWt&A?7P@`=FGesW#HUAN$^A%Lhx$4olRak~>T0C1`#XQ`Njywe^T4!D&mQU3nxXGd5-ihvL62+F^jUi-rJ$O%2"
    "V<&9hu$~-%I*FU{L+$0O-zd;;F!@fe;>CZp`Lh|B9Gs8U&(VTfD<7mHII@RUsL+_W>WgrjO|wpTk|ZK<D9cOY4S@%GYyFZKV6SJeRIVw)TBDGoic"
    "4~tK0iY0Hd61PZiequ8Y$-zR@p3=cgyZV*p7e776;NNA!yH<K|QUseJ1rp*iOsl9snd?yQbMfm*joYeH`WPF`E9F!yT|^==(|x$89gQ=x(G1!_mk"
    "B%fgWTg?z`{ijg2F0000000H(3<)j4wJFn?Ar~nH50ssI2003E9"
)
WIDE = unpacked(  # superblock 3, links and attributes in fractal heaps with several blocks
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;el%kF<k&ek_3crdV6<D#@PA!NW{ztfZ@oZ)7a}*fPzB51VWeZ3sWLldt^BF6S)EQyrSvYpAcvQq>G?zk`"
    "|2&<|mEhaGGzwhxHa}NxeU6w(A+$Dfxc{J{+Ak>B>;Tth!J;ek7Ubk~z-ovsAW_0aG;ydzf6D*l{JRpc&>@Zn(PogU0W{8|GTW?H#lzLw^qkj5c="
    "aJnGdH=)lxU<?G`9J7rE#5x($H?c~c}SKvs~@f*nAo+bW#f(t9>^jN=m5!!zw(CdofK@$HPNZ#Ne05Pi#zBOI;JCZ;IeOpx1Luqc7PMuvyP^1~H|"
    "ItfJY%V!Sd%i+b?+|c&#EKBxn7G_Ujt&UZQs8dx!NwZPealVKVcj@Td&YUF&C|FWZjx@T)vPVc@a4A()QHi^`TE679Oo2Waey0og5_}5P5ks*-v?"
    "l9akhSec*t7H@#~^tiUJtnv?|(^-5i45)e+m`5WdVF0^KBrc6C=MJTqD=v{ltdjWvq<eLBWz7SaBvDD?9Ie4Uv&QMO3Qs)HMTiTu@Y&g#dUU>?u^"
    "7%;TA*AKeR(TaNS1|MZhITV}PZ#lWgAy|ao`k$+6tNR1*bi^&q`0)O;@3URAu`n(EYQC$7(1sWKMLiYrLQd^Ibt1pOIf^Lb_)y`(jMW6p)D~}g+Q"
    "&?>Esh@605C|)6?WpuOk5GZ80BbS!s@2dOz+_zfsJDUtjEcoeOV&5Zz!&PpHt#D4i2QF#Nq^!0JA)@3>Gzc3L)Yl5zmx%I$6lqpC>9F|9F1oX!+g"
    "*spC&wjz{Rz&e+TyNVQzMpU|g)u>_E!fC5S=lG!0HCzT$7p~`JX;ezq76Tm7qD4a7eqHGR>IV(9&`~SesYWdoc(oNuXY^e2LC<P5bqvME=^fNr*e"
    "u-X8Ik0Sf+;V{9wfp8TOA-}q1;TGh%lQ2j-kL8;Bq*pqE&@)V0R~M25R%TNqd1iM3n&Nb#jgs+FuuX`vIj_6gfAc`Di3+(qa94Gfb?^H=QB2Pcp^"
    "X;0K0;3JUn`>S;cmM>1whE@|EU^bL4LUER^}l@zpWj5Hg)imtS{HM0W$$1E8W=*FZgZR0oZv$c*n3R`%Dvod?yd8B?_3vNDVRxQZZsAsExJ{<H9t"
    "H6x%?g@!gZZl~CTT)C6(;(Zq<Zo<x1ZP0B_ZDLIB%i#&COpgXf5MB8;;5Le!$$$-Z`{$wkBW643$A%uWi@sVAGK1UMYYOVK-Z7mtf!6q;P*3j(K%"
    "FpXuM>@MRi0R4$q8#3B-A<rF-2jx!`goC1Yv*;ySXy=+Yg|G0s}P^tmWSEVQ|xQ1#$-&3@Rl?6JJG)4{Y@tnUmwBWo{bJG9*H1J#aLd`()I~tR1?"
    "DPjf4I7n^_<&b+@Dj6r?GWF7NOhNYxvpO`Am8-z53O_J)~%g<=zGg1rtPp9^aG~ewS{Wf_&QDF8$@ciHeCw6B)uB1iWE^BXtvfeO5rtO#^jB+`|L"
    "P8@}m2huuo{kE0rK}oidT(B1NY5sN8aOoTKsWhfFyd9LuZf~?c``p>-Fm$?^CK|ADE1QZ?eFL`M1DZ7iAbyEJLJ~uv(e8C&bJUoQ?l$jgdQyw{<k"
    "cLMnagOL-<lF)of|v8i!`JN*PycNM!z_To%p7`MV)vwudNs+EUwp{kRe9akip0oXQ;pU;0(IopV@Dc=N)7`QPr)XqvKIvr_u*InPew&WyY1w>>8|"
    "N3ehkc)i*EpzGWfoQgekd-%mZ*P8B|V0Gh8te*3QgpS-fGS$X%*GMkKTu1|`E_~53(=hh8qNeaePckOCj%oWCZ~#vfr~gHzT;K)Rnv_1$f;93uX%"
    "kZZxtUa%n7RVHqC<BaTGQQ10+&H6Sau1s<!K%S#V9z5;(H}J2^U18Xic~bXL8rpn0mr-!&ACxc;i}}#!ckf62xibUh!iQ@eN~PXV2Z-8$r?h?Top"
    "&i&;6K<et>VKy63OSRgU0MrkjpA(dhzEIiLgK=7sv_WN_pj<wF*j_{l9@1~6yAx-qUlgut^(H*#ePel;F>AqZft<4GA*LrIuG`%}{=WbOt2*Q8cq"
    "XzPt61W4>TDY+w=3HpkH00Oisf0I4GM>f-yv7IfVc#n6x2J$x<lFd=l~c0g3Zb_WK|=dQaYhrWG!-?lt%v!$>eik}!Om0rBxm+WyT})fIq~{ftM)"
    "k)PCY8kOWLP;1kW0hViW!um4!Wz?Q!ro-e1qFb?kAAG@*C;zT&r%sKISCt8R5K$L8e{f@hYu7U1tcpb&^k{D5owe|AuaIiR);y2;Y_z9R|`{n7tp"
    "2chX|f)FeMnoV6i^5gVQNg|Mw_g@yP8~tFp-$F_kZpbv)5~3FMSmwLn(6|?LKCp*`Am)8e1ou)D;Y+BAScpgtS>yndfKlJkuku5iD%EOpi=J)nNA"
    "|~Fmp#gQ^?BmVIoJsxV4|@xNa<dNTm{0=nN0euc@#=ex`C3E&5jpDKW$rLADs^6)RA*WZR{_|*^~Hr5n!|)kQUENz4{ydAHE*c(W^IPY&<zV<jFn"
    "z8v7Dvo7=K#Srb!ImX=`VCN!pYc8i*OFIqIkwu5my=i~XBjo0C{5kM|D*XnYL$cZ3<vgIm|`3^LtAcTaxsWz**Gm0Xhs&g#e!AB}?pzsbuQME@QF"
    "}44cL53RLXo;}{|J=hYwE^c-kw#3kh+<HZVY_}|h28KDzpa>4F8~#fX}<=a%r8m{-vjmQrkm`9JA(e`WL~L_=|1)PfdLPoX2gJPV;V!pT#k%Q=)6"
    "<_p*LQfHGB0G><jd<{qpO{Vdm^^4d+_Pk5zmk5_39ExQJawU}fFAPvl~a?fGi^)Lp}#amZKFf;H8pGcDGb6M!&21!BV;7WTOUuAfKJY>Q4?JMAzC"
    "{YYGdj;hwVwgPF9G@C<%^%Cq!*uPAZYK@dM3oq#@xj3pJaj*#Vjt8>sLO~14hdx40gRwfTQa=-4gwZT!Mlym~L2kQ)VHbAMG8dEt(;G^60fanAmr"
    "BY5KklwSF3#b2b?FiOkym7K7+nXE35bSM2{b^3f0fz^F39|@G$w*&1WOrW%wub}C0<YE$*YGK!-9Y_&(I2}X#em}5!Y^73NIHuD??KruUk{_o>&D"
    "A>^#7?r6A;=^d^&%=-r<Y7|Uc1-xml?aJ95~0Bd*NBG8mu&#Pvq{A!cc14VqV!S+S&OWG1$|DE@<e>6%d)HD@9Ucdu?9LdL^MZYBNId0)BMEqD|6"
    "uc3bOKL=3!~oaoVOL5eNyK7<NTt=OjbIwl6+~m@&$(8vR?t{feFy{j(6qI!V0a5pSiPhVfqQKMuaBz^08pT*<!?1kQ-bH;BZ57a165kcI<-19U7S"
    "+_udrzx<L{AlfFja)=^|D>(Xc0#<Bxl<K=$`Hq*V1%;ypf<*j$GI0000000G4m?1BaWaQsp~r~nH50ssI2003E9"
)

NONE = b"\xff" * 8


def look(data: bytes, **more) -> Looked:
    return looked(data, *READERS, **more)


def message(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 8)
    return struct.pack("<HHB3x", kind, len(body), 0) + body


def file_of(*messages: bytes, tail: bytes = b"", end: int = 0) -> bytes:
    """Superblock 0, and a root whose header (version 1) has these messages; `tail` follows it at `tail_at`."""
    body = b"".join(messages)
    header = struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body
    size = 96 + len(header) + len(tail)
    lead = b"\x89HDF\r\n\x1a\n" + bytes(5) + b"\x08\x08" + b"\0" + struct.pack("<HHI", 4, 16, 0)
    places = struct.pack("<Q", 0) + NONE + struct.pack("<Q", end or size) + NONE
    return lead + places + struct.pack("<QQ24x", 0, 96) + header + tail


def link(kind: int, value: bytes) -> bytes:
    return message(6, bytes((1, 8, kind)) + b"\1x" + struct.pack("<H", len(value)) + value)


def attribute(name: bytes, text: bytes) -> bytes:
    kind = b"\x13\0\0\0" + struct.pack("<I", len(text))
    return message(
        0xC, struct.pack("<BBHHH", 3, 0, len(name) + 1, 8, 4) + b"\0" + name + b"\0" + kind + b"\2\0\0\0" + text
    )


NUMBERS = message(3, b"\x10\0\0\0" + struct.pack("<IHH", 4, 0, 32))
BYTES = message(3, b"\x10\0\0\0" + struct.pack("<IHH", 1, 0, 8))
VECTOR = message(1, b"\1\1\0\0\0\0\0\0" + struct.pack("<Q", 10))
HERE = message(8, b"\3\1" + struct.pack("<QQ", 0, 10))
HEAP = b"HEAP\0\0\0\0" + struct.pack("<QQQ", 16, 0, 0)
MODEL = b'{"class_name": "Dense", "config": {"units": 3}}'
EVIL = b'{"class_name": "function", "module": "os", "config": "system"}'


@pytest.mark.parametrize("data", [OLD, NEW, WIDE], ids=["old", "new", "wide"])
def test_real_files_of_every_layout_are_followed_to_their_end(data: bytes) -> None:
    found = look(data)
    assert found.rules == {"keras/lambda"}
    assert {sign.place.member for sign in found.signs} == {"/g05@model_config"}


def test_the_real_files_are_what_they_are_said_to_be() -> None:
    assert (OLD[:8], OLD[512:520]) == (bytes(8), b"\x89HDF\r\n\x1a\n")
    assert all(mark in OLD for mark in (b"TREE", b"SNOD", b"HEAP"))
    assert all(mark in WIDE for mark in (b"OHDR", b"FRHP", b"FHIB", b"FHDB", b"BTHD", b"BTIN", b"BTLF"))
    assert b"FRHP" in NEW


@pytest.mark.parametrize("name", ["conv.h5", "conv.weights.h5", "lstm.h5"])
def test_real_models_of_keras_are_clean(name: str) -> None:
    found = look(corpus(f"benign/generated/keras/{name}"))
    assert not found.signs
    assert "hdf5" in found.formats


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("cve_2025_1550_h5_as.hdf5", "keras/dangerous-name"),
        ("h5_external_link.h5", "hdf5/external-link"),
        ("nested_lambda.h5", "keras/lambda"),
        ("nested_lambda_h5_as.hdf5", "keras/lambda"),
    ],
)
def test_the_corpus_is_told_for_what_it_is(name: str, rule: str) -> None:
    found = look(corpus(f"malicious/generated/keras/{name}"))
    assert rule in found.rules
    assert found.level is Level.MALICIOUS


def other_file(name: bytes) -> bytes:
    """A data set whose bytes lie in another file (external storage)."""

    def build(heap: int) -> bytes:
        slots = struct.pack("<B3xHHQ", 1, 1, 1, heap) + struct.pack("<QQQ", 0, 0, 10)
        tail = HEAP[:24] + struct.pack("<Q", heap + 32) + name.ljust(16, b"\0")
        return file_of(BYTES, VECTOR, message(7, slots), tail=tail)

    return build(len(build(0)) - 48)


def virtual(name: bytes) -> bytes:
    """A data set that is put together from one of another file."""
    block = b"\0" + struct.pack("<Q", 1) + name + b"\0d\0"
    block += bytes(-len(block) % 8)

    def build(heap: int) -> bytes:
        layout = message(8, b"\4\3" + struct.pack("<QI", heap, 1))
        tail = b"GCOL\1\0\0\0" + struct.pack("<QHH4xQ", 32 + len(block), 1, 0, len(block)) + block
        return file_of(BYTES, VECTOR, layout, tail=tail)

    return build(len(build(0)) - 32 - len(block))


@pytest.mark.parametrize(
    ("data", "rule", "level"),
    [
        (file_of(link(64, b"\0../up.h5\0/x\0")), "hdf5/external-link", Level.MALICIOUS),
        (file_of(link(200, b"who knows")), "hdf5/user-link", Level.SUSPICIOUS),
        (other_file(b"/etc/passwd"), "hdf5/other-file", Level.MALICIOUS),
        (virtual(b"/tmp/other.h5"), "hdf5/other-file", Level.MALICIOUS),
        (file_of(message(0xB, b"\2\1" + struct.pack("<HHHH", 9999, 0, 0, 0))), "hdf5/filter", Level.SUSPICIOUS),
        (file_of(message(0x77, b"")), "hdf5/message", Level.SUSPICIOUS),
        (file_of(attribute(b"model_config", EVIL)), "keras/dangerous-name", Level.MALICIOUS),
        (file_of(attribute(b"any", EVIL)), "keras/dangerous-name", Level.MALICIOUS),
        (file_of(attribute(b"model_config", b"{not json")), "hdf5/damaged", Level.UNREADABLE),
        (file_of(attribute(b"TITLE", b'cos\nsystem\n(S"true"\ntR.')), "pickle/dangerous-name", Level.MALICIOUS),
        (file_of(attribute(b"data", PICKLE)), "pickle/dangerous-name", Level.MALICIOUS),
        (file_of(message(0x10, struct.pack("<QQ", 96, 64))), "hdf5/damaged", Level.UNREADABLE),
        (file_of(message(0x10, struct.pack("<QQ", 1 << 50, 64))), "hdf5/damaged", Level.UNREADABLE),
        (
            file_of(NUMBERS, message(1, b"\1\1" + bytes(6) + struct.pack("<Q", 1 << 50)), HERE),
            "hdf5/bomb",
            Level.MALICIOUS,
        ),
        (file_of(tail=PICKLE, end=112), "hdf5/trailing", Level.MALICIOUS),
        (file_of(tail=bytes(1 << 21) + PICKLE, end=112), "hdf5/trailing", Level.SUSPICIOUS),
        (file_of(end=1 << 20), "hdf5/damaged", Level.UNREADABLE),
    ],
)
def test_each_technique_is_told(data: bytes, rule: str, level: Level) -> None:
    found = look(data)
    assert rule in found.rules
    assert found.level is level


def test_plain_links_names_and_models_are_clean() -> None:
    assert not look(file_of(link(1, b"/other"), attribute(b"model_config", MODEL), attribute(b"v", b"3.15.1"))).signs
    assert not look(virtual(b".")).signs


@pytest.mark.parametrize("lead", [b"PK\3\4", bytes(257) + b"ustar"], ids=["zip", "tar"])
def test_the_first_member_of_an_archive_is_no_file_behind_a_user_block(lead: bytes) -> None:
    """A tar of one .h5 file has its superblock at byte 512."""
    assert "hdf5" not in look(lead.ljust(512, b"\0") + OLD[512:]).formats


def test_an_end_before_the_beginning_costs_no_time() -> None:
    """A base address of 2^60 made the end negative, and the look at what follows it ran into the limit of time."""
    data = bytearray(file_of())
    data[24:32] = struct.pack("<Q", 1 << 60)
    assert look(bytes(data)).rules == {"hdf5/damaged"}


def test_bytes_before_the_superblock_are_looked_at() -> None:
    assert look(PICKLE.ljust(512, b"\0") + OLD[512:]).level is Level.MALICIOUS
    inside = look(b"anything".ljust(512, b"\0") + OLD[512:])
    assert inside.handed["user block"].startswith(b"anything")


@pytest.mark.parametrize("value", [PICKLE, b"cos\nsystem\n(tR.", b"c: a sentence (and more),\nand another one."])
def test_pickles_in_packed_texts_are_found_and_sentences_are_none(value: bytes) -> None:
    """PyTables keeps objects so: bytes of any length, in the global heap, named by packed chunks."""
    text = message(3, b"\x19\0\0\0" + struct.pack("<I", 16) + b"\x10\0\0\0" + struct.pack("<IHH", 1, 0, 8))
    one = message(1, b"\1\1" + bytes(6) + struct.pack("<Q", 1))
    packed = message(0xB, b"\1\1" + bytes(6) + struct.pack("<HHHHI4x", 1, 0, 0, 1, 6))
    heaped = struct.pack("<HH4xQ", 1, 0, len(value)) + value.ljust(-(-len(value) // 8) * 8, b"\0")

    def build(heap: int) -> bytes:
        chunk = zlib.compress(struct.pack("<IQI", len(value), heap, 1))
        collection = b"GCOL\1\0\0\0" + struct.pack("<Q", 16 + len(heaped)) + heaped
        at = heap + len(collection)
        tree = b"TREE\1\0\1\0" + NONE + NONE + struct.pack("<IIQQQ", len(chunk), 0, 0, 0, at)
        layout = message(8, b"\3\2\2" + struct.pack("<QII", at + 64, 1, 16))
        return file_of(text, one, layout, packed, tail=collection + chunk.ljust(64, b"\0") + tree)

    data = build(build(0).index(b"GCOL"))
    assert look(data).rules == ({"pickle/dangerous-name"} if b"system" in value else set())
    assert look(data.replace(b"GCOL", b"GCOX")).level is Level.UNREADABLE


@pytest.mark.parametrize("data", [OLD[512:6000], NEW[:3000], other_file(b"x")], ids=["old", "new", "small"])
def test_every_prefix_ends_and_is_never_clean(data: bytes) -> None:
    for size in range(8, len(data) - 1, 61):
        held(data[:size], *READERS)
        assert look(data[:size]).level is not Level.CLEAN


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([OLD[512:], NEW, WIDE]), st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=8)
)
def test_changed_bytes_are_held(data: bytes, changes: list[tuple[int, int]]) -> None:
    out = bytearray(data)
    for at, value in changes:
        out[at] = value
    held(bytes(out), *READERS)
