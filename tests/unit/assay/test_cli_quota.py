"""`assay quota …` against a real server."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from governance.quotas.models import Price, QuotaLimit
from governance.quotas.wire import READY_KEY
from governance.usage.models import UsageRecord
from tests.unit.assay.test_cli import Run, ada, run, signed_in

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def test_limits_are_set_listed_asked_for_and_taken_away(signed_in: Run, redis: Any) -> None:
    redis.set(READY_KEY, 1)
    _, out, _ = signed_in("quota", "set", "money_per_month", "25.5", "--organization", code=0)
    assert "organization is limited to 25.50 EUR per month." in out
    _, out, _ = signed_in(
        "quota", "set", "tokens_per_day", "0", "--department", "clinical", "--shadow", code=0
    )
    assert "would be limited" in out
    _, out, _ = signed_in("quota", "list", code=0)
    assert "25.50 EUR per month" in out
    assert "0 tokens per day shadow" in out
    assert QuotaLimit.objects.get(kind="money_per_month").limit == 25_500_000
    signed_in("quota", "set", "money_per_month", "0", "--organization", code=0)
    signed_in("keys", "create", "clinical", "batch", code=0)
    _, out, _ = signed_in("keys", "list", code=0)
    key_id = next(line.split()[0] for line in out.splitlines() if "batch" in line)
    _, out, _ = signed_in("quota", "which", key_id, "--deployment", "writer", code=0)
    assert "Stopped by organization money_per_month." in out
    signed_in("quota", "set", "money_per_month", "none", "--organization", code=0)
    _, out, _ = signed_in("quota", "which", key_id, code=0)
    assert "Not stopped now." in out
    for wrong in (
        ("tokens_per_day", "many"),
        ("money_per_month", "NaN"),
        ("money_per_month", "1,5"),
        ("money_per_month", "1_5"),
        ("money_per_month", "1e999999"),
        ("money_per_month", "١٢"),
        ("money_per_month", "9" * 5000),
        ("tokens_per_day", "9" * 5000),
    ):
        _, _, err = signed_in("quota", "set", *wrong, "--organization", code=1)
        assert err.startswith("Error:")
    _, _, err = signed_in("quota", "set", "tokens_per_day", "5", code=4)
    assert "exactly one of these" in err


def test_prices_and_use(signed_in: Run) -> None:
    price = ("api", "post", "prices")
    signed_in(*price, "-F", "deployment=null", "-F", "device_second=500", code=0)
    per_million = ("-F", "prompt=150000", "-F", "completion=600000")
    signed_in(*price, "-f", "deployment=writer", *per_million, code=0)
    assert set(Price.objects.values_list("deployment", "prompt", "device_second")) == {
        ("", 0, 500),
        ("writer", 150_000, 0),
    }
    signed_in(*price, "-f", "deployment=writer", "-F", "remove=true", code=0)
    assert Price.objects.count() == 1
    UsageRecord.objects.create(
        request_id="req_1", occurred_at=timezone.now(), department="clinical", key_public_id="a",
        deployment="writer", version_digest="", endpoint="/v1/x", prompt_tokens=1200,
        cost_micro=1500, device_ms=2500, outcome="ok",
    )  # fmt: skip
    UsageRecord.objects.create(
        request_id="job_1", occurred_at=timezone.now(), department="clinical", outcome="ok",
        endpoint="jobs/evaluate", device_ms=9000,
    )  # fmt: skip
    _, out, _ = signed_in("quota", "usage", "--by", "deployment", code=0)
    for words in ("writer", "jobs", "1,200", "2.5", "0.0015 EUR"):
        assert words in out


def test_units_have_limits_prices_and_sums_of_their_own(signed_in: Run, redis: Any) -> None:
    redis.set(READY_KEY, 1)
    _, out, _ = signed_in("quota", "set", "images_per_month", "50", "--organization", code=0)
    assert "organization is limited to 50 images per month." in out
    price = ("api", "post", "prices", "-f", "deployment=painter", "-F")
    signed_in(*price, 'units={"images": 40000, "audio_seconds": 100}', code=0)
    assert Price.objects.get().units == {"images": 40_000, "audio_seconds": 100}
    for wrong in ('{"tokens": 1}', '{"cheese": 1}', "images", '{"images": -1}'):
        _, _, err = signed_in(*price, f"units={wrong}", code=4)
        assert err.startswith("Error:")
    for unit in ("images", "points"):
        UsageRecord.objects.create(
            request_id=unit, occurred_at=timezone.now(), department="clinical", outcome="ok",
            deployment="painter", endpoint="/v1/x", unit=unit, metered=1200,
        )  # fmt: skip
    _, out, _ = signed_in("quota", "usage", code=0)
    assert "1,200 images" in out


def test_reconcile_says_what_differs_and_repairs_it(signed_in: Run, redis: Any) -> None:
    today = f"{timezone.now():%Y-%m-%d}"
    redis.set(READY_KEY, 1)
    redis.hset(f"assay:quota:day:{today}:organization", "tokens", 7)
    _, out, err = signed_in("quota", "reconcile", code=1)
    assert "organization" in out
    assert "1 counters differ" in err
    _, out, _ = signed_in("quota", "reconcile", "--repair", code=0)
    assert "are corrected" in out
    _, out, _ = signed_in("quota", "reconcile", code=0)
    assert "agree with the ledger" in out
    redis.flushall()
    _, out, _ = signed_in("quota", "reconcile", code=0)
    assert "were missing" in out
