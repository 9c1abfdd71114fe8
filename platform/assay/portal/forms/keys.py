"""Forms for API keys: they shape input; the services judge it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import DepartmentScoped, SlugChoice
from governance.bounds import TITLE_MAX
from governance.keys.checks import NETWORKS_MAX
from governance.keys.models import PURPOSE_MAX, ApiKey

NETWORKS_HELP = "One per line, such as 10.20.0.0/16. Leave empty for any address."


class NetworksField(forms.CharField):
    """Networks, one per line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False,
            max_length=60 * NETWORKS_MAX,
            help_text=NETWORKS_HELP,
            widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
            **kwargs,
        )

    def clean(self, value: Any) -> list[str]:
        """Return the lines that are not empty."""
        return [line for line in (super().clean(value) or "").replace(",", "\n").split() if line]


def deployments_field(names: Iterable[str]) -> forms.MultipleChoiceField:
    """Return a choice among deployments that the person may see."""
    return forms.MultipleChoiceField(
        choices=[(name, name) for name in names],
        required=False,
        label="Only these deployments (none selected: all)",
        widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"}),
    )


class KeyForm(DepartmentScoped):
    """A new key for an application."""

    name = forms.CharField(max_length=TITLE_MAX, help_text="The application that will use it.")
    purpose = forms.CharField(max_length=PURPOSE_MAX, required=False)
    scopes = forms.MultipleChoiceField(
        choices=(
            ("deployment:invoke", "Use deployments"),
            ("deployment:view", "List deployments"),
            ("knowledge:search", "Search knowledge bases and answer from them"),
        ),
        initial=["deployment:invoke", "deployment:view"],
        widget=forms.CheckboxSelectMultiple,
    )
    days = forms.TypedChoiceField(
        label="Expires",
        coerce=int,
        initial=90,
        choices=((7, "in 7 days"), (30, "in 30 days"), (90, "in 90 days"), (365, "in a year")),
    )
    networks = NetworksField(label="Networks")

    def __init__(self, *args: Any, deployments: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if names := list(deployments):
            self.fields["allowed_deployments"] = deployments_field(names)


class KeyChangeForm(TablerForm):
    """Fields of a key that can be changed."""

    name = forms.CharField(max_length=TITLE_MAX)
    purpose = forms.CharField(max_length=PURPOSE_MAX, required=False)
    owner = SlugChoice(queryset=None, required=False, empty_label="No owner", label="Owner")
    networks = NetworksField(label="Networks")

    def __init__(
        self, *args: Any, key: ApiKey, people: Any, deployments: Iterable[str], **kwargs: Any
    ) -> None:
        initial = {
            "name": key.name,
            "purpose": key.purpose,
            "owner": key.owner_id,
            "networks": "\n".join(key.networks),
            "allowed_deployments": key.allowed_deployments,
        }
        super().__init__(*args, initial=initial, **kwargs)
        self.fields["owner"].queryset = people  # type: ignore[attr-defined]
        # Deployments that the key names stay selectable, even while they do not serve.
        if names := sorted({*deployments, *key.allowed_deployments}):
            self.fields["allowed_deployments"] = deployments_field(names)


class KeyRotateForm(TablerForm):
    """Hours during which both secrets work."""

    overlap = forms.TypedChoiceField(
        label="The old secret keeps working for",
        coerce=int,
        initial=24,
        choices=(
            (1, "1 hour"),
            (24, "24 hours"),
            (24 * 7, "7 days"),
            (24 * 30, "30 days"),
            (0, "no time: it stops working at once"),
        ),
    )
