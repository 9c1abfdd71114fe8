"""Connect a hosted model: a form whose description goes through intake."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.forms.hosted import HostedForm, description_of, form_fields, initial_of
from assay.portal.http import ActionScreen, cleaned, number_in
from governance.credentials.selectors import credentials_visible_to
from governance.errors import NotFound
from registry.catalog import TASKS
from registry.versions.hosted import takes_hosted
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.selectors import models_visible_to, version_get
from workers.jobs.requests import hosted_request

CREDENTIALS_SHOWN = 100


class HostedNew(ActionScreen):
    """Describe a provider's model, from scratch or from an earlier version."""

    template_name = "portal/models/hosted_new.html"

    def form(self) -> HostedForm:
        tasks = [task.name for task in TASKS.values() if takes_hosted(task)]
        mine = models_visible_to(self.actor).filter(
            department__slug__in=self.actor.departments, task__in=tasks
        )
        if self.request.method == "POST":
            form = HostedForm(self.request.POST, models=mine)
            if self.acted is not None and form.is_valid():
                for name, sentences in form_fields(self.acted.fields).items():
                    form.add_error(name if name in form.fields else None, sentences)
            return form
        before = self._before()
        name = before.model.name if before else self.request.GET.get("model", "")
        initial = {} if before is None else initial_of(before.parameters)
        initial["of_model"] = mine.filter(name=name).first()
        return HostedForm(models=mine, initial=initial)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        names = credentials_visible_to(self.actor).order_by("name").values_list("name", flat=True)
        return {"form": self.form(), "credentials": dict.fromkeys(names[:CREDENTIALS_SHOWN])}

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(self.form())
        intake, _ = hosted_request(
            actor=self.actor, model=values["of_model"], description=description_of(values)
        )
        return redirect("portal:intake", id=intake.pk)

    def _before(self) -> ModelVersion | None:
        """Return the hosted version to start from, which `?from=` names. Raises NotFound."""
        if not self.request.GET.get("from"):
            return None
        version = version_get(actor=self.actor, id=number_in(self.request.GET, "from") or 0)
        if version.kind != VersionKind.HOSTED:
            raise NotFound(f"{version} is not a hosted version.")
        return version
