"""Convert feedback to a dataset row: the task's endpoint reads the input, its declaration makes
the row, and its row schema checks the row.
"""

from __future__ import annotations

from typing import Any

from governance.errors import InvalidInput
from registry.canonical import canonical_json
from registry.catalog import get_row_kind, get_task
from registry.catalog.declaration import Task
from registry.catalog.endpoints import Endpoint
from registry.catalog.inputs import Inputs
from registry.catalog.requests import Body, RequestInvalid
from registry.datasets.parsing import encoded_row, validated_row
from registry.feedback.models import Feedback, Rating

_JSON = "application/json"


def right_answer(feedback: Feedback) -> str:
    """Return the correction, or the answer if it was rated good; empty if neither is known."""
    if feedback.correction:
        return feedback.correction
    return feedback.answer if feedback.rating == Rating.UP else ""


def row_of(feedback: Feedback, answer: str) -> dict[str, Any]:
    """Return the row that teaches `answer` for the input of `feedback`.

    Raises:
        InvalidInput: the input or the answer is missing, or the task cannot make a row of them.
    """
    task = get_task(feedback.task)
    subject = str(feedback).capitalize()
    if feedback.input is None:
        raise _unusable(subject, "it lacks the input of the request", "input")
    if not answer:
        raise _unusable(subject, "the right answer is not known", "correction")
    if task.feedback_row is None:
        raise _unusable(subject, f"{task.title} makes no rows of feedback", "input")
    inputs = read_input(task, feedback)
    try:
        row = task.feedback_row(inputs, answer)
    except ValueError as error:
        raise _unusable(subject, str(error), "input") from error
    checked = validated_row(subject, row, get_row_kind(task.name, ""))
    encoded_row(subject, checked)
    return checked


def read_input(task: Task, feedback: Feedback) -> Inputs:
    """Return the inputs of the request, read by the endpoint that answered it.

    Raises:
        InvalidInput: the body does not fit the endpoint; the sentence names the parameter.
    """
    endpoint = _endpoint(task, feedback.endpoint)
    named = {} if endpoint.named else {"model": feedback.deployment}
    body = Body(_JSON, canonical_json({**(feedback.input or {}), **named}))
    try:
        return endpoint.plan(body, feedback.request_id, feedback.deployment).inputs
    except RequestInvalid as error:
        raise InvalidInput(
            f"The input does not fit {endpoint.path}: {error.message}",
            hint="Repeat the body of the request as you sent it.",
            fields={"input": [error.message]},
        ) from error


def _endpoint(task: Task, path: str) -> Endpoint:
    """Return the endpoint that the ledger names, or the main one if it is gone."""
    for endpoint in task.endpoints:
        if endpoint.path_to("{model}") == path and _JSON in endpoint.content_types:
            return endpoint
    return task.endpoints[0]


def _unusable(subject: str, why: str, field: str) -> InvalidInput:
    return InvalidInput(
        f"{subject} cannot become a dataset row: {why}.",
        code="feedback_unusable",
        fields={field: [f"{why[:1].upper()}{why[1:]}."]},
    )
