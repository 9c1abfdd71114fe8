"""The live release of a name in an environment."""

from __future__ import annotations

from django.db.models import F, Q
from django.utils import timezone

from governance.rowsecurity import lifted
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import serves_until


@lifted()
def release_live(environment: str, deployment_name: str) -> Release | None:
    """Return the release that was deployed last there and may still serve; if none was ever
    deployed, the one approved last. A release for a shadow is never live: it answers no client.
    """
    return (
        Release.objects.annotate(stops_at=serves_until())
        .filter(
            ~Q(conditions__contains={"shadow_only": True}),
            environment=environment,
            deployment_name=deployment_name,
            state=ReleaseState.APPROVED,
            stops_at__gt=timezone.now(),
        )
        .select_related("version__model")
        .order_by(F("deployed_at").desc(nulls_last=True), "-approved_at", "-pk")
        .first()
    )
