"""Audit events as a reader sees them: opened, with the names and reasons in them."""

from __future__ import annotations

from typing import Any

from governance.audit.models import AuditEvent
from governance.audit.personal import opened, opened_bodies


def recorded_all(**filters: Any) -> list[AuditEvent]:
    """The events that match, oldest first."""
    return opened(AuditEvent.objects.filter(**filters).order_by("id"))


def recorded(**filters: Any) -> AuditEvent:
    """The one event that matches."""
    return opened([AuditEvent.objects.get(**filters)])[0]


def bodies(**filters: Any) -> list[dict[str, Any]]:
    """Return the bodies of the matching events, oldest first."""
    return opened_bodies(AuditEvent.objects.filter(**filters).order_by("id"))
