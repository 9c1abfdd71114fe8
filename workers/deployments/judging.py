"""Verdicts on all live deployments, kept by applying the one rule to those that changed.

`serving_verdicts` alone decides. It is asked again when a change names anything that it reads, when
the time that a verdict states is over, and for every deployment in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from itertools import islice

from django.utils import timezone

from governance.changes.reading import Position, changes_since
from registry.releases.serving import serving_verdicts
from workers.deployments.changed import deployments_rejudged
from workers.deployments.models import Deployment
from workers.deployments.selectors import live_deployments
from workers.deployments.states import LIVE

# Deployments that are judged at once.
CHUNK = 500
# Interval at which the IDs of all live deployments are compared, and some deployments are judged
# again although no change named them, in seconds.
CHECK_S = 10.0
# Number of these, and of refused ones in addition.
CHECKED = 80


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdict on a live deployment. `refused` is the code of a refusal, empty for none; `final`: it
    is refused for good. The verdict holds until `until`; `judged_at` is on the monotonic clock."""

    refused: str
    final: bool
    until: datetime | None
    judged_at: float


class Judge:
    """Keeps the verdicts for one loop of the controller. Without `checks`, it judges only what a
    change or the clock names."""

    def __init__(self, *, checks: bool = True) -> None:
        self._checks = checks
        self._position: Position | None = None
        self._checked_at = float("-inf")
        self._unjudged: set[int] = set()
        self._verdicts: dict[int, Judged] = {}

    def rounds(self) -> Iterator[Mapping[int, Judged]]:
        """Bring the verdicts up to date. Yield those that are, after each `CHUNK`, without the ones
        that are still to be judged; usually this is once.

        Raises:
            django.db.Error: the database does not answer. What was not judged has no verdict.
        """
        now = timezone.now()
        changes = changes_since(self._position)
        if self._position is None or changes.lost or changes.of("department"):
            self._verdicts, self._checked_at = {}, float("-inf")
        due = deployments_rejudged(changes, now) | self._over(now)
        if time.monotonic() - self._checked_at >= CHECK_S:
            live = Deployment.objects.filter(state__in=LIVE).order_by()
            due |= set(live.values_list("pk", flat=True)) ^ self._verdicts.keys()
            due |= self._to_check() if self._checks else set()
            self._checked_at = time.monotonic()
        self._position = changes.position
        self._unjudged |= due
        for pk in due:
            self._verdicts.pop(pk, None)
        while True:
            chunk = set(islice(self._unjudged, CHUNK))
            self._verdicts |= _judged(chunk)
            self._unjudged -= chunk
            yield self._verdicts
            if not self._unjudged:
                return

    def _over(self, now: datetime) -> set[int]:
        """Return the IDs of deployments whose verdict has expired."""
        return {
            pk
            for pk, judged in self._verdicts.items()
            if not judged.refused and (judged.until is None or judged.until <= now)
        }

    def _to_check(self) -> set[int]:
        """Return the deployments that were judged longest ago, and of those that are refused for
        now: such a refusal, as of a row that cannot be read, may end without a change."""
        verdicts = self._verdicts
        refused = [pk for pk, judged in verdicts.items() if judged.refused and not judged.final]

        def oldest(ids: Iterable[int]) -> list[int]:
            return nsmallest(CHECKED, ids, key=lambda pk: verdicts[pk].judged_at)

        return {*oldest(verdicts), *oldest(refused)}


def _judged(ids: set[int]) -> dict[int, Judged]:
    if not ids:
        return {}
    judged_at = time.monotonic()
    rows = list(live_deployments().filter(pk__in=ids))
    verdicts = serving_verdicts([row.release for row in rows])
    return {
        row.pk: Judged(
            refused="" if verdict.refusal is None else verdict.refusal.code,
            final=verdict.final,
            until=verdict.until,
            judged_at=judged_at,
        )
        for row in rows
        for verdict in [verdicts[row.release_id]]
    }
