"""Forms for incidents and emergency access: they shape input; the services judge it."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import unchosen
from registry.incidents.models import (
    HAPPENED_MAX,
    REASON_MAX,
    TEXT_MAX,
    TITLE_MAX,
    Serious,
    Severity,
)
from registry.releases.emergency_access.models import HOURS_MAX, LESSONS_MAX, AfterVerdict

_SEVERITIES = (
    (Severity.LOW, "Low: noted"),
    (Severity.MEDIUM, "Medium: looked into"),
    (Severity.HIGH, "High: suspends at once"),
    (Severity.CRITICAL, "Critical: suspends at once"),
)


def _rows(number: int) -> forms.Textarea:
    return forms.Textarea(attrs={"rows": number})


def _serious() -> list[tuple[str, str]]:
    return [(value, f"{label[:1].upper()}{label[1:]}") for value, label in Serious.choices]


class IncidentForm(TablerForm):
    """Description and severity of an incident."""

    title = forms.CharField(max_length=TITLE_MAX, label="Title")
    happened = forms.CharField(
        max_length=HAPPENED_MAX, label="What happened?", widget=_rows(5),
        help_text="What was observed, when, and who is affected. Do not name people.",
    )  # fmt: skip
    severity = forms.ChoiceField(
        choices=unchosen(_SEVERITIES),
        help_text="High and critical incidents suspend every approved release of the version, and "
        "of versions based on it, as soon as you report them.",
    )
    serious = forms.ChoiceField(
        choices=_serious, required=False, label="Serious incident (EU AI Act, Art. 73)"
    )
    aware_at = forms.DateTimeField(
        required=False, label="Known since (UTC)", widget=forms.DateTimeInput(
            attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"
        ),
        help_text="Default: now. The time to report a serious incident starts then.",
    )  # fmt: skip

    def clean_aware_at(self) -> Any:
        moment = self.cleaned_data["aware_at"]
        return None if moment is None else moment.replace(tzinfo=UTC)


class IncidentRateForm(TablerForm):
    """New severity of an incident."""

    severity = forms.ChoiceField(choices=_SEVERITIES)
    serious = forms.ChoiceField(choices=_serious, required=False, label="Serious (Art. 73)")
    text = forms.CharField(max_length=TEXT_MAX, label="Reason", widget=_rows(2))


class EmergencyAccessForm(TablerForm):
    """Reason and hours of a request for emergency access."""

    reason = forms.CharField(
        max_length=REASON_MAX, label="Reason for urgency", widget=_rows(4),
        help_text="Shown on every page and kept in the audit log. Do not name people.",
    )  # fmt: skip
    hours = forms.IntegerField(min_value=1, max_value=HOURS_MAX, label="Hours")

    def __init__(self, *args: Any, most: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["hours"].help_text = f"At most {most}. Access then ends automatically."
        self.fields["hours"].widget.attrs["max"] = str(most)


class AfterReviewForm(TablerForm):
    """Verdict of a third person after an emergency access."""

    verdict = forms.ChoiceField(
        choices=unchosen(((AfterVerdict.JUSTIFIED, "It was justified"),
                          (AfterVerdict.NOT_JUSTIFIED, "It was not justified"))),
    )  # fmt: skip
    lessons = forms.CharField(max_length=LESSONS_MAX, label="Follow-up", widget=_rows(4))
