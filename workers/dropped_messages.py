"""Record messages on queues that no process of Assay sent, as counted by workers.

Their sender is unknown: web processes, the controller and administrators of the broker may write to
queues. Each worker reports its own count; the controller reads the counts.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.alarms import Alarm, alarms_add
from governance.audit.services import Subject, audit_record
from governance.principals import background, service_principal
from workers.broker import broker_client
from workers.measurements.models import Measurement
from workers.nodes.selectors import node_realms
from workers.wire import dropped_key, node_of

DROPPED_MESSAGES = "dropped-messages"
ACTION = "worker:drop_messages"
ALARM_FOR = timedelta(hours=1)
# Most workers of each realm, starting with the highest counts.
_WORKERS = 64
_NAME_MAX = 120
_COUNT_MAX = 2**31
_TIMEOUT_S = 5.0
_CONTROLLER = service_principal("controller")


def dropped_messages_record() -> int:
    """Record in one event the messages dropped by workers since the last round; return the count.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    counts = _counts()
    row = Measurement.objects.filter(name=DROPPED_MESSAGES).first()
    figures: dict[str, Any] = {"total": 0, "workers": {}} if row is None else row.figures
    earlier = figures["workers"]
    # A worker that restarted under the same name counts from 0.
    new = {
        name: more
        for name, count in counts.items()
        if (more := count - earlier.get(name, 0) if count >= earlier.get(name, 0) else count)
    }
    if not new:
        return 0
    many = sum(new.values())
    with transaction.atomic(), background("dropped-messages", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action=ACTION,
            subject=Subject("broker", "queues", "the queues of workers"),
            data={"count": many, "workers": dict(sorted(new.items())[:_WORKERS])},
        )
        Measurement.keep(
            DROPPED_MESSAGES,
            {"total": figures["total"] + many, "workers": counts, "last": sorted(new)},
        )
    return many


def _counts() -> dict[str, int]:
    """Return the number of messages that each worker has dropped since it started."""
    counts: dict[str, int] = {}
    client = broker_client(socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
    try:
        for realm in ("", *node_realms()):
            rows: Any = client.zrange(
                dropped_key(realm), 0, _WORKERS - 1, desc=True, withscores=True
            )
            # A node can only report its own workers, so their names get the prefix of the node.
            node = f"{node_of(realm)}/" if realm else ""
            for name, count in rows:
                label = f"{node}{name.decode(errors='replace')}"[:_NAME_MAX].replace("\0", "")
                counts[label] = int(min(max(count, 0), _COUNT_MAX))
    finally:
        client.close()
    return counts


def messages_dropped() -> str:
    """Name workers that dropped messages in the last hour."""
    row = Measurement.objects.filter(
        name=DROPPED_MESSAGES, measured_at__gte=timezone.now() - ALARM_FOR
    ).first()
    if row is None:
        return ""
    names = ", ".join(row.figures["last"][:5])
    return f"Another program writes to the queues of workers. Messages were dropped by: {names}."


def register_alarms() -> None:
    """Add the alarm for dropped messages to those of the audit log."""
    alarms_add(
        Alarm("messages_dropped", "Unknown messages on workers’ queues", messages_dropped, True)
    )
