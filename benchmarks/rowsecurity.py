"""Cost of row-level security for a request of the management API.

The subject is the normal request; the reference is the same request without the scope around its
handler. There are 10,000 jobs, 2,000 models and 10,000 versions of 20 departments. Requests go
through Django's test client with all middleware but without a network, with and without the scope
in turn; the fastest tenth counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from statistics import quantiles
from typing import Any

from benchmarks.stores import own_stores
from benchmarks.table import Row, show

DEPARTMENTS = 20
JOBS_EACH = 500
MODELS_EACH = 100
VERSIONS_EACH = 5
REQUESTS = 100
ADDRESSES = ("/api/v1/me", "/api/v1/jobs", "/api/v1/models")


def run(*, quick: bool = False) -> list[Row]:
    """Start separate stores, measure, and stop them. Django must not be set up yet."""
    with own_stores(ASSAY_ALLOWED_HOSTS="testserver"):
        return _measure(rounds=3 if quick else 10)


def _measure(*, rounds: int) -> list[Row]:
    from governance.people.selectors import principal_for_person
    from governance.rowsecurity import scope

    people = _company()
    rows = []
    for role, person in people.items():
        principal = principal_for_person(person)
        alone = [
            _tenth_percentile([_ms(partial(_enter, scope, principal)) for _ in range(REQUESTS)])
            for _ in range(rounds)
        ]
        rows.append(Row.of(f"the scope alone, {role}", "ms", alone))
        get = _client(person)
        for address in ADDRESSES:
            ours, plain = [], []
            for _ in range(rounds):
                with_it, without = _interleaved_ms(partial(get, address))
                ours.append(with_it)
                plain.append(without)
            rows.append(Row.of(f"GET {address}, {role}", "ms", ours, plain))
    return rows


def _company() -> dict[str, Any]:
    from django.db import connection

    from governance.people.models import Department, Person, RoleAssignment
    from governance.policy.services import policy_bootstrap
    from registry.versions.models import Model, ModelVersion
    from workers.jobs.models import Job

    policy_bootstrap()
    people = {
        role: Person.objects.create(email=f"{role}@example.org", name=role)
        for role in ("admin", "lead")
    }
    RoleAssignment.objects.create(person=people["admin"], role="admin")
    for number in range(DEPARTMENTS):
        department = Department.objects.create(slug=f"d{number}", name=f"Department {number}")
        origin = {"department": department, "created_by": people["admin"]}
        models = Model.objects.bulk_create(
            Model(name=f"m{number}-{n}", task="embeddings", shared=n % 10 == 0, **origin)
            for n in range(MODELS_EACH)
        )
        ModelVersion.objects.bulk_create(
            ModelVersion(
                model=model,
                number=n,
                kind="base",
                digest="d" * 64,
                manifest={},
                size_bytes=1,
                created_by=people["admin"],
            )
            for model in models
            for n in range(VERSIONS_EACH)
        )
        Job.objects.bulk_create(
            Job(kind="evaluate", title=f"job {n}", spec={}, **origin) for n in range(JOBS_EACH)
        )
    RoleAssignment.objects.create(person=people["lead"], role="lead", department=department)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return people


def _client(person: Any) -> Callable[[str], None]:
    from django.test import Client

    client = Client()
    client.force_login(person)

    def get(address: str) -> None:
        answer = client.get(address)
        if answer.status_code != 200:
            raise RuntimeError(f"{address} answered {answer.status_code}: {answer.content[:300]!r}")

    return get


def _interleaved_ms(once: Callable[[], None]) -> tuple[float, float]:
    """Return the tenth percentile of requests with and without the scope, measured in turn."""
    from unittest import mock

    from assay.api.endpoint import Endpoint

    ours, plain = [], []
    for _ in range(REQUESTS):
        ours.append(_ms(once))
        with mock.patch.object(Endpoint, "scope", return_value=nullcontext()):
            plain.append(_ms(once))
    return _tenth_percentile(ours), _tenth_percentile(plain)


def _enter(scope: Callable[[Any], AbstractContextManager[Any]], actor: Any) -> None:
    with scope(actor):
        pass


def _ms(once: Callable[[], None]) -> float:
    started = time.perf_counter()
    once()
    return 1000 * (time.perf_counter() - started)


def _tenth_percentile(durations: list[float]) -> float:
    """Return the tenth percentile, the cost without other load on the processor."""
    return quantiles(durations, n=10)[0]


if __name__ == "__main__":
    show("Row-level security", "without", run(quick="--quick" in sys.argv))
