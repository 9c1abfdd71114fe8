"""The control plane of a node's engine worker: requests to `/node/v1/`."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from governance.errors import NotFound
from registry.manifests import Manifest
from registry.storage.cache import Cache
from workers.control.messages import assignment_from_json, one_line, plan_from_json
from workers.control.protocol import (
    Assignment,
    LoadPlan,
    ReferenceRequest,
    ReplicaReport,
    Software,
)
from workers.offers.values import Offers, offers_to_json
from workers.placement.capacity import Capacity
from workers.remote.client import NodeClient
from workers.remote.facts import machine_facts
from workers.remote.files import RemoteFiles, copy_version

logger = logging.getLogger(__name__)
FACTS_EVERY_S = 15.0


class RemoteControl:
    """Implements `EngineControl`. Files come by way of `cache`, which the machine's workers share.

    The server puts the node's name before the worker's, from the session of the request.
    """

    def __init__(self, client: NodeClient, cache: Cache) -> None:
        self._client = client
        self._cache = cache
        self._facts_at = float("-inf")
        self._lock = threading.Lock()

    def desired(
        self, *, worker: str, engines: Sequence[str], held: Collection[int] = ()
    ) -> list[Assignment]:
        # One try: the next round is the next one, and leases count from before the request.
        answer = self._client.send(
            "GET",
            "assignments",
            tries=1,
            params={
                "worker": worker,
                "engines": ",".join(engines),
                "held": ",".join(map(str, held)),
            },
        )
        return [assignment_from_json(each) for each in answer.json()]

    def current_plan(self, deployment_id: int) -> LoadPlan:
        return plan_from_json(self._client.get(f"deployments/{deployment_id}/plan"))

    def copy_version(self, deployment_id: int, manifest: Manifest, target: Path) -> None:
        files = RemoteFiles(self._client, f"deployments/{deployment_id}/files/")
        copy_version(files, self._cache, manifest, target)

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        body = {
            "worker": worker,
            "deployment": report.deployment_id,
            "state": str(report.state),
            "loaded_digest": report.loaded_digest,
            "code": report.code,
            "message": one_line(report.message, 1_000),
            "load_seconds": report.load_seconds,
            "failures": report.failures,
            "retry_in_s": report.retry_in_s,
        }
        return str(self._client.post("replicas", body)["state"])

    def replicas_heartbeat(self, *, worker: str, engines: Sequence[str]) -> None:
        body: dict[str, Any] = {"worker": worker, "engines": list(engines)}
        with self._lock:
            due = time.monotonic() - self._facts_at >= FACTS_EVERY_S
            if due:
                self._facts_at = time.monotonic()
        if due:
            try:
                body["facts"] = machine_facts(self._cache.folder)
            except Exception:
                # A driver may fail in its own ways; the worker is alive nevertheless.
                logger.exception("This machine could not be measured")
        self._client.send("POST", "heartbeats", tries=1, json=body)

    def replicas_stop(self, *, worker: str) -> None:
        self._client.post("workers/stop", {"worker": worker})

    def references(self, *, worker: str, deployment_id: int) -> list[ReferenceRequest]:
        answer = self._client.get(f"deployments/{deployment_id}/references", worker=worker)
        return [ReferenceRequest(**each) for each in answer]

    def reference_file(self, deployment_id: int, sha256: str) -> BytesIO:
        # Into memory: a node's disk holds no data of departments.
        path = f"deployments/{deployment_id}/references/{sha256}"
        data = self._client.send("GET", path).content
        if hashlib.sha256(data).hexdigest() != sha256:
            raise NotFound("The file that arrived is not the one that the request names.")
        return BytesIO(data)

    def references_report(
        self, *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        body = {"worker": worker, "answers": [dict(each) for each in answers]}
        self._client.post(f"deployments/{deployment_id}/references", body)

    def worker_key_register(
        self,
        *,
        worker: str,
        public_key: str,
        engines: Sequence[str],
        capacity: Capacity,
        software: Software,
    ) -> None:
        body = {
            "worker": worker,
            "public_key": public_key,
            "engines": list(engines),
            "capacity": asdict(capacity),
            "software": asdict(software),
        }
        self._client.post("workers/keys", body)

    def tasks_report(self, *, worker: str, offers: Offers) -> None:
        body = {"worker": worker, "role": "engine", "tasks": offers_to_json(offers)}
        try:
            self._client.post("workers/tasks", body)
        except NotFound:
            logger.warning("The control plane is of an earlier release, and records no tasks.")

    def drop_broken(self) -> None:
        """Return at once: httpx drops broken connections by itself."""

    def close(self) -> None:
        """Return at once: threads share the client."""
