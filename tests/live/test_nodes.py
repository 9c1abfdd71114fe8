"""Machines with neither database nor store serve what the gateway asks: where one dies the other
answers, and a revoked one serves no more."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis import Redis

from governance.audit.models import AuditEvent
from governance.errors import Unavailable
from tests.live.celery_worker import ROOT, controller, kill, node_worker
from tests.live.test_serving_faults import ENGINE, key
from tests.live.web_process import web
from tests.unit.assay.node_support import node_made, place
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import wait_until
from workers.control.protocol import Assignments, AssignmentsQuery
from workers.deployments.models import DeploymentState, Replica, ReplicaState
from workers.deployments.services import deployment_create
from workers.nodes.models import Node
from workers.nodes.services import node_enroll, node_revoke
from workers.placement.services import deployment_place
from workers.placement.settings import ReplicaSettings
from workers.remote.client import NodeClient

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
# Long enough for a busy machine to refuse requests sooner than the lease ends.
LEASE_S = 60
LEASE = {"ASSAY_SERVING_LEASE_S": str(LEASE_S)}


def join(folder: Path, url: str, token: str) -> subprocess.CompletedProcess[str]:
    """`assay node join` on the machine whose files are in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "assay.cli", "node", "join", url],
        input=f"{token}\n",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
            "ASSAY_NODE_KEY_FILE": str(folder / "key"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_two_nodes_without_database_serve_until_one_dies_and_the_other_is_revoked(
    redis: Redis, tmp_path: Path
) -> None:
    # The plan of a load comes from the web process: it names the engine without a model.
    (tmp_path / "sitecustomize.py").write_text("import tests.live.echo_catalog\n")
    admin = company.person("ada", "admin")
    deployment = deployment_create(actor=company.developer(), release_id=release(adapter()).pk)
    both = ReplicaSettings(replicas_min=2, replicas_max=2)
    deployment_place(actor=admin, deployment_id=deployment.pk, settings=both)
    body = {"model": "docs", "prompt": "one two", "max_tokens": 8}
    headers = {"authorization": f"Bearer {key()}"}
    with controller(tmp_path / "controller.log", **LEASE), web(tmp_path, **LEASE) as (url, _):

        def ask() -> httpx.Response:
            return httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)

        keys = []
        for name in ("gpu-1", "gpu-2"):
            (tmp_path / name).mkdir()
            _, token, _ = node_enroll(actor=admin, name=name)
            finished = join(tmp_path / name, url, token)
            assert finished.returncode == 0, finished.stderr
            assert token not in finished.stdout
            keys.append(tmp_path / name / "key")
            assert keys[-1].stat().st_mode & 0o777 == 0o600
        (tmp_path / "other").mkdir()
        replayed = join(tmp_path / "other", url, token)
        assert replayed.returncode == 1
        assert "was used already" in replayed.stderr
        assert AuditEvent.objects.filter(action="node:join", outcome="denied").exists()

        logs = [tmp_path / "engine1.log", tmp_path / "engine2.log"]
        with (
            node_worker(logs[0], url, keys[0], *ENGINE, **LEASE) as first,
            node_worker(logs[1], url, keys[1], *ENGINE, **LEASE),
        ):
            ready = Replica.objects.filter(state=ReplicaState.READY)
            wait_until(lambda: ready.count() == 2)
            names = {worker.partition("@")[0] for worker in ready.values_list("worker", flat=True)}
            assert names == {"gpu-1/engine1", "gpu-2/engine2"}
            wait_until(lambda: ask().status_code == 200)
            wait_until(lambda: all(node.facts.get("cpus") for node in Node.objects.all()))

            kill(first)
            wait_until(lambda: ask().status_code == 200)
            assert ask().json()["choices"][0]["text"] == "onetwo"

            for name in ("gpu-1", "gpu-2"):
                node_revoke(actor=admin, name=name, reason="Sold")
            began = time.monotonic()
            wait_until(lambda: ask().status_code == 503, LEASE_S)
            assert time.monotonic() - began < LEASE_S
            wait_until(lambda: b"Node gpu-2 is revoked" in logs[1].read_bytes())
            deployment.refresh_from_db()
            assert deployment.state == DeploymentState.PENDING


def test_slow_downloads_hold_neither_threads_nor_connections_and_are_bounded(
    redis: Redis, tmp_path: Path
) -> None:
    content = os.urandom(32 * 1024 * 1024)
    deployment = deployment_create(
        actor=company.developer(), release_id=release(adapter(content)).pk
    )
    node_made(tmp_path)
    place(deployment.pk, "gpu-1/engine@a")
    path = f"deployments/{deployment.pk}/files/{hashlib.sha256(content).hexdigest()}"
    with (
        # One node alone may hold half of the downloads.
        web(tmp_path, ASSAY_WEB_THREADS="1", ASSAY_WEB_DOWNLOADS="4") as (url, _),
        ExitStack() as opened,
    ):
        client = NodeClient(url, tmp_path / "key")
        query = AssignmentsQuery(worker="engine@a", engines="own")
        first, _second = (opened.enter_context(client.stream(path)) for _ in range(2))
        # Two clients read nothing; the one thread of Django answers others at once.
        for _ in range(3):
            assert client.get("assignments", Assignments, query).root
        with pytest.raises(Unavailable) as refused, client.stream(path):
            pass
        assert refused.value.code == "overloaded"
        assert client.send("HEAD", path).headers["Content-Length"] == str(len(content))
        assert "x-assay-ungated" not in first.headers
        assert hashlib.sha256(first.read()).digest() == hashlib.sha256(content).digest()
        first.close()
        wait_until(lambda: read(client, path, start=len(content) - 5) == content[-5:])


def read(client: NodeClient, path: str, start: int) -> bytes:
    """Read the end of a file; nothing while there are too many downloads."""
    try:
        with client.stream(path, start=start) as answer:
            return answer.read()
    except Unavailable:
        return b""
