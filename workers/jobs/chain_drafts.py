"""The release draft at the end of a chain, made when every job before it has succeeded.

The draft requests no release: a person answers the questions about risk and submits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Unavailable,
)
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from registry.releases.drafts.content import checked_draft
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.drafts.services import release_draft_create
from registry.resources import department_resource
from registry.versions.models import Model, ModelVersion
from workers.jobs.models import ChainDraft, ChainDraftState, Job, JobState
from workers.jobs.states import job_subject

CONTROLLER = service_principal("controller")
PARTS = ("environment", "departments", "deployment_name")


def chain_draft_checked(
    actor: Principal, model: Model, release: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the initial content of a chain's release draft.

    Raises:
        InvalidInput: `release` has no environment, has parts other than `PARTS`, or is malformed.
        NotPermitted: the actor may not submit releases of the model.
    """
    authorize(
        actor=actor,
        action=Action.RELEASE_SUBMIT,
        resource=department_resource("release", model.department),
    )
    unknown = [name for name in release if name not in PARTS]
    if unknown or not release.get("environment"):
        sentence = f"A release draft needs an environment. It takes {', '.join(PARTS)} only."
        raise InvalidInput(sentence, fields={"release": [sentence]})
    defaults = {"departments": [model.department.slug], "deployment_name": model.name}
    return checked_draft({**defaults, **{name: value for name, value in release.items() if value}})


def chain_draft_add(first: Job, content: dict[str, Any], *, after: Job | None) -> ChainDraft:
    """Add a release draft to the end of the chain of `first`; `after` is its last job, if known."""
    return ChainDraft.objects.create(first=first, content=content, after=after)


@transaction.atomic
def chain_draft_advance(key: int) -> None:
    """Create the draft if the job before it succeeded; stop it if that job ended otherwise."""
    row = (
        ChainDraft.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("first__created_by", "first__department", "after")
        .filter(pk=key, state=ChainDraftState.WAITING)
        .first()
    )
    if row is None or row.after is None:
        return
    if row.after.state != JobState.SUCCEEDED:
        reason = f"{row.after.title} ended as {row.after.state}."
        chain_draft_stop(row.first, reason)
        record_stop(row.first, reason)
        return
    try:
        draft = _make(row)
    except Unavailable:
        raise
    except DomainError as error:
        chain_draft_stop(row.first, refusal_reason(error))
        record_stop(row.first, refusal_reason(error))
        return
    row.state, row.draft_id, row.decided_at = ChainDraftState.MADE, draft.pk, timezone.now()
    row.save(update_fields=["state", "draft_id", "decided_at"])


@transaction.atomic
def _make(row: ChainDraft) -> ReleaseDraft:
    made = int((row.first.result or {})["version"])
    return release_draft_create(
        actor=principal_for_person(row.first.created_by),
        version=ModelVersion.objects.select_related("model__department").get(pk=made),
        content=row.content,
        job_id=row.after_id,
    )


def chain_draft_stop(first: Job, reason: str) -> None:
    """Stop the chain's waiting draft, if any; it is never created."""
    ChainDraft.objects.filter(first=first, state=ChainDraftState.WAITING).update(
        state=ChainDraftState.STOPPED, reason=reason[:500], decided_at=timezone.now()
    )


def refusal_reason(error: DomainError) -> str:
    """Return the reason of a refused step, without personal names: audit events are permanent."""
    if isinstance(error, (NotAuthenticated, NotFound, NotPermitted)):
        return "The person who requested it may not start it now, or may not see what it needs."
    return f"It cannot start now: {error.message}"


def record_stop(first: Job, reason: str, **data: Any) -> None:
    """Record that the remaining steps of a chain will not start."""
    with background(f"job-{first.pk}", CONTROLLER):
        audit_record(
            actor=CONTROLLER,
            action="job:stop_chain",
            subject=job_subject(first),
            outcome="failed",
            reason=reason[:500],
            department=first.department.slug,
            data=data or {"step": "release draft"},
        )
