"""Usage that no gateway of this installation wrote is dropped, recorded and alarmed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from governance.audit.alarms import ALARMS
from governance.audit.models import AuditEvent
from governance.quotas import holds, store
from governance.quotas.models import BudgetHold, HoldState
from governance.quotas.reconcile import quotas_reconcile
from governance.usage.collector import DEAD_STREAM, collect_once
from governance.usage.forgeries import usage_forged
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_STREAM, UsageEntry
from governance.usage.sealing import ForgedEntry, seal
from governance.usage.units import Unit
from tests.unit.governance.test_usage_collector import ENTRY, send
from workers.controller import Controller

pytestmark = pytest.mark.django_db
MILLION_EUR = 1_000_000 * 1_000_000


def forged_as(settings, text: str) -> str:
    """`text` with a valid MAC of another installation."""
    own, settings.USAGE_KEY = settings.USAGE_KEY, "of another installation, 32 chars"
    made = seal(text)
    settings.USAGE_KEY = own
    return made


def test_forged_usage_books_nothing_and_is_alarmed(redis, settings):
    booked = replace(
        ENTRY, request_id="forged", department="finance", cost_micro=9_999_000_000, ran=True
    )
    honest = replace(ENTRY, request_id="honest")
    moved = seal(ENTRY.to_json())[:64] + booked.to_json()
    send(redis, booked.to_json(), forged_as(settings, booked.to_json()), moved, "", honest)
    assert collect_once(redis, consumer="one", block_ms=1) == 5
    assert list(UsageRecord.objects.values_list("request_id", flat=True)) == ["honest"]
    assert not AuditEvent.objects.filter(delivery="forged").exists()
    event = AuditEvent.objects.get(action="usage:refuse")
    assert (event.outcome, json.loads(event.canonical)["data"]["count"]) == ("denied", 4)
    assert {fields[b"error"] for _, fields in redis.xrange(DEAD_STREAM)} == {b"ForgedEntry"}
    assert "Forged entries" in usage_forged()
    assert any(alarm.check is usage_forged and alarm.critical for alarm in ALARMS)


def test_a_flood_of_forgeries_fills_no_log(redis):
    for _ in range(3):
        send(redis, ENTRY.to_json(), ENTRY.to_json())
        collect_once(redis, consumer="one", block_ms=1)
    assert AuditEvent.objects.count() == 1
    assert redis.xlen(DEAD_STREAM) == 6


def test_no_alarm_without_a_forgery(redis):
    send(redis, ENTRY)
    collect_once(redis, consumer="one", block_ms=1)
    assert usage_forged() == ""


def test_forged_usage_does_not_count_on_budgets(redis):
    quotas_reconcile(repair=True)
    send(redis, replace(ENTRY, cost_micro=5_000_000).to_json())
    assert quotas_reconcile(repair=True).drifts == []


@pytest.mark.parametrize(
    "changes",
    [
        {"cost_micro": MILLION_EUR},
        {"cost_micro": -1},
        {"device_ms": 86_400_000},
        {"completion_tokens": 2**31 - 1},
        {"prompt_tokens": 0, "completion_tokens": 0, "unit": "images", "units": 10**10},
        {"prompt_tokens": 0, "completion_tokens": 0, "unit": "images", "units": -1},
        {"prompt_tokens": 0, "completion_tokens": 0, "unit": "cheese", "units": 1},
        {"unit": "images", "units": 1},
        {"endpoint": "jobs/fine_tune", "device_ms": 20 * 366 * 86_400_000},
    ],
    ids=[
        "a million for one request",
        "a credit",
        "a day on the device",
        "tokens",
        "images",
        "a credit of images",
        "no unit",
        "images and tokens",
        "20 years",
    ],
)
def test_usage_that_is_not_plausible_is_put_aside_even_with_a_mac(redis, changes):
    send(redis, replace(ENTRY, **changes))
    collect_once(redis, consumer="one", block_ms=1)
    assert not UsageRecord.objects.exists()
    assert redis.xlen(DEAD_STREAM) == 1


def test_an_entry_reads_back_only_with_its_own_mac():
    text = ENTRY.encode()
    assert UsageEntry.decode(text) == ENTRY
    for broken in (text[1:], text[:-1], text.replace("engineering", "finance"), ENTRY.to_json()):
        with pytest.raises(ForgedEntry):
            UsageEntry.decode(broken)


def test_unit_and_amount_are_under_the_mac():
    drawn = replace(ENTRY, prompt_tokens=0, completion_tokens=0, unit=Unit.IMAGES, units=12)
    text = drawn.encode()
    assert UsageEntry.decode(text) == drawn
    for true, false in (('"unit":"images"', '"unit":"points"'), ('"units":12', '"units":1')):
        assert true in text
        with pytest.raises(ForgedEntry):
            UsageEntry.decode(text.replace(true, false))


def test_a_process_without_the_key_writes_no_usage_and_starts_no_controller(redis, settings):
    settings.USAGE_KEY = ""
    with pytest.raises(ImproperlyConfigured, match="ASSAY_USAGE_KEY"):
        Controller().start()
    with pytest.raises(ImproperlyConfigured, match="ASSAY_USAGE_KEY"):
        ENTRY.encode()


def test_what_a_job_used_on_a_worker_without_the_key_is_settled_by_the_controller(
    redis, settings, django_capture_on_commit_callbacks, monkeypatch
):
    quotas_reconcile(repair=True)
    key, settings.USAGE_KEY = settings.USAGE_KEY, ""
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        holds.hold_open(reference="job_1", department="engineering", kind="fine_tune")
        holds.hold_end(reference="job_1", outcome="failed")
    assert redis.xlen(USAGE_STREAM) == 0
    settings.USAGE_KEY = key
    monkeypatch.setattr(holds, "RESEND_AFTER", holds.RESEND_AFTER * 0)
    assert holds.holds_settle() == 1
    collect_once(redis, consumer="one", block_ms=1)
    assert BudgetHold.objects.get().state == HoldState.SETTLED
    assert store.client().xlen(DEAD_STREAM) == 0
