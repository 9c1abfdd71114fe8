"""The control plane of a node's engine workers. `workers/remote/` is its client."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Number,
    Object,
    Several,
    StrictSerializer,
    Whole,
)
from assay.downloads import BINARY
from assay.node_api.endpoint import NodeEndpoint
from assay.node_api.facts import FactsBody
from assay.node_api.joining import TAG
from registry.catalog.answers import ANSWER_MAX, ROWS_MAX
from registry.catalog.engines import EngineName
from workers.control.messages import assignment_to_json, plan_to_json
from workers.control.protocol import Software
from workers.deployments.models import Device, ReplicaState
from workers.deployments.services import replica_report, replicas_heartbeat
from workers.nodes.engine_side import (
    node_assignments,
    node_plan,
    node_reference_file,
    node_references,
    node_references_report,
    node_require,
    node_worker_register,
    node_worker_stop,
    node_worker_tasks,
    worker_of,
)
from workers.nodes.models import WORKER_NAME_MAX
from workers.nodes.services import node_report
from workers.nodes.states import node_working
from workers.offers.models import WorkerRole
from workers.offers.values import TASKS_MAX, offers_from_json
from workers.placement.capacity import Capacity

ENGINES = [name.value for name in EngineName]


class Identifiers(Line):
    """Ids of rows with commas between them."""

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if value and not re.fullmatch(r"[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*", value):
            raise ValidationError("Not ids with commas between them.")
        return value


class AssignmentsQuery(StrictSerializer):
    """The worker, the engines that it can start, and the deployments that it holds, with commas
    between them."""

    worker = Line(max_length=WORKER_NAME_MAX)
    engines = Line(max_length=100)
    held = Identifiers(max_length=20_000, required=False, allow_blank=True, default="")


class AssignmentAnswer(serializers.Serializer[Any]):
    """A deployment to hold; with a refusal, one to report as failed; leaving, one to unload once it
    has answered what it has."""

    deployment_id = serializers.IntegerField()
    name = serializers.CharField()
    digest = serializers.CharField()
    lease_s = serializers.FloatField()
    recorded = serializers.BooleanField()
    refusal = serializers.CharField(allow_blank=True)
    leaving = serializers.BooleanField()


class NodeAssignmentsView(NodeEndpoint):
    """Desired state of one worker."""

    @operation(
        TAG,
        "List what a worker is to hold",
        query=AssignmentsQuery,
        answer=AssignmentAnswer(many=True),
    )
    def get(self, request: Request) -> Response:
        given = self.query(AssignmentsQuery)
        found = node_assignments(
            node=self.node,
            worker=given["worker"],
            engines=given["engines"].split(","),
            held=[int(each) for each in given["held"].split(",") if each],
        )
        return Response([assignment_to_json(each) for each in found])


class NodePlanAnswer(serializers.Serializer[Any]):
    """Plan of loading a deployment. Weights have a name, a digest and a manifest."""

    deployment_id = serializers.IntegerField()
    name = serializers.CharField()
    task = serializers.CharField()
    engine = serializers.CharField()
    runner = serializers.CharField()
    architectures = serializers.ListField(child=serializers.CharField())
    digest = serializers.CharField()
    expires_at = serializers.FloatField()
    weights = serializers.JSONField()
    adapter = serializers.JSONField(allow_null=True)
    prompt = serializers.JSONField(allow_null=True)
    engine_name = serializers.CharField()
    dtype = serializers.CharField(allow_null=True)
    code = serializers.CharField(help_text="Digest of the task's packages.")
    packages = serializers.CharField(help_text="Their names and versions.")


class NodePlanView(NodeEndpoint):
    """The plan by which an assigned deployment is loaded."""

    @operation(TAG, "Plan of an assigned deployment", answer=NodePlanAnswer)
    def get(self, request: Request, deployment_id: int) -> Response:
        self.query()
        return Response(plan_to_json(node_plan(node=self.node, deployment_id=deployment_id)))


class ReferencesQuery(StrictSerializer):
    """The worker that has loaded the deployment."""

    worker = Line(max_length=WORKER_NAME_MAX)


class ReferenceAnswer(serializers.Serializer[Any]):
    """A request whose answer the dossier names: inputs and options as the task's schemas, files by
    their SHA-256."""

    row = serializers.IntegerField()
    inputs = serializers.JSONField()
    options = serializers.JSONField()


class ReferenceResult(StrictSerializer):
    """The answer to one request; `failed` says why there is none."""

    row = Whole(max_value=2**31 - 1)
    text = serializers.CharField(
        allow_blank=True, trim_whitespace=False, max_length=4 * ANSWER_MAX, required=False
    )
    results = serializers.JSONField(required=False)
    failed = Line(max_length=200, required=False)


class ReferencesBody(StrictSerializer):
    """A worker's answers to the requests of the dossier."""

    worker = Line(max_length=WORKER_NAME_MAX)
    answers = Several(child=ReferenceResult(), max_length=ROWS_MAX)


class NodeReferencesView(NodeEndpoint):
    """Requests that a worker answers after an upgrade, before a deployment serves there."""

    @operation(
        TAG,
        "List the requests that are compared before a deployment serves",
        query=ReferencesQuery,
        answer=ReferenceAnswer(many=True),
    )
    def get(self, request: Request, deployment_id: int) -> Response:
        worker = worker_of(self.node, self.query(ReferencesQuery)["worker"])
        found = node_references(node=self.node, worker=worker, deployment_id=deployment_id)
        return Response([asdict(each) for each in found])

    @operation(TAG, "Send the answers to them", body=ReferencesBody, answer=None, status=204)
    def post(self, request: Request, deployment_id: int) -> Response:
        given = self.body(ReferencesBody)
        node_references_report(
            node=self.node,
            worker=worker_of(self.node, given["worker"]),
            deployment_id=deployment_id,
            answers=given["answers"],
        )
        return Response(status=204)


class NodeReferenceFileView(NodeEndpoint):
    """A file of such a request."""

    @operation(
        TAG,
        "Bytes of a file of these requests",
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="The file."),
    )
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        self.query()
        file = node_reference_file(node=self.node, deployment_id=deployment_id, sha256=digest)
        return HttpResponse(file, content_type=BINARY)


class ReplicaBody(StrictSerializer):
    """State of one worker's copy."""

    worker = Line(max_length=WORKER_NAME_MAX)
    deployment = Identifier()
    state = Choice(choices=ReplicaState.choices)
    loaded_digest = Line(max_length=64, allow_blank=True, default="")
    code = Line(max_length=64, allow_blank=True, default="")
    message = Line(max_length=1000, allow_blank=True, default="")
    load_seconds = Number(min_value=0, max_value=1e6, allow_null=True, default=None)
    failures = Whole(max_value=1_000_000, default=0)
    retry_in_s = Number(min_value=-3600, max_value=3600, allow_null=True, default=None)


class ReplicaStateAnswer(serializers.Serializer[Any]):
    """The state that was recorded: of other bytes than the release names, `refused`."""

    state = serializers.CharField()


class NodeReplicasView(NodeEndpoint):
    """Copies of deployments."""

    @operation(TAG, "Report a copy", body=ReplicaBody, answer=ReplicaStateAnswer)
    def post(self, request: Request) -> Response:
        given = self.body(ReplicaBody)
        worker = worker_of(self.node, given.pop("worker"))
        deployment_id, state = given.pop("deployment"), ReplicaState(given.pop("state"))
        with node_working(self.node):
            node_require(node=self.node, worker=worker, deployment_id=deployment_id, state=state)
            made = replica_report(
                deployment_id=deployment_id, worker=worker, state=state, actor=self.actor, **given
            )
        return self.answer(made, ReplicaStateAnswer)


class HeartbeatBody(StrictSerializer):
    """A worker that is alive, what it offers and, now and then, what its machine has."""

    worker = Line(max_length=WORKER_NAME_MAX)
    engines = Several(child=Choice(choices=ENGINES), max_length=len(ENGINES))
    facts = FactsBody(required=False)


class NodeHeartbeatsView(NodeEndpoint):
    """Signs of life."""

    @operation(TAG, "Report that a worker is alive", body=HeartbeatBody, answer=None, status=204)
    def post(self, request: Request) -> Response:
        given = self.body(HeartbeatBody)
        worker = worker_of(self.node, given["worker"])
        with node_working(self.node):
            replicas_heartbeat(worker=worker, engines=given["engines"])
        node_report(node=self.node, facts=given.get("facts"))
        return Response(status=204)


class WorkerTasksBody(StrictSerializer):
    """A worker, the work that it takes, and its tasks by name: {name: {package, lacks}}."""

    worker = Line(max_length=WORKER_NAME_MAX)
    role = Choice(choices=WorkerRole.choices)
    tasks = Object(max_members=TASKS_MAX)


class NodeWorkerTasksView(NodeEndpoint):
    """Tasks that a worker offers."""

    @operation(TAG, "Report a worker's tasks", body=WorkerTasksBody, answer=None, status=204)
    def post(self, request: Request) -> Response:
        given = self.body(WorkerTasksBody)
        node_worker_tasks(
            node=self.node,
            worker=worker_of(self.node, given["worker"]),
            role=WorkerRole(given["role"]),
            offers=offers_from_json(given["tasks"]),
        )
        return Response(status=204)


class WorkerStopBody(StrictSerializer):
    """The worker that starts or ends."""

    worker = Line(max_length=WORKER_NAME_MAX)


class NodeWorkerStopView(NodeEndpoint):
    """The end of a worker."""

    @operation(
        TAG, "Report that a worker holds nothing", body=WorkerStopBody, answer=None, status=204
    )
    def post(self, request: Request) -> Response:
        given = self.body(WorkerStopBody)
        node_worker_stop(node=self.node, worker=worker_of(self.node, given["worker"]))
        return Response(status=204)


class CapacityBody(StrictSerializer):
    """Capacity of a process for models: bytes, kind and number of devices, and labels."""

    memory = Whole(max_value=2**53)
    device = Choice(choices=Device.choices)
    devices = Whole(max_value=1024)
    labels = Several(child=Line(max_length=40), max_length=16)


class SoftwareBody(StrictSerializer):
    """The versions that each engine's answers depend on, and the packages of each task that another
    package provides, with their digest."""

    environments = Object(required=False, default=dict)
    code = Object(required=False, default=dict)


class WorkerKeyBody(StrictSerializer):
    """A worker process's public key (X25519, hexadecimal), made anew at each start."""

    worker = Line(max_length=WORKER_NAME_MAX)
    public_key = serializers.RegexField("^[0-9a-f]{64}$")
    engines = Several(child=Choice(choices=ENGINES), max_length=len(ENGINES))
    capacity = CapacityBody()
    software = SoftwareBody(required=False)


class NodeWorkerKeyView(NodeEndpoint):
    """Keys that gateways seal requests for."""

    @operation(TAG, "Register a worker's key", body=WorkerKeyBody, answer=None, status=204)
    def post(self, request: Request) -> Response:
        given = self.body(WorkerKeyBody)
        labels = tuple(given["capacity"]["labels"])
        node_worker_register(
            node=self.node,
            worker=worker_of(self.node, given["worker"]),
            public_key=given["public_key"],
            engines=given["engines"],
            capacity=Capacity(**{**given["capacity"], "labels": labels}),
            software=Software(**given.get("software", {})),
        )
        return Response(status=204)
