"""Reads of the request log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from governance.errors import InvalidInput, NotFound
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.request_log.keys import keys_of
from governance.request_log.models import (
    LoggedRequest,
    LogMode,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)
from governance.request_log.schemas import RequestFilter
from governance.schemas import parsed
from governance.usage.models import UsageRecord
from governance.usage.records import JOBS

PAGE_SIZE = 25
DAYS_SHOWN = 7
_CURSOR_MAX = 60


@dataclass(frozen=True, slots=True)
class RequestPage:
    """A page of requests, the newest first. `older` is the cursor of the next page, empty on the
    last."""

    rows: Sequence[UsageRecord]
    older: str


def request_resource(record: UsageRecord) -> Resource:
    """Return a logged request as a resource of policy decisions."""
    return Resource(
        type="request_log",
        id=record.request_id,
        name=record.request_id,
        department=record.department,
        attributes={"deployment": record.deployment},
    )


def log_resource(department: Department) -> Resource:
    """Return a department's request log as a resource of policy decisions."""
    return Resource(type="request_log", department=department.slug)


def policy_of(department: Department) -> RequestLogPolicy:
    """Return what a department logs; an unsaved row with the defaults if it was never set."""
    row = RequestLogPolicy.objects.filter(department=department).first()
    return RequestLogPolicy(department=department) if row is None else row


def log_days(department: Department) -> list[RequestLogDay]:
    """Return the amounts of the last days on which content was logged or dropped."""
    return list(RequestLogDay.objects.filter(department=department)[:DAYS_SHOWN])


def log_keys(department: Department) -> list[RequestLogKey]:
    """Return the department's keys, the newest first, without their secrets."""
    rows = RequestLogKey.objects.filter(department=department).defer("wrapped")
    return list(rows.order_by("-number")[:20])


def requests_visible_to(actor: Principal) -> QuerySet[UsageRecord]:
    """Return the requests that `actor` may see, the newest first, without jobs and without those of
    departments whose log is off."""
    off = RequestLogPolicy.objects.filter(mode=LogMode.OFF).values_list("department__slug")
    slugs = [slug for (slug,) in off]
    rows = UsageRecord.objects.exclude(endpoint__startswith=JOBS).order_by("-occurred_at", "-id")
    if slugs:
        rows = rows.exclude(department__in=slugs)
    return visible_to(actor, Action.REQUEST_LOG_VIEW, rows, resource_type="request_log")


def requests_matching(actor: Principal, query: RequestFilter) -> QuerySet[UsageRecord]:
    """Return the visible requests that match all filters, the newest first."""
    rows = query.applied(requests_visible_to(actor))
    return rows if query.user is None else rows.filter(_of_user(actor, query))


def _of_user(actor: Principal, query: RequestFilter) -> Q:
    """Return the requests of an end user: only pseudonyms are stored, one for each key."""
    slugs = actor.departments if query.department is None else {query.department}
    ids = list(Department.objects.filter(slug__in=slugs).values_list("pk", flat=True))
    keys = keys_of(ids)
    if not keys:
        return Q(pk__in=[])
    logged = LoggedRequest.objects.filter(
        department__in=ids,
        user_tag__in=[key.tag(query.user or "") for key in keys],
        request_id=OuterRef("request_id"),
        occurred_at=OuterRef("occurred_at"),
    )
    return Q(Exists(logged))


def requests_page(
    rows: QuerySet[UsageRecord], *, before: str = "", size: int = PAGE_SIZE
) -> RequestPage:
    """Return the page of requests that follows the cursor `before`; the first page without one.

    Raises:
        InvalidInput: `before` is not a cursor.
    """
    if before:
        at, number = _position(before)
        # The first condition alone lets an index begin there.
        rows = rows.filter(occurred_at__lte=at).filter(
            Q(occurred_at__lt=at) | Q(occurred_at=at, pk__lt=number)
        )
    found = list(rows[: size + 1])
    more, page = len(found) > size, found[:size]
    return RequestPage(page, cursor_of(page[-1]) if more else "")


def cursor_of(record: UsageRecord) -> str:
    """Return the cursor of the requests that are older than this one."""
    return f"{record.occurred_at.isoformat()}~{record.pk}"


def _position(cursor: str) -> tuple[datetime, int]:
    at, _, number = cursor[:_CURSOR_MAX].partition("~")
    if number.isascii() and number.isdecimal() and len(number) <= 18:
        try:
            moment = parsed(RequestFilter, {"until": at}).until
        except InvalidInput:
            moment = None
        if moment is not None:
            return moment, int(number)
    raise InvalidInput(
        "The cursor is not valid.",
        hint="Use the one of the page before, unchanged, or none for the first page.",
        fields={"before": ["Not a cursor of this list."]},
    )


def request_get(*, actor: Principal, request_id: str) -> UsageRecord:
    """Return a request.

    Raises:
        NotFound: it does not exist, is not recorded yet, or `actor` may not see it.
    """
    # PostgreSQL rejects NUL even in comparisons.
    rows = requests_visible_to(actor)
    record = None if "\0" in request_id else rows.filter(request_id=request_id[:64]).first()
    if record is None:
        raise NotFound(
            f"There is no request {request_id[:64]!r} that you may see.",
            hint="A request shows a few seconds after its answer.",
        )
    return record


def logged_of(record: UsageRecord) -> LoggedRequest | None:
    """Return the encrypted content of a request that the caller may see, or None."""
    rows = LoggedRequest.objects.filter(
        request_id=record.request_id,
        occurred_at=record.occurred_at,
        department__slug=record.department,
    )
    return rows.select_related("key").first()


def logged_sizes(records: Sequence[UsageRecord]) -> dict[str, dict[str, Any]]:
    """Return `size` and `cut` of the content of these requests, by their ID."""
    if not records:
        return {}
    times = [record.occurred_at for record in records]
    rows = LoggedRequest.objects.filter(
        request_id__in=[record.request_id for record in records],
        occurred_at__gte=min(times),
        occurred_at__lte=max(times),
    )
    return {
        row["request_id"]: row for row in rows.order_by("pk").values("request_id", "size", "cut")
    }
