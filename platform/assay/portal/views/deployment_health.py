"""Health of a deployment: a page with its current state, and figures that load afterward."""

from __future__ import annotations

from typing import Any

from assay.portal.health_charts import SPANS, health_context
from assay.portal.http import Screen
from governance.errors import Unavailable
from workers.deployments.health import deployment_health, deployment_load, health_viewed
from workers.deployments.schemas import HealthFilter
from workers.deployments.states import LIVE


class DeploymentHealth(Screen):
    """Current queue and workers. The page then loads `DeploymentFigures`."""

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
    """Current queue and workers, which the page reloads every five seconds."""

    template_name = "portal/deployments/health_now.html"


class DeploymentFigures(Screen):
    """Figures of one period, with the cause of slow answers and the changes during the period."""

    template_name = "portal/deployments/health_figures.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        span = HealthFilter.lenient(self.request.GET.dict()).span
        try:
            health = deployment_health(actor=self.actor, deployment_id=id, span=span)
        except Unavailable as error:
            # This is a part of a page, which shows the error instead of the figures.
            return {"unavailable": error}
        return health_context(health)
