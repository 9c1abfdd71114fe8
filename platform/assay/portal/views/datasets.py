"""Datasets: the list, one with its versions and profile, adding data."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Count, Max
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.access import departments_where, may, may_somewhere
from assay.portal.forms import DatasetForm, DatasetVersionForm
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from governance.permissions import Action
from registry.datasets.selectors import (
    dataset_get,
    dataset_versions_visible_to,
    datasets_visible_to,
)
from registry.datasets.services import dataset_create, dataset_version_add


class Datasets(Screen):
    """Every dataset the person may see."""

    template_name = "portal/models/datasets.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        rows = datasets_visible_to(self.actor).select_related("department")
        rows = rows.annotate(
            versions_n=Count("versions", distinct=True), rows_n=Max("versions__rows")
        ).order_by("name")
        return {
            "page": page_of(self.request, rows),
            "may_create": may_somewhere(self.actor, Action.DATASET_CREATE, kind="dataset"),
        }


class DatasetNew(ActionScreen):
    """The form for a new dataset."""

    template_name = "portal/form.html"

    def form(self) -> DatasetForm:
        departments = departments_where(self.actor, Action.DATASET_CREATE, kind="dataset")
        return DatasetForm(self.request.POST or None, departments=departments)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "form": self.form(),
            "title": "New dataset",
            "lead": "All data has an owner, a classification and a licence.",
            "submit": "Register the dataset",
            "back": ("portal:datasets", "Datasets"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        dataset = dataset_create(actor=self.actor, **cleaned(self.form()))
        messages.success(self.request, f"{dataset.name} is registered; add its first version.")
        return redirect("portal:dataset", name=dataset.name)


class DatasetPage(ActionScreen):
    """One dataset, and the form that adds a version."""

    upload_limit = "DATASET_MAX_BYTES"
    template_name = "portal/models/dataset.html"

    def form(self) -> DatasetVersionForm:
        if self.request.method == "POST":
            return DatasetVersionForm(self.request.POST, self.request.FILES)
        return DatasetVersionForm()

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        dataset = dataset_get(actor=self.actor, name=name)
        versions = dataset_versions_visible_to(self.actor).filter(dataset=dataset)
        return {
            "dataset": dataset,
            "page": page_of(
                self.request, versions.select_related("created_by").order_by("-number")
            ),
            "form": self.form(),
            "may_add": may(
                self.actor,
                Action.DATASET_CREATE,
                kind="dataset",
                department=dataset.department.slug,
            ),
        }

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        dataset = dataset_get(actor=self.actor, name=name)
        form = self.form()
        values = cleaned(form)
        version = dataset_version_add(
            actor=self.actor, dataset=dataset, file=values["file"], columns=form.mapping()
        )
        messages.success(self.request, f"{version} holds {version.rows:,} rows.")
        return redirect("portal:dataset", name=name)
