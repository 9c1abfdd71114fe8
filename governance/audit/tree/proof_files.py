"""Proofs as exported documents, and checks of them. Does not import Django: runs offline.

A document is JSON. Its hashes are hexadecimal; its checkpoints are C2SP signed notes; its paths are
those of RFC 6962 section 2.1, so that any implementation of RFC 6962 or RFC 9162 can check them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from governance.audit.checkpoint import Verifier
from governance.audit.tree.merkle import leaf_hash, verify_consistency, verify_inclusion

FORMAT = "assay-audit-proof/1"
# A path has a hash for each level; 64 are enough for any 64-bit tree size.
MAX_PATH = 64
_HASH = re.compile(r"[0-9a-f]{64}")


class BadProof(ValueError):
    """Document that is not a proof, or that does not prove its claim."""


def inclusion_document(
    *,
    public_keys: str,
    checkpoint: str,
    sequence: int,
    tree_size: int,
    canonical: str,
    path: list[bytes],
) -> dict[str, Any]:
    """Return the proof that the event with bytes `canonical` is at `sequence` in the checkpoint."""
    return {
        "format": FORMAT,
        "kind": "inclusion",
        "public_keys": public_keys,
        "checkpoint": checkpoint,
        "sequence": sequence,
        "tree_size": tree_size,
        "canonical": canonical,
        "leaf_hash": leaf_hash(canonical.encode()).hex(),
        "path": [step.hex() for step in path],
    }


def consistency_document(
    *, public_keys: str, old: str, new: str, path: list[bytes]
) -> dict[str, Any]:
    """Return the proof that the log only grew from checkpoint `old` to checkpoint `new`."""
    return {
        "format": FORMAT,
        "kind": "consistency",
        "public_keys": public_keys,
        "old_checkpoint": old,
        "new_checkpoint": new,
        "path": [step.hex() for step in path],
    }


def check_proof(document: Any, *, public_keys: str, earlier_note: str = "") -> str:
    """Check a document; return a sentence on what it proves.

    Args:
        public_keys: The log's verifier keys, `name+hash+base64`, from another source.
        earlier_note: The verifier's own checkpoint: the old one of a consistency proof.

    Raises:
        BadProof, BadCheckpoint: the proof is invalid.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise BadProof(f"This is not a proof from an audit log ({FORMAT}).")
    verifier = Verifier.from_text(public_keys)
    if document.get("kind") == "inclusion" and not earlier_note:
        return _check_inclusion(document, verifier)
    if document.get("kind") == "consistency":
        return _check_consistency(document, verifier, earlier_note)
    raise BadProof("This proof is not of the requested kind.")


def _check_inclusion(document: Mapping[str, Any], verifier: Verifier) -> str:
    head = verifier.open(_text(document, "checkpoint"))
    sequence, canonical = document.get("sequence"), _text(document, "canonical")
    if type(sequence) is not int or document.get("tree_size") != head.size:
        raise BadProof("The proof's sequence or tree size is not that of its checkpoint.")
    leaf = leaf_hash(canonical.encode("utf-8", "surrogatepass"))
    if document.get("leaf_hash") != leaf.hex():
        raise BadProof("The event was changed: its bytes do not give the leaf hash.")
    if not verify_inclusion(leaf, sequence, head.size, _path(document), head.root):
        raise BadProof(
            f"The event is not proved: the path does not lead from it to the signed root over "
            f"{head.size} events."
        )
    return (
        f"Event {sequence} is in the log {head.origin}: its bytes lead to the signed root over "
        f"{head.size} events."
    )


def _check_consistency(document: Mapping[str, Any], verifier: Verifier, earlier_note: str) -> str:
    old = verifier.open(_text(document, "old_checkpoint"))
    new = verifier.open(_text(document, "new_checkpoint"))
    if earlier_note and (mine := verifier.open(earlier_note)) != old:
        raise BadProof(
            f"The proof starts from another checkpoint over {old.size} events than the one kept, "
            f"over {mine.size}: the log was rewritten, or the proof is for another checkpoint."
        )
    if not verify_consistency(old.size, new.size, old.root, new.root, _path(document)):
        raise BadProof(
            f"The log of {new.size} events is not proved to contain that of {old.size}: "
            "history was changed in between."
        )
    return (
        f"The log {new.origin} only grew: its first {old.size} events are unchanged among the "
        f"{new.size} of the newer checkpoint."
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise BadProof(f"The proof has no {name.replace('_', ' ')}.")
    return value


def _path(document: Mapping[str, Any]) -> list[bytes]:
    path = document.get("path")
    if not isinstance(path, list) or len(path) > MAX_PATH:
        raise BadProof("The proof has no path of hashes.")
    if not all(isinstance(step, str) and _HASH.fullmatch(step) for step in path):
        raise BadProof("A step of the proof's path is not a SHA-256 hash in hexadecimal.")
    return [bytes.fromhex(step) for step in path]
