"""Reads of nodes."""

from __future__ import annotations

from django.db.models import F, Func, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Concat, Left

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from workers.nodes.models import REALM_KEY, Node
from workers.nodes.states import WORKING


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


def node_realms() -> list[str]:
    """Return the realms of all nodes in use."""
    return [node.realm for node in Node.objects.filter(state__in=WORKING)]


def realm_of_worker(worker: str) -> Subquery:
    """Return the realm (`Node.realm`) of the node whose worker a column names; NULL without one."""
    name = Func(OuterRef(worker), Value("/"), Value(1), function="split_part")
    made = Concat(F("name"), Value("."), Left("public_key", REALM_KEY))
    return Subquery(Node.objects.filter(name=name).values(found=made)[:1])
