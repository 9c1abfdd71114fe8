"""Having checkpoints cosigned: whom to ask, what to think of the answer, and what to keep."""

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
# One that fails is left alone for a while: it would hold up every publication by its time limit.
PAUSE_AFTER_FAILURE = timedelta(seconds=30)
CLOCK_SKEW = timedelta(minutes=5)


def witness_endpoints() -> list[witness.Endpoint]:
    """The witnesses that the settings name.

    Raises:
        ImproperlyConfigured: ASSAY_AUDIT_WITNESSES names what is none.
    """
    try:
        return witness.endpoints(settings.AUDIT_WITNESSES)
    except BadCheckpoint as error:
        raise ImproperlyConfigured(f"ASSAY_AUDIT_WITNESSES: {error}") from error


def owed(head: AuditCheckpoint) -> bool:
    """True while an available witness has not cosigned `head`."""
    return bool(_due(head))


def cosign(head: AuditCheckpoint) -> None:
    """Ask every witness that is due to cosign `head`; keep what verifies, remember what failed."""
    due = _due(head)
    requests = [_request(endpoint, head, size) for endpoint, size in due]
    for request, answer in zip(requests, witness.ask(requests), strict=True):
        known = answer.size() if answer.status == 409 else None
        if known is None or known > head.tree_size or known == request.old_size:
            _judge(request, answer, head)
            continue
        # It cosigned another head than we remember; that it says which one is how we find out.
        again = _request(request.endpoint, head, known)
        _judge(again, witness.ask([again])[0], head)


def cosigned_note(head: AuditCheckpoint) -> str:
    """The head's note with the lines of every witness that cosigned it."""
    lines = head.cosignatures.values_list("line", flat=True)
    return head.note + "".join(f"{line}\n" for line in lines)


def _due(head: AuditCheckpoint) -> list[tuple[witness.Endpoint, int]]:
    """Return the witnesses to ask, and the size of the tree that each is known to have cosigned."""
    named = witness_endpoints()
    if not named:
        return []
    done = set(head.cosignatures.values_list("witness", flat=True))
    known = AuditKeeper.objects.in_bulk([str(one.witness) for one in named])
    since = timezone.now() - PAUSE_AFTER_FAILURE
    due = []
    for one in named:
        row = known.get(str(one.witness))
        resting = row is not None and row.fault and row.tried_at > since
        if str(one.witness) not in done and not resting:
            due.append((one, min(row.size, head.tree_size) if row is not None else 0))
    return due


def _request(endpoint: witness.Endpoint, head: AuditCheckpoint, size: int) -> witness.Asked:
    return witness.Asked(endpoint, size, consistency_path(size, head.tree_size), head.note)


def _judge(asked: witness.Asked, answer: witness.Answer, head: AuditCheckpoint) -> None:
    """Keep the cosignature, or say what is wrong with the answer."""
    key = str(asked.endpoint.witness)
    cosignature = asked.endpoint.witness.find(asked.note + answer.text)
    if answer.status == 200 and cosignature is not None and _in_time(cosignature):
        _keep(head, cosignature)
        keepers.reached(key, KIND, head.tree_size)
        return
    refused = _refusal(asked, answer, head)
    if refused:
        logger.critical("The witness %s refuses the audit log's history: %s", key, refused)
        keepers.contradicted(key, KIND, refused)
        return
    fault = _fault(answer)
    logger.warning("The witness %s did not cosign %d events: %s", key, head.tree_size, fault)
    keepers.failed(key, KIND, fault)


def _refusal(asked: witness.Asked, answer: witness.Answer, head: AuditCheckpoint) -> str:
    """Return a witness's statement about two histories; empty without one."""
    known = answer.size()
    if answer.status == 422:
        return (
            f"it has cosigned {asked.old_size} events that are not the beginning of the "
            f"{head.tree_size} that are sealed now."
        )
    if answer.status != 409:
        return ""
    if known is not None and known > head.tree_size:
        return f"it has cosigned {known} events, the database has sealed {head.tree_size}."
    if asked.old_size == head.tree_size:
        return f"it has cosigned another root over {head.tree_size} events."
    return ""


def _fault(answer: witness.Answer) -> str:
    if answer.status == 0:
        return answer.text
    if answer.status == 200:
        return "it answered without a valid cosignature of this time."
    known = {403: "it does not know the log's key.", 404: "it does not know the log."}
    return known.get(answer.status, f"it answered with status {answer.status}.")


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
