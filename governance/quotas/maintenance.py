"""The controller's periodic work on budgets, about once a second."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

from django.conf import settings
from django.db import close_old_connections

from governance.errors import Unavailable
from governance.principals import serving
from governance.quotas import store
from governance.quotas.alerts import alerts_raise
from governance.quotas.holds import holds_settle
from governance.quotas.reconcile import counters_ready, quotas_reconcile, store_run
from governance.quotas.wire import Amount
from governance.usage.forgeries import forgeries_record
from governance.usage.records import UsageEntry
from governance.usage.sealing import ForgedEntry

logger = logging.getLogger(__name__)
STEP_S = 1.0
ALERTS_S = 5.0


class QuotaMaintenance:
    """Rebuild counters after a flush, settle requests and jobs that a crash left behind, release
    expired reservations, and raise alerts. Compare the counters with the ledger regularly, and
    after a restart of the store, which may then have older data.
    """

    def __init__(self) -> None:
        self._compared = time.monotonic()
        self._run = ""
        self._alerted = float("-inf")

    def step(self) -> None:
        """Do all due work once. Raise Unavailable if the quota store does not answer."""
        run = store_run()
        if not counters_ready():
            outcome = quotas_reconcile(repair=True)
            self._run = run
            logger.warning(
                "The counters were lost; %d were rebuilt from the ledger.", outcome.checked
            )
        orphans_settle()
        if released := store.reclaim():
            logger.warning("%d reservations expired and were released.", released)
        holds_settle()
        if time.monotonic() - self._alerted >= ALERTS_S:
            alerts_raise()
            self._alerted = time.monotonic()
        if run != self._run or time.monotonic() - self._compared >= settings.QUOTA_RECONCILE_S:
            self._compared = time.monotonic()
            quotas_reconcile(repair=True)
            self._run = run


def run(stop: threading.Event) -> None:
    """Maintain budgets until `stop` is set."""
    maintenance = QuotaMaintenance()
    while not stop.is_set():
        close_old_connections()
        try:
            maintenance.step()
        except Unavailable as error:
            logger.warning("Budgets are not maintained: %s", error.message)
        stop.wait(STEP_S)


def orphans_settle() -> int:
    """Settle requests whose gateway died before settling them, each once; return their number.

    A gateway stores the usage entry of each request with its reservation until it settles the
    request. An entry that outlives its request's time limit belongs to a dead process.

    Raises:
        Unavailable: Redis does not answer.
    """
    settled = 0
    for request_id, text in store.unsettled():
        try:
            entry = UsageEntry.decode(text)
            if entry.request_id != request_id:
                raise ValueError("it belongs to another request")
        except ValueError as error:
            if isinstance(error, ForgedEntry):
                forgeries_record(1)
            with serving(request_id):
                logger.error("The usage entry of a request is invalid: %s", error)
            store.withdraw(request_id)
            continue
        total_ms = int((time.time() - entry.occurred_at) * 1000)
        settled += store.settle(replace(entry, total_ms=max(0, total_ms)), reserved=Amount())
    if settled:
        logger.warning("Settled %d requests of gateways that had ended.", settled)
    return settled
