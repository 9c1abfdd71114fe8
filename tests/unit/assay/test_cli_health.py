"""`assay deployments health` against a real server."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from governance.keys.services import access_token_create
from governance.people.models import Person
from tests.unit.assay.test_cli import Run, run
from tests.unit.workers.test_deployment_health import deployed, used

__all__ = ["run"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def test_it_prints_percentiles_phases_and_changes(
    redis: object, live_server: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction.atomic():
        deployment = deployed()
        used(4, total_ms=1_500, queue_ms=1_200, first_token_ms=1_300, cost_micro=500_000)
    person = Person.objects.get(email="dev-clinical@example.org")
    _, token = access_token_create(person=person, name="cli")
    monkeypatch.setenv("ASSAY_SERVER", live_server.url)
    monkeypatch.setenv("ASSAY_TOKEN", token)
    _, out, _ = run("deployments", "health", str(deployment.pk), "--span", "1h", code=0)
    assert "p50 1,500 ms, p95 1,500 ms, p99 1,500 ms" in out
    assert "4, 0.0% failed" in out
    assert "2.00 EUR" in out
    assert "Slow requests wait 80% of their time in the queue." in " ".join(out.split())
    assert f"Release {deployment.release_id} deployed" in out
    _, _, err = run("deployments", "health", str(deployment.pk), "--span", "2y", code=4)
    assert "span" in err
