"""Datasets: the list, one with its versions and profile, adding data."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from assay.portal.access import departments_where, may
from assay.portal.dataset_media import file_named, media_answer, with_addresses
from assay.portal.forms.datasets import DatasetForm, DatasetVersionForm
from assay.portal.http import ActionScreen, Screen, cleaned, number_in, page_of
from assay.portal.lists import ListScreen
from assay.portal.views.uploads import submitted_uploads, upload_context
from governance.english import counted
from governance.errors import NotFound, QuotaExceeded, Unavailable
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog import TASKS, get_row_kind, unavailable_reason
from registry.catalog.declaration import RowKind
from registry.catalog.formats import archive_layout, is_tabular, row_fields, sample_lines
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.preview import (
    RowsPreview,
    dataset_media_open,
    dataset_unmask,
    rows_preview,
)
from registry.datasets.schemas import RowsQuery
from registry.datasets.selectors import (
    dataset_get,
    dataset_versions_visible_to,
    datasets_visible_to,
)
from registry.datasets.services import (
    dataset_create,
    dataset_version_add,
    dataset_version_allow,
)
from registry.feedback.selectors import version_taught
from registry.uploads.models import UploadKind
from registry.versions.models import Model, ModelVersion
from registry.versions.selectors import model_get, models_trained_on, models_visible_to
from workers.jobs.training import training_bases

MODELS_OFFERED = 50
NUMBER_MAX = 2**31 - 1


def version_of(actor: Principal, dataset: Dataset, number: int) -> DatasetVersion:
    """Return the version of that number. Raises NotFound."""
    versions = dataset_versions_visible_to(actor).filter(dataset=dataset)
    version = versions.filter(number=min(number, NUMBER_MAX)).first()
    if version is None:
        raise NotFound(f"{dataset.name} has no version {number}.")
    return version


def row_kind_of(dataset: Dataset) -> RowKind | None:
    """Return the kind of rows that a dataset holds; None while no installed task declares it."""
    task = TASKS.get(dataset.task)
    kinds = () if task is None else task.row_kinds
    return next((kind for kind in kinds if kind.name == dataset.row_kind), None)


class Datasets(ListScreen):
    """Every dataset the person may see."""

    template_name = "portal/models/datasets.html"
    title = "Datasets"
    lead = "Training and evaluation data, each with an owner, a classification and a license."
    columns = "Dataset | Classification | Task | Department | License | # Versions | # Rows"
    creates = (Action.DATASET_CREATE, "dataset")

    def rows(self) -> QuerySet[Dataset]:
        rows = datasets_visible_to(self.actor).select_related("department")
        counts = {"versions_n": Count("versions", distinct=True), "rows_n": Max("versions__rows")}
        return rows.annotate(**counts).order_by("name")


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
            "lead": "All data has an owner, a classification and a license.",
            "submit": "Register the dataset",
            "back": ("portal:datasets", "Datasets"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        dataset = dataset_create(actor=self.actor, **cleaned(self.form()))
        return self.done(
            f"{dataset.name} is registered; add its first version.",
            "portal:dataset",
            name=dataset.name,
        )


class DatasetPage(ActionScreen):
    """One dataset, rows of one version, and the form that adds a version."""

    upload_limit: str | None = "DATASET_MAX_BYTES"
    template_name = "portal/models/dataset.html"

    def allow_body(self, *, name: str, **kwargs: Any) -> None:
        dataset_version_allow(actor=self.actor, dataset=dataset_get(actor=self.actor, name=name))

    def form(self) -> DatasetVersionForm:
        if self.request.method == "POST":
            form = DatasetVersionForm(self.request.POST, self.request.FILES)
            form.fields["file"].required = not self.request.POST.getlist("uploads")
            return form
        return DatasetVersionForm()

    def context(
        self, *, name: str, number: int | None = None, preview: RowsPreview | None = None
    ) -> dict[str, Any]:
        dataset = dataset_get(actor=self.actor, name=name)
        versions = dataset_versions_visible_to(self.actor).filter(dataset=dataset)
        page = page_of(
            self.request, versions.select_related("created_by", "base__dataset").order_by("-number")
        )
        version = self.selected_version(dataset, list(page.object_list), number)
        missing = None
        kind = row_kind_of(dataset)
        if kind is not None and version is not None and preview is None:
            try:
                preview = rows_preview(version, RowsQuery.lenient(self.request.GET.dict()))
            except (Unavailable, QuotaExceeded) as error:
                missing = error
        return {
            "dataset": dataset,
            "unavailable": unavailable_reason(dataset.task),
            "page": page,
            "form": self.form(),
            "row_kind": kind,
            "shown": version if kind is not None else None,
            "preview": preview,
            "rows_target": self.request.path
            if preview is not None and preview.unmasked
            else reverse("portal:dataset", args=[name]),
            "missing": missing,
            "may_unmask": self.may(Action.DATASET_UNMASK, dataset),
            "may_add": kind is not None and self.may(Action.DATASET_CREATE, dataset),
            "trained": models_trained_on(self.actor, dataset),
            "trainable": self.trainable(dataset) if version is not None else [],
            "again": None if version is None else self.taught(version),
            "fields": row_fields(kind) if kind else [],
            "tabular": kind is not None and is_tabular(kind),
            "layout": archive_layout(kind) if kind else "",
            "sample": sample_lines(kind) if kind else "",
            **upload_context(self.actor, self.request, UploadKind.DATASET, dataset.name),
        }

    def selected_version(
        self, dataset: Dataset, listed: list[DatasetVersion], number: int | None
    ) -> DatasetVersion | None:
        """Return the version whose rows are shown: the named one, else the newest on the page."""
        if number is None:
            number = number_in(self.request.GET, "version")
        if number is None:
            return listed[0] if listed else None
        matches = [version for version in listed if version.number == number]
        return matches[0] if matches else version_of(self.actor, dataset, number)

    def may(self, action: Action, dataset: Dataset) -> bool:
        """Return true if the policy lets the person do `action` with the dataset."""
        return may(
            self.actor,
            action,
            kind="dataset",
            department=dataset.department.slug,
            attributes={"classification": dataset.classification, "task": dataset.task},
        )

    def taught(self, version: DatasetVersion) -> ModelVersion | None:
        """Return the model version whose feedback the data has, if the person may fine-tune it."""
        trained = version_taught(self.actor, version)
        if trained is None:
            return None
        slug = trained.model.department.slug
        return trained if may(self.actor, Action.JOB_CREATE, kind="job", department=slug) else None

    def trainable(self, dataset: Dataset) -> list[Model]:
        """Return the models that the person may train on the dataset; none without a base."""
        task = TASKS.get(dataset.task)
        recipes = () if task is None else task.recipes
        if not any(recipe.row_kind == dataset.row_kind for recipe in recipes):
            return []
        departments = departments_where(self.actor, Action.JOB_CREATE, kind="job")
        models = models_visible_to(self.actor).filter(task=dataset.task, department__in=departments)
        offered = list(models.order_by("name")[:MODELS_OFFERED])
        return offered if offered and training_bases(self.actor, dataset.task).exists() else []

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        dataset = dataset_get(actor=self.actor, name=name)
        form = self.form()
        values = cleaned(form)
        # A new file replaces the upload of a refused form.
        uploads = [] if values["file"] else submitted_uploads(self.request)
        version = dataset_version_add(
            actor=self.actor,
            dataset=dataset,
            file=values["file"],
            upload_id=uploads[0] if uploads else None,
            columns=form.mapping(),
        )
        return self.done(
            f"{version} has {counted(version.rows, 'row')}.", "portal:dataset", name=name
        )


class DatasetRows(DatasetPage):
    """Rows of one version: masked on GET, unmasked on POST."""

    upload_limit = None

    def form(self) -> DatasetVersionForm:
        return DatasetVersionForm()

    def act(self, *, name: str, number: int = 0, **kwargs: Any) -> HttpResponse:
        dataset = dataset_get(actor=self.actor, name=name)
        version = version_of(self.actor, dataset, number)
        query = RowsQuery.lenient(self.request.POST.dict())
        preview = dataset_unmask(actor=self.actor, id=version.pk, query=query)
        preview = with_addresses(preview, version, self.actor)
        response = self.page(name=name, number=number, preview=preview)
        response.headers["Cache-Control"] = "no-store"
        return response


class DatasetMedia(Screen):
    """An image or recording in the rows of one version, for the person who unmasked them."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        dataset = dataset_get(actor=self.actor, name=kwargs["name"])
        version = version_of(self.actor, dataset, kwargs["number"])
        opened = dataset_media_open(
            actor=self.actor,
            id=version.pk,
            sha256=file_named(request, version, self.actor),
            small=request.GET.get("size") in ("small", "mask"),
            mask=request.GET.get("size") == "mask",
        )
        return media_answer(request, opened)


class DatasetTrain(Screen):
    """Redirect to the form that fine-tunes `?model=` on one version."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        dataset = dataset_get(actor=self.actor, name=kwargs["name"])
        version = version_of(self.actor, dataset, kwargs["number"])
        model = model_get(actor=self.actor, name=request.GET.get("model", ""))
        target = reverse("portal:model_fine_tune", args=[model.name])
        return redirect(f"{target}?dataset_version={version.pk}")


class DatasetSample(Screen):
    """Example rows of `?task=` and `?row_kind=`, as a file."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        task = request.GET.get("task", "")
        kind = get_row_kind(task, request.GET.get("row_kind", ""))
        name = "-".join(filter(None, (task, kind.name)))
        return HttpResponse(
            sample_lines(kind),
            content_type="application/x-ndjson",
            headers={"Content-Disposition": f'attachment; filename="{name}-example.jsonl"'},
        )
