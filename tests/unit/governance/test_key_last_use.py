"""Time of a key's last use: saved with its usage, in batches."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from redis import Redis

from governance.keys.models import ApiKey
from governance.people.models import Department
from tests.unit.governance.test_usage_collector import ENTRY, REFUSED, collect, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> ApiKey:
    return ApiKey.objects.create(
        public_id=ENTRY.key_public_id,
        secret_hmac=b"",
        pepper_version=1,
        name="docs bot",
        department=Department.objects.create(slug="engineering", name="Engineering"),
        expires_at=timezone.now() + timedelta(days=1),
    )


def test_the_newest_use_of_a_batch_counts_and_a_refusal_is_none(redis: Redis, key: ApiKey) -> None:
    later = ENTRY.occurred_at + 60
    send(
        redis,
        replace(ENTRY, request_id="req-a", occurred_at=later),
        ENTRY,
        replace(REFUSED, occurred_at=later + 60),
    )
    assert collect(redis) == 3
    key.refresh_from_db()
    assert key.last_used_at == datetime.fromtimestamp(later, tz=UTC)


def test_what_arrives_late_turns_no_clock_back(redis: Redis, key: ApiKey) -> None:
    now = timezone.now()
    ApiKey.objects.update(last_used_at=now)
    send(redis, ENTRY)
    assert collect(redis) == 1
    key.refresh_from_db()
    assert key.last_used_at == now


def test_a_key_that_is_gone_holds_nothing_up(redis: Redis) -> None:
    send(redis, ENTRY)
    assert collect(redis) == 1
