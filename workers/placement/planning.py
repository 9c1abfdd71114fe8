"""Plan which worker loads which deployment. Pure: values in, moves out; no database and no clock.

The plan does not depend on the order of the input. A copy that fits stays where it is. A copy that
must leave, because its worker is draining or no longer fits, stays until enough others are ready,
so that requests always find one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from registry.catalog.engines import ENGINE_TITLES, EngineName
from workers.offers.values import lack, lacks_sentence

WAITS = "Waiting for an engine worker to load it."
ASLEEP = "Scaled to zero. The next request starts it."


class Availability(StrEnum):
    """Availability of a worker for placement.

    `cordoned`: it keeps its copies and gets nothing new. `draining`: its copies move away.
    """

    OPEN = "open"
    CORDONED = "cordoned"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Worker:
    """A reporting worker. `memory` is in bytes; `node` is its machine. `tasks` are those that it
    reported (`workers.offers.values`); a worker without a report (None) may try any task."""

    name: str
    memory: int
    node: str = ""
    device: str = "cpu"
    labels: frozenset[str] = frozenset()
    engines: frozenset[str] = frozenset({EngineName.OWN})
    availability: Availability = Availability.OPEN
    tasks: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of one copy in bytes: that of its base, counted once per worker, and its own."""

    base: Hashable
    base_bytes: int
    own_bytes: int = 0

    @property
    def total(self) -> int:
        """Return the bytes on a worker that does not have the base."""
        return self.base_bytes + self.own_bytes


@dataclass(frozen=True, slots=True)
class DesiredDeployment:
    """A deployment, its wanted number of copies, and the workers that may hold them.

    `avoid` are workers that failed to load it and must not retry yet. `device` "" means any kind,
    and `task` "" needs no package.
    """

    id: int
    need: Need
    copies: int = 1
    engine: str = EngineName.OWN
    device: str = ""
    labels: frozenset[str] = frozenset()
    avoid: frozenset[str] = frozenset()
    task: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """One assignment. `since` orders assignments by age; `ready`: its worker has loaded it."""

    deployment: int
    worker: str
    since: float = 0.0
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """One change: assign the deployment to the worker (`add`), or remove it from there."""

    deployment: int
    worker: str
    add: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes to make now, removals first, and reasons why deployments lack copies."""

    moves: tuple[Move, ...] = ()
    shortages: dict[int, str] = field(default_factory=dict)


def plan(
    workers: Iterable[Worker], deployments: Iterable[DesiredDeployment], current: Iterable[Copy]
) -> Plan:
    """Return the moves from `current` toward the wanted copies of `deployments` on `workers`.

    Missing workers count as lost. Copies of missing deployments are removed.
    """
    return _Planner(workers, deployments, current).plan()


def used_memory(
    deployments: Iterable[DesiredDeployment], current: Iterable[Copy]
) -> dict[str, int]:
    """Return the bytes that are assigned to each worker; a base counts once per worker."""
    needs = {each.id: each.need for each in deployments}
    bases: dict[str, dict[Hashable, int]] = defaultdict(dict)
    used: dict[str, int] = defaultdict(int)
    for copy in current:
        if (need := needs.get(copy.deployment)) is not None:
            bases[copy.worker][need.base] = need.base_bytes
            used[copy.worker] += need.own_bytes
    return {name: own + sum(bases[name].values()) for name, own in used.items()}


@dataclass(slots=True)
class _Room:
    """Free memory of one worker. `bases` counts the copies that use each base; `resident` are the
    bases of copies that leave in this plan, which are still loaded.
    """

    worker: Worker
    free: int
    bases: dict[Hashable, int] = field(default_factory=dict)
    resident: set[Hashable] = field(default_factory=set)

    def takes(self, need: Need) -> int:
        """Return the bytes that one more copy needs here."""
        return need.own_bytes + (0 if need.base in self.bases else need.base_bytes)

    def add(self, need: Need) -> None:
        self.free -= self.takes(need)
        self.bases[need.base] = self.bases.get(need.base, 0) + 1

    def has(self, base: Hashable) -> bool:
        """Return whether the base is loaded here or about to be."""
        return base in self.bases or base in self.resident

    @property
    def load(self) -> float:
        """Return the used fraction of the memory."""
        return 1.0 - self.free / self.worker.memory if self.worker.memory else 1.0


class _Planner:
    def __init__(
        self,
        workers: Iterable[Worker],
        deployments: Iterable[DesiredDeployment],
        current: Iterable[Copy],
    ) -> None:
        self._rooms = {
            each.name: _Room(each, each.memory) for each in sorted(workers, key=lambda w: w.name)
        }
        self._wanted = {each.id: each for each in sorted(deployments, key=lambda d: d.id)}
        self._current = sorted(current, key=lambda c: (c.since, c.deployment, c.worker))
        # Copies that count toward the wanted number; copies that leave once others are ready; and
        # failed copies, which leave if another worker has room.
        self._kept: dict[int, list[Copy]] = defaultdict(list)
        self._leaving: dict[int, list[tuple[Copy, str]]] = defaultdict(list)
        self._failed: dict[int, list[Copy]] = defaultdict(list)
        # Copies on workers that do not report. If no other worker has room, they stay assigned, so
        # that a worker that was only disconnected continues.
        self._lost: dict[int, list[Copy]] = defaultdict(list)
        # Copies that leave for lack of memory: they use memory until then, but displace no other.
        self._too_large: list[tuple[_Room, Need]] = []
        self._removals: list[Move] = []
        self._additions: list[Move] = []
        self._shortages: dict[int, str] = {}
        self._fitting: dict[tuple[str, str, frozenset[str], str], list[_Room]] = {}

    def plan(self) -> Plan:
        for copy in self._current:
            self._sort_in(copy)
        for room, need in self._too_large:
            room.add(need)
        self._drop_surplus()
        self._add_missing()
        for deployment in self._wanted.values():
            self._remove_leaving(deployment)
        moves = (*self._removals, *self._additions)
        return Plan(moves, dict(sorted(self._shortages.items())))

    def _sort_in(self, copy: Copy) -> None:
        deployment, room = self._wanted.get(copy.deployment), self._rooms.get(copy.worker)
        if deployment is None:
            self._remove(copy, "The deployment ended.")
        elif room is None:
            self._lost[deployment.id].append(copy)
        elif not deployment.copies:
            room.resident.add(deployment.need.base)
            self._remove(copy, "No replica is wanted.")
        elif copy.worker in deployment.avoid and not copy.ready:
            self._failed[deployment.id].append(copy)
        elif why := _misfit(room.worker, deployment):
            # It uses memory until it is gone, on a worker that may still get other copies.
            room.add(deployment.need)
            self._leaving[deployment.id].append((copy, why))
        elif room.takes(deployment.need) > room.free:
            self._leaving[deployment.id].append((copy, "Its worker has too little memory."))
            self._too_large.append((room, deployment.need))
        else:
            room.add(deployment.need)
            self._kept[deployment.id].append(copy)

    def _drop_surplus(self) -> None:
        """Remove copies beyond the wanted number: those not ready first, then the newest."""
        for deployment in self._wanted.values():
            copies = self._kept[deployment.id]
            surplus = len(copies) - deployment.copies
            if surplus <= 0:
                continue
            for copy in sorted(copies, key=lambda c: (c.ready, -c.since, c.worker))[:surplus]:
                copies.remove(copy)
                self._remove(copy, "Fewer replicas are wanted.")

    def _add_missing(self) -> None:
        """Give every deployment its first copy before any gets a second; largest first, because
        fewer workers have room for them.
        """
        missing = [
            (number, -deployment.need.total, deployment.id)
            for deployment in self._wanted.values()
            for number in range(len(self._kept[deployment.id]), deployment.copies)
        ]
        for _number, _size, deployment_id in sorted(missing):
            if deployment_id not in self._shortages:
                self._add(self._wanted[deployment_id])

    def _add(self, deployment: DesiredDeployment) -> None:
        holders = {copy.worker for copy in self._kept[deployment.id]}
        occupied = holders | {copy.worker for copy, _why in self._leaving[deployment.id]}
        nodes = [self._rooms[name].worker.node for name in holders]
        # An added copy may use the room of a copy that failed there; only one of them is kept.
        candidates = [
            room
            for room in self._fits(deployment)
            if room.worker.name not in occupied
            and room.worker.name not in deployment.avoid
            and room.takes(deployment.need) <= room.free
        ]
        if not candidates:
            self._keep_failed(deployment)
            return
        base = deployment.need.base
        room = min(
            candidates,
            key=lambda each: (
                nodes.count(each.worker.node),
                not each.has(base),
                each.load,
                each.worker.name,
            ),
        )
        why = "Its base is loaded there." if room.has(base) else "It has room."
        if self._failed[deployment.id]:
            why = f"{self._failed[deployment.id][0].worker} could not load it."
        elif self._lost[deployment.id]:
            why = f"{self._lost[deployment.id][0].worker} does not report."
        elif self._leaving[deployment.id]:
            leaving, cause = self._leaving[deployment.id][0]
            why = f"Moved from {leaving.worker}. {cause}"
        room.add(deployment.need)
        added = Copy(deployment.id, room.worker.name)
        self._kept[deployment.id].append(added)
        self._additions.append(Move(deployment.id, room.worker.name, True, why))

    def _keep_failed(self, deployment: DesiredDeployment) -> None:
        """Keep a failed copy on its worker, to be tried again, if no other worker has room."""
        for copy in list(self._failed[deployment.id]):
            room = self._rooms[copy.worker]
            if not _misfit(room.worker, deployment) and room.takes(deployment.need) <= room.free:
                self._failed[deployment.id].remove(copy)
                room.add(deployment.need)
                self._kept[deployment.id].append(copy)
                return
        self._shortages[deployment.id] = self._shortage(deployment)

    def _remove_leaving(self, deployment: DesiredDeployment) -> None:
        for copy in self._failed[deployment.id]:
            self._remove(copy, "It could not be loaded there.")
        spare = len(self._kept[deployment.id]) + len(self._lost[deployment.id]) - deployment.copies
        for copy in self._lost[deployment.id][: max(0, spare)]:
            self._remove(copy, "Its worker does not report.")
        ready = sum(copy.ready for copy in self._kept[deployment.id])
        for copy, why in self._leaving[deployment.id]:
            if not copy.ready or ready >= deployment.copies:
                self._remove(copy, why)

    def _remove(self, copy: Copy, reason: str) -> None:
        self._removals.append(Move(copy.deployment, copy.worker, False, reason))

    def _fits(self, deployment: DesiredDeployment) -> list[_Room]:
        """Return the workers that may hold the deployment, regardless of their free memory."""
        key = (deployment.engine, deployment.device, deployment.labels, deployment.task)
        if key not in self._fitting:
            self._fitting[key] = [
                room
                for room in self._rooms.values()
                if room.worker.availability is Availability.OPEN
                and not _misfit(room.worker, deployment)
            ]
        return self._fitting[key]

    def _shortage(self, deployment: DesiredDeployment) -> str:
        """Return the sentence on what placement lacks for one more copy."""
        workers = [room.worker for room in self._rooms.values()]
        if not workers:
            return WAITS
        offering = [each for each in workers if deployment.engine in each.engines]
        if not offering:
            title = ENGINE_TITLES[EngineName(deployment.engine)]
            return f"No running engine worker offers {title}. Start one that has it installed."
        offering = [each for each in offering if not _task_lack(each, deployment)]
        if not offering:
            reported = {each.name: each.tasks for each in workers if each.tasks is not None}
            return lacks_sentence((deployment.task,), reported, "engine worker")
        if lacking := _requirement(offering, deployment):
            return lacking
        fitting = self._fits(deployment)
        if not fitting:
            return "Every worker that fits is cordoned or draining."
        has = {copy.worker for copy in self._kept[deployment.id]}
        others = [room for room in fitting if room.worker.name not in has]
        if not others:
            count = f"{len(has)} worker{_s(len(has))}"
            return f"{deployment.copies} replicas are wanted; {count} can hold one."
        roomy = [room for room in others if room.takes(deployment.need) <= room.free]
        if roomy:
            return "Every worker with room failed to load it; they try again at growing intervals."
        most = max(max(0, room.free) for room in others)
        return (
            f"Needs {as_size(deployment.need.total)} on one worker; "
            f"the largest free is {as_size(most)}."
        )


def _misfit(worker: Worker, deployment: DesiredDeployment) -> str:
    """Return why the worker may not hold the deployment; empty if it may."""
    if worker.availability is Availability.DRAINING:
        return "Its worker is draining."
    if deployment.engine not in worker.engines:
        return "Its worker no longer offers the engine."
    if _task_lack(worker, deployment):
        return f"Its worker does not offer the task {deployment.task}."
    if deployment.device and deployment.device != worker.device:
        return f"It needs a worker with {deployment.device}."
    if missing := deployment.labels - worker.labels:
        return f"It needs a worker with the label{_s(len(missing))} {', '.join(sorted(missing))}."
    return ""


def _task_lack(worker: Worker, deployment: DesiredDeployment) -> str:
    """Return why a worker does not offer the deployment's task; empty if it does."""
    return (
        lack(worker.tasks, deployment.task) if deployment.task and worker.tasks is not None else ""
    )


def _requirement(workers: Sequence[Worker], deployment: DesiredDeployment) -> str:
    """Return the sentence on a device or labels that no worker has; empty if one has them all."""
    with_device = [each for each in workers if deployment.device in ("", each.device)]
    if not with_device:
        return f"Needs a worker with {deployment.device}; no running one has it."
    if not any(deployment.labels <= each.labels for each in with_device):
        label = f"label{_s(len(deployment.labels))} {', '.join(sorted(deployment.labels))}"
        return f"Needs a worker with the {label}; no running one has."
    return ""


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def as_size(size: int) -> str:
    """Return a number of bytes in decimal units, such as `3.1 GB`."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
