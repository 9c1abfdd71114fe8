"""Check job requests against the catalog, authorize them, and queue them in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.db import transaction
from pydantic import ValidationError

from governance.errors import InvalidInput, NotFound, WrongState
from governance.faults import field_sentences
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from registry.catalog import get_row_kind, get_task
from registry.catalog.declaration import Recipe, Task
from registry.catalog.hosted import HOSTED_FILE, HostedDescription
from registry.datasets.models import Classification, DatasetVersion
from registry.datasets.selectors import datasets_visible_to
from registry.evaluations.models import Gate
from registry.intake.models import SOURCE_MAX, Intake, IntakeState
from registry.intake.services import intake_submit
from registry.intake.states import INTAKE_STATES
from registry.resources import department_resource
from registry.uploads.models import UploadKind
from registry.uploads.services import uploads_use
from registry.versions.hosted import (
    check_cleared,
    check_hosted_evaluation,
    check_hosted_task,
    check_provider_runs,
    hosted_of,
)
from registry.versions.models import LICENSE_MAX, Model, ModelVersion, VersionKind, VersionState
from registry.versions.selectors import training_data, versions_visible_to
from registry.versions.weights import WeightsFormat, weights_format
from workers.jobs.hosted import provider_spec
from workers.jobs.models import Job, JobKind, JobPriority
from workers.jobs.resources import resources_checked
from workers.jobs.services import job_add, job_create
from workers.jobs.training import BASE_KINDS, adapter_recipe, base_tasks


@transaction.atomic
def intake_request(
    *,
    actor: Principal,
    model: Model,
    source: str,
    license: str,
    files: Sequence[Any] = (),
    uploads: Sequence[UUID] = (),
    keep_gguf: bool = False,
    base_version: ModelVersion | None = None,
    expected_digest: str = "",
) -> tuple[Intake, Job | None]:
    """Take files into quarantine and queue their checks.

    `uploads` are the actor's complete uploads, which replace `files`. `keep_gguf` keeps a GGUF
    unconverted, for llama.cpp. With `base_version` the files are an adapter. Only files with
    `expected_digest` become a version.

    Returns:
        The intake and its job; None for the job if the files were rejected at once.

    Raises:
        InvalidInput: the model's task is unavailable, or does not accept such a delivery.
        NotFound, WrongState: the base is not visible to the actor, or is recalled.
        DomainError: see `intake_submit` and `uploads_use`.
    """
    task = get_task(model.task)
    if keep_gguf and not task.streams_text:
        raise InvalidInput(
            f"{task.title} is not served from a GGUF.",
            fields={"keep_gguf": ["Only for tasks that generate text."]},
        )
    if base_version is not None:
        _check_adapter_base(actor, model, task, base_version)
    if uploads:
        files = uploads_use(
            actor=actor, kind=UploadKind.INTAKE, department=model.department, upload_ids=uploads
        )
    intake = intake_submit(
        actor=actor,
        model=model,
        source=source,
        license=license,
        files=files,
        keep_gguf=keep_gguf,
        base=base_version,
        expected_digest=expected_digest,
    )
    if intake.state == IntakeState.REJECTED:
        return intake, None
    resource = department_resource("intake", model.department)
    job = job_add(
        actor=actor,
        kind=JobKind.INTAKE,
        department=model.department,
        title=f"Check and convert {model.name}",
        spec={"intake": intake.pk, "model": model.pk, "task": model.task},
        decision=authorize(actor=actor, action=Action.INTAKE_CREATE, resource=resource),
    )
    intake.job_id = job.pk
    INTAKE_STATES.set_state(intake, IntakeState.CHECKING)
    intake.save(update_fields=["job_id", "state"])
    return intake, job


@transaction.atomic
def hosted_request(
    *,
    actor: Principal,
    model: Model,
    description: Mapping[str, Any],
    expected_digest: str = "",
) -> tuple[Intake, Job | None]:
    """Take the description of a hosted model into quarantine and queue its checks.

    Its source is the provider, and its license the provider's terms. Only a description with
    `expected_digest` becomes a version.

    Returns:
        The intake and its job; None for the job if the description was rejected at once.

    Raises:
        InvalidInput: the description is invalid, or the provider has ended the model; `fields` says
            where. Or the described operation cannot serve the model's task.
        DomainError: see `intake_submit`.
    """
    # First, so that a refusal reveals nothing about the model.
    resource = department_resource("intake", model.department)
    authorize(actor=actor, action=Action.INTAKE_CREATE, resource=resource)
    described = HostedDescription.read(description)
    described.check_runs()
    check_hosted_task(get_task(model.task), described)
    return intake_request(
        actor=actor,
        model=model,
        source=f"{described.provider}, {described.host}"[:SOURCE_MAX],
        license=described.terms.title[:LICENSE_MAX],
        files=[ContentFile(described.canonical(), name=HOSTED_FILE)],
        expected_digest=expected_digest,
    )


@transaction.atomic
def fine_tune_request(
    *,
    actor: Principal,
    model: Model,
    base_version: ModelVersion,
    method: str,
    dataset_version: DatasetVersion,
    hyperparameters: Mapping[str, Any] | None,
    resources: Mapping[str, Any] | None = None,
    priority: JobPriority = JobPriority.NORMAL,
    measured: Sequence[DatasetVersion] = (),
) -> Job:
    """Queue a fine-tune of `base_version` on `dataset_version`, for the next version of `model`.

    `measured` are the datasets that the new version will be evaluated on.

    Raises:
        InvalidInput: method, settings, base or data do not fit the task, a gate tests the model on
            the data, or no machine has the `resources`; `fields` says where.
        NotFound: base or data are not visible to the actor.
        WrongState: the base is recalled.
        NotPermitted: the actor may not start jobs of the department, or not with this priority.
    """
    spec = fine_tune_spec(
        actor=actor,
        model=model,
        base_version=base_version,
        method=method,
        dataset_version=dataset_version,
        hyperparameters=hyperparameters,
        resources=resources,
    )
    learned = [dataset_version, *training_data(base_version)]
    spec |= warned(measured, learned, "the new version")
    return job_create(
        actor=actor,
        kind=JobKind.FINE_TUNE,
        department=model.department,
        title=f"Fine-tune {model.name} on {dataset_version}",
        priority=priority,
        spec=spec,
    )


def fine_tune_spec(
    *,
    actor: Principal,
    model: Model,
    base_version: ModelVersion,
    method: str,
    dataset_version: DatasetVersion,
    hyperparameters: Mapping[str, Any] | None,
    resources: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the spec of a fine-tune without queueing a job.

    Raises:
        DomainError: see `fine_tune_request`.
    """
    _authorize_in(actor, model, f"Fine-tune {model.name}")
    task = get_task(model.task)
    recipe = _recipe(task, method)
    _check_base(actor, model, base_version, recipe)
    check_data(actor, model, dataset_version, recipe.row_kind)
    _refuse_test_data(model, dataset_version)
    settings = _validated(task, recipe, hyperparameters or {})
    machines = resources_checked(recipe, resources)
    return {
        "task": task.name,
        "method": method,
        "model": model.pk,
        "model_name": model.name,
        "base": base_version.pk,
        "base_name": str(base_version),
        "base_digest": base_version.digest,
        "dataset_version": dataset_version.pk,
        "dataset_name": str(dataset_version),
        "dataset_digest": dataset_version.digest,
        "hyperparameters": settings,
        **({"resources": machines} if machines else {}),
    }


@transaction.atomic
def evaluate_request(
    *,
    actor: Principal,
    version: ModelVersion,
    dataset_version: DatasetVersion,
    max_rows: int | None = None,
    priority: JobPriority = JobPriority.NORMAL,
) -> Job:
    """Queue an evaluation of `version` on `dataset_version`, or on its first `max_rows` rows.

    An evaluation on some of the rows decides no gates: its author could choose rows that pass.

    Raises:
        InvalidInput: the task has no evaluation, the data do not fit, or `max_rows` is below 1. For
            a hosted version also: its provider's answers cannot be measured for the task, the data
            may not be sent to it, or are too many for one evaluation.
        NotFound: version or data are not visible to the actor.
        ManifestMismatch: the description of a hosted version does not have its digest.
        QuotaExceeded: a budget has no room for what a provider may charge.
        WrongState: the version is recalled, its provider has ended it, or the task's judge is
            missing.
        NotPermitted: the actor may not start jobs of the department, or not with this priority.
    """
    spec = evaluation_spec(
        actor=actor, version=version, dataset_version=dataset_version, max_rows=max_rows
    )
    return job_create(
        actor=actor,
        kind=JobKind.EVALUATE,
        department=version.model.department,
        title=f"Evaluate {version} on {dataset_version}",
        priority=priority,
        spec=spec,
    )


def evaluation_spec(
    *,
    actor: Principal,
    version: ModelVersion,
    dataset_version: DatasetVersion,
    max_rows: int | None = None,
) -> dict[str, Any]:
    """Return the spec of an evaluation without queueing a job.

    Raises:
        DomainError: see `evaluate_request`.
    """
    model = version.model
    if not versions_visible_to(actor).filter(pk=version.pk).exists():
        raise NotFound(f"There is no version {version.pk} that you may see.")
    _authorize_in(actor, model, f"Evaluate {version}")
    task = get_task(model.task)
    if task.evaluation is None:
        raise _invalid("version", f"{version} is of task {task.name}, which is not evaluated.")
    if version.state != VersionState.TRUSTED:
        raise WrongState(f"{version} is {version.state}; it cannot be evaluated.")
    description = hosted_of(version)
    if description is not None:
        check_hosted_evaluation(task)
        check_provider_runs(description)
    check_data(actor, model, dataset_version)
    if max_rows is not None and max_rows < 1:
        raise _invalid("max_rows", "An evaluation needs at least one row.")
    part = None if max_rows is None or max_rows >= dataset_version.rows else max_rows
    at_provider = {}
    if description is not None:
        check_cleared(description, dataset_version)
        at_provider = provider_spec(task, version, description, dataset_version, max_rows=part)
    return {
        "task": task.name,
        "version": version.pk,
        "version_name": str(version),
        "version_digest": version.digest,
        "dataset_version": dataset_version.pk,
        "dataset_name": str(dataset_version),
        "dataset_digest": dataset_version.digest,
        "max_rows": part,
        **at_provider,
        **_judge(actor, task),
        **warned([dataset_version], training_data(version), str(version)),
    }


def warned(
    measured: Sequence[DatasetVersion], learned: Sequence[DatasetVersion], version: str
) -> dict[str, list[str]]:
    """Return a spec's `warnings` on evaluation data that were `learned`; empty without any."""
    digests = {each.digest for each in learned}
    sentences = [
        f"{each} is training data of {version} or of its base. A result on it says "
        "nothing about new data."
        for each in measured
        if each.digest in digests
    ]
    return {"warnings": sentences} if sentences else {}


def _judge(actor: Principal, task: Task) -> dict[str, Any]:
    """Return the spec's fields on the judge of the answers; empty if the task declares no judge.

    The judge is the newest trusted version of its task that the actor sees and needs no base.

    Raises:
        WrongState: no version can be the judge.
    """
    if task.evaluation is None or not task.evaluation.judge:
        return {}
    judge = (
        versions_visible_to(actor)
        .filter(model__task=task.evaluation.judge, state=VersionState.TRUSTED, kind__in=BASE_KINDS)
        .select_related("model")
        .order_by("-pk")
        .first()
    )
    if judge is None:
        raise WrongState(
            f"{task.title} is judged by a model of the task {task.evaluation.judge}, and you "
            "may see none. Deliver one first."
        )
    return {
        "judge": judge.pk,
        "judge_name": str(judge),
        "judge_digest": judge.digest,
        "judge_task": judge.model.task,
    }


def _authorize_in(actor: Principal, model: Model, title: str) -> None:
    # First, so that a refusal reveals nothing about base and data.
    authorize(
        actor=actor,
        action=Action.JOB_CREATE,
        resource=Resource(type="job", name=title, department=model.department.slug),
    )


def _recipe(task: Task, method: str) -> Recipe:
    try:
        return task.recipe(method)
    except KeyError:
        methods = ", ".join(recipe.method for recipe in task.recipes) or "none"
        raise _invalid(
            "method", f"{task.title} has no method {method!r}; it has: {methods}."
        ) from None


def _check_adapter_base(
    actor: Principal, model: Model, task: Task, base_version: ModelVersion
) -> None:
    recipe = adapter_recipe(task)
    if recipe is None:
        raise _invalid("base_version", f"{task.title} has no adapters.")
    _check_base(actor, model, base_version, recipe)


def _check_base(actor: Principal, model: Model, base: ModelVersion, recipe: Recipe) -> None:
    if not versions_visible_to(actor).filter(pk=base.pk).exists():
        raise NotFound(f"There is no version {base.pk} that you may see.")
    if base.state != VersionState.TRUSTED:
        raise WrongState(f"{base} is {base.state}; it cannot be adapted.")
    if base.model.task not in base_tasks(model.task, recipe):
        raise _invalid(
            "base_version", f"{base} is of task {base.model.task}; {model.name} does {model.task}."
        )
    if base.kind == VersionKind.HOSTED:
        raise _invalid(
            "base_version",
            f"{base} is run by a provider, who keeps its weights; it cannot be fine-tuned here. "
            "Choose a version whose weights Assay holds, or write a prompt on this one.",
        )
    if base.kind not in BASE_KINDS:
        raise _invalid("base_version", f"{base} is of kind {base.kind}; adapt its base instead.")
    if weights_format(base) is WeightsFormat.GGUF:
        raise _invalid(
            "base_version",
            f"{base} is an unconverted GGUF; to fine-tune it, deliver it again with conversion.",
        )


def check_data(actor: Principal, model: Model, data: DatasetVersion, row_kind: str = "") -> None:
    """Check that the actor may use the data for the model, and that its rows are of `row_kind`.

    Raises:
        InvalidInput: the data do not fit the model's task, or are restricted for a shared model.
        NotFound: the data are not visible to the actor.
    """
    dataset = data.dataset
    if not datasets_visible_to(actor).filter(pk=dataset.pk).exists():
        raise NotFound(f"There is no dataset version {data.pk} that you may see.")
    if dataset.task != model.task:
        raise _invalid(
            "dataset", f"{data} is data for {dataset.task}; {model.name} does {model.task}."
        )
    if dataset.row_kind != row_kind:
        title = get_row_kind(dataset.task, dataset.row_kind).title
        needed = get_row_kind(dataset.task, row_kind).title
        raise _invalid("dataset", f"{data} holds rows of {title}; rows of {needed} are needed.")
    if dataset.classification == Classification.RESTRICTED and model.shared:
        raise _invalid(
            "dataset",
            f"{data} is restricted; {model.name} is shared with every department, "
            "so it may not be used for it.",
        )


def _refuse_test_data(model: Model, data: DatasetVersion) -> None:
    if Gate.objects.filter(model=model, dataset=data.dataset).exists():
        raise _invalid(
            "dataset",
            f"{model.name} is tested on {data.dataset.name}, by its gates; a model that has "
            "learned its test data passes any gate. Choose other data.",
        )


def _validated(task: Task, recipe: Recipe, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return recipe.hyperparameters.model_validate(dict(hyperparameters)).model_dump(mode="json")
    except ValidationError as error:
        faults = field_sentences(error, whole="hyperparameters")
        raise InvalidInput(
            f"The hyper-parameters do not fit {task.title}: {', '.join(faults)}.",
            hint=f"It takes {', '.join(sorted(recipe.hyperparameters.model_fields))}.",
            fields={f"hyperparameters.{name}": sentences for name, sentences in faults.items()},
        ) from error


def _invalid(field: str, sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={field: [sentence]})
