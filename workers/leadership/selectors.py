"""Read which controllers run, and which one leads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now

from workers.leadership.lease import LEASE_S, LISTED_S, ROUND_S
from workers.leadership.models import ControllerProcess, Leadership


@dataclass(frozen=True, slots=True)
class Controllers:
    """Names of the controllers that report, and of those that fell silent in the last minutes.
    `leader` is empty if no lease is in force, nor was one a round ago, in which another controller
    takes over. `expected` is `ASSAY_CONTROLLERS`.
    """

    reporting: tuple[str, ...]
    silent: tuple[str, ...]
    leader: str
    expected: int

    @property
    def fault(self) -> str:
        """Fault of the installation, without names; empty if there is none."""
        if not self.reporting:
            return "none reports"
        if len(self.reporting) < self.expected:
            return f"{len(self.reporting)} of {self.expected} report"
        return "" if self.leader else "none leads"


def controllers_read() -> Controllers:
    """Return the controllers, by the database's clock, with two queries."""
    reports = Q(seen_at__gte=Now() - timedelta(seconds=LEASE_S))
    listed = ControllerProcess.objects.filter(seen_at__gte=Now() - timedelta(seconds=LISTED_S))
    rows = list(
        listed.annotate(
            reports=ExpressionWrapper(reports, output_field=BooleanField())
        ).values_list("name", "reports")
    )
    leases = Leadership.objects.filter(until__gt=Now() - timedelta(seconds=ROUND_S))
    return Controllers(
        reporting=tuple(name for name, is_reporting in rows if is_reporting),
        silent=tuple(name for name, is_reporting in rows if not is_reporting),
        leader=leases.values_list("holder", flat=True).first() or "",
        expected=settings.CONTROLLERS,
    )
