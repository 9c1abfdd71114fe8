"""The playground: a page, and the short-lived token with which its script calls `/v1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse, JsonResponse

from assay.portal.http import ActionScreen, Screen
from governance.errors import DomainError
from governance.keys.playground import LIFETIME
from governance.policy.context import CLASSIFICATIONS, UNDECLARED_CLASSIFICATION
from registry.catalog import get_task
from workers.deployments.playground import playground_open, playground_trials


def sample_text(task_sample: Mapping[str, Any]) -> str:
    """The text of a task's sample request."""
    if "messages" in task_sample:
        return str(task_sample["messages"][-1]["content"])
    given = task_sample.get("input", "")
    return str(given[0] if isinstance(given, list) and given else given)


class Playground(Screen):
    """Deployments that the person may use, with the endpoint and a sample of each."""

    template_name = "portal/deployments/playground.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for trial in playground_trials(self.actor):
            task = get_task(trial.deployment.release.version.model.task)
            sample = sample_text(task.sample)
            choices.append({"trial": trial, "task": task, "sample": sample})
        paying = sorted({slug for each in choices for slug in each["trial"].departments})
        chosen = self.request.GET.get("deployment", "")[:80]
        known = {each["trial"].deployment.name for each in choices}
        return {
            "choices": choices,
            "chosen": chosen,
            "absent": chosen if chosen not in known else "",
            "departments": paying,
            "classifications": CLASSIFICATIONS,
            "undeclared": UNDECLARED_CLASSIFICATION,
        }


class PlaygroundTokens(ActionScreen):
    """Answers the page's script, in JSON; a refusal too."""

    def act(self, **kwargs: Any) -> HttpResponse:
        _, text = playground_open(
            actor=self.actor,
            name=self.request.POST.get("deployment", ""),
            department=self.request.POST.get("department", ""),
            session_key=self.request.session.session_key or "",
        )
        return _private({"token": text, "expires_in": LIFETIME.seconds})

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        return self.http_method_not_allowed(request)

    def shows(self, refusal: DomainError) -> bool:
        return refusal is self.acted

    def page(
        self, *, status: int = 200, error: DomainError | None = None, **kwargs: Any
    ) -> HttpResponse:
        if error is None:
            return _private({}, status=status)
        faults = [fault for found in error.fields.values() for fault in found]
        said = " ".join(filter(None, [error.message, *faults, error.hint]))
        return _private({"error": said}, status=status)


def _private(answer: dict[str, Any], status: int = 200) -> JsonResponse:
    return JsonResponse(answer, status=status, headers={"Cache-Control": "no-store"})
