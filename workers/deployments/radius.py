"""Effect of a recall: live deployments and recent users of the recalled versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from governance.principals import Principal
from governance.rowsecurity import lifted
from governance.usage.models import UsageTotal
from governance.usage.selectors import beginning_of, whole_sum
from registry.versions.recall import LISTED, RecallRadius, recall_radius
from workers.deployments.models import Deployment
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.states import LIVE

TRAFFIC_DAYS = 30
# Columns that are large and not needed here.
_HEAVY = (
    "release__dossier",
    "release__version__manifest",
    "release__version__card",
    "release__version__base__manifest",
    "release__version__base__card",
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one department to these versions in the last 30 days."""

    department: str
    requests: int
    tokens: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """Versions that a recall affects, and deployments that it stops.

    `deployments` are at most 200 live ones that the actor may see; the total counts all.
    """

    below: RecallRadius
    deployments: list[Deployment]
    deployments_total: int
    traffic: list[Traffic]


def blast_radius(*, actor: Principal, version_id: int) -> BlastRadius:
    """Return everything that a recall of the version would affect and stop.

    Anyone who may recall sees the traffic, even without access to other usage.

    Raises:
        NotFound, NotPermitted: the version does not exist, or the actor may not recall it.
    """
    below = recall_radius(actor=actor, version_id=version_id)
    with lifted():
        under = Deployment.objects.filter(release_id__in=below.release_ids)
        total = under.filter(state__in=LIVE).count()
    live = deployments_visible_to(actor).filter(release_id__in=below.release_ids, state__in=LIVE)
    live = live.defer(*_HEAVY)
    rows = (
        UsageTotal.objects.filter(
            step=UsageTotal.Step.DAY,
            by=UsageTotal.By.VERSION,
            name__in=below.version_digests,
            at__gte=beginning_of(TRAFFIC_DAYS),
            jobs=False,
        )
        .order_by()
        .values("department")
        .annotate(
            count=whole_sum("requests"),
            prompt=whole_sum("prompt_tokens"),
            completion=whole_sum("completion_tokens"),
            last=Max("last_at"),
        )
        .order_by("-count", "department")
    )
    return BlastRadius(
        below=below,
        deployments=list(live.order_by("name")[:LISTED]),
        deployments_total=total,
        traffic=[
            Traffic(
                row["department"],
                row["count"],
                row["prompt"] + row["completion"],
                row["last"],
            )
            for row in rows[:LISTED]
        ],
    )
