"""Nodes in the portal, the API and the command line: the same state, the same services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.proofs import signed_in
from tests.unit.assay.portal_data import Company, reported
from tests.unit.assay.test_node_api import FACTS
from tests.unit.assay.test_portal_pages import inline_in
from workers.deployments.models import Replica
from workers.nodes.models import Node, NodeSample, NodeState, NodeToken
from workers.nodes.services import node_report
from workers.wire import deployment_queue

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
QUERIES = {"/nodes": 26, "/nodes/gpu-0": 28, "/api/v1/nodes": 12}


@pytest.fixture
def company(company: Company, redis: Any) -> Company:
    made(company, 0)
    return company


def made(company: Company, number: int) -> Node:
    """A node that works, with a replica and a report."""
    node = Node.objects.create(
        name=f"gpu-{number}",
        state=NodeState.ENROLLED,
        public_key=f"{number:064x}",
        created_by=company.people["ada"],
        joined_at=timezone.now(),
    )
    device = {"name": "H100", "memory_bytes": 80, "memory_used_bytes": 8, "used": 0.25}
    node_report(node=node, facts={**FACTS, "devices": [device, device]})
    Node.objects.filter(pk=node.pk).update(seen_at=reported())
    replica = Replica.objects.exclude(state="stopped").first()
    assert replica is not None
    Replica.objects.create(
        deployment=replica.deployment,
        worker=f"{node.name}/engine@a",
        state="ready",
        heartbeat_at=timezone.now(),
    )
    return node


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.content[:500])
    text: str = answer.content.decode()
    assert inline_in(text) == []
    return text


def test_the_list_shows_state_devices_load_and_last_heartbeat(company: Company) -> None:
    page = text_of(signed_in(Client(), company.people["ada"]), "/nodes")
    for said in ("gpu-0", "Active", "2 × H100", "50% of 10 B", "Enroll a node"):
        assert said in page, said
    assert "Silent" not in page
    Node.objects.update(seen_at=timezone.now() - timedelta(minutes=5), conflict_at=timezone.now())
    page = text_of(signed_in(Client(), company.people["omar"]), "/nodes")
    assert "Silent" in page
    assert "Its key is used by two processes" in page
    assert "Enroll a node" not in page


def test_requests_that_wait_for_its_deployments_are_counted(
    company: Company, redis: Any, settings: Any
) -> None:
    admin = signed_in(Client(), company.people["ada"])
    replica = Replica.objects.get(worker="gpu-0/engine@a")
    redis.rpush(deployment_queue(replica.deployment_id), "one", "two")
    assert "2 requests queued" in text_of(admin, "/nodes/gpu-0")
    assert admin.get("/api/v1/nodes/gpu-0").json()["queued"] == 2
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "unknown: the broker does not answer" in text_of(admin, "/nodes/gpu-0")
    assert admin.get("/api/v1/nodes").json()["results"][0]["queued"] is None


def test_commands_that_the_broker_denied_are_shown_for_a_day(company: Company) -> None:
    admin = signed_in(Client(), company.people["ada"])
    for hours, shown in ((1, True), (25, False)):
        last = timezone.now() - timedelta(hours=hours)
        denial = {"count": 3, "target": "deployment.9<b>", "last_at": last.isoformat()}
        Node.objects.update(broker_denials={"brpop": denial})
        assert ("The broker denied it commands" in text_of(admin, "/nodes")) == shown
        page = text_of(admin, "/nodes/gpu-0")
        said = "<code>brpop</code> on <code>deployment.9&lt;b&gt;</code>:"
        assert (said in page, "3 times, last" in page) == (shown, shown)


def test_a_clock_that_is_wrong_is_shown(company: Company) -> None:
    admin = signed_in(Client(), company.people["ada"])
    for ahead, said in ((3600.0, "60 minutes ahead of"), (-7300.0, "2 hours behind")):
        node_report(node=Node.objects.get(), facts={**FACTS, "clock_ahead_s": ahead})
        for path in ("/nodes", "/nodes/gpu-0"):
            assert f"The clock is {said}" in text_of(admin, path)
    node_report(node=Node.objects.get(), facts=FACTS)
    assert "The clock is" not in text_of(admin, "/nodes/gpu-0")


def test_a_node_has_a_page_with_its_utilization_and_what_it_holds(company: Company) -> None:
    node = Node.objects.get()
    for minutes in (30, 60):
        at = (timezone.now() - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        NodeSample.objects.create(node=node, at=at, cpu=0.5, memory=0.1)
    page = text_of(signed_in(Client(), company.people["ada"]), "/nodes/gpu-0")
    for said in ('id="use-data"', "device memory", "gpu-0/engine@a", "Cordon", "Drain", "Revoke"):
        assert said in page, said
    assert "Return to use" not in page
    assert signed_in(Client(), company.people["ada"]).get("/nodes/gpu-9").status_code == 404
    auditor = text_of(signed_in(Client(), company.people["asha"]), "/nodes/gpu-0")
    assert "Change state" not in auditor


def test_the_list_has_pages_and_a_long_list_of_loaded_deployments_says_that_it_is_cut(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = signed_in(Client(), company.people["ada"])
    for number in range(1, 27):
        made(company, number)
    assert "1–25 of 27" in text_of(ada, "/nodes")
    assert "26–27 of 27" in text_of(ada, "/nodes?page=2")
    said = "Only the first 1 loaded deployments and running jobs are listed."
    Replica.objects.create(
        deployment=Replica.objects.exclude(state="stopped").first().deployment,  # type: ignore[union-attr]
        worker="gpu-0/engine@b",
        state="ready",
        heartbeat_at=timezone.now(),
    )
    assert "are listed." not in text_of(ada, "/nodes/gpu-0")
    monkeypatch.setattr("workers.deployments.fleet.SHOWN", 1)
    assert said in text_of(ada, "/nodes/gpu-0")


def test_a_node_is_enrolled_and_taken_out_of_use_in_the_portal(company: Company) -> None:
    ada = signed_in(Client(), company.people["ada"])
    answer = ada.post("/nodes", {"name": "gpu-7"})
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    token = NodeToken.objects.get()
    assert f"assay_{token.public_id}_" in answer.content.decode()
    again = ada.post("/nodes", {"name": "not a name"})
    assert (again.status_code, "is not a valid name" in again.content.decode()) == (400, True)
    long = ada.post("/nodes/gpu-0/drain", {"reason": "Memory" * 60})
    assert (long.status_code, long.content.decode().count("Memory" * 60)) == (400, 1)
    for verb, state in (
        ("cordon", NodeState.CORDONED),
        ("drain", NodeState.DRAINING),
        ("uncordon", NodeState.ENROLLED),
        ("revoke", NodeState.REVOKED),
    ):
        answer = ada.post(f"/nodes/gpu-0/{verb}", {"reason": "Memory"})
        assert (answer.status_code, answer["Location"]) == (302, "/nodes/gpu-0"), verb
        assert Node.objects.get(name="gpu-0").state == state
    refused = ada.post("/nodes/gpu-0/cordon", {})
    assert (refused.status_code, "it cannot become" in refused.content.decode()) == (409, True)


def test_the_api_has_the_same(company: Company) -> None:
    ada = signed_in(Client(), company.people["ada"])

    def post(path: str, **body: str) -> Any:
        return ada.post(f"/api/v1/nodes{path}", body, content_type="application/json")

    made_ = post("", name="gpu-7")
    assert made_.status_code == 201, made_.content
    assert made_.json().keys() == {"name", "token", "expires_at"}
    (first, second) = ada.get("/api/v1/nodes").json()["results"]
    assert (first["name"], first["replicas"], first["state"]) == ("gpu-0", 1, "enrolled")
    assert (second["name"], second["facts"]) == ("gpu-7", {})
    assert post("/gpu-0/drain", reason="Memory").json()["state"] == "draining"
    assert ada.get("/api/v1/nodes?state=draining").json()["results"][0]["name"] == "gpu-0"
    assert post("/gpu-0/uncordon").json()["state"] == "enrolled"
    assert post("/gpu-0/revoke").json()["state"] == "revoked"
    assert post("/gpu-0/uncordon").status_code == 409
    enzo = signed_in(Client(), company.people["enzo"])
    assert enzo.get("/api/v1/nodes").json()["results"] == []
    assert enzo.get("/api/v1/nodes/gpu-0").status_code == 404


@pytest.mark.parametrize("address", QUERIES)
def test_pages_cost_as_many_queries_however_many_nodes_there_are(
    company: Company, address: str
) -> None:
    ada = signed_in(Client(), company.people["ada"])
    ada.get(address)
    counts = []
    for number in range(1, 12):
        if number in {1, 11}:
            with CaptureQueriesContext(connection) as captured:
                assert ada.get(address).status_code == 200
            counts.append(len(captured))
        made(company, number)
    assert counts[0] == counts[1] <= QUERIES[address], [q["sql"][:120] for q in captured]
