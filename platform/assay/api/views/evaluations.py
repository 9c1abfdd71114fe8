"""Fine-tunes, evaluations and gates."""

from __future__ import annotations

from django.db.models import QuerySet

from assay.api.representations.registry import EvaluationAnswer, EvaluationSummary, GateAnswer
from assay.api.representations.workers import JobAnswer, JobDetailAnswer
from assay.api.routes import Routes
from governance.principals import Principal
from registry.datasets.selectors import dataset_get, dataset_version_get
from registry.evaluations.models import Evaluation, Gate
from registry.evaluations.schemas import EvaluationFilter, GateFilter, NewGate
from registry.evaluations.selectors import (
    evaluation_get,
    evaluations_visible_to,
    gates_visible_to,
)
from registry.evaluations.services import gate_set
from registry.versions.selectors import model_get, version_get
from workers.jobs.chains import Step, fine_tune_then
from workers.jobs.models import Job, JobPriority
from workers.jobs.requests import evaluate_request
from workers.jobs.schemas import NewEvaluation, NewFineTune

routes = Routes("Evaluations", EvaluationAnswer)
fine_tunes = Routes("Jobs", JobDetailAnswer)


@routes.list("gates", "List gates", answer=GateAnswer)
def gates(actor: Principal, query: GateFilter) -> QuerySet[Gate]:
    return query.applied(gates_visible_to(actor))


@routes.post("gates", "Set a gate", answer=GateAnswer, status=201)
def set_gate(actor: Principal, body: NewGate) -> Gate:
    return gate_set(
        actor=actor,
        model=model_get(actor=actor, name=body.model),
        dataset=dataset_get(actor=actor, name=body.dataset),
        metric=body.metric,
        comparator=body.comparator,
        threshold=body.threshold,
        why=body.why,
    )


@fine_tunes.create("fine-tunes", "Queue a fine-tune")
def fine_tune(actor: Principal, body: NewFineTune) -> Job:
    return fine_tune_then(
        actor=actor,
        model=model_get(actor=actor, name=body.model),
        base_version=version_get(actor=actor, id=body.base_version),
        method=body.method,
        dataset_version=dataset_version_get(actor=actor, id=body.dataset_version),
        hyperparameters=body.hyperparameters,
        resources=body.resources.model_dump() if body.resources else None,
        priority=JobPriority.named(body.priority),
        then=[
            Step(dataset_version_get(actor=actor, id=step.dataset_version), step.max_rows)
            for step in body.then
        ],
        release=body.release.model_dump(exclude_none=True) if body.release else None,
    )


@routes.list("evaluations", "List evaluations", answer=EvaluationSummary)
def list_evaluations(actor: Principal, query: EvaluationFilter) -> QuerySet[Evaluation]:
    return query.applied(evaluations_visible_to(actor))


@routes.create("evaluations", "Queue an evaluation", answer=JobAnswer)
def evaluate(actor: Principal, body: NewEvaluation) -> Job:
    return evaluate_request(
        actor=actor,
        version=version_get(actor=actor, id=body.version),
        dataset_version=dataset_version_get(actor=actor, id=body.dataset_version),
        max_rows=body.max_rows,
        priority=JobPriority.named(body.priority),
    )


@routes.get("evaluations/<id:evaluation_id>", "One evaluation with its details")
def show(actor: Principal, evaluation_id: int) -> Evaluation:
    return evaluation_get(actor=actor, id=evaluation_id)
