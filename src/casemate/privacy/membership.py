"""Membership inference: the loss attack and RMIA, with their true positive rates where false alarms are rare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from casemate.core import exhibit
from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.model import Model, Task
from casemate.core.options import Count, OpenShare, Share, Within
from casemate.core.plugin import probe
from casemate.core.stats import Interval, difference_of_proportions, roc_auc, tpr_at_fpr
from casemate.errors import ConfigError, Unavailable
from casemate.privacy import THREAT
from casemate.privacy.shadow_pool import confidence_signal, in_other, signal_facet

__all__ = ["MembershipOptions", "infer_membership", "rmia_log_ratio", "rmia_scores"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_MEND = (
    "train with less capacity or more regularisation (privacy/regularisation), on more data, or with private training"
)
AUC = Metric(
    "privacy.membership_auc",
    Quantity.AUC,
    Direction.TOO_LOW,
    says="Training rows can be told from unseen rows by the model's answers",
    mend=_MEND,
)
TPR = Metric(
    "privacy.tpr_at_fpr",
    Quantity.LIFT,
    Direction.TOO_LOW,
    says="Some training rows are recognised with hardly any false alarm",
    mend=_MEND,
)
BLIND = Metric("privacy.blind_auc", Quantity.NOTE, Direction.TOO_LOW)
GAP = Metric("privacy.generalisation_gap", Quantity.NOTE, Direction.EXACT)
SHADOWS = Metric("privacy.shadow_models", Quantity.NOTE, Direction.EXACT, unit="models")

_SHIFT = "; train and test differ without the model's help, hence the attacks' figures are not leakage alone"
_BLIND_FEATURES = "forest on the features alone, scored on rows that it did not learn"
_BLIND_WORDS = "naive Bayes on the words alone, scored on rows that it did not learn"
_POINTS = 200
_NO_RECIPE = "none trained, RMIA not run: it needs a recipe, name one under [train]"
_NO_CLASSES = "none trained, RMIA not run: it needs a classifier that gives scores or logits"


@dataclass(frozen=True, slots=True)
class MembershipOptions:
    """`rows` members and as many non-members at most; `form` of RMIA, `online` or `offline` (with `offline_a`)."""

    rows: Count = 5000
    fprs: tuple[OpenShare, ...] = (0.01, 0.001)
    confidence: OpenShare = 0.95
    form: Literal["online", "offline"] = "online"
    gamma: Annotated[float, Within(least=1)] = 1.0
    offline_a: Share = 0.3
    control_rows: Count = 2000


@probe(
    threat=THREAT,
    source=(
        "Yeom et al., Privacy risk in machine learning, 2018, adversary 2; Zarifzadeh, Liu, Shokri, Low-cost "
        "high-power membership inference attacks (RMIA), 2024, section 3; controls: Das et al., Blind baselines beat "
        "membership inference attacks, 2024"
    ),
    needs={Facet.LABELS, Facet.TRAIN, Facet.TEST},
    kinds={DataKind.TABLE, DataKind.IMAGE, DataKind.TEXT},
    cost=Cost.EXPENSIVE,
    metrics=(AUC, TPR, BLIND, GAP, SHADOWS),
    options=MembershipOptions,
    profiles={Profile.QUICK: {"rows": 1000, "control_rows": 1000}},
    replay=lambda case, arrays, lab: _replay(case, arrays, lab),
)
def infer_membership(case: Case, lab: Lab) -> Iterator[Evidence]:
    """How well an attacker tells training rows from held-out rows by the model's answers.

    AUC and true positive rate at each false positive rate of two attackers. `loss` has the record and the model's
    answer and calls rows of low loss members (one global threshold). `rmia` also trains shadow models of the recipe and
    compares `p(x | model) / p(x)` with the same ratio of non-members. Members are rows of train, non-members rows of
    test, equally many of each, without the records that are in both. Both err too low: a stronger attacker may do
    better.

    Notes: the AUC of a control that never asks the model, from the features and from the shadow models (above one half,
    train and test differ in distribution and the attacks' figures are not leakage alone), and the generalisation gap.
    Without a recipe the loss attack runs alone. Raises `ConfigError` for an unknown form of RMIA, `Unavailable` where
    every test row is also in train.
    """
    _check(lab.options)
    loss = _loss_signals(case, lab)
    yield from _measure_loss(loss, lab)
    curves = {"loss": _roc(loss["signal"], loss["member"])}
    why_not = _why_no_rmia(case)
    if why_not:
        yield SHADOWS.measured(0, method=why_not)
    else:
        rmia = _rmia_signals(lab.get("privacy/shadow_pool", case), lab)
        yield from _measure_rmia(rmia, lab)
        scores = rmia_scores(rmia["log_ratio"], rmia["population"], lab.options.gamma)
        curves["RMIA"] = _roc(scores, rmia["member"])
    told = "members that are recognised at each rate of false alarms; on the diagonal the attacker guesses"
    axes = {"x": "false positive rate", "y": "true positive rate"}
    lab.show("roc", exhibit.lines(curves, **axes, x_log=True, diagonal=True, caption=told))


def rmia_log_ratio(target: Array, phi: Array, inside: Array, *, form: str = "online", offline_a: float = 0.3) -> Floats:
    """`log p(x | target) / p(x)`, `(n,)`, from logit-scaled confidences `target (n,)`, `phi (k, n)`, `inside (k, n)`.

    Online: `p(x) = (mean over models trained with x + mean over those without) / 2`. Offline: only those without, and
    `p(x) = ((1 + a) p_out + 1 - a) / 2`. Source: RMIA 2024, section 3 and appendix B.
    """
    log_p = -np.logaddexp(0.0, -np.asarray(phi, dtype=np.float64))
    out = _log_mean(log_p, ~np.asarray(inside, dtype=bool))
    if form == "online":
        reference = np.logaddexp(_log_mean(log_p, np.asarray(inside, dtype=bool)), out) - np.log(2)
    else:
        reference = np.log(((1 + offline_a) * np.exp(out) + 1 - offline_a) / 2)
    return np.asarray(-np.logaddexp(0.0, -np.asarray(target, dtype=np.float64)) - reference)


def rmia_scores(log_ratio: Array, population: Array, gamma: float = 1.0) -> Floats:
    """The share of `population (m,)` that each row dominates, `(n,)`: mean over z of `[ratio(x) / gamma > ratio(z)]`.

    An equal ratio counts half: a non-member that is of the population meets itself there, and must neither gain a rank
    nor tie with the members right above it. By one sort and `searchsorted`, which count exactly what the `(n, m)`
    comparison counts. Source: RMIA 2024, section 3.
    """
    ordered = np.sort(np.asarray(population, dtype=np.float64))
    bar = np.asarray(log_ratio, dtype=np.float64) - np.log(gamma)
    doubled = np.searchsorted(ordered, bar, side="left") + np.searchsorted(ordered, bar, side="right")
    return np.asarray(doubled / 2 / len(ordered), dtype=np.float64)


def _check(options: MembershipOptions) -> None:
    if options.form not in ("online", "offline"):
        raise ConfigError(f"expected form = 'online' or 'offline', got {options.form!r}: mend the option")
    if not options.gamma >= 1:
        raise ConfigError(f"expected gamma of at least 1, got {options.gamma}: mend the option")


def _why_no_rmia(case: Case) -> str:
    model = case.the_model()
    if case.recipe is None:
        return _NO_RECIPE
    if model.task is not Task.CLASSIFICATION or signal_facet(model) is Facet.LABELS:
        return _NO_CLASSES
    return ""


def _replay(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    if "loss" in arrays:
        yield from _measure_loss(arrays["loss"], lab)
    if "rmia" in arrays:
        yield from _measure_rmia(arrays["rmia"], lab)
    elif why_not := _why_no_rmia(case):
        yield SHADOWS.measured(0, method=why_not)


def _loss_signals(case: Case, lab: Lab) -> Stored:
    model, options = case.the_model(), lab.options
    train, test = case.data("train"), case.data("test")
    own = [np.flatnonzero(~both) for both in in_other(train, test)]
    n = min(len(own[0]), len(own[1]), options.rows)
    if not n:
        raise Unavailable("expected test rows that are not in train, got none: there is nobody who is no member")
    members, others = (
        data.take(rows[lab.rows_rng(name).permutation(len(rows))[:n]])
        for name, data, rows in (("train", train, own[0]), ("test", test, own[1]))
    )
    shared = len(test) - len(own[1])
    inner, outer = _signal(model, members), _signal(model, others)
    controls = min(n, options.control_rows)
    return {
        "sample_id": np.concatenate([members.sample_id, others.sample_id]),
        "member": np.repeat([True, False], n),
        "signal": np.concatenate([inner[0], outer[0]]),
        "right": np.concatenate([inner[1], outer[1]]),
        "control_member": np.repeat([True, False], controls - controls // 2),
        "control": _blind(members.x[:controls], others.x[:controls], lab),
        "control_of": _BLIND_WORDS if members.x.dtype.kind == "T" else _BLIND_FEATURES,
        "signal_of": (f"{signal_facet(model)}" if model.task is Task.CLASSIFICATION else "absolute error")
        + (f", without the {shared} test rows that are also in train" if shared else ""),
    }


def _signal(model: Model, data: Data) -> tuple[Floats, NDArray[np.bool_]]:
    """What the loss attack sees, and which answers are right (for the gap)."""
    labels = np.asarray(model.labels(data.x))
    if model.task is Task.REGRESSION:
        return -np.abs(labels - data.labels).astype(np.float64), np.zeros(0, dtype=bool)
    return confidence_signal(model, data.x, data.labels), labels == data.labels


def _blind(members: Array, others: Array, lab: Lab) -> Floats:
    """Scores of a learner that saw the first half of each side and tells them apart by features, for the second.

    A forest for numbers, naive Bayes on words and pairs of words for texts. (Cross-fitting would score all rows, but
    its two forests depend on each other's rows: on equal splits the AUC's interval missed one half in 17 % of 60 runs.)
    """
    half = len(members) // 2
    if np.concatenate([members, others]).dtype.kind not in "fiubT" or half < 10:
        return np.zeros(0)
    learn, rest = (np.concatenate([members[part], others[part]]) for part in (slice(None, half), slice(half, None)))
    learner: Any
    if learn.dtype.kind == "T":
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.naive_bayes import MultinomialNB
        from sklearn.pipeline import make_pipeline

        learner = make_pipeline(HashingVectorizer(ngram_range=(1, 2), norm=None, alternate_sign=False), MultinomialNB())
        learn, rest = learn.astype(object), rest.astype(object)
    else:
        from sklearn.ensemble import RandomForestClassifier

        seed = lab.seed_for("control") % 2**32
        learner = RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=1)
        learn, rest = learn.reshape(2 * half, -1), rest.reshape(len(rest), -1)
    learner.fit(learn, np.repeat([1, 0], half))
    return np.asarray(learner.predict_proba(rest)[:, 1], dtype=np.float64)


def _roc(scores: Array, member: Array) -> tuple[Floats, Floats]:
    """False and true positive rates at rising rates, from the first false alarm on, at most `_POINTS` of them."""
    inner, outer = (np.sort(np.asarray(scores, dtype=np.float64)[np.asarray(member) == side]) for side in (1, 0))
    wanted = np.unique(np.geomspace(1, len(outer), _POINTS).astype(int))
    bars = outer[len(outer) - wanted]
    false, true = ((len(side) - np.searchsorted(side, bars)) / len(side) for side in (outer, inner))
    kept = np.unique(false, return_index=True)[1]
    return false[kept], true[kept]


def _rmia_signals(pool: Stored, lab: Lab) -> Stored:
    """The pool's members and non-members, equally many; the ratios of all its non-members are the population."""
    options: MembershipOptions = lab.options
    member = np.asarray(pool["member"], dtype=bool)
    test = np.asarray(pool["part"]) == 1
    log_ratio = rmia_log_ratio(
        pool["target"], pool["phi"], pool["inside"], form=options.form, offline_a=options.offline_a
    )
    hidden = np.ma.masked_array(pool["phi"], mask=pool["inside"])
    n = min(int(member.sum()), int(test.sum()), options.rows)
    chosen = [
        np.sort(lab.rows_rng(f"rmia {name}").permutation(np.flatnonzero(side))[:n])
        for name, side in (("members", member), ("others", test))
    ]
    rows = np.concatenate(chosen)
    return {
        "sample_id": pool["sample_id"][rows],
        "member": member[rows],
        "log_ratio": log_ratio[rows],
        "population": log_ratio[~member],
        "control": np.asarray(hidden.mean(axis=0).filled(0.0))[rows],
        "models": len(pool["phi"]),
        "sampled": pool["sampled"],
    }


def _measure_loss(arrays: Stored, lab: Lab) -> Iterator[Evidence]:
    files = _kept(lab, "loss", arrays)
    member = np.asarray(arrays["member"], dtype=bool)
    method = f"loss threshold on the {arrays['signal_of']}"
    yield from _attack("loss", np.asarray(arrays["signal"]), member, lab=lab, method=method, files=files)
    control, of = np.asarray(arrays["control"]), np.asarray(arrays["control_member"], dtype=bool)
    if len(control):
        yield _control(
            "features",
            control,
            of,
            lab=lab,
            method=str(arrays.get("control_of", _BLIND_FEATURES)),
            files=files,
        )
    right = np.asarray(arrays["right"], dtype=bool)
    if len(right):
        n = int(member.sum()), int((~member).sum())
        hits = int(right[member].sum()), int(right[~member].sum())
        gap = difference_of_proportions(hits[0], n[0], hits[1], n[1], confidence=lab.options.confidence)
        yield GAP.measured(gap, method="accuracy on members less accuracy on non-members", files=files)


def _measure_rmia(arrays: Stored, lab: Lab) -> Iterator[Evidence]:
    options: MembershipOptions = lab.options
    files = _kept(lab, "rmia", arrays)
    member = np.asarray(arrays["member"], dtype=bool)
    scores = rmia_scores(arrays["log_ratio"], arrays["population"], options.gamma)
    method = f"RMIA {options.form}, {arrays['models']} shadow models, gamma {options.gamma:g}, {arrays['sampled']}"
    yield from _attack("rmia", scores, member, lab=lab, method=method, files=files)
    words = "mean confidence of the shadow models that did not see the row"
    yield _control("shadow models", np.asarray(arrays["control"]), member, lab=lab, method=words, files=files)
    yield SHADOWS.measured(int(arrays["models"]), method=method, n=len(member), files=files)


def _attack(
    name: str, scores: Floats, member: NDArray[np.bool_], *, lab: Lab, method: str, files: tuple[str, ...]
) -> Iterator[Evidence]:
    options: MembershipOptions = lab.options
    inner, outer = scores[member], scores[~member]
    auc = roc_auc(inner, outer, confidence=options.confidence)
    yield AUC.measured(auc, method=method, about=name, baseline=0.5, files=files)
    for fpr in options.fprs:
        rate = tpr_at_fpr(inner, outer, fpr, options.confidence)
        yield TPR.measured(rate, method=method, about=name, at={"fpr": fpr}, baseline=fpr, files=files)


def _control(
    name: str, scores: Floats, member: NDArray[np.bool_], *, lab: Lab, method: str, files: tuple[str, ...]
) -> Evidence:
    auc: Interval = roc_auc(scores[member], scores[~member], confidence=lab.options.confidence)
    shift = "" if auc.low <= 0.5 <= auc.high else _SHIFT
    return BLIND.measured(auc, method=method + shift, about=name, baseline=0.5, files=files)


def _kept(lab: Lab, name: str, arrays: Stored) -> tuple[str, ...]:
    digest = lab.keep(name, arrays)
    return (digest,) if digest else ()


def _log_mean(log_p: Floats, mask: NDArray[np.bool_]) -> Floats:
    top = np.max(np.where(mask, log_p, -np.inf), axis=0)
    total = np.where(mask, np.exp(log_p - top), 0.0).sum(axis=0)
    return np.asarray(top + np.log(total) - np.log(mask.sum(axis=0)))
