"""Pages of the audit log over a million events: the lists of portal and API, with every filter.

SQL generates the events in the pattern of the gateway, people and the controller: five departments
of very different sizes, one key with three in five events, rare actions, a rare key, and some
events that were recorded six hours late. Django's test client requests the pages, signed in, with
all middleware but without a network. The subject is the median, followed by the 95th percentile and
the processor time (of Django and the database); the reference is the newest page without a filter,
interleaved with the subject.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlencode

from benchmarks.stores import own_stores
from benchmarks.table import Row, show

EVENTS, QUICK_EVENTS = 1_000_000, 200_000
PEOPLE = 200
UNSEALED = 500
DAYS = 90
END = datetime(2026, 11, 25, tzinfo=UTC)

_EVENTS = """
INSERT INTO governance_auditevent (id, sequence, occurred_at, actor_kind, actor_id, actor_name,
    department, action, outcome, subject_type, subject_id, subject_name, reason, request_id,
    policy_version, delivery, canonical, leaf_hash)
OVERRIDING SYSTEM VALUE
SELECT n, n - 1,
    timestamptz '2026-11-25 00:00Z' - (%(events)s - n) * (interval '90 days' / %(events)s)
        - CASE WHEN n %% 20011 = 0 THEN interval '6 hours' ELSE random() * interval '3 s' END,
    kind, actor, CASE kind WHEN 'person' THEN '' WHEN 'key' THEN 'loader ' || actor ELSE actor END,
    CASE WHEN place < 0.55 THEN 'clinical' WHEN place < 0.8 THEN 'engineering'
        WHEN place < 0.95 THEN 'finance' WHEN place < 0.989 THEN 'legal'
        WHEN place < 0.99 THEN 'archive' ELSE '' END,
    action, CASE WHEN luck < 0.01 THEN 'denied' WHEN luck < 0.0105 THEN 'failed' ELSE 'allowed' END,
    type, subject, name, '', md5('request' || n), 1 + n * 4 / %(events)s,
    CASE action WHEN 'deployment:invoke' THEN md5('request' || n) ELSE '' END,
    decode(repeat(md5(n::text), 30), 'hex'), sha256(n::text::bytea)
FROM (
    SELECT *,
        CASE WHEN who < 0.85 THEN 'key' WHEN who < 0.95 THEN 'person' ELSE 'service' END AS kind,
        CASE WHEN who < 0.6 THEN '1' WHEN n %% 49999 = 17 THEN '777'
            WHEN who < 0.85 THEN (2 + n * 7919 %% 300)::text
            WHEN who < 0.95 THEN (1 + n * 31 %% %(people)s)::text ELSE 'controller' END AS actor,
        CASE WHEN who < 0.85 THEN 'deployment:invoke' WHEN n %% 5003 = 0 THEN 'role:grant'
            WHEN what < 0.3 THEN 'job:create' WHEN what < 0.5 THEN 'job:finish'
            WHEN what < 0.6 THEN 'review:comment' WHEN what < 0.7 THEN 'person:sign_in'
            WHEN what < 0.8 THEN 'version:register' WHEN what < 0.9 THEN 'release:submit'
            ELSE 'model:create' END AS action,
        CASE WHEN who < 0.85 THEN 'deployment' WHEN what < 0.5 THEN 'job'
            WHEN what < 0.6 THEN 'review' WHEN what < 0.7 THEN 'person'
            WHEN what < 0.8 THEN 'version' WHEN what < 0.9 THEN 'release' ELSE 'model' END AS type,
        CASE WHEN who < 0.85 THEN (1 + n %% 20)::text WHEN what < 0.5 THEN md5((n / 3)::text)
            WHEN what < 0.6 THEN (n / 400)::text WHEN what < 0.7 THEN (1 + n %% %(people)s)::text
            ELSE (n / 200)::text END AS subject,
        CASE WHEN who < 0.85 THEN 'docstring-writer-' || (1 + n %% 20)
            WHEN what < 0.5 THEN 'fine-tune of line-' || n / 200
            WHEN what < 0.6 THEN 'release ' || n / 400 WHEN what < 0.7 THEN ''
            ELSE 'line-' || n / 200 END AS name
    FROM (
        SELECT n, random() AS who, random() AS what, random() AS place, random() AS luck
        FROM generate_series(1::bigint, %(events)s) AS n
    ) AS drawn
) AS made
"""


def run(*, quick: bool = False) -> list[Row]:
    """Start separate stores, measure, and stop them. Django must not be set up yet."""
    with own_stores(ASSAY_ALLOWED_HOSTS="testserver"):
        return _measure(QUICK_EVENTS if quick else EVENTS, rounds=5 if quick else 25)


def _measure(events: int, *, rounds: int) -> list[Row]:
    started = time.perf_counter()
    people = _company()
    _write(events)
    print(  # noqa: T201
        f"{events:,} events in {time.perf_counter() - started:.0f} s; "
        "number of queries per page in brackets"
    )
    rows = []
    newest = partial(_get, _client(people["auditor"]), "/audit", {})
    for name, role, address, parameters in _pages(events):
        get = partial(_get, _client(people[role]), address, parameters)
        queries = _queries(get)
        ours, plain = [], []
        for _ in range(rounds):
            ours.append(_cost(get))
            plain.append(_cost(newest))
        wall, processor = zip(*ours, strict=True)
        plain_wall, plain_processor = zip(*plain, strict=True)
        high, plain_high = _high(wall), _high(plain_wall)
        rows += [
            Row.of(f"{name} ({queries})", "ms", wall, plain_wall),
            Row(f"… 95%, {role}", "ms", high, plain_high, rounds),
            Row.of("… processor time", "ms", processor, plain_processor),
        ]
    for place, measure in enumerate(("median", "95%", "processor time")):
        slowest = max(row.subject for row in rows[place::3])
        print(f"slowest page, {measure}: {slowest:.0f} ms")  # noqa: T201
    return rows


def _pages(events: int) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return the pages to measure: name, person, path and parameters."""
    deep = {"before": events // 4}
    busy = {"actor_kind": "key", "actor_id": "1"}
    rare = {"actor_kind": "key", "actor_id": "777"}
    day = {
        "since": f"{END - timedelta(days=DAYS - 20):%Y-%m-%d}",
        "until": f"{END - timedelta(days=DAYS - 20):%Y-%m-%d}",
    }
    hour = {"since": (END - timedelta(hours=1)).isoformat()}
    request = {"request_id": "0123456789abcdef"}
    filters: list[tuple[str, dict[str, Any]]] = [
        ("newest", {}),
        ("deep", deep),
        ("the busy key", busy),
        ("the busy key, deep", {**busy, **deep}),
        ("a rare key", rare),
        ("a rare action", {"action": "role:grant"}),
        ("actions on jobs", {"action": "job:"}),
        ("refused", {"outcome": "denied"}),
        ("failed, deep", {"outcome": "failed", **deep}),
        ("one subject", {"subject_type": "deployment", "subject_id": "3"}),
        ("a kind of thing", {"subject_type": "release"}),
        ("a small department", {"department": "archive"}),
        ("a policy", {"policy_version": "2"}),
        ("a request", request),
        ("the last hour", hour),
        ("a day long ago", day),
        ("a day long ago, the busy key", {**day, **busy}),
        ("a day long ago, a rare action", {**day, "action": "role:grant"}),
        ("two frequent that never meet", {**busy, "action": "job:create"}),
        ("the same, one day long ago", {**busy, "action": "job:create", **day}),
        ("a person by e-mail", {"who": "person17@example.org"}),
        ("search: part of a name", {"query": "number1"}),
        ("search: a thing's name", {"query": "docstring-writer"}),
        ("search: many things", {"query": "fine-tune"}),
        ("search: many things, refused", {"query": "fine-tune", "outcome": "denied"}),
        ("search: nothing", {"query": "zeppelin"}),
    ]
    pages = [(f"portal: {name}", "auditor", "/audit", parameters) for name, parameters in filters]
    lead = [
        ("all of theirs", {}),
        ("deep", deep),
        ("a rare key", rare),
        ("refused", {"outcome": "denied"}),
        ("a day long ago", day),
        ("search: a thing's name", {"query": "docstring-writer"}),
    ]
    pages += [(f"portal: {name}", "lead", "/audit", parameters) for name, parameters in lead]
    pages += [
        (f"portal: {name}", "small lead", "/audit", parameters)
        for name, parameters in (lead[0], lead[5])
    ]
    moments = {name: f"{value}T00:00:00Z" for name, value in day.items()}
    moments["until"] = f"{END - timedelta(days=DAYS - 21):%Y-%m-%d}T00:00:00Z"
    api = [
        ("newest", {}),
        ("the busy key", busy),
        ("a rare action", {"action": "role:grant"}),
        ("a day long ago", moments),
        ("search: a thing's name", {"query": "docstring-writer"}),
    ]
    return pages + [
        (f"API: {name}", "auditor", "/api/v1/audit/events", parameters) for name, parameters in api
    ]


def _company() -> dict[str, Any]:
    from governance.people.models import Department, Person, RoleAssignment
    from governance.policy.services import policy_bootstrap

    policy_bootstrap()
    for number in range(PEOPLE):
        Person.objects.create(
            email=f"person{number + 1}@example.org", name=f"Person Number{number + 1}"
        )
    people = {}
    for who, role, slug in (
        ("auditor", "auditor", None),
        ("lead", "lead", "clinical"),
        ("small lead", "lead", "archive"),
    ):
        place = None if slug is None else Department.objects.create(slug=slug, name=slug)
        people[who] = Person.objects.create(email=f"{role}.{slug}@example.org", name=who)
        RoleAssignment.objects.create(person=people[who], role=role, department=place)
    return people


def _write(events: int) -> None:
    """Write the events, all but the last ones sealed, and the notes of sealing in one statement."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM governance_auditevent")
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(_EVENTS, {"events": events, "people": PEOPLE})
        cursor.execute(
            "UPDATE governance_auditevent SET sequence = NULL WHERE id > %s", [events - UNSEALED]
        )
        cursor.execute("ALTER TABLE governance_auditevent ENABLE TRIGGER USER")
        # Run the body of the trigger's function once, for all events.
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = 'assay_audit_noted'")
        (source,) = cursor.fetchone() or ("",)
        cursor.execute(
            "CREATE TEMPORARY VIEW sealed AS "
            "SELECT * FROM governance_auditevent WHERE sequence IS NOT NULL"
        )
        cursor.execute(source.partition("BEGIN")[2].partition("RETURN NULL")[0])
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('governance_auditevent', 'id'), %s)", [events]
        )
        # Autovacuum would do this during normal writes.
        cursor.execute("VACUUM ANALYZE")


def _client(person: Any) -> Any:
    from django.test import Client

    client = Client()
    client.force_login(person)
    return client


def _get(client: Any, address: str, parameters: dict[str, Any]) -> None:
    answer = client.get(f"{address}?{urlencode(parameters)}" if parameters else address)
    if answer.status_code != 200:
        raise RuntimeError(f"{address} answered {answer.status_code}: {answer.content[:300]!r}")


def _queries(get: Callable[[], None]) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        get()
    return len(captured)


def _high(samples: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return quantiles(samples, n=20, method="inclusive")[18]


def _cost(once: Callable[[], None]) -> tuple[float, float]:
    """Measure one page, in ms: total time, and processor time of this process and the database."""
    from django.db import connection

    connection.ensure_connection()
    backend = connection.connection.info.backend_pid
    started, busy = time.perf_counter(), time.process_time() + _busy_s(backend)
    once()
    took = time.perf_counter() - started
    return 1000 * took, 1000 * (time.process_time() + _busy_s(backend) - busy)


def _busy_s(process: int) -> float:
    """Return the processor time of a process, in seconds."""
    nanoseconds = Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()[0]
    return int(nanoseconds) / 1e9


if __name__ == "__main__":
    show("Finding audit events", "newest", run(quick="--quick" in sys.argv))
