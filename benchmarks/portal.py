"""The portal: processor time of its pages, then N concurrent people.

First, one administrator opens each page that links reach repeatedly, one request at a time: one
page for each pattern of paths, such as `/versions/N`. Each figure is the median of several rounds
of five requests, because the kernel counts processor time in steps of 10 ms. Then all people browse
at once; a second table shows errors, latency, pages per second and connections.

The company's pages show every state. Each person signs in with a password, then follows links in a
random order without pauses, a higher load than real people cause. Two web processes run, as in the
image. There is no reference; compare the numbers for different N.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table

from benchmarks.gateway import cpu_s, process, until_works
from benchmarks.stores import own_stores

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "correct horse battery staple"  # noqa: S105
LINK = re.compile(r'(?:href|hx-get)="(/[^"#]*)"')
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
# Replaces the status of a response with an incomplete body.
CUT = 0
# Goal for the processor time of the median page.
GOAL_MS = 12
REQUESTS, ROUNDS = 5, 3
MEASURED = "measured@assay.example"
# Maximum concurrent sign-ins, because hashing passwords uses only processor time.
SIGN_IN_AT_ONCE = 4
ROLES = (
    ("auditor", None, ""),
    ("operator", None, ""),
    ("lead", "engineering", ""),
    ("developer", "engineering", ""),
    ("reviewer", None, "compliance"),
    ("lead", "clinical", ""),
    ("viewer", "finance", ""),
    ("admin", None, ""),
)


@dataclass
class Outcome:
    """The results of all people's requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0
    cpu_s: float = 0.0
    page_ms: dict[str, float] = field(default_factory=dict)
    connections: list[int] = field(default_factory=list)


class Visitor:
    """One person's browser: cookies, one connection, and known links."""

    def __init__(self, port: int, email: str) -> None:
        self.email = email
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._cookies: dict[str, str] = {}

    def request(self, method: str, path: str, body: str = "") -> tuple[int, str, str]:
        """Return status (`CUT` for an incomplete body), text and the redirect's target."""
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items())}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            self._connection.request(method, path, body or None, headers)
            answer = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            # The connection was idle for too long, such as after signing in; retry like a browser.
            self._connection.close()
            self._connection.request(method, path, body or None, headers)
            answer = self._connection.getresponse()
        try:
            text = answer.read().decode("utf-8", "replace")
        except http.client.IncompleteRead:
            # The server did not send the whole file. The caller counts it as a failure.
            self._connection.close()
            return CUT, "", ""
        for cookie in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        return answer.status, text, answer.headers.get("Location", "")

    def sign_in(self) -> None:
        """Sign in. Raises RuntimeError when refused."""
        _, page, _ = self.request("GET", "/sign-in")
        token_match = TOKEN.search(page)
        form = {"email": self.email, "password": PASSWORD}
        form["csrfmiddlewaretoken"] = token_match.group(1) if token_match else ""
        status, text, _ = self.request("POST", "/sign-in", urlencode(form))
        if status != 302:
            raise RuntimeError(f"{self.email} could not sign in: {status} {text[:300]}")

    def walk(self, pages: int, outcome: Outcome, lock: threading.Lock) -> None:
        """Follow up to `pages` links in a random order, determined by the person."""
        order = random.Random(self.email)
        known_links, waiting = {"/"}, ["/"]
        for _ in range(pages):
            if not waiting:
                return
            path = waiting.pop(order.randrange(len(waiting)))
            started = time.perf_counter()
            status, text, to = self.request("GET", path)
            took = time.perf_counter() - started
            with lock:
                outcome.statuses[status] += 1
                outcome.times_s.append(took)
                if status >= 400 or status == CUT:
                    outcome.failed[f"{status} {re.sub(r'[0-9]+', 'N', path)}"] += 1
            for link in (to, *LINK.findall(text)):
                if (
                    link.startswith("/")
                    and not link.startswith("/static/")
                    and link not in known_links
                ):
                    known_links.add(link)
                    waiting.append(link)


def run(*, people: int, pages: int, rounds: int) -> Outcome:
    """Start stores and web processes, sign people in, follow links, and stop everything."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    # Without second factors, which are not measured.
    with own_stores(PYTHONPATH=paths, ASSAY_SECOND_FACTOR_ROLES=""):
        from assay.local.services import free_port

        emails, main_pages = _company(people)
        port = free_port()
        command = (sys.executable, "-m", "assay.server", "--port", str(port), "--workers=2")
        with process(*command, "--log-level", "warning") as web:
            until_works(lambda: Visitor(port, "").request("GET", "/readyz")[0] == 200)
            page_ms = _page_ms(Visitor(port, MEASURED), web.pid, main_pages, rounds)
            visitors = [Visitor(port, email) for email in emails]
            with ThreadPoolExecutor(SIGN_IN_AT_ONCE) as pool:
                list(pool.map(Visitor.sign_in, visitors))
            before = _cpu_s(web.pid)
            outcome = _follow_links(visitors, pages)
            outcome.cpu_s = _cpu_s(web.pid) - before
            outcome.page_ms = page_ms
            return outcome


def _page_ms(visitor: Visitor, web: int, pages: dict[str, str], rounds: int) -> dict[str, float]:
    """Return the median processor time of each page, in ms: of `pages` by their names, and of all
    others that links reach by the pattern of their path.

    Raises:
        RuntimeError: a page answers with an error.
    """
    visitor.sign_in()
    medians = {}
    for name, path in _every_page(visitor, pages).items():
        spent = []
        # The first round loads templates and warms both processes.
        for _ in range(rounds + 1):
            before = _cpu_s(web)
            for _ in range(REQUESTS):
                status, text, _ = visitor.request("GET", path)
                if status != 200:
                    raise RuntimeError(f"{path} answered {status}: {text[:300]}")
            spent.append((_cpu_s(web) - before) / REQUESTS * 1000)
        medians[name] = median(spent[1:])
    return medians


def _every_page(visitor: Visitor, pages: dict[str, str]) -> dict[str, str]:
    """Return `pages`, then one path for each other pattern of pages that links reach."""
    patterns = {_pattern(path) for path in pages.values()}
    others, waiting = {}, list(pages.values())
    for path in waiting:
        status, text, _ = visitor.request("GET", path)
        if status != 200 or not text.lstrip().startswith("<!"):
            continue  # A fragment or a file.
        if path not in pages.values():
            others[_pattern(path)] = path
        for link in LINK.findall(text):
            pattern = _pattern(link)
            if pattern not in patterns and not link.startswith("/static/"):
                patterns.add(pattern)
                waiting.append(link.replace("&amp;", "&"))
    return pages | others


def _pattern(path: str) -> str:
    """Return a path with N in place of numbers and IDs, without its query."""
    return re.sub(r"[0-9a-f]{8,}(-[0-9a-f]+)*|[0-9]+", "N", path.partition("?")[0])


def _cpu_s(parent: int) -> float:
    """Return the processor time of the web processes."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sum(cpu_s(int(child)) for child in children)


def _follow_links(visitors: list[Visitor], pages: int) -> Outcome:
    outcome, lock = Outcome(), threading.Lock()
    with _count_connections(outcome.connections), ThreadPoolExecutor(len(visitors)) as pool:
        started = time.perf_counter()
        list(pool.map(lambda each: each.walk(pages, outcome, lock), visitors))
        outcome.took_s = time.perf_counter() - started
    return outcome


def _company(count: int) -> tuple[list[str], dict[str, str]]:
    """Create objects of every kind, and `count` people in all roles.

    Returns:
        The people's emails, and the paths of the main pages by name.
    """
    from django.contrib.auth.hashers import make_password
    from django.db import connection, transaction

    from governance.people.models import Person, RoleAssignment
    from tests.unit.assay.portal_data import tell_story

    with transaction.atomic():
        company = tell_story()
    password = make_password(PASSWORD)
    emails = [f"person-{number}@assay.example" for number in range(count)]
    roles = dict(zip(emails, cycle(ROLES)))
    for email, (role, department, specialty) in {**roles, MEASURED: ("admin", None, "")}.items():
        name = email.partition("@")[0].replace("-", " ").capitalize()
        person = Person.objects.create(email=email, name=name, password=password)
        RoleAssignment.objects.create(
            person=person,
            role=role,
            specialty=specialty,
            department=company.departments[department] if department else None,
        )
    connection.close()
    return emails, {
        "home": "/",
        "models": "/models",
        "a model": f"/models/{company.writer.name}",
        "a version": f"/versions/{company.second.pk}",
        "a job": f"/jobs/{company.running.pk}",
        "a review": f"/reviews/{company.review_open.pk}",
        "a deployment": f"/deployments/{company.deployment.pk}",
        "usage": "/usage",
    }


@contextmanager
def _count_connections(into: list[int]) -> Iterator[None]:
    """Sample the number of PostgreSQL's connections for other clients, five times a second."""
    import psycopg

    done = threading.Event()

    def count() -> None:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as own:
            while not done.wait(0.2):
                row: Any = own.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone()
                into.append(row[0])

    counter = threading.Thread(target=count)
    counter.start()
    try:
        yield
    finally:
        done.set()
        counter.join()


def show_pages(page_ms: dict[str, float]) -> None:
    """Print the processor time of each page."""
    table = Table(title="Processor time of a page, one at a time", title_justify="left")
    table.add_column("page")
    table.add_column("median", justify="right")
    for name, ms in page_ms.items():
        table.add_row(name, f"{ms:.0f} ms")
    named = median(ms for name, ms in page_ms.items() if not name.startswith("/"))
    table.add_row("median of the named pages", f"{named:.0f} ms")
    table.add_row(
        f"median of all {len(page_ms)} pages",
        f"{median(page_ms.values()):.0f} ms (goal: {GOAL_MS})",
    )
    Console().print(table)


def show(people: int, outcome: Outcome) -> None:
    """Print the results of many people at once."""
    cuts = quantiles(outcome.times_s, n=100)
    table = Table(title=f"The portal, {people} people at once", title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    pages = sum(outcome.statuses.values())
    by_status = ", ".join(f"{n} × {status}" for status, n in sorted(outcome.statuses.items()))
    for name, value in (
        ("pages", f"{pages:,}"),
        ("by status", by_status),
        ("pages/s", f"{pages / outcome.took_s:.1f}"),
        ("p50", f"{cuts[49]:.2f} s"),
        ("p95", f"{cuts[94]:.2f} s"),
        ("CPU of the web processes per page", f"{outcome.cpu_s / pages * 1000:.0f} ms"),
        ("PostgreSQL connections, most", str(max(outcome.connections, default=0))),
        ("PostgreSQL connections, at the end", str((outcome.connections or [0])[-1])),
        ("load average", f"{os.getloadavg()[0]:.1f}"),
    ):
        table.add_row(name, value)
    console = Console()
    console.print(table)
    for path, count in outcome.failed.most_common(20):
        console.print(f"  {count} × {path}", highlight=False)


def main() -> int:
    """Run `python -m benchmarks.portal [--people N] [--pages N] [--quick]`; return 1 on any 5xx."""
    parser = argparse.ArgumentParser(prog="./bench portal", description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--pages", type=int, default=40, help="pages per person")
    parser.add_argument("--quick", action="store_true", help="a quarter of the pages, one round")
    options = parser.parse_args()
    pages = max(1, options.pages // 4) if options.quick else options.pages
    rounds = 1 if options.quick else ROUNDS
    outcome = run(people=options.people, pages=pages, rounds=rounds)
    show_pages(outcome.page_ms)
    show(options.people, outcome)
    return int(any(status >= 500 for status in outcome.statuses))


if __name__ == "__main__":
    sys.exit(main())
