"""The controller's placement: assign deployments to engine workers, and report shortages.

Reads everything with a fixed number of queries, calls `planning.plan`, and writes the changes in
one transaction. Only one controller does this at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.database.locks import try_lock
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.states import LIVE
from workers.dispatch import wake_engines
from workers.placement.loads import Scaler
from workers.placement.models import REASON_MAX, Placement
from workers.placement.planning import ASLEEP, WAITS, Move, Plan, plan
from workers.placement.reading import (
    SILENCE_S,
    copies_assigned,
    deployments_assignable,
    desired_deployments,
    workers_reporting,
)

logger = logging.getLogger(__name__)
# Longest pause between two rounds, in seconds, after which silence of workers still counts.
PAUSE_S = 10.0
_BATCH = 500


class Placer:
    """Runs rounds of placement. Remembers since when it has run without a pause: during a pause,
    such as an outage of the database, workers cannot report, so they do not count as lost at once.
    """

    def __init__(self) -> None:
        self._since = self._last = float("-inf")
        self._scaler = Scaler()

    def run(self) -> Plan | None:
        """Do one round and return its plan, or None if another controller does it."""
        now = time.monotonic()
        if now - self._last > PAUSE_S:
            self._since = now
        latest = placements_update(trusting=now - self._since < SILENCE_S, scale=self._scaler.run)
        if latest is None:
            self._scaler.forget()
        self._last = time.monotonic()
        return latest

    def close(self) -> None:
        """Close the connection to the broker."""
        self._scaler.close()


@transaction.atomic
def placements_update(
    *, trusting: bool = False, scale: Callable[[], object] = lambda: None
) -> Plan | None:
    """Plan, and write assignments and messages; return the plan, or None if another session does.

    With `trusting`, silent workers count as alive but get nothing new. `scale` sets the wanted
    replicas, under the same lock: otherwise two controllers would both react to one busy period.
    """
    if not try_lock("placement"):
        return None
    scale()
    copies = copies_assigned()
    rows = deployments_assignable(copies)
    planned = plan(workers_reporting(trusting=trusting), desired_deployments(rows), copies)
    _write(planned.moves)
    _state_shortages(rows, planned.shortages)
    if planned.moves:
        transaction.on_commit(partial(wake_engines, {move.worker for move in planned.moves}))
    return planned


def _write(moves: tuple[Move, ...]) -> None:
    removed = {(move.deployment, move.worker) for move in moves if not move.add}
    if removed:
        rows = Placement.objects.filter(deployment_id__in={pk for pk, _worker in removed})
        keys = rows.values_list("pk", "deployment_id", "worker")
        Placement.objects.filter(
            pk__in=[pk for pk, *pair in keys if tuple(pair) in removed]
        ).delete()
    now = timezone.now()
    Placement.objects.bulk_create(
        [
            Placement(
                deployment_id=move.deployment,
                worker=move.worker,
                since=now,
                reason=move.reason[:REASON_MAX],
            )
            for move in moves
            if move.add
        ],
        batch_size=_BATCH,
    )
    for move in moves:
        logger.info(
            "Deployment %s is %s %s: %s",
            move.deployment,
            "assigned to" if move.add else "taken from",
            move.worker,
            move.reason,
        )


def _state_shortages(rows: list[dict[str, Any]], shortages: dict[int, str]) -> None:
    """Write shortages to the rows of live deployments. Locked rows wait for the next round."""
    current = {row["pk"]: row["message"] for row in rows if row["state"] in LIVE}
    messages = {row["pk"]: _message(row, shortages) for row in rows if row["state"] in LIVE}
    stale = [pk for pk, message in messages.items() if current[pk] != message]
    if not stale:
        return
    live = Deployment.objects.filter(pk__in=stale, state__in=LIVE).only("pk", "state", "message")
    states = {row["pk"]: row["state"] for row in rows}
    free = [
        row
        for row in live.select_for_update(skip_locked=True, of=("self",))
        if row.state == states[row.pk]
    ]
    for row in free:
        row.message = messages[row.pk]
    Deployment.objects.bulk_update(free, ["message"], batch_size=_BATCH)


def _message(row: dict[str, Any], shortages: dict[int, str]) -> str:
    shortage = shortages.get(row["pk"], "")
    if shortage or row["state"] == DeploymentState.SERVING:
        return shortage
    return ASLEEP if row["replicas_wanted"] == 0 else WAITS
