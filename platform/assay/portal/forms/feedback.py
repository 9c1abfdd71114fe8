"""Forms of feedback: the right answer, the reason for an erasure, and the dataset to extend."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from registry.feedback.services import REASON_MAX, TEXT_MAX


class VerbatimField(forms.CharField):
    """A text as it was typed, with its spaces; browsers send each line break as CR and LF."""

    def to_python(self, value: Any) -> str:
        return str(super().to_python(value)).replace("\r\n", "\n")


class FeedbackReviewForm(TablerForm):
    """The right answer, which is final once accepted."""

    correction = VerbatimField(
        required=False,
        max_length=TEXT_MAX,
        strip=False,
        label="Right answer",
        help_text="A text, or a label. What you accept becomes a row of training data.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class FeedbackReasonForm(TablerForm):
    """Reason for an erasure."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        label="Reason",
        help_text="Stays in the audit log; do not name people.",
    )


class FeedbackDataForm(TablerForm):
    """The dataset that gets a new version, and the version whose rows come first."""

    dataset: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None, empty_label="Choose a dataset", label="Add a version to"
    )
    base: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None,
        required=False,
        empty_label="Nothing: feedback alone",
        label="After the rows of",
        help_text="Rows with the same input as a piece of feedback are replaced by it.",
    )

    def __init__(self, *args: Any, datasets: Any, versions: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = datasets  # type: ignore[attr-defined]
        self.fields["base"].queryset = versions  # type: ignore[attr-defined]
