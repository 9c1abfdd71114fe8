"""Sums of the ledger equal its records; months do not change what is billed or who sees it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from governance.people.models import Department
from governance.policy.services import policy_bootstrap
from governance.principals import ActorRole, Principal, PrincipalKind
from governance.rowsecurity import scope
from governance.usage.models import BilledRequest, UsageRecord, UsageTimes, UsageTotal
from governance.usage.performance import (
    Phases,
    Span,
    Window,
    _from_records,
    _from_sums,
    bucket_of,
)
from governance.usage.selectors import usage_visible_to
from governance.usage.times import usage_times_add

pytestmark = pytest.mark.django_db


def person(role: str, department: str | None = None) -> Principal:
    held = frozenset({ActorRole(role, department)})
    return Principal(kind=PrincipalKind.PERSON, id="1", name="P", roles=held, person_id=1)


def random_record(number: int, draw: random.Random) -> UsageRecord:
    """Return a record of the last twelve weeks with any outcome, phase and unit."""
    total = draw.choice((0, 1, 31, 32, 33, draw.randrange(60_000)))
    first = draw.choice((None, draw.randrange(total + 1)))
    tokens = draw.random() < 0.7
    return UsageRecord(
        request_id=f"r{number}",
        occurred_at=timezone.now() - timedelta(minutes=draw.randrange(84 * 24 * 60)),
        department=draw.choice(("clinical", "finance")),
        key_public_id=draw.choice(("a", "b", "")),
        deployment=draw.choice(("docs", "docs", "other")),
        release=draw.choice((None, 1, 2)),
        version_digest=draw.choice(("v", "w")),
        endpoint=draw.choice(("/v1/classify", "jobs/evaluate")),
        prompt_tokens=draw.randrange(9) if tokens else 0,
        completion_tokens=draw.randrange(9) if tokens else 0,
        unit="tokens" if tokens else "images",
        metered=0 if tokens else draw.randrange(9),
        load_ms=draw.choice((0, draw.randrange(70_000))),
        queue_ms=draw.randrange(900),
        first_token_ms=first,
        total_ms=total,
        cost_micro=draw.randrange(99),
        device_ms=draw.randrange(99),
        outcome=draw.choice(("ok", "ok", "failed", "canceled", "timeout")),
    )


@pytest.fixture
def records() -> None:
    policy_bootstrap()
    draw = random.Random(7)
    rows = [random_record(number, draw) for number in range(600)]
    # Batches of different sizes, as collectors write them.
    while rows:
        size = draw.choice((1, 20, 150))
        UsageRecord.objects.bulk_create(rows[:size])
        rows = rows[size:]
        if size == 20:
            usage_times_add()
    usage_times_add()


def near(exact: int, rounded: int) -> bool:
    return abs(exact - rounded) <= exact * 0.032


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("span", [Span.WEEK, Span.MONTH, Span.QUARTER])
@pytest.mark.parametrize("department", [None, "clinical"])
def test_figures_from_sums_are_those_of_the_records(span: Span, department: str | None) -> None:
    actor = person("lead", department) if department else person("auditor")
    window = Window.of(span)
    exact = _from_records(usage_visible_to(actor), "docs", window)
    summed = _from_sums(actor, "docs", window)
    assert exact.total.requests > 10
    pairs = zip((summed.total, *summed.points), (exact.total, *exact.points), strict=True)
    for ours, theirs in pairs:
        assert counts(ours) == counts(theirs)
        for name in ("latency", "first_token"):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert (mine is None) == (other is None)
            for percent in ("p50", "p95", "p99") if mine else ():
                assert near(getattr(other, percent), getattr(mine, percent))
    for name in ("requests", *Phases.NAMES):
        assert getattr(summed.all_answers, name) == pytest.approx(getattr(exact.all_answers, name))


def counts(figures: Any) -> tuple[Any, ...]:
    return (
        figures.at,
        figures.requests,
        figures.failed,
        figures.canceled,
        figures.units,
        figures.cost_micro,
    )


@pytest.mark.usefixtures("records")
def test_every_kind_of_sum_adds_up_to_the_ledger() -> None:
    names = ("cost_micro", "device_ms", "units", "prompt_tokens", "completion_tokens", "total_ms")
    ledger = UsageRecord.objects.aggregate(**{name: Sum(name) for name in names})
    for step, by in (
        ("day", ""),
        ("day", "deployment"),
        ("day", "key"),
        ("day", "version"),
        ("hour", "deployment"),
        ("week", "deployment"),
        ("week", "key"),
    ):
        rows = UsageTotal.objects.filter(step=step, by=by)
        assert rows.aggregate(**{name: Sum(name) for name in names}) == ledger
        assert rows.aggregate(count=Sum("requests"))["count"] == UsageRecord.objects.count()


@pytest.mark.parametrize(
    "milliseconds", [0, 1, 2, 15, 16, 31, 32, 33, 63, 64, 1_000, 4_095, 4_096, 2**31 - 1]
)
def test_database_and_code_agree_on_buckets(milliseconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT assay_bucket(%s)", [milliseconds])
        assert cursor.fetchone() == (bucket_of(milliseconds),)
    assert milliseconds * 15 / 16 - 1 < bucket_of(milliseconds) <= milliseconds


def test_a_request_that_is_reported_in_two_months_is_billed_once() -> None:
    end = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    for at in (end, end + timedelta(seconds=2)):
        UsageRecord.objects.bulk_create(
            [UsageRecord(request_id="r", occurred_at=at, cost_micro=5)], ignore_conflicts=True
        )
    assert UsageRecord.objects.count() == BilledRequest.objects.count() == 1
    assert UsageTotal.objects.get(step="day", by="").cost_micro == 5


def test_sums_are_written_by_the_ledger_alone() -> None:
    UsageRecord.objects.create(request_id="r", occurred_at=timezone.now(), outcome="ok")
    assert usage_times_add()
    assert usage_times_add() == 0
    assert sorted(UsageTimes.objects.values_list("step", "answers")) == [
        ("day", [1]),
        ("part", [1]),
    ]
    for model in (UsageTotal, UsageTimes):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            model.objects.all().delete()


@pytest.mark.usefixtures("records")
def test_a_department_reads_its_own_rows_in_every_month() -> None:
    Department.objects.create(slug="clinical", name="Clinical")
    actor = person("lead", "clinical")
    with scope(actor):
        for model in (UsageRecord, UsageTotal, UsageTimes):
            departments = set(model.objects.values_list("department", flat=True))
            assert departments == {"clinical"}, model
