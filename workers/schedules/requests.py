"""Job requests that schedules repeat, and their times.

A name instead of a version means the newest version that the person may see when the job is
requested: `dataset` for `dataset_version`, `model` for the `version` of an evaluation, `base_model`
for the `base_version` of a fine-tune. Versions of models must be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, TITLE_MAX
from governance.errors import WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.schemas import Filter, Id, Line, Schema, instead_of, parsed
from registry.datasets.models import DatasetVersion
from registry.datasets.selectors import (
    dataset_get,
    dataset_version_get,
    dataset_versions_visible_to,
)
from registry.versions.models import ModelVersion, VersionState
from registry.versions.selectors import model_get, version_get, versions_visible_to
from workers.jobs.chains import LINKS_MAX, Step, chain_checked, fine_tune_then
from workers.jobs.models import Job, JobPriority
from workers.jobs.requests import evaluate_request, evaluation_spec, fine_tune_spec
from workers.jobs.schemas import (
    ChainRelease,
    JobResources,
    Method,
    Name,
    Object,
    Priority,
    RowCount,
)
from workers.jobs.training import BASE_KINDS
from workers.schedules.models import (
    CRON_MAX,
    ZONE_MAX,
    Schedule,
    ScheduleKind,
    ScheduleState,
)


def _newest_model(field: str) -> Any:
    return Field(
        default=None,
        description=f"In place of `{field}`: the newest trusted version of this model at each run.",
        validate_default=True,
    )


class DataChoice(Schema):
    """A dataset version, or the newest one of a dataset."""

    dataset_version: Id | None = None
    dataset: Annotated[Name | None, instead_of("dataset_version")] = Field(
        default=None,
        description="In place of `dataset_version`: the newest version of this dataset at each "
        "run.",
        validate_default=True,
    )


class MeasuredData(DataChoice):
    """Data of an evaluation; optionally only the first `max_rows` rows."""

    max_rows: RowCount | None = None


class ScheduledEvaluation(MeasuredData):
    """An evaluation of one version, or of the newest trusted one of a model."""

    version: Id | None = None
    model: Annotated[Name | None, instead_of("version")] = _newest_model("version")
    priority: Priority = "normal"


class ScheduledFineTune(DataChoice):
    """A fine-tune from a version, or the newest suitable one of a model, and the steps after it."""

    model: Name
    base_version: Id | None = None
    base_model: Annotated[Name | None, instead_of("base_version")] = _newest_model("base_version")
    method: Method
    hyperparameters: Object = Field(default={})
    resources: JobResources | None = None
    priority: Priority = "normal"
    then: list[MeasuredData] = Field(default=[], max_length=LINKS_MAX)
    release: ChainRelease | None = None


class NewSchedule(Schema):
    """The times and the request, which is either `evaluation` or `fine_tune`."""

    name: Line = Field(max_length=TITLE_MAX)
    cron: Line = Field(
        max_length=CRON_MAX, description="Minute, hour, day, month, weekday: `0 2 * * *`."
    )
    time_zone: Line = Field(default="UTC", max_length=ZONE_MAX)
    run_unchanged: bool = Field(
        default=False,
        description="Run even when the newest versions are those of the last job. Otherwise such a "
        "time is skipped.",
    )
    evaluation: ScheduledEvaluation | None = None
    fine_tune: Annotated[ScheduledFineTune | None, instead_of("evaluation")] = Field(
        default=None, validate_default=True
    )

    @property
    def kind(self) -> ScheduleKind:
        return ScheduleKind.FINE_TUNE if self.fine_tune else ScheduleKind.EVALUATE

    @property
    def request(self) -> ScheduledEvaluation | ScheduledFineTune:
        # `instead_of` ensures that one of both is set.
        return self.fine_tune or cast("ScheduledEvaluation", self.evaluation)


class ScheduleFilter(Filter):
    """Filters of the list of schedules."""

    state: ScheduleState | None = None
    department: Line | None = Field(
        default=None, max_length=DEPARTMENT_MAX, serialization_alias="department__slug"
    )


@dataclass(frozen=True, slots=True)
class Resolved:
    """Versions that a request currently means: one to evaluate or to start from, and the data."""

    version: ModelVersion
    data: DatasetVersion


def stored_request(schedule: Schedule) -> ScheduledEvaluation | ScheduledFineTune:
    """Return the request of a schedule, without looking up its versions.

    Raises:
        InvalidInput: the stored request no longer fits the schema.
    """
    if schedule.kind == ScheduleKind.EVALUATE:
        return parsed(ScheduledEvaluation, schedule.request)
    return parsed(ScheduledFineTune, schedule.request)


def request_resolve(actor: Principal, request: ScheduledEvaluation | ScheduledFineTune) -> Resolved:
    """Return the versions that the request currently means, among those that the actor may see.

    Raises:
        NotFound: a version does not exist, or the actor may not see it.
        WrongState: a dataset has no version, or a model has no trusted version of the needed kind.
    """
    if isinstance(request, ScheduledEvaluation):
        version = _version(actor, request.version, request.model)
    else:
        version = _version(actor, request.base_version, request.base_model, BASE_KINDS)
    return Resolved(version, _data(actor, request))


def names_newest(schedule: Schedule) -> bool:
    """Return whether the request of the schedule refers to a newest version.

    Of a fine-tune, only base and data count. Evaluations that follow it do not: with new evaluation
    data, the fine-tune would make the same version again.
    """
    model = "base_model" if schedule.kind == ScheduleKind.FINE_TUNE else "model"
    return not schedule.request.keys().isdisjoint({model, "dataset"})


def request_check(
    actor: Principal, request: ScheduledEvaluation | ScheduledFineTune
) -> tuple[Department, str, dict[str, Any]]:
    """Check that the actor may request the job now; return department, title and spec of the job.

    Raises:
        DomainError: the request of the job is refused.
    """
    resolved = request_resolve(actor, request)
    if isinstance(request, ScheduledEvaluation):
        spec = evaluation_spec(
            actor=actor,
            version=resolved.version,
            dataset_version=resolved.data,
            max_rows=request.max_rows,
        )
        department = resolved.version.model.department
        title = f"Evaluate {_newest(request.model) or resolved.version}"
    else:
        model = model_get(actor=actor, name=request.model)
        spec = fine_tune_spec(actor=actor, model=model, **_fine_tune(request, resolved))
        chain_checked(actor, model, _steps(actor, request), _release(request))
        department = model.department
        base = _newest(request.base_model)
        title = f"Fine-tune {model.name}{f' from {base}' if base else ''}"
    title += f" on {_newest(request.dataset) or resolved.data}"
    if request.priority == JobPriority.HIGH.word:
        authorize(
            actor=actor,
            action=Action.JOB_PRIORITIZE,
            resource=Resource(type="job", name=title, department=department.slug),
        )
    return department, title, spec


def request_start(
    actor: Principal, request: ScheduledEvaluation | ScheduledFineTune, resolved: Resolved
) -> Job:
    """Queue the job as the actor, with the resolved versions of the request.

    Raises:
        DomainError: the request of the job is refused.
    """
    priority = JobPriority.named(request.priority)
    if isinstance(request, ScheduledEvaluation):
        return evaluate_request(
            actor=actor,
            version=resolved.version,
            dataset_version=resolved.data,
            max_rows=request.max_rows,
            priority=priority,
        )
    return fine_tune_then(
        actor=actor,
        model=model_get(actor=actor, name=request.model),
        then=_steps(actor, request),
        release=_release(request),
        priority=priority,
        **_fine_tune(request, resolved),
    )


def _fine_tune(request: ScheduledFineTune, resolved: Resolved) -> dict[str, Any]:
    return {
        "base_version": resolved.version,
        "method": request.method,
        "dataset_version": resolved.data,
        "hyperparameters": request.hyperparameters,
        "resources": request.resources and request.resources.model_dump(),
    }


def _steps(actor: Principal, request: ScheduledFineTune) -> list[Step]:
    return [Step(_data(actor, step), step.max_rows) for step in request.then]


def _release(request: ScheduledFineTune) -> dict[str, Any] | None:
    return None if request.release is None else request.release.model_dump(exclude_none=True)


def _newest(name: str | None) -> str:
    return f"the newest {name}" if name else ""


def _version(
    actor: Principal, key: int | None, name: str | None, kinds: Sequence[str] = ()
) -> ModelVersion:
    if key is not None:
        return version_get(actor=actor, id=key)
    model = model_get(actor=actor, name=str(name))
    rows = versions_visible_to(actor).filter(model=model, state=VersionState.TRUSTED)
    newest = (rows.filter(kind__in=kinds) if kinds else rows).order_by("-number").first()
    if newest is None:
        kind = " that a fine-tune can start from" if kinds else ""
        raise WrongState(f"The model {model.name} has no trusted version{kind}.")
    return newest


def _data(actor: Principal, choice: DataChoice) -> DatasetVersion:
    if choice.dataset_version is not None:
        return dataset_version_get(actor=actor, id=choice.dataset_version)
    dataset = dataset_get(actor=actor, name=str(choice.dataset))
    rows = dataset_versions_visible_to(actor).filter(dataset=dataset)
    newest = rows.order_by("-number").first()
    if newest is None:
        raise WrongState(f"The dataset {dataset.name} has no version yet.")
    return newest
