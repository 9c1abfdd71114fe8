"""Faults of nodes, their clocks and their network, on running processes: a clear state, no lost
work, and nothing twice.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.live.celery_worker import ROOT, controller, node_worker
from tests.live.network import broker_network, web_network
from tests.live.test_nodes import join
from tests.live.test_serving_faults import ENGINE, LEASE, LEASE_S, key, measured
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create
from workers.nodes.models import Node
from workers.nodes.services import node_enroll

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
HOUR_S = 3600


def wrong_clock(folder: Path, seconds: int) -> dict[str, str]:
    """Return settings of a machine whose clock is off, as Python's processes read it."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        f"import time\nright = time.time\ntime.time = lambda: right() + {seconds}\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(ROOT / "platform")])}


class Stack:
    """A control plane, and an engine node that reaches it and the broker by a network each."""

    def __init__(self, folder: Path, stack: ExitStack, clock_s: int) -> None:
        self.folder, self.stack = folder, stack
        (folder / "sitecustomize.py").write_text("import tests.live.echo_catalog\n")
        made = release(adapter())
        self.deployment = deployment_create(actor=company.developer(), release_id=made.pk)
        self.headers = {"authorization": f"Bearer {key()}"}
        stack.enter_context(controller(folder / "controller.log", **LEASE))
        self.url, self.web = stack.enter_context(web(folder, **LEASE))
        self.web_network, url = stack.enter_context(web_network(self.url))
        self.broker_network, broker = stack.enter_context(broker_network())
        settings = wrong_clock(folder / "clock", clock_s)
        machine = folder / "machine"
        machine.mkdir()
        _, token, _ = node_enroll(actor=company.person("ada", "admin"), name="gpu-1")
        joined = join(machine, url, token)
        assert joined.returncode == 0, joined.stderr
        self.log = folder / "engine.log"
        self.node = stack.enter_context(
            node_worker(self.log, url, machine / "key", *ENGINE, REDIS_URL=broker, **settings)
        )
        wait_until(lambda: self.state() == DeploymentState.SERVING)
        wait_until(lambda: self.ask().status_code == 200)

    def state(self) -> str:
        return Deployment.objects.get(pk=self.deployment.pk).state

    def ask(self, timeout: float = 60) -> httpx.Response:
        body = {"model": "docs", "prompt": "one two", "max_tokens": 8}
        url = f"{self.url}/v1/completions"
        return httpx.post(url, json=body, headers=self.headers, timeout=timeout)

    def served_again(self, what: str) -> None:
        with measured(what):
            wait_until(lambda: self.ask().status_code == 200)


def _drop_connections(redis: Redis) -> None:
    """End all connections of others to the broker, as a restart does."""
    redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def test_an_engine_node_with_a_wrong_clock_survives_networks_that_hang(
    redis: Redis, tmp_path: Path
) -> None:
    with ExitStack() as exits:
        stack = Stack(tmp_path, exits, HOUR_S)
        wait_until(lambda: abs(Node.objects.get().facts.get("clock_ahead_s", 0) - HOUR_S) < 5)
        assert b"The clock of this machine" in stack.log.read_bytes()
        assert stack.ask().json()["choices"][0]["text"] == "onetwo"

        stack.web_network.hang()
        with measured("refused after the network to the control plane hung"):
            wait_until(lambda: stack.ask().status_code == 503, LEASE_S + 10)
        stack.web_network.heal()
        stack.served_again("served again after the network to the control plane healed")

        stack.broker_network.hang()
        answer = stack.ask()
        assert answer.status_code in {502, 503}, answer.text
        stack.broker_network.heal()
        stack.served_again("served again after the network to the broker healed")

        redis.flushall()
        _drop_connections(redis)
        stack.served_again("served again after the broker lost everything and all connections")
