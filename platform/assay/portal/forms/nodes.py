"""Forms of nodes."""

from __future__ import annotations

from django import forms

from assay.forms import TablerForm
from workers.control.messages import NODE_NAME_MAX
from workers.nodes.models import REASON_MAX


class NodeForm(TablerForm):
    """Name of a machine to enroll."""

    name = forms.CharField(
        max_length=NODE_NAME_MAX,
        help_text="Lowercase letters, digits and hyphens, such as gpu-1.",
    )


class NodeReasonForm(TablerForm):
    """Reason for a change of a node's state."""

    reason = forms.CharField(max_length=REASON_MAX, required=False)
