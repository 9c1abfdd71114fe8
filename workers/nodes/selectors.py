"""Reads of nodes."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from workers.nodes.models import Node


def nodes_visible_to(actor: Principal) -> QuerySet[Node]:
    """Nodes that the actor may see, revoked ones included, by name."""
    return visible_to(actor, Action.NODE_VIEW, Node.objects.all(), resource_type="node")


def node_get(*, actor: Principal, name: str) -> Node:
    """Return one node.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    found = nodes_visible_to(actor).filter(name=name).first()
    if found is None:
        raise NotFound(f"Node {name} does not exist, or you may not see it.")
    return found
