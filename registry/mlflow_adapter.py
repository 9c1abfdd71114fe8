"""MLflow as a private store, which only this module imports and only Assay writes to.

It is slow and not tamper-proof, so that no decision relies on it: Assay itself checks digests.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from governance.errors import Unavailable
from registry.storage import store

# Settings of MLflow's HTTP client: seconds for each request, and number of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# MLflow's own bounds on one batch and one value.
_BATCH = 1000
_PARAMETERS_BATCH = 100
_VALUE_CHARACTERS = 6000
_DONE = "assay.logged"


@dataclass(frozen=True, slots=True)
class RegisteredRun:
    """MLflow's identifiers of a registered version: its run, and MLflow's version number."""

    run_id: str
    version: str


def register_version(
    *,
    job_id: str,
    model: str,
    department: str,
    task: str,
    kind: str,
    digest: str,
    base: str,
    dataset: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, Any]],
) -> RegisteredRun:
    """Log a run and register a model version for it. Idempotent for each job.

    The experiment and the registered model have the model's name. The tags `assay.digest` and
    `assay.manifest` show clients of MLflow the location of the bytes: Assay's store, at the address
    of the manifest, which names the files. `history` is a list of
    {"step": int, "values": {metric: value}}.

    Raises:
        Unavailable: MLflow does not answer, or the request failed; trying again is safe.
    """
    tags = {
        "assay.job": job_id,
        "assay.digest": digest,
        "assay.manifest": store.address_of(digest),
        "assay.department": department,
        "assay.task": task,
        "assay.kind": kind,
        "assay.base": base,
        "assay.dataset": dataset,
    }
    with _client() as client:
        run = _run_for(client, model, tags)
        if run.data.tags.get(_DONE) != "1":
            _log(client, run.info.run_id, parameters, metrics, history)
            client.set_tag(run.info.run_id, _DONE, "1")
            client.set_terminated(run.info.run_id)
        # MLflow accepts only a source in the run's artifacts; this one has no bytes of the version.
        source = f"{run.info.artifact_uri}/model"
        version = _version_for(client, model, run.info.run_id, source, tags)
        return RegisteredRun(run_id=run.info.run_id, version=str(version.version))


@contextmanager
def _client() -> Iterator[Any]:
    # Imported late: it takes about 2 s, and most processes that load this module never call it.
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri = settings.MLFLOW_TRACKING_URI
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, requests.RequestException) as error:
        raise Unavailable(
            f"The request to MLflow at {uri} failed: {str(error)[:300]}",
            code="mlflow_unavailable",
            hint="Start MLflow, or set MLFLOW_TRACKING_URI to its address; then try again.",
            retry_after=5,
        ) from error


def _run_for(client: Any, model: str, tags: Mapping[str, str]) -> Any:
    experiment = client.get_experiment_by_name(model)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(model)
    runs = client.search_runs(
        [experiment_id], filter_string=f"tags.`assay.job` = '{tags['assay.job']}'", max_results=1
    )
    if runs:
        return runs[0]
    return client.create_run(
        experiment_id, tags=dict(tags), run_name=f"{tags['assay.kind']} {tags['assay.digest'][:12]}"
    )


def _log(
    client: Any,
    run_id: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, Any]],
) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    pairs = [
        Param(name, value if isinstance(value, str) else json.dumps(value, default=str))
        for name, value in parameters.items()
    ]
    points = [
        Metric(name, float(value), now + position, int(point["step"]))
        for position, point in enumerate(history)
        for name, value in point["values"].items()
    ]
    last = max((int(point["step"]) for point in history), default=0)
    points += [Metric(f"final.{name}", float(value), now, last) for name, value in metrics.items()]
    for start in range(0, len(pairs), _PARAMETERS_BATCH):
        batch = [
            Param(pair.key, pair.value[:_VALUE_CHARACTERS])
            for pair in pairs[start : start + _PARAMETERS_BATCH]
        ]
        client.log_batch(run_id, params=batch)
    for start in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])


def _version_for(client: Any, model: str, run_id: str, source: str, tags: Mapping[str, str]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model, tags={"assay.department": tags["assay.department"]})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"run_id = '{run_id}'", max_results=1)
    if versions:
        return versions[0]
    return client.create_model_version(
        name=model, source=source, run_id=run_id, tags=dict(tags), await_creation_for=0
    )
