"""Forms of the request log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from assay.forms import TablerForm
from assay.portal.forms.base import titled
from governance.people.models import REASON_MAX
from governance.request_log.models import DAILY_MIB_MAX, DAYS_MAX, LogMode
from governance.request_log.schemas import USER_MAX
from registry.feedback.services import TEXT_MAX

SPANS = {"hour": ("Last hour", 1), "day": ("Last 24 hours", 24), "week": ("Last 7 days", 168)}
# Filters of the list and of exports: name, label, and choices of those that are no text.
FILTERS = (
    ("deployment", "Deployment", None),
    ("outcome", "Outcome", (("ok", "Answered"), ("failed", "Failed"), ("canceled", "Canceled"))),
    ("within", "When", tuple((name, title) for name, (title, _) in SPANS.items())),
    (
        "slower_ms",
        "Time",
        (("1000", "1 s or more"), ("5000", "5 s or more"), ("30000", "30 s or more")),
    ),
    (
        "cost_from",
        "Cost",
        (("10000", "0.01 or more"), ("100000", "0.10 or more"), ("1000000", "1 or more")),
    ),
    ("fallback", "Fallback", (("true", "After a fallback"), ("false", "Without a fallback"))),
    ("streamed", "Answer", (("true", "Streamed"), ("false", "In one piece"))),
    ("endpoint", "Endpoint", None),
    ("key", "Key ID", None),
    ("user", "User ID", None),
)


def since_of(span: str) -> datetime | None:
    """Return the beginning of one of `SPANS`; None for another text."""
    _, hours = SPANS.get(span, ("", 0))
    return timezone.now() - timedelta(hours=hours) if hours else None


class ContentReasonForm(TablerForm):
    """Reason for reading or erasing content."""

    reason = forms.CharField(
        label="Reason", max_length=REASON_MAX, help_text="Recorded in the audit log."
    )


class LoggedFeedbackForm(ContentReasonForm):
    """A logged request that becomes feedback."""

    correction = forms.CharField(
        label="Correct answer",
        required=False,
        strip=False,
        max_length=TEXT_MAX,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Leave empty if the answer is correct.",
    )


class EndUserForm(TablerForm):
    """An end user whose content is deleted."""

    user = forms.CharField(
        label="User ID",
        max_length=USER_MAX,
        strip=False,
        help_text="The ID that applications send as user, safety_identifier or metadata.user_id.",
    )
    reason = forms.CharField(
        label="Reason",
        max_length=REASON_MAX,
        help_text="Recorded in the audit log. Must not contain the ID.",
    )


class RequestLogForm(TablerForm):
    """Settings of a department's log."""

    mode = forms.ChoiceField(
        label="Log",
        help_text="Metadata are the facts of each request, from the ledger. Content is its prompt "
        "and answer, encrypted.",
        choices=titled(
            [
                (LogMode.OFF, "nothing"),
                (LogMode.METADATA, "metadata only"),
                (LogMode.FULL, "metadata and content"),
            ]
        ),
    )
    days = forms.IntegerField(label="Days to keep content", min_value=1, max_value=DAYS_MAX)
    daily_mib = forms.IntegerField(
        label="MiB of content a day",
        min_value=1,
        max_value=DAILY_MIB_MAX,
        help_text="Further content is dropped and counted.",
    )
    second_factor = forms.BooleanField(
        label="Require a second factor for reading content", required=False
    )
    datasets = forms.BooleanField(label="Allow content to become rows of datasets", required=False)


def _filter_field(label: str, choices: Sequence[tuple[str, str]] | None) -> forms.Field:
    if choices is None:
        text = forms.TextInput(attrs={"class": "form-control"})
        return forms.CharField(label=label, max_length=USER_MAX, required=False, widget=text)
    select = forms.Select(attrs={"class": "form-select"})
    named = [("", "Any"), *choices]
    return forms.ChoiceField(label=label, choices=named, required=False, widget=select)


class RequestExportForm(TablerForm):
    department = forms.ChoiceField(label="Department")
    limit = forms.IntegerField(
        label="Maximum requests", min_value=1, max_value=10_000, initial=1_000
    )
    content = forms.BooleanField(label="With prompts and answers", required=False)
    reason = forms.CharField(
        label="Reason", max_length=REASON_MAX, help_text="Recorded in the audit log."
    )

    def __init__(self, *args: Any, departments: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["department"]
        choice.choices = departments  # type: ignore[attr-defined]
        for name, label, choices in FILTERS:
            self.fields[name] = _filter_field(label, choices)
        self.order_fields(["department", *(name for name, _, _ in FILTERS)])
