"""Audit events and the alarm for forged usage entries."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.services import Subject, audit_record
from governance.principals import background, service_principal
from governance.usage.records import USAGE_STREAM

logger = logging.getLogger(__name__)
ACTION = "usage:refuse"
# The alarm stays raised this long after the last event.
ALARM_FOR = timedelta(hours=1)
# At most one audit event in this time, against floods; other forgeries are only logged.
EVENT_EVERY = timedelta(minutes=1)
_CONTROLLER = service_principal("controller")


def forgeries_record(count: int) -> None:
    """Record that `count` entries on the usage stream were forged; at most one event a minute."""
    message = (
        f"{count} entries on the usage stream have no valid MAC and were dropped. "
        "A process other than the web process and the controller writes to the broker."
    )
    logger.critical("FORGED USAGE: %s", message)
    with background("usage-forged", _CONTROLLER), transaction.atomic():
        if _latest_since(EVENT_EVERY) is None:
            audit_record(
                actor=_CONTROLLER,
                action=ACTION,
                subject=Subject("stream", USAGE_STREAM, "usage stream"),
                outcome="denied",
                reason=message,
                data={"count": count},
            )


def usage_forged() -> str:
    """Return a sentence if usage was forged in the last hour, or an empty string."""
    event = _latest_since(ALARM_FOR)
    if event is None:
        return ""
    return (
        "Forged entries on the usage stream were dropped at "
        f"{event.occurred_at:%Y-%m-%d %H:%M} UTC. "
        "Check who can reach the broker, and rotate its passwords."
    )


def _latest_since(span: timedelta) -> AuditEvent | None:
    events = AuditEvent.objects.filter(action=ACTION, occurred_at__gt=timezone.now() - span)
    return events.order_by("-id").first()
