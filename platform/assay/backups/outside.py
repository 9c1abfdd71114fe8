"""Events that the second place of the audit log and its witnesses know and a backup lacks.

A backup is the state of a past moment: what was revoked, recalled or refused after it would be in
force again. The second place has the number of events that came later, and a witness remembers the
largest log that it cosigned, if the place was reset. Both hold hashes alone, so that the events
themselves are in exports, in a SIEM, or nowhere.
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
class Outside:
    """The second place, compared with a backup.

    Attributes:
        place: The place; None without one.
        note: Its checkpoint, where the backup covers it; else empty.
        lost: Events in it, or in the log that a witness cosigned, that the backup lacks, without
            the backup's own.
        silent: Witnesses that did not say what they cosigned.
    """

    place: Place | None
    note: str
    lost: int
    silent: tuple[str, ...]


def compare(record: Backup, verifier: Verifier, *, without: bool) -> Outside:
    """Compare a backup with the second place; `without`: the operator states that there is none.

    Raises:
        BackupFailed: the place cannot be read, has no checkpoint, has another history than the
            backup or an older state than the backup knows of; or there is one, `without` or not.
    """
    head = _own_head(record, verifier)
    with _answering():
        cosigned, silent = _cosigned(record)
        place = second_place()
        note = published_checkpoint(place)
        if note is None:
            if without:
                return Outside(None, "", max(0, cosigned - record.events), silent)
            raise _missing(place, record)
        if without:
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
                hint="One of the two is of another installation, or was changed. Nothing was "
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
        return Outside(place, note if covered else "", lost, silent)


def _own_head(record: Backup, verifier: Verifier) -> Checkpoint | None:
    """Return the head of the backup's own log; None when nothing was sealed."""
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
    """Return the size of the largest log that a witness says it has cosigned, and those witnesses
    that say nothing. One that lies can only make the loss look larger."""
    named = witness_endpoints() if record.events else []
    asked = [witness.Asked(one, record.events, (), record.checkpoint) for one in named]
    answers = witness.ask(asked)
    sizes = [record.events if one.status == 200 else one.size() or 0 for one in answers]
    silent = [
        f"{one.witness.name} {answer.text}"
        for one, answer in zip(named, answers, strict=True)
        if answer.status not in {200, 409}
    ]
    return max(sizes, default=0), tuple(silent)


def _missing(place: Place, record: Backup) -> BackupFailed:
    known = f" {record.published:,} events were published before it." if record.published else ""
    return BackupFailed(
        f"The second place of the audit log, {place.name}, has no checkpoint, so that it is not "
        f"known what was revoked or recalled after the backup.{known}",
        hint=f"Make it reachable. {SETTINGS} If there is none any more, run this with "
        "--i-have-no-second-place: what was revoked after the backup is then in force again.",
    )


def _require_one_history(place: Place, outside: Checkpoint, head: Checkpoint | None) -> None:
    """Raise PublishRefused unless the published log continues the backup's. One that is shorter is
    compared with the rows of the backup, once they are restored."""
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
    # The next tile or two: what a quiet installation recorded meanwhile.
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
