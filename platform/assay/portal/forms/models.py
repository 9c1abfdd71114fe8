"""Forms of models, gates, fine-tunes, evaluations and intakes."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import DepartmentScoped, NameField, SlugChoice, titled, unchosen
from governance.bounds import DESCRIPTION_MAX, NAME_MAX
from registry.catalog import TASKS, get_task
from registry.catalog.declaration import Recipe
from registry.datasets.parsing import MAX_ROWS
from registry.evaluations.models import WHY_MAX, Comparator
from registry.intake.models import SOURCE_MAX
from registry.releases.models import Environment
from registry.versions.models import LICENSE_MAX as VERSION_LICENSE_MAX
from registry.versions.models import REASON_MAX as RECALL_REASON_MAX
from registry.versions.selectors import training_data
from workers.jobs.models import PRIORITIES
from workers.jobs.resources import resources_offered
from workers.run.order import MAX_MEMORY_GIB, MAX_MINUTES

# The resources of a job, by the label of their field.
RESOURCES = {
    "devices": "Devices on each machine",
    "nodes": "Machines",
    "memory_gib": "Memory of each machine in GiB",
    "minutes": "Time limit in minutes",
}


class ModelForm(DepartmentScoped):
    """A new model."""

    name = NameField(max_length=NAME_MAX)
    task = forms.ChoiceField(choices=unchosen((task.name, task.title) for task in TASKS.values()))
    description = forms.CharField(
        max_length=DESCRIPTION_MAX, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )
    shared = forms.BooleanField(
        required=False, label="Shared: other departments may see it and fine-tune it"
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
        self.fields["metric"].choices = unchosen(  # type: ignore[attr-defined]
            (metric.name, metric.title) for metric in get_task(task).metrics
        )


def priority_field() -> forms.ChoiceField:
    """Return the field for a new job's priority; the default is normal."""
    return forms.ChoiceField(
        choices=[(name, name.capitalize()) for name in reversed(PRIORITIES)],
        initial="normal",
        required=False,
        help_text="High is for leads and operators.",
        widget=forms.Select(attrs={"class": "form-select"}),
    )


def draft_field() -> forms.ChoiceField:
    """Return the field for the release draft at the end of a chain."""
    return forms.ChoiceField(
        choices=[("", "No release draft"), *titled(Environment.choices)],
        required=False,
        label="Then draft a release for",
        help_text="When all jobs have succeeded. You complete and submit the draft.",
        widget=forms.Select(attrs={"class": "form-select"}),
    )


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
        self,
        *args: Any,
        task: str,
        bases: Any,
        dataset_versions: Any,
        may_release: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        entry = get_task(task)
        self.fields["base_version"].queryset = bases  # type: ignore[attr-defined]
        methods = {recipe.method: recipe for recipe in entry.recipes}
        self.fields["method"].choices = [(m, methods[m].title) for m in methods]  # type: ignore[attr-defined]
        chosen = methods.get(str(self["method"].value() or ""), entry.recipes[0])
        data = dataset_versions.filter(dataset__row_kind=chosen.row_kind)
        self.fields["dataset_version"].queryset = data  # type: ignore[attr-defined]
        schema = chosen.hyperparameters.model_fields
        self.hyperparameters = list(schema)
        for name, info in schema.items():
            self.fields[f"h_{name}"] = _hyperparameter(name, info)
        self.fields |= _resources(chosen)
        self.fields["priority"] = priority_field()
        if entry.evaluation is not None:
            self.fields["then"] = forms.ModelChoiceField(
                queryset=dataset_versions.filter(dataset__row_kind=""),
                empty_label="No evaluation",
                required=False,
                label="Then evaluate on",
                help_text="Starts when the fine-tune has succeeded. It cannot use training data.",
                widget=forms.Select(attrs={"class": "form-select"}),
            )
        if may_release:
            self.fields["release"] = draft_field()

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        measured, base = values.get("then"), values.get("base_version")
        if not measured:
            return values
        training = [values.get("dataset_version"), *(training_data(base) if base else [])]
        if measured.digest in {each.digest for each in training if each is not None}:
            self.add_error(
                "then",
                f"{measured} is training data of this fine-tune or of its base. A result on it "
                "says nothing about new data. Choose other data.",
            )
        return values

    @property
    def settings(self) -> list[forms.BoundField]:
        """Return the fields of hyper-parameters and resources, which have defaults."""
        return [self[name] for name in self.fields if name.startswith(("h_", "resources_"))]

    @property
    def choices(self) -> list[forms.BoundField]:
        """Return all other fields."""
        return [self[name] for name in self.fields if not name.startswith(("h_", "resources_"))]

    @property
    def opens_settings(self) -> bool:
        """True if a setting is invalid or was copied from an earlier job."""
        return any(field.errors or field.name in self.initial for field in self.settings)

    def resource_values(self) -> dict[str, Any]:
        """Return the requested resources that were filled in."""
        names = [name for name in RESOURCES if f"resources_{name}" in self.fields]
        return {name: self.cleaned_data[f"resources_{name}"] for name in names}

    def processes(self) -> int:
        """Return the number of processes that share the work; 1 while the fields are invalid."""
        devices = self.cleaned_data.get("resources_devices") or 1
        return int(devices * (self.cleaned_data.get("resources_nodes") or 1))

    def hyperparameter_values(self) -> dict[str, Any]:
        """Return the hyper-parameters that were filled in."""
        values = {name: self.cleaned_data[f"h_{name}"] for name in self.hyperparameters}
        return {name: value for name, value in values.items() if value is not None}


def _resources(recipe: Recipe) -> dict[str, forms.Field]:
    """Return the fields for resources that jobs of this recipe can request on this installation."""
    offered = resources_offered()
    limits = {"devices": offered.devices, "nodes": offered.nodes}
    visible = {name: limit for name, limit in limits.items() if recipe.distributed and limit > 1}
    memory_gib = offered.memory_gib or MAX_MEMORY_GIB
    return {
        f"resources_{name}": forms.IntegerField(
            required=False,
            min_value=1,
            max_value=limit,
            label=RESOURCES[name],
            widget=forms.NumberInput(attrs={"class": "form-control"}),
        )
        for name, limit in {**visible, "memory_gib": memory_gib, "minutes": MAX_MINUTES}.items()
    }


def setting_title(name: str) -> str:
    """Return `lora_rank` as `LoRA rank`."""
    return name.replace("_", " ").capitalize().replace("Lora", "LoRA")


def _hyperparameter(name: str, info: Any) -> forms.Field:
    label = setting_title(name)
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


def max_rows_field() -> forms.IntegerField:
    """Return the field for the maximum rows of an evaluation."""
    return forms.IntegerField(
        min_value=1,
        max_value=MAX_ROWS,
        required=False,
        label="Maximum rows",
        help_text="Leave empty to measure all rows. Gates need all rows.",
    )


class MeasuredData(forms.ModelChoiceField):  # type: ignore[type-arg]
    """Data to measure on; training data of the version is labeled."""

    learned: frozenset[str] = frozenset()

    def label_from_instance(self, data: Any) -> str:
        return f"{data} (training data)" if data.digest in self.learned else str(data)


class EvaluateForm(TablerForm):
    """Data to measure on, and its maximum rows. `learned` are the digests of training data."""

    dataset_version = MeasuredData(
        queryset=None,
        empty_label="Choose the data",
        label="Data to measure on",
        help_text="Choose data that the version was not trained on. A result on training data says "
        "nothing about new data.",
    )
    max_rows = max_rows_field()
    priority = priority_field()

    def __init__(
        self, *args: Any, dataset_versions: Any, learned: frozenset[str], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        data = self.fields["dataset_version"]
        data.learned = learned  # type: ignore[attr-defined]
        data.queryset = dataset_versions  # type: ignore[attr-defined]


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
    """Files for a new base version, or for an adapter on one."""

    model = SlugChoice(queryset=None, empty_label="Choose…")
    base_version: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None,
        required=False,
        empty_label="None: the files are a base model",
        label="Base version",
        help_text="Only for an adapter (LoRA or a soft prompt): the version it was trained on.",
        error_messages={
            "invalid_choice": "This base version does not exist, or you may not use it. "
            "Choose one from the list."
        },
    )
    source = forms.CharField(
        max_length=SOURCE_MAX, help_text="Origin of the files: an address or a person."
    )
    license = forms.CharField(
        max_length=VERSION_LICENSE_MAX,
        label="License",
        help_text="An SPDX identifier, such as Apache-2.0.",
    )
    files = ManyFiles(  # type: ignore[assignment]
        help_text="Safetensors or GGUF weights, JSON and text configuration, tokenizer files. "
        "An adapter is an adapter_config.json and an adapter_model.safetensors; an adapter of a "
        "classifier also has a labels.json."
    )
    keep_gguf = forms.BooleanField(
        required=False,
        label="Keep a GGUF as delivered",
        help_text="llama.cpp then serves the uploaded file, with its quantization. It cannot be "
        "fine-tuned. Otherwise a GGUF is converted to safetensors.",
    )

    def __init__(self, *args: Any, models: Any, bases: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].queryset = models  # type: ignore[attr-defined]
        self.fields["base_version"].queryset = bases  # type: ignore[attr-defined]
        self.fields["files"].widget.attrs["class"] = "form-control"


class RecallForm(TablerForm):
    """Reason of a recall, and the version's name, typed to confirm it."""

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
