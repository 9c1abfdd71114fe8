"""Rows and settings as recipes and evaluations read them. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from workers.trainers.protocol import BadMaterial

MAX_ROWS = 1_000_000

Given = TypeVar("Given", bound=BaseModel)


def parse_settings(schema: type[Given], raw: dict[str, Any]) -> Given:
    """The settings with defaults filled in. Raises BadMaterial, naming what is wrong."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise BadMaterial(f"The settings cannot be used: {faults}.") from error


def read_rows(path: Path, check: Callable[[Any], bool], shape: str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file. Raises BadMaterial with the line that is not like `shape`."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadMaterial(f"Line {number} of {path.name} is not JSON.") from error
            if not isinstance(row, dict) or not check(row):
                raise BadMaterial(f"Line {number} of {path.name} is not a row like {shape}.")
            rows.append(row)
            if len(rows) > MAX_ROWS:
                raise BadMaterial(f"{path.name} has more than {MAX_ROWS:,} rows.")
    if not rows:
        raise BadMaterial(f"{path.name} has no rows.")
    return rows
