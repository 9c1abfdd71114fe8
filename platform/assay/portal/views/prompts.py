"""Prompt versions: the form, with a preview of the filled prompt."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.forms.prompts import (
    SPARE,
    PromptForm,
    document_of,
    example_rows,
    initial_of,
    stored_variables,
    variable_rows,
)
from assay.portal.http import ActionScreen, cleaned, number_in
from governance.errors import NotFound
from registry.versions.models import Model, ModelVersion, VersionKind
from registry.versions.selectors import model_get, version_get
from workers.jobs.prompts import prompt_bases, prompt_version_create

# The row that the script copies for a new placeholder.
BLANK = {"name": "__name__", "max_length": 1000}


class PromptNew(ActionScreen):
    """Create a prompt version of a model, from scratch or from an earlier one."""

    template_name = "portal/models/prompt_new.html"

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        model = model_get(actor=self.actor, name=name)
        before, posted = self._before(), self.request.POST
        form = self._form(model, before)
        if posted:
            texts = (posted.get("system", "")[:16_000], posted.get("template", "")[:8_000])
            variables, examples = variable_rows(*texts, posted), example_rows(posted)
        elif before is not None:
            variables = stored_variables(before)
            examples = list(before.parameters["examples"])
        else:
            variables, examples = [], []
        empty = [{"user": "", "assistant": ""}] * SPARE
        return {
            "model": model,
            "form": form,
            "before": before,
            "variables": variables,
            "blank": BLANK,
            "examples": examples if posted else [*examples, *empty],
        }

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        model = model_get(actor=self.actor, name=name)
        values = cleaned(self._form(model, None))
        job = prompt_version_create(
            actor=self.actor,
            model=model,
            base_version=values["base_version"],
            document=document_of(values, self.request.POST),
            note=values["note"],
        )
        return redirect("portal:job", id=job.pk)

    def _form(self, model: Model, before: ModelVersion | None) -> PromptForm:
        return PromptForm(
            self.request.POST or None,
            bases=prompt_bases(self.actor, model.task),
            initial=None if before is None else initial_of(before),
        )

    def _before(self) -> ModelVersion | None:
        """Return the prompt version to start from, which `?from=` names. Raises NotFound."""
        if not self.request.GET.get("from"):
            return None
        version = version_get(actor=self.actor, id=number_in(self.request.GET, "from") or 0)
        if version.kind != VersionKind.PROMPT:
            raise NotFound(f"{version} is not a prompt version.")
        return version
