"""Fine-tunes, evaluations and the gates they must pass."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Number,
    Object,
    Several,
    Slug,
    StrictSerializer,
    Whole,
)
from assay.api.idempotency import idempotent
from assay.api.representations.registry import (
    EvaluationAnswer,
    EvaluationSummary,
    GateAnswer,
)
from assay.api.representations.workers import JobAnswer, JobDetailAnswer
from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from registry.datasets.parsing import MAX_ROWS
from registry.datasets.selectors import dataset_get, dataset_version_get
from registry.evaluations.models import WHY_MAX, Comparator
from registry.evaluations.selectors import (
    evaluation_get,
    evaluations_visible_to,
    gates_visible_to,
)
from registry.evaluations.services import gate_set
from registry.releases.models import DEPARTMENTS_MAX, Environment
from registry.versions.selectors import model_get, version_get
from workers.jobs.chains import LINKS_MAX, Step, fine_tune_then
from workers.jobs.models import PRIORITIES, JobPriority
from workers.jobs.requests import evaluate_request
from workers.run.order import MAX_DEVICES, MAX_MEMORY_GIB, MAX_MINUTES, MAX_NODES


class GateQuery(StrictSerializer):
    """Filters of the list."""

    model = Line(max_length=NAME_MAX, required=False)


class GateBody(StrictSerializer):
    """A threshold; setting it again changes it for evaluations that start afterward."""

    model = Slug(max_length=NAME_MAX)
    dataset = Slug(max_length=80)
    metric = Line(max_length=60)
    comparator = Choice(choices=Comparator.choices)
    threshold = Number()
    why = Line(max_length=WHY_MAX, required=False, allow_blank=True)


class GatesView(Endpoint):
    """Thresholds set beforehand."""

    @operation("Evaluations", "List gates", query=GateQuery, answer=GateAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(GateQuery)
        rows = gates_visible_to(self.actor)
        if "model" in given:
            rows = rows.filter(model__name=given["model"])
        return self.page(rows, GateAnswer)

    @operation("Evaluations", "Set a gate", body=GateBody, answer=GateAnswer, status=201)
    def post(self, request: Request) -> Response:
        given = self.body(GateBody)
        made = gate_set(
            actor=self.actor,
            model=model_get(actor=self.actor, name=given.pop("model")),
            dataset=dataset_get(actor=self.actor, name=given.pop("dataset")),
            **given,
        )
        return self.answer(made, GateAnswer, status=201)


class ResourcesBody(StrictSerializer):
    """The machines that a job requests. Recipes that run in one process take no more than one
    device; `minutes` stops a job that takes longer."""

    devices = Whole(min_value=1, max_value=MAX_DEVICES, required=False)
    nodes = Whole(min_value=1, max_value=MAX_NODES, required=False)
    memory_gib = Whole(min_value=1, max_value=MAX_MEMORY_GIB, required=False)
    minutes = Whole(min_value=1, max_value=MAX_MINUTES, required=False)


class StepBody(StrictSerializer):
    """An evaluation of the version that the fine-tune makes."""

    dataset_version = Identifier()
    max_rows = Whole(min_value=1, max_value=MAX_ROWS, required=False)


class ChainReleaseBody(StrictSerializer):
    """The release draft at the end of a chain. Without `departments`, that of the model; without
    `deployment_name`, the model's name."""

    environment = Choice(choices=Environment.choices)
    departments = Several(
        child=Slug(max_length=DEPARTMENT_MAX), max_length=DEPARTMENTS_MAX, required=False
    )
    deployment_name = Slug(max_length=NAME_MAX, required=False)


class FineTuneBody(StrictSerializer):
    """Base, recipe and data of a fine-tune; `hyperparameters` follow the task's schema."""

    model = Slug(max_length=NAME_MAX)
    base_version = Identifier()
    method = Line(max_length=40)
    dataset_version = Identifier()
    hyperparameters = Object(required=False)
    resources = ResourcesBody(required=False)
    priority = Choice(choices=PRIORITIES, required=False)
    then = serializers.ListField(
        child=StepBody(),
        max_length=LINKS_MAX,
        required=False,
        help_text="Evaluations that follow, each after the one before it has succeeded.",
    )
    release = ChainReleaseBody(
        required=False,
        help_text="Makes a release draft after them, which a person completes and submits.",
    )


class FineTunesView(Endpoint):
    """Adaptations."""

    @operation("Jobs", "Queue a fine-tune", body=FineTuneBody, answer=JobDetailAnswer, status=201)
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(FineTuneBody)
        steps = [
            Step(
                dataset_version_get(actor=self.actor, id=step["dataset_version"]),
                step.get("max_rows"),
            )
            for step in given.get("then", [])
        ]
        job = fine_tune_then(
            actor=self.actor,
            model=model_get(actor=self.actor, name=given["model"]),
            base_version=version_get(actor=self.actor, id=given["base_version"]),
            method=given["method"],
            dataset_version=dataset_version_get(actor=self.actor, id=given["dataset_version"]),
            hyperparameters=given.get("hyperparameters", {}),
            resources=given.get("resources"),
            priority=JobPriority.named(given.get("priority", "normal")),
            then=steps,
            release=given.get("release"),
        )
        return self.answer(job, JobDetailAnswer, status=201)


class EvaluationQuery(StrictSerializer):
    """Filters of the list."""

    version = serializers.IntegerField(min_value=1, max_value=2**63 - 1, required=False)
    model = Line(max_length=NAME_MAX, required=False)


class EvaluationBody(StrictSerializer):
    """Version and data of an evaluation."""

    version = Identifier()
    dataset_version = Identifier()
    max_rows = Whole(
        min_value=1,
        max_value=MAX_ROWS,
        required=False,
        help_text="Measure the first rows only. Such an evaluation decides no gates.",
    )
    priority = Choice(choices=PRIORITIES, required=False)


class EvaluationsView(Endpoint):
    """Measured results."""

    @operation(
        "Evaluations",
        "List evaluations",
        query=EvaluationQuery,
        answer=EvaluationSummary,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        given = self.query(EvaluationQuery)
        rows = evaluations_visible_to(self.actor)
        if "version" in given:
            rows = rows.filter(version_id=given["version"])
        if "model" in given:
            rows = rows.filter(version__model__name=given["model"])
        return self.page(rows, EvaluationSummary)

    @operation(
        "Evaluations", "Queue an evaluation", body=EvaluationBody, answer=JobAnswer, status=201
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(EvaluationBody)
        job = evaluate_request(
            actor=self.actor,
            version=version_get(actor=self.actor, id=given["version"]),
            dataset_version=dataset_version_get(actor=self.actor, id=given["dataset_version"]),
            max_rows=given.get("max_rows"),
            priority=JobPriority.named(given.get("priority", "normal")),
        )
        return self.answer(job, JobAnswer, status=201)


class EvaluationView(Endpoint):
    """One measured result."""

    @operation("Evaluations", "One evaluation with its details", answer=EvaluationAnswer)
    def get(self, request: Request, evaluation_id: int) -> Response:
        self.query()
        evaluation = evaluation_get(actor=self.actor, id=evaluation_id)
        return self.answer(evaluation, EvaluationAnswer)
