"""The web process's database connections: as many as were allowed, however many people come."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.db import connection
from django.test import Client

from governance.keys.tokens import format_token, mint
from governance.people.models import Person
from tests.live.web_process import environment, web
from tests.waiting import wait_until

pytestmark = pytest.mark.live

LINK = re.compile(r'(?:href|hx-get)="(/[^"#]*)"')
# Requests that Django answers at once, and the connections that the process may hold for them.
THREADS, BOUND = "4", 4 + 4


def connections() -> int:
    """Connections to the test's database, without the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def signed_in(person: Person) -> dict[str, str]:
    """The cookies of a session of theirs."""
    client = Client()
    client.force_login(person)
    return {name: morsel.value for name, morsel in client.cookies.items()}


def walk(url: str, cookies: dict[str, str], pages: int) -> Counter[int]:
    """Follow links from the start page; statuses by how often they came."""
    seen, waiting, statuses = {"/"}, ["/"], Counter[int]()
    with httpx.Client(base_url=url, cookies=cookies, timeout=60) as browser:
        while waiting and sum(statuses.values()) < pages:
            answer = browser.get(waiting.pop(0))
            statuses[answer.status_code] += 1
            for link in LINK.findall(answer.text):
                if link not in seen and not link.startswith("/static/"):
                    seen.add(link)
                    waiting.append(link)
    return statuses


def test_connections_stay_within_the_pool_whoever_comes(
    transactional_db: None, policy: Any, person: Callable[..., Person], tmp_path: Path
) -> None:
    people = [person(f"Lead {n}", "lead@finance", "auditor") for n in range(20)]
    cookies = [signed_in(each) for each in people]
    with web(tmp_path, ASSAY_WEB_THREADS=THREADS) as (url, _):
        with ThreadPoolExecutor(30) as pool:
            anonymous = Counter(
                pool.map(lambda _: httpx.get(f"{url}/sign-in", timeout=60).status_code, range(150))
            )
        after_strangers = connections()
        with ThreadPoolExecutor(20) as pool:
            walks = list(pool.map(lambda jar: walk(url, jar, 6), cookies))
        after_people = connections()

    assert anonymous == {200: 150}
    assert after_strangers <= BOUND
    assert after_people <= BOUND
    statuses = sum(walks, Counter[int]())
    assert sum(statuses.values()) == 120
    assert not [status for status in statuses if status >= 500], statuses


@contextmanager
def nobody_connects() -> Iterator[None]:
    """Let no new connection to the test's database in, and end all but the test's own."""
    name = connection.settings_dict["NAME"]
    elsewhere = {**connection.get_connection_params(), "dbname": "postgres", "autocommit": True}
    with psycopg.connect(**elsewhere) as server:
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> %s",
            (name, connection.connection.info.backend_pid),
        )
        try:
            yield
        finally:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_database_that_takes_no_connection_is_503_everywhere_until_it_does(
    transactional_db: None, policy: Any, person: Callable[..., Person], tmp_path: Path
) -> None:
    cookies = signed_in(person("Ada", "admin"))
    bearer = {"authorization": f"Bearer {format_token(*mint())}"}
    with web(tmp_path, ASSAY_DATABASE_POOL_WAIT_S="1") as (url, _):
        client = httpx.Client(base_url=url, cookies=cookies, timeout=30)
        with client, nobody_connects():
            page = client.get("/")
            problem = httpx.get(f"{url}/api/v1/me", headers=bearer, timeout=30)
            by_session = client.get("/api/v1/me")
            ready, alive = client.get("/readyz"), client.get("/healthz")
        for path in ("/", "/readyz"):
            wait_until(lambda path=path: httpx.get(url + path, cookies=cookies).status_code == 200)  # type: ignore[misc]

    assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "does not answer" in page.text
    for each in (problem, by_session):
        assert (each.status_code, each.headers["content-type"]) == (503, "application/problem+json")
        assert each.json()["code"] == "unavailable"
    assert all(int(each.headers["retry-after"]) >= 1 for each in (page, problem, by_session))
    assert (ready.status_code, ready.json()["database"]) == (503, "does not answer")
    assert alive.status_code == 200


def test_requests_beyond_the_bound_are_refused_and_hold_up_no_gateway(
    transactional_db: None, policy: Any, person: Callable[..., Person], tmp_path: Path
) -> None:
    cookies = signed_in(person("Ada", "admin"))
    bounds = {
        "ASSAY_WEB_THREADS": "1",
        "ASSAY_WEB_QUEUE": "1",
        "ASSAY_WEB_QUEUE_WAIT_S": "2",
        "ASSAY_DATABASE_LOCK_TIMEOUT_S": "6",
    }
    with web(tmp_path, **bounds) as (url, _), ThreadPoolExecutor(8) as pool:

        def get(path: str) -> httpx.Response:
            return httpx.get(f"{url}{path}", cookies=cookies, timeout=30)

        with psycopg.connect(**connection.get_connection_params()) as holder:
            holder.execute("LOCK TABLE governance_person IN ACCESS EXCLUSIVE MODE")
            pages = [pool.submit(get, "/")]
            # It has the thread. A request for what does not exist could have been answered before.
            waiting = "SELECT FROM pg_locks WHERE NOT granted"
            wait_until(lambda: holder.execute(waiting).fetchone() is not None)
            pages += [pool.submit(get, path) for path in ("/", "/", "/api/v1/me", "/scim/v2/x")]
            gateway, alive = get("/v1/models"), get("/healthz")
            unfinished = sum(not each.done() for each in pages)
            answers = [each.result() for each in pages]
        after = get("/")

    assert unfinished >= 1  # The lock is still held, and these two did not wait for it.
    assert (gateway.status_code, alive.status_code) == (401, 200)
    # One ran into the lock's time limit, one into the queue's, and three into its length.
    assert [each.status_code for each in answers] == [503] * 5
    assert all(int(each.headers["retry-after"]) >= 1 for each in answers)
    refused = [each for each in answers if "waiting" in each.text]
    assert len(refused) == 4
    assert after.status_code == 200


HANG_UPS = 300
# Pages, lists and a download, reads and what is refused.
PATHS = (
    "/", "/models", "/jobs", "/audit", "/people", "/health", "/sign-in", "/search?q=a", "/readyz",
    "/api/v1/me", "/api/v1/models", "/api/v1/audit/events", "/v1/models", "/metrics", "/scim/v2/x",
)  # fmt: skip


def test_clients_that_hang_up_leave_no_connection_in_a_transaction(
    transactional_db: None, policy: Any, person: Callable[..., Person], tmp_path: Path
) -> None:
    """At any moment: before the request's turn, while it is answered, and while it is sent."""
    jars = [signed_in(person(f"Lead {n}", "admin", "lead@finance")) for n in range(4)]
    with web(tmp_path, ASSAY_WEB_THREADS=THREADS) as (url, _), ThreadPoolExecutor(8) as pool:
        port = int(url.rpartition(":")[2])

        def hang_up(number: int) -> None:
            chance = random.Random(number)
            cookies = "; ".join(f"{k}={v}" for k, v in chance.choice(jars).items())
            path, body = chance.choice(PATHS), "x=1" if chance.random() < 0.3 else ""
            head = (
                f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Cookie: {cookies}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            )
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(head.encode())
                time.sleep(chance.random() * chance.choice((0.005, 0.05, 0.3)))

        list(pool.map(hang_up, range(HANG_UPS)))
        # Every thread and connection is free again. What the pool says is checked at the end.
        answers = [httpx.get(f"{url}/", cookies=jars[0], timeout=60) for _ in range(8)]
    assert [each.status_code for each in answers] == [200] * 8


SESSIONS = """
import django
from django.conf import settings
# One connection: a pool that is opened grows for its first client, and would then lend another one
# than the one to look at.
settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"] = 1
django.setup()
from django.db import connection
from governance.principals import ANONYMOUS
from governance.rowsecurity import Reach, _apply, scope

def borrowed():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid(), current_setting('role'),"
            " current_setting('assay.departments'), current_setting('TimeZone'),"
            " current_setting('statement_timeout'), (SELECT count(*) FROM pg_cursors WHERE"
            " is_holdable), (SELECT count(*) FROM pg_listening_channels())"
        )
        found = cursor.fetchone()
    connection.close()
    return found

first = borrowed()
# A request that dies within its scope.
try:
    with scope(ANONYMOUS):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")
except Exception as error:
    print(type(error).__name__)
connection.close()
found = borrowed()
print(found == first or found)
# No code of Assay does this: set session variables, and leave a cursor and a subscription open.
with connection.cursor() as cursor:
    cursor.execute("SET ROLE assay_app")
    cursor.execute("SET assay.departments = '7'")
    cursor.execute("SET statement_timeout = 0")
    cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
    cursor.execute("DECLARE left_open CURSOR WITH HOLD FOR SELECT 1")
    cursor.execute("LISTEN left_open")
connection.close()
found = borrowed()
print(found == first or found)
# A transaction that is neither committed nor rolled back; the pool says so, and rolls it back.
connection.set_autocommit(False)
_apply(Reach(departments=frozenset(), person_id=7))
connection.close()
found = borrowed()
print(found == first or found, first[1:])
"""


def test_a_connection_from_the_pool_remembers_nothing_of_the_last_request(
    transactional_db: None, policy: Any, tmp_path: Path
) -> None:
    settings = {"ASSAY_PROCESS": "web", "ASSAY_WEB_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", SESSIONS],
        env={**environment(tmp_path), **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expected = "('none', '*', 'UTC', '30s', 0, 0)"
    assert finished.stdout.splitlines() == ["DataError", "True", "True", f"True {expected}"], (
        finished.stderr[-2000:]
    )
