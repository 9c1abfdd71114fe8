"""Answers of an evaluation, given again by an engine in a process of its own, as a worker's is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from registry.catalog.answers import difference, tolerance_of
from registry.catalog.declaration import Task
from workers.celery_tasks.comparing import answers_to
from workers.control.protocol import ReferenceRequest
from workers.engine_process.client import OwnEngines


def differences(
    task: Task, folder: Path, reference: Sequence[dict[str, Any]], media: Path | None = None
) -> list[str]:
    """Differences between the answers of a version and those stored with its evaluation."""
    rows = json.loads(json.dumps(reference))

    def opened(sha256: str) -> BytesIO:
        assert media is not None
        return BytesIO((media / sha256).read_bytes())

    engine = OwnEngines().load(
        task.engine,
        folder,
        root=folder.parent,
        architectures=task.architectures,
        runner=task.runner,
        threads=1,
    )
    try:
        requests = [ReferenceRequest(row["row"], row["inputs"], row["options"]) for row in rows]
        answers = answers_to(requests, engine=engine, task=task, adapter=None, opened=opened)
    finally:
        engine.close()
    found = []
    for row, answer in zip(rows, answers, strict=True):
        assert answer["row"] == row["row"]
        assert "failed" not in answer, answer
        expected, given = (
            {name: each[name] for name in ("text", "results")} for each in (row, answer)
        )
        found.append(difference(expected, given, tolerance_of(task.outputs)))
    return [each for each in found if each]
