"""Forms of datasets."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import DepartmentScoped, NameField, titled, unchosen
from governance.bounds import DESCRIPTION_MAX, NAME_MAX
from registry.catalog import TASKS
from registry.datasets.models import LICENSE_MAX, Classification


def _kinds_of_rows() -> list[tuple[str, str]]:
    return [
        (f"{task.name}:{kind.name}", f"{task.title}: {kind.title}")
        if kind.name
        else (task.name, task.title)
        for task in TASKS.values()
        for kind in task.row_kinds
    ]


class DatasetForm(DepartmentScoped):
    """A new dataset. Its task is sent as `name` or `name:kind of rows`."""

    name = NameField(max_length=NAME_MAX)
    task = forms.ChoiceField(choices=lambda: unchosen(_kinds_of_rows()))
    classification = forms.ChoiceField(choices=unchosen(titled(Classification.choices)))
    license = forms.CharField(max_length=LICENSE_MAX, label="License")
    description = forms.CharField(
        max_length=DESCRIPTION_MAX, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        task, _, kind = values.get("task", "").partition(":")
        return {**values, "task": task, "row_kind": kind}


class DatasetVersionForm(TablerForm):
    """A new version: one file of rows."""

    file = forms.FileField(
        help_text="TSV, CSV, JSON lines or Parquet; a zip archive for images, audio and video."
    )
    columns = forms.CharField(
        required=False,
        help_text="If columns have other names, map them: text=review, label=rating.",
    )

    def mapping(self) -> dict[str, str] | None:
        """Return the mapping of columns, or None if it is empty."""
        pairs = (part.split("=", 1) for part in self.cleaned_data["columns"].split(","))
        columns = {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
        return columns or None
