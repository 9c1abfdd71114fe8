"""Make the order of an attempt: all data that its run needs from the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from governance.errors import InvalidInput, WrongState
from registry.catalog import get_task
from registry.catalog.columns import media_columns
from registry.catalog.declaration import Task
from registry.datasets.models import DatasetVersion
from registry.datasets.stored import media_records
from registry.intake.models import Intake
from registry.knowledge.chunks import MAX_CHUNKS
from registry.knowledge.models import DocumentVersion, KnowledgeBase
from registry.knowledge.selectors import current_versions
from registry.manifests import Manifest, ManifestFile, ManifestMismatch
from registry.versions.hosted import check_cleared, check_provider_runs, hosted_of
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.weights import measuring_engine
from workers.control.jobs import Claim
from workers.jobs import workspace
from workers.jobs.models import Job, JobKind
from workers.jobs.resources import resources_of
from workers.run.order import (
    MEDIA,
    TEXTS,
    Document,
    EvaluateWork,
    FineTuneWork,
    Folder,
    IndexWork,
    IntakeWork,
    LooseFiles,
    Order,
    Served,
    Work,
)


def order_make(claim: Claim) -> Order:
    """Return the order of a claimed job.

    Raises:
        DomainError: a version or dataset of the job is no longer usable, or the store lacks a list.
        ObjectDoesNotExist: a row that the job refers to was deleted.
    """
    job = Job.objects.get(pk=claim.job_id)
    if job.continues is not None:
        # Only the holder of the claim moves them; for a later attempt they are already moved.
        workspace.checkpoints_move(job.continues, job.pk)
    draft = _WORK[JobKind(claim.kind)](job.spec)
    return Order(
        job=claim.job_id,
        title=claim.title,
        attempt=claim.attempt,
        fence=claim.fence,
        work=draft.work,
        folders=tuple(draft.folders),
        files=tuple(draft.files),
        checkpoints=job.checkpoints,
        max_output_bytes=settings.JOB_OUTPUT_MAX_BYTES,
        resources=resources_of(job),
    )


@dataclass(slots=True)
class _Draft:
    work: Work
    folders: list[Folder]
    files: list[LooseFiles] = field(default_factory=list)


def _intake(spec: dict[str, Any]) -> _Draft:
    intake = Intake.objects.select_related("base").get(pk=spec["intake"])
    delivered = Manifest(
        files=tuple(ManifestFile(f["name"], f["size"], f["sha256"]) for f in intake.files)
    )
    return _Draft(
        IntakeWork(
            task=spec["task"],
            keep_gguf=intake.keep_gguf,
            base_digest=intake.base.digest if intake.base else None,
            max_bytes=settings.INTAKE_MAX_BYTES,
        ),
        [Folder(name="delivery", manifest=delivered.to_json(), quarantine=intake.pk)],
    )


def _fine_tune(spec: dict[str, Any]) -> _Draft:
    base = ModelVersion.objects.select_related("model").get(pk=spec["base"])
    data = DatasetVersion.objects.select_related("dataset").get(pk=spec["dataset_version"])
    task = get_task(spec["task"])
    # Only fully tuned weights work without their base.
    alone = task.recipe(spec["method"]).makes == VersionKind.FULL
    return _Draft(
        FineTuneWork(
            task=task.name,
            method=spec["method"],
            hyperparameters=spec["hyperparameters"],
            base_digest=None if alone else base.digest,
        ),
        [_version(_trusted(base), "base"), _rows(data, "data")],
        _media(task, data),
    )


def _evaluate(spec: dict[str, Any]) -> _Draft:
    task = get_task(spec["task"])
    if task.evaluation is None:
        raise InvalidInput(f"{task.title} is not evaluated.")
    version = ModelVersion.objects.select_related("model", "base__model", "dataset_version").get(
        pk=spec["version"]
    )
    data = [DatasetVersion.objects.select_related("dataset").get(pk=spec["dataset_version"])]
    folders = [_rows(data[0], "data")]
    description = hosted_of(version)
    if description is not None:
        check_provider_runs(description)
        check_cleared(description, data[0])
    below = version
    if version.kind == VersionKind.PROMPT and version.base is not None:
        below = version.base
        folders.append(_version(_trusted(version), "prompt"))
    folders.append(_version(_trusted(below), "version"))
    if below.kind == VersionKind.ADAPTER and below.base is not None:
        folders.append(_version(_trusted(below.base), "base"))
    if task.evaluation.uses_training_rows and version.dataset_version is not None:
        data.append(version.dataset_version)
        folders.append(_rows(version.dataset_version, "training-data"))
    judge = _judge(spec)
    if judge is not None:
        folders.append(_version(judge, "judge"))
    return _Draft(
        EvaluateWork(
            version=_served(version),
            max_rows=spec.get("max_rows"),
            judge=None if judge is None else _served(judge),
        ),
        folders,
        _media(task, *data),
    )


def _judge(spec: dict[str, Any]) -> ModelVersion | None:
    """Return the judge that was chosen at the request. Raises WrongState if it was recalled."""
    if spec.get("judge") is None:
        return None
    version = ModelVersion.objects.select_related("model").get(pk=spec["judge"])
    if version.state != VersionState.TRUSTED:
        raise WrongState(f"The judge {version} is {version.state}. Evaluate again.")
    return version


def _trusted(version: ModelVersion) -> ModelVersion:
    """Return the version. Raises WrongState if it was recalled since the request."""
    if version.state != VersionState.TRUSTED:
        raise WrongState(f"{version} is {version.state}; jobs use only trusted versions.")
    return version


def _index(spec: dict[str, Any]) -> _Draft:
    base = KnowledgeBase.objects.select_related("index", "embedding_version__model").get(
        pk=spec["base"]
    )
    # The revision is read before the documents, which are therefore at least as new.
    revision = base.revision
    embedding = base.embedding_version
    if embedding.state != VersionState.TRUSTED:
        raise WrongState(f"{embedding} is {embedding.state}; it cannot embed documents.")
    documents = tuple(
        Document(version=version.pk, text_sha256=version.text_sha256)
        for version in current_versions(base)
    )
    texts = {document.text_sha256 for document in documents}
    folders = [_version(embedding, "embedding")]
    files = [LooseFiles(name=TEXTS, sha256s=tuple(sorted(texts)))]
    index = base.index
    if index is not None and index.embedding_digest == embedding.digest:
        folders.append(Folder(name="index", manifest=index.manifest, required=False))
        # A worker reported these versions, so check that they belong to the base.
        indexed = DocumentVersion.objects.filter(pk__in=index.versions, document__base=base)
        others = set(indexed.values_list("text_sha256", flat=True)) - texts
        files.append(LooseFiles(name=TEXTS, sha256s=tuple(sorted(others)), required=False))
    return _Draft(
        IndexWork(
            name=base.name,
            chunk_characters=base.chunk_characters,
            overlap_characters=base.overlap_characters,
            documents=documents,
            embedding=_served(embedding),
            revision=revision,
            max_chunks=MAX_CHUNKS,
        ),
        folders,
        files,
    )


def _served(version: ModelVersion) -> Served:
    return Served(
        name=str(version),
        digest=version.digest,
        task=version.model.task,
        engine=measuring_engine(version),
    )


def _version(version: ModelVersion, name: str) -> Folder:
    """Return the folder of a version's files. Raises ManifestMismatch."""
    manifest = Manifest.from_json(version.manifest)
    if manifest.digest != version.digest:
        raise ManifestMismatch(
            f"The manifest of {version} does not have the digest {version.digest}.", path=""
        )
    return Folder(name=name, manifest=manifest.to_json())


def _rows(data: DatasetVersion, name: str) -> Folder:
    rows = ManifestFile("data.jsonl", data.size_bytes, data.digest)
    return Folder(name=name, manifest=Manifest(files=(rows,)).to_json())


def _media(task: Task, *data: DatasetVersion) -> list[LooseFiles]:
    """Return the media files that the rows refer to. Raises Unavailable."""
    rows = [task.row_kind(version.dataset.row_kind).row for version in data]
    if not any(media_columns(row) for row in rows):
        return []
    return [LooseFiles(name=MEDIA, sha256s=tuple(_named(data)))]


def _named(data: Iterable[DatasetVersion]) -> list[str]:
    return sorted({sha256 for version in data for sha256 in media_records(version)})


_WORK = {
    JobKind.INTAKE: _intake,
    JobKind.FINE_TUNE: _fine_tune,
    JobKind.EVALUATE: _evaluate,
    JobKind.INDEX: _index,
}
