"""Time of a page of the request log under several filters.

Set-based SQL writes records of usage of the last 90 days, and content for a part of them: without
triggers, into unlogged tables, whose indexes are built afterward. Ten million records take minutes
and about 6 GB of disk. Then the lead of the largest department reads pages through the selectors,
under row-level security. Half of them are the newest, the others begin at random times. The goal is
a 95th percentile of 150 ms for each filter; the exit status is 1 if one takes longer.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.growth import DAYS, _say, write_records
from benchmarks.stores import own_stores

GOAL_MS = 150
ROUNDS, QUICK_ROUNDS = 60, 20
SLUG, USER, BUSY_USER = "engineering", "patient-7", "service-account"
# One request in so many is of the user, and of the user who sends most.
RARE, OFTEN = 5_000, 20

_LOGGED = """
INSERT INTO governance_loggedrequest
    (request_id, occurred_at, department_id, key_id, user_tag, content, size, cut)
SELECT request_id, occurred_at, %(department)s, %(key)s,
    CASE WHEN id %% %(rare)s = 0 THEN %(user)s WHEN id %% %(often)s = 0 THEN %(busy)s
        ELSE decode(md5(id::text), 'hex') END,
    decode(repeat(md5(id::text), 8), 'hex'), 700, false
FROM governance_usagerecord WHERE department = %(slug)s AND id %% 4 = 0
"""


_TABLES = ("governance_usagerecord", "governance_loggedrequest")
_PARTS = """
SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent::regclass::text = ANY(%s)
"""
_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = %s::regclass AND NOT indisprimary
"""


def run(rows: int, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each page by filter."""
    with own_stores(ASSAY_SECOND_FACTOR_ROLES=""):
        actor, keys = _world()
        _write(rows, keys)
        return {name: _measured(actor, filters, rounds) for name, filters in _filters().items()}


def _world() -> tuple[Any, dict[str, Any]]:
    """Create a department that logs in full, and its lead."""
    from governance.people.models import Department, Person, RoleAssignment
    from governance.people.selectors import principal_for_person
    from governance.policy.services import policy_bootstrap
    from governance.principals import Proof
    from governance.request_log.keys import department_keys
    from governance.request_log.models import LogMode
    from governance.request_log.schemas import RequestLogSettings
    from governance.request_log.services import request_log_set

    policy_bootstrap()
    department = Department.objects.create(slug=SLUG, name="Engineering")
    person = Person.objects.create(email="lead@example.org", name="Lead")
    RoleAssignment.objects.create(person=person, role="lead", department=department)
    actor = principal_for_person(person, proof=Proof("totp", datetime.now(UTC)))
    settings = RequestLogSettings(mode=LogMode.FULL)
    request_log_set(actor=actor, department=department, log=settings)
    key = department_keys([department.pk])[department.pk]
    return actor, {
        "department": department.pk,
        "key": key.id,
        "user": key.tag(USER),
        "busy": key.tag(BUSY_USER),
        "rare": RARE,
        "often": OFTEN,
        "slug": SLUG,
    }


def _write(rows: int, keys: dict[str, Any]) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT assay_month_add(grown, m::date)"
            " FROM unnest(%s::text[]) AS grown,"
            " generate_series(date_trunc('month', now() - interval '100 days'), now(),"
            " interval '1 month') AS m",
            [list(_TABLES)],
        )
        # Pages read no sums, so the triggers that keep them are off.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET maintenance_work_mem = '512MB'")
        cursor.execute(_PARTS, [list(_TABLES)])
        for (part,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {part} SET UNLOGGED")
        ledger, content = _TABLES
        with _indexed_afterward(cursor, ledger):
            write_records(cursor, rows)
        with _indexed_afterward(cursor, content):
            cursor.execute(_LOGGED, keys)
        cursor.execute("RESET session_replication_role")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT pg_size_pretty(pg_database_size(current_database()))")
        _say(f"Database: {cursor.fetchone()[0]}.")


@contextmanager
def _indexed_afterward(cursor: Any, table: str) -> Iterator[None]:
    """Drop the table's indexes, apart from its primary key, and create them again at the end."""
    cursor.execute(_INDEXES, [table])
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    started = time.perf_counter()
    yield
    written = time.perf_counter()
    for _, definition in indexes:
        cursor.execute(definition.replace(" ON ONLY ", " ON "))
    _say(
        f"{table}: rows in {written - started:.0f} s, "
        f"{len(indexes)} indexes in {time.perf_counter() - written:.0f} s"
    )


def _filters() -> dict[str, dict[str, Any]]:
    return {
        "none": {},
        "outcome=failed": {"outcome": "failed"},
        "deployment": {"deployment": "docstring-writer"},
        "deployment, few": {"deployment": "dep951"},
        "key, few": {"key": "k4901"},
        "key, none": {"key": "k0"},
        "time >= 7 s": {"slower_ms": 7_000},
        "time, none": {"slower_ms": 1_000_000},
        "cost, none": {"cost_from": 1_000_000},
        "outcome=failed, time >= 7 s": {"outcome": "failed", "slower_ms": 7_000},
        "user, few": {"user": USER},
        "user, many": {"user": BUSY_USER},
        "user, none": {"user": "unknown"},
        "fallback": {"fallback": True},
        "without fallback": {"fallback": False},
        "outcome=failed, fallback": {"outcome": "failed", "fallback": True},
        "endpoint, none": {"endpoint": "/v1/embeddings"},
        "streamed": {"streamed": True},
        "in one piece, none": {"streamed": False},
    }


def _measured(actor: Any, filters: dict[str, Any], rounds: int) -> list[float]:
    from governance.request_log.schemas import RequestFilter
    from governance.request_log.selectors import logged_sizes, requests_page
    from governance.rowsecurity import scope

    took, draw = [], random.Random(0)
    for round_ in range(rounds + 3):
        # Half of the pages are the newest ones, as for people.
        at = datetime.now(UTC) - timedelta(days=draw.uniform(0, DAYS))
        before = f"{at.isoformat()}~1" if round_ % 2 else ""
        started = time.perf_counter()
        with scope(actor, reads=True):
            page = requests_page(actor, RequestFilter(**filters), before=before)
            logged_sizes(page.rows)
        took.append(1000 * (time.perf_counter() - started))
    return sorted(took[3:])


def show(figures: dict[str, list[float]]) -> int:
    """Print the percentiles of each filter; return the number of those above the goal."""
    table = Table(title="A page of the request log", title_justify="left")
    for heading in ("filter", "p50", "p95"):
        table.add_column(heading, justify="left" if heading == "filter" else "right")
    over = 0
    for name, took in figures.items():
        half, most = took[len(took) // 2], took[int(len(took) * 0.95)]
        over += most > GOAL_MS
        table.add_row(name, f"{half:.1f} ms", f"{most:.1f} ms")
    console = Console(width=100)
    console.print(table)
    console.print(f"{over} of {len(figures)} have a p95 of more than {GOAL_MS} ms.")
    return over


def main() -> int:
    """Run `python -m benchmarks.requests`; return 1 if a filter takes longer than the goal."""
    parser = argparse.ArgumentParser(prog="./bench requests", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="records of usage")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the rows")
    options = parser.parse_args()
    rows = options.rows // 50 if options.quick else options.rows
    return int(show(run(rows, QUICK_ROUNDS if options.quick else ROUNDS)) > 0)


if __name__ == "__main__":
    sys.exit(main())
