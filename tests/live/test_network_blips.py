"""A worker and a node lose their network for longer than their leases, and keep their models."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.live.celery_worker import controller, node_worker, worker
from tests.live.network import broker_network, database_network, web_network
from tests.live.test_nodes import join
from tests.live.test_serving_faults import ENGINE, LEASE, key, measured
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.deployments.services import deployment_create, deployment_stop
from workers.nodes.services import node_enroll
from workers.placement.services import deployment_place
from workers.placement.settings import ReplicaSettings

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
# Each deployment, and the label of the machine that has it.
PLACES = {"near": "worker", "far": "node", "stopped-near": "worker", "stopped-far": "node"}


def deployed(name: str, label: str) -> Deployment:
    made = deployment_create(
        actor=company.developer(), release_id=release(adapter(name.encode()), name=name).pk
    )
    settings = ReplicaSettings(labels=[label])
    admin = company.person("ada", "admin")
    return deployment_place(actor=admin, deployment_id=made.pk, settings=settings)


# Longer than the leases and the silence after which a worker counts as lost.
@pytest.mark.parametrize("blip_s", [20.0, pytest.param(75.0, marks=pytest.mark.long)])
def test_models_stay_loaded_and_serve_again_once_they_are_confirmed(
    redis: Redis, tmp_path: Path, blip_s: float
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import tests.live.echo_catalog\n")
    deployments = {name: deployed(name, label) for name, label in PLACES.items()}
    headers = {"authorization": f"Bearer {key()}"}
    logs = {"worker": tmp_path / "near.log", "node": tmp_path / "far.log"}
    with ExitStack() as stack:
        stack.enter_context(controller(tmp_path / "controller.log", **LEASE))
        url, _ = stack.enter_context(web(tmp_path, **LEASE))
        database, by_network = stack.enter_context(database_network())
        brokers, broker = stack.enter_context(broker_network())
        control, control_url = stack.enter_context(web_network(url))
        machine = tmp_path / "machine"
        machine.mkdir()
        admin = company.person("ada", "admin")
        _, token, _ = node_enroll(actor=admin, name="gpu-1")
        joined = join(machine, control_url, token)
        assert joined.returncode == 0, joined.stderr
        common = {"REDIS_URL": broker, **LEASE}
        stack.enter_context(
            worker(logs["worker"], *ENGINE, ASSAY_WORKER_LABELS="worker", **by_network, **common)
        )
        stack.enter_context(
            node_worker(
                logs["node"], control_url, machine / "key", *ENGINE,
                ASSAY_WORKER_LABELS="node", **common,
            )
        )  # fmt: skip

        def ask(name: str) -> int:
            body = {"model": name, "prompt": "one two", "max_tokens": 8}
            answer = httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)
            return answer.status_code

        wait_until(lambda: all(ask(name) == 200 for name in PLACES))
        database.cut()
        brokers.hang()
        control.cut()
        over_at = time.monotonic() + blip_s
        # Their leases are over before the control plane takes them for lost.
        wait_until(lambda: not Replica.objects.filter(state=ReplicaState.READY).exists())
        assert {ask(name) for name in PLACES} <= {502, 503}
        lead = company.person("lea", "lead", "clinical")
        for name, deployment in deployments.items():
            if name.startswith("stopped"):
                deployment_stop(actor=lead, deployment_id=deployment.pk)
        wait_until(lambda: time.monotonic() > over_at)
        for each in (database, brokers, control):
            each.heal()
        with measured("served again after the network of a worker and a node healed"):
            wait_until(lambda: ask("near") == 200)
            wait_until(lambda: ask("far") == 200)
        for name, label in PLACES.items():
            log = logs[label]
            assert log.read_bytes().count(f"Loading deployment {name} (".encode()) == 1
            unloading = f'Unloading deployment {deployments[name].pk}"'.encode()
            if name.startswith("stopped"):
                assert ask(name) == 404
                wait_until(lambda: unloading in log.read_bytes())  # noqa: B023
            else:
                assert unloading not in log.read_bytes()
