"""Reference answers of an evaluation, for comparison with answers after an upgrade."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import to_jsonable_python

from registry.catalog.answers import (
    ANSWER_MAX,
    FILE,
    REQUEST_MAX,
    ROWS_MAX,
    Tolerance,
    difference,
)
from registry.catalog.inputs import Inputs, Options
from workers.engines.sketches import sketched

Request = tuple[Inputs, Options]


class ModelAnswer(Protocol):
    """Answer to one request: generated text, and the results of a batch runner."""

    @property
    def text(self) -> str: ...

    @property
    def results(self) -> list[Any]: ...


def answer_to_json(text: str, results: list[Any]) -> dict[str, Any]:
    """Return an answer with descriptions in place of images and recordings.

    Raises:
        ValueError: it contains a value that JSON cannot represent, such as a number not finite.
    """
    answer = {"text": text, "results": to_jsonable_python(sketched(results))}
    return dict(json.loads(json.dumps(answer, allow_nan=False)))


def reference_rows(
    requests: Sequence[tuple[int, Request]],
    answers: Sequence[ModelAnswer],
    answer_again: Callable[[list[Request]], list[ModelAnswer | None]],
    tolerance: Tolerance,
) -> list[dict[str, Any]]:
    """Return the first requests of an evaluation with their answers. Requests to which the model
    gives another answer the second time are left out. `requests` pairs row numbers with requests.

    Answers that vary between runs, or with the other requests of a batch, would differ without any
    upgrade.
    """
    chosen = [
        (row, request, first, written)
        for (row, request), first in zip(requests[: 2 * ROWS_MAX], answers, strict=False)
        if (written := _written(request)) is not None
    ][:ROWS_MAX]
    repeated = answer_again([request for _, request, _, _ in chosen])
    references = []
    for (row, _, first, written), second in zip(chosen, repeated, strict=True):
        try:
            answer = answer_to_json(first.text, first.results)
            other = None if second is None else answer_to_json(second.text, second.results)
        except (TypeError, ValueError):
            continue
        if len(json.dumps(answer)) <= ANSWER_MAX and not difference(answer, other, tolerance):
            references.append({"row": row, **written, **answer})
    return references


def _written(request: Request) -> dict[str, Any] | None:
    """Return a request as JSON, with files by SHA-256; None if it is too long to keep."""
    parts = {
        name: to_jsonable_python(_without_files(part.to_wire()))
        for name, part in zip(("inputs", "options"), request, strict=True)
    }
    return parts if len(json.dumps(parts)) <= REQUEST_MAX else None


def _without_files(value: Any) -> Any:
    if isinstance(value, Path):
        return {FILE: value.name}  # Media files of a dataset are named by their SHA-256.
    if isinstance(value, dict):
        return {name: _without_files(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_files(each) for each in value]
    return value
