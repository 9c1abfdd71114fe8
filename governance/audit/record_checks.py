"""Checks of the log's other records in the database: signed heads, subtree roots, people's keys.
An export does not contain these, so only the live log is checked this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from django.db import connection

from governance.audit.boxes import Body
from governance.audit.checkpoint import BadCheckpoint, Verifier, parse
from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.personal import box_opens, people_in_boxes, person_keys
from governance.audit.signing import audit_keys_by_log
from governance.audit.tree.merkle import Frontier, tree_root
from governance.audit.tree.tiles import WIDTH

PAGE = WIDTH * 256
# One statement, so that it sees a batch and its checkpoint together.
_STRAY = """
SELECT min(sequence) FROM governance_auditevent WHERE sequence >= (
    SELECT coalesce(max(tree_size), 0) FROM governance_auditcheckpoint
)
"""


def stray_event() -> int | None:
    """Return the first sequence number that no checkpoint covers; the sealer never leaves one."""
    with connection.cursor() as cursor:
        cursor.execute(_STRAY)
        sequence: int | None = cursor.fetchone()[0]
    return sequence


def fault_in_records(size: int) -> str:
    """Return the fault in the heads and subtrees over the first `size` events, whose leaf hashes
    are assumed to be valid; empty if there is none.
    """
    return _wrong_head(size) or _wrong_subtree(size)


class KeyCheck:
    """Check of people's keys: opens the first boxes of each person."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def changed(self, body: Body) -> int | None:
        """Return a person whose existing key does not open their box in `body`, or None."""
        new = people_in_boxes([body]) - self._seen
        if not new:
            return None
        self._seen |= new
        keys = person_keys(new)
        return next((person for person in new if not box_opens(body, person, keys)), None)


def _wrong_head(size: int) -> str:
    verifiers = {name: Verifier.from_text(keys) for name, keys in audit_keys_by_log().items()}
    leaves, tree = _leaves(size), Frontier()
    heads = AuditCheckpoint.objects.filter(tree_size__lte=size).order_by("tree_size")
    for head in heads.iterator(chunk_size=PAGE):
        tree.extend(islice(leaves, head.tree_size - tree.size))
        try:
            signed = _verifier_of(head.note, verifiers).open(head.note)
        except BadCheckpoint as error:
            return f"The checkpoint over {head.tree_size} events was changed: {error}"
        if (signed.size, signed.root) != (head.tree_size, tree.root()) or (
            bytes(head.root_hash),
            bytes(head.frontier),
        ) != (signed.root, tree.to_bytes()):
            return (
                f"The checkpoint over {head.tree_size} events was changed: its row is not what the "
                "events under it give."
            )
    return ""


def _verifier_of(note: str, verifiers: Mapping[str, Verifier]) -> Verifier:
    origin = parse(note).origin
    if origin not in verifiers:
        raise BadCheckpoint(f"It is of the log {origin}, of which no key is known here.")
    return verifiers[origin]


def _wrong_subtree(size: int) -> str:
    leaves = _leaves(size)
    rows = AuditSubtree.objects.order_by("index").values_list("index", "root_hash")
    stored = dict(rows.iterator(chunk_size=PAGE))
    for index in range(size // WIDTH):
        root = stored.pop(index, None)
        if root is None or bytes(root) != tree_root(islice(leaves, WIDTH)):
            first = index * WIDTH
            return (
                f"The root kept over events {first} to {first + WIDTH - 1} was changed; proofs are "
                "made from it."
            )
    return ""


def _leaves(size: int) -> Iterator[bytes]:
    for start in range(0, size, PAGE):
        page = AuditEvent.objects.filter(sequence__gte=start, sequence__lt=min(start + PAGE, size))
        hashes = page.order_by("sequence").values_list("leaf_hash", flat=True)
        yield from map(bytes, hashes)
