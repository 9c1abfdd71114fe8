"""A machine becomes a node with a one-time token, and proves who it is with its key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    WrongState,
)
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from tests.database_roles import acting_as
from tests.unit.workers import company
from tests.unit.workers.nodes import Machine, joined
from tests.unit.workers.releases import adapter, release
from workers.deployments.alarms import node_keys_shared
from workers.deployments.models import Replica, ReplicaState, WorkerKey
from workers.deployments.services import deployment_create, replica_report
from workers.jobs.models import Job, JobState
from workers.nodes import credentials, engine_side, sessions
from workers.nodes.credentials import challenge_make
from workers.nodes.engine_side import node_worker_register, node_worker_stop
from workers.nodes.job_side import node_job_claim
from workers.nodes.models import Node, NodeSample, NodeSession, NodeState, NodeToken
from workers.nodes.selectors import node_get, nodes_visible_to
from workers.nodes.services import (
    node_cordon,
    node_drain,
    node_enroll,
    node_join,
    node_records_expire,
    node_report,
    node_revoke,
    node_uncordon,
)
from workers.nodes.sessions import session_node, session_start
from workers.placement.capacity import Capacity

pytestmark = pytest.mark.django_db
FACTS: dict[str, Any] = {
    "cpus": 2,
    "cpu_used": 0.25,
    "load": 0.5,
    "memory_bytes": 1000,
    "memory_used_bytes": 100,
    "disk_free_bytes": 10,
    "devices": [
        {"name": "H100", "memory_bytes": 80, "memory_used_bytes": 20, "used": 0.5},
        {"name": "H100", "memory_bytes": 80, "memory_used_bytes": 60, "used": 1.0},
    ],
    "versions": {"assay": "0.1.0"},
}


def admin() -> Any:
    return company.person("ada", "admin")


def refused(token: str, **more: str) -> NotAuthenticated:
    with pytest.raises(NotAuthenticated) as caught, transaction.atomic():
        node_join(token=token, public_key=more.get("key", Machine().public_key))
    return caught.value


def test_a_token_enrolls_one_machine_once() -> None:
    node, token, _ = node_enroll(actor=admin(), name="gpu-1")
    assert node.state == NodeState.INVITED
    joined_node = node_join(token=token, public_key=Machine().public_key)
    assert joined_node.state == NodeState.ENROLLED
    assert "was used already" in (again := refused(token)).message
    assert again.attempt is not None
    assert again.attempt.subject.id == "gpu-1"
    actions = AuditEvent.objects.filter(subject_id="gpu-1").order_by("pk")
    assert [event.action for event in actions] == ["node:enroll", "node:join"]
    assert token.encode() not in b"".join(bytes(event.canonical) for event in actions)
    kept = NodeToken.objects.get()
    assert token.split("_")[2] not in str(kept.__dict__)


def test_an_old_replaced_or_wrong_token_enrolls_nothing() -> None:
    _, first, _ = node_enroll(actor=admin(), name="gpu-1")
    _, second, _ = node_enroll(actor=admin(), name="gpu-1")
    assert "was revoked" in refused(first).message
    NodeToken.objects.update(expires_at=timezone.now())
    assert "has expired" in refused(second).message
    assert "is not valid" in refused(second[:-8] + "00000000").message
    assert "is not valid" in refused("what").message
    assert not Node.objects.filter(state=NodeState.ENROLLED).exists()


def test_enrolling_needs_an_administrator_and_a_fresh_second_factor() -> None:
    with pytest.raises(NotPermitted):
        node_enroll(actor=company.person("otto", "operator"), name="gpu-1")
    plain = principal_for_person(Person.objects.get(pk=admin().person_id))
    with pytest.raises(NotPermitted, match="second factor"):
        node_enroll(actor=plain, name="gpu-1")
    with pytest.raises(NotFound):
        node_enroll(actor=company.developer(), name="gpu-1")
    assert not Node.objects.exists()


@pytest.mark.parametrize("name", ["", "GPU", "a/b", "a b", "-a", "a" * 41])
def test_a_name_that_could_be_another_workers_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        node_enroll(actor=admin(), name=name)


def test_a_key_belongs_to_one_node() -> None:
    machine, _ = joined("gpu-1")
    _, token, _ = node_enroll(actor=admin(), name="gpu-2")
    with pytest.raises(WrongState, match="belongs to a node already"), transaction.atomic():
        node_join(token=token, public_key=machine.public_key)
    with pytest.raises(InvalidInput):
        node_join(token=token, public_key="zz")
    with pytest.raises(IntegrityError), transaction.atomic():
        Node.objects.update(state=NodeState.ENROLLED)


def test_a_session_follows_from_a_signature_and_renews_itself() -> None:
    machine, node = joined()
    first = machine.sign_in()
    assert session_node(first) == node
    second = machine.sign_in(current=first)
    assert session_node(second) == node
    with pytest.raises(NotAuthenticated) as ended:
        session_node(first)
    assert ended.value.code == "node_session_ended"
    assert AuditEvent.objects.filter(action="node:sign_in").count() == 1
    assert not AuditEvent.objects.filter(action="node:conflict").exists()


def test_a_renewal_whose_answer_was_lost_is_repeated_without_an_alarm() -> None:
    machine, node = joined()
    first = machine.sign_in()
    session_node(first)
    machine.sign_in(current=first)
    machine.sign_in(current=first)
    third = machine.sign_in(current=first)
    assert session_node(third) == node
    assert not AuditEvent.objects.filter(action="node:conflict").exists()
    # Its successor is used now: whoever comes with the old token is another machine.
    machine.sign_in(current=first)
    assert AuditEvent.objects.filter(action="node:conflict").count() == 1


def test_two_machines_with_one_key_get_a_clear_state() -> None:
    machine, node = joined()
    first = machine.sign_in()
    second = machine.sign_in()
    with pytest.raises(NotAuthenticated, match="Another process signed in with this node's key"):
        session_node(first)
    assert session_node(second) == node
    event = AuditEvent.objects.get(action="node:conflict")
    assert event.subject_id == node.name
    node.refresh_from_db()
    assert node.conflict_at is not None
    assert node_keys_shared() == "Two processes used the key of: gpu-1."


def test_a_node_signs_in_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SIGN_INS_MAX", 2)
    machine, node = joined()
    machine.sign_in()
    last = machine.sign_in()
    with pytest.raises(QuotaExceeded):
        machine.sign_in()
    assert session_node(last) == node
    NodeSession.objects.update(started_at=timezone.now() - timedelta(minutes=1))
    machine.sign_in(current=last)


def test_a_challenge_is_answered_once_within_a_minute_and_by_its_node_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, _ = joined()
    other, _ = joined("gpu-2")
    challenge = challenge_make(machine.name)

    def start(name: str, challenge: str, signature: str) -> None:
        session_start(name=name, challenge=challenge, signature=signature)

    with pytest.raises(NotAuthenticated):
        start(machine.name, challenge, other.answer(challenge))
    with pytest.raises(NotAuthenticated):
        start(other.name, challenge, other.answer(challenge))
    with pytest.raises(NotAuthenticated):
        start(machine.name, challenge, "zz")
    start(machine.name, challenge, machine.answer(challenge))
    with pytest.raises(NotAuthenticated):
        start(machine.name, challenge, machine.answer(challenge))
    old = challenge_make(machine.name)
    late = credentials.time.time() + 61
    monkeypatch.setattr(credentials.time, "time", lambda: late)
    with pytest.raises(NotAuthenticated, match="older than 60 s"):
        start(machine.name, old, machine.answer(old))
    for broken in ("", "..", "x.y.z", old[:-1] + "g", "9" * 200):
        with pytest.raises(NotAuthenticated):
            start(machine.name, broken, machine.answer(broken))


def test_an_expired_or_invented_session_is_refused() -> None:
    machine, _ = joined()
    token = machine.sign_in()
    NodeSession.objects.update(expires_at=timezone.now())
    for text in (token, token[:-8] + "00000000", "", "x" * 80):
        with pytest.raises(NotAuthenticated):
            session_node(text)
    # An expired session conflicts with none.
    machine.sign_in()
    assert not AuditEvent.objects.filter(action="node:conflict").exists()


def test_operators_cordon_and_drain_and_only_administrators_revoke() -> None:
    joined()
    operator = company.person("otto", "operator")
    assert node_cordon(actor=operator, name="gpu-1", reason="Memory").state == NodeState.CORDONED
    assert node_drain(actor=operator, name="gpu-1").state == NodeState.DRAINING
    assert node_uncordon(actor=operator, name="gpu-1").state == NodeState.ENROLLED
    with pytest.raises(NotPermitted):
        node_revoke(actor=operator, name="gpu-1")
    with pytest.raises(NotFound):
        node_cordon(actor=company.developer(), name="gpu-1")
    event = AuditEvent.objects.get(action="node:cordon")
    assert (event.reason, event.subject_id) == ("Memory", "gpu-1")


def test_revoking_ends_sessions_replicas_and_leases_and_enrolling_begins_anew() -> None:
    machine, node = joined()
    joined("gpu-10")
    token = machine.sign_in()
    deployment = deployment_create(actor=company.developer(), release_id=release(adapter()).pk)
    digest = deployment.release.version.digest
    for worker in ("gpu-1/e@a", "gpu-10/e@a", "gpu-1"):
        replica_report(
            deployment_id=deployment.pk,
            worker=worker,
            state=ReplicaState.READY,
            loaded_digest=digest,
        )
    job = Job.objects.create(
        kind="evaluation",
        title="Evaluate",
        spec={},
        department=deployment.department,
        created_by=Person.objects.first(),
        state=JobState.RUNNING,
        worker="gpu-1/c@a",
        lease_until=timezone.now() + timedelta(hours=1),
    )
    node_revoke(actor=admin(), name="gpu-1", reason="Sold")
    with pytest.raises(NotAuthenticated) as caught:
        session_node(token)
    assert caught.value.code == "node_revoked"
    with pytest.raises(NotAuthenticated):
        machine.sign_in()
    states = dict(Replica.objects.values_list("worker", "state"))
    assert states == {"gpu-1/e@a": "stopped", "gpu-10/e@a": "ready", "gpu-1": "ready"}
    job.refresh_from_db()
    assert job.fence == 1
    assert job.lease_until is not None
    assert job.lease_until <= timezone.now()

    _, again, _ = node_enroll(actor=admin(), name="gpu-1")
    replacement = Machine("gpu-1")
    node_join(token=again, public_key=replacement.public_key)
    assert session_node(replacement.sign_in()) == node
    with pytest.raises(NotAuthenticated):
        machine.sign_in()


def test_reports_make_a_bounded_history() -> None:
    _, node = joined()
    node_report(node=node, facts=FACTS)
    node_report(node=node, facts={**FACTS, "cpu_used": 7})
    sample = NodeSample.objects.order_by("at").last()
    assert sample is not None
    assert (sample.cpu, sample.memory, sample.device_memory) == (1, 0.1, 0.5)
    assert sample.device == 0.75
    NodeSample.objects.create(node=node, at=timezone.now() - timedelta(hours=25), cpu=0, memory=0)
    assert node_records_expire() == 1
    node_report(node=node, facts={**FACTS, "devices": []})
    node.refresh_from_db()
    assert node.facts["devices"] == []
    node_report(node=node, facts=None)
    assert NodeSample.objects.filter(device=None).exists()


@pytest.mark.django_db(transaction=True)
def test_a_report_does_not_wait_for_another_request_of_its_node() -> None:
    _, node = joined()
    before, other = node.seen_at, connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT FROM workers_node FOR SHARE")
            node_report(node=node, facts=FACTS)
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    node.refresh_from_db()
    assert node.seen_at == before
    node_report(node=node, facts=FACTS)
    node.refresh_from_db()
    assert node.seen_at > before


def test_only_platform_roles_see_nodes() -> None:
    joined()
    assert [each.name for each in nodes_visible_to(admin())] == ["gpu-1"]
    assert not nodes_visible_to(company.developer()).exists()
    assert node_get(actor=company.person("audrey", "auditor"), name="gpu-1").name == "gpu-1"
    with pytest.raises(DomainError):
        node_get(actor=company.developer(), name="gpu-1")


def waiting_job() -> Job:
    return Job.objects.create(
        kind="evaluation",
        title="Evaluate",
        spec={},
        department=company.department("clinical"),
        created_by=Person.objects.first(),
        dispatches=1,
    )


@pytest.mark.parametrize("leave", [node_cordon, node_drain])
def test_a_request_that_was_authenticated_before_its_node_gets_nothing_new_claims_no_job(
    leave: Any,
) -> None:
    _machine, node = joined()
    job = waiting_job()
    leave(actor=admin(), name="gpu-1")
    with pytest.raises(WrongState, match="it gets no new jobs"):
        node_job_claim(node=node, job_id=job.pk, worker="c")


def test_a_request_that_was_authenticated_before_a_revocation_changes_nothing_after_it() -> None:
    _machine, node = joined()
    capacity = Capacity(memory=1)
    job = waiting_job()
    node_revoke(actor=admin(), name="gpu-1")
    with pytest.raises(NotAuthenticated, match="is revoked"):
        node_worker_register(
            node=node, worker="gpu-1/e", public_key="ab" * 32, engines=["own"], capacity=capacity
        )
    with pytest.raises(NotAuthenticated, match="is revoked"):
        node_job_claim(node=node, job_id=job.pk, worker="c")
    before = node.seen_at
    node_report(node=node, facts=None)
    node.refresh_from_db()
    assert node.seen_at == before
    assert not WorkerKey.objects.exists()


def register(node: Node, worker: str, public_key: str = "ab" * 32) -> None:
    with acting_as("web"):
        node_worker_register(
            node=node,
            worker=f"gpu-1/{worker}",
            public_key=public_key,
            engines=["own"],
            capacity=Capacity(memory=1),
        )


def test_a_node_registers_a_bounded_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_side, "WORKERS_MAX", 2)
    _machine, node = joined()
    for worker in ("a", "b", "b"):
        register(node, worker)
    with pytest.raises(WrongState, match="has 2 workers"):
        register(node, "c")


def test_a_node_registers_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_side, "REGISTRATIONS_MAX", 2)
    _machine, node = joined()
    register(node, "a", "ab" * 32)
    register(node, "a", "cd" * 32)
    with pytest.raises(QuotaExceeded, match="2 keys"):
        register(node, "a", "ef" * 32)


def test_a_node_reports_a_bounded_number_of_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_side, "STOPS_MAX", 2)
    _machine, node = joined()
    for _ in range(2):
        node_worker_stop(node=node, worker="gpu-1/a")
    with pytest.raises(QuotaExceeded, match="2 stops"):
        node_worker_stop(node=node, worker="gpu-1/a")


def test_a_worker_that_repeats_its_key_is_no_event() -> None:
    _machine, node = joined()
    register(node, "a")
    WorkerKey.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    register(node, "a")
    assert WorkerKey.objects.get().seen_at > timezone.now() - timedelta(minutes=1)
    assert AuditEvent.objects.filter(action="worker:register").count() == 1
    register(node, "a", "cd" * 32)
    assert AuditEvent.objects.filter(action="worker:register").count() == 2
