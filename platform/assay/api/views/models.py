"""The catalog, models and their versions: prompt versions and recalls too."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import RANGES, operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Identifier, Line, Object, Paragraphs, Slug, StrictSerializer, Truth
from assay.api.idempotency import idempotent
from assay.api.representations.recalls import RecalledAnswer, RecallRadiusAnswer
from assay.api.representations.registry import (
    ModelAnswer,
    TaskAnswer,
    VersionAnswer,
    VersionDetail,
)
from assay.api.representations.workers import JobAnswer
from assay.downloads import stored_file
from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, NAME_MAX, TASK_MAX
from governance.people.selectors import department_get
from registry.catalog import listed_tasks
from registry.evaluations.selectors import evaluations_visible_to, gates_visible_to
from registry.versions.models import REASON_MAX
from registry.versions.recall import version_recall
from registry.versions.selectors import (
    lineage,
    model_get,
    models_visible_to,
    version_get,
    versions_visible_to,
)
from registry.versions.services import model_create, version_file_export
from workers.deployments.radius import blast_radius
from workers.jobs.prompts import prompt_version_create


class TasksView(Endpoint):
    """Tasks of models on this installation."""

    @operation("Models", "The catalog of tasks", answer=TaskAnswer(many=True))
    def get(self, request: Request) -> Response:
        self.query()
        return Response(self.rendered(listed_tasks(), TaskAnswer))


class ModelQuery(StrictSerializer):
    """Filters of the list."""

    department = serializers.CharField(max_length=DEPARTMENT_MAX, required=False)
    task = serializers.CharField(max_length=TASK_MAX, required=False)


class ModelBody(StrictSerializer):
    """A new model; `shared` lets other departments see and adapt it."""

    name = Slug(max_length=NAME_MAX)
    department = Slug(max_length=DEPARTMENT_MAX)
    task = Line(max_length=TASK_MAX)
    description = Paragraphs(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)
    shared = Truth(required=False)


class ModelsView(Endpoint):
    """Registered models."""

    @operation("Models", "List models", query=ModelQuery, answer=ModelAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(ModelQuery)
        rows = models_visible_to(self.actor)
        if "department" in given:
            rows = rows.filter(department__slug=given["department"])
        if "task" in given:
            rows = rows.filter(task=given["task"])
        return self.page(rows, ModelAnswer)

    @operation("Models", "Create a model", body=ModelBody, answer=ModelAnswer, status=201)
    def post(self, request: Request) -> Response:
        given = self.body(ModelBody)
        department = department_get(slug=given.pop("department"))
        made = model_create(actor=self.actor, department=department, **given)
        return self.answer(made, ModelAnswer, status=201)


class ModelView(Endpoint):
    """One model."""

    @operation("Models", "One model", answer=ModelAnswer)
    def get(self, request: Request, name: str) -> Response:
        self.query()
        return self.answer(model_get(actor=self.actor, name=name), ModelAnswer)


class ModelVersionsView(Endpoint):
    """Versions of one model."""

    @operation("Models", "List a model's versions", answer=VersionAnswer, paged=True)
    def get(self, request: Request, name: str) -> Response:
        self.query()
        model = model_get(actor=self.actor, name=name)
        return self.page(versions_visible_to(self.actor).filter(model=model), VersionAnswer)


class VersionView(Endpoint):
    """One immutable version."""

    @operation(
        "Models",
        "One version: manifest, lineage, metrics, evaluations, gates",
        answer=VersionDetail,
    )
    def get(self, request: Request, version_id: int) -> Response:
        self.query()
        version = version_get(actor=self.actor, id=version_id)
        return self.answer(
            {
                "version": version,
                "evaluations": evaluations_visible_to(self.actor).filter(version=version)[:100],
                "gates": gates_visible_to(self.actor).filter(model=version.model_id)[:100],
                "lineage": lineage(version, actor=self.actor),
            },
            VersionDetail,
        )


class VersionFileView(Endpoint):
    """One file of a version."""

    @operation(
        "Models",
        "Bytes of a file of a version, whole or one range; each download is an event",
        **RANGES,
    )
    def get(self, request: Request, version_id: int, digest: str) -> HttpResponseBase:
        self.query()
        file = version_file_export(actor=self.actor, version_id=version_id, sha256=digest)
        holder = f"{self.actor.kind} {self.actor.id}"
        return stored_file(request._request, file, holder)


class RecallBody(StrictSerializer):
    """Why, and the digest of the list that is confirmed."""

    reason = Paragraphs(max_length=REASON_MAX)
    confirm = Line(max_length=64)


class VersionRecallView(Endpoint):
    """A recall. It is for good."""

    @operation("Models", "What a recall of a version would reach", answer=RecallRadiusAnswer)
    def get(self, request: Request, version_id: int) -> Response:
        self.query()
        radius = blast_radius(actor=self.actor, version_id=version_id)
        return self.answer(radius, RecallRadiusAnswer)

    @operation(
        "Models",
        "Recall a version and everything below it, for good",
        body=RecallBody,
        answer=RecalledAnswer,
    )
    @idempotent
    def post(self, request: Request, version_id: int) -> Response:
        given = self.body(RecallBody)
        recalled = version_recall(actor=self.actor, version_id=version_id, **given)
        return self.answer(recalled, RecalledAnswer)


class PromptVersionBody(StrictSerializer):
    """A prompt on a base version: `system`, `template`, `variables`, `examples` and `decoding` in
    `document`."""

    model = Slug(max_length=NAME_MAX)
    base_version = Identifier()
    document = Object()
    note = Paragraphs(max_length=2000, required=False, allow_blank=True)


class PromptVersionsView(Endpoint):
    """Prompts on base versions."""

    @operation(
        "Models",
        "Create a prompt version; the job registers it",
        body=PromptVersionBody,
        answer=JobAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(PromptVersionBody)
        job = prompt_version_create(
            actor=self.actor,
            model=model_get(actor=self.actor, name=given["model"]),
            base_version=version_get(actor=self.actor, id=given["base_version"]),
            document=given["document"],
            note=given.get("note", ""),
        )
        return self.answer(job, JobAnswer, status=201)
