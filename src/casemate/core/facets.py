"""What a case offers and a plug-in needs."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Cost", "DataKind", "Facet", "Phase", "PluginKind", "Profile", "Scope"]


class Facet(StrEnum):
    """One thing that a case offers. They are a set, not a ladder: a forest offers trees and no gradients."""

    FILE = "file"
    LABELS = "labels"
    SCORES = "scores"
    LOGITS = "logits"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    AFFINE = "affine"
    GRAPH = "graph"
    TREES = "trees"
    TRAIN = "train"
    TUNE = "tune"
    TEST = "test"
    REFERENCE = "reference"
    GROUPS = "groups"
    SOURCES = "sources"
    RECIPE = "recipe"
    SURROGATES = "surrogates"


class DataKind(StrEnum):
    """What one sample is."""

    IMAGE = "image"
    TABLE = "table"
    TEXT = "text"


class PluginKind(StrEnum):
    """The eight kinds of plug-in."""

    RESOURCE = "resource"
    DETECTOR = "detector"
    ATTACK = "attack"
    CERTIFICATE = "certificate"
    PROBE = "probe"
    HARDENING = "hardening"
    GUARD = "guard"
    WATCH = "watch"


class Cost(StrEnum):
    """How much of the budget a plug-in wants, relative to the others."""

    CHEAP = "cheap"
    MODERATE = "moderate"
    EXPENSIVE = "expensive"


class Profile(StrEnum):
    """How long an audit may take: about a minute, some minutes, as long as it needs."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class Phase(StrEnum):
    """When a guard sees a request."""

    ADMIT = "admit"
    ANSWER = "answer"
    AFTER = "after"


class Scope(StrEnum):
    """Whose requests share a guard's state."""

    NONE = "none"
    PRINCIPAL = "principal"
    GLOBAL = "global"
