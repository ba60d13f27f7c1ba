"""casemate.toml: every key, every refusal, and the case that comes of it."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from casemate.adapters.sklearn import save_skops
from casemate.config import budget_of, case_of, load, order_of, policy_of, propose
from casemate.core.budget import Budget
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.model import Task
from casemate.core.outcome import Severity
from casemate.errors import ConfigError, DataError, ModelError
from casemate.report.notes import notes_of

RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {"pay": RNG.normal(size=80), "town": RNG.choice(["ulm", "bern"], 80), "sex": RNG.choice(["f", "m"], 80)}
)
BOUGHT = np.where((FRAME["pay"] > 0) ^ (FRAME["town"] == "bern"), "yes", "no")
SOURCE = """
import numpy as np
from torch import nn
from helper import WIDTH

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 2))

def fit(data, init, rng):
    module = build()
    nn.init.constant_(module[1].weight, init.get("value", 0.5))
    return module.eval()

fit.knobs = {"value": (0.5, 0.1)}

def broken(data, init, rng):
    raise RuntimeError("the disk is full")

def nothing(data, init, rng):
    return None

def answers(x):
    return np.tile([0.25, 0.75], (len(x), 1))

def estimator():
    from sklearn.dummy import DummyClassifier
    return DummyClassifier().fit(np.zeros((4, 4)), [0, 1, 1, 1])

def fails():
    raise OSError("no licence")

def torch_recipe():
    from casemate.engine.trainers import TorchRecipe
    return TorchRecipe(build, epochs=1)
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with a pipeline on a table, and its casemate.toml."""
    columns = ColumnTransformer([("n", StandardScaler(), ["pay"]), ("c", OneHotEncoder(), ["town", "sex"])])
    save_skops(tmp_path / "model.skops", make_pipeline(columns, LogisticRegression(C=2.0)).fit(FRAME, BOUGHT))
    whole = FRAME.assign(label=BOUGHT)
    whole[:60].to_parquet(tmp_path / "train.parquet")
    whole[60:].to_csv(tmp_path / "test.csv", index=False)
    return write(
        tmp_path,
        """
        name = "shop"
        [model]
        path = "model.skops"
        accuracy = 0.9
        [data]
        test = "test.csv"
        train = "train.parquet"
        target = "label"
        sensitive = ["sex"]
        [schema."pay"]
        lo = -9
        hi = 9
        """,
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images, code and weights, and no casemate.toml."""
    from safetensors.torch import save_file
    from torch import full

    (tmp_path / "helper.py").write_text("WIDTH = 4\n")
    (tmp_path / "net.py").write_text(SOURCE)
    save_file({"1.weight": full((2, 4), 0.5), "1.bias": full((2,), 0.0)}, tmp_path / "net.safetensors")
    np.savez(tmp_path / "test.npz", x=RNG.random((20, 2, 2)), y=np.arange(20) % 2)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "casemate.toml"
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()), encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------------------- loading


def test_every_key_of_the_design_is_read(tmp_path: Path) -> None:
    settings = load(
        write(
            tmp_path,
            """
            [model]
            path = "model.pt"
            factory = "pkg.module:build"
            [data]
            test = "test.parquet"
            train = "/data/train.parquet"
            target = "label"
            sensitive = ["sex"]
            bounds = [0, 255]
            kind = "image"
            [train]
            recipe = "pkg.module:fit"
            [audit]
            profile = "quick"
            budget = { propagations = 2_000_000 }
            seed = 7
            threads = 2
            executor = "pool:2"
            [probe."evasion/standard"]
            norm = "linf"
            eps = [0.05, 0.1, 0.2]
            [policy]
            fail_on = "medium"
            [[policy.gate]]
            metric = "evasion.robust_accuracy"
            at = { norm = "linf", eps = 0.1 }
            min = 0.5
            [[policy.accept]]
            finding = "fairness/group_gaps"
            until = 2027-03-31
            reason = "model retired in March"
            """,
        )
    )
    assert settings.model.path == tmp_path / "model.pt"
    assert settings.data.files == {"test": tmp_path / "test.parquet", "train": Path("/data/train.parquet")}
    assert settings.data.kind is DataKind.IMAGE
    assert settings.audit.profile is Profile.QUICK
    assert settings.audit.budget == {"propagations": 2_000_000}
    assert (settings.audit.seed, settings.audit.threads, settings.audit.executor) == (7, 2, "pool:2")
    assert settings.probe == {"evasion/standard": {"norm": "linf", "eps": [0.05, 0.1, 0.2]}}
    policy = policy_of(settings)
    assert policy.fail_on is Severity.MEDIUM
    assert (policy.gates[0].metric, policy.gates[0].min) == ("evasion.robust_accuracy", 0.5)
    assert policy.gates[0].at == {"norm": "linf", "eps": 0.1}
    assert policy.accepted[0].until == dt.date(2027, 3, 31)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""))
    assert settings.audit.profile is Profile.STANDARD
    assert policy_of(settings).fail_on is Severity.HIGH


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]\npath = 'a'", "a key of the file in casemate.toml, got 'modle': did you mean model"),
        ("[data]\ntset = 'a'", "a key of data in casemate.toml, got 'tset': did you mean test"),
        ("[audit]\nprofil = 'quick'\nseed = 'x'", "got 'profil': did you mean profile"),
        ("[[policy.gate]]\nmetrik = 'a'\nmin = 1", "got 'metrik': did you mean metric"),
        ("[[policy.gate]]\nmetric = 'a'", "min or max in a gate at policy.gate.0"),
        ("[[policy.accept]]\nfinding = 'a'\nreason = 'b'", "policy.accept.0.until in casemate.toml, got nothing"),
        ("[[policy.accept]]\nfinding = 'a'\nreason = ''\nuntil = 2027-01-01", "policy.accept.0.reason"),
        ("[[policy.accept]]\nfinding = 'a'\nreason = 'b'\nuntil = 'soon'", "policy.accept.0.until"),
        ("[data]\ntarget = 5", "a valid string at data.target in casemate.toml, got 5"),
        ("[data]\nsensitive = 'sex'", "data.sensitive"),
        ("[data]\nbounds = [1, 0]", "low < high at data.bounds"),
        ("[data]\nkind = 'picture'", "'image', 'table' or 'text' at data.kind"),
        ("[data]\none_hot = 'yes'", "data.one_hot"),
        ("[data]\ntest_labels = 'y.npy'", "test beside test_labels at data"),
        ("[data]\ntest = 'x.npy'\ntest_label = 'y.npy'", "got 'test_label': did you mean test_labels"),
        ("[data]\ntext = ''", "data.text"),
        ("[audit]\nseed = '3'", "audit.seed"),
        ("[audit]\nseed = -1", "greater than or equal to 0 at audit.seed"),
        ("[audit]\nbudget = 'long'", "a budget such as '15m'"),
        ("[audit]\nbudget = { minutes = 3 }", "a budget such as '15m'"),
        ("[audit]\nbudget = { queries = '15m' }", "a budget such as '15m'"),
        ("[audit]\nbudget = true", "a budget such as '15m'"),
        ("[audit]\nseed = " + "9" * 5000, "expected TOML in casemate.toml"),
        ("a = " + "[" * 5000, "expected TOML in casemate.toml"),
        ("#" * (5 << 20), "a configuration under 4 MB"),
        ("[audit]\nexecutor = 'cloud'", "audit.executor"),
        ("[audit]\nprofile = 'fast'", "'quick', 'standard' or 'full' at audit.profile"),
        ("[policy]\nfail_on = 'awful'", "policy.fail_on"),
        ("[model]\nclasses = ['one']", "model.classes"),
        ("[model]\naccuracy = 97", "model.accuracy"),
        ("model = 3", "at model"),
        ("[probe]\neps = 3", "probe.eps"),
        ("[model\npath = 'a'", "expected TOML in casemate.toml"),
        ("[model]\npath = 'a'\npath = 'b'", "expected TOML in casemate.toml"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(write(tmp_path, text))
    assert str(caught.value).startswith("expected ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_other_encodings_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="casemate init"):
        load(tmp_path / "casemate.toml")
    (tmp_path / "casemate.toml").write_bytes(b"\xef\xbb\xbfname = 'as Windows writes it'")
    assert load(tmp_path / "casemate.toml").name == "as Windows writes it"
    (tmp_path / "casemate.toml").write_bytes("name = 'M\xfcnchen'".encode("latin-1"))
    with pytest.raises(ConfigError, match="expected TOML"):
        load(tmp_path / "casemate.toml")


# ------------------------------------------------------------------------------------------------------------- the case


def test_a_table_and_an_estimator_become_a_case(table: Path) -> None:
    case = case_of(load(table))
    assert case.name == "shop"
    assert case.declared == {"accuracy": 0.9}
    assert {Facet.TRAIN, Facet.TEST, Facet.GROUPS, Facet.RECIPE, Facet.SCORES, Facet.LOGITS, Facet.FILE} <= case.offers
    assert case.schema is not None
    assert (case.schema.features[0].lo, case.schema.features[0].hi) == (-9, 9)
    test = case.data("test")
    expected = case.the_model().estimator.predict(FRAME[60:])
    np.testing.assert_array_equal(np.array(["no", "yes"])[case.the_model().labels(test.x)], expected)
    assert case.recipe is not None
    assert case.recipe.settings == {"C": 2.0}
    again = case.recipe.fit(case.data("train"), {"C": 0.1}, np.random.default_rng(0))
    assert again.classes == ("no", "yes")


def test_the_same_settings_make_the_same_case(table: Path) -> None:
    first, second = case_of(load(table)), case_of(load(table))
    assert first.bundle == second.bundle
    assert first.data("test").digest == second.data("test").digest
    assert first.recipe is not None
    assert second.recipe is not None
    assert first.recipe.digest == second.recipe.digest


def test_data_alone_is_a_case(table: Path) -> None:
    case = case_of(load(write(table.parent, "[data]\ntest = 'test.csv'\ntarget = 'label'")))
    assert case.model is None
    assert Facet.TEST in case.offers


def test_arrays_labels_and_pictures_become_cases(tmp_path: Path) -> None:
    from PIL import Image

    x, y = RNG.random((40, 4)), np.arange(40) % 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    save_skops(tmp_path / "m.skops", LogisticRegression().fit(x, y))
    for place in range(40):
        (tmp_path / "seen" / "ab"[y[place]]).mkdir(parents=True, exist_ok=True)
        pixels = (x[place].reshape(2, 2) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "seen" / "ab"[y[place]] / f"{place:02}.png")
    model = "[model]\npath = 'm.skops'\n"
    array = case_of(load(write(tmp_path, f"{model}[data]\ntest = 'x.npy'\ntest_labels = 'y.npy'")))
    np.testing.assert_array_equal(array.data("test").labels, y)
    images = case_of(load(write(tmp_path, f"{model}classes = ['a', 'b']\n[data]\ntest = 'seen'")))
    assert images.kind is DataKind.IMAGE
    assert images.data("test").x.shape == (40, 1, 2, 2)
    pixels = np.floor(np.concatenate([x[y == 0], x[y == 1]]) * 255) / 255
    np.testing.assert_array_equal(
        images.the_model().labels(images.data("test").x), array.the_model().labels(pixels.astype(np.float32))
    )
    with pytest.raises(DataError, match=r"or their file beside a .npy as test_labels"):
        case_of(load(write(tmp_path, f"{model}[data]\ntest = 'x.npy'")))


def test_a_regressor_reads_its_targets_as_numbers(tmp_path: Path) -> None:
    x = RNG.normal(size=(30, 2))
    save_skops(tmp_path / "m.skops", Ridge().fit(x, x[:, 0]))
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x[:, 0]}).to_parquet(tmp_path / "t.parquet")
    case = case_of(load(write(tmp_path, "[model]\npath='m.skops'\n[data]\ntest='t.parquet'\ntarget='y'")))
    assert case.the_model().task is Task.REGRESSION
    np.testing.assert_array_equal(case.data("test").labels, x[:, 0])


NUMBERS = """
import numpy as np, torch
from torch import nn

def bare():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))

def wrapped():
    from casemate.adapters.torch import wrap_module
    return wrap_module(bare(), regression=True)

def answers(x):
    return np.asarray(x).sum(axis=1)

def fit(data, init, rng):
    return bare()
"""


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A folder with numbers to predict, nets for them, and no casemate.toml."""
    from safetensors.torch import save_file
    from torch import nn

    (tmp_path / "regress.py").write_text(NUMBERS)
    save_file(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).state_dict(), tmp_path / "w.safetensors")
    x = RNG.random((30, 2))
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x.sum(axis=1)}).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


def predicting(model: str, more: str = "") -> str:
    return f"[model]\n{model}\n[data]\ntest = 't.csv'\ntarget = 'y'\n{more}"


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("factory = 'regress:wrapped'", ""),
        ("factory = 'regress:wrapped'", "task = 'regression'"),
        ("factory = 'regress:bare'", "task = 'regression'"),
        ("path = 'w.safetensors'\nfactory = 'regress:bare'", "task = 'regression'"),
        ("function = 'regress:answers'", "task = 'regression'"),
        ("function = 'regress:answers'\noutputs = 'labels'", "task = 'regression'"),
    ],
)
def test_a_number_is_predicted_where_the_model_or_the_file_says_so(model: str, task: str, numbers: Path) -> None:
    # A bare net became a classifier of one logit, whose labels were "no class of the model"; a wrapped one was refused.
    case = case_of(load(write(numbers, predicting(model, task))))
    data, found = case.data("test"), case.the_model()
    assert found.task is Task.REGRESSION
    answers = found.labels(data.x)
    assert answers.shape == (30,)
    assert len(np.unique(answers)) > 20
    assert (Facet.GRADIENTS in case.offers) == ("factory" in model)


def test_a_recipe_of_a_regression_makes_one(numbers: Path) -> None:
    more = "task = 'regression'\n[train]\nrecipe = 'regress:fit'"
    case = case_of(load(write(numbers, predicting("factory = 'regress:bare'", more))))
    assert case.recipe is not None
    assert case.recipe.fit(case.data("test"), {}, np.random.default_rng(0)).task is Task.REGRESSION


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (predicting("factory = 'regress:wrapped'", "task = 'classification'"), DataError, "data. task = 'regression'"),
        (predicting("factory = 'regress:bare'"), DataError, "data. task = 'regression'"),
        (
            predicting("factory = 'regress:bare'\noutputs = 'logits'", "task = 'regression'"),
            ConfigError,
            "leave it out",
        ),
        (predicting("factory = 'regress:wrapped'\noutputs = 'logits'"), ConfigError, "say it where that is wrapped"),
        (predicting("path = 'w.safetensors'\nfactory = 'regress:wrapped'"), ModelError, "got Model: return the bare"),
    ],
)
def test_a_task_that_does_not_fit_is_one_clear_error(text: str, kind: Any, message: str, numbers: Path) -> None:
    with pytest.raises(kind, match=message):
        case_of(load(write(numbers, text)))


def test_a_classifier_for_a_regression_is_refused(tmp_path: Path) -> None:
    x = RNG.random((30, 2))
    save_skops(tmp_path / "m.skops", LogisticRegression().fit(x, x[:, 0] > 0.5))
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x[:, 0]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ConfigError, match=r"a model for .data. task = 'regression', got one for classification"):
        case_of(load(write(tmp_path, predicting("path = 'm.skops'", "task = 'regression'"))))


def toml(model: str, more: str = "") -> str:
    return f"[model]\n{model}\n[data]\ntest = 'test.npz'\n{more}"


def test_weights_a_factory_and_a_recipe_come_from_the_folder_and_travel(images: Path) -> None:
    text = toml("path = 'net.safetensors'\nfactory = 'net:build'", "[train]\nrecipe = 'net:fit'")
    case = case_of(load(write(images, text)))
    assert str(images) not in sys.path
    assert case.the_model().notes["mode"] == "eval"
    assert case.recipe is not None
    assert case.recipe.knobs == {"value": (0.5, 0.1)}
    model = case.recipe.fit(case.data("test"), {"value": 0.1}, np.random.default_rng(0))
    assert float(model.module[1].weight.detach().max()) == pytest.approx(0.1)
    # Another process finds no module `net`: the recipe has to bring its code along.
    (images / "parcel").write_bytes(cloudpickle.dumps(case))
    code = (
        "import sys, cloudpickle, numpy as np; case = cloudpickle.loads(open(sys.argv[1], 'rb').read());"
        "print(case.recipe.fit(case.data('test'), {}, np.random.default_rng(0)).labels(case.data('test').x).sum())"
    )
    command = [sys.executable, "-c", code, str(images / "parcel")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spec", ["net:torch_recipe", "net:fit"])
def test_a_recipe_may_be_a_function_or_a_torch_recipe(spec: str, images: Path) -> None:
    case = case_of(load(write(images, toml("factory = 'net:build'", f"[train]\nrecipe = '{spec}'"))))
    assert case.recipe is not None
    assert case.recipe.fit(case.data("test"), {}, np.random.default_rng(0)).classes == ("0", "1")


def test_settings_of_a_recipe_are_fixed_by_the_file(images: Path) -> None:
    text = toml("factory = 'net:build'", "[train]\nrecipe = 'net:fit'\nsettings = { value = 0.25 }")
    case = case_of(load(write(images, text)))
    assert case.recipe is not None
    model = case.recipe.fit(case.data("test"), {}, np.random.default_rng(0))
    assert float(model.module[1].weight.detach().max()) == 0.25


def test_a_function_is_a_model_with_declared_outputs(images: Path) -> None:
    case = case_of(load(write(images, toml("function = 'net:answers'\noutputs = 'scores'\nclasses = ['a', 'b']"))))
    assert case.offers >= {Facet.SCORES, Facet.LABELS}
    np.testing.assert_array_equal(case.the_model().labels(case.data("test").x), 1)


def test_a_factory_alone_builds_any_model(images: Path) -> None:
    assert case_of(load(write(images, toml("factory = 'net:estimator'")))).the_model().framework == "sklearn"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", ConfigError, "model or data, got neither"),
        (toml("path = 'absent.skops'"), ModelError, "got nothing: check"),
        (toml("path = 'net.safetensors'"), ConfigError, "model.factory beside the weights net.safetensors"),
        (toml("path = 'net.safetensors'\nfactory = 'net:fails'"), ModelError, "OSError: no licence"),
        (toml("factory = 'net:fails'"), ModelError, "OSError: no licence"),
        (toml("factory = 'nett:build'"), ModelError, "expected a module nett"),
        (toml("path = 'net.py'"), ModelError, "convert it, or name a function"),
        (toml("function = 'net:answers'\nfactory = 'net:build'"), ConfigError, "name one model"),
        (toml("factory = 'net:build'\noutputs = 'labels'"), ConfigError, "for a function only"),
        (toml("factory = 'net:build'", "target = 'z'\nsensitive = ['sex']"), DataError, "an array 'sex'"),
        (toml("factory = 'net:build'", "[train]\nrecipe = 'net:answers'"), ModelError, r"fit\(data, init, rng\)"),
        (toml("factory = 'net:build'", "[train]\nrecipe = 'net:fails'"), ModelError, "OSError: no licence"),
        (toml("factory = 'net:build'", "[train]\nsettings = { a = 1 }"), ConfigError, "train.recipe beside"),
        (toml("factory = 'net:build'\nclasses = ['a', 'b', 'c']"), ModelError, "expected 3 logits"),
        ("[data]\ntest = 'absent.csv'", DataError, "got nothing at"),
    ],
)
def test_a_case_that_cannot_be_made_is_one_clear_error(text: str, kind: Any, message: str, images: Path) -> None:
    with pytest.raises(kind, match=message):
        case_of(load(write(images, text)))


@pytest.mark.parametrize(
    ("recipe", "message"), [("broken", "RuntimeError: the disk is full"), ("nothing", "got NoneType")]
)
def test_a_recipe_that_fails_says_so_in_its_own_words(recipe: str, message: str, images: Path) -> None:
    case = case_of(load(write(images, toml("factory = 'net:build'", f"[train]\nrecipe = 'net:{recipe}'"))))
    assert case.recipe is not None
    with pytest.raises(ModelError, match=message):
        case.recipe.fit(case.data("test"), {}, np.random.default_rng(0))


def test_trust_is_asked_for_and_recorded(table: Path) -> None:
    import pickle

    import cloudpickle

    from casemate.adapters.sklearn import load_skops

    estimator = load_skops(table.parent / "model.skops")
    (table.parent / "m.pkl").write_bytes(pickle.dumps(estimator))
    path = write(table.parent, "[model]\npath = 'm.pkl'\n[data]\ntest = 'test.csv'\ntarget = 'label'")
    clean = case_of(load(path)).the_model()
    assert "restricted unpickler" in clean.notes["file"]
    isolated = case_of(load(path, isolate=True)).the_model()
    assert isolated.notes["isolation"].startswith("loaded and asked in a process without network")
    x = case_of(load(path)).data("test").x
    np.testing.assert_array_equal(isolated.labels(x), clean.labels(x))
    (table.parent / "m.pkl").write_bytes(cloudpickle.dumps(estimator) + b"behind")
    with pytest.raises(ModelError, match="--trust"):
        case_of(load(path))
    case = case_of(load(path, trust=True))
    trusted = case.the_model()
    assert any("because --trust said so" in note for note in notes_of(Budget(), (), case))  # what a report says
    assert trusted.notes["trust"] == "a suspicious pickle, unpickled because --trust said so"
    assert trusted.digest == clean.digest


# ------------------------------------------------------------------------------------------------------------- proposal


def test_a_proposal_for_a_table_audits_without_an_edit(table: Path) -> None:
    text = propose(table.parent)
    assert 'target = "label"' in text
    assert 'sensitive = ["sex"]' in text
    table.write_text(text, encoding="utf-8")
    case = case_of(load(table))
    assert {Facet.TRAIN, Facet.TEST, Facet.GROUPS, Facet.SCORES, Facet.RECIPE} <= case.offers


def test_a_proposal_for_images_finds_factory_recipe_and_kind(images: Path) -> None:
    text = propose(images)
    for line in ('factory = "net:build"', 'recipe = "net:fit"', 'kind = "image"', 'test = "test.npz"'):
        assert line in text
    case = case_of(load(write(images, text)))
    assert {Facet.GRADIENTS, Facet.RECIPE, Facet.TEST} <= case.offers


def audited(folder: Path) -> Any:
    """What `casemate init` writes in a folder, audited as it stands."""
    from casemate import audit

    text = propose(folder)
    settings = load(write(folder, text))
    report = audit(case_of(settings), policy=policy_of(settings), profile="quick", only=["preflight"])
    assert not [outcome for outcome in report.outcomes if outcome.outcome == "failed"]
    assert any(outcome.plugin == "preflight/clean_accuracy" for outcome in report.outcomes)
    return text, report


def test_a_proposal_for_a_skops_file_and_parquet_is_audited(table: Path) -> None:
    (table.parent / "test.csv").unlink()
    FRAME.assign(label=BOUGHT)[60:].to_parquet(table.parent / "test.parquet")
    table.unlink()
    text, report = audited(table.parent)
    assert "\ntext" not in text
    assert report.data["test"].rows == 20


def test_relations_between_columns_come_from_the_configuration(tmp_path: Path) -> None:
    frame = pd.DataFrame({"opened": [1.0, 2, 3, 4], "closed": [2.0, 2, 5, 9], "label": [0, 1, 0, 1]})
    frame.to_csv(tmp_path / "test.csv", index=False)
    text = '[data]\ntest = "test.csv"\ntarget = "label"\nrelations = [{}]\n'
    (tmp_path / "casemate.toml").write_text(text.format('"opened <= closed"'))
    schema = case_of(load(tmp_path / "casemate.toml")).data("test").schema
    assert [(r.left, r.right) for r in schema.relations] == [("opened", "closed")]
    for wrong, words in (('"opened < closed"', "data.relations"), ('"opened <= shut"', "known columns")):
        (tmp_path / "casemate.toml").write_text(text.format(wrong))
        with pytest.raises((ConfigError, DataError), match=words):
            case_of(load(tmp_path / "casemate.toml"))


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_proposal_for_a_booster_and_csv_is_audited_as_a_classifier(suffix: str, tmp_path: Path) -> None:
    """A booster has no classes_, and its labels were read as the floats of a regression."""
    import xgboost

    x, y = RNG.normal(size=(80, 2)), np.arange(80) % 2
    frame = pd.DataFrame(x + y[:, None], columns=["width", "height"])
    xgboost.XGBClassifier(n_estimators=3).fit(frame, y).save_model(tmp_path / f"m.{suffix}")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.txt").write_text("treecreeper")
    frame.assign(label=y).to_csv(tmp_path / "test.csv", index=False)
    text, report = audited(tmp_path)
    assert "A pickle runs code" not in text
    assert any(outcome.plugin == "preflight/label_balance" and outcome.evidence for outcome in report.outcomes)
    assert case_of(load(tmp_path / "casemate.toml")).data("test").labels.dtype == np.int64


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_proposal_for_a_text_pipeline_is_audited(suffix: str, tmp_path: Path) -> None:
    messages = [f"please {word} now" for word in RNG.choice(["buy", "read", "come", "write"], 80)]
    messages = [f"{message} {place}" for place, message in enumerate(messages)]
    spam = ["spam" if "buy" in message else "ham" for message in messages]
    save_skops(tmp_path / "m.skops", make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(messages, spam))
    frame = pd.DataFrame({"id": range(80), "label": spam, "message": messages, "sex": ["f", "m"] * 40})
    for name, part in (("train", frame[:60]), ("test", frame[60:])):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "jsonl":
            part.to_json(path, orient="records", lines=True)
        elif suffix == "csv":
            part.to_csv(path, index=False)
        else:
            part.to_parquet(path, index=False)
    text, report = audited(tmp_path)
    for line in ('text = "message"  # guess', 'target = "label"  # guess', 'sensitive = ["sex"]  # guess'):
        assert line in text
    assert {part.kind for part in report.data.values()} == {"text"}


def test_a_proposal_pairs_arrays_with_their_labels_and_finds_folders_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("train", "test"):
        np.save(tmp_path / f"x_{name}.npy", RNG.random((20, 4)))
        np.save(tmp_path / f"y_{name}.npy", np.arange(20) % 2)
    save_skops(tmp_path / "m.skops", LogisticRegression().fit(RNG.random((20, 4)), np.arange(20) % 2))
    text, report = audited(tmp_path)
    assert 'train_labels = "y_train.npy"' in text
    assert set(report.data) == {"train", "test"}
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    for name in ("0", "1"):
        (tmp_path / "holdout" / name).mkdir(parents=True)
        for place in range(3):
            Image.new("L", (2, 2), 40 * place).save(tmp_path / "holdout" / name / f"{place}.png")
    text, report = audited(tmp_path)
    assert 'test = "holdout"' in text
    assert report.data["test"].kind == "image"


def test_a_table_with_long_names_of_categories_is_no_text(table: Path) -> None:
    whole = FRAME.assign(label=BOUGHT, town=FRAME["town"] + " in the middle of it " + FRAME.index.astype(str))
    whole.to_parquet(table.parent / "test.parquet")
    assert "\ntext" not in propose(table.parent, data=table.parent / "test.parquet")


def test_what_is_given_replaces_the_guess(table: Path) -> None:
    folder = table.parent
    text = propose(folder, model=folder / "model.skops", data=folder / "train.parquet", target="town")
    assert 'test = "train.parquet"' in text
    assert 'target = "town"\n' in text


def test_a_name_with_quotes_survives(tmp_path: Path) -> None:
    pd.DataFrame({'a "b" \\c': [1, 2], "säx": [1, 0]}).to_parquet(tmp_path / "t.parquet")
    settings = load(write(tmp_path, propose(tmp_path, target='a "b" \\c')))
    assert settings.data.target == 'a "b" \\c'


def test_a_proposal_names_models_that_only_their_content_tells(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("tree\nversion=v4\n")  # how LightGBM begins a file
    assert 'path = "notes.txt"' in propose(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    pd.DataFrame({"label": [0, 1], "message": ["hello there you", "go away now"]}).to_parquet(tmp_path / "t.parquet")
    for line in ('path = "mine"', 'text = "message"', 'target = "label"'):
        assert line in propose(tmp_path)


def test_a_budget_of_queries_is_one_of_an_endpoint(tmp_path: Path) -> None:
    budget = "[audit]\nbudget = { queries = 70 }"
    assert budget_of(load(write(tmp_path, f"[model]\nurl = 'http://127.0.0.1:1'\n{budget}"))).propagations == 70
    with pytest.raises(ConfigError, match=r"expected model\.url beside budget"):
        order_of(load(write(tmp_path, budget)))


def test_an_empty_folder_proposes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got neither"):
        propose(tmp_path)


def test_reading_a_configuration_loads_no_heavy_framework() -> None:
    code = "import sys, casemate.config; print({'torch', 'pandas', 'sklearn', 'skops', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
