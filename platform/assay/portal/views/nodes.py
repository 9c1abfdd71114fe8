"""Nodes: the list with other workers, one node's page, enrolling and taking out of use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render

from assay.portal.forms.nodes import NodeForm, NodeReasonForm
from assay.portal.http import ActionScreen, cleaned
from assay.portal.lists import ListScreen
from assay.portal.series import utilization_lines
from assay.portal.views.operations import OperatorScreen
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal
from workers.deployments.fleet import workers_visible_to
from workers.nodes.fleet import node_row, node_rows, node_utilization
from workers.nodes.models import Node, NodeState
from workers.nodes.selectors import nodes_visible_to
from workers.nodes.services import (
    node_cordon,
    node_drain,
    node_enroll,
    node_revoke,
    node_uncordon,
)
from workers.nodes.states import ALLOWED_TRANSITIONS, node_resource


@dataclass(frozen=True, slots=True)
class Offer:
    """A change of a node's state that the page offers: its URL name, button, and text."""

    page: str
    label: str
    text: str
    action: Action
    to: NodeState
    css: str = "btn-plain"


OFFERS = (
    Offer(
        "node_uncordon",
        "Return to use",
        "The node can get deployments and jobs again.",
        Action.NODE_UNCORDON,
        NodeState.ENROLLED,
    ),
    Offer(
        "node_cordon",
        "Cordon",
        "The node gets no new work. Current work continues.",
        Action.NODE_CORDON,
        NodeState.CORDONED,
    ),
    Offer(
        "node_drain",
        "Drain",
        "Its deployments move to other workers. Its jobs run to their end.",
        Action.NODE_DRAIN,
        NodeState.DRAINING,
    ),
    Offer(
        "node_revoke",
        "Revoke",
        "Its key stops working at once, and its replicas stop. Its jobs start again elsewhere.",
        Action.NODE_REVOKE,
        NodeState.REVOKED,
        "btn-danger",
    ),
)


def may(actor: Principal, action: Action, name: str) -> bool:
    """Return true if the policy permits the action on the node."""
    resource = node_resource(name)
    return decide(active_policy(), actor, action, resource, probing_context()).allowed


def offers(actor: Principal, node: Node) -> list[Offer]:
    """Return the changes that the node's state and the policy permit the person."""
    state = NodeState(node.state)
    reachable = set(ALLOWED_TRANSITIONS[state])
    if state is NodeState.INVITED:
        # The machine itself enrolls by joining.
        reachable.discard(NodeState.ENROLLED)
    return [each for each in OFFERS if each.to in reachable and may(actor, each.action, node.name)]


class Nodes(OperatorScreen, ListScreen, ActionScreen):
    """Every node, the control plane's own workers, and the form that enrolls a machine."""

    template_name = "portal/operations/nodes.html"
    title = "Nodes"
    lead = "Machines that run workers, and the control plane's own workers."
    columns = "Node | State | Devices | Memory used | # Loaded | # Queued | # Jobs | Last heartbeat"

    def rows(self) -> QuerySet[Node]:
        return nodes_visible_to(self.actor)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        context = super().context(**kwargs)
        context["page"].object_list = node_rows(list(context["page"].object_list))
        permitted = may(self.actor, Action.NODE_ENROLL, "new")
        return {
            **context,
            "own": workers_visible_to(self.actor),
            "form": NodeForm(self.request.POST or None) if permitted else None,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(NodeForm(self.request.POST))
        node, token, expires_at = node_enroll(actor=self.actor, name=values["name"])
        root = f"{self.request.scheme}://{self.request.get_host()}"
        context = {"node": node, "token": token, "expires_at": expires_at, "root": root}
        response = render(self.request, "portal/operations/node_enrolled.html", context, status=201)
        response.headers["Cache-Control"] = "no-store"
        return response


class NodePage(OperatorScreen, ActionScreen):
    """One node: its machine, utilization, replicas and jobs."""

    template_name = "portal/operations/node.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        row = node_row(actor=self.actor, name=self.kwargs["name"])
        used = node_utilization(row.node)
        return {
            "row": row,
            "node": row.node,
            "own": workers_visible_to(self.actor, node=row.node.name),
            "utilization": utilization_lines(used) if used.moments else None,
            "offers": offers(self.actor, row.node),
        }


class _Service(Protocol):
    def __call__(self, *, actor: Principal, name: str, reason: str) -> Node: ...


class _Change(NodePage):
    """Move a node to another state."""

    service: ClassVar[_Service]
    sentence: ClassVar[str]

    def act(self, **kwargs: Any) -> HttpResponse:
        reason = cleaned(NodeReasonForm(self.request.POST))["reason"]
        node = type(self).service(actor=self.actor, name=kwargs["name"], reason=reason)
        return self.done(self.sentence.format(node.name), "portal:node", name=node.name)


class NodeCordon(_Change):
    """Cordon a node, which then gets no new work."""

    service = staticmethod(node_cordon)
    sentence = "{} is cordoned; it gets no new work."


class NodeUncordon(_Change):
    """Return a node to use."""

    service = staticmethod(node_uncordon)
    sentence = "{} is in use again."


class NodeDrain(_Change):
    """Drain a node: move its deployments to other workers."""

    service = staticmethod(node_drain)
    sentence = "{} is draining; its deployments move to other workers."


class NodeRevoke(_Change):
    """Revoke a node's key."""

    service = staticmethod(node_revoke)
    sentence = "{} is revoked; its key no longer works."
