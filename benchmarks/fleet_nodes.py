"""Simulated nodes: the code of real engine workers, with a host that loads nothing.

Each node signs in with its key, and its worker registers, sends heartbeats, reconciles, listens for
messages and reads its queues as a real one does. `SleepingHost` differs: a load takes a fixed time,
and its bytes are those of the plan. Requests are taken and not answered. All nodes use the same
user of the broker.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.control.protocol import LoadPlan, ReferenceRequest

GB = 10**9
MEMORY = 64 * GB
WORKER = "engine"
# Time for which a worker answers one request; it takes the next one afterward.
ANSWER_S = 0.2


class SleepingHost:
    """A `Host` without engines."""

    def __init__(self, load_s: float) -> None:
        self._load_s = load_s
        self._plans: dict[int, LoadPlan] = {}

    def loaded(self) -> dict[int, str]:
        return {pk: plan.digest for pk, plan in list(self._plans.items())}

    def load(self, plan: LoadPlan) -> str:
        time.sleep(self._load_s)
        self._plans[plan.deployment_id] = plan
        return plan.digest

    def answers(
        self,
        deployment_id: int,
        requests: Sequence[ReferenceRequest],
        opened: Callable[[str], BytesIO],
    ) -> list[dict[str, Any]]:
        raise NotImplementedError("The simulated releases have no answers to compare.")

    def code(self, deployment_id: int) -> str:
        return self._plans[deployment_id].code

    def faults(self) -> dict[int, str]:
        return {}

    def unload(self, deployment_id: int) -> None:
        self._plans.pop(deployment_id, None)

    def lease(self, until: Mapping[int, float]) -> None:
        """Do nothing: no request arrives."""


def begin(url: str, folder: Path, load_s: float, stop: threading.Event) -> None:
    """Start the worker of the node whose key file is in `folder`, as daemon threads."""
    from registry.catalog import TASKS, codes_here, package_of
    from registry.storage import store
    from workers.broker import broker_client
    from workers.celery_tasks.inference import show_life
    from workers.control.protocol import Software
    from workers.deployments.reconciler import Reconciler
    from workers.listening import listener
    from workers.offers.values import TaskOffer
    from workers.placement.capacity import Capacity
    from workers.presence import Presence
    from workers.remote.client import NodeClient
    from workers.remote.control import RemoteControl
    from workers.sealing import WorkerSeals
    from workers.wire import DEPLOYMENTS_CHANNEL, IDLE_QUEUE
    from workers.wire_keys import WireKey

    client = NodeClient(url, folder / "key")
    session = client.session()
    seals = WorkerSeals(WireKey(session.wire_key), session.realm)
    control = RemoteControl(client, store.cache())
    queues = {IDLE_QUEUE}
    offers = {name: TaskOffer(package_of(name)) for name in TASKS}

    def register() -> None:
        control.tasks_report(worker=WORKER, offers=offers)
        control.worker_key_register(
            worker=WORKER,
            public_key=seals.public_key,
            engines=["own"],
            capacity=Capacity(MEMORY),
            software=Software({"own": {"assay": "simulated"}}, codes_here()),
        )

    def read_queues(stop: threading.Event) -> None:
        with broker_client() as broker:
            while not stop.is_set():
                if broker.brpop(list(queues), timeout=1):
                    time.sleep(ANSWER_S)

    reconciler = Reconciler(
        SleepingHost(load_s),
        control,
        worker=WORKER,
        consume=queues.add,
        cease=queues.discard,
        register=register,
    )
    for target in (reconciler.run, reconciler.run_loads, reconciler.beat, read_queues):
        threading.Thread(target=target, args=(stop,), daemon=True).start()
    threading.Thread(target=show_life, args=(seals.address, stop), daemon=True).start()
    Presence(f"{client.node}/{WORKER}").start()
    listener({DEPLOYMENTS_CHANNEL: reconciler.wake}, stop)


def main() -> None:
    """Run the workers of the named nodes until this process is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("nodes", nargs="+")
    parser.add_argument("--load", type=float, default=2.0)
    options = parser.parse_args()
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    django.setup()
    logging.disable(logging.WARNING)
    # Each node has several connections to the web process and the broker.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stop = threading.Event()
    for name in options.nodes:
        begin(options.url, options.folder / name, options.load, stop)
    stop.wait()


if __name__ == "__main__":
    main()
