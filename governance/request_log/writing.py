"""Write content of requests. Web processes call this after their answers, in a thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Max

from governance.database.locks import lock_shared
from governance.people.models import Department
from governance.request_log.content import packed
from governance.request_log.keys import DepartmentKey, department_keys, has_wrapping_key
from governance.request_log.models import (
    ForgottenUser,
    LoggedRequest,
    LogMode,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)

# Web processes drop content of requests that began earlier and is not written yet.
UNWRITTEN_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """Content of one request. `user` is the ID of the end user, `person` sent it in the playground.
    `occurred_at` is in seconds since the epoch, as in the ledger."""

    department: str
    request_id: str
    occurred_at: float
    content: dict[str, Any]
    user: str = ""
    person: int | None = None


@dataclass(frozen=True, slots=True)
class _Log:
    """A department's log during one write.

    Without a `key` that this process can read, all content is dropped. Content of requests that
    began at `erased_until` or earlier is not written: the department erased it.
    """

    policy: RequestLogPolicy
    key: DepartmentKey | None
    forgotten: Mapping[bytes, datetime]
    erased_until: datetime

    def erased(self, tag: bytes, at: datetime) -> bool:
        """Return whether the content of a request was erased before it was written."""
        return at <= max(self.erased_until, self.forgotten.get(tag, self.erased_until))


def log_name(department_id: int) -> str:
    """Return the name of the lock of a department's log: shared by writers, exclusive for changes
    of its policy and keys and for erasures."""
    return f"request-log:{department_id}"


def departments_logged_in_full() -> frozenset[str]:
    """Return the slugs of departments whose content this process can log."""
    if not has_wrapping_key():
        return frozenset()
    rows = RequestLogPolicy.objects.filter(mode=LogMode.FULL)
    return frozenset(rows.values_list("department__slug", flat=True))


@transaction.atomic
def entries_write(entries: Sequence[Entry], dropped: Mapping[str, int]) -> int:
    """Write content of departments that log in full now, as far as the day has room; return the
    number of written entries.

    `dropped` is the number of requests of each department whose content a process had no room for.
    """
    slugs = {entry.department for entry in entries} | dropped.keys()
    ids = dict(Department.objects.filter(slug__in=slugs).values_list("slug", "pk"))
    logs = _logs(sorted(ids.values()))
    today, groups = datetime.now(UTC).date(), defaultdict[tuple[int, date], list[Entry]](list)
    for entry in entries:
        groups[ids.get(entry.department, 0), _at(entry).date()].append(entry)
    counts = {(ids.get(slug, 0), today): count for slug, count in dropped.items()}
    # In one order, so that two processes never wait for each other.
    return sum(
        _write(logs[place[0]], place[1], groups.get(place, ()), counts.get(place, 0))
        for place in sorted(groups.keys() | counts.keys())
        if place[0] in logs
    )


def _logs(ids: Iterable[int]) -> dict[int, _Log]:
    for department_id in ids:
        lock_shared(log_name(department_id))
    keys = department_keys(ids)
    rows = RequestLogKey.objects.filter(department__in=ids, erased_at__isnull=False)
    erased = dict(rows.order_by().values_list("department").annotate(Max("erased_at")))
    forgotten: dict[int, dict[bytes, datetime]] = defaultdict(dict)
    for row in ForgottenUser.objects.filter(department__in=ids):
        forgotten[row.department_id][bytes(row.user_tag)] = row.at
        # The mark has the pseudonym under an earlier key, which no longer identifies the user.
        key = keys.get(row.department_id)
        if key is not None and row.at <= key.created_at:
            erased[row.department_id] = key.created_at
    policies = RequestLogPolicy.objects.filter(department__in=ids, mode=LogMode.FULL)
    return {
        policy.department_id: _Log(
            policy,
            keys.get(policy.department_id),
            forgotten[policy.department_id],
            erased.get(policy.department_id, datetime.min.replace(tzinfo=UTC)),
        )
        for policy in policies
    }


def _write(log: _Log, day: date, entries: Sequence[Entry], dropped: int) -> int:
    row = _day(log.policy.department_id, day)
    row.dropped += dropped
    room = log.policy.daily_mib * 1024 * 1024
    logged = []
    for entry in entries:
        if log.key is None:
            row.dropped += 1
        elif (request := _encrypted(log, log.key, entry)) is not None:
            if row.bytes + len(request.content) > room:
                row.dropped += 1
                continue
            row.bytes += len(request.content)
            row.requests += 1
            logged.append(request)
    LoggedRequest.objects.bulk_create(logged)
    row.save(update_fields=["requests", "bytes", "dropped"])
    return len(logged)


def _encrypted(log: _Log, key: DepartmentKey, entry: Entry) -> LoggedRequest | None:
    """Return the row of an entry; None if its content was erased meanwhile."""
    tag, at = key.tag(entry.user) if entry.user else b"", _at(entry)
    if log.erased(tag, at):
        return None
    data, size, cut = packed(entry.content)
    return LoggedRequest(
        request_id=entry.request_id,
        occurred_at=at,
        department_id=log.policy.department_id,
        key_id=key.id,
        user_tag=tag,
        person_id=entry.person,
        content=key.sealed(entry.request_id, data),
        size=size,
        cut=cut,
    )


def _day(department_id: int, day: date) -> RequestLogDay:
    rows = RequestLogDay.objects.select_for_update()
    row, _ = rows.get_or_create(department_id=department_id, day=day)
    return row


def _at(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.occurred_at, UTC)
