"""Create models, and register their immutable versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max, Q

from governance.audit.services import audit_record
from governance.bounds import DESCRIPTION_MAX
from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.models import Department, Person
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal, background
from registry import mlflow_adapter
from registry.catalog import get_task
from registry.datasets.models import DatasetVersion
from registry.manifests import Manifest, ManifestFile
from registry.naming import create_named
from registry.resources import (
    acting_person,
    department_resource,
    model_subject,
    version_resource,
    version_subject,
)
from registry.storage import store
from registry.validation import (
    checked_choice,
    checked_name,
    checked_numbers,
    checked_text,
    storable_json,
)
from registry.versions.model_code import checked_code
from registry.versions.models import LICENSE_MAX, Model, ModelVersion, VersionKind, VersionState
from registry.versions.selectors import version_get


def model_create(
    *,
    actor: Principal,
    name: str,
    department: Department,
    task: str,
    description: str = "",
    shared: bool = False,
) -> Model:
    """Create a model without versions in `department`.

    Raises:
        InvalidInput: a malformed name, an unknown task.
        NotFound, NotPermitted: the policy refuses.
        WrongState: the name is taken.
    """
    checked_name(name)
    get_task(task)
    description = checked_text(
        description, field="description", limit=DESCRIPTION_MAX, required=False
    )
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.MODEL_CREATE,
            resource=department_resource("model", department, name),
        )
        model = create_named(
            Model,
            name,
            department=department,
            task=task,
            description=description,
            shared=shared,
            created_by=acting_person(actor),
        )
        audit_record(
            actor=actor,
            action=Action.MODEL_CREATE,
            subject=model_subject(model),
            department=department.slug,
            data={"task": task, "shared": shared},
            decision=decision,
        )
    return model


def version_register(
    *,
    actor: Principal,
    model: Model,
    kind: str,
    manifest: Manifest,
    base: ModelVersion | None,
    dataset_version: DatasetVersion | None,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, Any]],
    license: str,
    card: str,
    job_id: UUID,
    created_by: Person,
    code: Sequence[Mapping[str, Any]] = (),
) -> ModelVersion:
    """Register the files that the store holds under `manifest` as the next version of `model`.

    For the control plane only, which has authorized the request that led here. Idempotent on
    `job_id`: a job reported twice is registered once, in MLflow and here. `history` is a list of
    {"step": int, "values": {metric: value}}; `metrics` are measured while training. `code` holds
    the chat templates and tokenizer patterns among the files.

    Raises:
        InvalidInput: kind, base and manifest do not fit together.
        WrongState: the base is recalled, or the store does not hold the files.
        Unavailable: MLflow does not answer; nothing was registered, and a retry is safe.
    """
    if (registered := _registered(job_id)) is not None:
        return registered
    checked_choice(kind, list(VersionKind.values), field="kind")
    checked_text(license, field="license", limit=LICENSE_MAX)
    checked_text(card, field="card", limit=100_000, required=False)
    numbers = checked_numbers(metrics, field="metrics")
    settings = storable_json(parameters)
    _check_base(model, kind, manifest, base)
    digest = manifest.digest
    _check_not_recalled(model, digest, base)
    if not store.has_version(digest):
        raise WrongState(
            f"The artifact store holds no files for digest {digest[:12]}; "
            f"a version of {model.name} was not registered.",
            hint="Adopt the folder into the store first.",
        )
    run = mlflow_adapter.register_version(
        job_id=str(job_id),
        model=model.name,
        department=model.department.slug,
        task=model.task,
        kind=kind,
        digest=digest,
        base=f"{base} {base.digest}" if base else "",
        dataset=f"{dataset_version} {dataset_version.digest}" if dataset_version else "",
        parameters=settings,
        metrics=numbers,
        history=history,
    )
    with transaction.atomic():
        Model.objects.select_for_update().get(pk=model.pk)
        if (registered := _registered(job_id)) is not None:
            return registered
        last = model.versions.aggregate(last=Max("number"))["last"] or 0
        row = ModelVersion(
            model=model,
            number=last + 1,
            kind=kind,
            base=base,
            dataset_version=dataset_version,
            digest=digest,
            manifest=manifest.to_json(),
            size_bytes=manifest.size_bytes,
            parameters=settings,
            metrics=numbers,
            license=license.strip(),
            code=checked_code(code),
            card=card,
            mlflow_run_id=run.run_id,
            mlflow_version=run.version,
            job_id=job_id,
            created_by=created_by,
        )
        version = _insert(row)
        with background(f"job-{job_id}", actor):
            audit_record(
                actor=actor,
                action="version:register",
                subject=version_subject(version),
                department=model.department.slug,
                data={
                    "digest": digest,
                    "kind": kind,
                    "base": base.digest if base else None,
                    "dataset": dataset_version.digest if dataset_version else None,
                    "job": str(job_id),
                    "created_by": f"person {created_by.pk}",
                },
            )
    return version


def version_file_export(*, actor: Principal, version_id: int, sha256: str) -> ManifestFile:
    """Record that `actor` downloads a file of a version; return its entry in the manifest.

    Raises:
        NotFound, NotPermitted: the policy refuses, or the version has no such file.
        WrongState: the version is recalled.
    """
    with transaction.atomic():
        version = version_get(actor=actor, id=version_id)
        decision = authorize(
            actor=actor, action=Action.VERSION_EXPORT, resource=version_resource(version)
        )
        if version.state != VersionState.TRUSTED:
            raise WrongState(f"{version} is {version.state}; its files cannot be downloaded.")
        files = Manifest.from_json(version.manifest).files
        file = next((each for each in files if each.sha256 == sha256), None)
        if file is None:
            raise NotFound(f"{version} has no file {sha256[:12]}….")
        audit_record(
            actor=actor,
            action=Action.VERSION_EXPORT,
            subject=version_subject(version),
            department=version.model.department.slug,
            data={"digest": version.digest, "path": file.path, "sha256": sha256},
            decision=decision,
        )
    return file


def _registered(job_id: UUID) -> ModelVersion | None:
    return ModelVersion.objects.select_related("model").filter(job_id=job_id).first()


def _insert(version: ModelVersion) -> ModelVersion:
    """Insert the row; the database rejects versions that a recall has reached meanwhile."""
    try:
        with transaction.atomic():
            version.save(force_insert=True)
    except IntegrityError:
        _check_not_recalled(version.model, version.digest, version.base)
        raise
    return version


def _check_not_recalled(model: Model, digest: str, base: ModelVersion | None) -> None:
    matching = Q(digest=digest) if base is None else Q(digest=digest) | Q(pk=base.pk)
    recalled = ModelVersion.objects.filter(matching, state=VersionState.RECALLED).first()
    if recalled is None:
        return
    if recalled.digest == digest:
        raise WrongState(
            f"These are the bytes of {recalled}, which is recalled; they were not registered as a "
            f"version of {model.name}.",
            hint="A recall is permanent. Other bytes may be registered.",
        )
    raise WrongState(f"{recalled} is recalled; nothing may be registered on it.")


def _check_base(model: Model, kind: str, manifest: Manifest, base: ModelVersion | None) -> None:
    if kind in (VersionKind.BASE, VersionKind.HOSTED):
        if base is not None or manifest.base_digest is not None:
            raise InvalidInput(f"A {kind} version of {model.name} cannot have a base.")
        return
    if base is None:
        raise InvalidInput(f"A version of kind {kind} needs a base version.")
    # Only full weights are complete; any other kind is meaningless without its base.
    if manifest.base_digest != base.digest and not (
        kind == VersionKind.FULL and manifest.base_digest is None
    ):
        raise InvalidInput(
            f"The manifest names the base digest {str(manifest.base_digest)[:12]}; "
            f"{base} has {base.digest[:12]}."
        )
    if base.state != VersionState.TRUSTED:
        raise WrongState(f"{base} is {base.state}; nothing may be registered on it.")
