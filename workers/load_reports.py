"""Reports of an engine worker's load, from the worker through the broker to `/metrics`.

A worker replaces its report every few seconds, and a report that is not replaced expires. Workers
and nodes are trusted with their own figures only: readers bound every value, and the web process
ignores deployments that the worker's node does not hold. Uses neither Django nor torch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated

import redis
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from workers.nvml import Gpu, gpus
from workers.wire import EngineLoad

logger = logging.getLogger(__name__)
EVERY_S = 5.0
# A report counts for this long, so that one that comes late leaves no gap.
KEPT_MS = 20_000
GPUS_MAX = 16
DEPLOYMENTS_MAX = 1_000
_LONGEST = 256 * 1024

_Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
_STRICT = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class DeploymentLoad:
    """Load of one deployment's engine: `running` and `waiting` rows now, `steps` and the `rows` of
    these steps since the report before, and the largest used share of the `cache`."""

    __pydantic_config__ = _STRICT

    running: _Count = 0
    waiting: _Count = 0
    steps: _Count = 0
    rows: _Count = 0
    cache: _Share | None = None


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """State of one GPU of the worker's machine, as in `workers.nvml.Gpu`."""

    __pydantic_config__ = _STRICT

    index: Annotated[int, Field(ge=0, lt=GPUS_MAX)]
    memory_bytes: _Amount
    memory_used_bytes: _Amount
    used: _Share | None = None
    watts: _Amount | None = None
    celsius: _Amount | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """One worker's report: the load of each loaded deployment by its ID, and its machine's GPUs."""

    __pydantic_config__ = _STRICT

    deployments: Annotated[dict[int, DeploymentLoad], Field(max_length=DEPLOYMENTS_MAX)] = field(
        default_factory=dict
    )
    gpus: Annotated[list[GpuLoad], Field(max_length=GPUS_MAX)] = field(default_factory=list)

    def encode(self) -> bytes:
        return to_json(asdict(self))


_reports: TypeAdapter[LoadReport] = TypeAdapter(LoadReport)


def decode_report(data: bytes) -> LoadReport | None:
    """Return a report from the broker; None if it is not a valid one."""
    if len(data) > _LONGEST:
        return None
    try:
        return _reports.validate_json(data)
    except ValidationError:
        return None


class LoadReporter:
    """Reports the load of one engine worker, from its own thread.

    Args:
        client: Connection to the broker with short timeouts.
        key: Key of the worker's report.
        loads: Return the load of each deployment's engine.
    """

    def __init__(
        self, client: redis.Redis, key: str, loads: Callable[[], Mapping[int, EngineLoad]]
    ) -> None:
        self._client, self._key, self._loads = client, key, loads
        self._before: Mapping[int, EngineLoad] = {}

    def run(self, stop: threading.Event) -> None:
        """Send a report every few seconds until `stop`, then remove the last one."""
        while not stop.wait(EVERY_S):
            try:
                self._client.set(self._key, self.report().encode(), px=KEPT_MS)
            except redis.RedisError as error:
                logger.warning("The load of this worker was not reported: %s", error)
            except Exception:
                # Metrics must not end this thread: an engine or the driver may fail once.
                logger.exception("The load of this worker could not be measured")
        try:
            self._client.delete(self._key)
        except redis.RedisError as error:
            logger.debug("The last report of this worker expires by itself: %s", error)
        self._client.close()

    def report(self) -> LoadReport:
        """Return the current report; the next one counts steps from here."""
        before, now = self._before, self._loads()
        self._before = now
        shown = list(now.items())[:DEPLOYMENTS_MAX]
        return LoadReport(
            {pk: _since(before.get(pk), load) for pk, load in shown},
            list(map(_gpu, gpus(GPUS_MAX))),
        )


def _since(before: EngineLoad | None, now: EngineLoad) -> DeploymentLoad:
    if before is None or before.steps > now.steps:  # loaded again
        before = EngineLoad()
    steps, rows = now.steps - before.steps, now.rows - before.rows
    if not now.steps and now.running:
        # This engine does not report steps: each takes all of its running rows.
        steps, rows = 1, now.running
    return DeploymentLoad(now.running, now.waiting, steps, rows, now.cache)


def _gpu(gpu: Gpu) -> GpuLoad:
    return GpuLoad(
        gpu.index, gpu.memory_bytes, gpu.memory_used_bytes, gpu.used, gpu.watts, gpu.celsius
    )
