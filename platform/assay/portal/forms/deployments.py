"""Forms for deployments: they shape input; the services judge it."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from governance.bounds import DEPARTMENT_MAX
from workers.deployments.models import (
    QUEUE_AGE_MAX_S,
    QUEUE_AGE_S,
    QUEUE_WEIGHTS_MAX,
    REPLICAS_MAX,
    STREAM_IDLE_MAX,
    STREAM_TOTAL_MAX,
    Device,
)
from workers.placement.settings import LABEL_MAX, LABELS_MAX


class ReplicasForm(TablerForm):
    """Replicas of a deployment, the workers that may hold them, stream limits, queue weights."""

    replicas_min = forms.IntegerField(
        min_value=0, max_value=REPLICAS_MAX, label="Minimum replicas",
        help_text="0 unloads it while it gets no requests; the next request then waits for a load.",
    )  # fmt: skip
    replicas_max = forms.IntegerField(
        min_value=1, max_value=REPLICAS_MAX, label="Maximum replicas",
        help_text="Above the minimum, replicas are added and removed with the load.",
    )  # fmt: skip
    queue_age_s = forms.IntegerField(
        min_value=1, max_value=QUEUE_AGE_MAX_S, initial=QUEUE_AGE_S, label="Target wait in seconds",
        help_text="Replicas are added while requests wait for longer.",
    )  # fmt: skip
    labels = forms.CharField(
        required=False, max_length=LABELS_MAX * (LABEL_MAX + 2), label="Worker labels",
        help_text="Comma-separated. Only workers with all of them load it.",
    )  # fmt: skip
    device = forms.ChoiceField(
        choices=[("", "Any"), *Device.choices], required=False, label="Device"
    )
    stream_total_s = forms.IntegerField(
        required=False, min_value=1, max_value=STREAM_TOTAL_MAX, label="Longest stream (seconds)",
        help_text="Of a streamed answer in all. Empty: the installation's limit for answers.",
    )  # fmt: skip
    stream_idle_s = forms.IntegerField(
        required=False, min_value=1, max_value=STREAM_IDLE_MAX, label="Longest pause (seconds)",
        help_text="Between two tokens of a stream. Empty: the installation's limit for answers.",
    )  # fmt: skip
    queue_weights = forms.CharField(
        required=False, max_length=QUEUE_WEIGHTS_MAX * (DEPARTMENT_MAX + 6), label="Queue weights",
        help_text="Such as clinical=3, research=2. While requests wait, departments get turns by "
        "weight; others have 1.",
    )  # fmt: skip

    def clean_queue_weights(self) -> dict[str, int]:
        """Return the weights by department."""
        weights = {}
        for part in filter(None, map(str.strip, self.cleaned_data["queue_weights"].split(","))):
            name, _, weight = (each.strip() for each in part.partition("="))
            if not (name and weight.isdecimal()):
                raise forms.ValidationError("Use name=weight, such as clinical=3.")
            weights[name] = int(weight)
        return weights

    def clean_labels(self) -> list[str]:
        """Return the labels that are not empty."""
        text: Any = self.cleaned_data["labels"]
        return [label.strip() for label in text.split(",") if label.strip()]
