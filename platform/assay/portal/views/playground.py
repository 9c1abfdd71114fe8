"""The playground: the page only; the requests go from the browser to `/v1` with a pasted key."""

from __future__ import annotations

from typing import Any

from assay.portal.http import Screen
from registry.catalogue import get_task
from workers.deployments.models import DeploymentState
from workers.deployments.selectors import deployments_visible_to


def sample_text(task_sample: dict[str, Any]) -> str:
    """The text of a task's sample request."""
    if "messages" in task_sample:
        return str(task_sample["messages"][-1]["content"])
    given = task_sample.get("input", "")
    return str(given[0] if isinstance(given, list) and given else given)


class Playground(Screen):
    """Deployments that serve, with the endpoint and a sample of each."""

    template_name = "portal/deployments/playground.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        rows = deployments_visible_to(self.actor).filter(state=DeploymentState.SERVING)
        choices = []
        for deployment in rows.select_related("release__version__model")[:100]:
            task = get_task(deployment.release.version.model.task)
            sample = sample_text(task.sample)
            choices.append({"deployment": deployment, "task": task, "sample": sample})
        return {"choices": choices, "chosen": self.request.GET.get("deployment", "")}
