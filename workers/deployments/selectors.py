"""Read deployments."""

from __future__ import annotations

from datetime import datetime

from django.db.models import ExpressionWrapper, F, FloatField, Q, QuerySet
from django.db.models.functions import Extract, Now

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.releases.models import ReleaseState
from workers.deployments.models import Deployment
from workers.deployments.states import LIVE

# No people: a worker's database role may not read them.
_LOADED = (
    "department",
    "release__department",
    "release__version__model",
    "release__version__base__model",
)


def deployments_visible_to(actor: Principal) -> QuerySet[Deployment]:
    """Return deployments that the actor may see, in any state, with release and replicas."""
    deployments = Deployment.objects.select_related(*_LOADED, "created_by").prefetch_related(
        "replicas", "release__departments"
    )
    return visible_to(actor, Action.DEPLOYMENT_VIEW, deployments, resource_type="deployment")


def deployment_get(*, actor: Principal, deployment_id: int) -> Deployment:
    """Return one deployment with its placements.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    rows = deployments_visible_to(actor).select_related("release__version__model__department")
    rows = rows.prefetch_related("placements")
    deployment = rows.filter(pk=deployment_id).first()
    if deployment is None:
        raise NotFound(f"Deployment {deployment_id} does not exist, or you may not see it.")
    return deployment


def deployment_ids_under(release_id: int) -> list[int]:
    """Return the IDs of all deployments that a release ever had, for its evidence."""
    rows = Deployment.objects.filter(release_id=release_id).order_by("pk")
    return list(rows.values_list("pk", flat=True))


# Large columns, which are not needed by pages that poll every few seconds.
HEAVY = (
    "release__dossier",
    "release__version__manifest",
    "release__version__card",
    "release__version__base__manifest",
    "release__version__base__card",
)
# Seconds left of the lease, by the database clock, since the clocks of hosts may differ.
LEASE_S = ExpressionWrapper(
    Extract(F("lease__servable_until") - Now(), "epoch"), output_field=FloatField()
)


def live_deployments() -> QuerySet[Deployment]:
    """Return pending and serving deployments of all departments, for the platform's own use.

    `lease_s` is the seconds left of the lease; None without one. Dossiers, manifests and cards are
    deferred.
    """
    rows = Deployment.objects.filter(state__in=LIVE).select_related(*_LOADED).order_by("pk")
    return rows.defer(*HEAVY).annotate(lease_s=LEASE_S)


def live_or_recalled(since: datetime) -> QuerySet[Deployment]:
    """Return `live_deployments` and those stopped since `since` whose running requests must end:
    their release is recalled, suspended, or was never approved, as after emergency access.
    """
    may_finish = (ReleaseState.APPROVED, ReleaseState.WITHDRAWN, ReleaseState.EXPIRED)
    recalled = Q(stopped_at__gte=since) & ~Q(release__state__in=may_finish)
    rows = Deployment.objects.filter(Q(state__in=LIVE) | recalled)
    return rows.select_related(*_LOADED).order_by("pk").defer(*HEAVY).annotate(lease_s=LEASE_S)
