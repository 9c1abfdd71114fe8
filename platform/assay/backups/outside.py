"""Events that are known to the second place of the audit log or to witnesses, but not in a backup.

A backup is an earlier state: everything that was revoked, recalled or refused since would be in
force again. The second place has the number of later events; if it was reset, a witness knows the
largest log that it cosigned. Both only have hashes; the events themselves may be in exports or a
SIEM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured

from assay.backups.backup import Backup
from assay.backups.database import BackupFailed
from governance.audit.checkpoint import BadCheckpoint, Checkpoint, Verifier
from governance.audit.outside import witness
from governance.audit.outside.places import Place, PublishRefused
from governance.audit.outside.second_place import second_place
from governance.audit.outside.witnessing import witness_endpoints
from governance.audit.tree.tiles import (
    WIDTH,
    published_checkpoint,
    published_leaves,
    published_root,
)

SETTINGS = "ASSAY_AUDIT_PUBLISH_URL or ASSAY_AUDIT_PUBLISH_DIR names it."


@dataclass(frozen=True, slots=True)
class SecondPlaceState:
    """The second place, compared with a backup.

    Attributes:
        place: the second place; None without one.
        note: its checkpoint if the backup covers it; otherwise empty.
        lost: number of events in it, or in the log that a witness cosigned, that the backup lacks,
            except the backup's own.
        silent: witnesses that did not report what they cosigned.
    """

    place: Place | None
    note: str
    lost: int
    silent: tuple[str, ...]


def compare_second_place(
    record: Backup, verifier: Verifier, *, no_second_place: bool
) -> SecondPlaceState:
    """Compare a backup with the second place. With `no_second_place`, the operator states that
    there is none.

    Raises:
        BackupFailed: the place cannot be read, has no checkpoint, has a different history than the
            backup or an older state than the backup recorded; or it exists despite
            `no_second_place`.
    """
    head = _own_head(record, verifier)
    with _answering():
        cosigned, silent = _cosigned(record)
        place = second_place()
        note = published_checkpoint(place)
        if note is None:
            if no_second_place:
                return SecondPlaceState(None, "", max(0, cosigned - record.events), silent)
            raise _missing(place, record)
        if no_second_place:
            raise BackupFailed(
                f"There is a second place: {place.name} has a checkpoint.",
                hint="Leave out --i-have-no-second-place.",
            )
        try:
            outside = verifier.open(note)
            _require_one_history(place, outside, head)
        except (BadCheckpoint, PublishRefused) as error:
            raise BackupFailed(
                f"The second place and the backup contradict each other: {error}",
                hint="One of them belongs to another installation or was changed. Nothing was "
                "restored. `assay audit verify` compares exports with either.",
            ) from error
        if outside.size < record.published:
            raise BackupFailed(
                f"{record.published:,} events were in the second place when the backup was made, "
                f"and {place.name} has {outside.size:,}: it was reset, or is another place.",
                hint=f"Name the place that was in use. {SETTINGS}",
            )
        covered = outside.size <= record.events
        lost = max(_lost(place, outside, head, record), cosigned - max(record.events, outside.size))
        return SecondPlaceState(place, note if covered else "", lost, silent)


def _own_head(record: Backup, verifier: Verifier) -> Checkpoint | None:
    """Return the head of the backup's own log; None if nothing was sealed."""
    if not record.events:
        return None
    try:
        head = verifier.open(record.checkpoint)
    except BadCheckpoint as error:
        raise BackupFailed(
            f"The backup's checkpoint cannot be verified: {error}",
            hint="Set ASSAY_AUDIT_PUBLIC_KEY, ASSAY_AUDIT_RETIRED_KEYS and ASSAY_AUDIT_LOG_NAME to "
            "those of the installation that made the backup.",
        ) from error
    if head.size != record.events:
        raise BackupFailed("The backup's record and its checkpoint state different sizes.")
    return head


def _cosigned(record: Backup) -> tuple[int, tuple[str, ...]]:
    """Return the size of the largest log that a witness reports to have cosigned, and the witnesses
    that do not answer. A lying witness can only make the loss look larger."""
    witnesses = witness_endpoints() if record.events else []
    queries = [
        witness.CosignRequest(one, record.events, (), record.checkpoint) for one in witnesses
    ]
    answers = witness.ask(queries)
    sizes = [record.events if one.status == 200 else one.size() or 0 for one in answers]
    silent = [
        f"{one.witness.name} {answer.text}"
        for one, answer in zip(witnesses, answers, strict=True)
        if answer.status not in {200, 409}
    ]
    return max(sizes, default=0), tuple(silent)


def _missing(place: Place, record: Backup) -> BackupFailed:
    published = (
        f" {record.published:,} events were published before it." if record.published else ""
    )
    return BackupFailed(
        f"The second place of the audit log, {place.name}, has no checkpoint, so that it is not "
        f"known what was revoked or recalled after the backup.{published}",
        hint=f"Make it reachable. {SETTINGS} If it no longer exists, run this with "
        "--i-have-no-second-place: what was revoked after the backup is then in force again.",
    )


def _require_one_history(place: Place, outside: Checkpoint, head: Checkpoint | None) -> None:
    """Raise PublishRefused unless the published log continues the backup's. A shorter one is
    compared with the rows of the backup after they are restored."""
    if head is None or outside.size < head.size:
        return
    if outside == head:
        return
    for each in (head, outside):
        if published_root(place, each.size) != each.root:
            raise PublishRefused(
                f"the published tiles give another root over the first {each.size:,} events."
            )


def _lost(place: Place, outside: Checkpoint, head: Checkpoint | None, record: Backup) -> int:
    start = 0 if head is None else head.size
    if outside.size <= start:
        return 0
    # Only the next tile or two; the backup's own event comes soon after its head.
    until = min(outside.size, (start // WIDTH + 1) * WIDTH)
    own = bytes.fromhex(record.own_event) in published_leaves(place, start, until)
    return outside.size - start - own


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupFailed(
            "The second place of the audit log cannot be read, so that it is not known what was "
            f"recorded after the backup: {error}",
            hint=f"Make it reachable. {SETTINGS}",
        ) from error
    except ImproperlyConfigured as error:
        raise BackupFailed(str(error), hint=SETTINGS) from error
