"""`POST /v1/feedback`: a credential says what an answer was worth, and what was right."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated, Any, Literal

from django.db import Error, connection
from pydantic import Field

from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.http.asgi import parsed
from assay.gateway.http.waiting import WaitingBound
from governance import rowsecurity
from governance.errors import NotFound, Unavailable
from governance.people.models import Department
from governance.permissions import Action
from governance.principals import Principal, RequestContext, request_context
from registry.catalog.endpoints import dumps
from registry.catalog.requests import Body, Strict, parse
from registry.feedback.models import COMMENT_MAX, Feedback
from registry.feedback.rows import right_answer
from registry.feedback.services import TEXT_MAX, feedback_create

PATH = "/v1/feedback"
# Input, answer, correction and comment at their bounds fit as UTF-8; if every character is escaped,
# the largest do not.
BODY_MAX_BYTES = 512 * 1024
THREADS = 2
WAITING_MAX = 256
DEPARTMENT_WAITING_MAX = 32

_Text = Annotated[str, Field(max_length=TEXT_MAX)]


class FeedbackRequest(Strict):
    """POST /v1/feedback.

    `request_id` is the answer's `x-request-id` or its own `id`. `input` is the body of the request
    as it was sent, since Assay stores no prompts; `answer` is what the model answered and
    `correction` the right answer, a text or a label.
    """

    request_id: Annotated[str, Field(min_length=1, max_length=80)]
    rating: Literal["up", "down"] | None = None
    input: dict[str, Any] | None = None
    answer: _Text | None = None
    correction: _Text | None = None
    comment: Annotated[str, Field(max_length=COMMENT_MAX)] | None = None


class FeedbackDesk:
    """Runs the service in a few threads, so that no inference waits for the database."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="assay-feedback")
        self._waiting = WaitingBound(
            total=WAITING_MAX,
            of_department=DEPARTMENT_WAITING_MAX,
            refusal="Too much feedback is being recorded.",
        )

    async def take(
        self, key: KeyEntry, body: Body, request_id: str, address: str
    ) -> tuple[dict[str, Any], bool]:
        """Record the feedback in `body`; return what the caller is told, and true if it is new.

        Raises:
            RequestInvalid: the body does not fit.
            DomainError: as `feedback_create`.
            Unavailable: too much waits, or the database does not answer.
        """
        given = await parsed(body, parse, FeedbackRequest, body.data)
        context = RequestContext(request_id, address)
        loop = asyncio.get_running_loop()
        with self._waiting.place(key.department or ""):
            try:
                return await loop.run_in_executor(self._threads, _record, key, given, context)
            except Error as error:
                raise Unavailable("The database does not answer.", retry_after=5) from error

    async def stop(self) -> None:
        """Let what is under way end."""
        await asyncio.to_thread(self._threads.shutdown)


def _record(
    key: KeyEntry, given: FeedbackRequest, context: RequestContext
) -> tuple[dict[str, Any], bool]:
    token = request_context.set(context)
    actor = _sender(key.principal)
    try:
        with rowsecurity.scope(actor):
            department = Department.objects.filter(slug=key.department).first()
            if department is None:
                raise NotFound("There is no such department.")
            feedback, made = feedback_create(
                actor=actor,
                department=department,
                sender=key.recorded_as,
                request_id=given.request_id,
                rating=given.rating or "",
                input=given.input,
                answer=given.answer or "",
                correction=given.correction or "",
                comment=given.comment or "",
            )
            return _answer(feedback), made
    finally:
        request_context.reset(token)
        connection.close()


def _sender(principal: Principal) -> Principal:
    """Return the caller, who may send feedback if they may ask: no key needs a second scope."""
    scopes = principal.scopes
    if scopes is None or Action.DEPLOYMENT_INVOKE.value not in scopes:
        return principal
    return replace(principal, scopes=scopes | {Action.FEEDBACK_CREATE.value})


def _answer(feedback: Feedback) -> dict[str, Any]:
    return {
        "id": feedback.pk,
        "object": "feedback",
        "created": int(feedback.created_at.timestamp()),
        "request_id": feedback.request_id,
        "model": feedback.deployment,
        "release": feedback.release_id,
        "rating": feedback.rating or None,
        "state": feedback.state,
        "teaches": feedback.input is not None and bool(right_answer(feedback)),
    }


def feedback_body(answer: dict[str, Any]) -> bytes:
    """Return the response."""
    return dumps(answer).encode()
