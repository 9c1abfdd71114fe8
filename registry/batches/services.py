"""Services for batches: create, cancel, and delete old ones."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.database.locks import lock
from governance.errors import InvalidInput, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.context import CLASSIFICATIONS
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from registry.batches.models import OPEN_MAX, Batch, BatchState
from registry.batches.requests import check_endpoint
from registry.batches.selectors import batch_get
from registry.batches.states import BATCH_STATES, OPEN, batch_move, batch_subject
from registry.files.models import LEAST_S, MOST_S, FilePurpose, StoredFile
from registry.files.room import FILES_OF_BATCH, room_take
from registry.files.selectors import file_get
from registry.validation import storable_json

# Time after which an unfinished batch expires.
WINDOW = timedelta(hours=24)
# Retention of a batch's row after its end.
_KEPT = timedelta(days=90)
_PURGED_AT_ONCE = 500


def batch_resource(batch: Batch) -> Resource:
    """Return a batch as a resource of policy decisions."""
    return Resource(
        type="batch",
        id=batch.pk,
        department=batch.department.slug,
        attributes={"classification": batch.classification, "deployment": batch.model},
    )


@transaction.atomic
def batch_create(
    *,
    actor: Principal,
    department: Department,
    sender: str,
    key_name: str,
    client_address: str,
    classification: str,
    input_file: str,
    endpoint: str,
    metadata: Mapping[str, str],
    narrowed: bool = False,
    outputs_expire_s: int | None = None,
) -> Batch:
    """Create a batch, which a gateway then validates and runs.

    Args:
        sender: public ID of the key for all lines' requests.
        client_address: the address of the key's caller.
        classification: the declared classification of all lines' data; the input's classification
            counts if it is higher.
        input_file: ID of a file of the department.
        narrowed: the key is restricted to deployments, and may use only its own files.
        outputs_expire_s: seconds until the batch's files are deleted; None for the default.

    Raises:
        FileUnknown: the file does not exist.
        InvalidInput: the endpoint, as RequestInvalid, or a bound is wrong.
        NotPermitted: the policy denies it.
        NoRoom: the department has reached its limit of files or bytes.
        WrongState: the department has reached its limit of open batches.
    """
    source = file_get(actor=actor, id=input_file, sender=sender if narrowed else "")
    classification = max(classification, source.classification, key=CLASSIFICATIONS.index)
    resource = Resource(
        type="batch",
        department=department.slug,
        attributes={"classification": classification, "deployment": ""},
    )
    decision = authorize(actor=actor, action=Action.BATCH_CREATE, resource=resource)
    check_endpoint(endpoint)
    if outputs_expire_s is not None and not LEAST_S <= outputs_expire_s <= MOST_S:
        raise InvalidInput(f"output_expires_after must be {LEAST_S:,} to {MOST_S:,} seconds.")
    if storable_json(metadata) != metadata:
        raise InvalidInput("metadata contains a NUL character.", fields={"metadata": ["No NUL."]})
    if source.purpose != FilePurpose.BATCH:
        raise InvalidInput(f"File {source.pk} is the output of a batch; upload an input.")
    # Lock the file until the batch exists, so that it cannot be deleted in between.
    if not StoredFile.objects.select_for_update().filter(pk=source.pk).exists():
        file_get(actor=actor, id=input_file)
    lock(f"batches:{department.pk}")
    if Batch.objects.filter(department=department, state__in=OPEN).count() >= OPEN_MAX:
        raise WrongState(
            f"Department {department.slug} has {OPEN_MAX} open batches, which is the maximum.",
            code="too_many_batches",
            hint="Wait until some have ended, or cancel some.",
        )
    room_take(department, files=FILES_OF_BATCH)
    now = timezone.now()
    batch = Batch.objects.create(
        id=f"batch_{secrets.token_hex(16)}",
        department=department,
        sender=sender,
        key_name=key_name,
        client_address=client_address,
        classification=classification,
        input_file=source.pk,
        endpoint=endpoint,
        metadata=dict(metadata),
        outputs_expire_s=outputs_expire_s,
        expires_at=now + WINDOW,
    )
    audit_record(
        actor=actor,
        action=Action.BATCH_CREATE,
        subject=batch_subject(batch),
        department=department.slug,
        data={"endpoint": endpoint, "input": source.pk, "sha256": source.sha256},
        decision=decision,
    )
    return batch


@transaction.atomic
def batch_cancel(*, actor: Principal, id: str, sender: str = "") -> Batch:  # noqa: A002
    """Cancel a batch: its remaining lines do not start, and its files have the results so far.
    Idempotent. `sender` as for `batches_visible_to`.

    Raises:
        NotFound: the batch does not exist, or the actor may not know of it.
        NotPermitted: the policy denies it.
        WrongState: it has ended, or its files are being written.
    """
    batch_get(actor=actor, id=id, sender=sender)
    batch = BATCH_STATES.locked(id)
    decision = authorize(actor=actor, action=Action.BATCH_CANCEL, resource=batch_resource(batch))
    if batch.state != BatchState.CANCELLING:
        batch_move(batch, BatchState.CANCELLING, actor=actor, decision=decision)
    return batch


def batches_purge_due() -> int:
    """Delete the rows of batches that ended long ago; return their number. For the controller."""
    controller = service_principal("controller")
    with transaction.atomic(), background("batches", controller):
        due = Batch.objects.filter(ended_at__lt=timezone.now() - _KEPT)
        rows = list(due.select_related("department").order_by("ended_at")[:_PURGED_AT_ONCE])
        counts: dict[Department, int] = {}
        for row in rows:
            counts[row.department] = counts.get(row.department, 0) + 1
        Batch.objects.filter(pk__in=[row.pk for row in rows]).delete()
        for department, count in counts.items():
            audit_record(
                actor=controller,
                action="batch:purge",
                subject=Subject("department", department.slug, department.name),
                department=department.slug,
                data={"count": count},
            )
    return len(rows)
