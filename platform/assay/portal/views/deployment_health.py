"""Health of a deployment: a page that loads its figures after it is shown."""

from __future__ import annotations

from typing import Any

from assay.portal.health_charts import SPANS, health_context
from assay.portal.http import Screen
from governance.errors import Unavailable
from workers.deployments.health import deployment_health, deployment_load, health_viewed
from workers.deployments.schemas import HealthFilter
from workers.deployments.states import LIVE


class DeploymentHealth(Screen):
    """The queue and the workers now; the figures follow (`DeploymentFigures`)."""

    template_name = "portal/deployments/health.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        deployment = health_viewed(actor=self.actor, deployment_id=id)
        return {
            "deployment": deployment,
            "release": deployment.release,
            "live": deployment.state in LIVE,
            "load": deployment_load(self.actor, deployment),
            "span": HealthFilter.lenient(self.request.GET.dict()).span,
            "spans": SPANS,
            "sees_health": True,
        }


class DeploymentNow(DeploymentHealth):
    """The queue and the workers, fetched every five seconds."""

    template_name = "portal/deployments/health_now.html"


class DeploymentFigures(Screen):
    """Figures of one period, with the reason for slow answers and the changes meanwhile."""

    template_name = "portal/deployments/health_figures.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        span = HealthFilter.lenient(self.request.GET.dict()).span
        try:
            health = deployment_health(actor=self.actor, deployment_id=id, span=span)
        except Unavailable as error:
            # Part of a page: it shows the reason in place of the figures.
            return {"unavailable": error}
        return health_context(health)
