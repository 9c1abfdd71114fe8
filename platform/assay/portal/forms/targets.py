"""The form for one target of a deployment."""

from __future__ import annotations

from typing import Any, get_args

from django import forms

from assay.forms import TablerForm
from registry.releases.models import Release
from workers.deployments.models import Deployment, TargetRole
from workers.routing.schemas import DAYS, REASON_MAX, Modality

_LINE = 2_000
_CONDITIONS = (
    "departments", "endpoints", "prompt_tokens_min", "prompt_tokens_max", "modalities", "days",
    "time_from", "time_until",
)  # fmt: skip


class TargetForm(TablerForm):
    """Release, role, share and conditions of a target. The service checks them."""

    release = forms.TypedChoiceField(
        coerce=int, label="Release",
        help_text="Approved releases for this name, and those that are targets now.",
    )  # fmt: skip
    role = forms.ChoiceField(
        choices=[each for each in TargetRole.choices if each[0]], label="Role",
        help_text="A canary loses its share if it does worse than the primary. A fallback gets "
        "requests that failed elsewhere before an answer began. A shadow gets copies of requests.",
    )  # fmt: skip
    weight = forms.IntegerField(
        min_value=0, max_value=100, initial=0, label="Share in percent",
        help_text="Percentage of the requests that meet the conditions; 0 for a fallback.",
    )  # fmt: skip
    departments = forms.CharField(
        required=False, max_length=_LINE, label="Only from departments",
        help_text="Their short names, separated by commas. Empty: all.",
    )  # fmt: skip
    endpoints = forms.CharField(
        required=False, max_length=_LINE, label="Only to endpoints",
        help_text="Paths such as /v1/chat/completions, separated by commas. Empty: all.",
    )  # fmt: skip
    prompt_tokens_min = forms.IntegerField(
        required=False, min_value=1, label="Prompt tokens, at least"
    )
    prompt_tokens_max = forms.IntegerField(
        required=False, min_value=1, label="Prompt tokens, at most"
    )
    modalities = forms.MultipleChoiceField(
        required=False, choices=[(name, name.title()) for name in get_args(Modality)],
        label="Only with", help_text="Kinds of input. None chosen: any.",
    )  # fmt: skip
    days = forms.MultipleChoiceField(
        required=False, choices=[(day, day.title()) for day in DAYS], label="Only on",
        help_text="Days in UTC. None chosen: every day.",
    )  # fmt: skip
    time_from = forms.CharField(
        required=False, max_length=5, label="From (UTC)", help_text="A time such as 08:00."
    )
    time_until = forms.CharField(required=False, max_length=5, label="Until (UTC)")
    reason = forms.CharField(max_length=REASON_MAX, label="Reason (kept in the audit log)")

    def __init__(
        self, *args: Any, offered: list[Release], targets: list[Deployment], **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        choices = [(each.pk, f"{each.version} (release {each.pk})") for each in offered]
        choices += [
            (each.release_id, f"{each.release.version} (release {each.release_id}, a target)")
            for each in targets
        ]
        field: Any = self.fields["release"]
        field.choices = choices

    def conditions(self) -> list[forms.BoundField]:
        return [self[name] for name in _CONDITIONS]

    def opens_conditions(self) -> bool:
        """Return true if a condition is filled in or has an error."""
        return any(field.value() or field.errors for field in self.conditions())

    def clean_departments(self) -> list[str]:
        return _listed(self.cleaned_data["departments"])

    def clean_endpoints(self) -> list[str]:
        return _listed(self.cleaned_data["endpoints"])


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def initial_of(target: Deployment) -> dict[str, Any]:
    """Return the form's values for a present target."""
    conditions = dict(target.routing_conditions)
    for name in ("departments", "endpoints"):
        conditions[name] = ", ".join(conditions.get(name, ()))
    return {
        "release": target.release_id,
        "role": target.role,
        "weight": target.weight,
        **conditions,
    }


def target_of_form(values: dict[str, Any]) -> dict[str, Any]:
    """Return the form's values as the service's schema takes them."""
    conditions = {name: values[name] for name in _CONDITIONS if values[name]}
    return {
        "release": values["release"],
        "role": values["role"],
        "weight": values["weight"],
        "conditions": conditions,
    }
