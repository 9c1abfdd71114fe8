"""What the end of a waiver means for the release that was approved with it."""

from __future__ import annotations

from django.db import transaction

from governance.principals import Principal
from governance.reviews.waivers.models import Waiver
from governance.reviews.waivers.services import waiver_revoke
from registry.releases.states import release_locked, releases_changed


def release_waiver_revoke(
    *, actor: Principal, release_id: int, waiver_id: int, reason: str
) -> Waiver:
    """Revoke a waiver of the release's review. What serves under the release stops: its checklist
    no longer holds, and `release_servable` asks.

    Raises:
        As `waiver_revoke`.
    """
    with transaction.atomic():
        release_locked(release_id)
        waiver = waiver_revoke(actor=actor, waiver_id=waiver_id, reason=reason)
        releases_changed()
    return waiver
