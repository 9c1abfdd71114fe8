"""Durations of answers, added up from the ledger in regular steps.

A trigger would add each record at once, as with `UsageTotal`. But a row of durations has kilobytes,
so that a hundred requests a second would write more of them than of everything else.
"""

from __future__ import annotations

from django.db import connection, transaction
from django.db.models import Max

from governance.usage.ledger import ledger_lock
from governance.usage.models import UsageRecord, UsageTimesProgress

# Records that one transaction adds.
STEP = 100_000


def usage_times_add() -> int:
    """Add the durations of all new records to `UsageTimes`; return the number of IDs. For the
    controller.

    Raises:
        django.db.Error: the database does not answer; what was added stays.
    """
    with transaction.atomic():
        # No record with a smaller ID is on its way while this process holds the lock.
        ledger_lock(shared=False)
        newest = UsageRecord.objects.order_by().aggregate(newest=Max("id"))["newest"] or 0
    UsageTimesProgress.objects.get_or_create(pk=1)
    began = None
    while True:
        with transaction.atomic():
            progress = UsageTimesProgress.objects.select_for_update().get(pk=1)
            began = progress.record_id if began is None else began
            if progress.record_id >= newest:
                return newest - began if newest > began else 0
            end = min(progress.record_id + STEP, newest)
            with connection.cursor() as cursor:
                cursor.execute("SELECT assay_usage_times(%s, %s)", [progress.record_id, end])
            progress.record_id = end
            progress.save()
