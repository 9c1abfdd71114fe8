"""The rows that a task's data consists of, in words and by example; drawn from its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.catalog.declaration import Task


@dataclass(frozen=True, slots=True)
class RowField:
    """One field of a row, and its value in words."""

    name: str
    value: str


def row_fields(task: Task) -> list[RowField]:
    """Return the fields of a row, in order."""
    schema = task.row.model_json_schema()
    return [RowField(name, _words(given, schema)) for name, given in schema["properties"].items()]


def is_tabular(task: Task) -> bool:
    """Return whether TSV and CSV files can hold the rows: every field is text."""
    given = task.row.model_json_schema()["properties"].values()
    return all(each.get("type") == "string" for each in given)


def sample_lines(task: Task) -> str:
    """Return the task's example rows as JSON lines."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in task.examples)


def _words(given: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in given:
        given = schema["$defs"][given["$ref"].rpartition("/")[2]]
    if "enum" in given:
        return f"one of {', '.join(given['enum'])}"
    if given.get("type") == "array":
        each = _words(given["items"], schema)
        return f"{_bounds(given, 'Items')} objects, each with {each}"
    if given.get("type") == "object":
        inner = given["properties"].items()
        return "; ".join(f"{name}: {_words(value, schema)}" for name, value in inner)
    return f"text of {_bounds(given, 'Length')} characters"


def _bounds(given: Mapping[str, Any], what: str) -> str:
    return f"{given.get(f'min{what}', 0):,} to {given[f'max{what}']:,}"
