"""Client of an installation: lists, objects, uploads and jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import httpx

from ..api.datasets import dataset_versions_get, datasets_get, datasets_post
from ..api.evaluations import (
    evaluation_get,
    evaluations_get,
    evaluations_post,
    gates_get,
    gates_post,
)
from ..api.jobs import fine_tunes_post, job_get, jobs_get
from ..api.models import model_versions_get, models_get, models_post
from ..api.releases import release_get, releases_get
from ..api.usage import usage_days_get, usage_get
from ..client import AuthenticatedClient
from ..models import (
    DatasetAnswer,
    DatasetVersionAnswer,
    EvaluationAnswer,
    EvaluationSummary,
    GateAnswer,
    JobAnswer,
    ModelAnswer,
    NewDatasetRequest,
    NewEvaluationRequest,
    NewFineTuneRequest,
    NewGateRequest,
    NewModelRequest,
    Problem,
    ReleaseAnswer,
    ReleaseDetail,
    UsageAnswer,
    UsageDayAnswer,
    VersionAnswer,
)
from ..types import UNSET
from .errors import RequestRefused
from .jobs import Job
from .rows import Rows, pandas_module

if TYPE_CHECKING:
    from pandas import DataFrame

PAGE_SIZE = 100


class Assay:
    """Client of an installation, with the access of one token.

    `server` and `token` default to the environment variables `ASSAY_SERVER` and `ASSAY_TOKEN`;
    `options` go to `AuthenticatedClient`.
    """

    def __init__(self, server: str | None = None, token: str | None = None, **options: Any) -> None:
        server = server or os.environ.get("ASSAY_SERVER")
        token = token or os.environ.get("ASSAY_TOKEN")
        if not server or not token:
            raise ValueError("Pass server and token, or set ASSAY_SERVER and ASSAY_TOKEN.")
        options = {"timeout": httpx.Timeout(60), **options}
        self.client = AuthenticatedClient(server.rstrip("/"), token=token, **options)

    def call(self, operation: ModuleType, /, **arguments: Any) -> Any:
        """Call an operation, a module such as `assay_client.api.jobs.job_get`; return its answer.

        Raises:
            RequestRefused: the server refused the request.
        """
        present = {
            name: _enumerated(operation, name, value)
            for name, value in arguments.items()
            if value is not None
        }
        answer = operation.sync(client=self.client, **present)
        if isinstance(answer, Problem):
            raise RequestRefused(answer)
        return answer

    def all(
        self, operation: ModuleType, /, *, limit: int | None = 1000, **filters: Any
    ) -> Rows[Any]:
        """Return the first `limit` objects of a list, or all if `limit` is None."""
        rows: Rows[Any] = Rows()
        cursor: Any = UNSET
        while limit is None or len(rows) < limit:
            size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(rows))
            page = self.call(operation, cursor=cursor, page_size=size, **filters)
            rows += page.results
            if not page.next_:
                break
            (cursor,) = parse_qs(urlsplit(page.next_).query)["cursor"]
        return rows

    def models(self, *, limit: int | None = 1000, **filters: Any) -> Rows[ModelAnswer]:
        """Return the models; filter by `department` or `task`."""
        return self.all(models_get, limit=limit, **filters)

    def versions(self, model: str, *, limit: int | None = 1000) -> Rows[VersionAnswer]:
        """Return the versions of a model, the latest first."""
        return self.all(model_versions_get, limit=limit, name=model)

    def datasets(self, *, limit: int | None = 1000, **filters: Any) -> Rows[DatasetAnswer]:
        """Return the datasets."""
        return self.all(datasets_get, limit=limit, **filters)

    def dataset_versions(
        self, dataset: str, *, limit: int | None = 1000
    ) -> Rows[DatasetVersionAnswer]:
        """Return the versions of a dataset, the latest first."""
        return self.all(dataset_versions_get, limit=limit, name=dataset)

    def gates(self, *, limit: int | None = 1000, **filters: Any) -> Rows[GateAnswer]:
        """Return the gates; filter by `model`."""
        return self.all(gates_get, limit=limit, **filters)

    def jobs(self, *, limit: int | None = 100, **filters: Any) -> Rows[JobAnswer]:
        """Return the jobs, the latest first; filter by `department`, `kind` or `state`."""
        return self.all(jobs_get, limit=limit, **filters)

    def job(self, job_id: UUID | str) -> Job:
        """Return one job."""
        return Job(self, self.call(job_get, job_id=job_id))

    def evaluations(self, *, limit: int | None = 1000, **filters: Any) -> Rows[EvaluationSummary]:
        """Return the evaluations, the latest first; filter by `model` or `version`."""
        return self.all(evaluations_get, limit=limit, **filters)

    def evaluation(self, evaluation_id: int) -> EvaluationAnswer:
        """Return one evaluation with its details."""
        answer: EvaluationAnswer = self.call(evaluation_get, evaluation_id=evaluation_id)
        return answer

    def metrics(self, evaluation_id: int) -> DataFrame:
        """Return a data frame of an evaluation's metrics: the value, the ends of its 95% interval,
        the baseline's value, and the threshold of the gate with its result."""
        evaluation = self.evaluation(evaluation_id)
        intervals = evaluation.intervals.get("metrics", {})
        gates = {gate.metric: gate for gate in evaluation.gates}
        rows = [
            {
                "metric": name,
                "value": value,
                "low": intervals.get(name, {}).get("low"),
                "high": intervals.get(name, {}).get("high"),
                "baseline": evaluation.baseline.get(name),
                "gate": f"{gates[name].comparator} {gates[name].threshold}"
                if name in gates
                else None,
                "passed": gates[name].passed if name in gates else None,
            }
            for name, value in evaluation.metrics.items()
        ]
        frame: DataFrame = pandas_module().DataFrame(rows).convert_dtypes()
        return frame.set_index("metric")

    def releases(self, *, limit: int | None = 1000, **filters: Any) -> Rows[ReleaseAnswer]:
        """Return the releases; filter by `state`, `environment` or `deployment_name`."""
        return self.all(releases_get, limit=limit, **filters)

    def release(self, release_id: int) -> ReleaseDetail:
        """Return one release with its review."""
        answer: ReleaseDetail = self.call(release_get, release_id=release_id)
        return answer

    def usage(self, *, limit: int | None = 1000, **filters: Any) -> Rows[UsageAnswer]:
        """Return settled requests and jobs, the latest first; filter by `department`, `deployment`,
        `key`, `since` or `until`."""
        return self.all(usage_get, limit=limit, **filters)

    def usage_by_day(self, *, days: int = 30, by: str | None = None) -> Rows[UsageDayAnswer]:
        """Return usage summed by day, or by day and department, deployment or key (`by`)."""
        return Rows(self.call(usage_days_get, days=days, by=by).days)

    def create_model(
        self, *, name: str, department: str, task: str, description: str = "", shared: bool = False
    ) -> ModelAnswer:
        """Create a model; `shared` lets other departments see and adapt it."""
        fields = {"name": name, "department": department, "task": task, "shared": shared}
        body = NewModelRequest.from_dict({**fields, "description": description})
        answer: ModelAnswer = self.call(models_post, body=body)
        return answer

    def create_dataset(
        self,
        *,
        name: str,
        department: str,
        task: str,
        classification: str,
        license: str,
        description: str = "",
    ) -> DatasetAnswer:
        """Create a dataset; `add_rows` adds its versions."""
        fields = {"name": name, "department": department, "task": task}
        terms = {"classification": classification, "license": license, "description": description}
        body = NewDatasetRequest.from_dict({**fields, **terms})
        answer: DatasetAnswer = self.call(datasets_post, body=body)
        return answer

    def add_rows(
        self, dataset: str, rows: DataFrame | Iterable[Mapping[str, Any]]
    ) -> DatasetVersionAnswer:
        """Upload a data frame or dictionaries as a new version of a dataset."""
        if hasattr(rows, "to_json"):
            lines = rows.to_json(orient="records", lines=True, force_ascii=False)
        else:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # The generated operation would send the form as JSON, too.
        response = self.client.get_httpx_client().post(
            f"/api/v1/datasets/{quote(dataset, safe='')}/versions",
            files={"file": (f"{dataset}.jsonl", lines.encode(), "application/jsonl")},
        )
        if response.is_error:
            raise RequestRefused(Problem.from_dict(response.json()))
        return DatasetVersionAnswer.from_dict(response.json())

    def set_gate(
        self,
        *,
        model: str,
        dataset: str,
        metric: str,
        comparator: str,
        threshold: float,
        why: str = "",
    ) -> GateAnswer:
        """Set the threshold that later evaluations of a model on a dataset must reach."""
        fields = {"model": model, "dataset": dataset, "metric": metric, "comparator": comparator}
        body = NewGateRequest.from_dict({**fields, "threshold": threshold, "why": why})
        answer: GateAnswer = self.call(gates_post, body=body)
        return answer

    def fine_tune(
        self,
        *,
        model: str,
        base_version: int,
        method: str,
        dataset_version: int,
        hyperparameters: Mapping[str, Any] | None = None,
        then: Iterable[int] = (),
        priority: str = "normal",
        idempotency_key: str | None = None,
    ) -> Job:
        """Start a fine-tune. `then` lists dataset versions on which the result is evaluated.

        For a day, the same `idempotency_key` returns the same job, so that a cell that runs again
        starts no second one.
        """
        fields = {
            "model": model,
            "base_version": base_version,
            "method": method,
            "dataset_version": dataset_version,
            "hyperparameters": dict(hyperparameters or {}),
            "then": [{"dataset_version": version} for version in then],
            "priority": priority,
        }
        body = NewFineTuneRequest.from_dict(fields)
        return self._started(fine_tunes_post, body, idempotency_key)

    def evaluate(
        self,
        *,
        version: int,
        dataset_version: int,
        max_rows: int | None = None,
        priority: str = "normal",
        idempotency_key: str | None = None,
    ) -> Job:
        """Start an evaluation; with `max_rows`, of the first rows only, which decides no gates."""
        fields = {"version": version, "dataset_version": dataset_version, "priority": priority}
        limit = {"max_rows": max_rows} if max_rows is not None else {}
        body = NewEvaluationRequest.from_dict({**fields, **limit})
        return self._started(evaluations_post, body, idempotency_key)

    def _started(self, operation: ModuleType, body: Any, idempotency_key: str | None) -> Job:
        return self.job(self.call(operation, body=body, idempotency_key=idempotency_key).id)


def _enumerated(operation: ModuleType, name: str, value: Any) -> Any:
    """Return a string as a member of the parameter's enumeration, if it has one.

    Raises:
        ValueError: the enumeration has no such member.
    """
    parameter = signature(operation.sync).parameters.get(name)
    for kind in get_args(parameter.annotation) if parameter else ():
        if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, StrEnum):
            if value not in set(kind):
                raise ValueError(f"{name} is one of {', '.join(kind)}, not {value!r}.")
            return kind(value)
    return value
