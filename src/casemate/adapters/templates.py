"""Any JSON endpoint: a template of its request, and a path to the answers in what it sends back.

Nothing here is evaluated. A template is JSON in which one string stands for the samples::

    "$rows"     all samples of the request, as a list        {"instances": "$rows"}
    "$records"  the same, each an object by column name      {"dataframe_records": "$records"}
    "$row"      one sample; then a request carries just one  {"text": "$row"}
    "$record"   one sample as an object                      {"features": "$record"}

A path is names joined by dots, with `[0]` for a place in a list and one `[*]` for all: `predictions[*].label`. Without
`[*]` it leads to the list of answers itself, or with `$row` and `$record` to the one answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from casemate.adapters.values import as_answers, as_rows
from casemate.core.facets import DataKind
from casemate.core.schema import Schema
from casemate.errors import ConfigError, ModelError

__all__ = ["Template", "template_of"]

Array = NDArray[Any]
Step = str | int | None
"""A name, a place in a list, or `None` for all of a list."""

_PLACEHOLDERS = ("$rows", "$records", "$row", "$record")
_STEP = re.compile(r"(?:^|\.)(?P<name>[^.\[\]]+)|\[(?P<place>\d{1,6}|\*)\]")


@dataclass(frozen=True, slots=True)
class Template:
    """A request in which `placeholder` stands for the samples, and the `path` to the answers."""

    request: Any
    placeholder: str
    path: tuple[Step, ...]
    schema: Schema | None = None
    classes: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether a request carries one sample only."""
        return self.placeholder in ("$row", "$record")

    def body(self, x: Array) -> Any:
        """The request for samples `x (n, ...)`."""
        samples = as_rows(x, self.schema)
        if self.placeholder.startswith("$record"):
            names = self.schema.names if self.schema is not None else ()
            samples = [dict(zip(names, row, strict=True)) for row in samples]
        return _filled(self.request, self.placeholder, samples[0] if self.single else samples)

    def answers(self, found: Any, n: int) -> Array:
        """The answers for `n` samples, `(n,)` or `(n, k)`; raises `ModelError` for what does not fit the path."""
        values = _followed(found, self.path, "")
        if self.single and None not in self.path:
            values = [values]
        return as_answers(values, n, self.classes)


def template_of(request: Any, response: Any, schema: Schema | None, classes: tuple[str, ...]) -> Template:
    """A template from its texts.

    Raises `ConfigError` for a request that is no JSON or has not just one placeholder, and for a path of another form.
    """
    if request is None or response is None:
        missing = "request" if request is None else "response"
        raise ConfigError(
            f"expected model.{missing} for protocol = 'json', got none: write the request as JSON with \"$rows\", and "
            "the response as a path such as predictions[*]"
        )
    try:
        body = json.loads(request)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'expected JSON as model.request, got a fault ({error}): write it as {{"instances":"$rows"}}'
        ) from error
    marks = [text for text in _strings(body) if text in _PLACEHOLDERS]
    if len(marks) != 1:
        raise ConfigError(
            f"expected one of {', '.join(_PLACEHOLDERS)} in model.request, got {len(marks)}: put it where samples go"
        )
    if marks[0].startswith("$record") and (schema is None or schema.kind is not DataKind.TABLE):
        raise ConfigError(f"expected a table for {marks[0]}, got data without columns: use {marks[0][:4]} or $rows")
    return Template(body, marks[0], _path(response), schema, classes)


def _path(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    end = 0
    for match in _STEP.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        place = match["place"]
        steps.append(match["name"] if place is None else None if place == "*" else int(place))
    if end != len(text) or steps.count(None) > 1:
        raise ConfigError(
            f"expected names, [number] and at most one [*] as model.response, got {text[:60]!r}: write "
            "predictions[*].label"
        )
    return tuple(steps)


def _strings(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [text for item in inside for text in _strings(item)]


def _filled(part: Any, placeholder: str, samples: Any) -> Any:
    if part == placeholder:
        return samples
    if isinstance(part, dict):
        return {key: _filled(value, placeholder, samples) for key, value in part.items()}
    return [_filled(item, placeholder, samples) for item in part] if isinstance(part, list) else part


def _followed(found: Any, path: tuple[Step, ...], at: str) -> Any:
    for index, step in enumerate(path):
        if step is None:
            if not isinstance(found, list):
                raise ModelError(
                    f"expected a list at {at or 'the top'} of the answer, got {_kind(found)}: mend model.response"
                )
            return [_followed(item, path[index + 1 :], f"{at}[{place}]") for place, item in enumerate(found)]
        holds = isinstance(found, dict) and step in found if isinstance(step, str) else _has(found, step)
        if not holds:
            raise ModelError(
                f"expected {step!r} at {at or 'the top'} of the answer, got {_kind(found)}: mend model.response"
            )
        found = found[step]
        at = f"{at}[{step}]" if isinstance(step, int) else f"{at}.{step}".removeprefix(".")
    return found


def _has(found: Any, place: int) -> bool:
    return isinstance(found, list) and place < len(found)


def _kind(found: Any) -> str:
    if isinstance(found, dict):
        names = ", ".join("".join(c for c in str(key) if c.isprintable())[:20] for key in list(found)[:5])
        return f"an object with {names or 'nothing'}"
    return f"a list of {len(found)}" if isinstance(found, list) else type(found).__name__
