"""Rerun a job: retry a failed one from its checkpoint, or clone one with changes.

Both create a new job; the old one keeps its request, usage and records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from governance.audit.services import audit_record
from governance.errors import InvalidInput, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal
from registry.datasets.selectors import dataset_version_get
from registry.intake.models import IntakeState
from registry.intake.states import INTAKE_STATES
from registry.versions.selectors import model_get, version_get
from workers.jobs.models import Job, JobKind, JobPriority, JobState
from workers.jobs.requests import evaluate_request, fine_tune_request
from workers.jobs.selectors import job_get
from workers.jobs.services import job_add, job_resource
from workers.jobs.states import job_subject

# Request fields of each kind that a clone may change.
CHANGES: dict[str, frozenset[str]] = {
    JobKind.FINE_TUNE: frozenset(
        {"base_version", "method", "dataset_version", "hyperparameters", "resources", "priority"}
    ),
    JobKind.EVALUATE: frozenset({"version", "dataset_version", "max_rows", "priority"}),
}

# Request fields of each kind that the row of a repeatable job contains.
REQUESTED: dict[str, frozenset[str]] = {
    JobKind.FINE_TUNE: frozenset(
        {"model_name", "base", "method", "dataset_version", "hyperparameters"}
    ),
    JobKind.EVALUATE: frozenset({"version", "dataset_version"}),
}


def is_repeatable(job: Job) -> bool:
    """Return whether the job's kind can be repeated and its row has the whole request."""
    return job.kind in REQUESTED and REQUESTED[job.kind] <= job.spec.keys()


def request_of(job: Job) -> dict[str, Any]:
    """Return the request fields of a repeatable job by name."""
    spec = job.spec
    if job.kind == JobKind.EVALUATE:
        parts = ("version", "dataset_version", "max_rows")
        return {name: spec[name] for name in parts if spec.get(name) is not None}
    return {
        "model": spec["model_name"],
        "base_version": spec["base"],
        "method": spec["method"],
        "dataset_version": spec["dataset_version"],
        "hyperparameters": spec["hyperparameters"],
        **({"resources": spec["resources"]} if spec.get("resources") else {}),
    }


@transaction.atomic
def job_retry(*, actor: Principal, job_id: UUID | str) -> Job:
    """Queue the request of a failed or dead job again. A fine-tune continues from its checkpoint.
    An intake whose checks ended without a verdict is checked again.

    The checkpoints are moved only when the first attempt begins (`workers.jobs.orders`), so that a
    rollback cannot leave them in the folder of a job that does not exist.

    Raises:
        NotFound: the job does not exist, or the actor may not see it or what it needs.
        NotPermitted: the policy denies it.
        WrongState: the job did not fail, its row lacks a request field, or a version was recalled.
        InvalidInput: jobs of this kind cannot be repeated, or the request no longer fits.
    """
    old = job_get(actor=actor, job_id=job_id)
    decision = authorize(actor=actor, action=Action.JOB_CREATE, resource=job_resource(old))
    if old.state not in (JobState.FAILED, JobState.DEAD):
        raise WrongState(
            f"Job {old.title!r} is {old.state}; only failed jobs can be retried.",
            hint=f"Clone it to run the same again: `assay jobs clone {old.pk}`.",
        )
    if old.kind == JobKind.INTAKE:
        job = _check_again(actor, old, decision)
    else:
        job = _request_again(actor, old, {})
    if job.spec == old.spec and old.checkpoints:
        # If a retry failed before it began, its checkpoints are still with the job that it retried.
        job.continues = old.continues if old.claimed_at is None and old.continues else old.pk
        job.checkpoints = old.checkpoints
        job.save(update_fields=["checkpoints", "continues"])
    audit_record(
        actor=actor,
        action="job:retry",
        subject=job_subject(job),
        department=job.department.slug,
        data={"retries": str(old.pk), "checkpoints": len(job.checkpoints)},
        decision=decision,
    )
    return job


@transaction.atomic
def job_clone(*, actor: Principal, job_id: UUID | str, changes: Mapping[str, Any]) -> Job:
    """Queue the request of a job with `changes`, which maps request fields to new values.

    `hyperparameters` are merged one by one; other fields are replaced.

    Raises:
        InvalidInput: a field is unknown or does not fit.
        DomainError: see `fine_tune_request` and `evaluate_request`.
    """
    old = job_get(actor=actor, job_id=job_id)
    decision = authorize(actor=actor, action=Action.JOB_CREATE, resource=job_resource(old))
    job = _request_again(actor, old, changes)
    audit_record(
        actor=actor,
        action="job:clone",
        subject=job_subject(job),
        department=job.department.slug,
        data={"clones": str(old.pk), "changed": sorted(changes)},
        decision=decision,
    )
    return job


def _check_again(actor: Principal, old: Job, decision: Authorization) -> Job:
    """Queue the checks of an intake again. Raises WrongState if they reached a verdict."""
    intake = INTAKE_STATES.locked(old.spec["intake"])
    if intake.state != IntakeState.CHECKING or intake.job_id != old.pk:
        raise WrongState(
            f"Intake {intake.pk} is {intake.get_state_display().lower()}; it cannot be rechecked.",
            hint="Deliver the files again.",
        )
    job = job_add(
        actor=actor,
        kind=JobKind.INTAKE,
        department=old.department,
        title=old.title,
        spec=old.spec,
        decision=decision,
    )
    intake.job_id = job.pk
    intake.save(update_fields=["job_id"])
    return job


def _request_again(actor: Principal, old: Job, changes: Mapping[str, Any]) -> Job:
    fields_of_kind = CHANGES.get(old.kind)
    if fields_of_kind is None:
        raise InvalidInput(
            f"A job of kind {old.get_kind_display()} cannot be repeated.",
            hint="Fine-tunes and evaluations can.",
        )
    if unknown := [name for name in changes if name not in fields_of_kind]:
        raise InvalidInput(
            f"A job of kind {old.get_kind_display()} has no such fields.",
            fields={name[:40]: ["is not a field of this request"] for name in unknown[:20]},
            hint=f"It has {', '.join(sorted(fields_of_kind))}.",
        )
    if not is_repeatable(old):
        raise WrongState(
            f"Job {old.title!r} does not have its whole request, so it cannot be repeated.",
            hint="Request the work again.",
        )
    before = request_of(old)
    request = {**before, **changes}
    priority = JobPriority.named(request.get("priority", "normal"))
    data = dataset_version_get(actor=actor, id=request["dataset_version"])
    if old.kind == JobKind.EVALUATE:
        return evaluate_request(
            actor=actor,
            version=version_get(actor=actor, id=request["version"]),
            dataset_version=data,
            max_rows=request.get("max_rows"),
            priority=priority,
        )
    # The settings of another method have other names.
    settings = before["hyperparameters"] if request["method"] == before["method"] else {}
    return fine_tune_request(
        actor=actor,
        model=model_get(actor=actor, name=request["model"]),
        base_version=version_get(actor=actor, id=request["base_version"]),
        method=request["method"],
        dataset_version=data,
        hyperparameters={**settings, **changes.get("hyperparameters", {})},
        resources=request.get("resources"),
        priority=priority,
    )
