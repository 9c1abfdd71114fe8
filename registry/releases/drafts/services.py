"""Save, change, submit and delete drafts of release requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.database.locks import lock
from governance.errors import InvalidInput, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from registry.canonical import json_digest
from registry.releases.drafts.content import checked_draft
from registry.releases.drafts.models import DRAFTS_MAX, RETENTION_DAYS, ReleaseDraft
from registry.releases.drafts.selectors import release_draft_get
from registry.releases.models import Release, Visibility
from registry.releases.services import release_submit
from registry.releases.serving import check_trusted
from registry.resources import acting_person, department_resource, model_resource
from registry.versions.models import ModelVersion

_EXPIRED_AT_ONCE = 500
# Required for a request, apart from its risk answers.
_NEEDED = ("environment", "deployment_name", "departments", "purpose")


def draft_subject(draft: ReleaseDraft) -> Subject:
    """Return the draft as the audit log names it."""
    return Subject(type="release_draft", id=str(draft.pk), name=f"a draft for {draft.version}")


@transaction.atomic
def release_draft_create(
    *,
    actor: Principal,
    version: ModelVersion,
    content: Mapping[str, Any],
    job_id: UUID | None = None,
) -> ReleaseDraft:
    """Save a draft of a request to release `version`. `job_id` is the job that led to it.

    Raises:
        InvalidInput: `content` is malformed or too large.
        NotFound, NotPermitted: the policy refuses an action that submitting needs.
        WrongState: the version is not trusted, or the department has too many drafts.
    """
    owner = version.model.department
    authorize(actor=actor, action=Action.MODEL_VIEW, resource=model_resource(version.model))
    decision = _authorized(actor, owner)
    person = acting_person(actor)
    checked = checked_draft(content)
    check_trusted(version, "released")
    # Prevents two concurrent requests from both taking the last place.
    lock(f"release-drafts:{owner.pk}")
    if ReleaseDraft.objects.filter(department=owner).count() >= DRAFTS_MAX:
        raise WrongState(
            f"{owner.name} has {DRAFTS_MAX} release drafts; another was not saved.",
            hint="Submit or delete one first.",
        )
    draft = ReleaseDraft.objects.create(
        version=version, department=owner, content=checked, created_by=person, job_id=job_id
    )
    _record(
        draft, actor, "release_draft:create", decision, **({"job": str(job_id)} if job_id else {})
    )
    return draft


@transaction.atomic
def release_draft_update(
    *, actor: Principal, draft_id: int, content: Mapping[str, Any], revision: int | None = None
) -> ReleaseDraft:
    """Replace a draft's content. With `revision`, only if it is still the draft's newest.

    Raises:
        InvalidInput: `content` is malformed or too large.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it was changed since `revision`.
    """
    draft, decision = _locked(actor, draft_id, revision)
    draft.content = checked_draft(content)
    draft.revision += 1
    draft.updated_at = timezone.now()
    draft.save(update_fields=["content", "revision", "updated_at"])
    _record(draft, actor, "release_draft:update", decision)
    return draft


@transaction.atomic
def release_draft_delete(*, actor: Principal, draft_id: int) -> None:
    """Delete a draft.

    Raises:
        NotFound, NotPermitted: the policy refuses.
    """
    draft, decision = _locked(actor, draft_id)
    _record(draft, actor, "release_draft:delete", decision)
    draft.delete()


@transaction.atomic
def release_draft_submit(
    *,
    actor: Principal,
    draft_id: int,
    content: Mapping[str, Any] | None = None,
    revision: int | None = None,
) -> Release:
    """Submit the request in the draft, or in `content` instead, and delete the draft.

    With `revision`, only if it is still the draft's newest. `release_submit` checks everything; on
    an error the draft stays.

    Raises:
        InvalidInput: a required part is missing.
        WrongState: it was changed since `revision`.
        DomainError: as `release_submit`.
    """
    draft, decision = _locked(actor, draft_id, revision)
    request = draft.content if content is None else checked_draft(content)
    if missing := [name for name in _NEEDED if not request.get(name)]:
        raise InvalidInput(
            f"Release draft {draft.pk} lacks {', '.join(missing).replace('_', ' ')}; it was not "
            "submitted.",
            hint="Complete the draft, then submit it.",
            fields={name: ["This field is required."] for name in missing},
        )
    release = release_submit(
        actor=actor,
        version=draft.version,
        environment=request["environment"],
        deployment_name=request["deployment_name"],
        departments=list(Department.objects.filter(slug__in=request["departments"])),
        visibility=request.get("visibility", str(Visibility.DEPARTMENT)),
        purpose=request["purpose"],
        risk_answers={"intended_purpose": request["purpose"], **request.get("risk_answers", {})},
        dossier_fields=request.get("dossier_fields"),
        tier=request.get("tier", "limited"),
        engine=request.get("engine"),
        precision=request.get("precision"),
    )
    # The event has the digest of the submitted content.
    draft.content = dict(request)
    _record(draft, actor, "release_draft:submit", decision, release=release.pk)
    draft.delete()
    return release


def release_drafts_expire_due() -> int:
    """Delete drafts that were not changed for `RETENTION_DAYS` days; return the number. For the
    controller.
    """
    controller = service_principal("controller")
    before = timezone.now() - timedelta(days=RETENTION_DAYS)
    with transaction.atomic(), background("release-drafts", controller):
        rows = ReleaseDraft.objects.select_for_update(of=("self",), skip_locked=True)
        due = rows.select_related("version__model", "department").filter(updated_at__lte=before)
        expired = list(due.order_by("updated_at")[:_EXPIRED_AT_ONCE])
        for draft in expired:
            _record(draft, controller, "release_draft:expire", None)
            draft.delete()
    return len(expired)


def _authorized(actor: Principal, department: Department) -> Authorization:
    return authorize(
        actor=actor,
        action=Action.RELEASE_SUBMIT,
        resource=department_resource("release", department),
    )


def _locked(
    actor: Principal, draft_id: int, revision: int | None = None
) -> tuple[ReleaseDraft, Authorization]:
    visible = release_draft_get(actor=actor, id=draft_id)
    decision = _authorized(actor, visible.department)
    ReleaseDraft.objects.select_for_update().filter(pk=visible.pk).first()
    # Read again under the lock: another person may have changed or deleted it.
    draft = release_draft_get(actor=actor, id=draft_id)
    if revision is not None and revision != draft.revision:
        raise WrongState(
            f"Release draft {draft.pk} was changed since you opened it; your changes were not "
            "saved.",
            code="draft_changed",
            hint="Open it again and repeat your changes.",
        )
    return draft, decision


def _record(
    draft: ReleaseDraft, actor: Principal, action: str, decision: Authorization | None, **more: Any
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=draft_subject(draft),
        department=draft.department.slug,
        # Only a digest: the log does not store statements of people.
        data={
            "version": draft.version.digest,
            "content": json_digest(draft.content),
            "revision": draft.revision,
            **more,
        },
        decision=decision,
    )
