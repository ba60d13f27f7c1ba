# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.chat_templates import CHATML, LLAMA3
from tests.formats.scanning.desks import Looked, corpus, held, looked

from casemate.formats.scanning.readers import json_configs
from casemate.formats.scanning.signs import Level

EVIL = "{{ ''.__class__ }}"


def look(value: object, name: str = "config.json") -> Looked:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return looked(data, json_configs.READERS, name=name)


BENIGN = {
    "config.json": {
        "architectures": ["LlamaForCausalLM"], "_name_or_path": "../models/llama", "torch_dtype": "bfloat16", "vocab_size": 32000,
        "rope_scaling": {"type": "linear", "factor": 2.0}, "auto_map": {}, "attn_implementation": "flash_attention_2",
        "id2label": {"0": "a"}, "trust_remote_code": False, "quantization_config": {"quant_method": "awq", "bits": 4},
    },
    "tokenizer_config.json": {
        "chat_template": [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": LLAMA3}],
        "added_tokens_decoder": {"0": {"content": "<s>", "special": True}}, "model_max_length": 10**30,
    },
    "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": {"__class__": 1, "chat_template": 2}, "merges": [["a", "b"]]}},
    "model.safetensors.index.json": {"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "text/x.safetensors"}},
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30", "safety_checker": ["stable_diffusion", "SafetyChecker"],
        "unet": ["diffusers", "UNet2DConditionModel"], "text_encoder": ["transformers", "CLIPTextModel"], "feature_extractor": [None, None],
    },
    "adapter_config.json": {"peft_type": "LORA", "auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}},
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
    "generation_config.json": {"do_sample": True, "temperature": 0.7},
    "trainer_state.json": {"log_history": [{"loss": 1.5, "step": 1}], "best_metric": None},
    "rows.json": [{"a": 1}, {"a": "https://user:password@example.com"}],
}  # fmt: skip


@pytest.mark.parametrize("name", BENIGN)
def test_ordinary_settings_are_clean(name: str) -> None:
    found = look(BENIGN[name], name)
    assert found.formats == ("json",)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    ("value", "rule", "level"),
    [
        ({"auto_map": {"AutoModel": "modeling_x.X"}}, "config/own-code", Level.SUSPICIOUS),
        ({"auto_map": {"AutoModel": "someone/repo--modeling_x.X"}}, "config/own-code", Level.SUSPICIOUS),
        ({"auto_map": {"AutoTokenizer": ["tok.X", None]}}, "config/own-code", Level.SUSPICIOUS),
        ({"custom_pipelines": {"t": {"impl": "pipe.X"}}}, "config/own-code", Level.SUSPICIOUS),
        ({"text_config": {"trust_remote_code": True}}, "config/trusts-code", Level.SUSPICIOUS),
        ({"_attn_implementation": "somebody/kernel"}, "config/own-code", Level.SUSPICIOUS),
        ({"_class_name": ["pipe", "X"]}, "config/own-code", Level.SUSPICIOUS),
        ({"_class_name": "P", "unet": ["my_unet", "U"]}, "config/unknown-module", Level.SUSPICIOUS),
        ({"_class_name": "P", "unet": ["subprocess", "Popen"]}, "config/dangerous-name", Level.MALICIOUS),
        ({"auto_mapping": {"base_model_class": "X", "parent_library": "os"}}, "config/dangerous-name", Level.MALICIOUS),
        ({"auto_mapping": {"base_model_class": "X", "parent_library": "evil.code"}}, "config/unknown-module", Level.SUSPICIOUS),
        ([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}], "config/unknown-module", Level.SUSPICIOUS),
        ({"a": {"_target_": "os.system", "_args_": ["true"]}}, "config/dangerous-name", Level.MALICIOUS),
        ({"a": {"_target_": "evil.Thing"}}, "config/unknown-module", Level.SUSPICIOUS),
        ({"flavors": {"python_function": {"loader_module": "evil"}}}, "config/unknown-module", Level.SUSPICIOUS),
        ({"weight_map": {"a": "../../etc/passwd"}}, "config/leaves-folder", Level.MALICIOUS),
        ({"weight_map": {"a": "/etc/passwd"}}, "config/leaves-folder", Level.MALICIOUS),
        ({"weight_map": {"a": "C:\\x"}}, "config/leaves-folder", Level.MALICIOUS),
        ({"weight_map": {"a": "https://x.invalid/y"}}, "config/leaves-folder", Level.MALICIOUS),
        ({"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["true"]}]}, "config/jsonpickle", Level.MALICIOUS),
        ({"py/object": "subprocess.Popen"}, "config/jsonpickle", Level.MALICIOUS),
        ({"chat_template": EVIL}, "jinja/escape", Level.MALICIOUS),
        ({"chat_template": [{"name": "x", "template": EVIL}]}, "jinja/escape", Level.MALICIOUS),
        ({"chat_template": {"default": EVIL}}, "jinja/escape", Level.MALICIOUS),
        ({"processor": {"chat_template": EVIL}}, "jinja/escape", Level.MALICIOUS),
        ({"token": "hf_" + "QwRtYpSdGhJkLzXcVbNmqWrTyPsDgHjKlZ"}, "secret/credential", Level.SUSPICIOUS),
        (b'{"auto_map": {"AutoModel": "a.X"}, "auto_map": {}}', "config/own-code", Level.SUSPICIOUS),
        (b'{"chat_template": "' + EVIL.encode() + b'", "chat_template": "x"}', "jinja/escape", Level.MALICIOUS),
        (b'{"chat_template": "{{ x[\\"\\\\u005f_class__\\"] }}"}', "jinja/escape", Level.MALICIOUS),
        (b'{"ch\\u0061t_template": "{{ x.__class__ }}"}', "jinja/escape", Level.MALICIOUS),
        (b"\xef\xbb\xbf" + b'{"trust_remote_code": true}', "config/trusts-code", Level.SUSPICIOUS),
        ('{"trust_remote_code": true}'.encode("utf-16"), "config/trusts-code", Level.SUSPICIOUS),
        (b" " * 9000 + b'{"trust_remote_code": true}', "config/trusts-code", Level.SUSPICIOUS),
        (b'{"a": 1}\n{"trust_remote_code": true}\n', "config/trusts-code", Level.SUSPICIOUS),
    ],
)  # fmt: skip
def test_settings_that_make_a_loader_run_or_fetch_are_told(value: object, rule: str, level: Level) -> None:
    found = look(value)
    assert rule in found.rules
    assert found.level is level


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b'{"\\"[":' + b"[" * 600 + b"]" * 600 + b"}"]
)
def test_deep_nesting_is_malicious_and_overflows_nothing(data: bytes) -> None:
    assert look(data).level is Level.MALICIOUS


def test_what_only_looks_like_json_is_unreadable_under_its_name_and_plain_text_under_another() -> None:
    for data in (b'{"a": 1', b'{"a": 1} trailing', b"[1, 2,,]", b'{"a": 1}{"b":'):
        assert look(data).level is Level.UNREADABLE
        assert look(data, "notes.txt").level is Level.CLEAN
    assert look(b"[" + b"{}," * 4_000_000 + b"{}]").level is Level.UNREADABLE


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("hf/bert/model.safetensors.index.json", "clean"), ("hf/chatml/tokenizer_config.json", "clean"), ("hf/mistral/tokenizer_config.json", "clean"),
        ("hf/peft/adapter_config.json", "malicious"), ("jinja/ssti_attr_filter/tokenizer_config.json", "malicious"),
        ("hf/auto_map/config.json", "suspicious"), ("hf/diffusers/model_index.json", "suspicious"), ("hf/custom_pipeline/config.json", "suspicious"),
    ],
)  # fmt: skip
def test_files_of_the_corpus(path: str, level: str) -> None:
    assert look(corpus(path), path).level == level


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["auto_map", "chat_template", "weight_map", "_class_name", "auto_mapping", "parent_library", "loader_module", "py/object", "cells", "cell_type", "source", "outputs", "type", "x"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(VALUES, st.integers(0, 60), st.booleans())
def test_any_json_ends_without_failing(value: object, at: int, cut: bool) -> None:
    data = json.dumps(value).encode()
    held(b"[" + (data[:at] if cut else data) + b"]", json_configs.READERS)
    held((data[:at] if cut else data), json_configs.READERS)
