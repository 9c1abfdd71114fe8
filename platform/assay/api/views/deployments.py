"""Deployments of approved releases."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Identifier, Line, StrictSerializer, Whole
from assay.api.idempotency import idempotent
from assay.api.representations.workers import DeploymentAnswer, RollbackChoiceAnswer
from governance.bounds import NAME_MAX
from workers.deployments.models import REPLICAS_MAX, DeploymentState, Device
from workers.deployments.rollback import REASON_MAX, deployment_rollback, rollback_choices
from workers.deployments.selectors import deployment_get, deployments_visible_to
from workers.deployments.services import deployment_create, deployment_stop
from workers.placement.services import deployment_place
from workers.placement.settings import LABEL_MAX, LABELS_MAX, ReplicaSettings


class DeploymentQuery(StrictSerializer):
    """Filters of the list."""

    name = Line(max_length=NAME_MAX, required=False)
    state = Choice(choices=DeploymentState.choices, required=False)


class ReplicasBody(StrictSerializer):
    """Number of replicas, and the workers that may hold them."""

    replicas_min = Whole(min_value=0, max_value=REPLICAS_MAX)
    replicas_max = Whole(min_value=1, max_value=REPLICAS_MAX)
    labels = serializers.ListField(
        child=Line(max_length=LABEL_MAX), max_length=LABELS_MAX, default=list
    )
    device = Choice(choices=Device.choices, allow_blank=True, default="")


class DeploymentBody(StrictSerializer):
    """The release to make servable, and its replicas; by default those of what it replaces."""

    release = Identifier()
    replicas = ReplicasBody(required=False)


class DeploymentsView(Endpoint):
    """Deployments."""

    @operation(
        "Deployments",
        "List deployments",
        query=DeploymentQuery,
        answer=DeploymentAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        given = self.query(DeploymentQuery)
        rows = deployments_visible_to(self.actor).prefetch_related("placements")
        return self.page(rows.filter(**given), DeploymentAnswer)

    @operation(
        "Deployments",
        "Deploy an approved release",
        body=DeploymentBody,
        answer=DeploymentAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(DeploymentBody)
        replicas = given.get("replicas")
        made = deployment_create(
            actor=self.actor,
            release_id=given["release"],
            replicas=None if replicas is None else ReplicaSettings(**replicas),
        )
        return self.answer(made, DeploymentAnswer, status=201)


class DeploymentView(Endpoint):
    """One deployment."""

    @operation("Deployments", "One deployment and its replicas", answer=DeploymentAnswer)
    def get(self, request: Request, deployment_id: int) -> Response:
        self.query()
        found = deployment_get(actor=self.actor, deployment_id=deployment_id)
        return self.answer(found, DeploymentAnswer)


class StopBody(StrictSerializer):
    """Why it stops."""

    reason = Line(max_length=500)


class DeploymentStopView(Endpoint):
    """Take a deployment out of service."""

    @operation("Deployments", "Stop a deployment", body=StopBody, answer=DeploymentAnswer)
    @idempotent
    def post(self, request: Request, deployment_id: int) -> Response:
        given = self.body(StopBody)
        stopped = deployment_stop(
            actor=self.actor, deployment_id=deployment_id, reason=given["reason"]
        )
        return self.answer(stopped, DeploymentAnswer)


class DeploymentReplicasView(Endpoint):
    """Replicas of a deployment: operational settings that no approval names."""

    @operation(
        "Deployments",
        "Change the replicas of a deployment",
        body=ReplicasBody,
        answer=DeploymentAnswer,
    )
    @idempotent
    def post(self, request: Request, deployment_id: int) -> Response:
        given = self.body(ReplicasBody)
        changed = deployment_place(
            actor=self.actor, deployment_id=deployment_id, settings=ReplicaSettings(**given)
        )
        return self.answer(changed, DeploymentAnswer)


class RollbackBody(StrictSerializer):
    """Which release to go back to, and why."""

    release = Identifier()
    reason = Line(max_length=REASON_MAX)


class DeploymentRollbackView(Endpoint):
    """Back to what served under the name before."""

    @operation(
        "Deployments",
        "What a deployment can be rolled back to",
        answer=RollbackChoiceAnswer(many=True),
    )
    def get(self, request: Request, deployment_id: int) -> Response:
        self.query()
        found = deployment_get(actor=self.actor, deployment_id=deployment_id)
        choices = rollback_choices(actor=self.actor, deployment=found)
        return Response(self.rendered(choices, RollbackChoiceAnswer))

    @operation(
        "Deployments",
        "Roll back to a release that served before",
        body=RollbackBody,
        answer=DeploymentAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, deployment_id: int) -> Response:
        given = self.body(RollbackBody)
        made = deployment_rollback(
            actor=self.actor,
            deployment_id=deployment_id,
            release_id=given["release"],
            reason=given["reason"],
        )
        return self.answer(made, DeploymentAnswer, status=201)
