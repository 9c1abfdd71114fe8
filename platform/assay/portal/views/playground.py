"""The playground: a page, and the short-lived token with which its script calls `/v1`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from assay.portal.access import may_somewhere
from assay.portal.code_examples import code_examples, request_path
from assay.portal.http import ActionScreen, Screen
from governance.bounds import REQUEST_ID_MAX
from governance.errors import DomainError
from governance.keys.playground import LIFETIME
from governance.permissions import Action
from governance.policy.context import CLASSIFICATIONS, UNDECLARED_CLASSIFICATION
from governance.quotas.kinds import money_words
from governance.usage.selectors import usage_visible_to
from governance.usage.units import Unit
from registry.catalog import TASKS
from registry.catalog.declaration import Modality, Task
from registry.catalog.features import Feature
from registry.catalog.prompt import PromptDocument
from registry.knowledge.selectors import knowledge_bases_visible_to
from registry.media.checks import NAMES
from registry.versions.features import version_features
from registry.versions.prompts import prompt_served
from workers.deployments.playground import playground_open, playground_trials

TEXT_MAX = 100_000
_FILES = {
    Modality.IMAGE: "image/*",
    Modality.AUDIO: "audio/*",
    Modality.VIDEO: "video/mp4,video/webm,image/gif,image/webp,image/png,image/apng",
}


def playground_data(
    task: Task,
    deployment: str,
    features: Sequence[Feature] = (),
    prompt: PromptDocument | None = None,
) -> dict[str, Any]:
    """Return the data that the page's script needs to call a deployment; `features` are those of a
    model that takes tables, and `prompt` is that of a prompt version."""
    playground = task.playground
    if playground is None:
        return {}
    path = request_path(task, deployment)
    fields = _fields(task, deployment, path)
    return {
        "path": path,
        "body": playground.body,
        "text": playground.text,
        "lines": "\n".join(playground.lines),
        "lines_label": playground.lines_label,
        "accept": next((_FILES[each] for each in task.inputs if each in _FILES), ""),
        "file_kinds": next((NAMES[each] for each in task.inputs if each in NAMES), ""),
        "features": [each.model_dump() for each in features],
        "variables": [] if prompt is None else [each.model_dump() for each in prompt.variables],
        "settings": {} if prompt is None else prompt.decoding.stated,
        "fixed": [] if prompt is None else prompt.decoding.fixed,
        "streams": Modality.MESSAGES in task.inputs,
        # A prompt version with a system message of its own refuses another one.
        "system": Modality.MESSAGES in task.inputs and not (prompt and prompt.system),
        "seed": "seed" in fields,
        "size": "size" in fields,
        "grounds": any(
            endpoint.request is not None and "knowledge_base" in endpoint.request.model_fields
            for endpoint in task.endpoints
        ),
        "output": task.outputs[0].value,
        "teaches": task.feedback_row is not None,
    }


def _fields(task: Task, deployment: str, path: str) -> set[str]:
    """Return the fields of requests to a path of the task."""
    return {
        field
        for endpoint in task.endpoints
        if endpoint.request is not None and endpoint.path_to(deployment) == path
        for field in endpoint.request.model_fields
    }


class Playground(Screen):
    """Deployments that the person may use, with the endpoint and a sample of each."""

    template_name = "portal/deployments/playground.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        root = f"{self.request.scheme}://{self.request.get_host()}"
        choices: list[dict[str, Any]] = []
        for trial in playground_trials(self.actor):
            name = trial.deployment.name
            task = TASKS.get(trial.deployment.release.version.model.task)
            if task is not None and task.playground is not None:
                version = trial.deployment.release.version
                features, prompt = version_features(version), prompt_served(version)
                choices.append(
                    {
                        "trial": trial,
                        "task": task,
                        "examples": code_examples(task, name, root, features, prompt),
                        "prefix": f"{len(choices)}-",
                        "asks": playground_data(task, name, features, prompt),
                    }
                )
        paying = sorted({slug for each in choices for slug in each["trial"].departments})
        chosen = self.request.GET.get("deployment", "")[:80]
        # From a logged request, whose reader opens it here.
        if typed := self.request.POST.get("text", "")[:TEXT_MAX]:
            for choice in choices:
                if choice["trial"].deployment.name == chosen:
                    choice["asks"]["text"] = typed
        names = {each["trial"].deployment.name for each in choices}
        return {
            "choices": choices,
            "asks": {each["trial"].deployment.name: each["asks"] for each in choices},
            "chosen": chosen,
            "absent": chosen if chosen not in names else "",
            "departments": paying,
            "knowledge_bases": [
                base.name
                for base in knowledge_bases_visible_to(self.actor).filter(index__isnull=False)
            ],
            "classifications": CLASSIFICATIONS,
            "undeclared": UNDECLARED_CLASSIFICATION,
            "may_see_usage": may_somewhere(self.actor, Action.USAGE_VIEW, kind="usage"),
        }

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self.page(**kwargs)


class PlaygroundCost(Screen):
    """Use and cost of one answer; empty until the ledger has them, some seconds later."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        request_id = request.GET.get("request", "").replace("\x00", "")[:REQUEST_ID_MAX]
        record = usage_visible_to(self.actor).filter(request_id=request_id).first()
        if record is None:
            return _private({})
        cost = money_words(record.cost_micro, settings.CURRENCY) if record.cost_micro else "free"
        return _private({"use": Unit(record.unit).words(record.units), "cost": cost})


class PlaygroundTokens(ActionScreen):
    """Create a token for the page's script; the answer is JSON, also on errors."""

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
        faults = [fault for sentences in error.fields.values() for fault in sentences]
        sentence = " ".join(filter(None, [error.message, *faults, error.hint]))
        return _private({"error": sentence}, status=status)


def _private(answer: dict[str, Any], status: int = 200) -> JsonResponse:
    return JsonResponse(answer, status=status, headers={"Cache-Control": "no-store"})
