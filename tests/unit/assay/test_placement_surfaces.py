"""Replicas of a deployment by service, API, portal and command line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotPermitted, WrongState
from governance.people.models import Person, RoleAssignment
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import inline_in, signed_in
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Deployment, Replica
from workers.deployments.services import deployment_create, replica_report
from workers.deployments.worker_keys import worker_key_register
from workers.placement.assigning import placements_update
from workers.placement.capacity import Capacity
from workers.placement.services import deployment_place
from workers.placement.settings import ReplicaSettings

pytestmark = pytest.mark.django_db
GB = 10**9


def operator() -> Person:
    company.person("olga", "operator")
    return Person.objects.get(email="olga@example.org")


def deployed(name: str = "docs", **more: Any) -> Deployment:
    approved = release(adapter(name.encode()), name=name)
    return deployment_create(actor=company.developer(), release_id=approved.pk, **more)


def test_an_operator_changes_replicas_and_the_log_names_both_settings() -> None:
    deployment = deployed()
    settings = ReplicaSettings(replicas_min=2, replicas_max=4, labels=["fast", "eu"], device="cuda")
    changed = deployment_place(
        actor=company.person("olga", "operator"), deployment_id=deployment.pk, settings=settings
    )
    assert (changed.replicas_wanted, changed.required_labels) == (2, ["eu", "fast"])
    assert ReplicaSettings.of(changed) == settings
    event = AuditEvent.objects.get(action="deployment:place")
    assert json.loads(bytes(event.canonical))["data"]["after"] == settings.to_json()
    with pytest.raises(NotPermitted):
        deployment_place(actor=company.developer(), deployment_id=deployment.pk, settings=settings)
    Deployment.objects.update(state="stopped")
    with pytest.raises(WrongState, match="it has no replicas"):
        deployment_place(
            actor=company.person("olga", "operator"), deployment_id=deployment.pk, settings=settings
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("replicas_min", 2),
        ("replicas_min", -1),
        ("replicas_max", 0),
        ("replicas_max", 101),
        ("queue_age_s", 0),
        ("queue_age_s", 601),
        ("labels", ["two words"]),
        ("labels", [f"l{number}" for number in range(11)]),
        ("device", "tpu"),
        ("stream_total_s", 0),
        ("stream_total_s", 3601),
        ("stream_idle_s", 301),
        ("queue_weights", {"clinical": 0}),
        ("queue_weights", {"clinical": 101}),
        ("queue_weights", {f"d{number}": 2 for number in range(101)}),
    ],
)
def test_settings_out_of_bounds_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        ReplicaSettings(**{field: value})
    assert list(refused.value.fields) == [field]


def test_what_replaces_a_deployment_keeps_its_replicas() -> None:
    first = deployed()
    settings = ReplicaSettings(
        replicas_min=1,
        replicas_max=3,
        queue_age_s=9,
        labels=["eu"],
        stream_total_s=1800,
        stream_idle_s=60,
        queue_weights={"clinical": 3},
    )
    olga = company.person("olga", "operator")
    deployment_place(actor=olga, deployment_id=first.pk, settings=settings)
    second = release(adapter(b"second"), name="docs")
    made = deployment_create(actor=company.developer(), release_id=second.pk)
    assert ReplicaSettings.of(made) == settings


@pytest.mark.parametrize("weights", [[], {"clinical": 0}, {"clinical": 101}, {"clinical": "3"}])
def test_the_database_refuses_other_weights(weights: Any) -> None:
    deployment = deployed()
    with pytest.raises(IntegrityError, match="queue_weights_within_bounds"), transaction.atomic():
        Deployment.objects.filter(pk=deployment.pk).update(queue_weights=weights)


def test_only_those_who_may_place_choose_replicas_at_creation() -> None:
    chosen = ReplicaSettings(replicas_max=5)
    with pytest.raises(NotPermitted):
        deployed(replicas=chosen)
    approved = release(adapter(b"other"), name="other")
    olga = company.person("olga", "operator")
    made = deployment_create(actor=olga, release_id=approved.pk, replicas=chosen)
    assert made.replicas_max == 5


def test_the_api_changes_replicas_and_shows_where_they_are() -> None:
    deployment = deployed()
    worker_key_register(
        worker="n1/engine", public_key="ab" * 32, engines=["own"], capacity=Capacity(memory=GB)
    )
    placements_update()
    api, path = Api(operator()), f"deployments/{deployment.pk}"
    body = api.get(path).body
    assert [place["worker"] for place in body["placements"]] == ["n1/engine"]
    assert body["placements"][0]["reason"] == "It has room."
    changed = api.post(f"{path}/replicas", {"replicas_min": 0, "replicas_max": 2, "labels": ["x"]})
    assert (changed.body["replicas_min"], changed.body["labels"]) == (0, ["x"])
    one = {"replicas_min": 1, "replicas_max": 1}
    longer = api.post(f"{path}/replicas", {**one, "stream_total_s": 1800, "stream_idle_s": 60})
    assert (longer.body["stream_total_s"], longer.body["stream_idle_s"]) == (1800, 60)
    too_long = api.post(f"{path}/replicas", {**one, "stream_total_s": 3601})
    assert "stream_total_s" in str(problem_of(too_long, 400))
    weighted = api.post(f"{path}/replicas", {**one, "queue_weights": {"clinical": 3}})
    assert weighted.body["queue_weights"] == {"clinical": 3}
    too_heavy = api.post(f"{path}/replicas", {**one, "queue_weights": {"clinical": 101}})
    assert "queue_weights" in str(problem_of(too_heavy, 400))
    assert (changed.body["queue_age_s"], changed.body["cold_start_s"]) == (5, None)
    again = {"replicas_min": 0, "replicas_max": 2, "queue_age_s": 30}
    assert api.post(f"{path}/replicas", again).body["queue_age_s"] == 30
    refused = api.post(f"{path}/replicas", {"replicas_min": 3, "replicas_max": 2})
    assert "replicas_min" in str(problem_of(refused, 400))
    problem_of(api.post(f"{path}/replicas", {"replicas_min": 1}), 400)


def test_the_page_shows_replicas_what_they_need_and_the_form() -> None:
    deployment = deployed()
    worker_key_register(
        worker="n1/engine", public_key="ab" * 32, engines=["own"], capacity=Capacity(memory=GB)
    )
    placements_update()
    olga = signed_in(operator())
    page = f"/deployments/{deployment.pk}"
    html = olga.get(page).content.decode()
    assert "n1/engine" in html
    assert "It has room." in html
    assert re.search(r"17\.8 MB on each\s+worker", html)
    assert inline_in(html) == []
    assert "not measured yet" in html
    values = {
        "replicas_min": "0", "replicas_max": "2", "queue_age_s": "7", "labels": "eu, fast",
        "device": "cpu",
    }  # fmt: skip
    values |= {"stream_total_s": "1800", "stream_idle_s": "", "queue_weights": "clinical"}
    refused = olga.post(f"{page}/replicas", values)
    assert "Use name=weight, such as clinical=3." in refused.content.decode()
    values["queue_weights"] = "clinical=3, research = 2"
    done = olga.post(f"{page}/replicas", values)
    assert done.headers["Location"] == page
    deployment.refresh_from_db()
    assert (deployment.replicas_min, deployment.required_labels) == (0, ["eu", "fast"])
    assert (deployment.stream_total_s, deployment.stream_idle_s) == (1800, None)
    assert deployment.queue_weights == {"clinical": 3, "research": 2}
    shown = olga.get(page).content.decode()
    assert "1800 s in all" in shown
    assert 'value="clinical=3, research=2"' in shown
    for worker, seconds in (("n1/engine", 12.34), ("n2/engine", 3.0), ("n3/engine", None)):
        Replica.objects.create(
            deployment=deployment, worker=worker, state="stopped", load_seconds=seconds,
            heartbeat_at=timezone.now(),
        )  # fmt: skip
    html = olga.get(page).content.decode()
    assert "12.3 s, the longest load of its replicas" in " ".join(html.split())
    assert "7 s; replicas are added" in html
    wrong = olga.post(f"{page}/replicas", {**values, "replicas_min": "5"})
    assert (wrong.status_code, b"Use 0 to 2, the maximum." in wrong.content) == (400, True)
    company.developer()
    developer = signed_in(Person.objects.get(email="dev-clinical@example.org"))
    assert "Save replicas" not in developer.get(page).content.decode()
    assert developer.post(f"{page}/replicas", values).status_code == 403


def test_the_page_of_workers_draws_the_room_of_each() -> None:
    deployment = deployed()
    for name in ("engine@one", "engine@two"):
        worker_key_register(
            worker=name,
            public_key="ab" * 32,
            engines=["own"],
            capacity=Capacity(memory=GB, labels=("eu",)),
        )
    placements_update()
    replica_report(deployment_id=deployment.pk, worker="engine@one", state="loading")
    RoleAssignment.objects.create(person=operator(), role="auditor")
    client = signed_in(operator())
    html = client.get("/nodes").content.decode()
    assert "17.8 MB of 1.0 GB assigned to models" in re.sub(r"\s+", " ", html)
    assert html.count("<progress") == 2
