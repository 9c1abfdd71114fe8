"""Machines that run workers: enrolling them, and taking them out of use."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, StrictSerializer
from assay.api.idempotency import idempotent
from workers.control.messages import NODE_NAME_MAX
from workers.nodes.fleet import node_row, node_rows
from workers.nodes.models import REASON_MAX, NodeState
from workers.nodes.selectors import nodes_visible_to
from workers.nodes.services import (
    node_cordon,
    node_drain,
    node_enroll,
    node_revoke,
    node_uncordon,
)

TAG = "Nodes"


class WorkerNodeAnswer(serializers.Serializer[Any]):
    """A machine that runs workers. `replicas` and `jobs` count what it holds and runs; `facts` is
    its latest report, empty before the first one."""

    name = serializers.CharField(source="node.name")
    state = serializers.CharField(source="node.state")
    facts = serializers.JSONField(source="node.facts")
    seen_at = serializers.DateTimeField(source="node.seen_at", allow_null=True)
    joined_at = serializers.DateTimeField(source="node.joined_at", allow_null=True)
    conflict_at = serializers.DateTimeField(
        source="node.conflict_at",
        allow_null=True,
        help_text="When two processes last used its key at once.",
    )
    replicas = serializers.IntegerField()
    jobs = serializers.IntegerField()
    queued = serializers.IntegerField(
        allow_null=True,
        help_text="Requests that wait for its deployments, also those that another node may take; "
        "null while the broker does not answer.",
    )


class NodeQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=NodeState.choices, required=False)


class NodeEnrollBody(StrictSerializer):
    """The name that the machine will have."""

    name = Line(max_length=NODE_NAME_MAX)


class NodeEnrolledAnswer(serializers.Serializer[Any]):
    """The token, which is shown this once, and until when it works."""

    name = serializers.CharField()
    token = serializers.CharField()
    expires_at = serializers.DateTimeField()


class NodesView(Endpoint):
    """All machines."""

    ordering = ("name",)

    @operation(TAG, "List nodes", query=NodeQuery, answer=WorkerNodeAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(NodeQuery)
        rows = nodes_visible_to(self.actor).filter(**given)
        return self.page(rows, WorkerNodeAnswer, prepared=node_rows)

    @operation(TAG, "Enroll a node", body=NodeEnrollBody, answer=NodeEnrolledAnswer, status=201)
    def post(self, request: Request) -> Response:
        given = self.body(NodeEnrollBody)
        node, token, expires_at = node_enroll(actor=self.actor, name=given["name"])
        made = {"name": node.name, "token": token, "expires_at": expires_at}
        return self.answer(made, NodeEnrolledAnswer, status=201)


class NodeView(Endpoint):
    """One machine."""

    @operation(TAG, "One node", answer=WorkerNodeAnswer)
    def get(self, request: Request, name: str) -> Response:
        self.query()
        return self.answer(node_row(actor=self.actor, name=name), WorkerNodeAnswer)


class NodeReasonBody(StrictSerializer):
    """The reason, which the audit log keeps."""

    reason = Line(max_length=REASON_MAX, allow_blank=True, default="")


class _Change(Endpoint):
    """Moves a node to another state."""

    def moved(self, change: Any, name: str) -> Response:
        given = self.body(NodeReasonBody)
        change(actor=self.actor, name=name, reason=given["reason"])
        return self.answer(node_row(actor=self.actor, name=name), WorkerNodeAnswer)


class NodeCordonView(_Change):
    """No new work for a node."""

    @operation(TAG, "Cordon a node", body=NodeReasonBody, answer=WorkerNodeAnswer)
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        return self.moved(node_cordon, name)


class NodeUncordonView(_Change):
    """Back to use."""

    @operation(TAG, "Return a node to use", body=NodeReasonBody, answer=WorkerNodeAnswer)
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        return self.moved(node_uncordon, name)


class NodeDrainView(_Change):
    """Move of a node's deployments to other workers."""

    @operation(TAG, "Drain a node", body=NodeReasonBody, answer=WorkerNodeAnswer)
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        return self.moved(node_drain, name)


class NodeRevokeView(_Change):
    """The end of a node's key."""

    @operation(TAG, "Revoke a node", body=NodeReasonBody, answer=WorkerNodeAnswer)
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        return self.moved(node_revoke, name)
