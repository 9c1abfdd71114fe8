"""Register the results of workers. Only the controller does this, once for each job."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from governance.database.locks import session_lock
from governance.errors import DomainError, Unavailable
from governance.principals import service_principal
from registry.catalog import get_task
from registry.datasets.models import DatasetVersion
from registry.evaluations.services import evaluation_record
from registry.intake.models import Intake, IntakeState
from registry.intake.services import intake_checked, intake_digest_fault, intake_reject
from registry.manifests import Manifest
from registry.storage.store import adopt
from registry.versions.models import Model, ModelVersion, VersionKind
from registry.versions.services import version_register
from workers.jobs import workspace
from workers.jobs.knowledge import index_register
from workers.jobs.leases import backoff_s
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.states import job_move
from workers.run.failures import failure_of, is_lack
from workers.run.outcome import SENTENCE_CHARACTERS, Ending

logger = logging.getLogger(__name__)
# Attempts after an unexpected error (about three minutes) before the job fails.
UNFORESEEN_TRIES = 6
_BATCH = 20
# Kinds whose files are in the attempt's folder; those of a prompt were stored at the request.
_DELIVERS = frozenset({JobKind.INTAKE, JobKind.FINE_TUNE, JobKind.INDEX})
_CONTROLLER = service_principal("controller")


def jobs_finish_due() -> int:
    """Try to finish every delivered job that is due; return how many."""
    due = list(
        Job.objects.filter(
            state=JobState.FINISHING, dispatch_after__lte=timezone.now()
        ).values_list("pk", flat=True)[:_BATCH]
    )
    for job_id in due:
        job_finish(job_id)
    return len(due)


def job_finish(job_id: UUID | str) -> JobState | None:
    """Store a job's output, then register its result and close the job in one transaction.

    If the store does not answer or the disk is full, the job stays `finishing` and is tried again.
    A refused result fails the job with the reason. Any other error is retried, and then makes the
    job `dead`, because it says nothing about the work.

    Returns:
        The new state; None if there was nothing to do or another controller works on the job.
    """
    try:
        if not _store_output(job_id):
            return None
        with transaction.atomic():
            job = (
                Job.objects.select_for_update(of=("self",), skip_locked=True)
                .select_related("department", "created_by")
                .filter(pk=job_id, state=JobState.FINISHING)
                .first()
            )
            if job is None:
                return None
            refusal = _REGISTER[JobKind(job.kind)](job)
            to = JobState.FAILED if refusal else JobState.SUCCEEDED
            job_move(
                job_id=job.pk,
                to=to,
                actor=_CONTROLLER,
                reason=refusal,
                error=refusal[:SENTENCE_CHARACTERS],
                result=job.result,
                progress={**job.progress, "phase": to.value},
            )
            return to
    except Unavailable as error:
        return _try_later(job_id, error.message)
    except DomainError as error:
        if is_lack(error):
            return _try_later(job_id, error.message)
        return _give_up(job_id, error.message, JobState.FAILED)
    except Exception as error:
        failure = failure_of(error)
        if failure.ending is Ending.LACKING:
            return _try_later(job_id, failure.sentence)
        logger.exception("Job %s could not be registered", job_id)
        sentence = f"The result could not be registered: {type(error).__name__}: {error}"
        tried = Job.objects.values_list("dispatches", flat=True).get(pk=job_id)
        if tried + 1 >= UNFORESEEN_TRIES:
            return _give_up(job_id, sentence, JobState.DEAD)
        return _try_later(job_id, sentence)


def _try_later(job_id: UUID | str, sentence: str) -> JobState:
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        wait = backoff_s(job.dispatches)
        job.dispatches += 1
        job.dispatch_after = timezone.now() + timedelta(seconds=wait)
        job.error = sentence[:SENTENCE_CHARACTERS]
        job.save(update_fields=["dispatches", "dispatch_after", "error"])
    logger.warning("Job %s is still finishing; next try in %d s: %s", job_id, wait, sentence)
    return JobState(job.state)


def _give_up(job_id: UUID | str, sentence: str, to: JobState) -> JobState:
    job_move(
        job_id=job_id,
        to=to,
        actor=_CONTROLLER,
        reason=sentence,
        error=sentence[:SENTENCE_CHARACTERS],
    )
    return to


def _result(job: Job) -> dict[str, Any]:
    return job.result or {}


def _store_output(job_id: UUID | str) -> bool:
    """Adopt the job's files into the store; return False if another controller is finishing jobs.

    This may take minutes, so it runs outside any transaction and locks no row.
    """
    job = Job.objects.filter(pk=job_id, state=JobState.FINISHING).first()
    if job is None or JobKind(job.kind) not in _DELIVERS or "manifest" not in _result(job):
        return True
    # A second controller stores nothing while the first one works on a job.
    with session_lock("finishing") as held:
        if held:
            folder = workspace.output_folder(job.pk, int(_result(job)["fence"]))
            adopt(folder, _manifest(job))
        return held


def _manifest(job: Job) -> Manifest:
    return Manifest.from_json(_result(job)["manifest"])


def _register_intake(job: Job) -> str:
    result = _result(job)
    intake_id = int(job.spec["intake"])
    reason = str(result.get("rejected", "")) or intake_digest_fault(
        intake_id=intake_id, manifest=_manifest(job)
    )
    if reason:
        intake_reject(
            intake_id=intake_id, findings=result["findings"], reason=reason, job_id=job.pk
        )
        return reason
    converted = result.get("converted", {})
    intake_checked(
        intake_id=intake_id,
        manifest=_manifest(job),
        findings=result["findings"],
        code=result.get("code", ()),
        quantization=str(converted.get("quantization", "")),
        virtual_tokens=int(converted.get("virtual_tokens", 0)),
        hosted=converted.get("hosted"),
        job_id=job.pk,
    )
    return ""


def _register_version(job: Job) -> str:
    result, spec = _result(job), job.spec
    model = Model.objects.get(pk=spec["model"])
    base = ModelVersion.objects.select_related("model").get(pk=spec["base"])
    data = DatasetVersion.objects.select_related("dataset").get(pk=spec["dataset_version"])
    kind = get_task(model.task).recipe(spec["method"]).makes
    version = version_register(
        actor=_CONTROLLER,
        model=model,
        kind=kind,
        manifest=_manifest(job),
        base=base,
        dataset_version=data,
        parameters=result["parameters"],
        metrics=result["metrics"],
        history=_history(job),
        license=base.license,
        code=result.get("code", ()),
        card=adaptation_card(job=job, model=model, base=base, data=data, kind=kind),
        job_id=job.pk,
        created_by=job.created_by,
    )
    job.result = {**result, "version": version.pk, "digest": version.digest}
    return ""


def _register_prompt(job: Job) -> str:
    result, spec = _result(job), job.spec
    model = Model.objects.get(pk=spec["model"])
    base = ModelVersion.objects.select_related("model").get(pk=spec["base"])
    version = version_register(
        actor=_CONTROLLER,
        model=model,
        kind=VersionKind.PROMPT,
        manifest=Manifest.from_json(result["manifest"]),
        base=base,
        dataset_version=None,
        parameters=result["parameters"],
        metrics={},
        history=[],
        license=base.license,
        card=prompt_card(job=job, model=model, base=base),
        job_id=job.pk,
        created_by=job.created_by,
    )
    job.result = {**result, "version": version.pk, "digest": version.digest}
    return ""


def _history(job: Job) -> list[dict[str, Any]]:
    """Return the curves as {"step", "values"}; a step repeated after a resume counts once."""
    points: dict[int, dict[str, float]] = {}
    for event in job.events.filter(step__isnull=False).order_by("pk"):
        if event.data:
            points.setdefault(event.step or 0, {}).update(event.data)
    return [{"step": step, "values": values} for step, values in sorted(points.items())]


def _register_evaluation(job: Job) -> str:
    result, spec = _result(job), job.spec
    evaluation = evaluation_record(
        job_id=job.pk,
        version=ModelVersion.objects.get(pk=spec["version"]),
        dataset_version=DatasetVersion.objects.get(pk=spec["dataset_version"]),
        metrics=result["metrics"],
        baseline=result["baseline"],
        baseline_name=result["baseline_name"],
        details=result["details"],
        intervals=result.get("intervals"),
        slices=result.get("slices", ()),
        sample_size=result["sample_size"],
        decides_gates=spec.get("max_rows") is None,
        reference=result.get("reference", ()),
        started_at=job.started_at or job.created_at,
        created_by=job.created_by,
    )
    # The answers are kept with the evaluation; the job's own copy is dropped.
    result.pop("reference", None)
    job.result = {**result, "evaluation": evaluation.pk}
    return ""


def _register_index(job: Job) -> str:
    return index_register(job)


_REGISTER = {
    JobKind.INTAKE: _register_intake,
    JobKind.FINE_TUNE: _register_version,
    JobKind.EVALUATE: _register_evaluation,
    JobKind.PROMPT: _register_prompt,
    JobKind.INDEX: _register_index,
}


def intakes_settle() -> None:
    """Reject every intake whose job failed or was canceled, so that none waits forever.

    A `dead` job says nothing about the bytes: its intake can be checked again.
    """
    over = Job.objects.filter(kind=JobKind.INTAKE, state__in=(JobState.FAILED, JobState.CANCELED))
    waiting = Intake.objects.filter(
        state__in=(IntakeState.QUARANTINED, IntakeState.CHECKING),
        job_id__in=over.values("pk"),
    )
    for intake in waiting[:_BATCH]:
        job = Job.objects.get(pk=str(intake.job_id))
        reason = job.error or f"The job that checks it is {job.state}."
        intake_reject(intake_id=intake.pk, findings=[], reason=reason, job_id=job.pk)


def adaptation_card(
    *, job: Job, model: Model, base: ModelVersion, data: DatasetVersion, kind: str
) -> str:
    """Return a model card in Markdown, with the metrics of training's own validation split."""
    result = job.result or {}
    lines = [
        f"# {model.name}",
        "",
        model.description or "No description was given.",
        "",
        f"- Task: {model.task}",
        f"- Kind: {kind}, by method `{job.spec['method']}`",
        f"- Base: {base.model.name} v{base.number} (`{base.digest[:12]}`)",
        f"- License of the base: {base.license or 'not recorded'}",
        f"- Trained on: {data.dataset.name} v{data.number}, {data.rows} rows, "
        f"{data.dataset.classification}, license {data.dataset.license}",
        f"- Started by: person {job.created_by_id}",
        "",
        "## Measured on the validation split",
        "",
        *(f"- {name}: {value:.4g}" for name, value in sorted(result["metrics"].items())),
        "",
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in sorted(result["parameters"].items())),
    ]
    if notes := result.get("notes"):
        lines += ["", "## Notes", "", notes]
    return "\n".join(lines) + "\n"


def prompt_card(*, job: Job, model: Model, base: ModelVersion) -> str:
    """Return a model card in Markdown: the prompt's base, its variables, and its author's note."""
    result = job.result or {}
    document = result["parameters"]
    variables = [
        f"- `{each['name']}`: {each['description'] or 'no description'}"
        for each in document["variables"]
    ]
    lines = [
        f"# {model.name}",
        "",
        model.description or "No description was given.",
        "",
        f"- Task: {model.task}",
        "- Kind: prompt",
        f"- Base: {base.model.name} v{base.number} (`{base.digest[:12]}`)",
        f"- License of the base: {base.license or 'not recorded'}",
        f"- Examples: {len(document['examples'])}",
        f"- Written by: person {job.created_by_id}",
        "",
        "## Variables",
        "",
        *(variables or ["The prompt has no variables."]),
    ]
    if note := result.get("note"):
        lines += ["", "## Notes", "", note]
    return "\n".join(lines) + "\n"
