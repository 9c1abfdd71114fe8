"""Read nodes."""

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
    """Return nodes that the actor may see, including revoked ones, by name."""
    return visible_to(actor, Action.NODE_VIEW, Node.objects.all(), resource_type="node")


def node_get(*, actor: Principal, name: str) -> Node:
    """Return one node.

    Raises:
        NotFound: the node does not exist, or the actor may not see it.
    """
    node = nodes_visible_to(actor).filter(name=name).first()
    if node is None:
        raise NotFound(f"Node {name} does not exist, or you may not see it.")
    return node


def node_realms() -> list[str]:
    """Return the realms of all nodes in use."""
    return [node.realm for node in Node.objects.filter(state__in=WORKING)]


def realm_of_worker(worker: str) -> Subquery:
    """Return the realm (`Node.realm`) of the node of a worker; `worker` is the column of its name.
    NULL for workers without a node."""
    name = Func(OuterRef(worker), Value("/"), Value(1), function="split_part")
    realm = Concat(F("name"), Value("."), Left("public_key", REALM_KEY))
    return Subquery(Node.objects.filter(name=name).values(found=realm)[:1])
