"""Compare a worker's answers with those of the dossier before a deployment serves there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from governance.errors import NotFound
from governance.principals import Principal
from registry.catalog.answers import FILE
from registry.catalog.code import NO_PACKAGES
from registry.catalog.engines import EngineName
from registry.releases.equivalence.environments import UNKNOWN
from registry.releases.equivalence.services import (
    Place,
    equivalence_record,
    equivalence_without_answers,
    reference_rows,
)
from registry.releases.models import Release
from registry.releases.serving import COMPARISON_DUE, ServingVerdict, serving_verdicts
from registry.storage import store
from workers.control.protocol import ReferenceRequest
from workers.deployments.models import Deployment, WorkerKey
from workers.deployments.selectors import live_deployments
from workers.deployments.states import deployment_subject
from workers.references import contains


def worker_environments(worker: str) -> dict[str, str]:
    """Return the fingerprints of a worker's software by engine; `UNKNOWN` if not reported."""
    rows = WorkerKey.objects.filter(worker=worker[:120]).values_list("environments", flat=True)
    reported = rows.first() or {}
    return {str(engine): str(reported.get(engine, UNKNOWN)) for engine in EngineName}


def worker_verdict(release: Release, worker: str) -> ServingVerdict:
    """Return the verdict on a release on one worker."""
    environments = worker_environments(worker)
    return serving_verdicts([release], environments=environments)[release.pk]


def references_due(*, worker: str, deployment_id: int) -> list[ReferenceRequest]:
    """Return the requests that a worker must answer before a deployment serves there.

    The list is empty if it was compared already, or if the dossier has no answers to compare.

    Raises:
        NotFound: the deployment is not live.
        WrongState: the stored answers differ from those that the dossier names.
    """
    release = _live(deployment_id).release
    verdict = worker_verdict(release, worker)
    if verdict.refusal is None or verdict.refusal.code != COMPARISON_DUE:
        return []
    return [
        ReferenceRequest(row["row"], row["inputs"], row["options"])
        for row in reference_rows(release)
    ]


def reference_file(*, deployment_id: int, sha256: str) -> BytesIO:
    """Return a verified file that a reference request refers to.

    Raises:
        NotFound: no request refers to the file, or the store does not have it.
        ManifestMismatch: the store has other bytes.
        StoreUnavailable: the store does not answer.
    """
    rows = reference_rows(_live(deployment_id).release)
    if not contains([row["inputs"] for row in rows], lambda value: value == {FILE: sha256}):
        raise NotFound(f"Deployment {deployment_id} has no file {sha256[:12]}….")
    try:
        return BytesIO(store.file_bytes(sha256))
    except FileNotFoundError as error:
        raise NotFound(f"The store has no file {sha256[:12]}….") from error


def references_report(
    *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]], actor: Principal
) -> None:
    """Compare a worker's answers with those of the dossier, and record the result.

    Raises:
        InvalidInput: the answers do not answer each request exactly once.
        NotFound: the deployment is not live.
        WrongState: the dossier has no answers to compare.
    """
    deployment = _live(deployment_id)
    equivalence_record(
        actor=actor,
        release=deployment.release,
        place=_place(deployment, worker),
        answers=answers,
    )


def worker_fault(deployment: Deployment, *, worker: str, code: str, actor: Principal) -> str:
    """Return why a deployment may not serve on a worker that has loaded it; empty if it may.

    `code` is the digest of the packages that answer there. If the dossier has no answers to
    compare, that is recorded first.
    """
    release = deployment.release
    verdict = worker_verdict(release, worker)
    dossier = verdict.dossier
    # Workers of the previous version of Assay report no code; they run only Assay's own tasks.
    if (code or NO_PACKAGES.digest) != dossier.code:
        return (
            f"{worker} runs other code of {release.version.model.task} "
            f"({code[:12] or 'not reported'}) than release {release.pk} was approved with: "
            f"{dossier.packages} ({dossier.code[:12]})."
        )
    due = verdict.refusal is not None and verdict.refusal.code == COMPARISON_DUE
    if due and not dossier.upgrades.reference:
        place = _place(deployment, worker)
        equivalence_without_answers(actor=actor, release=release, place=place)
        verdict = worker_verdict(release, worker)
    return "" if verdict.refusal is None else verdict.refusal.message


def _place(deployment: Deployment, worker: str) -> Place:
    environment = worker_environments(worker)[deployment.release.engine]
    return Place(deployment_subject(deployment), worker, environment)


def _live(deployment_id: int) -> Deployment:
    deployment = live_deployments().filter(pk=deployment_id).first()
    if deployment is None:
        raise NotFound(f"Deployment {deployment_id} is not live any more.")
    return deployment
