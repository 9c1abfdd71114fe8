"""Read rows and settings for recipes and evaluations. Does not load torch."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from governance.faults import clauses
from workers.trainers.protocol import BadMaterial

MAX_ROWS = 1_000_000

Settings = TypeVar("Settings", bound=BaseModel)
Item = TypeVar("Item")


def parse_settings(schema: type[Settings], raw: dict[str, Any]) -> Settings:
    """Return the settings with defaults filled in. Raises BadMaterial with the faults."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(clauses(error))
        raise BadMaterial(f"The settings cannot be used: {faults}.") from error


def read_rows(path: Path, check: Callable[[Any], bool], shape: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file. Raises BadMaterial with the line that fails `check`;
    `shape` describes a valid row."""

    def checked(row: Any) -> dict[str, Any]:
        if not isinstance(row, dict) or not check(row):
            raise ValueError(f"is not a row like {shape}")
        return row

    return _read(path, checked)


def read_valid_rows(path: Path, schema: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file. Raises BadMaterial with the line that is not valid."""

    def checked(row: Any) -> dict[str, Any]:
        try:
            return schema.model_validate(row).model_dump()
        except ValidationError as error:
            raise ValueError(f"is not valid: {clauses(error)[0]}") from None

    return _read(path, checked)


def _read(path: Path, checked: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadMaterial(f"Line {number} of {path.name} is not JSON.") from error
            try:
                rows.append(checked(row))
            except ValueError as error:
                raise BadMaterial(f"Line {number} of {path.name} {error}.") from error
            if len(rows) > MAX_ROWS:
                raise BadMaterial(f"{path.name} has more than {MAX_ROWS:,} rows.")
    if not rows:
        raise BadMaterial(f"{path.name} has no rows.")
    return rows


def distinct(rows: list[dict[str, Any]], column: str) -> tuple[list[dict[str, Any]], int]:
    """Return the first row of each value in `column`, and the number of rows left out.

    This keeps an input from being on both sides of a split.
    """
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row[column], row)
    return list(first.values()), len(rows) - len(first)


def hold_out(
    items: Sequence[Item], fraction: float, seed: int, most: int | None = None
) -> tuple[list[Item], list[Item]]:
    """Shuffle, and return the part to train on and the part to validate on: `fraction` of the
    items, at least one and at most `most`."""
    shuffled = random.Random(seed).sample(items, len(items))
    size = max(1, round(len(items) * fraction))
    size = size if most is None else min(size, most)
    return shuffled[size:], shuffled[:size]
