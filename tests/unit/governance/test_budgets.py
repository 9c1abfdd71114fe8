"""Ledger and counters agree, whatever happens to Redis; jobs hold budgets; alerts come once."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from assay.local.services import Valkey
from governance.audit.models import AuditEvent
from governance.errors import QuotaExceeded, Unavailable
from governance.keys.models import ApiKey
from governance.people.models import Department
from governance.quotas import reconcile, store
from governance.quotas.alerts import alerts_raise
from governance.quotas.holds import (
    REMEMBERED,
    RESEND_AFTER,
    hold_end,
    hold_open,
    hold_pause,
    hold_run,
    holds_settle,
)
from governance.quotas.maintenance import QuotaMaintenance
from governance.quotas.models import BudgetHold, HoldState, Price, QuotaAlert, QuotaLimit
from governance.quotas.reconcile import counters_ready, quotas_reconcile
from governance.quotas.selectors import alerts_now, limits_applying
from governance.quotas.store import read_counts
from governance.quotas.wire import READY_KEY, Amount, Limit, reserve_arguments
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_STREAM, UsageEntry
from governance.usage.sealing import seal
from governance.usage.units import Unit

pytestmark = pytest.mark.django_db
CLINICAL = "department:clinical"


@pytest.fixture
def counters(redis: Any) -> Any:
    """Redis as the controller leaves it."""
    redis.set(READY_KEY, 1)
    return redis


def use(request_id: str, **changes: Any) -> UsageEntry:
    return UsageEntry(
        **{
            "request_id": request_id,
            "occurred_at": timezone.now().timestamp(),
            "outcome": "ok",
            "endpoint": "/v1/chat/completions",
            "department": "clinical",
            "key_public_id": "abcd",
            "deployment": "writer",
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "device_ms": 70,
            "cost_micro": 300,
            **changes,
        }
    )


def settle(*entries: UsageEntry) -> None:
    for entry in entries:
        store.settle(entry, reserved=Amount())


def collect(redis: Any) -> None:
    collect_once(redis, consumer="test", block_ms=1)


def counts(*kinds: str, subject: str = CLINICAL) -> list[tuple[int, int]]:
    reading = read_counts([(subject, kind) for kind in kinds])
    return [(count.used, count.reserved) for count in reading.counts]


LONG = ("tokens_per_day", "money_per_month", "gpu_seconds_per_month")


def test_counters_are_the_sum_of_records_in_the_ledger_and_on_their_way(counters: Any) -> None:
    settle(use("1"), use("2"))
    collect(counters)
    settle(use("3"), use("4", department="", key_public_id="token"))
    outcome = quotas_reconcile(repair=False)
    assert outcome.drifts == []
    assert outcome.was_ready
    assert counts(*LONG) == [(45, 0), (900, 0), (210, 0)]
    assert counts(*LONG, subject="organization") == [(60, 0), (1200, 0), (280, 0)]


def test_a_counter_that_differs_is_named_and_with_repair_put_right(counters: Any) -> None:
    settle(use("1"))
    collect(counters)
    month = f"assay:quota:month:{timezone.now():%Y-%m}:"
    counters.hincrby(f"{month}{CLINICAL}", "money", 5)
    counters.hset(f"{month}department:ghost", "device", 9)
    for repair in (False, True):
        found = {
            (drift.subject, drift.field): (drift.expected, drift.actual)
            for drift in quotas_reconcile(repair=repair).drifts
        }
        assert found == {
            (CLINICAL, "money"): (300, 305),
            ("department:ghost", "device"): (0, 9),
        }
    assert quotas_reconcile(repair=False).drifts == []


def test_a_flushed_redis_is_rebuilt_from_the_ledger_exactly(counters: Any) -> None:
    settle(use("1"), use("2"))
    collect(counters)
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    counters.flushall()
    assert not counters_ready()
    settle(use("3"))  # It was under way when the broker lost its memory.
    outcome = quotas_reconcile(repair=True)
    assert not outcome.was_ready
    assert counters_ready()
    assert counts(*LONG) == [(45, 0), (900, 0), (210, 600_000)]
    assert counts(*LONG, subject="key:abcd") == [(45, 0), (900, 0), (210, 0)]
    assert quotas_reconcile(repair=False).drifts == []


def images(request_id: str, units: int, **changes: Any) -> UsageEntry:
    none = {"prompt_tokens": 0, "completion_tokens": 0}
    return use(request_id, unit=Unit.IMAGES, units=units, **none, **changes)


def test_counters_of_every_unit_are_rebuilt_from_the_ledger_and_kept_apart(counters: Any) -> None:
    kinds = ("images_per_day", "images_per_month", "tokens_per_day", "tokens_per_month")
    yesterday = (timezone.now() - timedelta(days=1)).timestamp()
    this_month = timezone.now().day > 1
    settle(images("1", 4), images("2", 3), use("3"), images("4", 20, occurred_at=yesterday))
    collect(counters)
    settle(images("5", 2), use("6"))
    assert quotas_reconcile(repair=False).drifts == []
    expected = [(9, 0), (9 + 20 * this_month, 0), (30, 0), (30, 0)]
    assert counts(*kinds) == expected
    counters.delete(*counters.keys("assay:quota:*"))
    assert not quotas_reconcile(repair=True).was_ready
    assert counts(*kinds) == expected
    assert counts("money_per_month") == [(300 * (5 + this_month), 0)]
    assert quotas_reconcile(repair=False).drifts == []


def test_a_limit_on_units_binds_no_job(counters: Any) -> None:
    clinical = Department.objects.create(slug="clinical", name="Clinical")
    for window in ("minute", "day", "month"):
        QuotaLimit.objects.create(kind=f"images_per_{window}", limit=0, department=clinical)
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    assert BudgetHold.objects.count() == 1


def test_the_keeper_rebuilds_by_itself_what_a_flush_took(counters: Any) -> None:
    settle(use("1"))
    collect(counters)
    counters.flushall()
    QuotaMaintenance().step()
    assert counts(*LONG) == [(15, 0), (300, 0), (70, 0)]


def test_records_of_other_days_and_months_are_not_of_this_one(counters: Any) -> None:
    now = timezone.now()
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    settle(
        use("before", occurred_at=(first - timedelta(seconds=1)).timestamp()),
        use("first", occurred_at=first.timestamp()),
        use("now"),
    )
    collect(counters)
    assert quotas_reconcile(repair=False).drifts == []
    counters.flushall()
    quotas_reconcile(repair=True)
    today = 30 if now.day == 1 else 15
    assert counts(*LONG) == [(today, 0), (600, 0), (140, 0)]


def test_what_is_delivered_twice_is_summed_once(counters: Any) -> None:
    settle(use("1"))
    counters.xadd(USAGE_STREAM, {"entry": use("1").encode()})
    counters.xadd(USAGE_STREAM, {"entry": "not an entry"})
    counters.xadd(USAGE_STREAM, {"other": "x"})
    assert quotas_reconcile(repair=False).drifts == []
    collect(counters)
    settle(use("1"))
    assert quotas_reconcile(repair=False).drifts == []


def test_keys_that_succeed_one_another_count_on_the_first(
    counters: Any, department: Callable[[str], Department]
) -> None:
    def key(public_id: str, **changes: Any) -> ApiKey:
        return ApiKey.objects.create(
            public_id=public_id, secret_hmac=b"", pepper_version=1, name="app",
            department=department("clinical"), expires_at="2099-01-01T00:00Z", **changes,
        )  # fmt: skip

    first = key("first")
    second = key("second", root=first, rotated_from=first)
    limit = QuotaLimit.objects.create(kind="money_per_month", limit=1, api_key=first)
    settle(
        use("1", key_public_id="first", key_counted="first"),
        use("2", key_public_id="second", key_counted="first"),
    )
    collect(counters)
    assert quotas_reconcile(repair=False).drifts == []
    counters.flushall()
    quotas_reconcile(repair=True)
    assert counts(*LONG, subject="key:first") == [(30, 0), (600, 0), (140, 0)]
    assert counts(*LONG, subject="key:second") == [(0, 0)] * 3
    assert limits_applying(key=second) == limits_applying(key=first) == [limit]


def test_refusals_are_no_use(counters: Any) -> None:
    settle(use("1", ran=False, outcome="quota_exceeded"))
    assert counts(*LONG) == [(0, 0)] * 3
    assert quotas_reconcile(repair=False).drifts == []


def test_too_much_on_its_way_is_said_instead_of_read(
    counters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governance.quotas.reconcile.STREAM_MOST", 1)
    settle(use("1"), use("2"))
    with pytest.raises(Unavailable, match="wait for the ledger"):
        quotas_reconcile(repair=True)


def limit(department: Callable[[str], Department], kind: str, most: int, **more: Any) -> QuotaLimit:
    return QuotaLimit.objects.create(
        department=department("clinical"), kind=kind, limit=most, **more
    )


def run_job(reference: str, seconds: float, outcome: str = "ok") -> None:
    """From its claim to its end, `seconds` later."""
    hold_run(reference=reference)
    began = timezone.now() - timedelta(seconds=seconds)
    BudgetHold.objects.filter(reference=reference).update(running_since=began)
    hold_end(reference=reference, outcome=outcome)


def test_a_job_holds_its_budget_and_pays_for_what_it_used(
    counters: Any, django_capture_on_commit_callbacks: Any
) -> None:
    Price.objects.create(device_second=1000)
    hold_open(reference="job_1", department="clinical", kind="fine_tune")
    assert counts("money_per_month", "gpu_seconds_per_month") == [(0, 600_000), (0, 600_000)]
    assert quotas_reconcile(repair=False).drifts == []
    with django_capture_on_commit_callbacks(execute=True):
        run_job("job_1", 12)
    assert quotas_reconcile(repair=False).drifts == []
    collect(counters)
    (record,) = UsageRecord.objects.all()
    assert (record.request_id, record.endpoint) == ("job_1", "jobs/fine_tune")
    assert 12_000 <= record.device_ms < 60_000
    assert record.cost_micro == record.device_ms
    assert BudgetHold.objects.get().state == HoldState.SETTLED
    assert counts("gpu_seconds_per_month") == [(record.device_ms, 0)]
    assert quotas_reconcile(repair=False).drifts == []
    assert not AuditEvent.objects.filter(action="deployment:invoke").exists()


def test_attempts_add_up_and_waiting_between_them_costs_nothing(counters: Any) -> None:
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    for _ in range(2):
        hold_run(reference="job_1")
        began = timezone.now() - timedelta(seconds=30)
        BudgetHold.objects.update(running_since=began)
        hold_pause(reference="job_1")
        hold_pause(reference="job_1")
    assert 60_000 <= BudgetHold.objects.get().device_ms < 90_000


def test_a_job_that_never_ran_gives_everything_back_and_leaves_no_record(
    counters: Any, django_capture_on_commit_callbacks: Any
) -> None:
    hold_open(reference="job_1", department="clinical", kind="fine_tune")
    with django_capture_on_commit_callbacks(execute=True):
        hold_end(reference="job_1", outcome="canceled")
        hold_end(reference="job_1", outcome="canceled")
    assert counts("gpu_seconds_per_month") == [(0, 0)]
    collect(counters)
    assert not UsageRecord.objects.exists()
    assert BudgetHold.objects.get().state == HoldState.SETTLED


def test_a_job_without_room_is_refused_and_told_which_limit(
    counters: Any, department: Callable[[str], Department]
) -> None:
    limit(department, "gpu_seconds_per_month", 1000)
    hold_open(reference="job_1", department="clinical", kind="fine_tune")
    with pytest.raises(
        QuotaExceeded, match=r"Department clinical is limited to 1,000 s of"
    ) as full:
        hold_open(reference="job_2", department="clinical", kind="fine_tune")
    assert "600 s of device time" in full.value.hint
    hold_open(reference="job_3", department="finance", kind="fine_tune")
    QuotaLimit.objects.update(shadow=True)
    hold_open(reference="job_2", department="clinical", kind="fine_tune")


def test_requests_and_jobs_draw_on_the_same_budget(
    counters: Any, department: Callable[[str], Department]
) -> None:
    limit(department, "gpu_seconds_per_month", 1000)
    settle(use("1", device_ms=400_001))
    with pytest.raises(QuotaExceeded):
        hold_open(reference="job_1", department="clinical", kind="fine_tune")


def test_the_next_job_reserves_what_the_longest_of_its_kind_took(
    counters: Any, django_capture_on_commit_callbacks: Any
) -> None:
    for number, seconds in enumerate((30, 90, 60)):
        hold_open(reference=f"job_{number}", department="clinical", kind="evaluate")
        run_job(f"job_{number}", seconds)
    hold = hold_open(reference="job_9", department="clinical", kind="evaluate")
    assert 90_000 <= hold.reserved_device_ms < 150_000


def test_while_budgets_are_rebuilt_no_job_with_a_limit_is_queued(
    redis: Any, department: Callable[[str], Department]
) -> None:
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    limit(department, "money_per_month", 10**12)
    with pytest.raises(Unavailable, match="rebuilt"):
        hold_open(reference="job_2", department="clinical", kind="evaluate")


def test_an_end_that_a_crash_swallowed_is_settled_later_and_once(
    counters: Any, django_capture_on_commit_callbacks: Any
) -> None:
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    with django_capture_on_commit_callbacks(execute=False):
        run_job("job_1", 5)
    assert holds_settle() == 0
    assert quotas_reconcile(repair=True).drifts == []
    BudgetHold.objects.update(ended_at=timezone.now() - RESEND_AFTER - timedelta(seconds=1))
    assert holds_settle() == 1
    assert holds_settle() == 1  # Not in the ledger yet; sending it again counts nothing.
    collect(counters)
    assert holds_settle() == 0
    assert UsageRecord.objects.count() == 1
    assert quotas_reconcile(repair=False).drifts == []


def test_a_queueing_that_was_rolled_back_is_given_back_by_the_next_comparison(
    counters: Any,
) -> None:
    with transaction.atomic():
        hold_open(reference="job_1", department="clinical", kind="evaluate")
        transaction.set_rollback(True)
    assert counts("gpu_seconds_per_month") == [(0, 600_000)]
    quotas_reconcile(repair=True)
    assert counts("gpu_seconds_per_month") == [(0, 0)]


def test_each_threshold_is_told_once_a_window_to_those_who_see_the_limit(
    counters: Any, department: Callable[[str], Department], actor: Callable[..., Any]
) -> None:
    limit(department, "tokens_per_day", 100)
    lead, stranger = actor("Lena", "lead@clinical"), actor("Finn", "lead@finance")
    settle(use("1", prompt_tokens=44, completion_tokens=5))
    assert alerts_raise() == 0
    settle(use("2", prompt_tokens=1, completion_tokens=0))
    assert alerts_raise() == 1
    assert alerts_raise() == 0
    settle(use("3", prompt_tokens=50, completion_tokens=0))
    assert alerts_raise() == 2
    assert sorted(QuotaAlert.objects.values_list("threshold", flat=True)) == [50, 80, 100]
    events = AuditEvent.objects.filter(action="quota:alert").order_by("id")
    assert [event.reason for event in events] == [
        f"Department clinical has used {used} tokens of 100 tokens per day: {percent}% "
        f"in {timezone.now():%Y-%m-%d}."
        for used, percent in ((50, 50), (100, 100))
    ]
    assert [alert.threshold for alert in alerts_now(lead)] == [100]
    assert alerts_now(stranger) == []
    QuotaAlert.objects.update(window="2020-01-01")
    assert alerts_now(lead) == []
    assert alerts_raise() == 3


def test_a_budget_of_images_raises_alerts_in_its_own_unit(
    counters: Any, department: Callable[[str], Department]
) -> None:
    limit(department, "images_per_day", 10)
    limit(department, "tokens_per_month", 10)
    settle(images("1", 8))
    assert alerts_raise() == 2
    event = AuditEvent.objects.get(action="quota:alert")
    assert "has used 8 images of 10 images per day: 80%" in event.reason


def test_limits_of_a_minute_raise_no_alerts(
    counters: Any, department: Callable[[str], Department]
) -> None:
    limit(department, "tokens_per_minute", 1)
    limit(department, "tokens_per_day", 0)
    settle(use("1"))
    assert alerts_raise() == 0


def test_a_gateway_whose_clock_is_ahead_charges_the_day_and_month_that_it_names(
    counters: Any,
) -> None:
    now = timezone.now()
    following = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0)
    settle(use("now"), use("ahead", occurred_at=following.timestamp()))
    for _ in range(2):  # On its way to the ledger, then in it.
        assert quotas_reconcile(repair=True).drifts == []
        assert counts(*LONG) == [(15, 0), (300, 0), (70, 0)]
        collect(counters)


def test_the_last_microsecond_of_a_day_is_charged_where_the_ledger_has_it(counters: Any) -> None:
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    # The nearest number below midnight that a clock can say; the ledger keeps whole microseconds.
    settle(use("late", occurred_at=math.nextafter(midnight.timestamp(), 0)))
    collect(counters)
    assert UsageRecord.objects.get().occurred_at == midnight
    assert quotas_reconcile(repair=False).drifts == []


def test_an_entry_of_a_newer_gateway_counts_while_it_is_on_its_way(counters: Any) -> None:
    body = json.loads(use("1").to_json()) | {"color": "blue"}
    wrong = json.loads(use("2").to_json()) | {"prompt_tokens": "10"}
    settle(use("1"))
    counters.delete(USAGE_STREAM)
    for entry in (body, wrong):
        counters.xadd(USAGE_STREAM, {"entry": seal(json.dumps(entry))})
    assert quotas_reconcile(repair=False).drifts == []
    collect(counters)
    assert quotas_reconcile(repair=False).drifts == []


def test_a_job_whose_end_waits_long_for_the_ledger_is_counted_once(
    counters: Any, django_capture_on_commit_callbacks: Any
) -> None:
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    with django_capture_on_commit_callbacks(execute=True):
        run_job("job_1", 5)
    before = counts("gpu_seconds_per_month")
    BudgetHold.objects.update(ended_at=timezone.now() - timedelta(days=1))
    # The controller was away; what is remembered for minutes is gone when it comes back.
    for key in counters.keys("assay:quota:settled:*"):
        if counters.ttl(key) < 86_400:
            counters.delete(key)
    assert holds_settle() == 1
    assert counts("gpu_seconds_per_month") == before
    assert quotas_reconcile(repair=False).drifts == []


def test_a_flush_in_the_midst_of_a_comparison_leaves_budgets_closed(
    counters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(use("1"))
    collect(counters)
    there = reconcile._on_stream

    def flushed_meanwhile(*args: Any) -> Any:
        counters.flushall()
        return there(*args)

    monkeypatch.setattr(reconcile, "_on_stream", flushed_meanwhile)
    quotas_reconcile(repair=True)
    assert not counters_ready()
    monkeypatch.undo()
    QuotaMaintenance().step()
    assert counts(*LONG) == [(15, 0), (300, 0), (70, 0)]


def test_a_store_that_comes_back_with_older_data_is_put_right_at_once(
    redis: Any, settings: Any, tmp_path: Path
) -> None:
    folder, older = tmp_path / "data", tmp_path / "older"
    maintenance = QuotaMaintenance()
    first = Valkey(folder)
    settings.REDIS_URL = first.url
    try:
        maintenance.step()
        settle(use("1"))
        store.client().config_set("appendfsync", "always")
        shutil.copytree(folder, older)
        settle(use("2"))
        collect(store.client())
        maintenance.step()
    finally:
        first.stop()
    second = Valkey(older)
    settings.REDIS_URL = second.url
    try:
        assert counters_ready()
        assert counts("tokens_per_day") == [(15, 0)]
        maintenance.step()
        assert counts(*LONG) == [(30, 0), (600, 0), (140, 0)]
    finally:
        second.stop()


def test_device_time_is_told_by_the_databases_clock_whoever_tells_it(
    counters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_open(reference="job_1", department="clinical", kind="evaluate")
    right = timezone.now
    for claim, end in ((3600, 0), (0, 3600)):
        monkeypatch.setattr(timezone, "now", lambda ahead=claim: right() + timedelta(seconds=ahead))
        hold_run(reference="job_1")
        monkeypatch.setattr(timezone, "now", lambda ahead=end: right() + timedelta(seconds=ahead))
        time.sleep(0.05)
        hold_pause(reference="job_1")
    assert 100 <= BudgetHold.objects.get().device_ms < 60_000


def test_a_limit_that_is_raised_warns_again_when_it_runs_out(
    counters: Any, department: Callable[[str], Department], actor: Callable[..., Any]
) -> None:
    row = limit(department, "tokens_per_day", 100)
    lead = actor("Lena", "lead@clinical")
    settle(use("1", prompt_tokens=80, completion_tokens=0))
    assert alerts_raise() == 2
    QuotaLimit.objects.update(limit=1000)
    assert alerts_raise() == 0
    assert alerts_now(lead) == []  # 8 % of it is used.
    settle(use("2", prompt_tokens=420, completion_tokens=0))
    assert alerts_raise() == 1
    assert alerts_raise() == 0
    assert [alert.threshold for alert in alerts_now(lead)] == [50]
    QuotaLimit.objects.update(limit=600)  # Lowered: 50 % has been said, 80 % has not.
    assert alerts_raise() == 1
    assert [alert.threshold for alert in alerts_now(lead)] == [80]
    told = AuditEvent.objects.filter(action="quota:alert").order_by("id")
    said = [event.reason.partition(" has used ")[2].partition(" in ")[0] for event in told]
    assert said == [
        "80 tokens of 100 tokens per day: 80%",
        "500 tokens of 1,000 tokens per day: 50%",
        "500 tokens of 600 tokens per day: 80%",
    ]
    assert row.alerts.count() == 2


def test_what_a_reservation_took_of_a_month_is_remembered_as_long_as_the_month_counts(
    counters: Any,
) -> None:
    """Or a store that rests for a weekend with a request under way keeps its part for good."""
    limits = [Limit("organization", "money_per_month", 100)]
    store._run(reserve_arguments("req_1", 1, Amount(5, 7, 9), limits))
    month = f"assay:quota:month:{timezone.now():%Y-%m}:organization"
    assert counters.pttl("assay:quota:reservation:req_1") >= counters.pttl(month) - 1000
    time.sleep(0.01)
    assert store.reclaim() == 1
    assert counts("money_per_month", subject="organization") == [(0, 0)]


def test_jobs_that_were_canceled_say_nothing_of_how_long_the_next_one_takes(
    counters: Any, django_capture_on_commit_callbacks: Any
) -> None:
    hold_open(reference="job_long", department="clinical", kind="evaluate")
    run_job("job_long", 3000)
    for number in range(REMEMBERED):
        hold_open(reference=f"job_{number}", department="clinical", kind="evaluate")
        run_job(f"job_{number}", 1, outcome="canceled")
    hold = hold_open(reference="job_next", department="clinical", kind="evaluate")
    assert hold.reserved_device_ms >= 3_000_000


def test_what_is_used_up_comes_before_what_is_half_used(
    counters: Any,
    department: Callable[[str], Department],
    actor: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("governance.quotas.selectors.ALERTS_SHOWN", 1)
    limit(department, "tokens_per_day", 30)
    limit(department, "money_per_month", 300)
    settle(use("1"))
    assert alerts_raise() == 4
    (shown,) = alerts_now(actor("Lena", "lead@clinical"))
    assert (shown.limit.kind, shown.threshold) == ("money_per_month", 100)
