"""Reads of the request log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet

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
from governance.usage.records import ATTEMPTS_MAX, FAILED, JOBS

PAGE_SIZE = 25
DAYS_SHOWN = 7
# Filters without an index search up to SEARCH_STEPS times SEARCHED requests for at most SEARCH_S
# seconds. A search for an end user looks at USER_SEARCHED requests.
SEARCHED, SEARCH_STEPS, SEARCH_S = 2_000, 10, 0.05
USER_SEARCHED = 300
_INDEXED = frozenset({"department", "deployment", "key", "since", "until"})
_LONGEST = timedelta(hours=1)
_CURSOR_MAX, _ID_MAX = 60, 10**18 - 1


@dataclass(frozen=True, slots=True)
class RequestPage:
    """A page of requests, the newest first. `older` is the cursor of the next page, empty on the
    last. `searched_to` is set if the page ended because it searched enough requests."""

    rows: Sequence[UsageRecord]
    older: str
    searched_to: datetime | None = None


def request_resource(record: UsageRecord, content_readers: str = "") -> Resource:
    """Return a logged request as a resource of policy decisions. `content_readers` are `reviewers`
    if the request is read under a release with that condition."""
    return Resource(
        type="request_log",
        id=record.request_id,
        name=record.request_id,
        department=record.department,
        attributes={"deployment": record.deployment, "content_readers": content_readers},
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
    """Return the records that `actor` may see in the request log, the newest first, without those
    of departments whose log is off."""
    off = RequestLogPolicy.objects.filter(mode=LogMode.OFF).values_list("department__slug")
    slugs = [slug for (slug,) in off]
    rows = UsageRecord.objects.order_by("-occurred_at", "-id")
    if slugs:
        rows = rows.exclude(department__in=slugs)
    return visible_to(actor, Action.REQUEST_LOG_VIEW, rows, resource_type="request_log")


def requests_page(
    actor: Principal,
    query: RequestFilter,
    *,
    before: str = "",
    size: int = PAGE_SIZE,
    of: QuerySet[UsageRecord] | None = None,
) -> RequestPage:
    """Return the page of matching requests that follows the cursor `before`; the first page without
    one. Instead of all requests that `actor` may see, `of` are those that another decision permits.

    Filters without an index are applied to a bounded number of requests, so that a page whose
    filters match few requests takes no longer than others. It may then have fewer rows, or none.

    Raises:
        InvalidInput: `before` is not a cursor.
    """
    rows = requests_visible_to(actor) if of is None else of
    rows = rows.filter(**_conditions(query, indexed=True))
    follows = Q()
    if before:
        at, number = _position(before)
        # The index has no ID, so the ID only filters rows of the same time.
        rows = rows.filter(occurred_at__lte=at)
        follows = Q(occurred_at__lt=at) | Q(occurred_at=at, pk__lt=number)
    others, edge = _conditions(query, indexed=False), None
    matches = follows & Q(**others) & ~Q(endpoint__startswith=JOBS)
    if query.user is not None:
        rows, edge = _of_user(actor, query, rows, before)
        records = list(rows.filter(matches)[: size + 1])
    elif others:
        records, edge = _searched(rows, matches, size + 1)
    else:
        records = list(rows.filter(matches)[: size + 1])
    if len(records) > size:
        last = records[size - 1]
        return RequestPage(records[:size], _cursor(last.occurred_at, last.pk))
    return RequestPage(records, "" if edge is None else _cursor(edge, _ID_MAX), edge)


def _searched(
    rows: QuerySet[UsageRecord], matches: Q, most: int
) -> tuple[list[UsageRecord], datetime | None]:
    """Return up to `most` matching rows among the next ones, and the time back to which they were
    searched; None if all were searched."""
    records: list[UsageRecord] = []
    edge, until = None, time.monotonic() + SEARCH_S
    with _near_pages():
        for _ in range(SEARCH_STEPS):
            rows = rows if edge is None else rows.filter(occurred_at__lte=edge)
            times = rows.order_by("-occurred_at").values_list("occurred_at", flat=True)
            edge = next(iter(times[SEARCHED : SEARCHED + 1]), None)
            part = rows if edge is None else rows.filter(occurred_at__gt=edge)
            records += part.filter(matches)[: most - len(records)]
            if edge is None or len(records) == most or time.monotonic() > until:
                break
    return records, edge


@contextmanager
def _near_pages() -> Iterator[None]:
    """Make the planner read a department's rows by the department's index.

    Rows lie in the order of their times, which the planner knows only of the index on the time
    alone. It takes the rows that another index finds for scattered, and would rather read those of
    all departments.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('random_page_cost', '0.1', true)")
        yield
        cursor.execute("SET LOCAL random_page_cost TO DEFAULT")


def _conditions(query: RequestFilter, *, indexed: bool) -> dict[str, Any]:
    """Return the conditions that an index finds, or the others."""
    names = _INDEXED if indexed else RequestFilter.model_fields.keys() - _INDEXED
    return query.model_dump(by_alias=True, exclude_none=True, include=set(names))


def _of_user(
    actor: Principal, query: RequestFilter, rows: QuerySet[UsageRecord], before: str
) -> tuple[QuerySet[UsageRecord], datetime | None]:
    """Return the rows that are among the next requests of an end user, and the time back to which
    they were searched; None if all were searched. Only pseudonyms are stored, one for each key."""
    slugs = actor.departments if query.department is None else {query.department}
    ids = list(Department.objects.filter(slug__in=slugs).values_list("pk", flat=True))
    tags = [key.tag(query.user or "") for key in keys_of(ids)]
    logged = LoggedRequest.objects.filter(department__in=ids, user_tag__in=tags)
    if before:
        logged = logged.filter(occurred_at__lte=_position(before)[0])
    if query.since is not None:
        logged = logged.filter(occurred_at__gte=query.since)
    if query.until is not None:
        logged = logged.filter(occurred_at__lt=query.until)
    newest = logged.order_by("-occurred_at").values_list("request_id", "occurred_at")
    places = list(newest[: USER_SEARCHED + 1])
    edge = places[-1][1] if len(places) > USER_SEARCHED else None
    if not places:
        return rows.none(), None
    rows = rows.filter(
        request_id__in=[name for name, _ in places],
        occurred_at__gte=places[-1][1],
        occurred_at__lte=places[0][1],
    )
    return (rows if edge is None else rows.filter(occurred_at__gt=edge)), edge


def _cursor(at: datetime, number: int) -> str:
    return f"{at.isoformat()}~{number}"


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
        hint="Use the cursor of the previous page unchanged, or no cursor for the first page.",
        fields={"cursor": ["Not a cursor of this list."]},
    )


def request_get(*, actor: Principal, request_id: str) -> UsageRecord:
    """Return a request.

    Raises:
        NotFound: it does not exist, is not recorded yet, or `actor` may not see it.
    """
    # PostgreSQL rejects NUL even in comparisons.
    rows = requests_visible_to(actor)
    record = None if "\0" in request_id else rows.filter(request_id=request_id[:64]).first()
    if record is None or record.endpoint.startswith(JOBS):
        raise NotFound(
            "The request does not exist, or you may not see it.",
            hint="A request shows a few seconds after its answer.",
        )
    return record


def failed_attempts(record: UsageRecord) -> list[UsageRecord]:
    """Return the records of targets that failed before another one answered the request, in their
    order, for a request that the caller may see."""
    if record.retry_ms is None:
        return []
    names = [f"{record.request_id}{FAILED}"]
    names += [f"{record.request_id}.{number}{FAILED}" for number in range(1, ATTEMPTS_MAX)]
    rows = UsageRecord.objects.filter(
        request_id__in=names,
        department=record.department,
        # Each reservation of a request sets its time again.
        occurred_at__gte=record.occurred_at - _LONGEST,
        occurred_at__lte=record.occurred_at,
    )
    return sorted(rows, key=lambda row: row.total_ms)


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
    values = rows.order_by("pk").values_list("request_id", "size", "cut")
    return {name: {"size": size, "cut": cut} for name, size, cut in values}
