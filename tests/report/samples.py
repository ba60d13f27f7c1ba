"""Reports as audits write them, made by hand: fairness, evasion, privacy and preflight, every kind of outcome."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from casemate.core.budget import Spent
from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.judgement import judge, rule
from casemate.core.outcome import Clean, Failed, Severity, Skipped, SkipReason, Threat
from casemate.core.policy import Accepted, Gate, Policy
from casemate.core.report import DataFacts, PluginFacts, Report, Timings
from casemate.core.stats import Interval

TODAY = dt.date(2026, 11, 22)
DIGEST = "sha256:" + "0123456789abcdef" * 4

ROBUST = Metric(
    "evasion.robust_accuracy",
    Quantity.ROBUSTNESS,
    Direction.TOO_HIGH,
    says="changes too small to notice turn right answers wrong",
    mend="Train on attacked samples (casemate harden), or certify with randomised smoothing.",
)
CERTIFIED = Metric("evasion.certified_accuracy", Quantity.NOTE, Direction.TOO_LOW)
SELECTION = Metric(
    "fairness.selection_gap",
    Quantity.RATE_GAP,
    Direction.EXACT,
    says="groups are given the favourable class at different rates",
    mend="Look at what the sensitive attribute stands for in the features, then reweigh or constrain the training.",
)
TPR_GAP = Metric("fairness.tpr_gap", Quantity.RATE_GAP, Direction.EXACT, says="deserving groups are treated unequally")
AUC = Metric(
    "privacy.membership_auc",
    Quantity.AUC,
    Direction.TOO_LOW,
    says="Training rows can be told from unseen rows by the model's answers",
    mend="Regularise, train with differential privacy, or answer with labels only.",
)
TPR = Metric(
    "privacy.tpr_at_fpr",
    Quantity.LIFT,
    Direction.TOO_LOW,
    says="Some training rows are recognised with hardly any false alarm",
)
LEAK = Metric(
    "preflight.duplicates",
    Quantity.DEFECT_SHARE,
    Direction.TOO_LOW,
    says="test rows are also in the training data",
    mend="Split again after removing duplicates: accuracy on known rows says nothing.",
)
LOGITS = Metric(
    "preflight.probabilities_for_logits", Quantity.DEFECT, Direction.EXACT, says="the logits are probabilities"
)
CLEAN_ACCURACY = Metric("preflight.clean_accuracy", Quantity.NOTE, Direction.EXACT)
SHADOWS = Metric("privacy.shadow_models", Quantity.NOTE, Direction.EXACT, unit="models")

EVASION = Threat(
    "evasion",
    "Small changes of an input make the model answer wrongly",
    atlas=("AML.T0015", "AML.T0043.000"),
    owasp_ml=("ML01",),
    nist=("NISTAML.022",),
    eu_ai_act=("Art. 15",),
)
BIAS = Threat("bias", "Unequal treatment of groups", eu_ai_act=("Article 10(2)(f)",))
MEMBERSHIP = Threat(
    "membership_inference",
    "Someone learns whether a record was in the training data",
    atlas=("AML.T0024.000",),
    owasp_ml=("ML04",),
    nist=("NISTAML.033",),
)
SETUP = Threat("setup", "A set-up mistake makes every later number wrong")


def share(value: float, low: float, high: float, n: int = 1000) -> Interval:
    return Interval(value, low, high, n, 0.95, "Clopper-Pearson")


def evasion_evidence():
    attacked = {
        0.0: (0.986, 0.977, 0.992),
        0.05: (0.934, 0.917, 0.949),
        0.1: (0.712, 0.683, 0.740),
        0.2: (0.083, 0.067, 0.102),
    }
    proved = {
        0.0: (0.986, 0.977, 0.992),
        0.05: (0.801, 0.775, 0.825),
        0.1: (0.404, 0.373, 0.435),
        0.2: (0.0, 0.0, 0.004),
    }
    for metric, rows, method in (
        (ROBUST, attacked, "APGD, then Square on what was left"),
        (CERTIFIED, proved, "interval bounds"),
    ):
        for eps, numbers in rows.items():
            if eps or metric is CERTIFIED:
                yield metric.measured(share(*numbers), method=method, at={"norm": "linf", "eps": eps}, files=(DIGEST,))
    yield replace(
        ROBUST.measured(share(0.62, 0.48, 0.75, 52), method="APGD", at={"norm": "l2", "eps": 1.0}), about="digit 8"
    )


def outcomes(label: str = "sex"):
    membership = [
        AUC.measured(
            share(0.601, 0.578, 0.624, 2000), method="RMIA, 32 shadow models, online", about="RMIA", files=(DIGEST,)
        ),
        TPR.measured(
            share(0.060, 0.046, 0.077, 1000),
            method="RMIA",
            about="RMIA",
            at={"fpr": 0.01},
            baseline=0.01,
            files=(DIGEST,),
        ),
        SHADOWS.measured(32, method="multi-layer perceptrons, trained together", n=32),
    ]
    gaps = [
        SELECTION.measured(
            share(0.182, 0.161, 0.204, 4000), method=">50K given: men 0.26, women 0.08", about=label, files=(DIGEST,)
        ),
        TPR_GAP.measured(
            share(0.071, 0.031, 0.122, 1100), method="rates among the deserving", about=label, files=(DIGEST,)
        ),
        SELECTION.measured(share(0.021, 0.008, 0.041, 4000), method="all pairs", about="race", files=(DIGEST,)),
    ]
    return [
        *judge(
            "preflight/data", [LEAK.measured(share(0.0135, 0.0104, 0.0172, 5000), method="exact and near duplicates")]
        ),
        *judge("preflight/model", [LOGITS.measured(1.0, method="rows of logits that sum to 1: all", n=512)]),
        *judge("preflight/accuracy", [CLEAN_ACCURACY.measured(share(0.986, 0.977, 0.992), method="on the test split")]),
        *judge("evasion/standard", evasion_evidence()),
        *judge("privacy/membership", membership),
        *judge("fairness/group_gaps", gaps),
        Clean("poisoning/strip"),
        Skipped("privacy/inversion", SkipReason.NOT_APPLICABLE, "needs gradients, which this case does not offer"),
        Skipped("evasion/trees", SkipReason.UNAVAILABLE, "needs lightgbm: pip install 'casemate[boost]'"),
        Skipped(
            "poisoning/influence", SkipReason.BUDGET, "expected 4000 more propagations to fit the budget, got 12 left"
        ),
        Failed("extraction/knockoff", "ValueError: the endpoint answered 503 four times"),
    ]


POLICY = Policy(
    gates=(
        Gate("evasion.robust_accuracy", {"norm": "linf", "eps": 0.1}, min=0.5),
        Gate("fairness.selection_gap", about="sex", max=0.1),
        Gate("fairness.tpr_gap", about="sex", max=0.1),
    ),
    accepted=(Accepted("preflight/model", dt.date(2027, 3, 31), "the last layer is a softmax on purpose"),),
)


def facts(found) -> dict[str, PluginFacts]:
    threats = {"evasion": EVASION, "fairness": BIAS, "privacy": MEMBERSHIP, "preflight": SETUP}
    sources = {
        "evasion": "Croce and Hein 2020, arXiv:2003.01690, Alg. 1; Andriushchenko et al. 2020, arXiv:1912.00049",
        "fairness": "Hardt, Price and Srebro 2016, arXiv:1610.02413, Def. 2.1",
        "privacy": "Zarifzadeh, Liu and Shokri 2024, arXiv:2312.03262, eq. 4",
        "preflight": "Carlini et al. 2019, arXiv:1902.06705, sec. 5",
    }
    ids = sorted({o.plugin for o in found if o.plugin.partition("/")[0] in threats})
    return {
        name: PluginFacts(
            f"What {name} measures in one line.",
            threats[name.partition("/")[0]],
            sources[name.partition("/")[0]],
            {"samples": 1000, "norm": "linf", "eps": [0.05, 0.1, 0.2]} if "evasion" in name else {},
            Spent(120_000, 80_000),
        )
        for name in ids
    }


def report(label: str = "sex", policy: Policy = POLICY, **changes) -> Report:
    found = outcomes(label)
    made = Report(
        name="digits-cnn",
        bundle=DIGEST,
        model=DIGEST,
        data={
            "test": DataFacts(DIGEST, 5000, (1, 28, 28), "image"),
            "train": DataFacts(DIGEST, 20_000, (1, 28, 28), "image"),
        },
        seed=7,
        settings={
            "profile": "standard",
            "budget": {"propagations": 2_000_000, "seconds": None},
            "options": {"evasion/standard": {"norm": "linf"}},
            "only": [],
            "threads": 1,
            "sampling_seed": 7,
        },
        versions={"casemate": "0.1.0", "numpy": "2.4.6", "python": "3.11.7", "torch": "2.13.0"},
        policy=policy,
        ruling=rule(found, policy, TODAY),
        outcomes=tuple(found),
        plugins=facts(found),
        files={DIGEST: "evidence/standard.0123456789ab.arrays"},
        calibrations={"poisoning/strip": DIGEST},
        notes=("The budget was given in seconds: the evidence is valid, and another run may differ from it.",),
        timings=Timings("5f2c9a77d01b34e8", "2026-11-22T10:00:00+00:00", 312.4, "pool:2", {"evasion/standard": 201.5}),
    )
    return replace(made, **changes)


def passing() -> Report:
    found = judge(
        "fairness/group_gaps", [SELECTION.measured(share(0.021, 0.008, 0.041, 4000), method="all pairs", about="race")]
    )
    policy = Policy(fail_on=Severity.HIGH)
    ruling = rule(found, policy, TODAY)
    return report(policy=policy, outcomes=tuple(found), ruling=ruling, plugins=facts(found), notes=(), name="credit")
