"""Health of a deployment in the API and the portal."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.utils import timezone

from governance.people.models import Person
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in
from tests.unit.workers import company
from tests.unit.workers.test_deployment_health import deployed, used
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.placement.models import Placement

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis")]
# With the scope of row security, which `test_portal_pages` calls SCOPE.
PAGE, NOW, FIGURES = 15, 13, 25


def person(name: str, role: str, where: str | None = None, **more: str) -> Person:
    company.person(name, role, where, **more)
    return Person.objects.get(email=f"{name}@example.org")


def placed(deployment: Deployment, worker: str = "gpu-1/engine") -> None:
    Placement.objects.create(
        deployment=deployment, worker=worker, since=timezone.now(), reason="It has room."
    )
    Replica.objects.create(
        deployment=deployment,
        worker=worker,
        state=ReplicaState.READY,
        load_seconds=12.5,
        heartbeat_at=timezone.now(),
    )


def charts_in(page: str) -> dict[str, Any]:
    """Return the data of each chart by name."""
    found = re.findall(r'<div id="([\w-]+)-data" hidden>(.*?)</div>', page, re.DOTALL)
    return {name: json.loads(text.replace("&quot;", '"')) for name, text in found}


def test_the_api_answers_with_figures_phases_changes_and_workers() -> None:
    deployment = deployed()
    placed(deployment)
    used(4, total_ms=1_000, queue_ms=900, prompt_tokens=5, cost_micro=7)
    used(1, outcome="failed")
    api = Api(person("vera", "viewer", "clinical"))
    path = f"deployments/{deployment.pk}/health"
    body = api.get(f"{path}?span=1h").body
    assert body["total"] == {
        "at": body["points"][0]["at"],
        "requests": 5,
        "failed": 1,
        "canceled": 0,
        "error_rate": 0.2,
        "units": 20,
        "unit": "tokens",
        "cost_micro": 28,
        "latency_ms": {"p50": 1_000, "p95": 1_000, "p99": 1_000},
        "first_token_ms": None,
    }
    assert (body["span"], body["step_s"], len(body["points"])) == ("1h", 120, 30)
    assert (body["slowest"]["queue"], body["slowest"]["compute"]) == (900, 100)
    assert body["explanation"].startswith("Slow requests wait 90% of their time in the queue")
    assert [change["kind"] for change in body["changes"]] == ["release"]
    assert body["waiting"] == 0
    assert body["workers"] == [
        {"worker": "gpu-1/engine", "node": None, "state": "ready", "load_seconds": 12.5}
    ]
    assert api.get(path).body["span"] == "24h"
    problem_of(api.get(f"{path}?span=2y"), 400)


def test_whoever_may_not_view_usage_or_the_deployment_gets_no_figures() -> None:
    deployment = deployed()
    used(4, total_ms=1_000)
    reviewer = person("rita", "reviewer", specialty="security")
    path = f"deployments/{deployment.pk}/health"
    assert "may not view usage" in str(problem_of(Api(reviewer).get(path), 403))
    problem_of(Api(person("fay", "lead", "finance")).get(path), 404)
    client = signed_in(reviewer)
    assert client.get(f"/deployments/{deployment.pk}/health").status_code == 403
    assert client.get(f"/deployments/{deployment.pk}/health/figures").status_code == 403
    assert "/health" not in client.get(f"/deployments/{deployment.pk}").content.decode()


def test_the_page_shows_the_queue_and_workers_and_then_loads_its_figures(redis: Any) -> None:
    deployment = deployed()
    placed(deployment)
    used(4, total_ms=12_000, queue_ms=11_000, first_token_ms=11_500)
    redis.lpush(f"deployment.{deployment.pk}", "waits")
    client = signed_in(person("olga", "operator"))
    address = f"/deployments/{deployment.pk}/health"
    page = client.get(f"{address}?span=1h").content.decode()
    assert f'hx-get="{address}/figures?span=1h"' in page
    assert "gpu-1/engine" in page
    assert inline_in(page) == []
    figures = client.get(f"{address}/figures?span=1h").content.decode()
    assert inline_in(figures) == []
    assert "Slow requests wait 92% of their time in the queue" in figures
    charts = charts_in(figures)
    assert charts["latency"]["y"] == "seconds"
    assert [each for each in charts["latency"]["series"][0]["data"] if each] == [12.0]
    assert [mark["label"] for mark in charts["requests"]["marks"]] == ["1"]
    assert f"Release {deployment.release_id} deployed" in figures
    nothing = client.get(f"/deployments/{deployed('idle').pk}/health/figures").content.decode()
    assert "No requests in this period" in nothing


def test_queries_do_not_grow_with_requests_and_workers() -> None:
    deployment = deployed()
    client = signed_in(person("olga", "operator"))
    address = f"/deployments/{deployment.pk}/health"
    addresses = (address, f"{address}/now", f"{address}/figures")
    placed(deployment)
    few = [queries(client, each) for each in addresses]
    placed(deployment, "gpu-2/engine")
    used(300, total_ms=10)
    assert [queries(client, each) for each in addresses] == few == [PAGE, NOW, FIGURES]
