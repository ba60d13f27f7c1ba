"""Gaps between groups in selection, in true and false positive rates, and in calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from casemate.core import exhibit
from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.model import Task
from casemate.core.options import Count, Natural, OpenShare, Within
from casemate.core.plugin import probe
from casemate.core.stats import Interval, clopper_pearson_bounds, max_gap
from casemate.errors import ConfigError, UsageError
from casemate.fairness import THREAT
from casemate.fairness._groups import Attribute, attributes, with_intersections

__all__ = ["Options", "calibration_gap", "compare_groups", "replay"]

Array = NDArray[Any]
_MEND = (
    "look at the rows of the two groups named; then reweigh or add training data, choose thresholds for each group "
    "where the law allows it, or explain the difference"
)


def _gap(name: str, says: str) -> Metric:
    return Metric(f"fairness.{name}_gap", Quantity.RATE_GAP, Direction.EXACT, says=says, mend=_MEND)


SELECTION = _gap("selection", "groups are given the favourable class at different rates")
TPR = _gap("tpr", "groups that deserve the favourable class are given it at different rates")
FPR = _gap("fpr", "groups that do not deserve the favourable class are given it at different rates")
CALIBRATION = _gap("calibration", "the same score means different odds for different groups")
_SHOWN = {
    SELECTION: "How often each group is given the favourable class",
    TPR: "How often each group is given the favourable class where it deserves it",
    FPR: "How often each group is given the favourable class where it does not deserve it",
    CALIBRATION: "How much oftener each group has the favourable class than its scores say",
}
LEFT_OUT = Metric("fairness.left_out", Quantity.NOTE, Direction.EXACT, unit="groups")
BINS = Metric("fairness.bins", Quantity.NOTE, Direction.EXACT, unit="bins")
SAMPLED = Metric("fairness.sampled", Quantity.NOTE, Direction.EXACT, unit="rows")
UNMEASURED = Metric("fairness.unmeasured", Quantity.NOTE, Direction.EXACT, unit="metrics")


@dataclass(frozen=True, slots=True)
class Options:
    """`positive`: the favourable class by name (default: the last of two; of more, each in turn against the rest).

    `edges`: bin edges by attribute; others are cut at quantiles into `bins` when they hold numbers of more than
    `most_values` values. Groups with fewer than `min_group` rows under a rate are left out of it. `samples`: most rows
    used.
    """

    positive: str = ""
    edges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    bins: Annotated[int, Within(least=2)] = 4
    most_values: Natural = 10
    min_group: Count = 30
    intersections: bool = True
    samples: Count = 200_000
    confidence: OpenShare = 0.95

    def check(self, case: Case) -> None:
        """Raise `ConfigError` for a favourable class or edges that the case does not have."""
        if classes := list(case.the_model().classes):
            _favourable(classes, self.positive)
        if self.edges:
            attributes(case.data("test").groups, edges=self.edges, bins=self.bins, most_values=self.most_values)


def replay(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence from the predictions that were kept."""
    del case
    yield from _measure(arrays["predictions"], lab)


@probe(
    threat=THREAT,
    source="Hardt, Price and Srebro, NeurIPS 2016 (TPR, FPR); Chouldechova, Big Data 5, 2017 (calibration); "
    "Kearns et al., ICML 2018 (intersections); intervals: Clopper and Pearson, Biometrika 26, 1934, with Bonferroni",
    needs={Facet.LABELS, Facet.TEST, Facet.GROUPS},
    metrics=(SELECTION, TPR, FPR, CALIBRATION, LEFT_OUT, BINS, SAMPLED, UNMEASURED),
    options=Options,
    profiles={Profile.QUICK: {"samples": 20_000}},
    replay=replay,
)
def compare_groups(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Compare groups, alone and crossed, in selection, errors and calibration.

    For groups g of one attribute or of two crossed, and favourable class c: the largest minus the smallest of
    P(f(x) = c | g), P(f(x) = c | y = c, g), P(f(x) = c | y != c, g), and E[1{y = c} - s_c(x) | g] with score s_c.
    Intervals hold for all groups of an attribute at once and err wide; the value itself errs high, as any maximum of
    noisy rates. Nothing is assumed of an attacker. Groups that are too thin are left out and named in a note; where
    fewer than two remain the interval is all of [0, 1], which no policy reads as a pass. Raises `ConfigError` for an
    unknown class, a `min_group` or `samples` under 1, or `bins` under 2.
    """
    model = case.the_model()
    for name, least in (("min_group", 1), ("samples", 1), ("bins", 2)):
        if (given := getattr(lab.options, name)) < least:
            raise ConfigError(f"expected {name} of at least {least}, got {given}: raise it")
    if model.task is Task.REGRESSION:
        yield UNMEASURED.measured(4, method="group gaps are defined for classes; this model predicts numbers")
        return
    yield from _measure(_predictions(case, lab), lab)


def calibration_gap(bias: Sequence[Array], hits: Sequence[Array], confidence: float = 0.95) -> Interval:
    """Bound the largest minus the smallest mean of `bias` (= hits - scores, in [-1, 1]) over g groups, `(n_g,)` each.

    Each group's mean gets the wider of two intervals at 1 - (1 - confidence) / g: Clopper-Pearson for the rate of hits
    less the mean score, exact for the people at hand whatever the rate (Hoeffding 1956: a sum of unequal Bernoullis is
    less spread than a binomial), and Student's t, which also covers scores that vary with no relation to the hits. Errs
    wide. Raises `UsageError` for fewer than two groups.
    """
    if len(bias) < 2:
        raise UsageError(f"expected at least 2 groups, got {len(bias)}: compare two groups or more")
    mean, low, high = _biases(bias, hits, confidence)
    value, n = float(np.ptp(mean)), sum(len(part) for part in bias)
    apart = np.where(np.eye(len(mean), dtype=bool), -np.inf, high[:, None] - low[None, :])
    bottom = max(0.0, float(low.max() - high.min()))
    method = "bonferroni: wider of clopper-pearson and t"
    return Interval(value, min(bottom, value), max(float(apart.max()), value), n, confidence, method)


def _biases(bias: Sequence[Array], hits: Sequence[Array], confidence: float) -> tuple[Array, Array, Array]:
    """Each group's mean of `bias`, and the bounds that hold for all groups at once; `(g,)` each."""
    n = np.array([len(part) for part in bias])
    mean = np.array([float(part.mean()) for part in bias])
    rate = np.array([float(part.mean()) for part in hits])
    each = 1 - (1 - confidence) / len(n)
    cp_low, cp_high = clopper_pearson_bounds([int(part.sum()) for part in hits], n, each)
    spread = np.array([_half_width(part, each) for part in bias])
    low = np.maximum(np.minimum(cp_low - rate, -spread) + mean, -1.0)
    high = np.minimum(np.maximum(cp_high - rate, spread) + mean, 1.0)
    return mean, low, high


def _half_width(bias: Array, confidence: float) -> float:
    """Of Student's t interval; one row says nothing of the spread."""
    n = len(bias)
    return float(bias.std(ddof=1) / np.sqrt(n) * stdtrit(n - 1, (1 + confidence) / 2)) if n > 1 else float("inf")


def _predictions(case: Case, lab: Lab) -> Stored:
    model, whole, options = case.the_model(), case.data("test"), lab.options
    data = _sampled(whole, lab)
    predicted = np.asarray(model.labels(data.x)).astype(np.int64)
    score = None if model.scores is None else np.asarray(model.scores(data.x), dtype=np.float64)
    stored: dict[str, Any] = {"predicted": predicted, "sample_id": data.sample_id, "rows": len(whole)}
    stored["classes"] = list(model.classes) or _class_names(predicted, data, score)
    stored["attributes"] = sorted(data.groups)
    if data.y is not None:
        stored["y"] = data.y.astype(np.int64)
    if score is not None:
        stored["score"] = score
    found = attributes(data.groups, edges=options.edges, bins=options.bins, most_values=options.most_values)
    for position, item in enumerate(found):
        stored |= {f"codes{position}": item.codes, f"names{position}": list(item.names)}
        stored[f"edges{position}"] = np.array(item.edges, dtype=np.float64)
    return stored


def _measure(stored: Stored, lab: Lab) -> Iterator[Evidence]:
    options: Options = lab.options
    files = (digest,) if (digest := lab.keep("predictions", stored)) else ()
    single = [_attribute(stored, position) for position in range(len(stored["attributes"]))]
    yield from _notes(stored, single, options)
    wanted = _favourable(list(stored["classes"]), options.positive)
    shown: dict[Metric, list[exhibit.Groups]] = {}
    for item in with_intersections(single) if options.intersections else single:
        thin: dict[str, list[str]] = {}
        for name, number in wanted:
            about = item.name if len(wanted) == 1 else f"{item.name}, class {name}"
            for metric, cells in _rates(stored, item, number).items():
                kept = [cell for cell in cells if len(cell[1]) >= options.min_group]
                interval, method = _interval(metric, kept, options)
                yield metric.measured(interval, method=method, about=about, at={"positive": name}, files=files)
                few = [f"{cell[0]} (n = {len(cell[1])})" for cell in cells if len(cell[1]) < options.min_group]
                if few:
                    thin[f"{metric.name}, class {name}"] = few
                if len(kept) > 1:
                    shown.setdefault(metric, []).append(_groups(item, about, kept, few, options.confidence))
        if thin:
            count = len({group for groups in thin.values() for group in groups})
            method = "; ".join(f"{rate}: {', '.join(groups)}" for rate, groups in thin.items())
            yield LEFT_OUT.measured(count, method=f"under {options.min_group} rows: {method}", about=item.name)
    for metric, subjects in shown.items():
        drawn = exhibit.bars(subjects, metric=metric.name, confidence=options.confidence, caption=_SHOWN[metric])
        lab.show(metric.name.partition(".")[2], drawn)


def _attribute(stored: Stored, position: int) -> Attribute:
    names, edges = stored[f"names{position}"], np.asarray(stored[f"edges{position}"])
    return Attribute(stored["attributes"][position], stored[f"codes{position}"], tuple(names), tuple(edges.tolist()))


Cell = tuple[str, Array, Array]
"""A group under one rate: its name, whether each row is a hit `(n_g,)`, and each row's score (calibration only)."""


def _rates(stored: Stored, item: Attribute, number: int) -> dict[Metric, list[Cell]]:
    """The cells of each rate, in order of group; groups with no row at all do not exist."""
    chosen, none = stored["predicted"] == number, np.zeros(0)
    present = [(code, name) for code, name in enumerate(item.names) if (item.codes == code).any()]
    rows = {name: item.codes == code for code, name in present}
    found: dict[Metric, list[Cell]] = {SELECTION: [(name, chosen[mask], none) for name, mask in rows.items()]}
    if "y" not in stored:
        return found
    true = stored["y"] == number
    found[TPR] = [(name, chosen[mask & true], none) for name, mask in rows.items()]
    found[FPR] = [(name, chosen[mask & ~true], none) for name, mask in rows.items()]
    if "score" in stored:
        score = stored["score"][:, number]
        found[CALIBRATION] = [(name, true[mask], score[mask]) for name, mask in rows.items()]
    return found


def _interval(metric: Metric, cells: Sequence[Cell], options: Options) -> tuple[Interval, str]:
    if len(cells) < 2:
        n = sum(len(hits) for _, hits, _ in cells)
        method = f"fewer than two groups of at least {options.min_group} rows: nothing could be compared"
        return Interval(0.5, 0.0, 1.0, n, options.confidence, "all that is possible"), method
    if metric is CALIBRATION:
        values = [float(np.mean(hits - score)) for _, hits, score in cells]
        bias = [hits - score for _, hits, score in cells]
        interval = calibration_gap(bias, [hits for _, hits, _ in cells], options.confidence)
        what = "rate less mean score"
    else:
        values = [float(hits.mean()) for _, hits, _ in cells]
        counts = [int(hits.sum()) for _, hits, _ in cells], [len(hits) for _, hits, _ in cells]
        interval = max_gap(*counts, options.confidence)
        what = "rate"
    top, bottom = int(np.argmax(values)), int(np.argmin(values))
    ends = [f"{cells[i][0]} {values[i]:.3f} (n = {len(cells[i][1])})" for i in (top, bottom)]
    return interval, f"{what}: highest {ends[0]}, lowest {ends[1]}, of {len(cells)} groups"


def _groups(
    item: Attribute, about: str, cells: Sequence[Cell], thin: Sequence[str], confidence: float
) -> exhibit.Groups:
    """The groups behind one gap: bins in their order, other groups from the highest to the lowest."""
    hits, n = [cell[1] for cell in cells], np.array([len(cell[1]) for cell in cells])
    if len(cells[0][2]):
        value, low, high = _biases([hit - score for _, hit, score in cells], hits, confidence)
    else:
        counts = np.array([int(hit.sum()) for hit in hits])
        value = counts / n
        low, high = clopper_pearson_bounds(counts, n, 1 - (1 - confidence) / len(n))
    order = np.arange(len(n)) if item.edges else np.argsort(-value, kind="stable")
    names = [cells[i][0] for i in order]
    return exhibit.Groups(about, names, value[order], low[order], high[order], n[order], thin)


def _notes(stored: Stored, single: Sequence[Attribute], options: Options) -> Iterator[Evidence]:
    n = len(stored["predicted"])
    if n < stored["rows"]:
        yield SAMPLED.measured(n, method=f"{n} of {stored['rows']} rows, drawn without replacement", n=n)
    for item in single:
        if item.edges:
            how = "declared" if item.name in options.edges else "quantiles of these rows"
            edges = ", ".join(f"{edge:.6g}" for edge in item.edges)
            yield BINS.measured(len(item.names), method=f"cut at {edges} ({how})", about=item.name, n=n)
    lacking = [name for name, key in (("true labels", "y"), ("scores", "score")) if key not in stored]
    if lacking:
        lost = "selection only" if "y" not in stored else "no calibration gap"
        yield UNMEASURED.measured(3 if "y" not in stored else 1, method=f"no {' and no '.join(lacking)}: {lost}", n=n)


def _favourable(classes: list[str], positive: str) -> list[tuple[str, int]]:
    if positive:
        if positive not in classes:
            raise ConfigError(f"expected positive to be one of {', '.join(classes)}, got {positive!r}: name a class")
        return [(positive, classes.index(positive))]
    numbered = [(name, number) for number, name in enumerate(classes)]
    return numbered[-1:] if len(classes) <= 2 else numbered


def _class_names(predicted: Array, data: Data, score: Array | None) -> list[str]:
    count = max(int(predicted.max()) + 1, 2, 0 if score is None else score.shape[1])
    if data.y is not None:
        count = max(count, int(data.y.max()) + 1)
    return [str(number) for number in range(count)]


def _sampled(data: Data, lab: Lab) -> Data:
    if len(data) <= lab.options.samples:
        return data
    return data.take(np.sort(lab.rows_rng("rows").choice(len(data), size=lab.options.samples, replace=False)))
