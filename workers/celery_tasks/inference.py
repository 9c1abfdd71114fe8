"""The engine worker: `celery -A workers.app worker -I workers.celery_tasks.inference -Q engine.none
-P threads -c 16`. It reads the queues of the deployments that its reconciler has loaded.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import redis
from celery.bootsteps import RUN
from celery.signals import worker_ready, worker_shutdown
from django.conf import settings
from kombu import Queue
from redis.backoff import NoBackoff
from redis.retry import Retry

from governance.errors import Unavailable
from governance.principals import serving
from registry.storage import store
from workers import tracing, transport
from workers.app import app
from workers.broker import broker_client, node_client, own_realm, own_wire_key
from workers.celery_tasks.answering import Answerer, NoDevice
from workers.celery_tasks.capacity import machine_memory, own_capacity
from workers.celery_tasks.egress import EgressWorker
from workers.celery_tasks.engines import offered_engines, own_software
from workers.celery_tasks.hosting import EngineHost
from workers.celery_tasks.replies import Replies
from workers.control.direct import DirectControl, StoredMedia
from workers.control.direct_jobs import StoreFiles
from workers.control.egress_jobs import EgressJobs
from workers.control.protocol import EngineControl
from workers.deployments.reconciler import Reconciler
from workers.engine_process.client import OwnEngines
from workers.engine_process.watch import ProcessLimits
from workers.listening import listener
from workers.load_reports import LoadReporter
from workers.offers.reporting import OfferReports
from workers.remote.control import RemoteControl, RemoteMedia
from workers.request_logs import about
from workers.sealing import GivenBack, NotAddressed, WorkerSeals
from workers.wire import (
    ALIVE_EVERY_S,
    ALIVE_FOR_MS,
    DEPLOYMENTS_CHANNEL,
    INFERENCE_TASK,
    alive_key,
    cancel_channel,
    load_key,
    replica_queue,
)
from workers.wire_keys import Forged, WireKey

logger = logging.getLogger(__name__)
CONTROL_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 20.0
LIFE_TIMEOUT_S = 2.0
# A hanging connection to the broker must not delay all answers of this process.
REPLY_TIMEOUT_S = 5.0
# Limits of tasks of other packages: a load that hangs must not delay others, and their code does
# not need many processes.
FOREIGN_LOAD_S = 600.0
FOREIGN_PROCESSES = 64


def engine_control() -> EngineControl:
    """Return the control plane of this process: over HTTP on a node, else through its services.

    Raises:
        InvalidInput: the node's URL or key file is not usable.
    """
    if not settings.NODE_URL:
        return DirectControl()
    return RemoteControl(node_client(), store.cache())


class Runtime:
    """State of one engine worker process: engines, replies, reconciler, listener."""

    def __init__(self, consumer: Any) -> None:
        """`consumer` is Celery's consumer of this process."""
        self._worker: str = consumer.hostname
        self._consumer = consumer
        self._stop = threading.Event()
        self._realm = own_realm()
        self._seals = WorkerSeals(WireKey(own_wire_key()), self._realm)
        self._control = engine_control()
        batch_s = float(settings.ENGINE_BATCH_TIMEOUT_S)
        own = OwnEngines(
            settings.LOGGING,
            limits=ProcessLimits(batch_s=batch_s),
            foreign=ProcessLimits(
                batch_s=batch_s,
                load_s=FOREIGN_LOAD_S,
                memory=machine_memory() * settings.WORKER_MEMORY_PERCENT // 100,
                processes=FOREIGN_PROCESSES,
            ),
        )
        self._egress: EgressWorker | None = None
        if settings.EGRESS:
            self._egress = EgressWorker(
                self._control,
                worker=self._worker,
                jobs=EgressJobs(),
                files=StoreFiles(),
                begun=lambda: self._offers.begun(),
            )
        self._host = EngineHost(
            self._control,
            own=own,
            hosted=None if self._egress is None else self._egress.engine,
        )
        self._replies = Replies(
            broker_client(
                socket_timeout=REPLY_TIMEOUT_S,
                socket_connect_timeout=LIFE_TIMEOUT_S,
                # Text written twice would end its request, so only `Replies` retries.
                retry=Retry(NoBackoff(), 0),
            )
        )
        self._answerer = Answerer(
            self._host,
            self._replies,
            most=settings.ENGINE_REQUESTS,
            media=RemoteMedia(node_client()) if settings.NODE_URL else StoredMedia(),
            clock=NoDevice() if settings.EGRESS else None,
        )
        self._engines = offered_engines()
        self._offers = OfferReports(
            lambda offers: self._control.tasks_report(worker=self._worker, offers=offers),
            self._control.close,
            # Code of other packages never runs next to the credentials of providers.
            others=not settings.EGRESS,
        )
        self._reconciler = Reconciler(
            self._host,
            self._control,
            worker=self._worker,
            consume=self._consume,
            cease=self._cease,
            offers=self._engines,
            answers=self._answerer.answers,
            longest_s=settings.GATEWAY_REQUEST_TIMEOUT_S + CONTROL_TIMEOUT_S,
            keep_s=settings.WORKER_KEEP_S,
            connected=self._connected,
            register=self._register,
        )
        loads = LoadReporter(
            broker_client(socket_timeout=LIFE_TIMEOUT_S, socket_connect_timeout=LIFE_TIMEOUT_S),
            load_key(self._realm, self._worker),
            self._host.loads,
        )
        self._threads = [
            threading.Thread(target=target, args=(self._stop,), name=name, daemon=True)
            for name, target in (
                ("assay-loads", loads.run),
                ("assay-reconciler", self._reconciler.run),
                ("assay-loader", self._reconciler.run_loads),
                ("assay-heartbeat", self._reconciler.beat),
            )
        ]
        self._ended = threading.Event()
        self._life = threading.Thread(
            target=show_life,
            args=(self._seals.address, self._ended),
            name="assay-life",
            daemon=True,
        )

    def start(self) -> None:
        """Start the loops, which register this process's key once the control plane answers, and
        load the assigned deployments.
        """
        tracing.start("assay-egress" if settings.EGRESS else "assay-engine")
        self._life.start()
        handlers: dict[str, Callable[[str], None]] = {
            cancel_channel(self._realm): self._cancel,
            DEPLOYMENTS_CHANNEL: self._reconciler.wake,
        }
        self._offers.start()
        if self._egress is not None:
            self._egress.start()
        for thread in self._threads:
            thread.start()
        self._threads.append(listener(handlers, self._stop))
        transport.on_give_back(self.give_back)

    def _register(self) -> None:
        if not self._offers.begun():
            # The controller would assign deployments of any task to a worker without a report.
            raise Unavailable("The tasks of this worker have not been reported yet.")
        self._control.worker_key_register(
            worker=self._worker,
            public_key=self._seals.public_key,
            engines=self._engines,
            capacity=own_capacity(
                share=settings.WORKER_MEMORY_PERCENT / 100,
                labels=settings.WORKER_LABELS,
                gpus=not settings.EGRESS,
            ),
            software=own_software(self._engines),
        )

    def close(self) -> None:
        """Let running requests end, unload, report that, and write the last replies."""
        self._answerer.drain()
        self._stop.set()
        self._offers.close()
        self._reconciler.wake()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)
        self._host.close()
        if self._egress is not None:
            self._egress.close()
        self._answerer.close()
        self._replies.close()
        tracing.stop()
        self._ended.set()
        self._life.join(STOP_TIMEOUT_S)

    def answer(self, message: dict[str, Any]) -> None:
        """Answer a request that a gateway sealed for this process; refuse any other message."""
        try:
            request, seals = self._seals.open(message)
        except NotAddressed as error:
            logger.warning("%s It goes back to its gateway.", error, extra=about(error.request_id))
            self._replies.bounce(error)
        except GivenBack:
            logger.debug("Ignored a request that was given back")
        except Forged as error:
            logger.error("FORGED REQUEST refused: %s", error)
        else:
            with serving(request.request_id):
                self._answerer.answer(request, seals)

    def give_back(self, message: dict[str, Any]) -> None:
        """Send a fetched request that this process will not begin back to its gateway."""
        try:
            unopened = self._seals.give_back(message)
            if not self._replies.bounce(unopened):
                self._seals.keep(message)
        except (Forged, GivenBack) as error:
            logger.info("A request was not given back: %s", error)

    def _cancel(self, message: str) -> None:
        try:
            request_id = self._seals.canceled(message)
        except Forged as error:
            logger.error("FORGED CANCELLATION refused: %s", error)
        else:
            self._answerer.cancel(request_id)

    def _consume(self, queue: str) -> None:
        # The replica's own queue first: what is sent there waits for no other worker.
        for each in (replica_queue(queue, self._seals.public_key), queue):
            if not self._on_loop(self._add, each):
                raise Unavailable(f"{self._worker} did not confirm that it reads {each}.")

    def _add(self, queue: str) -> None:
        # Senders name the queue directly, so it needs no binding, which a node may not create.
        self._consumer.app.amqp.queues.add(Queue(queue, no_declare=True))
        self._consumer.add_task_queue(queue)

    def _cease(self, queue: str) -> None:
        if self._stop.is_set():
            return  # The consumer is closing and does not read any more.
        for each in (replica_queue(queue, self._seals.public_key), queue):
            # Here too, so that a consumer that is disconnected does not read it after its return.
            self._consumer.app.amqp.queues.deselect(each)
            self._on_loop(self._consumer.cancel_task_queue, each)

    def _connected(self) -> bool:
        """Return whether Celery's own thread reads from the broker."""
        return self._consumer.connection is not None and self._consumer.blueprint.state == RUN

    def _on_loop(self, change: Callable[[str], None], queue: str) -> bool:
        """Have Celery's own thread change its queues; returns False if it did not in time, or is
        not connected."""
        if not self._connected():
            return False
        done = threading.Event()

        def apply() -> None:
            change(queue)
            done.set()

        self._consumer.call_soon(apply)
        return done.wait(CONTROL_TIMEOUT_S)


_runtime: Runtime | None = None


@worker_ready.connect  # type: ignore[untyped-decorator]
def _start(sender: Any, **_: Any) -> None:
    global _runtime
    # These loggers write two lines for every request; the ledger has one, with more details.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _runtime = Runtime(sender)
    _runtime.start()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _close(**_: Any) -> None:
    global _runtime
    runtime, _runtime = _runtime, None
    if runtime is not None:
        runtime.close()


@app.task(name=INFERENCE_TASK)  # type: ignore[untyped-decorator]
def run(message: dict[str, Any]) -> None:
    """Answer one request on its reply stream."""
    if _runtime is None:
        logger.error("A request arrived before the engines were ready")
        return
    _runtime.answer(message)


def show_life(address: str, stop: threading.Event) -> None:
    """Renew this process's sign of life in the broker until `stop`, then remove it.

    Its absence tells gateways that a worker died. Forging or deleting it can only make a request
    wait until its deadline, or fail.
    """
    client = broker_client(socket_timeout=LIFE_TIMEOUT_S, socket_connect_timeout=LIFE_TIMEOUT_S)
    while True:
        try:
            client.set(alive_key(address), "1", px=ALIVE_FOR_MS)
        except redis.RedisError as error:
            logger.warning("The sign of life could not be renewed: %s", error)
        if stop.wait(ALIVE_EVERY_S):
            break
    with contextlib.suppress(redis.RedisError):
        client.delete(alive_key(address))
    client.close()
