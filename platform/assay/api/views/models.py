"""The catalog of tasks, models and their versions, including prompt versions and recalls."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request

from assay.api.documentation import RANGES, operation
from assay.api.endpoint import Endpoint
from assay.api.representations.recalls import RecalledAnswer, RecallRadiusAnswer
from assay.api.representations.registry import (
    ModelAnswer,
    TaskAnswer,
    VersionAnswer,
    VersionDetail,
)
from assay.api.representations.workers import JobAnswer
from assay.api.routes import Routes
from assay.downloads import stored_file
from governance.people.selectors import department_get
from governance.principals import Principal
from governance.schemas import Schema
from registry.catalog import UnavailableTask, listed_tasks
from registry.catalog.declaration import Task
from registry.evaluations.selectors import evaluations_visible_to, gates_visible_to
from registry.versions.models import Model, ModelVersion
from registry.versions.recall import Recalled, version_recall
from registry.versions.schemas import ModelFilter, NewModel, VersionRecall
from registry.versions.selectors import (
    lineage,
    model_get,
    models_visible_to,
    version_get,
    versions_visible_to,
)
from registry.versions.services import model_create, version_file_export
from workers.deployments.models import StatedModel
from workers.deployments.radius import BlastRadius, blast_radius
from workers.deployments.stated_models import stated_of_version
from workers.jobs.models import Job
from workers.jobs.prompts import prompt_version_create
from workers.jobs.schemas import NewPromptVersion

routes = Routes("Models", ModelAnswer)
versions = Routes("Models", VersionDetail)


@routes.list("tasks", "The catalog of tasks", answer=TaskAnswer, order=())
def tasks(actor: Principal) -> list[Task | UnavailableTask]:
    return listed_tasks()


@routes.list("models", "List models")
def list_models(actor: Principal, query: ModelFilter) -> QuerySet[Model]:
    return query.applied(models_visible_to(actor))


@routes.post("models", "Create a model", status=201)
def create(actor: Principal, body: NewModel) -> Model:
    department = department_get(slug=body.department)
    return model_create(actor=actor, **{**dict(body), "department": department})


@routes.get("models/<slug:name>", "One model")
def show(actor: Principal, name: str) -> Model:
    return model_get(actor=actor, name=name)


@routes.list("models/<slug:name>/versions", "List a model's versions", answer=VersionAnswer)
def versions_of(actor: Principal, name: str) -> QuerySet[ModelVersion]:
    return versions_visible_to(actor).filter(model=model_get(actor=actor, name=name))


@versions.get(
    "versions/<id:version_id>", "One version: manifest, lineage, metrics, evaluations, gates"
)
def show_version(actor: Principal, version_id: int) -> dict[str, Any]:
    version = version_get(actor=actor, id=version_id)
    return {
        "version": version,
        "evaluations": evaluations_visible_to(actor).filter(version=version)[:100],
        "gates": gates_visible_to(actor).filter(model=version.model_id)[:100],
        "lineage": lineage(version, actor=actor),
    }


class StatedModelAnswer(serializers.Serializer[Any]):
    """A model and a fingerprint that answers of a provider stated, each empty if they stated none.
    `differs`: the description does not name them; null until the controller has compared them."""

    id = serializers.IntegerField()
    deployment = serializers.CharField(source="deployment.name")
    model = serializers.CharField()
    fingerprint = serializers.CharField()
    differs = serializers.BooleanField(allow_null=True)
    first_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField(help_text="Time of the last record, at most one an hour.")


@versions.list(
    "versions/<id:version_id>/stated-models",
    "List the models that answers for a hosted version stated",
    answer=StatedModelAnswer,
    order=("-seen_at", "-id"),
)
def stated(actor: Principal, version_id: int) -> QuerySet[StatedModel]:
    return stated_of_version(actor, version_get(actor=actor, id=version_id))


class VersionFileView(Endpoint):
    """One file of a version."""

    @operation(
        "Models",
        "Bytes of a file of a version, whole or one range; each download is an audit event",
        **RANGES,
    )
    def get(self, request: Request, version_id: int, digest: str) -> HttpResponseBase:
        self.query_as(Schema)
        file = version_file_export(actor=self.actor, version_id=version_id, sha256=digest)
        holder = f"{self.actor.kind} {self.actor.id}"
        return stored_file(request._request, file, holder)


@versions.get(
    "versions/<id:version_id>/recall",
    "Preview the effect of recalling a version",
    answer=RecallRadiusAnswer,
)
def radius(actor: Principal, version_id: int) -> BlastRadius:
    return blast_radius(actor=actor, version_id=version_id)


@versions.post(
    "versions/<id:version_id>/recall",
    "Recall a version and everything based on it, permanently",
    answer=RecalledAnswer,
    repeatable=True,
)
def recall(actor: Principal, version_id: int, body: VersionRecall) -> Recalled:
    return version_recall(
        actor=actor, version_id=version_id, reason=body.reason, confirm=body.confirm
    )


@routes.create("prompt-versions", "Create a prompt version; the job registers it", answer=JobAnswer)
def prompt(actor: Principal, body: NewPromptVersion) -> Job:
    return prompt_version_create(
        actor=actor,
        model=model_get(actor=actor, name=body.model),
        base_version=version_get(actor=actor, id=body.base_version),
        document=body.document,
        note=body.note,
    )
