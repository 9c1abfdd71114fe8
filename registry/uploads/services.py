"""Services for uploads in parts: create, append, discard, use, and delete expired ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.database.locks import lock
from governance.errors import DomainError, InvalidInput, TooLarge, Unavailable, WrongState
from governance.people.models import Department
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from governance.rowsecurity import lifted
from registry.resources import acting_person, department_resource
from registry.uploads import files
from registry.uploads.models import Upload, UploadKind
from registry.uploads.selectors import UPLOADING, not_found, uploads_of
from registry.validation import checked_choice, checked_filename

# Maximum open uploads of one person; an intake accepts at most 512 files.
OPEN_MAX = 512
# Maximum age of an upload, even if it is still written to.
LONGEST = timedelta(days=7)
_SHA256 = re.compile("[0-9a-f]{64}")


class ChecksumMismatch(DomainError):
    """Bytes do not match their checksum (460, as in the tus protocol)."""

    code = "checksum_mismatch"
    status = 460
    title = "Checksum mismatch"


def upload_limit_of(kind: str) -> int:
    """Return the maximum size of a file of this kind, and of all files of one person's intake."""
    limit: int = (
        settings.INTAKE_MAX_BYTES if kind == UploadKind.INTAKE else settings.DATASET_MAX_BYTES
    )
    return limit


def upload_create(
    *,
    actor: Principal,
    kind: str,
    department: Department,
    target: str,
    filename: str,
    size: int,
    sha256: str = "",
) -> Upload:
    """Create an upload, whose bytes follow in parts. Its size is reserved until it expires.

    `target` names the model or dataset of the department, so that its page can list the upload.

    Raises:
        InvalidInput: a field is malformed.
        NotFound, NotPermitted: the policy denies it, or the actor is not a person.
        TooLarge: over the limit of its kind.
        Unavailable: all unfinished uploads together fill the space reserved for uploads.
        WrongState: the person has too many unfinished uploads, or too many bytes in them.
    """
    checked_choice(kind, list(UploadKind.values), field="kind")
    filename = checked_filename(filename)
    if sha256 and not _SHA256.fullmatch(sha256):
        raise InvalidInput(
            "The SHA-256 is not 64 lowercase hexadecimal digits.",
            fields={"sha256": ["64 hexadecimal digits."]},
        )
    if size < 1:
        raise InvalidInput("An upload has at least one byte.", fields={"size": ["At least 1."]})
    limit = upload_limit_of(kind)
    if size > limit:
        raise TooLarge(
            f"The file has {size:,} bytes; at most {limit:,} are accepted.",
            hint="ASSAY_INTAKE_MAX_BYTES and ASSAY_DATASET_MAX_BYTES set the limits.",
        )
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=UPLOADING[UploadKind(kind)],
            resource=department_resource(kind, department),
        )
        person = acting_person(actor)
        _check_room(person.pk, kind, size)
        upload = Upload.objects.create(
            owner=person,
            department=department,
            kind=kind,
            target=target,
            filename=filename,
            size=size,
            sha256=sha256,
            expires_at=timezone.now() + timedelta(hours=settings.UPLOAD_HOURS),
        )
        audit_record(
            actor=actor,
            action="upload:create",
            subject=upload_subject(upload),
            department=department.slug,
            data={"kind": kind, "size": size, "sha256": sha256},
            decision=decision,
        )
    return upload


@lifted()
def _check_room(person_id: int, kind: str, size: int) -> None:
    # Serialized, because it sums the reserved sizes of all uploads.
    lock("uploads")
    mine = Upload.objects.filter(owner_id=person_id)
    if mine.count() >= OPEN_MAX:
        raise WrongState(
            f"You have {OPEN_MAX} unfinished uploads, which is the maximum.",
            code="too_many_uploads",
            hint="Finish or discard some, or wait until they expire.",
        )
    limit = upload_limit_of(UploadKind.INTAKE)
    if (mine.aggregate(total=Sum("size"))["total"] or 0) + size > limit:
        raise WrongState(
            f"Your unfinished uploads and this one have more than {limit:,} bytes together.",
            code="too_many_uploads",
            hint="Finish or discard some, or wait until they expire.",
        )
    every = Upload.objects.aggregate(total=Sum("size"))["total"] or 0
    if every + size > settings.UPLOAD_TOTAL_BYTES:
        raise Unavailable(
            "Unfinished uploads fill the space reserved for them.",
            hint="Try again later. ASSAY_UPLOAD_TOTAL_BYTES sets the space.",
        )


def upload_append(
    *,
    actor: Principal,
    upload_id: UUID,
    offset: int,
    data: bytes,
    sha256: bytes | None = None,
) -> Upload:
    """Write the next bytes; the last bytes complete the upload after a check of its hash.

    `sha256` is the digest of `data`. Concurrent requests wait for each other; the later one then
    has a wrong offset.

    Raises:
        ChecksumMismatch: `data`, or at the end the whole file, does not match its SHA-256; `data`
            is not stored.
        NotFound: the actor has no such upload.
        NotPermitted: the actor may no longer upload such files.
        TooLarge: more bytes than announced.
        WrongState: the offset is wrong, or the upload is complete.
    """
    with transaction.atomic():
        upload = _locked(actor, upload_id)
        decision = authorize(
            actor=actor,
            action=UPLOADING[UploadKind(upload.kind)],
            resource=department_resource(upload.kind, upload.department),
        )
        if upload.completed_at is not None:
            raise WrongState(f"Upload {upload.pk} is already complete.", code="upload_complete")
        if offset != upload.received:
            raise WrongState(
                f"Upload {upload.pk} continues at byte {upload.received}, not at {offset}.",
                code="offset_mismatch",
                hint="Request the offset with HEAD, and continue there.",
            )
        if offset + len(data) > upload.size:
            raise TooLarge(
                f"Upload {upload.pk} was announced with {upload.size} bytes; these are too many."
            )
        if sha256 is not None and hashlib.sha256(data).digest() != sha256:
            raise ChecksumMismatch(
                "The bytes do not match the checksum; nothing was stored.",
                hint="Send them again.",
            )
        if files.stored_size(upload.pk) < offset:
            # The disk lost bytes that the row counts; only the owner can send them again.
            upload.received = 0
            upload.save(update_fields=["received"])
            return upload
        files.write_at(upload.pk, offset, data)
        upload.received = offset + len(data)
        now = timezone.now()
        upload.expires_at = min(
            now + timedelta(hours=settings.UPLOAD_HOURS), upload.created_at + LONGEST
        )
        complete = upload.received == upload.size
        if complete:
            _complete(upload)
        upload.save()
        if complete:
            audit_record(
                actor=actor,
                action="upload:complete",
                subject=upload_subject(upload),
                department=upload.department.slug,
                data={"kind": upload.kind, "size": upload.size, "sha256": upload.sha256},
                decision=decision,
            )
    return upload


def _complete(upload: Upload) -> None:
    sha256 = files.digest(upload.pk)
    if upload.sha256 and sha256 != upload.sha256:
        # Otherwise each retry of the last part would read the whole file again. The row is rolled
        # back; the next part then finds no file and begins at 0.
        files.discard(upload.pk)
        raise ChecksumMismatch(
            f"Upload {upload.pk} has the SHA-256 {sha256}, not {upload.sha256}.",
            # A different code than for a part, because clients retry parts.
            code="file_checksum_mismatch",
            hint="The file changed while it was uploaded. Its bytes are deleted; begin again.",
        )
    upload.sha256 = sha256
    upload.completed_at = timezone.now()


def upload_discard(*, actor: Principal, upload_id: UUID) -> None:
    """Delete an upload and its bytes.

    Raises:
        NotFound: the actor has no such upload.
    """
    with transaction.atomic():
        upload = _locked(actor, upload_id)
        audit_record(
            actor=actor,
            action="upload:discard",
            subject=upload_subject(upload),
            department=upload.department.slug,
            data={"kind": upload.kind, "received": upload.received, "size": upload.size},
        )
        _remove(upload)


@dataclass(slots=True)
class UploadedPart:
    """A complete upload in the form of an uploaded file, for intake and datasets."""

    name: str | None
    size: int | None
    id: UUID

    def chunks(self) -> Iterator[bytes]:
        return files.chunks(self.id)


def upload_file_of(
    *, actor: Principal, kind: str, department: Department, upload_id: UUID
) -> UploadedPart:
    """Return a complete upload, for reading before `uploads_use`. Raises as `uploads_use`."""
    with transaction.atomic():
        upload = _usable(actor, kind, department, upload_id)
    return UploadedPart(upload.filename, upload.size, upload.pk)


def uploads_use(
    *, actor: Principal, kind: str, department: Department, upload_ids: Sequence[UUID]
) -> list[UploadedPart]:
    """Return complete uploads, in this order, and delete them when the caller's transaction
    commits.

    Raises:
        InvalidInput: an upload is named twice, or is of another kind or department.
        NotFound: the actor has no such upload.
        WrongState: an upload is not complete.
    """
    if len(set(upload_ids)) != len(upload_ids):
        raise InvalidInput("An upload is named twice.", fields={"uploads": ["Each one once."]})
    parts = []
    for upload_id in upload_ids:
        upload = _usable(actor, kind, department, upload_id)
        parts.append(UploadedPart(upload.filename, upload.size, upload.pk))
        audit_record(
            actor=actor,
            action="upload:use",
            subject=upload_subject(upload),
            department=department.slug,
            data={"kind": kind, "sha256": upload.sha256},
        )
        _remove(upload)
    return parts


def _usable(actor: Principal, kind: str, department: Department, upload_id: UUID) -> Upload:
    upload = _locked(actor, upload_id)
    if upload.kind != kind or upload.department_id != department.pk:
        raise InvalidInput(
            f"Upload {upload.pk} is for {upload.kind} in {upload.department.slug}.",
            hint=f"Upload the file for {kind} in {department.slug}.",
            fields={"uploads": ["Of another kind or department."]},
        )
    if upload.completed_at is None:
        raise WrongState(
            f"Upload {upload.pk} has {upload.received} of {upload.size} bytes.",
            hint="Send the rest first.",
        )
    return upload


def uploads_expire_due() -> int:
    """Delete expired uploads, and files without one; return the number. For the controller."""
    controller = service_principal("controller")
    removed = 0
    for upload_id in Upload.objects.filter(expires_at__lte=timezone.now()).values_list(
        "pk", flat=True
    )[:1000]:
        with transaction.atomic(), background(f"upload-{upload_id}", controller):
            rows = Upload.objects.select_for_update(of=("self",), skip_locked=True)
            upload = (
                rows.select_related("department")
                .filter(pk=upload_id, expires_at__lte=timezone.now())
                .first()
            )
            if upload is None:
                continue
            audit_record(
                actor=controller,
                action="upload:expire",
                subject=upload_subject(upload),
                department=upload.department.slug,
                data={"kind": upload.kind, "received": upload.received, "size": upload.size},
            )
            _remove(upload)
            removed += 1
    names = {str(pk) for pk in Upload.objects.values_list("pk", flat=True)}
    for path in files.orphans(names):
        path.unlink(missing_ok=True)
        removed += 1
    return removed


def upload_subject(upload: Upload) -> Subject:
    """Return the upload as a subject of audit events, without the file name that a person chose."""
    return Subject(type="upload", id=str(upload.pk), name=f"upload {upload.pk}")


def _locked(actor: Principal, upload_id: UUID) -> Upload:
    rows = uploads_of(actor).select_for_update(of=("self",))
    upload = rows.filter(pk=upload_id).first()
    if upload is None:
        raise not_found(upload_id)
    return upload


def _remove(upload: Upload) -> None:
    upload_id = upload.pk
    upload.delete()
    transaction.on_commit(lambda: files.discard(upload_id))
