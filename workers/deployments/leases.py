"""Lease of a deployment: the time until which the controller confirms that it may serve.

Gateways and engine workers require it in addition to their own verdict, so that all serving ends
within `ASSAY_SERVING_LEASE_S` if the controller is dead, stuck or cut off.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from registry.releases.serving import serving_verdicts
from workers.deployments.models import ServingLease
from workers.deployments.selectors import live_deployments
from workers.dispatch import wake_engines


def lease_end() -> Combinable:
    """Return the end of a lease that begins now, by the database clock."""
    return Now() + timedelta(seconds=settings.SERVING_LEASE_S)


def leases_renew() -> int:
    """Renew the leases of live deployments whose release may serve, and end the leases of those
    that may not serve for now. Return the number of renewed leases.
    """
    deployments = list(live_deployments())
    verdicts = serving_verdicts([deployment.release for deployment in deployments])
    due, suspended, lapsed = [], [], False
    for deployment in deployments:
        left: float = deployment.lease_s or 0.0  # type: ignore[attr-defined]  # annotated
        verdict = verdicts[deployment.release_id]
        if verdict.refusal is not None:
            if not verdict.final and left > 0:
                suspended.append(deployment.pk)
        elif left < settings.SERVING_LEASE_S * 2 / 3:
            due.append(deployment.pk)
            lapsed = lapsed or left <= 0
    ended = _set_end(suspended, Now())
    renewed = _set_end(due, lease_end())
    if ended or (lapsed and renewed):
        wake_engines()
    return renewed


def _set_end(ids: list[int], end: Combinable) -> int:
    return ServingLease.objects.filter(pk__in=ids).update(servable_until=end) if ids else 0
