"""Fine-tuning: the form, and an outlook on the job before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from pydantic import ValidationError

from assay.portal.access import may
from assay.portal.forms.models import FineTuneForm
from assay.portal.http import ActionScreen, Screen, cleaned
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog import get_task
from registry.datasets.selectors import dataset_versions_visible_to
from registry.evaluations.selectors import gates_visible_to
from registry.versions.models import Model
from registry.versions.selectors import model_get, versions_visible_to
from workers.jobs.budgets import budget_outlook
from workers.jobs.chains import Step, fine_tune_then
from workers.jobs.estimates import Estimate, fine_tune_estimate
from workers.jobs.models import Job, JobKind, JobPriority
from workers.jobs.selectors import jobs_visible_to
from workers.jobs.training import training_bases

FIELDS = ("base_version", "method", "dataset_version")
# The fields of a job's spec that name rows.
SPEC = {"base_version": "base", "dataset_version": "dataset_version"}


def form_of(actor: Principal, model: Model, posted: Any, **more: Any) -> FineTuneForm:
    """Return the form for `model`, with the bases and data that the actor may see."""
    return FineTuneForm(
        posted,
        task=model.task,
        bases=training_bases(actor, model.task),
        dataset_versions=dataset_versions_visible_to(actor).filter(dataset__task=model.task),
        may_release=may(
            actor, Action.RELEASE_SUBMIT, kind="release", department=model.department.slug
        ),
        **more,
    )


def outlook(actor: Principal, model: Model, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gates on the chosen data, the estimate and the job's reservation, for the `typed`
    fields of a form."""
    form = form_of(actor, model, typed)
    form.is_valid()
    values = form.cleaned_data
    data, base = values.get("dataset_version"), values.get("base_version")
    context: dict[str, Any] = {"model": model, "data": data}
    if data is None:
        return context
    owners = list(
        gates_visible_to(actor).filter(dataset=data.dataset_id).values_list("model_id", flat=True)
    )
    context["own_gates"] = owners.count(model.pk)
    context["other_gates"] = len(owners) - owners.count(model.pk)
    if base is not None and values.get("method"):
        context["estimate"] = _estimate(model, form, data.rows)
        department = model.department.slug
        if may(actor, Action.JOB_CREATE, kind="job", department=department):
            context["budget"] = budget_outlook(
                department=department, kind=JobKind.FINE_TUNE, devices=form.processes()
            )
    return context


def _estimate(model: Model, form: FineTuneForm, rows: int) -> Estimate | None:
    chosen = {name: form.cleaned_data.get(f"h_{name}") for name in form.hyperparameters}
    filled = {name: value for name, value in chosen.items() if value is not None}
    try:
        recipe = get_task(model.task).recipe(form.cleaned_data["method"])
        settings = recipe.hyperparameters.model_validate(filled).model_dump()
    except ValidationError:
        return None
    return fine_tune_estimate(
        base=form.cleaned_data["base_version"],
        method=form.cleaned_data["method"],
        rows=rows,
        settings=settings,
        processes=form.processes(),
    )


class FineTune(ActionScreen):
    """Start a training run that makes a new version."""

    template_name = "portal/models/fine_tune.html"

    def form(self, model: Model) -> FineTuneForm:
        query = self.request.GET
        initial = {name: query[name] for name in FIELDS if query.get(name)}
        before = self._of_job(model, query.get("job", ""))
        initial = {**self._as_before(model, query.get("again", "")), **before, **initial}
        chosen = initial.get("dataset_version", "")
        if not chosen.isdecimal():
            initial.pop("dataset_version", None)
        elif "method" not in initial:
            initial |= self._method_for(model, int(chosen[:9]))
        return form_of(self.actor, model, self.request.POST or None, initial=initial)

    def _as_before(self, model: Model, version_id: str) -> dict[str, Any]:
        """Return the base, method and settings of a version of the model, to use them again."""
        if not version_id.isdecimal():
            return {}
        versions = versions_visible_to(self.actor).filter(model=model, pk=int(version_id[:18]))
        before = versions.first()
        if before is None or before.base_id is None:
            return {}
        again: dict[str, Any] = {"base_version": str(before.base_id)}
        jobs = jobs_visible_to(self.actor).filter(kind=JobKind.FINE_TUNE)
        job = None if before.job_id is None else jobs.filter(pk=before.job_id).first()
        return again if job is None else again | _settings_of(job)

    def _of_job(self, model: Model, job_id: str) -> dict[str, Any]:
        """Return the request of a fine-tune of the model, to change parts of it."""
        try:
            job_uuid = UUID(job_id)
        except ValueError:
            return {}
        jobs = jobs_visible_to(self.actor).filter(kind=JobKind.FINE_TUNE, spec__model=model.pk)
        job = jobs.filter(pk=job_uuid).first()
        if job is None:
            return {}
        references = {name: str(job.spec[key]) for name, key in SPEC.items() if key in job.spec}
        resources = job.spec.get("resources", {})
        return {
            **references,
            **_settings_of(job),
            **{f"resources_{name}": value for name, value in resources.items()},
        }

    def _method_for(self, model: Model, data: int) -> dict[str, str]:
        """Return the first method that trains on such rows."""
        version = dataset_versions_visible_to(self.actor).filter(pk=data).first()
        recipes = get_task(model.task).recipes
        kind = "" if version is None else version.dataset.row_kind
        method = next((recipe.method for recipe in recipes if recipe.row_kind == kind), None)
        return {} if method is None else {"method": method}

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        model = model_get(actor=self.actor, name=name)
        form = self.form(model)
        values = {form.add_prefix(bound.name): bound.value() for bound in form}
        if not values["base_version"]:
            # Browsers preselect the first choice if there is no empty one.
            values["base_version"] = form.fields["base_version"].queryset.first()  # type: ignore[attr-defined]
        values["method"] = values["method"] or get_task(model.task).recipes[0].method
        return {"form": form, **outlook(self.actor, model, values)}

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        model = model_get(actor=self.actor, name=name)
        form = self.form(model)
        values = cleaned(form)
        job = fine_tune_then(
            actor=self.actor,
            model=model,
            base_version=values["base_version"],
            method=values["method"],
            dataset_version=values["dataset_version"],
            hyperparameters=form.hyperparameter_values(),
            resources=form.resource_values(),
            priority=JobPriority.named(values["priority"] or "normal"),
            then=[Step(values["then"])] if values.get("then") else [],
            release={"environment": values["release"]} if values.get("release") else None,
        )
        return redirect("portal:job", id=job.pk)


def _settings_of(job: Job) -> dict[str, Any]:
    settings = job.spec.get("hyperparameters", {})
    method = {"method": job.spec.get("method", "")}
    return method | {f"h_{name}": value for name, value in settings.items()}


class FineTuneOutlook(Screen):
    """Gates and estimate for the fields in the query, fetched when one of them changes."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        model = model_get(actor=self.actor, name=kwargs["name"])
        context = outlook(self.actor, model, request.GET)
        return render(request, "portal/models/fine_tune_outlook.html", context)
