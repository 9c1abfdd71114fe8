"""Forms of schedules: the times of a job, the version and the data that it uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.models import draft_field, max_rows_field, priority_field
from governance.bounds import TITLE_MAX
from governance.principals import Principal
from registry.datasets.selectors import dataset_versions_visible_to
from registry.versions.models import Model, VersionState
from registry.versions.selectors import versions_visible_to
from workers.schedules.cron import LEAST_MINUTES, time_zones
from workers.schedules.models import CRON_MAX

DATA_SHOWN = 300
VERSIONS_SHOWN = 50
_NEWEST = "Newest: the newest {} at each run."
# With non-breaking spaces.
_NIGHTLY, _WEEKDAYS = (each.replace(" ", "\xa0") for each in ("0 2 * * *", "0 6 * * 1-5"))


class ScheduleForm(TablerForm):
    """Times of a schedule, and the version and data of its jobs; the pattern sets the rest."""

    name = forms.CharField(max_length=TITLE_MAX)
    cron = forms.CharField(
        max_length=CRON_MAX,
        label="Times",
        initial="0 2 * * *",
        help_text=f"Minute, hour, day of month, month, weekday. {_NIGHTLY} is 02:00 every night; "
        f"{_WEEKDAYS} is 06:00 from Monday to Friday. At least {LEAST_MINUTES} minutes apart.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    time_zone = forms.ChoiceField(initial="UTC")
    version = forms.ChoiceField(help_text=_NEWEST.format("trusted version"))
    dataset = forms.ChoiceField(label="Data", help_text=_NEWEST.format("version"))
    run_unchanged = forms.BooleanField(
        required=False,
        label="Run even if nothing is new",
        help_text="Otherwise a time is skipped when the newest versions are those of the last job.",
    )
    max_rows = max_rows_field()
    priority = priority_field()
    then = forms.ChoiceField(
        required=False,
        label="Then evaluate on",
        help_text="Starts when the fine-tune has succeeded. It cannot use training data.",
    )

    def __init__(
        self,
        *args: Any,
        versions: list[tuple[str, str]],
        choices: list[tuple[str, str]],
        then: list[tuple[str, str]] | None,
        may_release: bool,
        **kwargs: Any,
    ) -> None:
        """Take the choices of `version`, `dataset` and `then`, which is None for evaluations."""
        super().__init__(*args, **kwargs)
        self.tunes = then is not None
        self.fields["version"].label = "Base" if self.tunes else "Version"
        self.fields["version"].choices = [("", "Choose the version"), *versions]  # type: ignore[attr-defined]
        self.fields["time_zone"].choices = [(name, name) for name in time_zones()]  # type: ignore[attr-defined]
        self.fields["dataset"].choices = [("", "Choose the data"), *choices]  # type: ignore[attr-defined]
        if then is None:
            del self.fields["then"]
            return
        del self.fields["max_rows"]
        self.fields["then"].choices = [("", "No evaluation"), *then]  # type: ignore[attr-defined]
        if may_release:
            self.fields["release"] = draft_field()

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if self.tunes and values.get("then") and values["then"] == values.get("dataset"):
            self.add_error(
                "then",
                "The fine-tune trains on this data. A result on it says nothing about new data. "
                "Choose other data.",
            )
        return values

    def request(self) -> dict[str, Any]:
        """Return the parts of the request that the form sets."""
        values = self.cleaned_data
        request = {
            **version_of(values["version"], "base_" if self.tunes else ""),
            **data_of(values["dataset"]),
            "priority": values["priority"] or "normal",
        }
        if values.get("max_rows"):
            request["max_rows"] = values["max_rows"]
        if values.get("then"):
            request["then"] = [data_of(values["then"])]
        if values.get("release"):
            request["release"] = {"environment": values["release"]}
        return request


def version_choices(
    actor: Principal, model: Model, kinds: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Return a choice for the newest version at each run, then the trusted versions of `kinds`, or
    of every kind, that the actor may see."""
    rows = versions_visible_to(actor).filter(model=model, state=VersionState.TRUSTED)
    rows = rows.filter(kind__in=kinds) if kinds else rows
    newest = rows.order_by("-number")[:VERSIONS_SHOWN]
    return [
        (f"model:{model.name}", f"Newest {model.name}"),
        *((f"version:{version.pk}", str(version)) for version in newest),
    ]


def version_of(choice: str, prefix: str) -> dict[str, Any]:
    """Return one of `version_choices` as a request names it."""
    kind, _, value = choice.partition(":")
    return {f"{prefix}{kind}": value if kind == "model" else int(value)}


def data_choices(actor: Principal, task: str, row_kind: str = "") -> list[tuple[str, str]]:
    """Return the data of a task that the actor may see: for each dataset a choice of its newest
    version at each run, then its present versions."""
    rows = dataset_versions_visible_to(actor).filter(dataset__task=task, dataset__row_kind=row_kind)
    choices: list[tuple[str, str]] = []
    seen: set[int] = set()
    for version in rows.order_by("dataset__name", "-number")[:DATA_SHOWN]:
        if version.dataset_id not in seen:
            seen.add(version.dataset_id)
            name = version.dataset.name
            choices.append((f"dataset:{name}", f"Newest {name}"))
        choices.append((f"version:{version.pk}", str(version)))
    return choices


def data_of(choice: str) -> dict[str, Any]:
    """Return one of `data_choices` as a request names it."""
    kind, _, value = choice.partition(":")
    return {"dataset": value} if kind == "dataset" else {"dataset_version": int(value)}
