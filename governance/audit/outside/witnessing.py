"""Cosign checkpoints: choose the witnesses to ask, then judge and store their answers."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from governance.audit.checkpoint import BadCheckpoint
from governance.audit.cosignature import Cosignature
from governance.audit.models import AuditCheckpoint, AuditCosignature, AuditKeeper
from governance.audit.outside import keepers, witness
from governance.audit.tree.proofs import consistency_path

logger = logging.getLogger(__name__)

KIND = AuditKeeper.Kind.WITNESS
# A failed witness is skipped for this long; otherwise its time limit would delay each publication.
PAUSE_AFTER_FAILURE = timedelta(seconds=30)
CLOCK_SKEW = timedelta(minutes=5)


def witness_endpoints() -> list[witness.Endpoint]:
    """Return the configured witnesses.

    Raises:
        ImproperlyConfigured: ASSAY_AUDIT_WITNESSES has an invalid witness.
    """
    try:
        return witness.endpoints(settings.AUDIT_WITNESSES)
    except BadCheckpoint as error:
        raise ImproperlyConfigured(f"ASSAY_AUDIT_WITNESSES: {error}") from error


def owed(head: AuditCheckpoint) -> bool:
    """Return whether an available witness has not cosigned `head` yet."""
    return bool(_due(head))


def cosign(head: AuditCheckpoint) -> None:
    """Ask all due witnesses to cosign `head`; store valid cosignatures and failures."""
    due = _due(head)
    requests = [_request(endpoint, head, size) for endpoint, size in due]
    for request, answer in zip(requests, witness.ask(requests), strict=True):
        size = answer.size() if answer.status == 409 else None
        if size is None or size > head.tree_size or size == request.old_size:
            _judge(request, answer, head)
            continue
        # The witness last cosigned another head than the database has; ask again from that one.
        again = _request(request.endpoint, head, size)
        _judge(again, witness.ask([again])[0], head)


def cosigned_note(head: AuditCheckpoint) -> str:
    """Return the head's note with the lines of its cosignatures."""
    lines = head.cosignatures.values_list("line", flat=True)
    return head.note + "".join(f"{line}\n" for line in lines)


def _due(head: AuditCheckpoint) -> list[tuple[witness.Endpoint, int]]:
    """Return the witnesses to ask, and the size of the tree that each is known to have cosigned."""
    endpoints = witness_endpoints()
    if not endpoints:
        return []
    done = set(head.cosignatures.values_list("witness", flat=True))
    rows = AuditKeeper.objects.in_bulk([str(endpoint.witness) for endpoint in endpoints])
    since = timezone.now() - PAUSE_AFTER_FAILURE
    due = []
    for endpoint in endpoints:
        row = rows.get(str(endpoint.witness))
        paused = row is not None and row.fault and row.tried_at > since
        if str(endpoint.witness) not in done and not paused:
            due.append((endpoint, min(row.size, head.tree_size) if row is not None else 0))
    return due


def _request(endpoint: witness.Endpoint, head: AuditCheckpoint, size: int) -> witness.CosignRequest:
    return witness.CosignRequest(endpoint, size, consistency_path(size, head.tree_size), head.note)


def _judge(request: witness.CosignRequest, answer: witness.Answer, head: AuditCheckpoint) -> None:
    """Store the cosignature, or record the fault in the answer."""
    key = str(request.endpoint.witness)
    cosignature = request.endpoint.witness.find(request.note + answer.text)
    if answer.status == 200 and cosignature is not None and _in_time(cosignature):
        _keep(head, cosignature)
        keepers.reached(key, KIND, head.tree_size)
        return
    contradiction = _contradiction(request, answer, head)
    if contradiction:
        logger.critical("The witness %s refuses the audit log's history: %s", key, contradiction)
        keepers.contradicted(key, KIND, contradiction)
        return
    fault = _fault(answer)
    logger.warning("The witness %s did not cosign %d events: %s", key, head.tree_size, fault)
    keepers.failed(key, KIND, fault)


def _contradiction(
    request: witness.CosignRequest, answer: witness.Answer, head: AuditCheckpoint
) -> str:
    """Return the contradiction that the answer reveals between two histories, or ""."""
    size = answer.size()
    if answer.status == 422:
        return (
            f"it has cosigned {request.old_size} events that are not the beginning of the "
            f"{head.tree_size} that are sealed now."
        )
    if answer.status != 409:
        return ""
    if size is not None and size > head.tree_size:
        return f"it has cosigned {size} events, the database has sealed {head.tree_size}."
    if request.old_size == head.tree_size:
        return f"it has cosigned another root over {head.tree_size} events."
    return ""


def _fault(answer: witness.Answer) -> str:
    if answer.status == 0:
        return answer.text
    if answer.status == 200:
        return "it answered without a valid cosignature of the current time."
    faults = {403: "it does not know the log's key.", 404: "it does not know the log."}
    return faults.get(answer.status, f"it answered with status {answer.status}.")


def _in_time(cosignature: Cosignature) -> bool:
    now = timezone.now()
    return now - CLOCK_SKEW <= cosignature.cosigned_at <= now + CLOCK_SKEW


def _keep(head: AuditCheckpoint, cosignature: Cosignature) -> None:
    AuditCosignature.objects.bulk_create(
        [
            AuditCosignature(
                checkpoint=head,
                witness=cosignature.witness,
                line=cosignature.line,
                cosigned_at=cosignature.cosigned_at,
            )
        ],
        ignore_conflicts=True,
    )
