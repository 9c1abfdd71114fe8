"""Record, review and erase feedback on answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models.expressions import RawSQL
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, TooLarge, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.people.models import Department, Person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.rowsecurity import lifted
from governance.state_machine import StateMachine
from governance.usage.models import UsageRecord
from registry.canonical import canonical_json, json_digest
from registry.catalog import TASKS
from registry.feedback.models import COMMENT_MAX, Feedback, FeedbackState, Rating
from registry.feedback.rows import read_input, right_answer, row_of
from registry.feedback.selectors import feedback_visible_to
from registry.releases.models import Release
from registry.resources import acting_person, department_resource
from registry.validation import checked_choice, checked_content, checked_text, storable_json

INPUT_MAX_BYTES = 64 * 1024
TEXT_MAX = 32_000
REASON_MAX = 300
REVIEWED_AT_ONCE = 200
# Ids of answers, such as `chatcmpl-…` and `classify-…`, end with the digits of their request's ID.
_ANSWER_ID = re.compile(r"[a-z]{1,20}[-_]([0-9a-f]{32})")
# As in the exports of the ledger's months.
_RECORD_DIGEST = "assay_record_digest(governance_usagerecord)"


ALLOWED_TRANSITIONS: dict[FeedbackState, frozenset[FeedbackState]] = {
    FeedbackState.PENDING: frozenset(
        {FeedbackState.ACCEPTED, FeedbackState.REJECTED, FeedbackState.ERASED}
    ),
    FeedbackState.ACCEPTED: frozenset({FeedbackState.REJECTED, FeedbackState.ERASED}),
    FeedbackState.REJECTED: frozenset({FeedbackState.ACCEPTED, FeedbackState.ERASED}),
    FeedbackState.ERASED: frozenset(),
}
FEEDBACK_STATES = StateMachine(model=Feedback, noun="feedback", table=ALLOWED_TRANSITIONS)


def feedback_resource(feedback: Feedback) -> Resource:
    """Return feedback as policy decisions see it."""
    return Resource(
        type="feedback",
        id=str(feedback.pk),
        department=feedback.department.slug,
        attributes={"task": feedback.task},
    )


def feedback_subject(feedback: Feedback) -> Subject:
    """Return the feedback as the audit log names it: by number and deployment, without content."""
    return Subject("feedback", str(feedback.pk), f"{feedback} on {feedback.deployment}")


@transaction.atomic
def feedback_create(
    *,
    actor: Principal,
    department: Department,
    sender: str,
    request_id: str,
    rating: str = "",
    input: Mapping[str, Any] | None = None,  # noqa: A002
    answer: str = "",
    correction: str = "",
    comment: str = "",
) -> tuple[Feedback, bool]:
    """Record feedback of `department` on one of its answered requests; return it, and true if it
    is new. Repeating the same feedback returns the recorded one.

    Args:
        department: The department that the credential pays for.
        sender: Public id of the credential.
        request_id: `x-request-id` of the answer, or the answer's own id.
        rating: `up`, `down`, or empty when there is a correction.
        input: Body of the request, repeated: Assay stores no prompts.
        answer: Answer that the model gave.
        correction: Right answer: a text, or a label.
        comment: A remark for the reviewer.

    Raises:
        InvalidInput: it has no rating or correction, a field is too long, or
            the input does not fit the endpoint that answered.
        NotFound: the ledger does not have this request of the department.
        NotPermitted: the policy forbids it.
        WrongState: other feedback was given on the request.
    """
    resource = department_resource("feedback", department)
    authorize(actor=actor, action=Action.FEEDBACK_CREATE, resource=resource)
    record, release = _answered(request_id, department)
    feedback = Feedback(
        request_id=record.request_id,
        department=department,
        deployment=record.deployment,
        endpoint=record.endpoint,
        task=release.version.model.task,
        release=release,
        version=release.version,
        version_name=str(release.version),
        rating=checked_choice(rating, ["", *Rating.values], field="rating"),
        input=_checked_input(input),
        answer=checked_content(answer, field="answer", limit=TEXT_MAX),
        correction=checked_content(correction, field="correction", limit=TEXT_MAX),
        comment=checked_text(comment, field="comment", limit=COMMENT_MAX, required=False),
        person_id=actor.person_id,
        sender=sender,
        answered_at=record.occurred_at,
        record_digest=record.digest,
    )
    _check_content(feedback)
    feedback.content_digest = _digest(feedback)
    stored = Feedback.objects.filter(request_id=record.request_id).first()
    if stored is None:
        defaults = {
            field.attname: getattr(feedback, field.attname)
            for field in Feedback._meta.concrete_fields
            if field.name not in ("id", "request_id", "created_at")
        }
        stored, created = Feedback.objects.get_or_create(
            request_id=record.request_id, defaults=defaults
        )
        if created:
            decision = authorize(
                actor=actor, action=Action.FEEDBACK_CREATE, resource=feedback_resource(stored)
            )
            audit_record(
                actor=actor,
                action=Action.FEEDBACK_CREATE,
                subject=feedback_subject(stored),
                department=department.slug,
                data={
                    "request": stored.request_id,
                    "release": release.pk,
                    "version": stored.version_name,
                    "rating": stored.rating,
                    "has_input": stored.input is not None,
                    "has_correction": bool(stored.correction),
                    "has_comment": bool(stored.comment),
                },
                decision=decision,
            )
            return stored, True
    if stored.content_digest != feedback.content_digest:
        raise WrongState(
            f"Feedback on {record.request_id} already exists with other content; it was not "
            "changed.",
            code="feedback_given",
            hint="There is one feedback for each request; its reviewer can correct the answer.",
        )
    return stored, False


def _answered(request_id: str, department: Department) -> tuple[Any, Release]:
    """Return the ledger's record of an answered request of the department, with its `digest`, and
    its release."""
    text = request_id if isinstance(request_id, str) else ""
    match = _ANSWER_ID.fullmatch(text[:64])
    record = None
    if match is not None:
        records = UsageRecord.objects.filter(
            request_id=f"req_{match[1]}", department=department.slug, outcome="ok"
        )
        record = records.annotate(digest=RawSQL(_RECORD_DIGEST, [])).first()  # noqa: S611
    if record is not None and record.release is not None:
        with lifted():
            release = (
                Release.objects.select_related("version__model").filter(pk=record.release).first()
            )
        if release is not None:
            return record, release
    raise NotFound(
        "There is no such answered request of your department.",
        code="request_not_found",
        hint="Send the answer's x-request-id. A request is on record some seconds after its "
        "answer.",
    )


def _checked_input(body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if body is None:
        return None
    if not isinstance(body, Mapping):
        raise InvalidInput(
            "The input is not a JSON object.", fields={"input": ["The body of the request."]}
        )
    try:
        size = len(canonical_json(body))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            "The input cannot be stored: it holds a number or text that JSON cannot express.",
            fields={"input": ["The body of the request, as JSON."]},
        ) from error
    if size > INPUT_MAX_BYTES:
        raise TooLarge(f"The input has {size:,} bytes; at most {INPUT_MAX_BYTES:,} are accepted.")
    if storable_json(body) != body:
        raise InvalidInput(
            "The input holds a NUL character.", fields={"input": ["Holds a NUL character."]}
        )
    return {name: value for name, value in body.items() if name != "model"}


def _check_content(feedback: Feedback) -> None:
    """Raise InvalidInput if the feedback is empty, or does not fit its task."""
    if not feedback.rating and not feedback.correction:
        raise InvalidInput(
            "The feedback is empty: give a rating or a correction.",
            fields={"rating": ["Up or down, or leave it out and send a correction."]},
        )
    task = TASKS.get(feedback.task)
    if feedback.input is None or task is None:
        return
    if task.feedback_row is None:
        raise InvalidInput(
            f"{task.title} makes no rows of feedback, so it takes no input.",
            code="feedback_unusable",
            hint="Send the rating and a comment.",
            fields={"input": ["Not taken for this task."]},
        )
    if answer := right_answer(feedback):
        row_of(feedback, answer)
    else:
        read_input(task, feedback)


def _digest(feedback: Feedback) -> str:
    return json_digest(
        [
            feedback.rating,
            feedback.input,
            feedback.answer,
            feedback.correction,
            feedback.comment,
        ]
    )


@transaction.atomic
def feedback_review(
    *,
    actor: Principal,
    feedback_ids: Sequence[int],
    accept: bool,
    correction: str = "",
) -> list[Feedback]:
    """Accept feedback, which freezes its dataset row, or reject it; all of it or none.

    `correction` is the reviewer's own right answer, for one piece of feedback.

    Raises:
        InvalidInput: none or more than 200 are named, or one makes no row.
        NotFound, NotPermitted: the policy refuses, or the actor sent one of them.
        WrongState: one is already in that state, or erased.
    """
    correction = checked_content(correction, field="correction", limit=TEXT_MAX)
    ids = sorted(set(feedback_ids))
    if not 1 <= len(ids) <= REVIEWED_AT_ONCE or (correction and len(ids) > 1):
        raise InvalidInput(
            f"Choose 1 to {REVIEWED_AT_ONCE} pieces of feedback; with a correction, one.",
            fields={"feedback": [f"Choose 1 to {REVIEWED_AT_ONCE}."]},
        )
    # Comes first: for a key of another department, the feedback does not exist.
    rows = _locked(actor, ids)
    person = acting_person(actor)
    return [_reviewed(actor, person, each, accept, correction) for each in rows]


def _locked(actor: Principal, ids: Sequence[int]) -> list[Feedback]:
    visible = feedback_visible_to(actor).filter(pk__in=ids).values("pk")
    rows = Feedback.objects.select_for_update(of=("self",)).select_related("department")
    feedback = list(rows.filter(pk__in=visible).order_by("pk"))
    if len(feedback) < len(ids):
        missing = sorted(set(ids) - {each.pk for each in feedback})
        raise NotFound(f"Feedback {missing[0]} does not exist, or you may not see it.")
    return feedback


def _reviewed(
    actor: Principal, person: Person, feedback: Feedback, accept: bool, correction: str
) -> Feedback:
    decision = authorize(
        actor=actor, action=Action.FEEDBACK_REVIEW, resource=feedback_resource(feedback)
    )
    if feedback.person_id is not None and person.pk in with_sign_in_admins({feedback.person_id}):
        raise NotPermitted(
            f"{person.name} sent {feedback}, or set up the account that did; another person must "
            "review it.",
            code="own_feedback",
        )
    sent = right_answer(feedback)
    state = FeedbackState.ACCEPTED if accept else FeedbackState.REJECTED
    FEEDBACK_STATES.require(feedback, state)
    feedback.row = row_of(feedback, correction or sent) if accept else None
    feedback.reviewed_by, feedback.reviewed_at = person, timezone.now()
    FEEDBACK_STATES.move(
        feedback,
        state,
        fields=["row", "reviewed_by", "reviewed_at"],
        actor=actor,
        action=Action.FEEDBACK_REVIEW,
        subject=feedback_subject(feedback),
        department=feedback.department.slug,
        data={
            "corrected": bool(correction) and correction != sent,
            **({} if feedback.row is None else {"row_digest": json_digest(feedback.row)}),
        },
        decision=decision,
    )
    return feedback


@transaction.atomic
def feedback_erase(*, actor: Principal, feedback_id: int, reason: str) -> Feedback:
    """Erase the content of feedback for good; its record stays without it. Rows in dataset
    versions stay, since versions are immutable.

    Raises:
        InvalidInput: no reason.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is erased already.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    (feedback,) = _locked(actor, [feedback_id])
    decision = authorize(
        actor=actor, action=Action.FEEDBACK_ERASE, resource=feedback_resource(feedback)
    )
    FEEDBACK_STATES.set_state(feedback, FeedbackState.ERASED)
    _forget(feedback)
    audit_record(
        actor=actor,
        action=Action.FEEDBACK_ERASE,
        subject=feedback_subject(feedback),
        reason=reason,
        department=feedback.department.slug,
        data={"dataset_versions": [str(each) for each in feedback.dataset_versions.all()[:100]]},
        decision=decision,
    )
    return feedback


def _forget(feedback: Feedback) -> None:
    feedback.input = feedback.row = None
    feedback.answer = feedback.correction = feedback.comment = feedback.content_digest = ""
    feedback.erased_at = timezone.now()
    feedback.save()


def feedback_forget_person(person: Person) -> dict[str, int]:
    """Erase the content of all feedback that an erased person sent; return how many there were."""
    rows = Feedback.objects.select_for_update().filter(person=person)
    sent = list(rows.exclude(state=FeedbackState.ERASED))
    for feedback in sent:
        FEEDBACK_STATES.set_state(feedback, FeedbackState.ERASED)
        _forget(feedback)
    return {"feedback": len(sent)}
