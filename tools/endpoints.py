"""Write the table of endpoints, `docs/reference/endpoints.md`, from the tasks' declarations.

.venv/bin/python tools/endpoints.py
"""

from __future__ import annotations

from pathlib import Path

from registry.catalog import TASKS, package_of
from registry.catalog.declaration import Task
from registry.catalog.endpoints import REFUSED_PATHS, Endpoint

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "endpoints.md"
HEAD = """# Inference endpoints

Written by `tools/endpoints.py` from the tasks' declarations. The full description is OpenAPI 3.1:
`/api/inference/schema/`, or `/api/inference/docs/` to read in a browser.

| endpoint | task | metered in | answer |
|---|---|---|---|
"""
REFUSED = """
## Refused

These parts of other APIs are refused by name, with the status and the remedy.

| request | answer |
|---|---|
"""
# By their fields, which the answer names in `param`.
REFUSED_FIELDS = {
    "`stream: true` in `POST /v1/audio/transcriptions`": "400: leave `stream` out.",
    "`timestamp_granularities: word` in the same": "400: use `segment`.",
    "tokens as the `input` of `POST /v1/embeddings`": "400: send texts, or name the tokenizer: "
    "[Embed tokens](../how-to/call-a-model.md#embed-tokens).",
}


def page() -> str:
    """Return the page: one row for each endpoint of each task of this repository."""
    rows = sorted(
        _row(task, endpoint)
        for task in TASKS.values()
        if package_of(task.name).startswith(("assay ", "assay-tasks-extra "))
        for endpoint in task.endpoints
    )
    refused = {f"`POST {path}`": f"404: {advice}" for path, advice in REFUSED_PATHS.items()}
    table = (f"| {name} | {answer} |\n" for name, answer in (refused | REFUSED_FIELDS).items())
    return HEAD + "".join(rows) + REFUSED + "".join(table)


def _row(task: Task, endpoint: Endpoint) -> str:
    path = endpoint.path_to("{model}")
    about = endpoint.summary or task.description
    return f"| `POST {path}` | {task.name} | {task.unit.plural} | {about} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
