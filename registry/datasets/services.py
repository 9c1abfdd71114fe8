"""Create datasets and add immutable versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from governance.audit.services import audit_record
from governance.bounds import DESCRIPTION_MAX
from governance.errors import InvalidInput, TooLarge, WrongState
from governance.people.models import Department, Person
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from registry.catalog import get_row_kind
from registry.datasets import stored
from registry.datasets.models import LICENSE_MAX, Classification, Dataset, DatasetVersion
from registry.datasets.parsing import parse_dataset
from registry.naming import create_named
from registry.resources import (
    acting_person,
    dataset_resource,
    dataset_subject,
    dataset_version_subject,
    department_resource,
)
from registry.storage import store
from registry.uploads.models import UploadKind
from registry.uploads.services import upload_file_of, uploads_use
from registry.validation import checked_choice, checked_name, checked_text

# Limit of an unpacked archive, as a factor of the upload limit: only texts compress well.
UNPACKED_FACTOR = 2


class UploadedFile(Protocol):
    """A file from Django's upload handlers; the suffix of `name` is its format."""

    name: str | None
    size: int | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the file, in order."""


class Origin(Protocol):
    """Lineage of a version whose rows the platform generated."""

    base: DatasetVersion | None
    feedback: Sequence[Any]

    def attach(self, version: DatasetVersion) -> None:
        """Record the version's other sources, in the transaction that creates it.

        Raises:
            WrongState: a source no longer exists.
        """

    def facts(self) -> dict[str, Any]:
        """Return the lineage for the audit log."""


def dataset_create(
    *,
    actor: Principal,
    name: str,
    department: Department,
    task: str,
    classification: str,
    license: str,
    description: str = "",
    row_kind: str = "",
) -> Dataset:
    """Create a dataset without versions in `department`. `row_kind` names one of the task's row
    kinds; empty for the task's own kind.

    Raises:
        InvalidInput: a field is malformed.
        NotFound, NotPermitted: the policy denies it.
        WrongState: the name is taken.
    """
    checked_name(name)
    get_row_kind(task, row_kind)
    checked_choice(classification, list(Classification.values), field="classification")
    license = checked_text(license, field="license", limit=LICENSE_MAX)
    description = checked_text(
        description, field="description", limit=DESCRIPTION_MAX, required=False
    )
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.DATASET_CREATE,
            resource=department_resource("dataset", department, name),
        )
        dataset = create_named(
            Dataset,
            name,
            department=department,
            task=task,
            row_kind=row_kind,
            classification=classification,
            license=license,
            description=description,
            created_by=acting_person(actor),
        )
        audit_record(
            actor=actor,
            action=Action.DATASET_CREATE,
            subject=dataset_subject(dataset),
            department=department.slug,
            data={
                "task": task,
                "classification": classification,
                "license": license,
                **({"row_kind": row_kind} if row_kind else {}),
            },
            decision=decision,
        )
    return dataset


def dataset_version_add(
    *,
    actor: Principal,
    dataset: Dataset,
    file: UploadedFile | None = None,
    upload_id: UUID | None = None,
    columns: Mapping[str, str] | None = None,
    origin: Origin | None = None,
) -> DatasetVersion:
    """Add a file of rows, an archive of media, or a complete upload by the actor as the next
    version of `dataset`.

    `columns` maps a field of a row to its column. `origin` is the lineage of a file that the
    platform generated.

    Raises:
        InvalidInput: the file is missing or cannot be read; the message names the line.
        NotFound, NotPermitted: the policy denies it, or the actor has no such upload.
        TooLarge: over ASSAY_DATASET_MAX_BYTES, 2,000,000 rows, or 1 MiB in a row.
        WrongState: a version of this dataset has exactly the same rows.
        QuotaExceeded, Unavailable: too many archives are being unpacked.
    """
    person = dataset_version_allow(actor=actor, dataset=dataset)
    resource = dataset_resource(dataset)
    row_kind = get_row_kind(dataset.task, dataset.row_kind)
    owner = str(dataset.department_id)
    uploaded: UploadedFile | None = file
    with store.incoming() as scratch:
        if upload_id is not None:
            uploaded = upload_file_of(
                actor=actor,
                kind=UploadKind.DATASET,
                department=dataset.department,
                upload_id=upload_id,
            )
        if uploaded is None:
            raise InvalidInput("There is no file.", fields={"file": ["A file, or an upload."]})
        _receive(uploaded, scratch / "upload")
        canonical = scratch / "data.jsonl"
        parsed = parse_dataset(
            source=scratch / "upload",
            name=uploaded.name or "",
            target=canonical,
            row_kind=row_kind,
            columns=columns,
            limits=settings.MEDIA_LIMITS,
            max_unpacked_bytes=UNPACKED_FACTOR * settings.DATASET_MAX_BYTES,
            owner=owner,
        )
        previews = stored.prepare(parsed, canonical, owner=owner)
        # Store files before the database row, which must never name missing files. If the
        # transaction fails, garbage collection removes them.
        media_list = stored.adopt(parsed, canonical, previews)
        with transaction.atomic():
            # Authorize again, because reading may have taken long.
            decision = authorize(actor=actor, action=Action.DATASET_CREATE, resource=resource)
            Dataset.objects.select_for_update().get(pk=dataset.pk)
            if same := dataset.versions.filter(digest=parsed.digest).first():
                raise WrongState(
                    f"{same} holds exactly these rows; no new version was created.",
                    code="already_exists",
                )
            last = dataset.versions.aggregate(last=Max("number"))["last"] or 0
            version = DatasetVersion.objects.create(
                dataset=dataset,
                number=last + 1,
                digest=parsed.digest,
                rows=parsed.rows,
                size_bytes=parsed.size_bytes,
                schema=row_kind.row.model_json_schema(),
                profile=parsed.profile,
                media_list_sha256=media_list,
                base=None if origin is None else origin.base,
                feedback_count=0 if origin is None else len(origin.feedback),
                created_by=person,
            )
            if origin is not None:
                origin.attach(version)
            audit_record(
                actor=actor,
                action="dataset_version:create",
                subject=dataset_version_subject(version),
                department=dataset.department.slug,
                data={
                    "digest": parsed.digest,
                    "rows": parsed.rows,
                    "dataset": dataset.name,
                    **({} if origin is None else origin.facts()),
                },
                decision=decision,
            )
            if upload_id is not None:
                uploads_use(
                    actor=actor,
                    kind=UploadKind.DATASET,
                    department=dataset.department,
                    upload_ids=[upload_id],
                )
    return version


def dataset_version_allow(*, actor: Principal, dataset: Dataset) -> Person:
    """Return the person who may add a version to the dataset.

    Raises:
        NotFound, NotPermitted: the policy denies it, or the actor is not a person.
    """
    resource = dataset_resource(dataset)
    authorize(actor=actor, action=Action.DATASET_CREATE, resource=resource)
    return acting_person(actor)


def _receive(file: UploadedFile, target: Path) -> None:
    limit: int = settings.DATASET_MAX_BYTES
    size = 0
    with target.open("wb") as output:
        for chunk in file.chunks():
            size += len(chunk)
            if size > limit:
                raise TooLarge(
                    f"The file is larger than {limit} bytes.",
                    hint="ASSAY_DATASET_MAX_BYTES sets the limit.",
                )
            output.write(chunk)
