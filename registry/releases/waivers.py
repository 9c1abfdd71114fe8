"""Effect of a revoked waiver on the release approved with it."""

from __future__ import annotations

from django.db import transaction

from governance.principals import Principal
from governance.reviews.waivers.models import Waiver
from governance.reviews.waivers.services import waiver_revoke
from registry.releases.models import ReleaseState
from registry.releases.states import release_locked, release_set_state

_APPROVED = (ReleaseState.APPROVED, ReleaseState.SUSPENDED)


def release_waiver_revoke(
    *, actor: Principal, release_id: int, waiver_id: int, reason: str
) -> Waiver:
    """Revoke a waiver of the release's review. An approval that depends on it is withdrawn, and
    what serves under the release stops.

    Raises:
        As `waiver_revoke`.
    """
    with transaction.atomic():
        release = release_locked(release_id)
        waiver = waiver_revoke(actor=actor, waiver_id=waiver_id, reason=reason)
        if release.state in _APPROVED:
            release_set_state(
                actor=actor,
                release=release,
                state=ReleaseState.WITHDRAWN,
                reason=f"The waiver of “{waiver.item.title}” was revoked.",
            )
    return waiver
