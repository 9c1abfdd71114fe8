"""Requests that a schedule repeats, in the shapes of the management API.

A name in the place of a version stands for the newest version at the time when the job is
requested, of those that the person may see: `dataset` for `dataset_version`, `model` for the
`version` of an evaluation, `base_model` for the `base_version` of a fine-tune. Versions of models
must be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.errors import InvalidInput, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from registry.canonical import canonical_json
from registry.datasets.models import DatasetVersion
from registry.datasets.parsing import MAX_ROWS
from registry.datasets.selectors import (
    dataset_get,
    dataset_version_get,
    dataset_versions_visible_to,
)
from registry.releases.drafts.content import DEPARTMENTS_MAX
from registry.validation import schema_faults
from registry.versions.models import ModelVersion, VersionState
from registry.versions.selectors import model_get, version_get, versions_visible_to
from workers.jobs.chains import LINKS_MAX, Step, chain_checked, fine_tune_then
from workers.jobs.models import Job, JobPriority
from workers.jobs.requests import evaluate_request, evaluation_spec, fine_tune_spec
from workers.jobs.training import BASE_KINDS
from workers.schedules.models import Schedule, ScheduleKind

REQUEST_BYTES_MAX = 32_768

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
Priority = Literal["low", "normal", "high"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _in_place_of(first: str) -> AfterValidator:
    """Return the check of a field that is given exactly when the field `first` is not."""

    def check(value: str | None, info: ValidationInfo) -> str | None:
        if first in info.data and (info.data[first] is None) == (value is None):
            raise ValueError(f"give either {first} or {info.field_name}")
        return value

    return AfterValidator(check)


class Data(_Request):
    """A dataset version, or the newest one of a dataset."""

    dataset_version: Id | None = None
    dataset: Annotated[
        Name | None, _in_place_of("dataset_version"), Field(validate_default=True)
    ] = None


class Measured(Data):
    """Data of an evaluation, or their first `max_rows` rows."""

    max_rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None


class Evaluation(Measured):
    """An evaluation of one version, or of the newest trusted one of a model."""

    version: Id | None = None
    model: Annotated[Name | None, _in_place_of("version"), Field(validate_default=True)] = None
    priority: Priority = "normal"


class Release(_Request):
    """The release draft at the end of a fine-tune's chain."""

    environment: Literal["staging", "production"]
    departments: (
        Annotated[
            list[Annotated[str, Field(max_length=DEPARTMENT_MAX)]],
            Field(max_length=DEPARTMENTS_MAX),
        ]
        | None
    ) = None
    deployment_name: Name | None = None


class FineTune(Data):
    """A fine-tune from a version, or from the newest of a model that one can start from; and what
    follows it."""

    model: Name
    base_version: Id | None = None
    base_model: Annotated[
        Name | None, _in_place_of("base_version"), Field(validate_default=True)
    ] = None
    method: Annotated[str, Field(max_length=40)]
    hyperparameters: dict[str, Any] = {}
    resources: dict[str, Any] | None = None
    priority: Priority = "normal"
    then: Annotated[list[Measured], Field(max_length=LINKS_MAX)] = []
    release: Release | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Versions that a request stands for now: one to evaluate or to start from, and the data."""

    version: ModelVersion
    data: DatasetVersion


def parsed(kind: str, request: Mapping[str, Any]) -> Evaluation | FineTune:
    """Return the request, whose rows are not looked up.

    Raises:
        InvalidInput: a part is missing, unknown, malformed or too large; `fields` says which.
    """
    if kind not in ScheduleKind.values:
        sentence = f"A schedule starts one of {', '.join(ScheduleKind.values)}."
        raise InvalidInput(sentence, fields={"kind": [sentence]})
    shape = Evaluation if kind == ScheduleKind.EVALUATE else FineTune
    try:
        found = shape.model_validate(dict(request))
        size = len(canonical_json(found.model_dump(mode="json")))
    except ValidationError as error:
        said = schema_faults(error, whole="dataset_version")
        faults = {f"request.{name}": sentences for name, sentences in said.items()}
        first, (why, *_) = next(iter(faults.items()))
        raise InvalidInput(f"The request does not fit. {first}: {why}", fields=faults) from error
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidInput(
            "The request cannot be stored as JSON.", fields={"request": ["Not JSON."]}
        ) from error
    if size > REQUEST_BYTES_MAX:
        sentence = f"The request takes more than {REQUEST_BYTES_MAX:,} bytes."
        raise InvalidInput(sentence, fields={"request": [sentence]})
    return found


def request_resolve(actor: Principal, request: Evaluation | FineTune) -> Resolved:
    """Return the versions that the request stands for, of those that the actor may see.

    Raises:
        NotFound: one does not exist, or the actor may not see it.
        WrongState: a dataset has no version, or a model no trusted one of the needed kind.
    """
    if isinstance(request, Evaluation):
        version = _version(actor, request.version, request.model)
    else:
        version = _version(actor, request.base_version, request.base_model, BASE_KINDS)
    return Resolved(version, _data(actor, request))


def names_newest(schedule: Schedule) -> bool:
    """Return whether the request of the schedule names a newest version.

    For a fine-tune its base and its data count. Evaluations that follow it do not: on other data,
    it would make the same version again.
    """
    model = "base_model" if schedule.kind == ScheduleKind.FINE_TUNE else "model"
    return not schedule.request.keys().isdisjoint({model, "dataset"})


def request_check(
    actor: Principal, request: Evaluation | FineTune
) -> tuple[Department, str, dict[str, Any]]:
    """Return the department of the jobs, their title, and the specification of one that starts now,
    if the actor may request it.

    Raises:
        DomainError: as the request of the job itself.
    """
    found = request_resolve(actor, request)
    if isinstance(request, Evaluation):
        spec = evaluation_spec(
            actor=actor,
            version=found.version,
            dataset_version=found.data,
            max_rows=request.max_rows,
        )
        department = found.version.model.department
        title = f"Evaluate {_newest(request.model) or found.version}"
    else:
        model = model_get(actor=actor, name=request.model)
        spec = fine_tune_spec(actor=actor, model=model, **_fine_tune(request, found))
        chain_checked(actor, model, _steps(actor, request), _release(request))
        department = model.department
        base = _newest(request.base_model)
        title = f"Fine-tune {model.name}{f' from {base}' if base else ''}"
    title += f" on {_newest(request.dataset) or found.data}"
    if request.priority == JobPriority.HIGH.word:
        authorize(
            actor=actor,
            action=Action.JOB_PRIORITIZE,
            resource=Resource(type="job", name=title, department=department.slug),
        )
    return department, title, spec


def request_start(actor: Principal, request: Evaluation | FineTune, found: Resolved) -> Job:
    """Queue the job as the actor, with the versions that the request was resolved to.

    Raises:
        DomainError: as the request of the job itself.
    """
    priority = JobPriority.named(request.priority)
    if isinstance(request, Evaluation):
        return evaluate_request(
            actor=actor,
            version=found.version,
            dataset_version=found.data,
            max_rows=request.max_rows,
            priority=priority,
        )
    return fine_tune_then(
        actor=actor,
        model=model_get(actor=actor, name=request.model),
        then=_steps(actor, request),
        release=_release(request),
        priority=priority,
        **_fine_tune(request, found),
    )


def _fine_tune(request: FineTune, found: Resolved) -> dict[str, Any]:
    return {
        "base_version": found.version,
        "method": request.method,
        "dataset_version": found.data,
        "hyperparameters": request.hyperparameters,
        "resources": request.resources,
    }


def _steps(actor: Principal, request: FineTune) -> list[Step]:
    return [Step(_data(actor, step), step.max_rows) for step in request.then]


def _release(request: FineTune) -> dict[str, Any] | None:
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


def _data(actor: Principal, given: Data) -> DatasetVersion:
    if given.dataset_version is not None:
        return dataset_version_get(actor=actor, id=given.dataset_version)
    dataset = dataset_get(actor=actor, name=str(given.dataset))
    rows = dataset_versions_visible_to(actor).filter(dataset=dataset)
    newest = rows.order_by("-number").first()
    if newest is None:
        raise WrongState(f"The dataset {dataset.name} has no version yet.")
    return newest
