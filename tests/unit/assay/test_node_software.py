"""Nodes are held to the code of a release, and to the comparison after an upgrade."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from registry.releases.equivalence.models import EquivalenceCheck, SoftwareEnvironment
from registry.releases.equivalence.standing import fingerprint_of
from tests.stored import stored_file
from tests.unit.assay.node_support import place
from tests.unit.assay.test_node_serving import NAME, WORKER, EngineNode, node
from tests.unit.workers import company
from tests.unit.workers.releases import release
from tests.unit.workers.test_equivalence import NEW, OLD, SAME, measured, version
from workers.control.protocol import ReplicaReport, Software
from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.services import deployment_create
from workers.placement.capacity import Capacity

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
__all__ = ["node"]


@pytest.fixture
def upgraded(node: EngineNode) -> EngineNode:
    """A node with other software than that of the evaluations."""
    register(node, NEW)
    return node


def register(node: EngineNode, versions: dict[str, str]) -> None:
    node.control.worker_key_register(
        worker=WORKER,
        public_key="ab" * 32,
        engines=["own"],
        capacity=Capacity(10**9),
        software=Software({"own": versions}, {"mine": {"digest": "ab" * 32, "packages": "m 1"}}),
    )


def deployed(
    answers: dict[str, str],
    *,
    worker: str = NAME,
    name: str = "docs",
    files: dict[str, str] | None = None,
) -> Deployment:
    of = version()
    measured(of, answers, files)
    made = deployment_create(actor=company.developer(), release_id=release(of, name=name).pk)
    place(made.pk, worker)
    return made


def stored_bytes(data: bytes) -> str:
    """Put a file into the artifact store; return its SHA-256."""
    sha256 = hashlib.sha256(data).hexdigest()
    file = stored_file(sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return sha256


def call(node: EngineNode, method: str, path: str, body: Any = None) -> Any:
    return Client(
        headers={"authorization": f"Bearer {node.client.session().token}"},
        raise_request_exception=False,
    ).generic(
        method, f"/node/v1/{path}", *([] if body is None else [json.dumps(body)]),
        content_type="application/json",
    )  # fmt: skip


def test_a_node_with_other_code_is_not_ready(node: EngineNode) -> None:
    register(node, OLD)
    deployment = deployed(SAME)
    plan = node.control.current_plan(deployment.pk)
    for code in ("cd" * 32, plan.code[:12]):
        state = node.control.replica_report(
            worker=WORKER,
            report=ReplicaReport(
                deployment.pk, ReplicaState.READY, loaded_digest=plan.digest, code=code
            ),
        )
        assert state == "failed"
    assert "runs other code of text-generation" in Replica.objects.get().message
    deployment.refresh_from_db()
    assert deployment.state == "pending"
    node.reconcile()
    assert Replica.objects.get().state == "ready"


def test_a_node_answers_what_is_compared_and_sees_no_answers(upgraded: EngineNode) -> None:
    deployment = deployed(SAME)
    plan = upgraded.control.current_plan(deployment.pk)
    early = upgraded.control.replica_report(
        worker=WORKER,
        report=ReplicaReport(
            deployment.pk, ReplicaState.READY, loaded_digest=plan.digest, code=plan.code
        ),
    )
    assert early == "failed", "It was not compared."
    seen = call(upgraded, "GET", f"deployments/{deployment.pk}/references?worker={WORKER}")
    assert [set(row) for row in seen.json()] == [{"row", "inputs", "options"}] * 2
    assert "helloworld" not in seen.content.decode()
    upgraded.reconcile()
    assert Replica.objects.get().state == "ready"
    (check,) = EquivalenceCheck.objects.all()
    assert (check.outcome, check.worker) == ("passed", NAME)
    (event,) = AuditEvent.objects.filter(action="deployment:compare")
    assert (event.actor_kind, event.actor_name) != ("person", "")
    seen = call(upgraded, "GET", f"deployments/{deployment.pk}/references?worker={WORKER}")
    assert seen.json() == []


def test_a_node_with_other_answers_serves_nothing(upgraded: EngineNode) -> None:
    deployment = deployed({"hello world": "something else"})
    upgraded.reconcile()
    assert Replica.objects.get().state == "failed"
    assert EquivalenceCheck.objects.get().outcome == "differs"
    deployment.refresh_from_db()
    assert deployment.state == "pending"


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [{"row": 0, "text": "helloworld", "results": []}],
        [{"row": 0, "text": "helloworld", "results": []}] * 2,
        [{"row": number, "text": "helloworld", "results": []} for number in (0, 7)],
        [{"row": number, "text": "x" * 200_000, "results": []} for number in (0, 1)],
    ],
)
def test_answers_that_fit_no_request_are_refused(
    upgraded: EngineNode, answers: list[dict[str, Any]]
) -> None:
    deployment = deployed(SAME)
    body = {"worker": WORKER, "answers": answers}
    answer = call(upgraded, "POST", f"deployments/{deployment.pk}/references", body)
    assert answer.status_code == 400, answer.content
    assert not EquivalenceCheck.objects.exists()


def test_what_another_node_has_is_neither_read_nor_compared(upgraded: EngineNode) -> None:
    others = deployed(SAME, worker="gpu-2/engine@b")
    answers = [{"row": n, "text": text, "results": []} for n, text in enumerate(SAME.values())]
    for method, path, body in (
        ("GET", f"references?worker={WORKER}", None),
        ("GET", "references/" + "ab" * 32, None),
        ("POST", "references", {"worker": WORKER, "answers": answers}),
    ):
        answer = call(upgraded, method, f"deployments/{others.pk}/{path}", body)
        assert answer.status_code == 404, (path, answer.content)
    assert not EquivalenceCheck.objects.exists()


def test_a_node_reads_the_files_of_its_requests_and_no_others(upgraded: EngineNode) -> None:
    image, other = stored_bytes(b"picture"), stored_bytes(b"another picture")
    made = deployed({"hello": "hello"}, files={"image": image})
    assert upgraded.control.reference_file(made.pk, image).read() == b"picture"
    answer = call(upgraded, "GET", f"deployments/{made.pk}/references/{other}")
    assert answer.status_code == 404


def test_software_that_a_node_states_is_bounded(node: EngineNode) -> None:
    body = {
        "worker": WORKER, "public_key": "ab" * 32, "engines": ["own"],
        "capacity": {"memory": 1, "device": "cpu", "devices": 1, "labels": []},
    }  # fmt: skip
    for software in (
        {"environments": {"own": {"torch": "3" * 81}}},
        {"environments": {"own": {str(n): "1" for n in range(33)}}},
        {"environments": {"no-engine": {}}},
        {"environments": {"own": {"torch": 3}}},
        {"environments": {"own": "torch"}},
        {"code": {"mine": {"digest": "x" * 100_000}}},
        {"code": {str(n): {"digest": "", "packages": ""} for n in range(1_000)}},
    ):
        answer = call(node, "POST", "workers/keys", {**body, "software": software})
        assert answer.status_code == 400, (software, answer.content)
    register(node, NEW)
    assert WorkerKey.objects.get(worker=NAME).environments == {"own": fingerprint_of(NEW)}
    assert SoftwareEnvironment.objects.get(pk=fingerprint_of(NEW)).versions == NEW
