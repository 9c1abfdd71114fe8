"""Access of a node's engine worker to the control plane, by requests to `/node/v1/`."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from governance.errors import NotFound, NotPermitted, Unavailable
from registry.catalog.hosted import ProbeResult
from registry.manifests import CHUNK_BYTES, Manifest
from registry.media.store import MediaReference
from registry.storage.cache import Cache
from workers.control.messages import WorkerBody, checked_message, one_line, read
from workers.control.protocol import (
    REPORT_MAX,
    Assignment,
    Assignments,
    AssignmentsQuery,
    HeartbeatBody,
    LoadPlan,
    MediaAnswer,
    MediaQuery,
    MediaResultQuery,
    Plan,
    ProbeOrder,
    ReferenceRequest,
    ReferenceResult,
    References,
    ReferencesBody,
    ReplicaBody,
    ReplicaReport,
    ReplicaStateAnswer,
    SealedCredential,
    Software,
    WorkerKeyBody,
    tasks_body,
)
from workers.offers.models import WorkerRole
from workers.offers.values import Offers
from workers.placement.capacity import Capacity
from workers.remote.client import NodeClient
from workers.remote.facts import machine_facts
from workers.remote.files import RemoteFiles, copy_version

logger = logging.getLogger(__name__)
FACTS_EVERY_S = 15.0


class RemoteControl:
    """Implements `EngineControl`. Files come through `cache`, which the machine's workers share.

    The server prefixes the worker's name with the node's name, which it knows from the session.
    """

    def __init__(self, client: NodeClient, cache: Cache) -> None:
        self._client = client
        self._cache = cache
        self._facts_at = float("-inf")
        self._lock = threading.Lock()

    def desired(
        self, *, worker: str, engines: Sequence[str], loaded: Collection[int] = ()
    ) -> list[Assignment]:
        query = checked_message(
            AssignmentsQuery,
            worker=worker,
            engines=",".join(engines),
            held=",".join(map(str, loaded)),
        )
        # One try: the next round follows soon, and leases count from before the request.
        return self._client.get("assignments", Assignments, query, tries=1).root

    def current_plan(self, deployment_id: int) -> LoadPlan:
        return self._client.get(f"deployments/{deployment_id}/plan", Plan).root

    def copy_version(self, deployment_id: int, manifest: Manifest, target: Path) -> None:
        files = RemoteFiles(self._client, f"deployments/{deployment_id}/files/")
        copy_version(files, self._cache, manifest, target)

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        report = replace(report, message=one_line(report.message, REPORT_MAX))
        body = checked_message(ReplicaBody, worker=worker, report=report)
        return self._client.post("replicas", body, ReplicaStateAnswer).state

    def replicas_heartbeat(self, *, worker: str, engines: Sequence[str]) -> None:
        facts = None
        with self._lock:
            due = time.monotonic() - self._facts_at >= FACTS_EVERY_S
            if due:
                self._facts_at = time.monotonic()
        if due:
            try:
                facts = machine_facts(self._cache.folder)
            except Exception:
                # A driver may raise any error; the worker is alive nevertheless.
                logger.exception("This machine could not be measured")
        body = checked_message(HeartbeatBody, worker=worker, engines=list(engines), facts=facts)
        self._client.tell("heartbeats", body, tries=1)

    def replicas_stop(self, *, worker: str) -> None:
        self._client.tell("workers/stop", checked_message(WorkerBody, worker=worker))

    def references(self, *, worker: str, deployment_id: int) -> list[ReferenceRequest]:
        path, query = (
            f"deployments/{deployment_id}/references",
            checked_message(WorkerBody, worker=worker),
        )
        return self._client.get(path, References, query).root

    def reference_file(self, deployment_id: int, sha256: str) -> BytesIO:
        # Into memory: data of departments must not be on a node's disk.
        path = f"deployments/{deployment_id}/references/{sha256}"
        data = self._client.send("GET", path).content
        if hashlib.sha256(data).hexdigest() != sha256:
            raise NotFound("The file that arrived is not the one that the request names.")
        return BytesIO(data)

    def references_report(
        self, *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        results = [checked_message(ReferenceResult, **each) for each in answers]
        body = checked_message(ReferencesBody, worker=worker, answers=results)
        self._client.tell(f"deployments/{deployment_id}/references", body)

    def worker_key_register(
        self,
        *,
        worker: str,
        public_key: str,
        engines: Sequence[str],
        capacity: Capacity,
        software: Software,
    ) -> None:
        body = checked_message(
            WorkerKeyBody,
            worker=worker,
            public_key=public_key,
            engines=list(engines),
            capacity=capacity,
            software=software,
        )
        self._client.tell("workers/keys", body)

    def tasks_report(self, *, worker: str, offers: Offers) -> None:
        self._client.tell("workers/tasks", tasks_body(worker, WorkerRole.ENGINE, offers))

    def credential(
        self,
        *,
        worker: str,
        deployment_id: int,
        name: str,
        host: str,
        intake_id: int = 0,
        job_id: str = "",
    ) -> SealedCredential:
        """Raise Unavailable: secrets of providers stay in the control plane's network."""
        raise Unavailable(
            f"Workers on nodes get no credentials, so {name} cannot be used.",
            code="credential_unavailable",
        )

    def probes(self, *, worker: str) -> list[ProbeOrder]:
        raise _no_provider()

    def probe_report(self, *, worker: str, intake_id: int, result: ProbeResult) -> None:
        raise _no_provider()

    def model_stated(
        self, *, worker: str, deployment_id: int, model: str, fingerprint: str
    ) -> None:
        raise _no_provider()

    def drop_broken(self) -> None:
        """Do nothing: httpx drops broken connections by itself."""

    def close(self) -> None:
        """Do nothing: threads share the client."""


def _no_provider() -> NotPermitted:
    return NotPermitted(
        "A node calls no provider.",
        hint="Run the egress worker next to the control plane, with ASSAY_PROCESS=egress.",
    )


class RemoteMedia:
    """Implements `MediaFiles` in memory: media files must not be on a node's disk."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        query = MediaQuery(media=reference.media, size=reference.size).model_dump()
        path = f"deployments/{deployment_id}/media/{reference.sha256}?{urlencode(query)}"
        data = bytearray()
        try:
            with self._client.stream(path) as answer:
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    data += chunk
                    if len(data) > reference.size:
                        break
        except httpx.TransportError as error:
            raise Unavailable(
                f"The media file did not arrive: {type(error).__name__}.", retry_after=1
            ) from error
        if len(data) != reference.size or hashlib.sha256(data).hexdigest() != reference.sha256:
            raise NotFound("The media file that arrived is not the one that the reference names.")
        return BytesIO(data)

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        answer = self._client.send(
            "POST",
            f"deployments/{deployment_id}/media",
            params=MediaResultQuery(content_type=content_type).model_dump(),
            headers={"Content-Type": "application/offset+octet-stream"},
            content=data,
        )
        return read(MediaAnswer, answer.content, extra="ignore").root
