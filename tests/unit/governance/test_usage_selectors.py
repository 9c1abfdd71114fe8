from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.errors import InvalidInput
from governance.policy.services import policy_bootstrap
from governance.principals import ANONYMOUS, ActorRole, Principal, PrincipalKind
from governance.usage.models import UsageRecord, UsageTotal
from governance.usage.selectors import usage_grouped, usage_of_period, usage_visible_to

pytestmark = pytest.mark.django_db


def person(role: str, department: str | None = None) -> Principal:
    held = frozenset({ActorRole(role, department)})
    return Principal(kind=PrincipalKind.PERSON, id="1", name="P", roles=held, person_id=1)


@pytest.fixture(autouse=True)
def policy():
    policy_bootstrap()


@pytest.fixture
def records():
    now = timezone.now()
    for number, (department, age, outcome) in enumerate(
        [
            ("clinical", 0, "ok"),
            ("clinical", 0, "failed"),
            ("clinical", 3, "ok"),
            ("finance", 1, "ok"),
            ("finance", 90, "ok"),
        ]
    ):
        UsageRecord.objects.create(
            request_id=str(number),
            occurred_at=now - timedelta(days=age),
            department=department,
            key_public_id="k",
            deployment="d",
            version_digest="",
            endpoint="/v1/classify",
            prompt_tokens=10,
            completion_tokens=number,
            outcome=outcome,
        )


@pytest.mark.usefixtures("records")
def test_a_department_sees_its_own_usage_and_an_auditor_all_of_it():
    assert usage_visible_to(person("auditor")).count() == 5
    assert usage_visible_to(person("admin")).count() == 5
    assert usage_visible_to(person("lead", "clinical")).count() == 3
    assert usage_visible_to(ANONYMOUS).count() == 0


@pytest.mark.usefixtures("records")
def test_sums_are_those_of_the_days_asked_for():
    assert sums(person("auditor"), days=30) == [
        (3, 1, 0, 10, 2),
        (1, 1, 0, 10, 3),
        (0, 2, 1, 20, 1),
    ]
    assert sums(person("lead", "clinical"), days=1) == [(0, 2, 1, 20, 1)]
    assert sums(ANONYMOUS, days=366) == []


@pytest.mark.usefixtures("records")
def test_amounts_of_different_units_are_never_added():
    for unit, metered in (("images", 7), ("images", 8), ("characters", 900)):
        UsageRecord.objects.create(
            request_id=f"{unit}{metered}",
            occurred_at=timezone.now(),
            department="clinical",
            unit=unit,
            metered=metered,
            outcome="ok",
        )
    (today,) = usage_grouped(person("auditor"), days=1)
    assert today.units == {"tokens": 21, "images": 15, "characters": 900}
    assert (today.prompt_tokens, today.completion_tokens) == (20, 1)
    (tokens,) = usage_grouped(person("auditor"), days=2)[:1]
    assert tokens.units == {"tokens": 13}


def sums(actor: Principal, days: int) -> list[tuple[int, ...]]:
    """Age in days, requests, failed ones, prompt and completion tokens of each day with use."""
    today = timezone.now().date()
    return [
        ((today - s.day).days, s.requests, s.failed, s.prompt_tokens, s.completion_tokens)
        for s in usage_grouped(actor, days)
    ]


@pytest.mark.parametrize("days", [0, -1, 367])
def test_an_absurd_number_of_days_is_refused(days: int):
    with pytest.raises(InvalidInput, match="1 to 366 days"):
        usage_grouped(person("auditor"), days)


def test_the_last_days_are_found_by_an_index_on_time(records: None) -> None:
    with connection.cursor() as cursor, CaptureQueriesContext(connection) as captured:
        usage_grouped(person("admin"), 7)
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {captured[-1]['sql']}")
        plan = str(cursor.fetchall())
    # Statistics decide between the two indexes with the time.
    assert "Index Cond" in plan
    assert "AND (at >= " in plan


def test_groups_of_a_period_are_those_of_its_days_and_weeks() -> None:
    now = timezone.now()
    for number in range(200):
        UsageRecord.objects.create(
            request_id=f"g{number}",
            occurred_at=now - timedelta(days=number % 100),
            department="clinical",
            key_public_id=f"k{number % 30}",
            deployment=f"d{number % 25}",
            cost_micro=number % 25,
            prompt_tokens=1,
            outcome="ok",
        )
    actor = person("auditor")
    for days in (1, 6, 7, 30, 90):
        for by, kind in (("key", UsageTotal.By.KEY), ("deployment", UsageTotal.By.DEPLOYMENT)):
            whole = usage_grouped(actor, days)
            grouped = usage_grouped(actor, days, by)
            for name in ("requests", "cost_micro", "prompt_tokens"):
                expected = sum(getattr(row, name) for row in whole)
                assert sum(getattr(row, name) for row in grouped) == expected
            assert {row.name for row in grouped} - {None} <= {f"{by[0]}{n}" for n in range(30)}
            period = usage_of_period(actor, kind, days=days).aggregate(count=Sum("requests"))
            assert period["count"] == sum(row.requests for row in whole)
        assert len({row.name for row in usage_grouped(actor, 90, "key")}) == 21
