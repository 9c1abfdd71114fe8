"""Nodes with their replicas, jobs and utilization, for lists and pages."""

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

# A node in use that has not reported for this long is shown as silent.
SILENCE = timedelta(seconds=60)
# Time for which a second use of a node's key is shown.
CONFLICT_SHOWN = timedelta(days=1)
# Minutes of samples in one point of the chart.
GRAIN_MIN = 5
_RUNNING = (ReplicaState.LOADING, ReplicaState.READY)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with the number of its replicas and jobs, and facts for people.

    `queued` is the number of requests waiting for its deployments, including those that another
    node may take; None without a broker.
    """

    node: Node
    replicas: int
    jobs: int
    queued: int | None

    @property
    def is_silent(self) -> bool:
        """Return whether the node should report but does not."""
        seen_at = self.node.seen_at
        silent = seen_at is None or timezone.now() - seen_at > SILENCE
        return self.node.state in WORKING and silent

    @property
    def has_conflict(self) -> bool:
        """Return whether two processes recently used the node's key."""
        conflict_at = self.node.conflict_at
        return conflict_at is not None and timezone.now() - conflict_at < CONFLICT_SHOWN

    @property
    def denials(self) -> list[Denial]:
        """Commands that the broker denied in the last day."""
        return node_denials(self.node, SHOWN_FOR)

    @property
    def clock(self) -> str:
        """Sentence about a wrong clock; empty if the clock is about right."""
        ahead = float(self.node.facts.get("clock_ahead_s", 0.0))
        if not ahead:
            return ""
        side = "ahead of" if ahead > 0 else "behind"
        return f"The clock is {_duration(abs(ahead))} {side} the control plane's."

    @property
    def devices(self) -> list[tuple[str, int]]:
        """Names of devices, each with its count."""
        devices = self.node.facts.get("devices", [])
        return sorted(Counter(str(each["name"]) for each in devices).items())

    @property
    def memory_percent(self) -> int | None:
        """Used memory in percent; None before the first report."""
        total = self.node.facts.get("memory_bytes")
        return round(100 * self.node.facts["memory_used_bytes"] / total) if total else None


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def node_rows(nodes: Iterable[Node]) -> list[NodeRow]:
    """Return the nodes with counts of replicas, jobs and queued requests, with two queries and one
    round trip to the broker."""
    jobs = Job.objects.filter(state=JobState.RUNNING, worker__contains="/")
    job_counts = Counter(name.partition("/")[0] for name in jobs.values_list("worker", flat=True))
    loaded: dict[str, list[int]] = defaultdict(list)
    replicas = Replica.objects.filter(state__in=_RUNNING, worker__contains="/")
    for worker, deployment_id in replicas.values_list("worker", "deployment_id"):
        loaded[worker.partition("/")[0]].append(deployment_id)
    nodes = list(nodes)
    queued = queued_requests({each for node in nodes for each in loaded[node.name]})
    return [
        NodeRow(
            node,
            replicas=len(loaded[node.name]),
            jobs=job_counts[node.name],
            queued=None if queued is None else sum(queued[each] for each in set(loaded[node.name])),
        )
        for node in nodes
    ]


def node_row(*, actor: Principal, name: str) -> NodeRow:
    """Return one node. Raises the errors of `node_get`."""
    return node_rows([node_get(actor=actor, name=name)])[0]


@dataclass(frozen=True, slots=True)
class Utilization:
    """Percentages by moment, oldest first; None where nothing was measured."""

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
        {name: row for name, row in series.items() if any(each is not None for each in row)},
    )


def _percent(values: Iterable[float | None]) -> int | None:
    measured = [value for value in values if value is not None]
    return round(100 * sum(measured) / len(measured)) if measured else None
