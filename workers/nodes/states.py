"""The state machine of a node: one table, and how the audit log names a node."""

from __future__ import annotations

from governance.audit.services import Subject
from governance.policy.engine import Resource
from governance.principals import Principal, service_principal
from governance.state_machine import StateMachine
from workers.nodes.models import Node, NodeState

ALLOWED_TRANSITIONS: dict[NodeState, frozenset[NodeState]] = {
    NodeState.INVITED: frozenset({NodeState.ENROLLED, NodeState.REVOKED}),
    NodeState.ENROLLED: frozenset({NodeState.CORDONED, NodeState.DRAINING, NodeState.REVOKED}),
    NodeState.CORDONED: frozenset({NodeState.ENROLLED, NodeState.DRAINING, NodeState.REVOKED}),
    NodeState.DRAINING: frozenset({NodeState.ENROLLED, NodeState.CORDONED, NodeState.REVOKED}),
    # It joins anew, with another key.
    NodeState.REVOKED: frozenset({NodeState.INVITED}),
}
NODE_STATES = StateMachine(
    model=Node, noun="node", table=ALLOWED_TRANSITIONS, key="name", label=str
)
node_lock = NODE_STATES.locked
# States in which a node may sign in and work.
WORKING = frozenset({NodeState.ENROLLED, NodeState.CORDONED, NodeState.DRAINING})


def node_resource(name: str) -> Resource:
    """Return a node as the policy sees it; nodes belong to no department."""
    return Resource("node", id=name, name=name)


def node_subject(name: str) -> Subject:
    """Return the node as the audit log names it."""
    return Subject("node", name, name)


def node_principal(name: str) -> Principal:
    """Return the node as the actor of what it reports."""
    return service_principal(f"node:{name}")
