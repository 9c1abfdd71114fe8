"""Requests that a schedule repeats, in the shapes of the management API.

`dataset`, in the place of `dataset_version`, stands for the newest version of a dataset at the time
when the job is requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
from registry.versions.selectors import model_get, version_get
from workers.jobs.chains import LINKS_MAX, Step, chain_checked, fine_tune_then
from workers.jobs.models import Job, JobPriority
from workers.jobs.requests import evaluate_request, evaluation_spec, fine_tune_spec
from workers.schedules.models import ScheduleKind

REQUEST_BYTES_MAX = 32_768

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
Priority = Literal["low", "normal", "high"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Data(_Request):
    """A dataset version, or the newest one of a dataset."""

    dataset_version: Id | None = None
    dataset: Name | None = None

    @model_validator(mode="after")
    def _one(self) -> Data:
        if (self.dataset_version is None) == (self.dataset is None):
            raise ValueError("give either dataset_version or dataset")
        return self


class Measured(Data):
    """Data of an evaluation, or their first `max_rows` rows."""

    max_rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None


class Evaluation(Measured):
    """An evaluation of one version."""

    version: Id
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
    """A fine-tune, and what follows it."""

    model: Name
    base_version: Id
    method: Annotated[str, Field(max_length=40)]
    hyperparameters: dict[str, Any] = {}
    resources: dict[str, Any] | None = None
    priority: Priority = "normal"
    then: Annotated[list[Measured], Field(max_length=LINKS_MAX)] = []
    release: Release | None = None


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


def request_check(actor: Principal, request: Evaluation | FineTune) -> tuple[Department, str]:
    """Return the department of the jobs, and their title, if the actor may request them now.

    Raises:
        DomainError: as the request of the job itself.
    """
    if isinstance(request, Evaluation):
        version = version_get(actor=actor, id=request.version)
        data = _data(actor, request)
        evaluation_spec(
            actor=actor, version=version, dataset_version=data, max_rows=request.max_rows
        )
        department, title = version.model.department, f"Evaluate {version}"
    else:
        arguments = _fine_tune(actor, request)
        fine_tune_spec(actor=actor, **arguments)
        model = arguments["model"]
        chain_checked(actor, model, _steps(actor, request), _release(request))
        data = arguments["dataset_version"]
        department, title = model.department, f"Fine-tune {model.name}"
    title += f" on {data if request.dataset is None else f'the newest {request.dataset}'}"
    if request.priority == JobPriority.HIGH.word:
        authorize(
            actor=actor,
            action=Action.JOB_PRIORITIZE,
            resource=Resource(type="job", name=title, department=department.slug),
        )
    return department, title


def request_start(actor: Principal, request: Evaluation | FineTune) -> tuple[Job, DatasetVersion]:
    """Queue the job as the actor; return it, and the data that it uses.

    Raises:
        DomainError: as the request of the job itself.
    """
    priority = JobPriority.named(request.priority)
    if isinstance(request, Evaluation):
        data = _data(actor, request)
        job = evaluate_request(
            actor=actor,
            version=version_get(actor=actor, id=request.version),
            dataset_version=data,
            max_rows=request.max_rows,
            priority=priority,
        )
        return job, data
    arguments = _fine_tune(actor, request)
    job = fine_tune_then(
        actor=actor,
        then=_steps(actor, request),
        release=_release(request),
        priority=priority,
        **arguments,
    )
    return job, arguments["dataset_version"]


def _fine_tune(actor: Principal, request: FineTune) -> dict[str, Any]:
    return {
        "model": model_get(actor=actor, name=request.model),
        "base_version": version_get(actor=actor, id=request.base_version),
        "method": request.method,
        "dataset_version": _data(actor, request),
        "hyperparameters": request.hyperparameters,
        "resources": request.resources,
    }


def _steps(actor: Principal, request: FineTune) -> list[Step]:
    return [Step(_data(actor, step), step.max_rows) for step in request.then]


def _release(request: FineTune) -> dict[str, Any] | None:
    return None if request.release is None else request.release.model_dump(exclude_none=True)


def _data(actor: Principal, given: Data) -> DatasetVersion:
    if given.dataset_version is not None:
        return dataset_version_get(actor=actor, id=given.dataset_version)
    dataset = dataset_get(actor=actor, name=str(given.dataset))
    rows = dataset_versions_visible_to(actor).filter(dataset=dataset)
    newest = rows.order_by("-number").first()
    if newest is None:
        raise WrongState(f"The dataset {dataset.name} has no version yet.")
    return newest
