"""An engine worker on a node serves what is placed on it, by the HTTP API alone."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from governance.errors import InvalidInput, NotAuthenticated
from registry.catalog import TASKS, task_catalog
from registry.manifests import Manifest
from registry.storage.backend import file_key
from registry.storage.cache import Cache
from tests.unit.assay.node_support import DjangoTransport, client_of, node_made, place
from tests.unit.workers import company, echo
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_deployments_reconciler import changed
from workers.celery_tasks.hosting import EngineHost
from workers.control.messages import read
from workers.control.protocol import Assignments, AssignmentsQuery, Plan, ReplicaReport, Software
from workers.deployments import reconciler
from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create
from workers.nodes.models import Node, NodeSample, NodeSession
from workers.nodes.services import node_revoke
from workers.placement.capacity import Capacity
from workers.remote import client as remote_client
from workers.remote.client import ControlPlaneAway, NodeClient
from workers.remote.control import RemoteControl
from workers.remote.files import RemoteFiles
from workers.remote.identity import identity_read
from workers.wire_keys import WireKey

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
WORKER = "engine@gpu"
NAME = f"gpu-1/{WORKER}"


class EngineNode:
    """The engine worker of a node: everything of it but Celery."""

    def __init__(self, folder: Path) -> None:
        self.transport = DjangoTransport()
        self.client = client_of(folder, self.transport)
        self.control = RemoteControl(self.client, Cache(folder / "cache", 10**9))
        self.host = EngineHost(self.control)
        self.queues: set[str] = set()
        self.loop = Reconciler(
            self.host,
            self.control,
            worker=WORKER,
            consume=self.queues.add,
            cease=self.queues.discard,
        )
        self.control.worker_key_register(
            worker=WORKER,
            public_key="ab" * 32,
            engines=["own"],
            capacity=Capacity(10**9),
            software=Software({"own": {"assay": "1"}}),
        )

    def reconcile(self) -> None:
        self.loop.settle()
        self.loop.load_missing(threading.Event())
        self.loop.settle()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineNode]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.echo:EchoEngine"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
    monkeypatch.setattr(remote_client, "WAIT_FIRST_S", 0.001)
    monkeypatch.setattr(remote_client, "WAIT_LONGEST_S", 0.01)
    node_made(tmp_path)
    found = EngineNode(tmp_path)
    yield found
    found.host.close()
    assert echo.OPEN == []


def deployed(content: bytes = b"adapter", name: str = "docs", *, placed: bool = True) -> Deployment:
    made = deployment_create(
        actor=company.developer(), release_id=release(adapter(content), name=name).pk
    )
    if placed:
        place(made.pk, NAME)
    return made


def query(worker: str) -> AssignmentsQuery:
    return AssignmentsQuery(worker=worker, engines="own")


def test_a_node_loads_what_is_placed_on_it_and_serves_it(node: EngineNode) -> None:
    deployment, other = deployed(), deployed(b"other", "other", placed=False)
    node.reconcile()
    deployment.refresh_from_db()
    assert deployment.state == "serving"
    assert echo.OPEN[0].adapters == {str(deployment.pk): b"adapter"}
    replica = Replica.objects.get()
    assert (replica.worker, replica.state) == (NAME, "ready")
    assert WorkerKey.objects.get(worker=NAME).memory == 10**9
    assert node.host.leased(deployment.pk)
    assert not node.host.leased(other.pk)


def test_files_that_are_cached_are_not_fetched_again(node: EngineNode) -> None:
    first = deployed(b"one", "first")
    node.reconcile()
    node.transport.asked.clear()
    deployed(b"two", "second")
    node.reconcile()
    fetched = [each for each in node.transport.asked if each.startswith("GET") and "files" in each]
    assert len(fetched) == 1, "the adapter's weights; its base and its config.json are here"
    assert set(node.host.loaded()) == {first.pk, first.pk + 1}


def test_a_revoked_node_answers_no_more_at_its_next_round(node: EngineNode) -> None:
    deployment = deployed()
    node.reconcile()
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1")
    deployment.refresh_from_db()
    assert deployment.state == "pending"
    assert not Replica.objects.filter(state="ready").exists()
    assert node.host.leased(deployment.pk)
    leased = []

    class OneRound(threading.Event):
        def is_set(self) -> bool:
            leased.append(node.host.leased(deployment.pk))
            return len(leased) > 1

    node.loop.wake()
    node.loop.run(OneRound())
    assert leased == [True, False]


def test_leases_run_out_while_the_control_plane_is_away(
    node: EngineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployed()
    node.reconcile()

    def away(request: httpx.Request, _answer: httpx.Response) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    node.transport.spoil = away
    with pytest.raises(ControlPlaneAway, match="does not answer"):
        node.loop.settle()
    assert node.host.leased(deployment.pk)
    later = time.monotonic() + 31
    monkeypatch.setattr(reconciler.time, "monotonic", lambda: later)
    assert not node.host.leased(deployment.pk)


def test_a_download_that_breaks_off_goes_on_where_it_ended(node: EngineNode) -> None:
    content = b"x" * 3_000_000
    deployed(content)
    ranges: list[str] = []

    def cut(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method != "GET" or "/files/" not in request.url.path:
            return answer
        ranges.append(request.headers.get("range", ""))
        if len(answer.content) < 1_500_000:
            return answer

        class Broken(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield answer.content[:1_048_576]
                raise httpx.ReadError("half open", request=request)

        return httpx.Response(
            answer.status_code, headers=answer.headers, stream=Broken(), request=request
        )

    node.transport.spoil = cut
    node.reconcile()
    assert Replica.objects.get().state == "ready"
    assert [each for each in ranges if each] == ["bytes=1048576-", "bytes=2097152-"]
    assert next(iter(echo.OPEN[0].adapters.values())) == content


@pytest.mark.parametrize("status", [429, 503])
def test_a_download_that_finds_no_place_comes_again(node: EngineNode, status: int) -> None:
    deployed()
    refused: list[str] = []

    def full(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.method != "GET" or "/files/" not in request.url.path or len(refused) >= 2:
            return answer
        refused.append(request.url.path)
        problem = {"code": "overloaded", "detail": "Too many requests are waiting."}
        return httpx.Response(status, json=problem, headers={"Retry-After": "0"}, request=request)

    node.transport.spoil = full
    node.reconcile()
    assert (Replica.objects.get().state, len(refused)) == ("ready", 2)


def test_other_bytes_than_the_manifest_names_are_refused(node: EngineNode) -> None:
    deployment = deployed(b"changed on the way")
    with changed(deployment.release.version):
        node.reconcile()
    deployment.refresh_from_db()
    assert deployment.state == "refused"
    assert node.host.loaded() == {}


def test_a_damaged_file_of_the_cache_is_fetched_again(node: EngineNode, tmp_path: Path) -> None:
    deployment = deployed()
    node.reconcile()
    node.loop._unload(deployment.pk)
    for file in (tmp_path / "cache" / "files").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"!" * file.stat().st_size)
    node.reconcile()
    assert Replica.objects.get().state == "ready"
    assert echo.OPEN[0].adapters == {str(deployment.pk): b"adapter"}


def test_a_report_with_control_characters_is_recorded_as_one_line(node: EngineNode) -> None:
    deployment = deployed()
    message = "\x1b[31mout of\nmemory\x00" + "!" * 2_000
    report = ReplicaReport(deployment.pk, ReplicaState.FAILED, message=message)
    node.control.replica_report(worker=WORKER, report=report)
    message = Replica.objects.get().message
    assert message.startswith("[31mout of memory !")
    assert len(message) == 1_000


def test_heartbeats_carry_facts_now_and_then(node: EngineNode) -> None:
    for _ in range(2):
        node.control.replicas_heartbeat(worker=WORKER, engines=["own"])
    found = Node.objects.get()
    assert found.facts["cpus"] >= 1
    assert NodeSample.objects.count() == 1
    assert WorkerKey.objects.get(worker=NAME).seen_at is not None


def test_workers_of_one_machine_share_a_session_and_a_clone_ends_it(
    node: EngineNode, tmp_path: Path
) -> None:
    second = client_of(tmp_path)
    second.get("assignments", Assignments, query("engine-2@gpu"))
    node.client.get("assignments", Assignments, query(WORKER))
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "key").write_bytes((tmp_path / "key").read_bytes())
    (clone / "key").chmod(0o600)
    client_of(clone).get("assignments", Assignments, query(WORKER))
    for client in (node.client, second):
        for _ in range(2):
            with pytest.raises(NotAuthenticated, match="Another process signed in"):
                client.get("assignments", Assignments, query(WORKER))
    # A process that is started anew takes over, and the others of its machine go on.
    client_of(tmp_path).get("assignments", Assignments, query(WORKER))
    node.client.get("assignments", Assignments, query(WORKER))
    with pytest.raises(NotAuthenticated):
        client_of(clone)._checked(
            lambda token: node.client._http.get("assignments"), client_of(clone).session().token
        )


def test_an_idle_process_of_a_machine_takes_no_session_back(
    node: EngineNode, tmp_path: Path
) -> None:
    """A compute worker that waits for jobs asks for nothing but its user of the broker."""
    idle = client_of(tmp_path)
    idle.keep()
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "key").write_bytes((tmp_path / "key").read_bytes())
    (clone / "key").chmod(0o600)
    client_of(clone).keep()
    make_due(idle)
    for call in (idle.session, idle.keep):
        with pytest.raises(NotAuthenticated, match="Another process signed in"):
            call()


def make_due(client: NodeClient) -> None:
    """Have the machine's session renewed at the next use."""
    session = client._file.read()
    assert session is not None
    client._session = dataclasses.replace(session, renew_at=0.0)
    client._file.write(client._session)


def test_a_session_has_a_user_of_the_broker_and_a_wire_key_of_the_nodes_own(
    node: EngineNode,
) -> None:
    found = Node.objects.get()
    session = node.client.session()
    assert session.realm == found.realm == f"gpu-1.{found.public_key[:16]}"
    assert session.broker_user == f"assay_node_{found.realm}"
    assert session.wire_key == WireKey(settings.WIRE_KEY).node_secret(found.realm)
    digest = hashlib.sha256(session.broker_password.encode()).hexdigest()
    assert NodeSession.objects.get(ended_at=None).broker_sha256 == digest
    make_due(node.client)
    assert node.client.session().broker_password != session.broker_password


def test_a_session_is_used_on_while_the_control_plane_is_away(node: EngineNode) -> None:
    session = node.client.session()
    make_due(node.client)

    def away(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        raise httpx.ConnectError("away")

    node.transport.spoil = away
    assert node.client.session().broker_password == session.broker_password


def test_a_session_is_renewed_before_it_ends(
    node: EngineNode,
) -> None:
    before = node.client.session()
    make_due(node.client)
    node.client.get("assignments", Assignments, query(WORKER))
    assert node.client.session() != before
    assert Node.objects.get().conflict_at is None


def test_a_file_is_found_after_another_process_has_renewed_the_session(
    node: EngineNode, tmp_path: Path
) -> None:
    deployment = deployed()
    other = client_of(tmp_path)
    files = RemoteFiles(other, f"deployments/{deployment.pk}/files/")
    manifest = Manifest.from_json(deployment.release.version.manifest)
    key = file_key(manifest.files[0].sha256)
    assert files.find(key) is not None
    make_due(node.client)
    node.client.get("assignments", Assignments, query(WORKER))
    assert node.client.session() != other._session
    found = files.find(key)
    assert found is not None
    assert found.size == manifest.files[0].size


def test_an_overloaded_control_plane_is_asked_again(node: EngineNode) -> None:
    answers = [503, 200]

    def busy(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if answers and answers.pop(0) == 503:
            return httpx.Response(503, text="a proxy's page", request=request)
        return answer

    node.transport.spoil = busy
    assert node.client.get("assignments", Assignments, query(WORKER)).root == []
    assert answers == []


def test_a_plan_survives_the_way(node: EngineNode) -> None:
    deployment = deployed()
    plan = node.control.current_plan(deployment.pk)
    assert plan.digest == deployment.release.version.digest
    told = Plan(plan).model_dump(mode="json")
    assert read(Plan, told).root == plan
    told["weights"]["manifest"]["files"][0]["size"] += 1
    with pytest.raises(InvalidInput):
        read(Plan, told)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, node: EngineNode) -> None:
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(InvalidInput, match="Other users may read"):
        identity_read(tmp_path / "key")
    (tmp_path / "key").write_text("{}")
    with pytest.raises(InvalidInput, match="damaged"):
        identity_read(tmp_path / "key")
    with pytest.raises(InvalidInput, match="cannot be read"):
        identity_read(tmp_path / "none")
