"""Proofs for owners of a checkpoint: that an event is in the log, that the log only grew.

Both follow RFC 6962, so any implementation can check them. A proof reads one tile of leaves and a
root for every 256 events, not the whole log.
"""

from __future__ import annotations

from typing import Any

from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.outside.bodies import canonical_of
from governance.audit.selectors import audit_checkpoints_visible_to
from governance.audit.signing import audit_public_keys
from governance.audit.tree import merkle
from governance.audit.tree.proof_files import consistency_document, inclusion_document
from governance.audit.tree.tiles import WIDTH, split_hashes
from governance.errors import InvalidInput, WrongState
from governance.principals import Principal


def inclusion_proof(event: AuditEvent) -> dict[str, Any]:
    """Return the proof that the latest checkpoint covers `event`, for `proof_files.check_proof`.

    Raises:
        WrongState: the event is not sealed yet, or the log was tampered with.
    """
    checkpoint = AuditCheckpoint.objects.first()
    if event.sequence is None or checkpoint is None or event.sequence >= checkpoint.tree_size:
        raise WrongState(
            f"Audit event {event.pk} is not sealed yet; it has no proof.",
            hint="Events are sealed within a second; try again. If not, the controller is down.",
            retry_after=1,
        )
    size, leaf = checkpoint.tree_size, bytes(event.leaf_hash)
    path = merkle.inclusion_proof(_range_root, size, event.sequence)
    root, canonical = bytes(checkpoint.root_hash), canonical_of(event)
    if leaf != merkle.leaf_hash(canonical) or not merkle.verify_inclusion(
        leaf, event.sequence, size, path, root
    ):
        raise _tampered(f"Audit event {event.pk} cannot be proved to be in the log")
    return inclusion_document(
        public_keys=audit_public_keys(),
        checkpoint=checkpoint.note,
        sequence=event.sequence,
        tree_size=size,
        canonical=canonical.decode(),
        path=path,
    )


def consistency_proof(
    *, actor: Principal, old_size: int, new_size: int | None = None
) -> dict[str, Any]:
    """Return the proof between the checkpoints over `old_size` and `new_size` events (default: the
    latest), for `proof_files.check_proof`.

    Raises:
        NotFound, NotPermitted: the actor may not read the whole log.
        InvalidInput: no checkpoint has that size, or the old one is larger than the new one.
        WrongState: nothing is sealed yet, or the log was tampered with.
    """
    heads = audit_checkpoints_visible_to(actor)
    new = heads.first() if new_size is None else heads.filter(tree_size=new_size).first()
    if new is None and new_size is None:
        raise WrongState(
            "Nothing is sealed yet, so there is no checkpoint to prove from.",
            hint="The controller seals about ten times a second; is it running?",
        )
    old = heads.filter(tree_size=old_size).first()
    if old is None or new is None:
        missing = old_size if old is None else new_size
        raise InvalidInput(
            f"There is no checkpoint over {missing} events.",
            hint="GET /api/v1/audit/checkpoints lists all checkpoints.",
        )
    if old.tree_size > new.tree_size:
        raise InvalidInput(
            f"A log of {new.tree_size} events cannot have grown from one of {old.tree_size}.",
            hint="Name the older checkpoint first.",
        )
    path = consistency_path(old.tree_size, new.tree_size)
    if not merkle.verify_consistency(
        old.tree_size, new.tree_size, bytes(old.root_hash), bytes(new.root_hash), path
    ):
        raise _tampered(
            f"The log of {new.tree_size} events cannot be proved to contain that of {old.tree_size}"
        )
    return consistency_document(
        public_keys=audit_public_keys(), old=old.note, new=new.note, path=path
    )


def leaf_hashes(start: int, end: int) -> bytes:
    """Return the concatenated leaf hashes of events `start` to `end` (exclusive)."""
    rows = AuditEvent.objects.filter(sequence__gte=start, sequence__lt=end).order_by("sequence")
    return b"".join(bytes(leaf) for leaf in rows.values_list("leaf_hash", flat=True))


def consistency_path(old_size: int, new_size: int) -> list[bytes]:
    """Return the proof that the tree of `new_size` leaves begins with the tree of `old_size`."""
    return merkle.consistency_proof(_range_root, old_size, new_size)


def _range_root(start: int, end: int) -> bytes:
    """Return the root over a range of a proof, which starts at a multiple of its own width."""
    first, last = -(-start // WIDTH), end // WIDTH
    if last <= first:
        return merkle.tree_root(split_hashes(leaf_hashes(start, end)))
    rows = AuditSubtree.objects.filter(index__gte=first, index__lt=last).order_by("index")
    frontier = merkle.Frontier()
    frontier.extend(bytes(root) for root in rows.values_list("root_hash", flat=True))
    rest = split_hashes(leaf_hashes(last * WIDTH, end))
    if not rest:
        return frontier.root()
    return merkle.Frontier(0, [*frontier.hashes, merkle.tree_root(rest)]).root()


def _tampered(what: str) -> WrongState:
    return WrongState(
        f"{what}: what is stored contradicts the signed checkpoint.",
        hint="`assay audit verify` names the first row that was changed.",
    )
