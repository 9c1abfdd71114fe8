"""Choose the replica that has the beginning of a prompt in its engine's cache.

An engine that keeps the keys and values of prompts computes a beginning that it knows only once. So
requests of one department whose prompts begin alike go to one replica, as long as it has about as
many requests as the others. Each beginning has its own order of replicas (rendezvous hashing), so
that a replica which comes or goes moves no other prompts than its own.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from assay.gateway.access.deployment_entries import DeploymentEntry

T = TypeVar("T")
# Characters of the inputs that must be the same. Shorter inputs gain too little.
BEGINNING = 2_000
# A request that the chosen replica has not begun after this may be answered by any.
PATIENCE_S = 1.0
# Such a replica is not chosen for this long.
AVOIDED_S = 30.0
# Requests of this process that a replica may have whatever the others have, and beyond these the
# multiple of their mean. Engines batch, so that a few requests do not wait for each other.
UNCOUNTED, SLACK = 8, 1.25


@dataclass(frozen=True, slots=True)
class Place:
    """Deployment of a running request and the address of the chosen replica; empty for any."""

    deployment_id: int
    worker: str


class Affinity:
    """Choices of one gateway process, by the numbers of its own requests."""

    def __init__(self) -> None:
        self._running: Counter[Place] = Counter()
        self._of_deployment: Counter[int] = Counter()
        self._avoided_until: dict[str, float] = {}

    def enter(
        self,
        deployment: DeploymentEntry,
        recipients: Collection[str],
        scope: str,
        inputs: Mapping[str, Any],
    ) -> Place | None:
        """Return the place of a request until `leave`; None if no choice is to be made.

        `recipients` are the workers that can open the request. `scope` names the department, and
        engines share no beginnings between departments; a request without one shares none.
        """
        if not deployment.keeps_prefixes or not scope:
            return None
        workers = [each for each in deployment.ready_workers if each in recipients]
        if len(workers) < 2:
            return None
        place = Place(deployment.id, self._choose(deployment.id, workers, scope, inputs))
        self._running[place] += 1
        self._of_deployment[deployment.id] += 1
        return place

    def leave(self, place: Place | None) -> None:
        """End a request's place."""
        if place is None:
            return
        _count_down(self._running, place)
        _count_down(self._of_deployment, place.deployment_id)

    def avoid(self, worker: str) -> None:
        """Do not choose a replica for a while, because it did not begin a request in time."""
        now = time.monotonic()
        self._avoided_until = {
            name: until for name, until in self._avoided_until.items() if until > now
        }
        self._avoided_until[worker] = now + AVOIDED_S

    def _choose(
        self, deployment_id: int, workers: list[str], scope: str, inputs: Mapping[str, Any]
    ) -> str:
        text = orjson.dumps(inputs)
        if len(text) < BEGINNING:
            return ""
        key = hashlib.sha256(scope.encode() + b"\0" + text[:BEGINNING]).digest()
        mean = (self._of_deployment[deployment_id] + 1) / len(workers)
        most = max(UNCOUNTED, math.ceil(SLACK * mean))
        now = time.monotonic()
        for worker in sorted(workers, key=lambda each: _rank(key, each)):
            busy = self._running[Place(deployment_id, worker)] >= most
            if not busy and self._avoided_until.get(worker, now) <= now:
                return worker
        return ""


def _rank(key: bytes, worker: str) -> bytes:
    return hashlib.sha256(key + worker.encode()).digest()


def _count_down(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
