"""Requests under one release, for the readers whom its conditions permit.

Approvers can let reviewers for compliance read logged content (`reviewers_read_content`). It opens
requests of the release's own department alone: other departments that use the deployment were no
part of the approval. Requests from before the approval, under emergency access, stay closed.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from governance.errors import NotFound
from governance.people.credentials import with_sign_in_admins
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from governance.request_log.models import LogMode
from governance.request_log.schemas import RequestFilter
from governance.request_log.selectors import (
    PAGE_SIZE,
    RequestPage,
    policy_of,
    request_resource,
    requests_page,
)
from governance.request_log.services import content_reveal
from governance.rowsecurity import lifted
from governance.usage.models import UsageRecord
from governance.usage.records import JOBS
from registry.releases.conditions import Conditions, requested_conditions
from registry.releases.models import Release
from registry.releases.selectors import release_get, release_review

# Value of the attribute `content_readers`, which policies compare.
REVIEWERS = "reviewers"


def log_resource_of(release: Release, actor: Principal) -> Resource:
    """Return the requests under a release as a resource of policy decisions about `actor`."""
    return Resource(
        type="request_log",
        department=release.department.slug,
        attributes={
            "deployment": release.deployment_name,
            "content_readers": content_readers(release, actor),
        },
    )


@lifted()
def content_readers(release: Release, actor: Principal) -> str:
    """Return `reviewers` if the release's conditions let them read content; otherwise empty.

    It is empty, too, for the only approver who set the condition, so that two people always take
    part. A person who alone set up that approver's account counts as the approver.
    """
    if not Conditions.from_json(release.conditions).reviewers_read_content:
        return ""
    review = release_review(release)
    approvals = [] if review is None else requested_conditions(review)
    people = {vote.person_id for vote, each in approvals if each.reviewers_read_content}
    alone = all(actor.person_id in with_sign_in_admins({person}) for person in people)
    return "" if alone else REVIEWERS


def release_requests_page(
    *, actor: Principal, release_id: int, before: str = "", size: int = PAGE_SIZE
) -> RequestPage:
    """Return a page of the requests under a release, as `requests_page`.

    Raises:
        InvalidInput: `before` is not a cursor.
        NotFound, NotPermitted: `actor` may not see the release, or its requests.
    """
    release = _release(actor, release_id)
    query = RequestFilter(
        department=release.department.slug,
        deployment=release.deployment_name,
        release=release.pk,
    )
    return requests_page(actor, query, before=before, size=size, of=_requests(release))


def release_request_get(*, actor: Principal, release_id: int, request_id: str) -> UsageRecord:
    """Return a request under a release.

    Raises:
        NotFound, NotPermitted: it does not exist, or `actor` may not see it.
    """
    return _request(_release(actor, release_id), request_id)


@transaction.atomic
def release_request_content_read(
    *, actor: Principal, release_id: int, request_id: str, reason: str
) -> tuple[UsageRecord, dict[str, Any]]:
    """Return a request under a release with its content. The reading is an audit event of the same
    transaction, and always takes a fresh second factor.

    Raises:
        NotFound, ContentUnreadable: as `request_content_read`.
        NotPermitted, ProofRequired: the policy denies it, above all without the condition; or it
            requires a fresh second factor.
    """
    release = _release(actor, release_id)
    record = _request(release, request_id)
    decision = authorize_binding(
        actor=actor,
        action=Action.REQUEST_LOG_READ_CONTENT,
        resource=request_resource(record, content_readers(release, actor)),
        doing="reading content of requests",
    )
    return record, content_reveal(actor, record, reason, decision, release=release.pk)


def _release(actor: Principal, release_id: int) -> Release:
    release = release_get(actor=actor, id=release_id)
    resource = log_resource_of(release, actor)
    authorize(actor=actor, action=Action.REQUEST_LOG_VIEW, resource=resource)
    return release


def _requests(release: Release) -> QuerySet[UsageRecord]:
    rows = UsageRecord.objects.order_by("-occurred_at", "-id")
    if release.approved_at is not None:
        rows = rows.filter(occurred_at__gte=release.approved_at)
    off = policy_of(release.department).mode == LogMode.OFF
    return rows.none() if off else rows


def _request(release: Release, request_id: str) -> UsageRecord:
    # PostgreSQL rejects NUL even in comparisons.
    rows = _requests(release).filter(department=release.department.slug, release=release.pk)
    record = None if "\0" in request_id else rows.filter(request_id=request_id[:64]).first()
    if record is None or record.endpoint.startswith(JOBS):
        raise NotFound(f"Release {release.pk} has no such request of its department.")
    return record
