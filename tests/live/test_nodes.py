"""A machine with neither database nor store serves what the gateway asks, until it is revoked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from redis import Redis

from governance.audit.models import AuditEvent
from tests.live.celery_worker import ROOT, controller, node_worker, until
from tests.live.test_serving_faults import ENGINE, LEASE_S, key
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Deployment, DeploymentState, Replica
from workers.deployments.services import deployment_create
from workers.nodes.models import Node, NodeState
from workers.nodes.services import node_enroll, node_revoke

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


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


def test_a_node_without_database_serves_until_it_is_revoked(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_SERVING_LEASE_S", str(LEASE_S))
    # The plan of a load comes from the web process: it names the engine without a model.
    (tmp_path / "sitecustomize.py").write_text("import tests.live.echo_catalog\n")
    machine = tmp_path / "machine"
    machine.mkdir()
    admin = company.person("ada", "admin")
    deployment = deployment_create(actor=company.developer(), release_id=release(adapter()).pk)
    body = {"model": "docs", "prompt": "one two", "max_tokens": 8}
    headers = {"authorization": f"Bearer {key()}"}
    with controller(tmp_path / "controller.log"), web(tmp_path) as (url, _):

        def ask() -> httpx.Response:
            return httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)

        _, token, _ = node_enroll(actor=admin, name="gpu-1")
        finished = join(machine, url, token)
        assert finished.returncode == 0, finished.stderr
        assert token not in finished.stdout
        assert (machine / "key").stat().st_mode & 0o777 == 0o600
        (machine / "other").mkdir()
        replayed = join(machine / "other", url, token)
        assert replayed.returncode == 1
        assert "was used already" in replayed.stderr
        assert AuditEvent.objects.filter(action="node:join", outcome="denied").exists()

        with node_worker(tmp_path / "engine.log", url, machine / "key", *ENGINE):
            until(lambda: Deployment.objects.get().state == DeploymentState.SERVING)
            until(lambda: ask().status_code == 200)
            assert ask().json()["choices"][0]["text"] == "onetwo"
            assert Replica.objects.get().worker.startswith("gpu-1/engine@")
            until(lambda: Node.objects.get().facts.get("cpus"))

            node_revoke(actor=admin, name="gpu-1", reason="Sold")
            began = time.monotonic()
            until(lambda: ask().status_code == 503, LEASE_S)
            assert time.monotonic() - began < LEASE_S
            until(lambda: b"Node gpu-1 is revoked" in (tmp_path / "engine.log").read_bytes())
            deployment.refresh_from_db()
            assert deployment.state == DeploymentState.PENDING
            assert Node.objects.get().state == NodeState.REVOKED
