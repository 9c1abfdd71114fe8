"""State machine of a node, and its names in policy decisions and audit events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from governance.audit.services import Subject
from governance.errors import NotAuthenticated
from governance.policy.engine import Resource
from governance.principals import Principal, service_principal
from governance.state_machine import StateMachine
from workers.nodes.models import Node, NodeState

ALLOWED_TRANSITIONS: dict[NodeState, frozenset[NodeState]] = {
    NodeState.INVITED: frozenset({NodeState.ENROLLED, NodeState.REVOKED}),
    NodeState.ENROLLED: frozenset({NodeState.CORDONED, NodeState.DRAINING, NodeState.REVOKED}),
    NodeState.CORDONED: frozenset({NodeState.ENROLLED, NodeState.DRAINING, NodeState.REVOKED}),
    NodeState.DRAINING: frozenset({NodeState.ENROLLED, NodeState.CORDONED, NodeState.REVOKED}),
    # A revoked node joins again with another key.
    NodeState.REVOKED: frozenset({NodeState.INVITED}),
}
NODE_STATES = StateMachine(
    model=Node, noun="node", table=ALLOWED_TRANSITIONS, key="name", label=str
)
node_lock = NODE_STATES.locked
# States in which a node may sign in and work.
WORKING = frozenset({NodeState.ENROLLED, NodeState.CORDONED, NodeState.DRAINING})


def node_resource(name: str) -> Resource:
    """Return a node as a resource for policy decisions; nodes have no department."""
    return Resource("node", id=name, name=name)


def node_subject(name: str) -> Subject:
    """Return a node as a subject of audit events."""
    return Subject("node", name, name)


def node_principal(name: str) -> Principal:
    """Return the principal for a node's reports."""
    return service_principal(f"node:{name}")


@contextmanager
def node_working(node: Node) -> Iterator[NodeState]:
    """Run a transaction that keeps the node's state, and yield that state. A revocation waits for
    its end; after a revocation, requests that were authenticated before it are refused here.

    Raises:
        NotAuthenticated: the node was revoked.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            # Shared, so that a node's workers do not wait for each other.
            cursor.execute("SELECT state FROM workers_node WHERE id = %s FOR SHARE", [node.pk])
            row = cursor.fetchone()
        if row is None or row[0] not in WORKING:
            raise node_revoked(node)
        yield NodeState(row[0])


def node_revoked(node: Node) -> NotAuthenticated:
    """Return the error for requests of a revoked node."""
    return NotAuthenticated(
        f"Node {node.name} is revoked.",
        code="node_revoked",
        hint="An administrator can enroll it again with `assay node enroll`.",
    )
