"""The API of nodes: one way in, and only to what is placed on the node of the session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from governance.errors import NotFound
from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.manifests import Manifest
from tests.unit.assay.node_support import client_of, node_made, place
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Deployment, Replica, WorkerKey
from workers.deployments.services import deployment_create, deployment_stop
from workers.deployments.worker_keys import worker_key_register
from workers.nodes import engine_side
from workers.nodes.engine_side import node_file
from workers.nodes.models import Node
from workers.nodes.services import node_enroll
from workers.placement.models import Placement

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
OWN, OTHERS = "gpu-1/engine@a", "gpu-2/engine@b"
FACTS: dict[str, Any] = {
    "cpus": 2,
    "cpu_used": 0.5,
    "load": 1,
    "memory_bytes": 10,
    "memory_used_bytes": 5,
    "disk_free_bytes": 1,
    "devices": [],
    "versions": {"assay": "0.1.0"},
}
Call = Callable[..., Any]


@pytest.fixture
def session(tmp_path: Path) -> dict[str, str]:
    """The session of the node gpu-1, as a header."""
    node_made(tmp_path)
    client = client_of(tmp_path)
    client.keep()
    return {"authorization": f"Bearer {client.session().token}"}


@pytest.fixture
def call(session: dict[str, str]) -> Call:
    """Calls the API with the session of the node gpu-1."""

    def made(method: str, path: str, body: Any = None, **more: str) -> Any:
        return Client(headers={**session, **more}).generic(
            method, f"/node/v1/{path}", *([] if body is None else [json.dumps(body)]),
            content_type="application/json",
        )  # fmt: skip

    return made


def deployed(worker: str, name: str = "docs", content: bytes = b"adapter") -> Deployment:
    made = deployment_create(
        actor=company.developer(), release_id=release(adapter(content), name=name).pk
    )
    place(made.pk, worker)
    return made


def weights(deployment: Deployment) -> str:
    manifest = Manifest.from_json(deployment.release.version.manifest)
    return next(file.sha256 for file in manifest.files if file.path == "weights.bin")


def report(deployment: Deployment, **more: Any) -> dict[str, Any]:
    worker = more.pop("worker", "engine@a")
    return {
        "worker": worker,
        "report": {"deployment_id": deployment.pk, "state": "ready", **more},
    }


def test_a_file_comes_whole_or_in_a_range(call: Call) -> None:
    deployment = deployed(OWN, content=b"0123456789")
    path = f"deployments/{deployment.pk}/files/{weights(deployment)}"
    whole = call("GET", path)
    assert b"".join(whole.streaming_content) == b"0123456789"
    assert whole["ETag"] == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    part = call("GET", path, range="bytes=3-5")
    assert (part.status_code, b"".join(part.streaming_content)) == (206, b"345")
    assert part["Content-Range"] == "bytes 3-5/10"
    rest = call("GET", path, range="bytes=8-")
    assert b"".join(rest.streaming_content) == b"89"
    head = call("HEAD", path)
    assert (head.status_code, head["Content-Length"], head.content) == (200, "10", b"")
    beyond = call("GET", path, range="bytes=10-")
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    for odd in ("bytes=5-3", "bytes=-3", "lines=1-2", "bytes=1-2,4-5"):
        assert call("GET", path, range=odd).status_code == 200


def test_bytes_of_what_another_node_has_do_not_exist(call: Call) -> None:
    own, other = deployed(OWN), deployed(OTHERS, "other", b"secret")
    for path in (
        f"deployments/{other.pk}/files/{weights(other)}",
        f"deployments/{own.pk}/files/{weights(other)}",
        f"deployments/{other.pk}/plan",
        f"deployments/{own.pk}/files/{'0' * 64}",
        "deployments/999999/plan",
    ):
        answer = call("GET", path)
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert call("GET", f"deployments/{own.pk}/plan").status_code == 200


def test_a_model_of_many_files_is_planned_once_and_its_placement_asked_each_time(
    call: Call, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_side, "_PLAN_S", 3600.0)
    deployment = deployed(OWN)
    node, sha256 = Node.objects.get(name="gpu-1"), weights(deployment)
    node_file(node=node, deployment_id=deployment.pk, sha256=sha256)
    with django_assert_num_queries(2):
        node_file(node=node, deployment_id=deployment.pk, sha256=sha256)
    Placement.objects.all().delete()
    with pytest.raises(NotFound, match="is not assigned to node gpu-1"):
        node_file(node=node, deployment_id=deployment.pk, sha256=sha256)


def test_bytes_are_gone_once_the_deployment_is_stopped(call: Call) -> None:
    deployment = deployed(OWN)
    path = f"deployments/{deployment.pk}/files/{weights(deployment)}"
    assert call("GET", path).status_code == 200
    lead = company.person("lea", "lead", "clinical")
    deployment_stop(actor=lead, deployment_id=deployment.pk)
    assert call("GET", path).status_code == 404


def test_a_node_reports_for_its_own_workers_and_placed_deployments_alone(call: Call) -> None:
    other = deployed(OTHERS, "other")
    digest = other.release.version.digest
    before = AuditEvent.objects.count()
    answer = call("POST", "replicas", report(other, loaded_digest=digest))
    assert answer.status_code == 404
    refused = call("POST", "replicas", report(other, state="refused", message="It differs."))
    assert refused.status_code == 404
    for name in ("../gpu-2/engine@b", "gpu-2/engine@b", "", "a b", "x" * 80):
        assert call("POST", "replicas", report(other, worker=name)).status_code == 400
    # The name of another node's worker is one of this node's own.
    call("POST", "workers/stop", {"worker": "engine@b"})
    other.refresh_from_db()
    assert other.state == "pending"
    assert not Replica.objects.exists()
    recorded = AuditEvent.objects.order_by("pk")[before:]
    assert {event.outcome for event in recorded} <= {"denied"}


def test_a_node_cannot_stop_or_take_the_key_of_another_nodes_worker(call: Call) -> None:
    deployment = deployed(OTHERS, "other")
    Replica.objects.create(
        deployment=deployment, worker=OTHERS, state="ready", heartbeat_at="2026-01-01T00:00Z"
    )
    assert call("POST", "workers/stop", {"worker": "engine@b"}).status_code == 204
    capacity = {"memory": 1, "device": "cpu", "devices": 1, "labels": []}
    body = {"worker": "engine@b", "public_key": "cd" * 32, "engines": ["own"]}
    answer = call("POST", "workers/keys", {**body, "capacity": capacity})
    assert answer.status_code == 204, answer.content
    assert Replica.objects.get(worker=OTHERS).state == "ready"
    assert [key.worker for key in WorkerKey.objects.all()] == ["gpu-1/engine@b"]
    event = AuditEvent.objects.get(action="worker:register")
    assert (event.actor_id, event.subject_id) == ("node:gpu-1", "gpu-1/engine@b")


def test_other_bytes_than_the_release_names_serve_nothing(call: Call) -> None:
    deployment = deployed(OWN)
    answer = call("POST", "replicas", report(deployment, loaded_digest="0" * 64))
    assert answer.json() == {"state": "refused"}
    deployment.refresh_from_db()
    assert deployment.state == "refused"


def test_sessions_of_nodes_and_tokens_of_people_open_only_their_own_api(
    session: dict[str, str],
) -> None:
    person = Person.objects.get(pk=company.person("ada", "admin").person_id)
    _, token = access_token_create(person=person, name="Ada's")
    mine = Client(headers={"authorization": f"Bearer {token}"})
    assert mine.get("/node/v1/assignments?worker=a&engines=own").status_code == 401
    node = Client(headers=session)
    for path in ("/api/v1/me", "/api/v1/releases", "/api/v1/audit/events"):
        assert node.get(path).status_code == 401
    assert node.post("/api/v1/models", {}).status_code == 401
    assert Client().get("/node/v1/assignments?worker=a&engines=own").status_code == 401
    assert Client().get("/node/v1/nothing").json()["code"] == "not_found"


def test_a_used_token_is_refused_and_audited() -> None:
    _, token, _ = node_enroll(actor=company.person("ada", "admin"), name="gpu-7")
    body = {"token": token, "public_key": "11" * 32, "facts": FACTS}
    first = Client().post("/node/v1/join", body, content_type="application/json")
    assert (first.status_code, first.json()) == (201, {"node": "gpu-7"})
    again = Client().post(
        "/node/v1/join", {**body, "public_key": "22" * 32}, content_type="application/json"
    )
    assert (again.status_code, again.json()["code"]) == (401, "node_token_invalid")
    event = AuditEvent.objects.get(action="node:join", outcome="denied")
    assert (event.subject_id, "was used already" in event.reason) == ("gpu-7", True)
    assert Node.objects.get().public_key == "11" * 32


@pytest.mark.parametrize(
    "facts",
    [
        {**FACTS, "cpu_used": 2},
        {**FACTS, "memory_bytes": -1},
        {**FACTS, "devices": [{}]},
        {**FACTS, "devices": [None] * 65},
        {**FACTS, "versions": {f"p{n}": "1" for n in range(17)}},
        {**FACTS, "versions": {"x" * 41: "1"}},
        {**FACTS, "unknown": 1},
    ],
)
def test_facts_out_of_bounds_are_refused(call: Call, facts: dict[str, Any]) -> None:
    body = {"worker": "engine@a", "engines": ["own"]}
    worker_key_register(worker=OWN, public_key="ab" * 32)
    assert call("POST", "heartbeats", {**body, "facts": FACTS}).status_code == 204
    answer = call("POST", "heartbeats", {**body, "facts": facts})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert Node.objects.get().facts == FACTS


def test_a_key_that_no_secret_can_be_shared_with_is_refused(call: Call) -> None:
    body = {
        "worker": "engine@a",
        "engines": ["own"],
        "capacity": {"memory": 1, "device": "cpu", "devices": 1, "labels": []},
    }
    answer = call("POST", "workers/keys", {**body, "public_key": "00" * 32})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert call("POST", "workers/keys", {**body, "public_key": "ab" * 32}).status_code == 204


def test_what_is_no_longer_placed_is_no_longer_desired(call: Call) -> None:
    deployment = deployed(OWN)
    path = "assignments?worker=engine@a&engines=own"
    (found,) = call("GET", path).json()
    assert (found["name"], found["recorded"], found["refusal"]) == ("docs", False, "")
    assert 0 < found["lease_s"] <= 30
    assert call("GET", "assignments?worker=engine@a&engines=vllm").json() == []
    Placement.objects.all().delete()
    assert call("GET", path).json() == []
    assert call("GET", f"deployments/{deployment.pk}/plan").status_code == 404
