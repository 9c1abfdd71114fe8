"""Feedback from a logged request, so that its content can become a row of a dataset."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from governance.errors import NotPermitted, WrongState
from governance.people.models import Department
from governance.principals import Principal
from governance.request_log.selectors import policy_of
from governance.request_log.services import request_content_read
from registry.feedback.models import Feedback, Rating
from registry.feedback.services import feedback_create

# Inputs that bodies name as engines do.
_SAME = ("messages", "prompt", "input")


@transaction.atomic
def feedback_from_log(
    *, actor: Principal, request_id: str, reason: str, correction: str = ""
) -> Feedback:
    """Send the content of a logged request as feedback, which another person reviews before it
    becomes a row. Without a correction, the answer is the right one.

    Raises:
        NotFound, NotPermitted, ProofRequired, ContentUnreadable: as `request_content_read`; or the
            department does not let content become data.
        InvalidInput: the content does not fit the task's rows.
        WrongState: the content was cut, has no answer, or other feedback was given.
    """
    record, content = request_content_read(actor=actor, request_id=request_id, reason=reason)
    department = Department.objects.get(slug=record.department)
    if not policy_of(department).datasets:
        raise NotPermitted(
            f"Department {department.slug} does not let logged content become data.",
            code="datasets_not_permitted",
            hint="A lead permits it in the settings of the department's request log.",
        )
    answer = "" if content["cut"] else _answer(content)
    if not answer:
        raise WrongState(
            "The content of this request is incomplete, so it cannot become a row.",
            code="content_incomplete",
            hint="Choose a request with a whole answer in text.",
        )
    inputs = content["prompt"]["inputs"]
    feedback, _ = feedback_create(
        actor=actor,
        department=department,
        sender=record.key_public_id,
        request_id=record.request_id,
        rating="" if correction else Rating.UP,
        input={name: inputs[name] for name in _SAME if name in inputs},
        answer=answer,
        correction=correction,
        comment="From the request log.",
    )
    return feedback


def _answer(content: dict[str, Any]) -> str:
    """Return the text of the only choice; empty if there are several, or tool calls."""
    choices = content["answer"]["choices"]
    if len(choices) != 1 or choices[0]["tool_calls"]:
        return ""
    return str(choices[0]["text"])
