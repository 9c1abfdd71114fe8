"""Database time of every page and list over the rows of a few years.

Set-based SQL writes 10 million records of usage of the last 90 days, a million audit events, a
million jobs with as many log lines, 10,000 models with their versions and releases, and thousands
of everything else that lists show. Then Django's test client opens each page that links reach, as
an administrator and as the lead of a department, and each list of the management API. Each figure
is the median of three rounds, after a first one: the time that the page's statements took,
including the round trips, and the processor time of the database's process, which other load on the
machine does not change. The goal is 100 ms for each; the exit status is 1 if a page takes longer.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.stores import own_stores

GOAL_MS = 100
ROUNDS = 3
# Statements that take longer are kept with their parameters.
SHOWN_MS = 20
DAYS = 90
DEPLOYMENTS, DEPARTMENTS, KEYS = 1_000, 50, 5_000
LINK = re.compile(r'(?:href|hx-get)="(/[^"#]*)"')
# Files, and pages that change something or leave the portal.
LEFT_OUT = re.compile(
    r"^/(static|sign-out|demo|api|metrics|docs)|/export|/file|/proof|\.jsonl|\?cursor"
)

_USAGE = """
INSERT INTO governance_usagerecord (request_id, occurred_at, department, key_public_id, deployment,
    release, version_digest, endpoint, prompt_tokens, completion_tokens, load_ms, queue_ms,
    first_token_ms, total_ms, device_ms, cost_micro, outcome, streamed, policy_version, rules,
    retry_ms)
SELECT 'req_' || md5(n || 'r'), %(begins)s::timestamptz
        + interval '1 day' * ((n - %(first)s)::float8 / (1 + %(last)s - %(first)s)),
    CASE WHEN place < 2 THEN 'engineering' ELSE 'd' || place END, 'k' || key,
    CASE WHEN dep = 1 THEN 'docstring-writer' ELSE 'dep' || dep END, dep,
    md5('v' || dep) || md5('v' || dep), '/v1/chat/completions', 100 + n %% 900, n %% 300, 0,
    n %% 40, 80 + n %% 500, 300 + n %% 7000, n %% 5000, n %% 977,
    CASE WHEN n %% 97 = 0 THEN 'failed' WHEN n %% 89 = 0 THEN 'canceled' ELSE 'ok' END, true, 1,
    '["use"]', CASE WHEN n %% 501 = 0 THEN n %% 900 END
FROM (
    -- A key belongs to one department. One request in five is to a shared deployment, the others to
    -- one of the department's own.
    SELECT n, place, place + %(departments)s * floor(
            (%(keys)s / %(departments)s) * power(random(), 2))::int AS key,
        CASE WHEN random() < 0.2 THEN 1 + floor(20 * power(random(), 2))::int
            ELSE place + %(departments)s * floor(
                (%(deployments)s / %(departments)s) * power(random(), 2))::int END AS dep
    FROM (
        SELECT n, 1 + floor(%(departments)s * power(random(), 2))::int AS place
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS placed
) AS drawn
"""


@dataclass
class Page:
    """Statements of one page: their number, milliseconds and processor milliseconds of each round,
    and the one with the most processor time."""

    queries: int = 0
    rounds_ms: list[float] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    slowest: tuple[float, float, str] = (0.0, 0.0, "")

    @property
    def ms(self) -> float:
        return median(self.rounds_ms)

    @property
    def busy(self) -> float:
        return median(self.busy_ms)


def run(*, usage: int, events: int, jobs: int, models: int) -> dict[str, Page]:
    """Start separate stores, write the rows, measure, and stop the stores."""
    with own_stores(ASSAY_ALLOWED_HOSTS="testserver", ASSAY_SECOND_FACTOR_ROLES=""):
        started = time.perf_counter()
        company = _write(usage=usage, events=events, jobs=jobs, models=models)
        _say(f"Wrote the rows in {time.perf_counter() - started:.0f} s. {_sizes()}")
        pages: dict[str, Page] = {}
        for name in ("ada", "enzo"):
            get = _client(company.people[name])
            for path in _every_page(get, _first_pages(company)):
                pages[f"{path} ({name})"] = _measured(get, path)
        get = _client(company.people["ada"])
        for path in _api_lists():
            pages[path] = _measured(get, path)
        return pages


def _write(*, usage: int, events: int, jobs: int, models: int) -> Any:
    from django.db import connection, transaction

    from benchmarks import audit_search
    from tests.unit.assay.portal_data import tell_story

    with connection.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        cursor.execute("ALTER SYSTEM SET synchronous_commit = off")
        cursor.execute("SELECT pg_reload_conf()")
        cursor.execute(
            "SELECT assay_month_add(grown, m::date)"
            " FROM unnest(ARRAY['governance_usagerecord', 'workers_jobevent']) AS grown,"
            " generate_series(date_trunc('month', now() - interval '100 days'), now(),"
            " interval '1 month') AS m"
        )
    audit_search._write(events)
    with transaction.atomic():
        company = tell_story()
    with connection.cursor() as cursor:
        # Rows that were written under all rules are copied without checking them again.
        cursor.execute("SET session_replication_role = replica")
        _copies(cursor, company, jobs=jobs, models=models)
        cursor.execute("SET session_replication_role = origin")
        _write_usage(cursor, usage)
        cursor.execute("VACUUM ANALYZE")
    return company


def _copies(cursor: Any, company: Any, *, jobs: int, models: int) -> None:
    """Write thousands of copies of the company's rows."""
    few = max(models // 10, 10)
    age = f"now() - interval '{DAYS} days' * (n::float8 / %s)"
    _multiply(
        cursor,
        "governance_department",
        "slug = 'finance'",
        DEPARTMENTS,
        {"slug": "'d' || n", "name": "'Department ' || n"},
    )
    cursor.execute("SELECT array_agg(id ORDER BY id) FROM governance_department")
    (ids,) = cursor.fetchone()
    department = f"('{{{','.join(map(str, ids))}}}'::bigint[])[1 + n % {len(ids)}]"
    _multiply(
        cursor,
        "governance_person",
        "email = 'vera@assay.example'",
        few,
        {"email": "'p' || n || '@example.org'", "name": "'Person ' || n"},
    )
    _multiply(
        cursor,
        "governance_apikey",
        "",
        KEYS,
        {"public_id": "'k' || n", "name": "'key ' || n", "department_id": department},
    )
    _multiply(
        cursor,
        "registry_model",
        f"id = {company.writer.pk}",
        models,
        {"name": "'model-' || n", "department_id": department, "shared": "n % 10 = 0"},
    )
    cursor.execute("SELECT max(id) FROM registry_model")
    (top,) = cursor.fetchone()
    model = f"({top - models} + n)"
    _multiply(
        cursor,
        "registry_modelversion",
        f"id = {company.second.pk}",
        models,
        {"model_id": model, "digest": "md5('v' || n) || md5('v' || n)", "job_id": "NULL"},
    )
    cursor.execute("SELECT max(id) FROM registry_modelversion")
    (top,) = cursor.fetchone()
    version = f"({top - models} + n)"
    _multiply(
        cursor,
        "registry_release",
        "",
        models,
        {
            "version_id": version,
            "deployment_name": "'dep' || n",
            "created_at": age % models,
            "department_id": department,
        },
    )
    cursor.execute("SELECT max(id) FROM registry_release")
    (top,) = cursor.fetchone()
    release = f"({top - models} + n)"
    _multiply(
        cursor,
        "registry_evaluation",
        "",
        models,
        {"version_id": version, "created_at": age % models, "job_id": "md5('e' || n)::uuid"},
    )
    _multiply(
        cursor,
        "workers_deployment",
        f"id = {company.deployment.pk}",
        min(DEPLOYMENTS, models),
        {"name": "'dep' || n", "release_id": release, "department_id": department},
    )
    _multiply(
        cursor, "registry_dataset", "", few, {"name": "'data-' || n", "department_id": department}
    )
    _multiply(
        cursor,
        "registry_intake",
        "",
        models,
        {"created_at": age % models, "version_id": "NULL", "job_id": "NULL"},
    )
    _multiply(
        cursor,
        "registry_batch",
        "",
        models,
        {"id": "'batch_' || md5(n::text)", "created_at": age % models},
    )
    _multiply(
        cursor,
        "governance_review",
        "",
        models,
        {
            "subject_id": release,
            "state": "'approved'",
            "opened_at": age % models,
            "closed_at": "now()",
            "department_id": department,
        },
    )
    _multiply(
        cursor,
        "workers_job",
        "state = 'succeeded'",
        jobs,
        {
            "id": "md5('job' || n)::uuid",
            "title": "'job ' || n",
            "created_at": age % jobs,
            "finished_at": age % jobs + " + interval '1 hour'",
            "department_id": department,
        },
    )
    _multiply(
        cursor, "workers_jobevent", "", jobs, {"job_id": "md5('job' || n)::uuid", "at": age % jobs}
    )


def _multiply(cursor: Any, table: str, where: str, count: int, changes: dict[str, str]) -> None:
    """Write `count` copies of a row that meets `where`; `changes` are SQL expressions of `n`."""
    cursor.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = %s AND table_schema = current_schema() AND is_generated = 'NEVER'",
        [table],
    )
    kept = [name for (name,) in cursor.fetchall() if name in changes or name != "id"]
    values = ", ".join(changes.get(name, f'source."{name}"') for name in kept)
    names = ", ".join(f'"{name}"' for name in kept)
    started = time.perf_counter()
    cursor.execute(
        f"INSERT INTO {table} ({names}) SELECT {values}"  # noqa: S608 (names of our own tables)
        f" FROM generate_series(1, {count}) AS n,"
        f" (SELECT * FROM {table} {'WHERE ' + where if where else ''} LIMIT 1) AS source"
    )
    if cursor.rowcount != count:
        _say(f"{table}: wrote {cursor.rowcount:,} of {count:,} rows; is there a row to copy?")
    elif (took := time.perf_counter() - started) > 10:
        _say(f"{table}: {count:,} rows in {took:.0f} s")


def _write_usage(cursor: Any, count: int) -> None:
    """Write the ledger, with the triggers that keep its sums."""
    from governance.usage.times import usage_times_add

    started = time.perf_counter()
    write_records(cursor, count)
    usage_times_add()
    took = time.perf_counter() - started
    _say(f"governance_usagerecord: {count:,} rows in {took:.0f} s, {count / took:,.0f}/s")


def write_records(cursor: Any, count: int) -> None:
    """Write `count` records of usage, day by day."""
    each = count // DAYS + 1
    for day in range(DAYS):
        cursor.execute(
            _USAGE,
            {
                "begins": time.strftime(
                    "%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86_400 * (DAYS - day))
                ),
                "first": day * each,
                "last": min((day + 1) * each, count) - 1,
                "deployments": DEPLOYMENTS,
                "departments": DEPARTMENTS,
                "keys": KEYS,
            },
        )


def _sizes() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_size_pretty(pg_database_size(current_database())),"
            " (SELECT count(*) FROM governance_usagetotal), (SELECT count(*) FROM"
            " governance_usagetimes), (SELECT count(*) FROM governance_usagerecord)"
        )
        size, totals, times, records = cursor.fetchone() or ("", 0, 0, 0)
    return f"Database: {size}; {records:,} records, {totals:,} sums, {times:,} buckets of times."


def _client(person: Any) -> Callable[[str], tuple[int, str]]:
    from django.test import Client

    client = Client()
    client.force_login(person)

    def get(path: str) -> tuple[int, str]:
        answer = client.get(path)
        text = "" if answer.streaming else answer.content.decode("utf-8", "replace")
        return answer.status_code, text

    return get


def _first_pages(company: Any) -> list[str]:
    return [
        "/",
        f"/models/{company.writer.name}",
        f"/versions/{company.second.pk}",
        f"/jobs/{company.running.pk}",
        f"/reviews/{company.review_open.pk}",
        f"/deployments/{company.deployment.pk}",
        *(
            f"/deployments/{company.deployment.pk}/health/figures?span={span}"
            for span in ("1h", "24h", "7d", "30d", "12w")
        ),
        *(
            f"/usage?days={days}&by={by}"
            for days in (30, 90)
            for by in ("deployment", "department", "key")
        ),
        *(f"/jobs?state={state}" for state in ("queued", "failed", "succeeded")),
        "/jobs?department=d7",
        "/jobs?page=300",
    ]


def _every_page(get: Callable[[str], tuple[int, str]], first: list[str]) -> list[str]:
    """Return `first`, then one path for each other pattern of pages that links reach."""
    patterns, waiting = {_pattern(path) for path in first}, list(first)
    pages = []
    for path in waiting:
        status, text = get(path)
        if status != 200:
            continue
        pages.append(path)
        for link in LINK.findall(text):
            link = link.replace("&amp;", "&")
            if _pattern(link) not in patterns and not LEFT_OUT.search(link):
                patterns.add(_pattern(link))
                waiting.append(link)
    return pages


def _pattern(path: str) -> str:
    """Return a path with N in place of numbers and IDs, and with the names of its parameters."""
    head, _, query = path.partition("?")
    head = re.sub(r"(?<=/)(models|datasets|knowledge|catalog|nodes)/[^/]+", r"\1/N", head)
    names = sorted({part.partition("=")[0] for part in query.split("&")} - {"page"})
    return re.sub(r"[0-9a-f]{8,}(-[0-9a-f]+)*|[0-9]+", "N", head) + "?" + "&".join(names)


def _api_lists() -> list[str]:
    """Return the operations of the management API that take no ID and answer with 200."""
    from assay.api.urls import urlpatterns

    return [f"/api/v1/{route.pattern}" for route in urlpatterns if "<" not in str(route.pattern)]


def _measured(get: Callable[[str], tuple[int, str]], path: str) -> Page:
    page = Page()
    for round_ in range(ROUNDS + 1):
        with _timed() as statements:
            get(path)
        if round_:
            page.rounds_ms.append(sum(ms for _, ms, _ in statements))
            page.busy_ms.append(sum(busy for busy, _, _ in statements))
            page.queries = len(statements)
            page.slowest = max([page.slowest, *statements], key=lambda each: each[0])
    return page


@contextmanager
def _timed() -> Iterator[list[tuple[float, float, str]]]:
    """Collect processor milliseconds, milliseconds and SQL of each statement of this thread."""
    from django.db import connection
    from psycopg import ClientCursor

    from benchmarks.audit_search import _busy_s

    statements: list[tuple[float, float, str]] = []
    connection.ensure_connection()
    backend = connection.connection.info.backend_pid

    def timed(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        started, busy = time.perf_counter(), _busy_s(backend)
        try:
            return execute(sql, params, many, context)
        finally:
            took = 1000 * (time.perf_counter() - started)
            busy = 1000 * (_busy_s(backend) - busy)
            raw = ClientCursor(context["connection"].connection)
            text = raw.mogrify(sql, params) if busy > SHOWN_MS else sql
            statements.append((busy, took, text))

    with connection.execute_wrapper(timed):
        yield statements


def show(pages: dict[str, Page], *, slowest_sql: bool) -> int:
    """Print each page, the slowest first; return the number of those above the goal."""
    table = Table(title="Database time of each page and list", title_justify="left")
    for heading in ("page", "database", "processor", "statements", "largest"):
        table.add_column(heading, justify="left" if heading == "page" else "right")
    ordered = sorted(pages.items(), key=lambda item: -item[1].busy)
    for name, page in ordered:
        table.add_row(
            name,
            f"{page.ms:.1f} ms",
            f"{page.busy:.1f} ms",
            str(page.queries),
            f"{page.slowest[0]:.1f} ms",
        )
    console = Console(width=140)
    console.print(table)
    over = [name for name, page in ordered if page.ms > GOAL_MS]
    busy = sum(page.busy > GOAL_MS for page in pages.values())
    console.print(
        f"{len(over)} of {len(pages)} take more than {GOAL_MS} ms, {busy} of processor time."
    )
    if slowest_sql:
        for name, page in ordered[:25]:
            console.print(
                f"\n{name}: {page.slowest[0]:.1f} ms\n{page.slowest[2][:3000]}",
                highlight=False,
                markup=False,
            )
    return len(over)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    """Run `python -m benchmarks.growth`; return 1 if a page takes longer than the goal."""
    parser = argparse.ArgumentParser(prog="./bench growth", description=__doc__)
    parser.add_argument("--usage", type=int, default=10_000_000, help="records of usage")
    parser.add_argument("--events", type=int, default=1_000_000, help="audit events")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs, each with a log line")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the rows")
    parser.add_argument("--sql", action="store_true", help="print the slowest statements")
    options = parser.parse_args()
    part = 50 if options.quick else 1
    counts = {
        name: getattr(options, name) // part for name in ("usage", "events", "jobs", "models")
    }
    return int(show(run(**counts), slowest_sql=options.sql) > 0)


if __name__ == "__main__":
    sys.exit(main())
