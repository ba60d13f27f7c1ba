"""Files of the real library are kept here as text: TensorFlow 2.21 made them, and is no dependency of this project."""

from __future__ import annotations

import base64
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import Looked, corpus, held, looked

from casemate.formats.scanning.limits import Limits
from casemate.formats.scanning.readers import keras, tensorflow
from casemate.formats.scanning.signs import Level

READERS = (tensorflow.READERS, keras.READERS)


def unpacked(text: str) -> bytes:
    """A real file, kept as text."""
    return lzma.decompress(base64.b85decode(text))


TINY = unpacked(  # a tf.Module with a variable: its saver is two functions
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;3)SCFI@lx07XZ+S618XLTv_Wj055WSlnAe@r3rz0z&^k61rM1M<q59w<i7-Zo|}=ARE;Gtr6;=LEki3Dn"
    "v>-4~k=}_p;IVaO^anprkD+Hg<r|Ans%7eKB@Ta@iE#OV}9$5>%F?x|evnU;aG7Q^NIzb>gK&F%?syWcoo%x(VbV<l<%qTXtwz74coTi}>;zg;2s"
    "I=zd;t(hyqJ=fwI<9?T885`5#m6NFFs2uPqD6&Ug9!X>IK>7FOHispsm4$G&k66NS4rRs+MIm(OH-i;9%1X0>$!bYo5Y-x7qzyX`^MYdT*cI=y*j"
    "nTuDS2ETv-~xqp7`$mdvOenfw=wlt4o8=!+t`tpXodJF_`8Fa3&{{34)G|Nkd(WJjRwnW;&j6sj_4@mKDA&(n8JhqvSH}yp+!J3Gc&PYA9$YWgiD"
    ")QX+b)5^L;lNH3V=?&5lp5EoaVMR>#D2@&s`t0m{IAzhdyrw#1H;m#b<?ww}8qEoPQV3)>^DMEc?*P>h2%(DW}E4q9_mggCU6Af=nNMiRe-@L&;f"
    "3oC~{4S15W=!fK3L}{T7`zROKm$qo(RK)IyuFRCvhZ1aKdua_bZ0Hu7X#jz6?X3vGlZm%LH!7-N^YZ&{%>j>Fv<CyV7Hb^1H~u7*S(9jTt}CTQtS"
    "LD8<bS~iYox8-CI?c7w83i;UoDh%Q(rg)KXh4V$6bzbG4ggaobM&X!YiRBP&iS>lajM?h&>83j(%otkHI!-HMu^dyFkJTzeODsP9a-e2;9aCSm(V"
    "6(lO44QMtmk?#M6NkOlW_vizI30s*Z{1QSOLs&W>XqG^iI=bwtu%>`f2IVg|Tnzw=ZY4fP|iL`{M*R1r^6-$0#6=##whW=#|<@!Y0m9HofYU6s3b"
    "#5#0RYSeB+NYiZ(n^Ip6`~7%d|ysoy;j{Bm8TWm`&wh5`(Hnf?AFPNvAzs-YZ%`r4{tI$jvfF&ry!n3DWUbG(@ZzpKUB4$wd|O-s1v6vF>F_<>Bm"
    "ietl=)NxFz?Eni?DW5sS{`?#IaJ_|YH#Aj)<+E7S-a&+fRlHl;I9=UhZmVL?wev|B9;U(JuVPW!E}8jG9}XudGb#H-Slh~(T{6jW4}^i6RR9kd|I"
    "B}{+%{(Fq6C<3?zJAi%IS}Y{A@lRNR1(6Bz7kskVlOo52{P}_iA^!G^(gYFg$?Rjd<4@mL<adgcSx46NP|B3%yi^CiSa9X0%N77#q1AkNO*x<|iu"
    "rFLM)1-i0Zu4vg?-Z+3@bui6ioD0%MH4;pL<~7m`$65iwFwQ@X3~5$DU5C7k1%F#MG@bH0M3*zO)oYM{`a}KRuiE^Tn$^@UOJFMdy+><5_$$XTXi"
    ";kK(L*Q5%4+?~<|`N#F7bZ%s9T{CX~PNf%B-HVen({e1}<=#t_1;A6ZKNjX7c^#YJ20d;V>x%Uu!Ok!1>QD*@bN#LCv*=sx#5Ig#@W#7&3;WmHlO"
    "9jfFwQx?(KHKyA#*9Jb5Uyh&B%nv@>vnIUdjgRSGv^nW<=SEh0`vk*wF5!Ct16(G_?}&r{h0)Z;S)4)Grqa3x9(0{UI0<wadnsjG2>+3Rn4dqHGj"
    "=*v$mo{Yi@U+RIdCMA!3-N!W9>w%@U%FImD1qhtKH#2e3nO=!*)bsFY&bA(!qJhC!0%N>YI>3CeCBlyqy-EUWn-HJ5kvu}sOxK}EK1a0gT;l7o%a"
    ">j4a1QFHY_HWo#NAmF+>;O~NRxG!Oegl%j#FX(&sKYXJ>wws<o#0X&(tSf>1KM$<7upUX1+PF02(t*;3HWUwbzMB!_W}>v$pe`~==y>9Tr{*`5CY"
    "_%jC>k8c<O3dS0Nys1Bh<{jx6f(WseBPVyTTxRHZw8UVrZv&ZfC1-0^;l&TX_pN_eIN!5zUz13DPHb$g;cEvYi6luh6`qKex2-HnO~YNCEtD4UtU"
    "z(n{0(YRPhechMBp3;ZShcy{c&+V(rI&X6#hXu{lbC3F-UHB9OSd!g`semH9+fyU#1Z0Cp%m6p8~S<xk+p0Xr{5|i202?cg@UkL%NeGM!I1*Dd8g"
    "W|~=OC_pC&rfH7E&w6&>LY4g^1=-&TIjAfqL?O7cN^Cs$1Dq|uZ{-FdxT7#ETi%L@`)$9KFOaYD)nX<c{2|RTfouWxUC)$!@3XLTkYW^0gpd_#(v"
    "WV=e}!jJG;3<AcQ!LRX2lXwgbTWa9lw{wYFvs0$_a#26?kWC(9}Oo9|_@=rczbG*CxQr~_ds8Pad!(lqDRi-0>6Uy}oB9#G~hb#NF@f_LNXH9R?{"
    "+aG!o5Em?&W#I<8fO7hhApvF690a;zfG)`b65A5;ohn`{oBa9A{w27YQBG>UD5wnEkfWwPAtrc$&D?z2x+K(52L6E&t^;$xj#trXOYWNJQO|v}>m"
    "ZF$9nY2`w~F6gs7Ucm>p$ZL9vL``y4gPWBKGo5fj}n$i@;0T8dDR%YMIW#$kr13K3rdJn&eOr3mu1=@(t=GcxxWVA*<GSrFS4JjQGd(wN=i?Z!`g"
    "lg)&3)HGl@1E<H51w#fcmzwGj4iEb0cpiP(^(X7-fo=$rQ34DG5sE%<2kxmk->SgqN3TP2tju|7W86d(pW#j*rGofD2X$s_+u^CYuDyDA!<7D4;e"
    "+=KF5J9kqF5!~{5UHu51I-(_J4WPJeu~*NJ;iT0D1iCr2cq3$Lp2}qOdWbETM&*+wPTtR`*RdOLB3z!P~DGGyLH1L%xHNf75XYeKphRJ*Z<ys>(Z"
    "Slc87c>Fp1B5wC0jEmxo%1R6uS3V?57tf5BcVmAS$ZZG(7`2G`cTc0Idz)aS46biCV?%dYChwAk1V6V^&Wen;%d=W4Z=ZrRJQihC45*!$jhi0|L0"
    "uVZf->c#kbpxdX|5!u}%zMiTgup#E?*}uu1V=Ldqmb!{p`Fi-_svOu}!547MD4Vi11c|3U_=m4;7GTm1;Jj!shhL@Q3qvg1zvcT%r(>oe6)?|k<}"
    "YShNw_8IBS|wtbDks%)Sx_Hq!$=7GeNO&26a$_KK%Qa_?X!x(VUA2%YRz7zd8#dJjcniGsPDy_ET`GtE>8WJQ6xFtt5aYpr4SvdTjhS<utS2mq=3"
    "vCEb!F<6NCYi3CLCKZlCpGQEFIL;nt*zdF3YScT7wXy@@^piA%8bfiM^xTG;wXV&;?{EmvuZAH7<plEfZ9n9k1_0fc5s_M-rk|}Xczu0dMf*`S?I"
    "47jtmfFT~H<S%l2@(pS>Ie3!<R7f4sKJ3AahgLxJbWc42Hi1jTUi;@nOD4zR#kzn?3%jCa8`XU>vU!>#Zt3nR_!>zxGVat;6aHJK*VoR0$o<U&G3"
    "+lGpL?rezsdAY;mSP#HkV5A?pX+d)8IST^abt*Po^bSVGvs`;Z%dIRrH3N;40|FPinzoA7L5%RR8Sl&v)BblS1Q{^q9j7_+}LDJf)R6tJu|+P)^!"
    "je#0Bl@0ZNHS9LNV{YnBDdW33HfiVgixRbcz*h=jJ&2)vIda>fyDwVl)h75oX0vID1En*}`$k!?l+CTQ>kEvm>z3Q6vEWENWg@ZQ9b-F%UMn{Mlx"
    "oF=1jHVz%7LN8;Q`AC64E5(!HDnPZntv;3Z1qv6e$ugF?IeowJm!vJk~Q|z8QwRMlGfX^X@0b192LDzO0YW6P~5Vwv@D7Jwg#7>njd%UrMu9!y!u"
    "4ddvyj)P9S<thI1rg=$ia0o3c-$(@KsU6cR-00F}m_)!1=Dxf8mr~nH50ssI2003E9"
)
TABLE = unpacked(  # a tf.Module with a table that is filled from an asset
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;5cy&m0bV?07XYn9Zd1SYc3!N23{c0;wUd{Xy|8SV6-@jGPH??F8&_e;b%jYP#%YkW;*@^%MUUhisquT^V"
    "OCTaGCjtVyzu-8;_H;`_si*++{B;&Z4&t_mm1De{(AZn$hKZERj?JK`7O!v^!)(Wq&85)(3Z2V?*W@3}oPM0Dctjx71M8Z<!gYs`-!dK4#TL%eRX"
    "fS&a6$D;zt*#L-QxGj=*8iKaNEaM%!Dt{hiQHH_O+aW(-HHP0SrkmA0BjLah$ihazL`xUi54_f7`@tL#lWHQgTJ7$NH*nK<el{{6RT1PA|&&JINR"
    "3+$TxGB5(dkG`HfF7Ha+7ISqQmnRly|Qp<e83Mc?sK`kWG@JtSIU;Y`Fg2W3IX^!0v#LpmA0A5@Fj=69qRI5G)9Ux;teRy`(8=6v>($Z*z0=YD06"
    "sU^%(cLQwC6wM^3%bVoxqnFDz%9P6KvOX$N@l;Nha3TaoN0fsV<WaS<vt(}p`6V-;u*jaR_zGfd!JrHJS`X=njzZ6PUN+|dCXEN6TM)lCVqeay~j"
    "Xznch&s$?o9CRsZ38phtwjzUy2#+Msz^_aNmfIe6OAoNrp5)KJQ6ojo6O((#mAs?N**F;>*k!L&bN66#waw4o@u!$@`3q<RK?j;*;$e<A0-N;D0O"
    ";)_#^ygWT=I+@IYPe-HmkB1TevT8u9Azje_fWiiZhkb1W?85#yDm+BH+JYAmt2c_{I-t=_3Hkg#5+oQOcTgO7^Sw_3HRH6FNnBpgkJb39~pqoA!~"
    "@1qqpCls0zL0S!=@HwY_ui!}vJNZs;-SPQJCxUnzmt-n|!p=@-KG+6DglP3kPlmR4Cb8hBk1^~>UhJvNT^yopesJSdWg=^qhm^uk*svf(lTsTyak"
    "fj+b2P*6alPgzF2J>-*5yrbv4G96w<YNHnFNHUyo%h1TXE=Afz`TZIW8c_X2AjCPByMM__>!*4KUvnefT-LQtCcJv2r&UwCF6^VAg;O-N|0_JN&("
    "Ycvxnmk{3IOLtvoJ(`Ph*eQ}r(ix84NJbFV$FgcbBAC4^1-fjYbT!?U^zii~vMExtKE495R>o>$FwbFK7af7rw;UV@y#4ugz@HETpKl9g<U@Pauv"
    "*yyQwc<qHOT${pw3sb|LlCzgn!}~*j_>nz-ZN-H3cNjqH{@)%R$W5KlN|D2Sd_|BOC_&(@rH1NAJ9;+hRbO!jxf_GZcB+P?=0mreXO}!5WpH`}W_"
    "!mSlfu6a`^FQ@i3<{x6vDHc%0x;l1GB$B<S+KS!X8}W0bOnY9vFLS*FfZCU>bvl2RMt;cd^QpUbSJ&EUIm20tWOIq$DM8&yNZ-`txRPHpCe2`9u?"
    "UDp)~veFh;c7fJ_Z9(=CnP;iT{Eu_JbEkLjZeuH{c1kc+(wWi7Wxxt|J@_5dA;=ZqIS|7y&gXh6=0?tak&xd5>iw6*!+)4G5ybxO~Y=VWp$BN1j?"
    "xR66?6&0@UH6__{t#^^pg1Lwlg=b;9!>}coji7Ve4+^-FKZF=wOqkXPhZHC2^`9CnNJxwDxL8JD8G4YpY1}kayY+^a&zWFanFchI<0^-ZhNSi?LR"
    "dNa+1JCX~RXg&cFjMM_s=hkRiNl1aY)u#Zr;RB3vVH1eqUxul|r(_0Ffw*z(lklt}Yb#(`F13|ZE*i%#JlmZ;=p%Ng?f+yf}5Bw|@^a9WF-5pb8G"
    "V9}mJ-Qk|SJhtj)f|}6)Bu)Z!buzWUyZ2b(qp)*omuiuIQw#G5d#)l>Vi>|pTqe7A4EdF-dS#SaW&jXTrcQSSJ+vF3oMup1_^$0QgjkD1O}`zDxG"
    "+ZD8&;^1mc>T_!>%I}MGrahq0CPSdGVm>TW_|Hd$&)^9s*;SEkJKa5}P2`+ho|dv`UvIHeu8ULs4&WABh<KQKfWj`y5?9T$(WigX$@&us6;AfVLW"
    "-St%WlKuK_ayq;SiNj$*Qn=G<-!2#1ZO1I=Zker)BR9N>P{CCfu3GYxVQ9T$PdU>}1<XbnptuLrH1EL?b0KPt9RLl|ckH&{00?OFLEo?qFhY3}u#"
    "rjhC>0<43ThH?9LkA3)(cTq!r{N1-p=K(YyqZ;~=d1b;nVwH+j=UY-(pbQ`haRSlLX~Z|yxbZa2`L$7<3(FnO1ZQ2mCnO!d)+1~65tfSKSAbjQ;0"
    "LPffgC`N<KTwqb{THfIc$QKvI#@!6Aq7o9!!(`Y6{3^uo31Mn{We+m#rnxWoK)16Ai*7W>1lSb<}NStCpzKE#+($nNHzs;~sxkD00S+%^*-f=Ebv"
    "2`sU4vStmUAkSv48EWLg8jc9$bhQ6dFR^_p!~|$<wstla@^!YH8D{e_ey>GNxf3@D?ni#%{9uBU&NCxLwn7g-7YG~*S$>o<!SJSTOSFngz=uby3_"
    "Fzoa^4(mj|$#@yOkyXh=>IpAzJB{C5ID`-d7oe9q1(s`e{=edt9{Ih9U!|88(+-TI^hYF1SYuSD;-4(--l7G@Fqx7>J*f9r8i3Vam96pT)vq)`nK"
    "GdUiU@0K=8X^$IkCAgWCdNm>m)5N;gLR>98n6aY>y7O92-c3`?ylI(iWdT&?JRp4#YyGrWZg5KH$)*s+<<wOM|Ots=Jbg79LKis8Uv?8uitMI>a1"
    "zJv9n-aeCpsiwoV7ROt=}5jG>sL?ZW}K%1dkdy0hF}Ff2dD|sX;|GyzY(a@EYKw3{{nj*{`?njSI76ny%5Cc*54Pzx(`v7pS@nr8L@QS6@g7(6e0"
    "fIK!&jA7Y}}FEXItF_IsBp>F&jU{wfD{?2O`5xSdvp_<K*G>iR|BS&6f3NL?<kMa?Y#m?gD6sEwai0vJy8yerI#N3@xoN=A|3_TeA@?+3GT2sQcN"
    ">2M&?06grxygdfMemh}(Sf({jPo+UQbgX%wGL%@W2x$YPLRHM%B*8H_%r0hNnVa!zZ6a1Y>Kq~GAkzqIJRnHgH6Rd4V-B8`Fp7`M@*H-6*s<zvnv"
    "GSm2%Xly@KxLc>nN3JW}m<fS9_g0#~=@Fif?qXnE?I;o{yE$cc@?|kv_(RJ&W`azxIUuD@VsYaTh-hWr}FmTGm*cX+Hx}8~g}+ZOy5l0g-g|LFHA"
    "i<aI-BN^P(BeZ`a>2huIFG-!ri>Et@Wo0-KAPcS4^l*=0TS<Q?({wW)~Q%x*?IugUjpLQhb=SS-4yce***t`VuGoFSj8dpG|Da2PMtr*X7!}XuKl"
    "hS^9C5ERSU7JoAuO2xX(G-eV9PmL96zoFhLd_V+=giE+Eb~2gpDYjWFFha2--{lq*DY-2d^})|+NNk)B~{b=5Q(4)B+Ox^$Zn5z=9GIammG$pe>7"
    "N%CEJRJ5A&K}ny6?p`lGRTWi+}U4h>sykB-=NDm@&!sw7bQzpf5$tdMeQ?qrP?TlWc><b+sp-BXjju6s#;qiatfW{o^ds^#dzOlZuo0pcv+hATE8"
    "q@4dFKiV)chUDWdXymN_S@AuCXUV?&&T{im@vPSh6F1K=I&x-!IxbFi^Nu~hW&Ud=4fN7^yK-VTriwy=O|T6;)f-$ZzSnTcL^@W|4!dD?kHG=P69"
    "!QW7GAJJ%NN=^?>fMsFqke9Wb;uoiB-V_)UmIraXbRxXgH_*6CIX@HxlR4!$s|?Q@DZ+;eR$(TAuk^u3MAgdal9NWeDyaT?b`+9=2WpFc4aI1&lV"
    "}fwX&?bEj1-F&R6Y-i_0^vg(^UnFa81Iq2FAvF078KF#u4|59hJ;=eJiieMey1Hl*?>eY|z!FOpKwM*4<KLitdzYW9`7z1#)+5AXg>nqsCwNZw_e"
    "x4Lntb+Rulc@T(KoV1b?snUb%*uka+~AXFABV6x03#lRdMH#3KnETQHTFfkflNkzFvGOgV=8vI<4aTpOnmq(fWeH=ax<0Ok$bTF^A|4PDvX$x;&y"
    "Ad?;uaVzzvN&{B2ePTTJ(3)w|ZvrXGe02uBv5U}<q^G>ervA7%iv)+^{r#;%C98K+bFWK^rX{^*|PfuNCo{aE(VcI-Ab?m0uKTIe00fPiq0cG|Mv"
    "N@R?04{g$%SY~ZZ2>cY-+kYYKu^85)A%?PB@*0t9UgwZuMBXG8CPv!{1&xpT>+`r~1E)vPe+OKl34K8bN0~$Yiz}|A!tF-~tUNUPuA(msJ;9+$#x"
    ">+eea6mGfrNroR36L3<<DJW6(cd`p}mrr_Njt@!_IApO32N_FUmNO%THdsp}&j<>$)-iz2Oyc(i-d+h3UQzo4e(|uoj;n-Ta$u9{g%rESSi?moRr"
    "^-KR7KdNpn#MV-0is&yKQ+xk+$;x{_nN~d~{v<t^nhwwC=FB0gyn@2VPJ~OcQ_-W^r{K)7iIUc>^j%^X}omq=$HBhTfmC~iGi?yJ<poyb!;&ZWa7"
    "$(JbzD{ja56~<|BBx7L-@sr+r%|BKE5<~HHq~@~mk_$D&A=K9u{(~oC5=V5BQ%_Gz+_CyA2%*o*2(J7LNJXH>-Jr)imah7mm~YXH%qe(7m}USzrU"
    "hw@&LS}q79AEezUJA0000000F5R@^AnE6olxKr~nH50ssI2003E9"
)
PYTHON = unpacked(  # a tf.Module that calls tf.py_function
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;2+Nk09^nC07XRY5lbDCEz2nU!XT$42dsSqo9<66$<{Y5Qc@-U35FZZE9I=Fb^}LD2j;%%7<Lf*7Y`(_`}"
    "C8MGC}RPsU7JFORUZ$&SO=Jz3x!DDf|mpYBC*O0c4%)f&knOjRL{dx8E#PEvO7Lnf{Cb!>@SdY3<o;ur(MlYyO4hkYwda?;gR>eq%3fUr?&NsMl3"
    "E52wU<LP&HMNsw$_auq<;pkRrEXKvugwq09Ox7m0jBDEjS30_gb()H#ee8_}Yzax<;KpJdvRGlFAZZFkDAZ!mKegbzSd~*`PU9-T_xh5ND?`%`Ly"
    "wcwAvT-&rZ#-1dIpE&1?WWhEtJ%Q!$>H3t`C#BO!2&;dqBuRjIa)A&KU)AJ^6`Gu2jxruwik!^6JaffPUyA0;033*ylTb4ID*7mn@4~@q%@RU`J4"
    "<q6QtCBQ!$+;lr3W4A1qNXyj_jnl7AV3t*g#A)+x76KlSMlg1&M$e7iGe5=#neC4R86%g<X60#4d|5%WyFs^Mb?yQJ17>;fEKaTaG;wzDGV^29=J"
    "n+!=jZ}=`WlVcpS7`_8oM?KTKAK#*HYM1QkDQ@BZcO}3*w_uefv#;1Q>1g<|a9}+x+6AC3-atUn=Kisp&q*%xrg>Ofspb!e)kQpDs~}8vU;|ZfdE"
    "_Qu2Q}NJF%oT0Pb5S5uSG}53|pAAN|?bj1hd!^xEniRi9UGNB1++>1)KCFq-jKppK>@0{zb%VBPx2hC1)jyGDR^Ys|6W(%OO_iCnwa$+9nndds8U"
    "li_B5pOj1JUu3;?!T)6J6?CmGgwGj8xER*}(sQRTmu|E*e?igt+NeOA}t1=sFGjY=kg6E>%PMxm??k~oRSON^ig>-Ul;5Bf}AHkxJ+t_YnRZv${-"
    "s|S4+zAEla4!09gh*RD?l(hJ1v8QJ%%w5`kV72QT!KYyB2-XUE$XKVBQH&VmwHXc%(7F6hxY}cQ_I&K@a~rCsCh-44#V#zw>g?zGZ7SEc6E&~h-4"
    "vAMn4$R(3jq};JxA!$$sp=>SH*th$OM+lZ+gUpZ|rRznxc<LtRp$9wO}>8L6K$=c4`|%)UoN-;qjMALNX<e|@OJCJT}<s*<V9U9HOhM4lOxFTiX!"
    "yDKAsxi$i_4pZLw=@vMP&k>xuz3xE&R=ipX>WD!DRQUJcCDEw++EmJl<KcZVzK{DcWjzF-tK$hBzM#T-=#*~bX@ZjA@(BAn?2_d~L3>|{U9!yWaH"
    "T6VDo>94rCOW;(q^I1@-Hw%U+48-6c&Fx0})js2bvYqXs^dBnZ;2w7BcqqULt*NFS+5a!;-1z28TlPa9+6*)$1wM;uO1Fx7r@oG+hwGY-_PS@Igi"
    "+ia;=2TMQX(Bs#!lMkffLr_w^zjNZR2Pw}}z>e!#VHr)V1(uMuG{Uq)}lS<zH?B~oax?i&{`!eeD8n`Y#6Duytn}8f%Lplsss#fNEO}ZX+cWrQ_M"
    ")rzbaqT!=T|R_2NW&}CHliN;a3W?PqMq&tZ~B-Nrj|ha8y*43Q!j13FrP+|ATQAv03I&$@_x^s42avLfD4qWEU0}b!yF%E$3P|#sB@&zK%70pVZX"
    "_5a$b#(3^27$Z?73W_9DUng<(#F=!j>iR1}_DWnMu0hNGC$Fr36ZaV3Vfr1!k1;*yWxj#1upvqvjHFZ9E<IAlNNSdK!)*>T~d@26*Q`jK!TY{og{"
    "SHnAFn<8OtW-Yc}uHP!kjyYSx)-In2ijZj(sK82}M56S_m{DZ3P~N12AA$mvwVLti4(HyPXZ8kkX`TNMp$<Bw7VMgq8*u*fZU1qBB{C57`CWQ5l`"
    "SRx-+^E5&rq*uA35uH)5|I^p2sZ9gE6(zD(SmWoRufGiMKJeV!xj3<&9wUVBs@Pl~2kA7qp{*aQ}>_)$?P)%S=Xv?AIzPBSAxjPeKy>PM~<cZK>E"
    "dO8P8)Kv+J_<!KOp3OUR&qr$U{O!9_mD(6%*?KgD`FQStHATdax@ui*&hG~J<QB>dU)NYL2B|uVh`1;MVju9u|S+9X~9-9cIu!F#{s^MFfs$2}T)"
    "kDrTUD|;nmsZ+yOZ{ISG&0`QJw+#eBlfYdr1Cvro}UHHS^B^YR~z*~4Q|UPKeWQ|H-~g2%^_BtdNOH#+@C>=%Pk}|gq$+u9b!OQPnPDiRYK~TXVB"
    "CP;N^KFc!Zu7J?kOLPgA4od8p)-URmaJ&|I-M8^!I3(eok(Ni1$HeXFY-rgJC_F}nvl7vsUuqUb=dA85H7R%L=k+KXrgYmz%c5{HJl-<0S#_?Buh"
    "U-&$5s&OR3{D#-&r&A?{?5V^7c!pg#B!kTrM&cA-RQ<Xsfa|P#_8`2IJ+&F)yVj9_9#vaJGM)8fj}t}{Gk<knpyQ&xh?IE22FU}YwZ0?a9l`7(!8"
    "I?F%VAME8Uil%o62aLB4(nOJ9@*d4h^JUN}Q(N53589a467i*KGxjwnGEj)Ajpep=ai%E>-y7dEC4=QQ!$)$JJd=I~$D4wqSp&zV<(pZo%4bZ;E|"
    "3F@_Br%MWw@lB%aqH|gC{tNq~^?`|!%FoQVN7g-*^CuOQFBy-8{dN8N<ZG5|7Ik|#9H4?sGPauq%*Yy%lWNX(tV-axk`#V>6Kq}VO=C0k5#YFDo9"
    "Z9I&s$NH$Jff}!i7uD8#WTM5To}@&ARB^U_QDV6EU80Dt!s6kj5P<YHxrq^_EaSiw5IivUJ-Yjvv~eQPha{t*Ue9&Q&RPEwO3j=bdlB$EmTv%hTX"
    "3ym&-Q8D#{QCPIJn~@>DKNz=JnpGKfXv>VIbnEQ#&?0yIzj_wcbMVf_iSU)(BLFe!qi`Mcy$zaK^oL1AzJ)~`sM5w#EpATSEYHHM_)G|H;Mvjby<"
    "-{&O{)*6FJuK&Hk=(KRCcAV~3{%)?mZ29M?st<u{e5&<vw(a5rM<N%clxa<cH}VP=lgNA=A>)?tijAsMm57C?vmDUUYq}Q$H@EUD<-`ay@gDyUAr"
    "TG_oQgmI00EQ|&_4hGUSHu>r~nH50ssI2003E9"
)
OLDER = unpacked(  # a SavedModel of TensorFlow 1 whose graph has a second saver from training
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5;35MEoLv9}07XcTi0Uf`f1SDG>WY;>WWgUP)jJ24%B@a7Q)etDr=jrbn~<<s>cirWCXoQ4@gLY1;>H|cNf"
    "s`47Xs0yBf$aU{UdsY$)a=(Pj&A}i{gL1bGzXF^a;Fux2u7th;b4pD4A-$OEo@nMclZw$h}>am{?`3FRTTqXBF)xBLi7DH$7Hd3tN{ivze~JM6~X"
    "u+`G8~VbO%h4~R~q(M5@>?56enPJAvc!q2kYJK`{J3upp)DoMxRz`_P((g^<ZpArW}u%ls~TGIe|<g~rILh|Y?xCxV#wNbj~RGJj10`YoV74^~xo"
    "XP?*e4dM-oBrj+42~GZKVH&A6ZuE*%KwB3t`=g@A8-%Ioe#GYsp^wG<EfV}(Zd^um#++8(@oMZ=A{35pqSVOlPf}Y9cGzow)}<Ir4nj$!;xR<>Dj"
    "aYB}99xXn|a^5<a4LZdKrdV>U`Rk{oKsW;d-8@e$&LGV;HN^WZt_t85qwpF`o(>J5~iWov<Q_I`aAo2bB)xr+gSr$u+6YQ{;D+n6>MxgM+@xkgPl"
    "0}UGu-RMzNNf9x+XZE+%(uX1rG$|z9o!x%0>k$?i%K+<vAC#HNfB2VIvk*D#cUhCc2{kf*gxo?b^DEaiqa-uBc78^rw%~dx8vGb&fz(^^vnuA7W2"
    "mIxRS&H9cN9Cm?{xSGhq0VG26N;-rO2Y=p7z_$|2%xNs&Z33^(%kI*rlzA>NZd$c{Yh?AHC9TBsxYwMhyjnSj{(6Nzk#sK>4Ohd0$xjEiQ%-6CF!"
    "38U-i?r5b37N=zga3+-mFSWObimjsfX^1>d&l95)b2lMmC;4BJ7(t`eIiir5{J<e#Ckf~p={f|;e2p6GnyN)H_0E5l)v)O7;Tr{}os-^KqJD^+ce"
    "Om=c@&gm?lvNFAmsg|$Zt9@P$+0C)N7v2|X99gGdtiO*!V~>w%m11m@|Iq6`%tzX%sa;>?aumjTz(V-Jo;)?{6!F?u;xwIJ#`p|irCOt!$rQPn|a"
    "dN-P|)ORWOQ!?=au448F&D;NP8G!3m@Qn_&RYpI2t<`4*FdW(Rj^oULofy8%9m_vt#X?plsVw&2>SFqX+%^R^4RC?xs{spm%79qTG>AVeZu0-jJG"
    "*rku!JA6_SMv9=9AkW-y-+HbzDv0**HS;?PWB|VlqxUi3MH8)!a-7VBwqRqEHCtlb<$x3ez@^`R8?@a85cmn^=lRZGS?_cy|4TL!N}We1Ef+Z01t"
    "!6+T|@Zkte75Q0(E(RlI?<FT2vjHzbrE?XRm#FX8~}wV6omUK1iWGPIK_ygmx7iXED@Aw?m<b65Z(cU9z?D2-e0L3;qDkq$?VHyesbMQ$>t?K%~0"
    "DCYIsKddcvo8Tc0rKvGS?o#o-g*U*gMtJB1``*NSBiWYQD|I}eZj1VvA`JnD@HpaI+=dY(~;Q_R9-Ta?83#Dv=QI_Nxgbs9xK2)zX!BS1|;*0+Nv"
    "OXrnZ7|3sj6{wYnGQV2l7eil3O7Tim>ybw@cIf9elH4%HV+Us#8}mm#1ZEUV@S<~eOp66Wh^>OAG@^UAFaOvY!)auUjQD7B-Ibatu{j^lMgk=bb6"
    "WpIYttkJF)}4ep`8Secz}%!>fFc>kc_}<|pVei_)Kmi5$oeaYbf21URkb4gmgpCG?C_fK^63*{{yvOc!K-l;VY^m{(1zV=w_UDZT$+l8fByd$`gz"
    "su(&jT&8dNw+s)D{_xZyxJasICTyWwUKSbxA|bBH8?vPQ0dk!yE`gm1YO~oEC*!H`8u+rY&*KDl=cKTE+aP6YW>Ky+hB*h3D()cml+g5cbpf$L0-"
    "Hz190re3^FRm|yZEIrbWuf76i6?=Nb8I1Kp2Wz2_(}~V9)XR2w1kCHu%#BZNLcWmjfn?Ande_rOG0@2QQ9g@13YauG$uwQfi0p;GQMTnfKI6EnL7"
    "%GmKLq1b%ziLlmab+L%5P98liSMFdHn$TVkn{O2lMIR-AmsM(%uiQ_R_Sw)aK4Soz~%;$ARe)6&-I?j#uSpAxd?&3N3M9$t{4w13C9|+GVIR$2}="
    "k}}G6Sc@3U}*a}u;v{lKuPQImb#9;qju9`jyb4JrG!t?x8(HFu@2=4_Yv_?68v(exEK|G0x#8)oxY_3lD2ot<X|V*daTg3RVGJ6q922gcRb~<Fz2"
    "g125tRK4n2aMuwT8@e@)zXq;<n6zdPRMhY%F<<wkKg*FT$qZ5VZUzjSwGHZ8r_(Y6$t*Ty0B`{Krl291Mw8?jKl*rZ-vj|k0Mj$WW{nHrlNnq~xx"
    "H7oaU&aL)2b~&evH`LRPg=i~*1X|0kyLDWRUh_H@3drq+t>#UZ1F#wCGO0!w`3r`u@New=)*8aG3hkO+Zg>8S1uD`&puS5~`;e27hg=hCW{~8n7z"
    "Q$y1aN}&BM)Cd14!|Av`m*WUJPa+rHG6beDM17Xz#Hl9<+H9V)>8tW!)?%>xzp)6%YISkS(aBY_;Lbxy~CvfI*>bxnOe>37-|>?4`PlWdf98-NkE"
    "Ppf8p_Wb{5uNWcX^b(OM!=1wiPVvA+t?MJ{!bh5#{i5X2oy}r?=ProzYooip$Q)Fc~7hj)k`U)ur$)l{W9bUoZ7bj)5Vu<$%Qeho59Yl*g`0eokv"
    "8GcBfYTab&8`9tG>b_>%A*c~Q>VzNqidI4uMp>-W@Y3@3(dZwAj|+lTkQ>B^avRhahhGs)N-rPesH4_eq(_JS&XEgoj6m|*o(iOs)^q4dS%<pE*F"
    "Lp@}Ejhju_8*BfSgDz7`O0J2cZtqHYoPE{dUJYVGUS5ClVPYpW<dztQT}y-oRD?_Y+Bl3ij5{mFzz+s;wvvoEX06UUlB6SZkeI{?9v2_zT*00FQO"
    "ghT)U>V3D7r~nH50ssI2003E9"
)
INDEX = unpacked(  # the index of a checkpoint
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf5-~fC8O<e#0U>1@}O@s5rj0Z>+(n^yi69&ELd!KDtH~b91tsE!n$fY-V?-m^aOJ^*;XktC#@z2s2HBdtZgT"
    "6tU9oHToW0758(<aGaas|Ht0000000CirOybmX26CQy0RR91003E9"
)
HASHES = unpacked(  # fingerprint.pb
    "{Wp48S^xk5{}S0j0stWa8~^|S5YJf50RUnMn3LC*o!XA^zX1@xqukGct&O?00T`s9zxdLCueF~6AiKG};nL^Ho7Mp+qMOqC_Th!65i$Y@1Ue@&I5"
    "IahGdMXlH!?CbI5{ynH!wFaHaRdiHa9jhF)=YXHZe0bH8cPK00DDj{I4(Y26CQy0RR91003E9"
)


def look(data: bytes, **more) -> Looked:
    return looked(data, *READERS, **more)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes((value & 127 | 128,)), value >> 7
    return out + bytes((value,))


def part(number: int, data: bytes | str | int) -> bytes:
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    data = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    pairs = b"".join(part(5, part(1, key) + part(2, value)) for key, value in attributes.items())
    return part(1, name) + part(2, op) + b"".join(part(3, item) for item in inputs) + pairs


def text(name: str, value: str) -> bytes:
    return node(name, "Const", value=part(8, part(1, 7) + part(8, value)))


def graph(*nodes: bytes, functions: dict[str, tuple[bytes, ...]] | None = None) -> bytes:
    library = b""
    for name, inner in (functions or {}).items():
        library += part(1, part(1, part(1, name)) + b"".join(part(3, item) for item in inner))
    return b"".join(part(1, item) for item in nodes) + (part(2, library) if library else b"")


def saved(inner: bytes, *more: bytes) -> bytes:
    return part(1, 1) + part(2, part(1, part(4, "serve")) + part(2, inner) + b"".join(more))


PLAIN = (node("x", "Placeholder"), node("y", "Relu", "x"))
ASSET = part(6, part(1, part(1, "vocab:0")) + part(2, "vocab.txt"))
CALL = node("c", "PartitionedCall", f=part(10, part(1, "f")))


@pytest.mark.parametrize("data", [TINY, TABLE, OLDER, INDEX, HASHES], ids=["tiny", "table", "older", "index", "hashes"])
def test_real_files_are_clean(data: bytes) -> None:
    found = look(data)
    assert not found.signs
    assert found.formats[0].startswith("tensorflow")


def test_a_real_python_function_is_told_in_its_function() -> None:
    (sign,) = look(PYTHON).signs
    assert (sign.level, sign.rule) == (Level.MALICIOUS, "tensorflow/operation")
    assert "EagerPyFunc in the function __inference_f" in sign.what
    assert PYTHON[sign.place.offset :][:40].find(b"EagerPyFunc") > 0


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("benign/generated/tf/keras_metadata_lambda", Level.CLEAN),
        *[
            (f"malicious/generated/tf/{name}", Level.MALICIOUS)
            for name in (
                "EagerPyFunc_in_function",
                "MatchingFiles",
                "MatchingFiles_in_function",
                "PyFunc",
                "ReadFile_in_function",
            )
        ],
        ("suspicious/generated/tf/LoadAndRemapMatrix", Level.SUSPICIOUS),
        ("suspicious/generated/tf/SaveV2", Level.SUSPICIOUS),
    ],
)
def test_the_corpus_has_its_verdicts(path: str, level: Level) -> None:
    assert look(corpus(f"{path}/saved_model.pb")).level is level


@pytest.mark.parametrize(
    ("op", "level"),
    [
        ("PyFunc", Level.MALICIOUS), ("PyFuncStateless", Level.MALICIOUS), ("ReadFile", Level.MALICIOUS),
        ("WholeFileReaderV2", Level.MALICIOUS), ("TextLineDataset", Level.MALICIOUS), ("WriteFile", Level.MALICIOUS),
        ("RpcCall", Level.MALICIOUS), ("DataServiceDatasetV4", Level.MALICIOUS), ("ImmutableConst", Level.MALICIOUS),
        ("RemoteCall", Level.SUSPICIOUS), ("SaveV2", Level.SUSPICIOUS), ("LoadAndRemapMatrix", Level.SUSPICIOUS),
        ("XlaHostCompute", Level.SUSPICIOUS), ("SomebodysOwn>Op", Level.SUSPICIOUS),
        ("MatMul", Level.CLEAN), ("FusedBatchNormV3", Level.CLEAN), ("StatefulPartitionedCall", Level.CLEAN),
    ],
)  # fmt: skip
def test_operations_are_ruled_alike_in_graphs_functions_and_every_container(op: str, level: Level) -> None:
    bad = node("bad", op, "x")
    for inner in (graph(*PLAIN, bad), graph(*PLAIN, CALL, functions={"f": (node("g", "Relu"), bad)})):
        for data in (inner, saved(inner), part(1, part(5, "2.21")) + part(2, inner)):
            assert look(data).level is level, data


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (graph(*PLAIN, node("p", "PrintV2", output_stream=part(2, "file:///tmp/x"))), Level.MALICIOUS),
        (graph(*PLAIN, node("p", "PrintV2", output_stream=part(2, "stderr"))), Level.CLEAN),
        (graph(*PLAIN, node("p", "DebugIdentityV2", debug_urls=part(1, part(2, "grpc://h:1")))), Level.MALICIOUS),
        (graph(*PLAIN, node("p", "DebugIdentityV2")), Level.CLEAN),
        (graph(*PLAIN, node("p", "FixedUnigramCandidateSampler", vocab_file=part(2, "/etc/passwd"))), Level.MALICIOUS),
        (graph(*PLAIN, node("p", "DecodeProtoV2", descriptor_source=part(2, "local://"))), Level.CLEAN),
        (graph(node("u", "f", "x"), *PLAIN, functions={"f": PLAIN}), Level.CLEAN),
        (graph(node("u", "PyFunc", "x"), *PLAIN, functions={"PyFunc": PLAIN}), Level.MALICIOUS),
        (graph(*PLAIN, node("b", "Const", value=part(8, part(2, part(2, part(1, 1 << 40)))))), Level.MALICIOUS),
        (saved(graph(*PLAIN), part(6, part(2, "../../etc/passwd"))), Level.MALICIOUS),
        (saved(graph(*PLAIN), ASSET), Level.CLEAN),
    ],
)
def test_attributes_and_assets_are_ruled(data: bytes, level: Level) -> None:
    assert look(data).level is level


def filled(name: str, path: str) -> bytes:
    return graph(*PLAIN, text(name, path), node("i", "InitializeTableFromTextFileV2", "t", name))


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (saved(filled("vocab", "/where/it/was/vocab.txt"), ASSET), Level.CLEAN),
        (saved(filled("other", "/etc/passwd"), ASSET), Level.MALICIOUS),
        (saved(filled("other", "v.txt"), ASSET), Level.SUSPICIOUS),
        (saved(graph(*PLAIN, node("i", "InitializeTableFromTextFileV2", "t", "x"))), Level.SUSPICIOUS),
    ],
)
def test_tables_are_filled_from_assets_alone(data: bytes, level: Level) -> None:
    assert look(data).level is level


def test_a_saver_may_save_and_nobody_else() -> None:
    saver = part(3, part(1, "name:0") + part(2, "s:0") + part(3, "r"))
    nodes = (*PLAIN, node("name", "Placeholder"), node("s", "SaveV2", "name"), node("r", "RestoreV2", "name"))
    assert look(saved(graph(*nodes), saver)).level is Level.CLEAN
    assert look(saved(graph(*nodes, text("p", "/etc/x"), node("t", "SaveV2", "p")), saver)).level is Level.SUSPICIOUS
    mine = (text("name", "/etc/x"), *nodes[:2], *nodes[3:])
    assert look(saved(graph(*mine), saver)).level is Level.SUSPICIOUS


def test_configs_of_keras_beside_and_inside_are_read() -> None:
    config = '{"class_name": "Lambda", "config": {"function": ["4wEA", null, null]}}'
    beside = part(1, part(2, 1) + part(3, "root.layer") + part(4, "_tf_keras_layer") + part(5, config))
    inside = saved(graph(*PLAIN), part(7, part(1, part(4, part(1, "_tf_keras_layer") + part(3, config)))))
    assert look(beside).rules == look(inside).rules == {"keras/lambda"}


@pytest.mark.parametrize(
    ("text_", "level"),
    [
        ('model_checkpoint_path: "ckpt-1"\nall_model_checkpoint_paths: "ckpt-1"\n', Level.CLEAN),
        ('model_checkpoint_path: "../x"', Level.SUSPICIOUS),
        ('# c\nmodel_checkpoint_path: "c"\nall_model_checkpoint_paths: "/etc/x"', Level.SUSPICIOUS),
        ('model_checkpoint_path: "\\056./x"', Level.SUSPICIOUS),
        ('node { name: "x" op: "Placeholder" }', Level.CLEAN),
        ('node { name: "x" op: "Py" "Func" }', Level.MALICIOUS),
        ('saved_model_schema_version: 1\nmeta_graphs { graph_def { node { op: "\\x50yFunc" } } }', Level.MALICIOUS),
    ],
)
def test_the_text_forms_are_read(text_: str, level: Level) -> None:
    assert look(text_.encode()).level is level


def test_the_corpus_checkpoint_is_suspicious() -> None:
    assert look(corpus("suspicious/generated/misc/checkpoint_file/checkpoint")).level is Level.SUSPICIOUS


def test_a_shard_is_known_by_its_name_alone_and_everything_else_first() -> None:
    assert look(b"\0\1\2", name="variables.data-00000-of-00001").formats == ("tensorflow-shard",)
    assert "tensorflow-shard" not in look(PYTHON, name="variables.data-00000-of-00001").formats


def test_fields_in_any_order_and_unknown_ones_hide_nothing() -> None:
    bad = graph(*PLAIN, node("b", "PyFunc"))
    data = part(99, "x") + part(2, part(77, 5) + part(2, part(55, "y") + bad)) + part(1, 1)
    assert look(data).level is Level.MALICIOUS
    twice = part(2, "Relu") + part(1, "b") + part(2, "PyFunc")
    assert look(saved(graph(*PLAIN, twice))).level is Level.MALICIOUS


@pytest.mark.parametrize(
    "data", [TINY, INDEX, saved(graph(*PLAIN, node("b", "PyFunc")))], ids=["tiny", "index", "small"]
)
def test_every_prefix_is_held(data: bytes) -> None:
    for size in range(0, len(data), max(1, len(data) // 150)):
        held(data[:size], *READERS)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([TINY, TABLE, PYTHON, OLDER, INDEX]),
    st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=6),
)
def test_changed_bytes_are_held(data: bytes, changes: list[tuple[int, int]]) -> None:
    out = bytearray(data)
    for at, value in changes:
        out[at % len(out)] = value
    held(bytes(out), *READERS)


def test_a_million_functions_end_early() -> None:
    # not by the clock, on however slow a machine
    found = look(part(1, PLAIN[0]) + part(2, b"\n\0" * 300_000), limits=Limits(seconds=300.0))
    assert found.rules == {"limits/members"}
