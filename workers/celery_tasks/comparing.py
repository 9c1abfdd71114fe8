"""Answers of a loaded deployment to the reference requests of its dossier."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from pydantic import ValidationError

from registry.catalog.answers import ANSWER_MAX, FILE
from registry.catalog.declaration import Task
from registry.catalog.inputs import Inputs, Options
from workers.control.protocol import ReferenceRequest
from workers.engines.protocol import Engine, EngineRequest, RequestRefused
from workers.references import replace_parts
from workers.trainers.reference import answer_to_json
from workers.wire import Delta, Done, Event, Failed

# Limit for all requests together; a slower model would be of no use.
COMPARED_WITHIN_S = 900.0
_SCOPE = "assay:comparison"


class _Answer:
    """The sink of one request."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.end: Done | Failed | None = None
        self.over = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Delta):
            self.parts.append(event.text)
        elif isinstance(event, Done | Failed):
            self.end = event
            self.over.set()


def answers_to(
    requests: Sequence[ReferenceRequest],
    *,
    engine: Engine,
    task: Task,
    adapter: str | None,
    opened: Callable[[str], BytesIO],
) -> list[dict[str, Any]]:
    """Return the model's answers as {row, text, results}, or {row, failed} with the reason.

    `opened` returns a file by its SHA-256. The requests run concurrently, as in the evaluation.

    Raises:
        RuntimeError: the engine ended, or took too long.
    """
    deadline = time.monotonic() + COMPARED_WITHIN_S
    sinks = [(request, _Answer()) for request in requests]
    failed: dict[int, str] = {}
    for request, sink in sinks:
        try:
            inputs, options = _typed(task, request, opened)
            engine.submit(
                EngineRequest(
                    request_id=f"comparison-{request.row}",
                    inputs=inputs,
                    options=options,
                    adapter=adapter,
                    scope=_SCOPE,
                    sketch=True,
                ),
                sink,
            )
        except RequestRefused:
            failed[request.row] = "the engine refused the request"
            sink.over.set()
        except ValidationError:
            failed[request.row] = "the request does not fit the task"
            sink.over.set()
    answers = []
    for request, sink in sinks:
        if not sink.over.wait(max(0.0, deadline - time.monotonic())):
            for other, _ in sinks:
                engine.cancel(f"comparison-{other.row}")
            raise RuntimeError("It did not answer the requests of its dossier in time.")
        if engine.fault:
            raise RuntimeError(engine.fault)
        answers.append({"row": request.row, **_written(sink, failed.get(request.row, ""))})
    return answers


def _written(sink: _Answer, failed: str) -> dict[str, Any]:
    if failed:
        return {"failed": failed}
    if not isinstance(sink.end, Done):
        code = sink.end.code if isinstance(sink.end, Failed) else "no answer"
        return {"failed": f"it failed: {code}"}
    try:
        answer = answer_to_json("".join(sink.parts), sink.end.results or [])
    except (TypeError, ValueError):
        return {"failed": "the answer is not JSON"}
    # An answer that is longer than the evaluation's differs in any case.
    long = len(str(answer)) > 4 * ANSWER_MAX
    return {"failed": "the answer is too long"} if long else answer


def _typed(
    task: Task, request: ReferenceRequest, opened: Callable[[str], BytesIO]
) -> tuple[Inputs, Options]:
    """Return inputs and options as instances of the task's schemas. Raises ValidationError."""
    inputs = replace_parts(request.inputs, _is_file, lambda value: opened(value[FILE]))
    return (
        task.input_schema.model_validate(inputs),
        task.option_schema.model_validate(request.options),
    )


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {FILE}
