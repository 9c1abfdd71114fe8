"""Nodes with what they hold and run, for lists and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from governance.principals import Principal
from workers.deployments.models import Replica, ReplicaState
from workers.jobs.models import Job, JobState
from workers.nodes.models import Node
from workers.nodes.selectors import node_get

_RUNNING = (ReplicaState.LOADING, ReplicaState.READY)


def nodes_listed(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes with `replicas` and `jobs` counted, in two queries."""
    listed = list(nodes)
    held = Counter(
        worker.partition("/")[0]
        for worker in Replica.objects.filter(state__in=_RUNNING, worker__contains="/").values_list(
            "worker", flat=True
        )
    )
    run = Counter(
        worker.partition("/")[0]
        for worker in Job.objects.filter(state=JobState.RUNNING, worker__contains="/").values_list(
            "worker", flat=True
        )
    )
    for node in listed:
        node.replicas = held[node.name]  # type: ignore[attr-defined]
        node.jobs = run[node.name]  # type: ignore[attr-defined]
    return listed


def node_detail(*, actor: Principal, name: str) -> Node:
    """Return one node as `nodes_listed` does. Raises as `node_get`."""
    return nodes_listed([node_get(actor=actor, name=name)])[0]
