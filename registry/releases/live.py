"""The live release: the one that may serve under a name, in an environment."""

from __future__ import annotations

from django.db.models import F
from django.utils import timezone

from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import serves_until
from registry.releases.states import places_changed


def release_deployed(
    *, actor: Principal, release: Release, decision: Authorization | None = None
) -> None:
    """It was put in the place of what was live; for the deployments' context, which has authorized
    that, in its transaction and with the release's row locked.
    """
    Release.objects.filter(pk=release.pk).update(deployed_at=timezone.now())
    places_changed(actor, [release], decision)


@lifted()
def release_live(environment: str, deployment_name: str) -> Release | None:
    """The one that was deployed last there and may still serve; where none was ever deployed, the
    one that was approved last.
    """
    return (
        Release.objects.annotate(stops_at=serves_until())
        .filter(
            environment=environment,
            deployment_name=deployment_name,
            state=ReleaseState.APPROVED,
            stops_at__gt=timezone.now(),
        )
        .select_related("version__model")
        .order_by(F("deployed_at").desc(nulls_last=True), "-approved_at", "-pk")
        .first()
    )
