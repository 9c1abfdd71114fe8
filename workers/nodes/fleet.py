"""Nodes with what they hold and run, for lists and pages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from governance.principals import Principal
from workers.deployments.models import Replica, ReplicaState
from workers.dispatch import queued_requests
from workers.jobs.models import Job, JobState
from workers.nodes.broker_denials import SHOWN_FOR, Denial, node_denials
from workers.nodes.models import Node, NodeSample
from workers.nodes.selectors import node_get
from workers.nodes.states import WORKING

# Without a report for so long, a node that should work is shown as silent.
SILENCE = timedelta(seconds=60)
# A second use of a node's key is shown for so long.
CONFLICT_SHOWN = timedelta(days=1)
# Samples of so many minutes make one point of the chart.
GRAIN_MIN = 5
_RUNNING = (ReplicaState.LOADING, ReplicaState.READY)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with the number of its replicas and jobs, and facts for people.

    `queued` is the number of requests that wait for its deployments, also those that another node
    may take; None without a broker.
    """

    node: Node
    replicas: int
    jobs: int
    queued: int | None

    @property
    def is_silent(self) -> bool:
        """Return whether it should report and does not."""
        seen = self.node.seen_at
        silent = seen is None or timezone.now() - seen > SILENCE
        return self.node.state in WORKING and silent

    @property
    def has_conflict(self) -> bool:
        """Return whether two processes used its key lately."""
        found = self.node.conflict_at
        return found is not None and timezone.now() - found < CONFLICT_SHOWN

    @property
    def denials(self) -> list[Denial]:
        """Commands that the broker denied it in the last day."""
        return node_denials(self.node, SHOWN_FOR)

    @property
    def clock(self) -> str:
        """Sentence about a clock that is wrong; empty for one that is about right."""
        ahead = float(self.node.facts.get("clock_ahead_s", 0.0))
        if not ahead:
            return ""
        side = "ahead of" if ahead > 0 else "behind"
        return f"The clock is {_duration(abs(ahead))} {side} the control plane's."

    @property
    def devices(self) -> list[tuple[str, int]]:
        """Names of devices, each with how many there are."""
        devices = self.node.facts.get("devices", [])
        return sorted(Counter(str(each["name"]) for each in devices).items())

    @property
    def memory_percent(self) -> int | None:
        """Used part of its memory, None before the first report."""
        total = self.node.facts.get("memory_bytes")
        return round(100 * self.node.facts["memory_used_bytes"] / total) if total else None


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def node_rows(nodes: Iterable[Node]) -> list[NodeRow]:
    """Return the nodes with replicas, jobs and queued requests counted, in two queries and one
    round trip to the broker."""
    jobs = Job.objects.filter(state=JobState.RUNNING, worker__contains="/")
    run = Counter(name.partition("/")[0] for name in jobs.values_list("worker", flat=True))
    held: dict[str, list[int]] = defaultdict(list)
    replicas = Replica.objects.filter(state__in=_RUNNING, worker__contains="/")
    for worker, deployment_id in replicas.values_list("worker", "deployment_id"):
        held[worker.partition("/")[0]].append(deployment_id)
    nodes = list(nodes)
    queued = queued_requests({each for node in nodes for each in held[node.name]})
    return [
        NodeRow(
            node,
            replicas=len(held[node.name]),
            jobs=run[node.name],
            queued=None if queued is None else sum(queued[each] for each in set(held[node.name])),
        )
        for node in nodes
    ]


def node_row(*, actor: Principal, name: str) -> NodeRow:
    """Return one node. Raises as `node_get`."""
    return node_rows([node_get(actor=actor, name=name)])[0]


@dataclass(frozen=True, slots=True)
class Utilization:
    """Percentages at some moments, oldest first; None where there is nothing to measure."""

    moments: list[datetime]
    series: dict[str, list[int | None]]


def node_utilization(node: Node) -> Utilization:
    """Return a node's utilization in the last 24 hours, as means of a few minutes."""
    names = ("cpu", "memory", "device", "device_memory")
    groups: dict[datetime, list[tuple[float | None, ...]]] = {}
    for at, *values in NodeSample.objects.filter(node=node).values_list("at", *names):
        moment = at.replace(minute=at.minute - at.minute % GRAIN_MIN)
        groups.setdefault(moment, []).append(tuple(values))
    series = {
        name: [_percent(row[place] for row in rows) for rows in groups.values()]
        for place, name in enumerate(names)
    }
    return Utilization(
        list(groups),
        {name: found for name, found in series.items() if any(each is not None for each in found)},
    )


def _percent(values: Iterable[float | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(100 * sum(known) / len(known)) if known else None
