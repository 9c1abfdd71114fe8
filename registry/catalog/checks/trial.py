"""Trial of a declaration: endpoints read its sample, and row schemas read its examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from registry.catalog.checks import faults as check
from registry.catalog.checks.faults import Fault
from registry.catalog.columns import media_columns
from registry.catalog.declaration import RowKind, Task
from registry.catalog.endpoints import Endpoint, Plan
from registry.catalog.inputs import MediaInput, NoOptions
from registry.catalog.requests import Body

_JSON = "application/json"
_MODEL = "example"
_SAMPLE = "Use a request body that one of the endpoints reads."
_EXAMPLES = "Use rows that fit the schema, as a person would upload them."


def trial_faults(task: Task) -> Iterator[Fault]:
    """Yield the faults that occur when endpoints read the sample and schemas read the examples.
    Runs code of the plug-in."""
    yield from check.guarded("sample", _SAMPLE, lambda: _sample(task))
    for number, kind in enumerate(task.row_kinds):
        where = f"other_rows[{number - 1}].examples" if number else "examples"
        yield from check.guarded(
            where,
            _EXAMPLES,
            lambda where=where, kind=kind: _rows(where, kind),  # type: ignore[misc]
        )
    if task.evaluation is not None:
        yield from check.guarded(
            "evaluation.request", "Return inputs and options.", lambda: _evaluation_requests(task)
        )


def _sample(task: Task) -> Iterator[Fault]:
    json.dumps(task.sample, allow_nan=False)
    if not task.sample:
        yield Fault("sample", "It is empty.", _SAMPLE)
        return
    refusals = []
    for endpoint in task.endpoints:
        if _JSON not in endpoint.content_types:
            continue
        body = task.sample if endpoint.named else {"model": _MODEL, **task.sample}
        try:
            plan = endpoint.plan(Body(_JSON, json.dumps(body).encode()), "trial", _MODEL)
        except BaseException as error:
            refusals.append(f"{endpoint.path}: {check.raised(error)}")
            continue
        yield from _plan(task, endpoint, plan)
        return
    reasons = "; ".join(refusals) or "none takes JSON"
    yield Fault("sample", f"No endpoint reads it ({reasons}).", _SAMPLE)


def _plan(task: Task, endpoint: Endpoint, plan: Any) -> Iterator[Fault]:
    where = f"the plan of {endpoint.path}"
    if not isinstance(plan, Plan):
        yield Fault(where, f"`read` returned {check.quoted(plan)}.", "Return a Plan.")
        return
    if plan.model != _MODEL:
        yield Fault(
            where, f"Its model is {check.quoted(plan.model)}.", "Use the deployment's name."
        )
    yield from check.member_faults(f"{where}: inputs", plan.inputs, task.input_schema)
    if not isinstance(plan.options, NoOptions):
        yield from check.member_faults(f"{where}: options", plan.options, task.option_schema)
    for name in ("tokens", "prompt_tokens", "units"):
        value = getattr(plan, name)
        if not isinstance(value, int) or value < 0:
            yield Fault(
                f"{where}: {name}",
                f"{check.quoted(value)} is not an amount.",
                "Use an int of at least 0.",
            )
    if not callable(getattr(plan.renderer, "whole", None)):
        yield Fault(f"{where}: renderer", "It has no `whole`.", "Write `whole(answer)`.")
    if not isinstance(plan.inputs, task.input_schema):
        return
    wire = json.loads(to_json(plan.inputs.to_wire(), fallback=_no_media))
    if not _holds_media(plan.inputs.to_wire()):
        task.input_schema.model_validate(wire)


def _no_media(value: Any) -> None:
    if not isinstance(value, MediaInput):
        raise TypeError(f"{check.quoted(value)} cannot be sent to a worker")


def _holds_media(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_media, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_media, value))
    return isinstance(value, MediaInput)


def _rows(where: str, kind: RowKind) -> Iterator[Fault]:
    for number, example in enumerate(kind.examples):
        row = kind.row.model_validate(example).model_dump()
        text: Any = kind.row_input(row)
        if not isinstance(text, str):
            yield Fault(
                f"{where}[{number}]", f"`row_input` returned {check.quoted(text)}.", "Return a str."
            )


def _evaluation_requests(task: Task) -> Iterator[Fault]:
    """Yield faults of the requests that an evaluation builds from the examples."""
    if task.evaluation is None:
        return
    columns = media_columns(task.row)
    for number, example in enumerate(task.examples):
        row = task.row.model_validate(example).model_dump()
        request = task.evaluation.request({**row, **{name: Path(row[name]) for name in columns}})
        inputs, options = request
        where = f"evaluation.request of examples[{number}]"
        yield from check.member_faults(f"{where}: inputs", inputs, task.input_schema)
        yield from check.member_faults(f"{where}: options", options, task.option_schema)
