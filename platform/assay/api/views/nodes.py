"""Machines that run workers: enrollment and removal from use."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.routes import Routes
from governance.principals import Principal
from workers.nodes.fleet import NodeRow, node_row, node_rows
from workers.nodes.schemas import NewNode, NodeFilter, NodeReason
from workers.nodes.selectors import nodes_visible_to
from workers.nodes.services import (
    node_cordon,
    node_drain,
    node_enroll,
    node_revoke,
    node_uncordon,
)


class WorkerNodeAnswer(serializers.Serializer[Any]):
    """A machine that runs workers. `replicas` and `jobs` are the numbers of those on it; `facts` is
    its latest report, empty before the first one."""

    name = serializers.CharField(source="node.name")
    state = serializers.CharField(source="node.state")
    facts = serializers.JSONField(source="node.facts")
    seen_at = serializers.DateTimeField(source="node.seen_at", allow_null=True)
    joined_at = serializers.DateTimeField(source="node.joined_at", allow_null=True)
    conflict_at = serializers.DateTimeField(
        source="node.conflict_at",
        allow_null=True,
        help_text="The last time that two processes used its key at once.",
    )
    replicas = serializers.IntegerField()
    jobs = serializers.IntegerField()
    queued = serializers.IntegerField(
        allow_null=True,
        help_text="Requests that wait for its deployments, including those that another node may "
        "take; null while the broker does not answer.",
    )


class NodeEnrolledAnswer(serializers.Serializer[Any]):
    """The token, which is shown only once, and its expiry."""

    name = serializers.CharField()
    token = serializers.CharField()
    expires_at = serializers.DateTimeField()


class NodesView(Endpoint):
    """All machines."""

    ordering = ("name",)

    @operation("Nodes", "List nodes", query=NodeFilter, answer=WorkerNodeAnswer, paged=True)
    def get(self, request: Request) -> Response:
        rows = self.query_as(NodeFilter).applied(nodes_visible_to(self.actor))
        return self.page(rows, WorkerNodeAnswer, prepared=node_rows)

    @operation("Nodes", "Enroll a node", body=NewNode, answer=NodeEnrolledAnswer, status=201)
    def post(self, request: Request) -> Response:
        name = self.body_as(NewNode).name
        node, token, expires_at = node_enroll(actor=self.actor, name=name)
        answer = {"name": node.name, "token": token, "expires_at": expires_at}
        return self.answer(answer, NodeEnrolledAnswer, status=201)


routes = Routes("Nodes", WorkerNodeAnswer)


@routes.get("nodes/<slug:name>", "One node")
def show(actor: Principal, name: str) -> NodeRow:
    return node_row(actor=actor, name=name)


@routes.post("nodes/<slug:name>/cordon", "Cordon a node", repeatable=True)
def cordon(actor: Principal, name: str, body: NodeReason) -> NodeRow:
    node_cordon(actor=actor, name=name, reason=body.reason)
    return node_row(actor=actor, name=name)


@routes.post("nodes/<slug:name>/uncordon", "Return a node to use", repeatable=True)
def uncordon(actor: Principal, name: str, body: NodeReason) -> NodeRow:
    node_uncordon(actor=actor, name=name, reason=body.reason)
    return node_row(actor=actor, name=name)


@routes.post("nodes/<slug:name>/drain", "Drain a node", repeatable=True)
def drain(actor: Principal, name: str, body: NodeReason) -> NodeRow:
    node_drain(actor=actor, name=name, reason=body.reason)
    return node_row(actor=actor, name=name)


@routes.post("nodes/<slug:name>/revoke", "Revoke a node", repeatable=True)
def revoke(actor: Principal, name: str, body: NodeReason) -> NodeRow:
    node_revoke(actor=actor, name=name, reason=body.reason)
    return node_row(actor=actor, name=name)
