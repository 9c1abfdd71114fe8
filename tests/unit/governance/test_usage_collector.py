from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    transaction,
)
from django.utils import timezone
from redis import Redis

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.people.models import Department
from governance.usage.collector import DEAD_STREAM, _write, collect_once
from governance.usage.models import ShadowTotal, UsageRecord
from governance.usage.records import USAGE_GROUP, USAGE_STREAM, Compared, UsageEntry
from governance.usage.sealing import seal
from governance.usage.shadows import shadow_evidence
from governance.usage.units import Unit
from tests.waiting import wait_until

ENTRY = UsageEntry(
    request_id="req-1",
    occurred_at=1_790_000_000.25,
    outcome="ok",
    endpoint="/v1/chat/completions",
    department="engineering",
    key_public_id="abcd",
    key_name="docs bot",
    deployment="docstring-writer",
    release=7,
    version_digest="d" * 64,
    prompt_tokens=11,
    completion_tokens=5,
    policy_version=1,
    rules=["member-invokes"],
    client_address="10.0.0.1",
)
REFUSED = replace(
    ENTRY, request_id="req-2", ran=False, outcome="policy_denied", reason="Finance may not."
)

pytestmark = pytest.mark.django_db


def collect(client, consumer: str = "one", **options) -> int:
    return collect_once(client, consumer=consumer, block_ms=1, **options)


def send(client, *entries: UsageEntry | str | bytes) -> None:
    for entry in entries:
        body = entry.encode() if isinstance(entry, UsageEntry) else entry
        client.xadd(USAGE_STREAM, {"entry": body})


def left_over(client) -> tuple[int, int]:
    return client.xlen(USAGE_STREAM), client.xpending(USAGE_STREAM, USAGE_GROUP)["pending"]


def test_nothing_to_collect_is_no_error(redis):
    assert collect(redis) == 0
    assert collect(redis) == 0


def test_the_settlement_took_the_time_until_redis_accepted_it(redis):
    seconds, _ = redis.time()
    for name, began_ms in (("timed", seconds * 1000 - 5_000), ("unknown", 0)):
        send(redis, replace(ENTRY, request_id=name, total_ms=2_000, began_ms=began_ms, admit_ms=3))
    collect(redis)
    times = dict(UsageRecord.objects.values_list("request_id", "settle_ms"))
    assert times["unknown"] is None
    assert 3_000 <= times["timed"] < 5_000
    assert set(UsageRecord.objects.values_list("admit_ms", "retry_ms")) == {(3, None)}


def test_times_that_came_later_do_not_change_the_digests_of_earlier_records(redis):
    send(redis, ENTRY)
    collect(redis)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT assay_record_digest(u), encode(sha256(convert_to((to_jsonb(u) - 'admit_ms'"
            " - 'retry_ms' - 'connect_ms' - 'settle_ms')::text, 'UTF8')), 'hex')"
            " FROM governance_usagerecord u"
        )
        digest, earlier = cursor.fetchone()
        assert digest == earlier
        cursor.execute(
            "SELECT assay_record_digest(a) = assay_record_digest(b) FROM"
            " (SELECT 1 AS id, 5 AS admit_ms) AS a, (SELECT 1 AS id, 6 AS admit_ms) AS b"
        )
        assert cursor.fetchone() == (False,)


def test_a_request_that_ran_is_a_usage_record_and_an_audit_event(redis):
    send(redis, ENTRY)
    assert collect(redis) == 1
    record = UsageRecord.objects.get()
    assert (record.request_id, record.prompt_tokens, record.rules) == ("req-1", 11, ENTRY.rules)
    assert record.occurred_at.timestamp() == ENTRY.occurred_at
    event = AuditEvent.objects.get()
    assert (event.action, event.outcome) == ("deployment:invoke", "allowed")
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("key", "abcd", "docs bot")
    assert (event.request_id, event.policy_version) == ("req-1", 1)
    assert json.loads(event.canonical)["client_address"] == "10.0.0.1"
    assert left_over(redis) == (0, 0)


def test_what_was_used_of_another_unit_than_tokens_is_recorded_in_that_unit(redis):
    drawn = replace(ENTRY, prompt_tokens=0, completion_tokens=0, unit=Unit.IMAGES, units=12)
    send(redis, drawn, replace(ENTRY, request_id="req-2"))
    assert collect(redis) == 2
    images, tokens = UsageRecord.objects.order_by("id")
    assert (images.unit, images.units, images.prompt_tokens) == ("images", 12, 0)
    assert (tokens.unit, tokens.units, tokens.metered) == ("tokens", 16, 0)
    first = AuditEvent.objects.order_by("id").first()
    data = json.loads(first.canonical)["data"]
    assert (data["unit"], data["units"]) == ("images", 12)


def test_an_entry_of_an_older_gateway_is_in_tokens(redis):
    old = json.loads(ENTRY.to_json())
    del old["unit"], old["units"]
    send(redis, seal(json.dumps(old)))
    assert collect(redis) == 1
    record = UsageRecord.objects.get()
    assert (record.unit, record.units) == ("tokens", 16)


def test_a_record_that_an_older_controller_writes_is_in_tokens():
    """While processes of two versions run; the columns that it does not know have defaults."""
    UsageRecord.objects.create(request_id="r", occurred_at=timezone.now())
    newer = {"id", "unit", "metered", "units"}
    known = [f.column for f in UsageRecord._meta.concrete_fields if f.column not in newer]
    given = {"request_id": "'older'", "prompt_tokens": "2147483647", "completion_tokens": "5"}
    values = [given.get(name, name) for name in known]
    table = UsageRecord._meta.db_table
    copy = f"INSERT INTO {table} ({', '.join(known)}) SELECT {', '.join(values)} FROM {table}"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(copy)
    old = UsageRecord.objects.get(request_id="older")
    assert (old.unit, old.units) == ("tokens", 2147483652)


@pytest.mark.parametrize(
    "changes",
    [{"unit": "images", "prompt_tokens": 1}, {"unit": "tokens", "metered": 1}],
    ids=["tokens in images", "another amount of tokens"],
)
def test_the_database_too_refuses_a_record_in_two_units(changes):
    with pytest.raises(IntegrityError), transaction.atomic():
        UsageRecord.objects.create(request_id="r", occurred_at=timezone.now(), **changes)


def test_a_refused_request_is_an_audit_event_only(redis):
    send(redis, REFUSED)
    assert collect(redis) == 1
    assert not UsageRecord.objects.exists()
    event = AuditEvent.objects.get()
    assert (event.outcome, event.reason) == ("denied", "Finance may not.")


def test_a_name_with_half_a_surrogate_pair_is_recorded_with_a_question_mark(redis):
    odd = replace(ENTRY, key_name="odd \ud800 name")
    assert UsageEntry.decode(odd.encode()).key_name == "odd ? name"


def test_an_entry_is_the_same_after_its_way_through_the_broker(redis):
    full = replace(ENTRY, rules=["a"], shadowed=["b"], decision={"allowed": True}, reason="é 🙂")
    assert UsageEntry.decode(full.encode()) == full


def test_what_is_delivered_twice_counts_once(redis):
    for _ in range(2):
        send(redis, ENTRY, REFUSED, ENTRY)
        assert collect(redis) == 3
    assert UsageRecord.objects.count() == 1
    assert AuditEvent.objects.count() == 2


def test_copies_for_a_shadow_are_summed_once_for_each_pair_of_releases(redis):
    compared = Compared(
        against=7, failed=False, total_ms=80, units=16, cost_micro=5, measure="chrF", agreement=0.5
    )
    copy = replace(ENTRY, endpoint="jobs/shadow", release=9, total_ms=120, cost_micro=2)
    copies = [
        replace(copy, request_id="one", compared=compared),
        replace(copy, request_id="two", compared=replace(compared, agreement=1.0)),
        replace(copy, request_id="three", outcome="failed", compared=compared),
        replace(copy, request_id="four", compared=replace(compared, failed=True)),
        replace(copy, request_id="five", compared=replace(compared, against=8, agreement=None)),
        replace(copy, request_id="six"),
    ]
    send(redis, *copies)
    assert collect(redis) == 6
    send(redis, *copies)
    assert collect(redis) == 6
    row, other = ShadowTotal.objects.order_by("against")
    assert (row.release, row.against, row.department) == (9, 7, "engineering")
    assert (row.copies, row.failed, row.against_failed, row.answered) == (4, 1, 1, 2)
    assert (row.total_ms, row.against_ms, row.cost_micro, row.against_cost_micro) == (
        240,
        160,
        4,
        10,
    )
    assert (row.units, row.against_units) == (32, 32)
    assert (row.measure, row.compared, row.agreement) == ("chrF", 2, 1.5)
    assert shadow_evidence(row)["agreement"] == 0.75
    assert (other.copies, other.compared, shadow_evidence(other)["agreement"]) == (1, 0, None)
    with pytest.raises(DatabaseError, match="governance_shadowtotal"), transaction.atomic():
        row.delete()


def sessions_wait() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return cursor.fetchone()[0]


@pytest.mark.django_db(transaction=True)
def test_two_collectors_that_have_the_same_copy_sum_it_once():
    compared = Compared(against=7, failed=False, total_ms=80, units=16, cost_micro=5)
    copy = replace(ENTRY, endpoint="jobs/shadow", release=9, compared=compared)
    # The first use of a lock inserts its row, for which the other session would wait, too.
    _write([replace(copy, request_id="req-0")], [None])

    def write():
        try:
            _write([copy], [None])
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            _write([copy], [None])
            other = threads.submit(write)
            wait_until(sessions_wait)
        other.result()
    assert ShadowTotal.objects.get().copies == 2
    assert UsageRecord.objects.count() == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "/v1/chat/completions"},
        {"release": None},
        {"compared": {"agreement": 1.1}},
        {"compared": {"cost_micro": -1}},
        {"compared": {"measure": "m" * 21}},
    ],
)
def test_an_implausible_comparison_is_put_aside(redis, changes):
    compared = Compared(against=7, failed=False, total_ms=80, units=16, cost_micro=5)
    compared = replace(compared, **changes.pop("compared", {}))
    entry = replace(ENTRY, endpoint="jobs/shadow", compared=compared)
    send(redis, replace(entry, **changes))
    assert collect(redis) == 1
    assert redis.xlen(DEAD_STREAM) == 1
    assert not ShadowTotal.objects.exists()


def test_a_key_that_is_known_is_named_as_everywhere_else(redis):
    department = Department.objects.create(slug="engineering", name="Engineering")
    key = ApiKey.objects.create(
        public_id="abcd",
        secret_hmac=b"",
        pepper_version=1,
        name="docs bot",
        department=department,
        expires_at="2099-01-01T00:00Z",
    )
    send(redis, ENTRY, replace(REFUSED, key_public_id="", department=""))
    collect(redis)
    by_request = {event.request_id: event for event in AuditEvent.objects.all()}
    assert by_request["req-1"].actor_id == str(key.pk)
    assert by_request["req-2"].actor_kind == "anonymous"


POISON = [
    seal(""),
    seal("not json"),
    seal("[]"),
    seal('{"request_id": "x"}'),
    replace(ENTRY, request_id="").encode(),
    replace(ENTRY, prompt_tokens=-1).encode(),
    replace(ENTRY, prompt_tokens=2**40).encode(),
    replace(ENTRY, occurred_at=1e30).encode(),
    replace(ENTRY, occurred_at=float("nan")).encode(),
    replace(ENTRY, deployment="x" * 81).encode(),
    replace(ENTRY, department="nul\x00").encode(),
    seal(json.dumps({"request_id": "x", "occurred_at": "soon", "outcome": "", "endpoint": ""})),
    seal(json.dumps({**json.loads(ENTRY.to_json()), "prompt_tokens": "11"})),
]


@pytest.mark.parametrize("poison", POISON)
def test_poison_is_put_aside_and_holds_nothing_up(redis, poison, caplog):
    send(redis, replace(ENTRY, request_id="before"), poison, replace(ENTRY, request_id="after"))
    assert collect(redis) == 3
    assert set(UsageRecord.objects.values_list("request_id", flat=True)) == {"before", "after"}
    assert AuditEvent.objects.count() == 2
    [(_, dead)] = redis.xrange(DEAD_STREAM)
    assert dead[b"entry"] == (poison if isinstance(poison, bytes) else poison.encode())
    assert dead[b"error"]
    assert "was moved to" in caplog.text
    assert left_over(redis) == (0, 0)


def test_an_entry_without_its_field_is_put_aside(redis):
    redis.xadd(USAGE_STREAM, {"other": "x"})
    assert collect(redis) == 1
    assert redis.xlen(DEAD_STREAM) == 1


def test_a_newer_gateway_may_say_more(redis):
    send(redis, seal(json.dumps({**json.loads(ENTRY.to_json()), "energy_j": 3})))
    collect(redis)
    assert UsageRecord.objects.count() == 1


def test_what_a_dead_consumer_left_pending_is_collected(redis):
    send(redis, ENTRY)
    redis.xgroup_create(USAGE_STREAM, USAGE_GROUP, id="0")
    redis.xreadgroup(USAGE_GROUP, "dead", {USAGE_STREAM: ">"})
    assert collect(redis, "alive") == 0
    time.sleep(0.002)
    assert collect(redis, "alive", claim_idle_ms=1) == 1
    assert UsageRecord.objects.count() == 1
    assert left_over(redis) == (0, 0)


def test_a_flushed_broker_is_no_obstacle(redis):
    send(redis, ENTRY)
    collect(redis)
    redis.flushall()
    send(redis, replace(ENTRY, request_id="later"))
    assert collect(redis) == 1
    assert UsageRecord.objects.count() == 2


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}])
def test_any_kind_of_client_will_do(redis, options):
    with Redis.from_url(os.environ["REDIS_URL"], **options) as client:
        send(client, ENTRY)
        assert collect(client) == 1
        assert collect(client) == 0
    assert UsageRecord.objects.count() == 1
    assert not redis.exists(DEAD_STREAM)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_does_not_answer_loses_nothing(redis):
    send(redis, ENTRY)
    with psycopg.connect(dbname=connection.settings_dict["NAME"], **address()) as other:
        other.execute("LOCK TABLE governance_usagerecord")
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '20ms'")
        with pytest.raises(OperationalError):
            collect(redis)
    connection.close()  # and with it the setting
    assert left_over(redis) == (1, 1)
    assert not redis.exists(DEAD_STREAM)
    time.sleep(0.002)
    assert collect(redis, claim_idle_ms=1) == 1
    assert UsageRecord.objects.count() == AuditEvent.objects.count() == 1


def address() -> dict[str, str]:
    """Return the address of the test database, as psycopg's parameters."""
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    given = {name: connection.settings_dict[key] for name, key in names.items()}
    return {name: value for name, value in given.items() if value}
