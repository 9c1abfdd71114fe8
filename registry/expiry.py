"""Delete expired rows in bounded rounds, and audit how many were deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from governance.audit.services import Subject, audit_record
from governance.people.models import Department
from governance.principals import Principal


def expire_in_rounds(expire_some: Callable[[], int], *, at_once: int, rounds: int) -> int:
    """Call `expire_some` until it expires fewer than `at_once` rows, at most `rounds` times.

    Returns the total number of expired rows.
    """
    expired = 0
    for _ in range(rounds):
        count = expire_some()
        expired += count
        if count < at_once:
            break
    return expired


def record_expired(*, actor: Principal, action: str, departments: Iterable[Department]) -> None:
    """Record one event for each department, with the number of its expired rows.

    `departments` has one entry for each row.
    """
    for department, count in Counter(departments).items():
        audit_record(
            actor=actor,
            action=action,
            subject=Subject("department", department.slug, department.name),
            department=department.slug,
            data={"count": count},
        )
