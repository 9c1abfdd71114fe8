"""Audit events of a release, each with its proof, for an evidence pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.personal import disclosures, opened_bodies
from governance.audit.tree.paths import inclusion_paths
from governance.errors import TooLarge, WrongState
from governance.permissions import Action

# What was decided is in a pack whole or not at all; of the rest, the newest. Packs that were taken
# are bounded on their own: whoever takes one again and again must crowd out nothing else.
MAX_EVENTS = 10_000
MAX_OTHERS = 1_000
MAX_TAKEN = 100


@dataclass(frozen=True, slots=True)
class Record:
    """Sealed events in the log's order, what each says (boxes opened), and the head they lead to.

    `left_out` counts older refusals, events of deployments and packs taken that did not fit.
    """

    events: tuple[AuditEvent, ...]
    bodies: tuple[dict[str, Any], ...]
    checkpoint: AuditCheckpoint
    left_out: int

    def about(self, subject_type: str, subject_id: int) -> list[tuple[AuditEvent, dict[str, Any]]]:
        """The events of one subject that were let through, with what they say."""
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

    Requests to `/v1` are left out: they are use, not evidence for a decision. So is what was
    refused in other departments than the release's `department`, to which the version may belong:
    who takes the pack may not know of it.

    Raises:
        TooLarge: there are more than a pack may hold.
        WrongState: one is not sealed yet, or the log was tampered with and proves nothing.
    """
    own = (
        _of("release", [release_id])
        | _of("review", reviews)
        | _of("version", [version_id])
        | _of("evaluation", evaluations)
        | _of("emergency_access", emergencies)
    )
    run = _of("deployment", deployments) & ~Q(action=Action.DEPLOYMENT_INVOKE)
    taken = Q(action=Action.RELEASE_EVIDENCE)
    decided = list(
        AuditEvent.objects.filter(own & ~taken, outcome="allowed").order_by("id")[: MAX_EVENTS + 1]
    )
    if len(decided) > MAX_EVENTS:
        raise TooLarge(
            f"Release {release_id} has more than {MAX_EVENTS:,} audit events; they fit no pack.",
            hint="An export of the audit log holds them all.",
        )
    refused = ~Q(outcome="allowed") & Q(department__in=("", department))
    others, others_left = _newest(run | (own & refused), MAX_OTHERS)
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
            f"The audit log says nothing of release {release_id}; there is no evidence to pack.",
            hint="`assay audit verify` shows whether the log is intact.",
        )
    left_out = others_left + packs_left
    return Record(tuple(events), tuple(opened_bodies(events)), checkpoint, left_out)


def _newest(which: Q, most: int) -> tuple[list[AuditEvent], int]:
    """The newest sealed ones, and how many are older."""
    rows = AuditEvent.objects.filter(which, sequence__isnull=False).order_by("-id")
    newest = list(rows[:most])
    return newest, max(0, rows.count() - most) if len(newest) == most else 0


def _checkpoint(last: int | None) -> AuditCheckpoint | None:
    """The newest that covers the event at `last`; one that witnesses cosigned before another."""
    heads = AuditCheckpoint.objects.filter(tree_size__gt=last or 0)
    return heads.filter(cosignatures__isnull=False).first() or heads.first()


def _of(kind: str, ids: Iterable[int]) -> Q:
    return Q(subject_type=kind, subject_id__in=[str(each) for each in ids])


def events_document(record: Record, department: str) -> dict[str, Any]:
    """Bytes, leaf hash and path of each event, and the keys of those boxes that still open.

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
                "canonical": bytes(event.canonical).decode(),
                "leaf_hash": bytes(event.leaf_hash).hex(),
                "path": [step.hex() for step in paths[event.pk]],
                "disclosures": [
                    {"of": each.of, "key": each.key.hex()}
                    # What another department did with a shared version stays under its keys.
                    for each in keys.get(event.pk, ())
                    if event.department in ("", department)
                ],
            }
            for event in record.events
        ],
    }
