"""The portal's forms: they shape input; the services judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms

from governance.bounds import (
    DEPARTMENT_MAX,
    DESCRIPTION_MAX,
    EMAIL_MAX,
    GROUP_MAX,
    NAME_MAX,
    TITLE_MAX,
)
from governance.people.models import DEPARTMENT_ROLES, REASON_MAX, Role, Speciality
from registry.catalog import TASKS, get_task
from registry.datasets.models import LICENSE_MAX, Classification
from registry.evaluations.models import WHY_MAX, Comparator
from registry.intake.models import SOURCE_MAX
from registry.responses.models import RETENTION_MAX_DAYS
from registry.versions.models import LICENSE_MAX as VERSION_LICENSE_MAX
from registry.versions.models import REASON_MAX as RECALL_REASON_MAX


def titled(choices: Any) -> list[tuple[str, str]]:
    """Choices whose labels begin with a capital."""
    return [(value, label[:1].upper() + label[1:]) for value, label in choices]


def unchosen(choices: Any) -> list[tuple[str, str]]:
    """Choices that begin with none chosen, for an answer that a person must give."""
    return [("", "Choose…"), *choices]


class TablerForm(forms.Form):
    """Gives every widget Tabler's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            widget = field.widget
            if isinstance(widget, (forms.CheckboxInput, forms.CheckboxSelectMultiple)):
                widget.attrs.setdefault("class", "form-check-input")
            elif isinstance(widget, forms.Select):
                widget.attrs.setdefault("class", "form-select")
            else:
                widget.attrs.setdefault("class", "form-control")


if TYPE_CHECKING:
    ObjectChoice = forms.ModelChoiceField[Any]
else:
    ObjectChoice = forms.ModelChoiceField


class SlugChoice(ObjectChoice):
    """A choice of objects that reads as their names."""

    def label_from_instance(self, obj: Any) -> str:
        return getattr(obj, "name", None) or str(obj)


class DepartmentScoped(TablerForm):
    """A form for something that is made in one of the departments that the actor may choose."""

    department = SlugChoice(queryset=None, empty_label=None)

    def __init__(self, *args: Any, departments: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["department"].queryset = departments  # type: ignore[attr-defined]


class ModelForm(DepartmentScoped):
    """A new line of versions."""

    name = forms.SlugField(max_length=NAME_MAX, help_text="Lowercase letters, digits and hyphens.")
    task = forms.ChoiceField(choices=[(task.name, task.title) for task in TASKS.values()])
    description = forms.CharField(
        max_length=DESCRIPTION_MAX, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )
    shared = forms.BooleanField(
        required=False, label="Shared: other departments may see it and adapt it"
    )


class GateForm(TablerForm):
    """A threshold that later evaluations must meet."""

    dataset = SlugChoice(queryset=None, empty_label="Choose the dataset")
    metric = forms.ChoiceField()
    comparator = forms.ChoiceField(
        choices=[(c, "At least" if c == ">=" else "At most") for c in Comparator.values]
    )
    threshold = forms.FloatField(widget=forms.NumberInput(attrs={"step": "any"}))
    why = forms.CharField(max_length=WHY_MAX, required=False, label="Reason for the threshold")

    def __init__(self, *args: Any, datasets: Any, task: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = datasets  # type: ignore[attr-defined]
        self.fields["metric"].choices = [(m.name, m.title) for m in get_task(task).metrics]  # type: ignore[attr-defined]


class FineTuneForm(TablerForm):
    """A training run; the hyper-parameters are those of the model's task."""

    base_version: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None, empty_label=None, label="Base version"
    )
    method = forms.ChoiceField()
    dataset_version: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None, empty_label="Choose the data", label="Training data"
    )

    def __init__(
        self, *args: Any, task: str, bases: Any, dataset_versions: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        entry = get_task(task)
        self.fields["base_version"].queryset = bases  # type: ignore[attr-defined]
        methods = {recipe.method: recipe for recipe in entry.recipes}
        self.fields["method"].choices = [(m, methods[m].title) for m in methods]  # type: ignore[attr-defined]
        chosen = methods.get(str(self["method"].value() or ""), entry.recipes[0])
        data = dataset_versions.filter(dataset__row_kind=chosen.row_kind)
        self.fields["dataset_version"].queryset = data  # type: ignore[attr-defined]
        settings = chosen.hyperparameters.model_fields
        self.hyperparameters = list(settings)
        for name, info in settings.items():
            self.fields[f"h_{name}"] = _hyperparameter(name, info)

    def hyperparameter_values(self) -> dict[str, Any]:
        """Those that were filled in."""
        values = {name: self.cleaned_data[f"h_{name}"] for name in self.hyperparameters}
        return {name: value for name, value in values.items() if value is not None}


def _hyperparameter(name: str, info: Any) -> forms.Field:
    label = name.replace("_", " ").capitalize()
    initial = None if info.is_required() else info.default
    field: forms.Field
    if info.annotation is bool:
        field = forms.BooleanField(required=False, label=label, initial=initial)
        field.widget.attrs["class"] = "form-check-input"
        return field
    if info.annotation is float:
        widget = forms.NumberInput(attrs={"step": "any", "class": "form-control"})
        field = forms.FloatField(required=False, label=label, initial=initial, widget=widget)
    else:
        field = forms.IntegerField(required=False, label=label, initial=initial)
        field.widget.attrs["class"] = "form-control"
    return field


class EvaluateForm(TablerForm):
    """Which data to measure on."""

    dataset_version: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None, empty_label="Choose the data", label="Held-out data"
    )
    max_rows = forms.IntegerField(
        min_value=1,
        max_value=2_000_000,
        required=False,
        label="Maximum rows",
        help_text="Leave empty to measure all rows. Gates need all rows.",
    )

    def __init__(self, *args: Any, dataset_versions: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dataset_version"].queryset = dataset_versions  # type: ignore[attr-defined]


class ManyFilesInput(forms.ClearableFileInput):
    """A file input that takes several."""

    allow_multiple_selected = True


class ManyFiles(forms.FileField):
    """Several files."""

    widget = ManyFilesInput

    def clean(self, data: Any, initial: Any = None) -> list[Any]:
        one = super().clean
        files = data if isinstance(data, (list, tuple)) else [data]
        return [one(file, initial) for file in files]


class IntakeForm(TablerForm):
    """Files that want to become a base version."""

    model = SlugChoice(queryset=None, empty_label=None)
    source = forms.CharField(
        max_length=SOURCE_MAX, help_text="Origin of the files: an address or a person."
    )
    licence = forms.CharField(
        max_length=VERSION_LICENSE_MAX,
        label="License",
        help_text="An SPDX identifier, such as Apache-2.0.",
    )
    files = ManyFiles(  # type: ignore[assignment]
        help_text="Safetensors or GGUF weights, JSON and text configuration, tokenizer files."
    )

    def __init__(self, *args: Any, models: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].queryset = models  # type: ignore[attr-defined]
        self.fields["files"].widget.attrs["class"] = "form-control"


def _kinds_of_rows() -> list[tuple[str, str]]:
    return [
        (f"{task.name}:{kind.name}", f"{task.title}: {kind.title}")
        if kind.name
        else (task.name, task.title)
        for task in TASKS.values()
        for kind in task.row_kinds
    ]


class DatasetForm(DepartmentScoped):
    """A new line of dataset versions. A task is sent as `name`, or as `name:kind of rows`."""

    name = forms.SlugField(max_length=NAME_MAX, help_text="Lowercase letters, digits and hyphens.")
    task = forms.ChoiceField(choices=_kinds_of_rows)
    classification = forms.ChoiceField(choices=unchosen(titled(Classification.choices)))
    licence = forms.CharField(max_length=LICENSE_MAX, label="License")
    description = forms.CharField(
        max_length=DESCRIPTION_MAX, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        task, _, kind = values.get("task", "").partition(":")
        return {**values, "task": task, "row_kind": kind}


class DatasetVersionForm(TablerForm):
    """One file of rows."""

    file = forms.FileField(
        help_text="TSV, CSV, JSON lines or Parquet; a zip archive for images, audio and video."
    )
    columns = forms.CharField(
        required=False,
        help_text="If columns have other names, map them: text=review, label=rating.",
    )

    def mapping(self) -> dict[str, str] | None:
        """The columns as given; None when none were."""
        pairs = (part.split("=", 1) for part in self.cleaned_data["columns"].split(","))
        found = {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
        return found or None


class PersonForm(TablerForm):
    """A person to invite."""

    email = forms.EmailField(label="E-mail")
    name = forms.CharField(max_length=TITLE_MAX)


class DepartmentForm(TablerForm):
    """A new tenant."""

    slug = forms.SlugField(max_length=DEPARTMENT_MAX, label="Short name")
    name = forms.CharField(max_length=TITLE_MAX)


class RoleForm(TablerForm):
    """One role to grant."""

    # The weakest role is preselected, so that a slip grants no administrator role.
    role = forms.ChoiceField(choices=titled(Role.choices), initial=Role.VIEWER)
    department = SlugChoice(queryset=None, required=False, empty_label="Platform-wide")
    speciality = forms.ChoiceField(
        required=False,
        choices=[("", "None"), *titled(Speciality.choices)],
        help_text="For reviewers only.",
    )

    def __init__(self, *args: Any, departments: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["department"].queryset = departments  # type: ignore[attr-defined]
        self.fields["role"].help_text = f"Of a department: {', '.join(DEPARTMENT_ROLES)}."


class MappingForm(RoleForm):
    """Role that members of a group get."""

    group = forms.CharField(
        max_length=GROUP_MAX,
        help_text="Its name, exactly as the identity provider sends it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    field_order = ("group", "role", "department", "speciality")


class EraseForm(TablerForm):
    """Reason for erasing a person; the actor types the person's address to confirm."""

    why = forms.CharField(
        label="Reason",
        max_length=REASON_MAX,
        help_text="Stays in the audit log permanently. Do not name them.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    confirm = forms.CharField(
        label="Their e-mail address, to confirm",
        max_length=EMAIL_MAX,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, email: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._email = email

    def clean_confirm(self) -> str:
        typed = str(self.cleaned_data["confirm"]).strip().lower()
        if typed != self._email:
            raise forms.ValidationError("The address does not match; the person was not erased.")
        return typed


class StandingForm(TablerForm):
    """Why a person's access ends, or begins again."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        help_text="Kept in the audit log.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class RetentionForm(TablerForm):
    """Days for which a department keeps responses."""

    days = forms.IntegerField(
        label="Days",
        min_value=0,
        max_value=RETENTION_MAX_DAYS,
        help_text="0 deletes all stored responses at once, and stores no more.",
    )


class RecallForm(TablerForm):
    """Why a version is recalled, and its name typed by whoever means it."""

    reason = forms.CharField(
        label="Reason",
        max_length=RECALL_REASON_MAX,
        help_text="Shown with the recall and kept in the audit log. Do not name people.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    confirm = forms.CharField(
        label="Name of the version, to confirm",
        max_length=120,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, version: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._version = version
        self.fields["confirm"].help_text = f"Type {version}."

    def clean_confirm(self) -> str:
        typed = str(self.cleaned_data["confirm"]).strip()
        if typed != self._version:
            raise forms.ValidationError("The name does not match; nothing was recalled.")
        return typed
