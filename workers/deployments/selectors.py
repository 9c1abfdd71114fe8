"""Reads of deployments."""

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

# Without people: a worker's database role does not read them.
_LOADED = (
    "department",
    "release__department",
    "release__version__model",
    "release__version__base__model",
)


def deployments_visible_to(actor: Principal) -> QuerySet[Deployment]:
    """Deployments that the actor may see, live or not, with release, version and replicas."""
    deployments = Deployment.objects.select_related(*_LOADED, "created_by").prefetch_related(
        "replicas", "release__departments"
    )
    return visible_to(actor, Action.DEPLOYMENT_VIEW, deployments, resource_type="deployment")


def deployment_get(*, actor: Principal, deployment_id: int) -> Deployment:
    """One deployment.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    rows = deployments_visible_to(actor).prefetch_related("placements")
    found = rows.filter(pk=deployment_id).first()
    if found is None:
        raise NotFound(f"Deployment {deployment_id} does not exist, or you may not see it.")
    return found


def deployment_ids_under(release_id: int) -> list[int]:
    """Every deployment there ever was under a release, for its evidence; ids alone."""
    rows = Deployment.objects.filter(release_id=release_id).order_by("pk")
    return list(rows.values_list("pk", flat=True))


# Large columns that pages which poll every few seconds do not need.
HEAVY = (
    "release__dossier",
    "release__version__manifest",
    "release__version__card",
    "release__version__base__manifest",
    "release__version__base__card",
)
# Seconds that the lease has left, by the clock of the database: those of hosts may differ.
LEASE_S = ExpressionWrapper(
    Extract(F("lease__servable_until") - Now(), "epoch"), output_field=FloatField()
)


def live_deployments() -> QuerySet[Deployment]:
    """Pending and serving ones: what engine workers are to hold, for the platform's own use.

    `lease_s` is how many seconds of its lease are left; None without one. Dossiers, manifests and
    cards are deferred.
    """
    rows = Deployment.objects.filter(state__in=LIVE).select_related(*_LOADED).order_by("pk")
    return rows.defer(*HEAVY).annotate(lease_s=LEASE_S)


def live_or_recalled(since: datetime) -> QuerySet[Deployment]:
    """As `live_deployments`, and those that stopped since then of releases that are recalled,
    suspended, or were never approved, as after emergency access: their running requests end.
    """
    let_go = (ReleaseState.APPROVED, ReleaseState.WITHDRAWN, ReleaseState.EXPIRED)
    recalled = Q(stopped_at__gte=since) & ~Q(release__state__in=let_go)
    rows = Deployment.objects.filter(Q(state__in=LIVE) | recalled)
    return rows.select_related(*_LOADED).order_by("pk").defer(*HEAVY).annotate(lease_s=LEASE_S)
