"""Requests whose gateway died before it settled them: what is known of them goes to the ledger.

A gateway leaves the usage entry of each request with its reservation. Settling takes it away; what
is left once the time of the request is over belongs to a process that has ended.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from governance.quotas import store
from governance.quotas.wire import Amount
from governance.usage.forgeries import forgeries_record
from governance.usage.records import UsageEntry
from governance.usage.sealing import ForgedEntry

logger = logging.getLogger(__name__)


def orphans_settle() -> int:
    """Settle them, each once; returns how many. Skips one that was settled meanwhile.

    Raises:
        Unavailable: Redis does not answer.
    """
    settled = 0
    for request_id, text in store.unsettled():
        try:
            entry = UsageEntry.decode(text)
            if entry.request_id != request_id:
                raise ValueError("it is of another request")
        except ValueError as error:
            if isinstance(error, ForgedEntry):
                forgeries_record(1)
            logger.error("The admission of request %s is not one: %s", request_id, error)
            store.withdraw(request_id)
            continue
        lasted_ms = int((time.time() - entry.occurred_at) * 1000)
        settled += store.settle(replace(entry, total_ms=max(0, lasted_ms)), held=Amount())
    if settled:
        logger.warning("%d requests were settled whose gateway had ended.", settled)
    return settled
