"""Services for files of departments: store, delete, and delete expired ones."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from registry.batches.models import Batch
from registry.batches.states import OPEN
from registry.expiry import expire_in_rounds, record_expired
from registry.files.content import content_delete, orphans
from registry.files.models import LEAST_S, MOST_S, FilePurpose, StoredFile
from registry.files.room import room_check, room_take
from registry.files.selectors import file_get
from registry.validation import checked_filename

# Maximum deletions in one transaction, and transactions in one minute.
_EXPIRED_AT_ONCE = 500
_EXPIRIES = 20


def new_file_id() -> str:
    """Return `file-` and 128 random bits."""
    return f"file-{secrets.token_hex(16)}"


def file_resource(file: StoredFile) -> Resource:
    """Return a file as a resource of policy decisions."""
    return Resource(
        type="file",
        id=file.pk,
        name=file.filename,
        department=file.department.slug,
        attributes={"purpose": file.purpose, "classification": file.classification},
    )


def _new_file(department: Department, classification: str) -> Resource:
    """Return a file that will be uploaded as a resource of policy decisions."""
    return Resource(
        type="file",
        department=department.slug,
        attributes={"purpose": FilePurpose.BATCH, "classification": classification},
    )


def file_subject(file: StoredFile) -> Subject:
    """Return the file as a subject of audit events, without content."""
    return Subject("file", file.pk, file.filename)


def file_check(*, actor: Principal, department: Department, classification: str) -> None:
    """Check that `actor` may add a file to the department, before its bytes are received.

    Raises:
        NotPermitted: the policy denies it.
        NoRoom: the department has reached its limit of files or bytes.
    """
    resource = _new_file(department, classification)
    authorize(actor=actor, action=Action.FILE_CREATE, resource=resource)
    room_check(department, files=1)


def file_create(
    *,
    actor: Principal,
    department: Department,
    sender: str,
    id: str,  # noqa: A002
    filename: str,
    size: int,
    sha256: str,
    classification: str,
    expires_after_s: int | None = None,
) -> StoredFile:
    """Create the row of an uploaded file whose bytes are already written.

    Args:
        sender: public ID of the key that uploads it.
        size: in bytes.
        classification: the caller's declaration for its content.
        expires_after_s: seconds until it is deleted; None for the default of the installation.

    Raises:
        InvalidInput: the file is empty, or a field is out of bounds.
        NotPermitted: the policy denies it.
        NoRoom: the department has reached its limit of files or bytes.
    """
    filename = checked_filename(filename)
    if size < 1:
        raise InvalidInput("The file is empty.", fields={"file": ["At least one byte."]})
    if expires_after_s is not None and not LEAST_S <= expires_after_s <= MOST_S:
        raise InvalidInput(
            f"expires_after must be {LEAST_S:,} to {MOST_S:,} seconds.",
            fields={"expires_after": [f"From {LEAST_S:,} to {MOST_S:,} seconds."]},
        )
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.FILE_CREATE,
            resource=_new_file(department, classification),
        )
        room_take(department, files=1, size=size)
        return file_add(
            actor=actor,
            department=department,
            sender=sender,
            id=id,
            filename=filename,
            purpose=FilePurpose.BATCH,
            size=size,
            sha256=sha256,
            classification=classification,
            expires_after_s=expires_after_s,
            decision=decision,
        )


def file_add(
    *,
    actor: Principal,
    department: Department,
    sender: str,
    id: str,  # noqa: A002
    filename: str,
    purpose: FilePurpose,
    size: int,
    sha256: str,
    classification: str,
    expires_after_s: int | None = None,
    decision: Authorization | None = None,
) -> StoredFile:
    """Add a file in the caller's transaction without checking limits; for a batch's output, they
    were checked before each line ran."""
    lifetime_s = expires_after_s or settings.FILE_RETENTION_DAYS * 86_400
    file = StoredFile.objects.create(
        id=id,
        department=department,
        sender=sender,
        filename=filename,
        purpose=purpose,
        size=size,
        sha256=sha256,
        classification=classification,
        expires_at=timezone.now() + timedelta(seconds=lifetime_s),
    )
    audit_record(
        actor=actor,
        action=Action.FILE_CREATE,
        subject=file_subject(file),
        department=department.slug,
        data={
            "purpose": file.purpose,
            "size": size,
            "sha256": sha256,
            "seconds": lifetime_s,
            "classification": classification,
        },
        decision=decision,
    )
    return file


@transaction.atomic
def file_delete(*, actor: Principal, id: str, sender: str = "") -> None:  # noqa: A002
    """Delete a file and its bytes; `sender` as for `files_visible_to`.

    Raises:
        NotFound: the file does not exist, or the actor may not know of it.
        NotPermitted: the policy denies it.
    """
    file = file_get(actor=actor, id=id, sender=sender)
    decision = authorize(actor=actor, action=Action.FILE_DELETE, resource=file_resource(file))
    audit_record(
        actor=actor,
        action=Action.FILE_DELETE,
        subject=file_subject(file),
        department=file.department.slug,
        data={"purpose": file.purpose, "size": file.size},
        decision=decision,
    )
    # Lock the row, so that no batch can begin to use the file.
    StoredFile.objects.select_for_update().filter(pk=file.pk).first()
    if used := files_in_use([file.pk]):
        raise WrongState(
            f"File {file.pk} is the input of batch {used[file.pk]}, which has not ended.",
            code="file_in_use",
            hint="Cancel the batch, or wait until it has ended.",
        )
    _delete([file])


def files_in_use(names: Collection[str]) -> dict[str, str]:
    """Return the ID of the open batch that reads a file, for each of these files in use."""
    rows = Batch.objects.filter(input_file__in=names, state__in=OPEN)
    return dict(rows.values_list("input_file", "pk"))


def _delete(files: list[StoredFile]) -> None:
    """Delete rows, and their bytes after the transaction commits."""
    names = [file.pk for file in files]
    StoredFile.objects.filter(pk__in=names).delete()

    def content() -> None:
        for name in names:
            content_delete(name)

    transaction.on_commit(content)


def files_expire_due() -> int:
    """Delete expired files, and content without a file; return the number of files."""
    deleted = expire_in_rounds(_expire_some, at_once=_EXPIRED_AT_ONCE, rounds=_EXPIRIES)
    for name in orphans(set(StoredFile.objects.values_list("pk", flat=True))):
        content_delete(name)
    return deleted


def _expire_some() -> int:
    controller = service_principal("controller")
    with transaction.atomic(), background("files", controller):
        due = StoredFile.objects.select_related("department").filter(expires_at__lte=timezone.now())
        due = due.exclude(pk__in=Batch.objects.filter(state__in=OPEN).values("input_file"))
        rows = list(due.order_by("expires_at")[:_EXPIRED_AT_ONCE])
        _delete(rows)
        record_expired(
            actor=controller, action="file:expire", departments=[row.department for row in rows]
        )
    return len(rows)
