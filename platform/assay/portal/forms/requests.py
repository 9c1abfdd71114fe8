"""Forms of the request log."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import titled
from governance.people.models import REASON_MAX
from governance.request_log.models import DAILY_MIB_MAX, DAYS_MAX, LogMode
from governance.request_log.schemas import USER_MAX
from registry.feedback.services import TEXT_MAX


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
        choices=titled(
            [
                (LogMode.OFF, "off: the request log shows no requests"),
                (LogMode.METADATA, "metadata: facts of each request, from the ledger"),
                (LogMode.FULL, "full: also prompts and answers, encrypted"),
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


class RequestExportForm(TablerForm):
    department = forms.ChoiceField(label="Department")
    deployment = forms.CharField(label="Deployment", max_length=80, required=False)
    limit = forms.IntegerField(label="Requests", min_value=1, max_value=10_000, initial=1_000)
    content = forms.BooleanField(label="With prompts and answers", required=False)
    reason = forms.CharField(
        label="Reason", max_length=REASON_MAX, help_text="Recorded in the audit log."
    )

    def __init__(self, *args: Any, departments: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["department"]
        choice.choices = [(slug, slug) for slug in departments]  # type: ignore[attr-defined]
