"""Checks of every field of a `Task`. Pure: they import no dotted names and read no files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from governance.usage.units import Unit
from registry.catalog.checks import faults as check
from registry.catalog.checks.faults import Fault
from registry.catalog.checks.schemas import default_faults, schema_faults
from registry.catalog.checks.trial import trial_faults
from registry.catalog.declaration import (
    BATCH,
    GENERATION,
    INTERFACE,
    Evaluation,
    Family,
    Metric,
    Modality,
    Playground,
    Recipe,
    RowKind,
    Task,
)
from registry.catalog.endpoints import INFERENCE_PATHS, Endpoint
from registry.catalog.inputs import Inputs, Options

_NAMES = "1 to 40 lowercase letters, digits and hyphens"
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MODALITY = re.compile(r"[a-z][a-z-]{0,19}")
# A class of a library may be dotted, such as `timm.resnet18`.
_CLASS = re.compile(r"[A-Za-z_][\w.]{0,99}", re.ASCII)
_COMPONENT = re.compile(r"[A-Za-z_]\w{0,99}\.[A-Za-z_]\w{0,99}", re.ASCII)
_PATH = re.compile(r"(?:/[a-z0-9][a-z0-9._-]{0,59}){2,8}")
_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,60}/(?:\*|[a-z0-9.+-]{1,60})")
_PLACEHOLDER = re.compile(r"\$\w+")
PLACEHOLDERS = frozenset(
    {
        "$file", "$file_url", "$lines", "$lines_text", "$messages", "$model", "$numbers", "$table",
        "$text",
    }
)  # fmt: skip
_INTERFACE = f"Install a release of its package for interface {INTERFACE}."
MAKES = ("full", "adapter")


def declaration_faults(task: Any) -> list[Fault]:
    """Return all faults of a declaration. Runs code of the plug-in."""
    if not isinstance(task, Task):
        return [
            Fault("entry point", f"{check.quoted(task)} is not a Task.", "Name a catalog `Task`.")
        ]
    # The interface determines the meaning of all other fields.
    if mismatch := list(check.guarded("interface", _INTERFACE, lambda: _interface(task))):
        return mismatch
    fix = "Use the types that the reference of declarations names."
    parts = (_task, _endpoints, _rows, _recipes, _evaluation, _playground)
    faults = [
        fault
        for part in parts
        for fault in check.guarded(part.__name__.strip("_"), fix, lambda part=part: part(task))  # type: ignore[misc]
    ]
    # With faulty fields, a trial of sample and examples would only add misleading faults.
    return faults or list(trial_faults(task))


def _interface(task: Task) -> Iterator[Fault]:
    if task.interface != INTERFACE:
        yield Fault(
            "interface",
            f"It was written for interface {check.quoted(task.interface)} of assay.plugins; this "
            f"Assay has interface {INTERFACE}.",
            _INTERFACE,
        )


def _task(task: Task) -> Iterator[Fault]:
    yield from check.name_faults("name", task.name, check.NAME, _NAMES)
    yield from check.text_faults("title", task.title, check.TITLE_MAX)
    yield from check.text_faults("description", task.description, check.SENTENCE_MAX)
    yield from check.name_faults(
        "modality", task.modality, _MODALITY, "a lowercase word, such as `text`, which rules name"
    )
    yield from check.member_faults("family", task.family, Family)
    yield from check.members_faults("inputs", task.inputs, Modality)
    yield from check.members_faults("outputs", task.outputs, Modality)
    yield from check.names_faults("architectures", task.architectures, _CLASS, "names of classes")
    yield from check.names_faults(
        "components", task.components, _COMPONENT, "`library.Class`", may_be_empty=True
    )
    yield from check.member_faults("unit", task.unit, Unit)
    if task.engine not in (BATCH, GENERATION):
        yield Fault(
            "engine", f"{check.quoted(task.engine)} is not an engine.", "Use BATCH or GENERATION."
        )
    elif task.engine == BATCH and not task.runner:
        yield Fault(
            "runner", "The batch engine has no runner.", "Name its class: `package.module:Runner`."
        )
    elif task.engine == BATCH:
        yield from check.dotted_faults("runner", task.runner)
    elif task.runner:
        yield Fault("runner", "GENERATION drives its models itself.", "Leave `runner` out.")
    yield from schema_faults("input_schema", task.input_schema, Inputs)
    yield from schema_faults("option_schema", task.option_schema, Options)
    yield from check.guarded(
        "option_schema", "Give each option a default.",
        lambda: default_faults("option_schema", task.option_schema),
    )  # fmt: skip
    if task.result_type is not None:
        yield from check.guarded(
            "result_type", "Use a type that pydantic validates, or None for text.",
            lambda: check.call_faults(lambda: TypeAdapter(list[task.result_type])),  # type: ignore[name-defined]
        )  # fmt: skip
    if task.feedback_row is not None:
        yield from check.callable_faults("feedback_row", task.feedback_row, "inputs, answer")


def _endpoints(task: Task) -> Iterator[Fault]:
    yield from check.members_faults("endpoints", task.endpoints, Endpoint)
    yield from check.repeated_faults("endpoints", (each.path for each in task.endpoints))
    for number, endpoint in enumerate(task.endpoints):
        where = f"endpoints[{number}]"
        path = endpoint.path
        if not (
            isinstance(path, str) and path.startswith(INFERENCE_PATHS) and _PATH.fullmatch(path)
        ):
            yield Fault(
                f"{where}.path",
                f"{check.quoted(path)} is not a path below {' or '.join(INFERENCE_PATHS)}.",
                "Use lowercase words between slashes, such as `/v1/tasks/my-task`.",
            )
        yield from check.callable_faults(f"{where}.read", endpoint.read, "body, request_id, name")
        yield from check.member_faults(f"{where}.named", endpoint.named, bool)
        yield from check.member_faults(f"{where}.takes_media", endpoint.takes_media, bool)
        yield from check.text_faults(
            f"{where}.summary", endpoint.summary, check.SENTENCE_MAX, may_be_empty=True
        )
        yield from check.names_faults(
            f"{where}.content_types",
            endpoint.content_types,
            _CONTENT_TYPE,
            "types such as `image/*`",
        )
        if endpoint.request is not None:
            yield from _described(f"{where}.request", endpoint.request)


def _described(where: str, schema: Any) -> Iterator[Fault]:
    """Yield a fault unless the API's OpenAPI description can contain the schema of a body."""
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        yield Fault(
            where, f"{check.quoted(schema)} is not a pydantic model.", "Derive it from `Strict`."
        )
        return
    yield from check.guarded(
        where, "Use types that pydantic can describe in JSON Schema.",
        lambda: check.call_faults(schema.model_json_schema),
    )  # fmt: skip


def _rows(task: Task) -> Iterator[Fault]:
    yield from check.members_faults("other_rows", task.other_rows, RowKind, may_be_empty=True)
    yield from check.repeated_faults("other_rows", (kind.name for kind in task.row_kinds))
    for number, kind in enumerate(task.row_kinds):
        where = f"other_rows[{number - 1}]." if number else ""
        if number:
            yield from check.name_faults(f"{where}name", kind.name, check.NAME, _NAMES)
            yield from check.text_faults(f"{where}title", kind.title, check.TITLE_MAX)
        yield from schema_faults(f"{where}row", kind.row)
        yield from check.callable_faults(f"{where}row_input", kind.row_input, "row")
        yield from check.members_faults(f"{where}examples", kind.examples, dict)


def _recipes(task: Task) -> Iterator[Fault]:
    yield from check.members_faults("recipes", task.recipes, Recipe, may_be_empty=True)
    yield from check.repeated_faults("recipes", (each.method for each in task.recipes))
    kinds = {kind.name for kind in task.row_kinds}
    for number, recipe in enumerate(task.recipes):
        where = f"recipes[{number}]"
        yield from check.name_faults(f"{where}.method", recipe.method, check.METHOD, _NAMES)
        yield from check.text_faults(f"{where}.title", recipe.title, check.TITLE_MAX)
        yield from check.dotted_faults(f"{where}.train", recipe.train)
        yield from check.member_faults(f"{where}.distributed", recipe.distributed, bool)
        if recipe.makes not in MAKES:
            yield Fault(
                f"{where}.makes", f"{check.quoted(recipe.makes)} is not a kind of version.",
                f"Use {' or '.join(MAKES)}.",
            )  # fmt: skip
        if recipe.row_kind not in kinds:
            yield Fault(
                f"{where}.row_kind", f"{check.quoted(recipe.row_kind)} is not a kind of its rows.",
                "Name one of `other_rows`, or leave it empty.",
            )  # fmt: skip
        if not (isinstance(recipe.bases, frozenset) and all(map(_is_name, recipe.bases))):
            yield Fault(
                f"{where}.bases",
                f"{check.quoted(recipe.bases)} are not tasks.",
                "Use a frozenset of names.",
            )
        place = f"{where}.hyperparameters"
        yield from schema_faults(place, recipe.hyperparameters, numbers=True)
        yield from check.guarded(
            place, "Give each setting a default.",
            lambda place=place, recipe=recipe: default_faults(place, recipe.hyperparameters),  # type: ignore[misc]
        )  # fmt: skip


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and check.NAME.fullmatch(value) is not None


def _evaluation(task: Task) -> Iterator[Fault]:
    evaluation: Any = task.evaluation
    if evaluation is None:
        return
    yield from check.member_faults("evaluation", evaluation, Evaluation)
    yield from check.callable_faults("evaluation.request", evaluation.request, "row")
    yield from check.dotted_faults("evaluation.score", evaluation.score)
    yield from check.member_faults(
        "evaluation.uses_training_rows", evaluation.uses_training_rows, bool
    )
    if evaluation.judge and not _is_name(evaluation.judge):
        yield Fault(
            "evaluation.judge", f"{check.quoted(evaluation.judge)} is not a task.", "Name a task."
        )
    yield from check.members_faults("evaluation.metrics", evaluation.metrics, Metric)
    yield from check.repeated_faults(
        "evaluation.metrics", (each.name for each in evaluation.metrics)
    )
    for number, metric in enumerate(evaluation.metrics):
        where = f"evaluation.metrics[{number}]"
        yield from check.name_faults(
            f"{where}.name", metric.name, _METRIC,
            "1 to 40 lowercase letters, digits and underscores, a letter first",
        )  # fmt: skip
        yield from check.text_faults(f"{where}.title", metric.title, check.TITLE_MAX)
        yield from check.text_faults(f"{where}.unit", metric.unit, 20, may_be_empty=True)
        yield from check.member_faults(f"{where}.higher_is_better", metric.higher_is_better, bool)
        yield from check.member_faults(f"{where}.proportion", metric.proportion, bool)
    if evaluation.primary_metric not in {each.name for each in evaluation.metrics}:
        yield Fault(
            "evaluation.primary_metric",
            f"{check.quoted(evaluation.primary_metric)} is not one of its metrics.",
            "Name one of `metrics`.",
        )


def _playground(task: Task) -> Iterator[Fault]:
    playground: Any = task.playground
    if playground is None:
        return
    yield from check.member_faults("playground", playground, Playground)
    if playground.body is not None:
        if not isinstance(playground.body, Mapping):
            yield Fault(
                "playground.body",
                f"{check.quoted(playground.body)} is not an object.",
                "Use a dict, or None.",
            )
        text = json.dumps(playground.body)
        for each in sorted(set(_PLACEHOLDER.findall(text)) - PLACEHOLDERS):
            yield Fault(
                "playground.body", f"There is no placeholder {each}.",
                f"Use {', '.join(sorted(PLACEHOLDERS))}.",
            )  # fmt: skip
    paths = {each.path_to("{model}") for each in task.endpoints}
    if playground.path and playground.path not in paths:
        yield Fault(
            "playground.path", f"{check.quoted(playground.path)} is not an endpoint of the task.",
            f"Use {', '.join(sorted(paths))}, or leave it empty.",
        )  # fmt: skip
    for name, value in (("text", playground.text), ("lines_label", playground.lines_label)):
        if not isinstance(value, str):
            yield Fault(f"playground.{name}", f"{check.quoted(value)} is not text.", "Use a str.")
    yield from check.members_faults("playground.lines", playground.lines, str, may_be_empty=True)
