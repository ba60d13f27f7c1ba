"""Embeddings: what rows are about, as vectors that know nothing of the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab, Stored
from casemate.core.options import Count
from casemate.core.plugin import resource
from casemate.core.schema import FeatureKind
from casemate.poisoning import THREAT

__all__ = ["EmbeddingsOptions", "embed"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_CATEGORIES = 30  # most values of a category that get a column of their own


@dataclass(frozen=True, slots=True)
class EmbeddingsOptions:
    """`dimensions` of the vectors at most, found on at most `rows` rows."""

    dimensions: Count = 50
    rows: Count = 20_000


@resource(
    threat=THREAT,
    source="Pearson, Philosophical Magazine 2, 1901 (PCA); Deerwester et al., JASIS 41, 1990 (TF-IDF and its SVD)",
    needs={Facet.TRAIN},
    options=EmbeddingsOptions,
)
def embed(case: Case, lab: Lab) -> Stored:
    """Vectors `content (n, d)` float32 of the rows of train, in their order, and `of`, which says what they are.

    Principal components: of an image's pixels; of a table's columns, numbers as ranks in the data (so that no unit and
    no outlier rules), the common values of a category as columns of their own, missing values as the median with a
    column that says so. Of texts, TF-IDF of words and pairs of words through a truncated SVD, each vector of length 1.
    Labels are not looked at, and every row is treated alike.
    """
    options: EmbeddingsOptions = lab.options
    data = case.data("train")
    rows = lab.rng("rows").permutation(len(data))[: options.rows]
    if data.schema.kind is DataKind.TEXT:
        return _of_texts(data.x, rows, options.dimensions, lab.seed_for("svd"))
    flat = _columns(data) if data.schema.kind is DataKind.TABLE else data.x.reshape(len(data), -1)
    content = _components(np.asarray(flat, dtype=np.float32), rows, options.dimensions, lab.seed_for("pca"))
    what = "columns" if data.schema.kind is DataKind.TABLE else "pixels"
    return {"content": content, "of": f"{content.shape[1]} principal components of {flat.shape[1]} {what}"}


def _components(flat: NDArray[np.float32], rows: Array, dimensions: int, seed: int) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    count = min(dimensions, *flat[rows].shape)
    fitted = PCA(
        count, svd_solver="covariance_eigh" if flat.shape[1] <= 1000 else "randomized", random_state=seed % 2**32
    )
    fitted.fit(flat[rows])
    return np.asarray(fitted.transform(flat), dtype=np.float32)


def _of_texts(x: Array, rows: Array, dimensions: int, seed: int) -> Stored:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [str(text) for text in x]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000, token_pattern=r"(?u)\S+")
    counted = words.fit(texts[row] for row in rows).transform(texts)
    count = max(1, min(dimensions, counted.shape[1] - 1, len(texts) - 1))
    fitted = TruncatedSVD(count, random_state=seed % 2**32).fit(counted[rows])
    content = np.asarray(fitted.transform(counted), dtype=np.float32)
    content /= np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-12)
    return {"content": content, "of": f"{count} components of TF-IDF of words and pairs of words"}


def _columns(data: Data) -> NDArray[np.float32]:
    """A table's columns as numbers of similar size, `(n, m)`."""
    found: list[Array] = []
    for position, feature in enumerate(data.schema.features):
        values = np.asarray(data.x[:, position], dtype=np.float64)
        lost = np.isnan(values)
        if lost.any():
            found.append(lost)
        if feature.kind is FeatureKind.CATEGORY:
            kinds, counts = np.unique(values[~lost], return_counts=True)
            found += [values == kind for kind in kinds[np.argsort(-counts, kind="stable")][:_CATEGORIES]]
        else:
            found.append(_ranks(values, lost))
    return np.stack(found, axis=1).astype(np.float32) if found else np.zeros((len(data), 1), dtype=np.float32)


def _ranks(values: Floats, lost: Array) -> Floats:
    """Ranks in [0, 1], equal values in the middle of theirs; one half where a value is missing."""
    known = np.sort(values[~lost])
    if not len(known):
        return np.full(len(values), 0.5)
    middle = np.searchsorted(known, values, side="left") + np.searchsorted(known, values, side="right")
    return np.where(lost, 0.5, middle / (2 * len(known)))
