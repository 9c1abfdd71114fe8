"""`POST /v1/feedback`: a caller rates an answer, and can state the right one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.http.asgi import parsed
from assay.gateway.stored.database_desk import DatabaseDesk, department_of
from governance.principals import Principal, RequestContext
from registry.catalog.requests import Body, Strict, parse
from registry.feedback.models import COMMENT_MAX, Feedback
from registry.feedback.rows import right_answer
from registry.feedback.services import TEXT_MAX, feedback_create

PATH = "/v1/feedback"
# Input, answer, correction and comment of maximum length fit as UTF-8, but not if every character
# is escaped.
BODY_MAX_BYTES = 512 * 1024
THREADS = 2
WAITING_MAX = 256
DEPARTMENT_WAITING_MAX = 32

_Text = Annotated[str, Field(max_length=TEXT_MAX)]


class FeedbackRequest(Strict):
    """POST /v1/feedback.

    `request_id` is the answer's `x-request-id` or its `id`. `input` is the body of the original
    request, since Assay stores no prompts; `answer` is the model's answer and `correction` the
    right answer, a text or a label.
    """

    request_id: Annotated[str, Field(min_length=1, max_length=80)]
    rating: Literal["up", "down"] | None = None
    input: dict[str, Any] | None = None
    answer: _Text | None = None
    correction: _Text | None = None
    comment: Annotated[str, Field(max_length=COMMENT_MAX)] | None = None


class FeedbackDesk(DatabaseDesk):
    """Threads for feedback, so that inference does not wait for the database."""

    def __init__(self) -> None:
        super().__init__(
            "feedback",
            refusal="Too much feedback is being recorded.",
            threads=THREADS,
            total=WAITING_MAX,
            of_department=DEPARTMENT_WAITING_MAX,
        )

    async def take(
        self, key: KeyEntry, body: Body, request_id: str, address: str
    ) -> tuple[dict[str, Any], bool]:
        """Record the feedback in `body`; return the answer's body, and true if feedback is new.

        Raises:
            RequestInvalid: the body does not match the schema.
            DomainError: as `feedback_create`.
            Unavailable: too many calls wait, or the database does not answer.
        """
        request = await parsed(body, parse, FeedbackRequest, body.data)

        def record(actor: Principal) -> tuple[dict[str, Any], bool]:
            feedback, created = feedback_create(
                actor=actor,
                department=department_of(key),
                sender=key.recorded_as,
                request_id=request.request_id,
                rating=request.rating or "",
                input=request.input,
                answer=request.answer or "",
                correction=request.correction or "",
                comment=request.comment or "",
            )
            return _answer(feedback), created

        return await self.run_as(key, RequestContext(request_id, address), record)


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
