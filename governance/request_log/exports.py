"""Export of requests as JSON Lines, bounded and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import transaction

from governance.audit.services import Subject, audit_record
from governance.people.proof import proof_facts
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.request_log.content import unpacked
from governance.request_log.keys import ContentUnreadable, key_of
from governance.request_log.models import LoggedRequest
from governance.request_log.schemas import RequestExport
from governance.request_log.selectors import log_resource, requests_page
from governance.request_log.services import content_authorize
from governance.rowsecurity import scope
from governance.usage.models import UsageRecord

# Requests that are read at once; with content, up to 256 KiB each.
_AT_ONCE = 100
FACTS = (
    *("request_id", "department", "key_public_id", "deployment", "release", "version_digest"),
    *("endpoint", "outcome", "streamed", "prompt_tokens", "completion_tokens", "unit", "units"),
    *("admit_ms", "load_ms", "retry_ms", "queue_ms", "connect_ms", "first_token_ms"),
    *("total_ms", "settle_ms", "device_ms", "cost_micro"),
)


@transaction.atomic
def requests_export(*, actor: Principal, export: RequestExport) -> Iterator[str]:
    """Return the lines of an export of one department's requests. The export is an event of this
    transaction; the lines are read later, each page in a transaction of its own.

    Raises:
        NotFound, NotPermitted, ProofRequired: the policy denies it, or the department requires a
            fresh second factor for content.
    """
    department = department_get(slug=export.department, actor=actor)
    resource, action = log_resource(department), Action.REQUEST_LOG_VIEW
    decision = authorize(actor=actor, action=action, resource=resource)
    if export.content:
        action = Action.REQUEST_LOG_READ_CONTENT
        decision = content_authorize(actor, resource, department)
    filters = export.filters.model_dump(mode="json", exclude_none=True)
    audit_record(
        actor=actor,
        action="request_log:export",
        subject=Subject("department", department.slug, department.name),
        department=department.slug,
        reason=export.reason,
        data={
            "filters": filters,
            "by_user": export.filters.user is not None,
            "content": export.content,
            "limit": export.limit,
            **proof_facts(actor.proof),
        },
        decision=decision,
    )
    return _lines(actor, export)


def _lines(actor: Principal, export: RequestExport) -> Iterator[str]:
    query = export.filters.model_copy(update={"department": export.department})
    before, left = "", export.limit
    while left > 0:
        with scope(actor, reads=True):
            page = requests_page(actor, query, before=before, size=min(left, _AT_ONCE))
            content = _content(page.rows) if export.content else {}
        for record in page.rows:
            yield json.dumps(_line(record, export, content), ensure_ascii=False)
        before, left = page.older, left - len(page.rows)
        if not before:
            return


def _line(
    record: UsageRecord, export: RequestExport, content: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    line = {name: getattr(record, name) for name in FACTS}
    line["occurred_at"] = record.occurred_at.isoformat()
    return {**line, "content": content.get(record.request_id)} if export.content else line


def _content(records: Sequence[UsageRecord]) -> dict[str, dict[str, Any]]:
    """Return content by request ID, without requests whose content cannot be read."""
    if not records:
        return {}
    times = [record.occurred_at for record in records]
    rows = LoggedRequest.objects.filter(
        request_id__in=[record.request_id for record in records],
        department__slug=records[0].department,
        occurred_at__gte=min(times),
        occurred_at__lte=max(times),
    )
    contents: dict[str, dict[str, Any]] = {}
    for row in rows.select_related("key").order_by("pk"):
        try:
            plain = key_of(row.key).opened(row.request_id, bytes(row.content))
        except ContentUnreadable:
            continue
        contents[row.request_id] = {**unpacked(plain), "cut": row.cut}
    return contents
