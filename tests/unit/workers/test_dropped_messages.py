"""Messages that workers dropped are one event, an alarm and a figure."""

from __future__ import annotations

import pytest
import redis as redis_module

from governance.audit.alarms import alarms_check
from governance.audit.models import AuditAlarm, AuditEvent
from workers.dropped_messages import dropped_messages_record, messages_dropped
from workers.wire import dropped_key

pytestmark = pytest.mark.django_db(transaction=True)


def test_each_message_is_recorded_once(redis: redis_module.Redis) -> None:
    assert dropped_messages_record() == 0
    assert messages_dropped() == ""
    redis.zadd(dropped_key(""), {"engine@a": 3, "engine@b": 1})
    assert (dropped_messages_record(), dropped_messages_record()) == (4, 0)
    redis.zadd(dropped_key(""), {"engine@a": 5, "engine@b": 1})
    assert dropped_messages_record() == 2
    # It has started anew.
    redis.zadd(dropped_key(""), {"engine@a": 1})
    assert dropped_messages_record() == 1
    events = AuditEvent.objects.filter(action="worker:drop_messages").order_by("pk")
    assert events.count() == 3
    assert messages_dropped().endswith("Messages were dropped by: engine@a.")
    alarms_check()
    assert AuditAlarm.objects.get(name="messages_dropped").critical


def test_what_a_worker_says_of_itself_is_bounded(redis: redis_module.Redis) -> None:
    names = {f"w{number}".encode() + b"\xff\0" * 200: float("inf") for number in range(100)}
    redis.zadd(dropped_key(""), {**names, b"below": float("-inf")})
    assert dropped_messages_record() == 64 * 2**31
    assert dropped_messages_record() == 0
