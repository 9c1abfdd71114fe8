"""Write the table of endpoints, `docs/reference/endpoints.md`, from the tasks' declarations.

.venv/bin/python tools/endpoints.py
"""

from __future__ import annotations

from pathlib import Path

from registry.catalog import TASKS, package_of
from registry.catalog.declaration import Task
from registry.catalog.endpoints import Endpoint

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "endpoints.md"
HEAD = """# Inference endpoints

Written by `tools/endpoints.py` from the tasks' declarations. The full description is OpenAPI 3.1:
`/api/inference/schema/`, or `/api/inference/docs/` to read in a browser.

| endpoint | task | metered in | answer |
|---|---|---|---|
"""


def page() -> str:
    """Return the page: one row for each endpoint of each task of this repository."""
    rows = sorted(
        _row(task, endpoint)
        for task in TASKS.values()
        if package_of(task.name).startswith(("assay ", "assay-tasks-extra "))
        for endpoint in task.endpoints
    )
    return HEAD + "".join(rows)


def _row(task: Task, endpoint: Endpoint) -> str:
    path = endpoint.path_to("{model}")
    about = endpoint.summary or task.description
    return f"| `POST {path}` | {task.name} | {task.unit.plural} | {about} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
