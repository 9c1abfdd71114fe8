"""The parts of an egress worker: connections, credentials, engines, intakes and evaluations."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from governance.credentials.sealing import KeyOpener, key_from_text
from governance.errors import DomainError
from registry.catalog.hosted import ProbeResult
from workers.celery_tasks.capacity import machine_memory
from workers.control.jobs import Files
from workers.control.protocol import EngineControl, ProbeOrder
from workers.egress.connections import Egress, EgressRules
from workers.egress.credentials import Credentials, NoCredentials
from workers.egress.evaluations import AT_ONCE, EvaluationControl, Evaluations
from workers.egress.loop import EgressLoop
from workers.egress.probing import WITHIN_S, probe, unreached
from workers.egress.sealed_credentials import SealedCredentials
from workers.egress.stated_models import StatedModels
from workers.engines.hosted.engine import HostedEngine
from workers.engines.protocol import RequestRefused

logger = logging.getLogger(__name__)
# Interval at which the worker gets the providers to call for intakes.
PROBES_S = 5.0
_GRACE_S = 10.0
# Maximum time and size for the answer of a token endpoint.
_TOKEN_S, _TOKEN_MAX = 15.0, 1024 * 1024


def egress_rules() -> EgressRules:
    """Return what this process's settings permit."""
    return EgressRules(
        internal_hosts=frozenset(settings.EGRESS_INTERNAL_HOSTS),
        proxy=settings.EGRESS_PROXY,
        ca_file=settings.EGRESS_CA_FILE,
        connect_s=settings.EGRESS_CONNECT_TIMEOUT_S,
        first_byte_s=settings.EGRESS_FIRST_BYTE_TIMEOUT_S,
        idle_s=settings.EGRESS_IDLE_TIMEOUT_S,
    )


class EgressWorker:
    """Makes the engines of hosted models and calls providers for intakes. With `jobs` and `files`,
    it also evaluates hosted versions."""

    def __init__(
        self,
        control: EngineControl,
        *,
        worker: str,
        jobs: EvaluationControl | None = None,
        files: Files | None = None,
        begun: Callable[[], bool] = lambda: True,
    ) -> None:
        self._control = control
        self._worker = worker
        self._loop = EgressLoop(egress_rules())
        self._credentials = credentials_of(control, self._loop.egress, worker=worker)
        self._stated = StatedModels(control, worker=worker)
        self._evaluations: Evaluations | None = None
        if jobs is not None and files is not None:
            self._evaluations = Evaluations(
                jobs,
                files,
                worker=worker,
                engine=self._evaluated,
                memory=machine_memory() * settings.JOB_MEMORY_PERCENT // 100 // AT_ONCE,
                begun=begun,
            )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="assay-probes", daemon=True)

    def start(self) -> None:
        """Start to call providers for intakes and evaluations."""
        self._thread.start()
        self._stated.start()
        if self._evaluations is not None:
            self._evaluations.start()

    def engine(self, folder: Path, deployment_id: int) -> HostedEngine:
        """Return the engine for the description in a folder."""
        return HostedEngine(
            folder,
            loop=self._loop,
            credentials=self._credentials,
            deployment_id=deployment_id,
            on_stated=partial(self._stated.note, deployment_id),
        )

    def _evaluated(self, folder: Path, job_id: str) -> HostedEngine:
        return HostedEngine(folder, loop=self._loop, credentials=self._credentials, job_id=job_id)

    def close(self) -> None:
        """Close the connections. The engines are closed before."""
        self._stop.set()
        if self._evaluations is not None:
            self._evaluations.close()
        if self._thread.ident is not None:
            self._thread.join(WITHIN_S + _GRACE_S)
        self._loop.close()
        self._stated.close()
        if isinstance(self._credentials, SealedCredentials):
            self._credentials.close()

    def _probe(self) -> None:
        while not self._stop.wait(PROBES_S):
            try:
                self._control.drop_broken()
                orders = self._control.probes(worker=self._worker)
                # All at once: each order ends at the same time, however slow a provider is.
                probes = [(order, self._loop.run(self._probed(order))) for order in orders]
                for order, running in probes:
                    self._report(order, running)
            except Exception:
                # The next round tries again; the control plane may be away.
                logger.exception("Providers could not be called for intakes")
        self._control.close()

    def _report(self, order: ProbeOrder, running: Future[ProbeResult]) -> None:
        try:
            result = running.result(WITHIN_S + _GRACE_S)
        except TimeoutError:
            result = unreached("The egress worker was too busy.")
        except Exception:
            logger.exception("The provider of intake %d could not be called", order.intake_id)
            result = unreached("The egress worker failed.")
        try:
            self._control.probe_report(
                worker=self._worker, intake_id=order.intake_id, result=result
            )
        except DomainError as error:
            logger.warning("Intake %d: the result was refused: %s", order.intake_id, error.message)

    async def _probed(self, order: ProbeOrder) -> ProbeResult:
        description, credential = order.description, None
        if description.credential:
            try:
                credential = await self._credentials.get(
                    description.credential, host=description.host, intake_id=order.intake_id
                )
            except RequestRefused as error:
                return unreached(str(error))
        return await probe(self._loop.egress, description, credential)


def credentials_of(control: EngineControl, egress: Egress, *, worker: str) -> Credentials:
    """Return the credentials that this process can open."""
    if not settings.EGRESS_KEYS:
        return NoCredentials()

    async def fetch(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(url)
        route = egress.route(f"{parts.scheme}://{parts.netloc}")
        path = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
        async with asyncio.timeout(_TOKEN_S):
            answer = await route.send(
                "POST", path, body=body, headers=headers, first_byte_s=_TOKEN_S
            )
            try:
                return answer.status, await answer.read(_TOKEN_MAX)
            finally:
                answer.close()

    return SealedCredentials(
        control,
        worker=worker,
        opener=KeyOpener([key_from_text(key) for key in settings.EGRESS_KEYS]),
        fetch=fetch,
        outage_s=settings.SERVING_LEASE_S,
    )
