# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import Looked, held, looked

from casemate.formats.scanning.readers import yaml_files
from casemate.formats.scanning.signs import Level


def look(text: str, name: str = "config.yaml") -> Looked:
    return looked(text.encode(), yaml_files.READERS, name=name)


MLMODEL = """artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.4
  sklearn: {code: null, pickled_model: model.pkl, serialization_format: cloudpickle}
mlflow_version: 2.9.0
"""
BENIGN = {
    "MLmodel": MLMODEL,
    "conda.yaml": "channels:\n- conda-forge\ndependencies:\n- python=3.11\n- pip<=23\n- pip:\n  - mlflow==2.9.0\n  - numpy==1.26\nname: mlflow-env\n",
    "hparams.yaml": "lr: 0.001\nbetas: !!python/tuple [0.9, 0.999]\nopt: &o {a: 1}\nuse: *o\nmore:\n  <<: *o\n",
    "plain.yml": "a: !!str 1\nb: !!float 2\nc: ! x\nd: !!set {a, b}\n---\nsecond: 1\n",
    "hydra.yaml": "model:\n  _target_: torch.nn.Linear\n  in_features: 3\n",
    "README.md": "---\nlicense: mit\ntags: [a, b]\n---\n# Title\n\n- a: b: c\n\t* odd [yaml\n",
}


@pytest.mark.parametrize("name", BENIGN)
def test_ordinary_settings_are_clean(name: str) -> None:
    found = look(BENIGN[name], name)
    assert found.formats == ("yaml",)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    ("text", "rule", "level"),
    [
        ("a: !!python/object/apply:os.system ['true']", "yaml/tag", "malicious"),
        ("!!python/object/new:os.system [true]", "yaml/tag", "malicious"),
        ("a: !!python/name:os.system", "yaml/tag", "malicious"),
        ("a: !!python/module:os", "yaml/tag", "malicious"),
        ("a: !<tag:yaml.org,2002:python/object/apply:os.system> [x]", "yaml/tag", "malicious"),
        ("%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!object/apply:os.system [x]", "yaml/tag", "malicious"),
        ("a: !!python/object:evil.Thing {}", "yaml/tag", "malicious"),
        ("a: !!python/object:argparse.Namespace {lr: 1}", "yaml/tag", "suspicious"),
        ("a: !!javax.script.ScriptEngineManager [x]", "yaml/tag", "malicious"),
        ("a: !ruby/object:Gem::Installer {}", "yaml/tag", "malicious"),
        ("a: !ENV x", "yaml/tag", "suspicious"),
        (MLMODEL.replace("mlflow.sklearn", "evil_loader"), "config/unknown-module", "suspicious"),
        (MLMODEL.replace("mlflow.sklearn", "os"), "config/dangerous-name", "malicious"),
        (MLMODEL.replace("    predict_fn", "    code: code\n    predict_fn"), "config/own-code", "suspicious"),
        (MLMODEL.replace("    predict_fn", "    code: ../../code\n    predict_fn"), "config/own-code", "malicious"),
        ("x: &a evil_loader\nflavors: {python_function: {loader_module: *a}}", "config/unknown-module", "suspicious"),
        ("chat_template: \"{{ ''.__class__ }}\"", "jinja/escape", "malicious"),
        ("m: {_target_: os.system}", "config/dangerous-name", "malicious"),
        ("dependencies:\n- pip:\n  - git+https://x.invalid/y\n", "requirements/source", "suspicious"),
        ("key: AKIAQYLPMN5HHHFPZAM2", "secret/credential", "suspicious"),
        ("a: 1\na: 1\nauto_map: {x: a.B}\nauto_map: {}", "config/own-code", "suspicious"),
    ],
)  # fmt: skip
def test_tags_and_names_that_run_code_are_told(text: str, rule: str, level: str) -> None:
    found = look(text)
    assert rule in found.rules
    assert found.level == level


def test_aliases_that_multiply_and_deep_nesting_are_malicious() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    assert look(laughs).rules == {"yaml/aliases"}
    assert look("[" * 5000).level is Level.MALICIOUS
    assert look("a: &a [*a]").level is Level.CLEAN


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "%YAML 9\n--- [", "a: *nowhere\nb: {"])
def test_what_is_no_yaml_is_unreadable_under_its_name(text: str) -> None:
    assert look(text).level is Level.UNREADABLE


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "a: ",
                "- ",
                "[",
                "]",
                "{",
                "}",
                "&x ",
                "*x ",
                "!!python/name:os ",
                "\n",
                "  ",
                "'",
                "|\n",
                "? ",
                "<<: ",
                "x",
                "---\n",
                "%TAG ",
            ]
        ),
        max_size=30,
    )
)
def test_any_text_ends_without_failing(parts: list[str]) -> None:
    held(("---\n" + "".join(parts)).encode(), yaml_files.READERS)
