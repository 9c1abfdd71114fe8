"""Audit events of a release, each with its proof, for an evidence pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.outside.bodies import canonical_of
from governance.audit.personal import disclosures, opened_bodies
from governance.audit.tree.paths import inclusion_paths
from governance.errors import TooLarge, WrongState
from governance.permissions import Action

# A pack has all events of decisions, or is refused; of other events, it has the newest. Events of
# packs have a limit of their own, so that many packs do not crowd out other events.
MAX_EVENTS = 10_000
MAX_OTHERS = 1_000
MAX_TAKEN = 100


@dataclass(frozen=True, slots=True)
class Record:
    """Sealed events in the log's order, their bodies (boxes opened), and the head of their proofs.

    `left_out` counts older refusals, events of deployments and packs taken that did not fit.
    """

    events: tuple[AuditEvent, ...]
    bodies: tuple[dict[str, Any], ...]
    checkpoint: AuditCheckpoint
    left_out: int

    def about(self, subject_type: str, subject_id: int) -> list[tuple[AuditEvent, dict[str, Any]]]:
        """Return the allowed events of one subject, with their bodies."""
        return [
            (event, body)
            for event, body in zip(self.events, self.bodies, strict=True)
            if (event.subject_type, event.subject_id) == (subject_type, str(subject_id))
            and event.outcome == "allowed"
        ]


def release_record(
    *,
    release_id: int,
    department: str,
    reviews: Sequence[int],
    version_id: int,
    evaluations: Sequence[int],
    deployments: Sequence[int],
    emergencies: Sequence[int] = (),
) -> Record:
    """Return the events of a release, its reviews, version, evaluations and deployments.

    Requests to `/v1` are left out: they are use, not evidence for a decision. So are refusals in
    departments other than the release's `department`, to which the version may belong: the reader
    of the pack may not see them.

    Raises:
        TooLarge: there are too many for a pack.
        WrongState: one is not sealed yet, or the log was tampered with and proves nothing.
    """
    own = (
        _of("release", [release_id])
        | _of("review", reviews)
        | _of("version", [version_id])
        | _of("evaluation", evaluations)
        | _of("emergency_access", emergencies)
    )
    served = _of("deployment", deployments) & ~Q(action=Action.DEPLOYMENT_INVOKE)
    taken = Q(action=Action.RELEASE_EVIDENCE)
    decided = list(
        AuditEvent.objects.filter(own & ~taken, outcome="allowed").order_by("id")[: MAX_EVENTS + 1]
    )
    if len(decided) > MAX_EVENTS:
        raise TooLarge(
            f"Release {release_id} has more than {MAX_EVENTS:,} audit events, too many for a pack.",
            hint="Export the audit log instead.",
        )
    refused = ~Q(outcome="allowed") & Q(department__in=("", department))
    others, others_left = _newest(served | (own & refused), MAX_OTHERS)
    packs, packs_left = _newest(own & taken & Q(outcome="allowed"), MAX_TAKEN)
    if any(event.sequence is None for event in decided):
        raise WrongState(
            f"The last event of release {release_id} is not sealed in the log yet.",
            hint="Events are sealed within a second; try again. If not, the controller is down.",
            retry_after=1,
        )
    events = sorted([*decided, *others, *packs], key=lambda event: event.sequence or 0)
    checkpoint = _checkpoint(events[-1].sequence if events else None)
    if checkpoint is None or not decided:
        raise WrongState(
            f"The audit log has no events of release {release_id}; no evidence was packed.",
            hint="`assay audit verify` shows whether the log is intact.",
        )
    left_out = others_left + packs_left
    return Record(tuple(events), tuple(opened_bodies(events)), checkpoint, left_out)


def _newest(which: Q, most: int) -> tuple[list[AuditEvent], int]:
    """Return the newest sealed events, and the number of older ones."""
    rows = AuditEvent.objects.filter(which, sequence__isnull=False).order_by("-id")
    newest = list(rows[:most])
    return newest, max(0, rows.count() - most) if len(newest) == most else 0


def _checkpoint(last: int | None) -> AuditCheckpoint | None:
    """Return a checkpoint that covers the event at `last`, preferably cosigned by witnesses."""
    heads = AuditCheckpoint.objects.filter(tree_size__gt=last or 0)
    return heads.filter(cosignatures__isnull=False).first() or heads.first()


def _of(kind: str, ids: Iterable[int]) -> Q:
    return Q(subject_type=kind, subject_id__in=[str(each) for each in ids])


def events_document(record: Record, department: str) -> dict[str, Any]:
    """Return bytes, leaf hash and path of each event, and the keys of boxes that still open.

    Raises:
        WrongState: the log was tampered with and proves nothing.
    """
    paths = inclusion_paths(record.events, record.checkpoint)
    keys = disclosures(record.events)
    return {
        "tree_size": record.checkpoint.tree_size,
        "events": [
            {
                "id": event.pk,
                "sequence": event.sequence,
                "canonical": canonical_of(event).decode(),
                "leaf_hash": bytes(event.leaf_hash).hex(),
                "path": [step.hex() for step in paths[event.pk]],
                "disclosures": [
                    {"of": each.of, "key": each.key.hex()}
                    # Boxes of another department that shares the version stay closed.
                    for each in keys.get(event.pk, ())
                    if event.department in ("", department)
                ],
            }
            for event in record.events
        ],
    }
