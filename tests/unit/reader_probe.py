"""Stands in for what readers run: tries what the file that it was given lists."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.unit.reach import attempts


def attempts_at(path: str) -> str:
    """Try what a JSON file lists, which may begin as a GIF does."""
    return json.dumps(attempts(json.loads(Path(path).read_text().removeprefix("GIF89a"))))


def reader(given: dict[str, Any]) -> Any:
    """Answer as the reader of an upload that refuses it, the checks of a delivery, or a search."""
    if "folder" in given:
        told = attempts_at(os.path.join(given["folder"], "tried"))
        return [{"check": "probe", "passed": True, "detail": told}]
    if "search" in given:
        return {"rows": [[1, attempts_at(given["path"])]]}
    told = attempts_at(given.get("source") or given["images"][0])
    return {"status": 400, "code": "probe", "message": told, "hint": ""}


if __name__ == "__main__":
    json.dump(reader(json.load(sys.stdin)), sys.stdout)
