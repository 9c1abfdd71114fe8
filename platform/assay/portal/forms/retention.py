"""Form of the retention of a table."""

from __future__ import annotations

from django import forms

from assay.forms import TablerForm
from governance.retention.models import LEAST_MONTHS, MOST_MONTHS


class TableRetentionForm(TablerForm):
    """Whole months for which a table is kept."""

    months = forms.IntegerField(
        label="Months to keep",
        min_value=LEAST_MONTHS,
        max_value=MOST_MONTHS,
        required=False,
        help_text="Empty keeps the table forever. Older months are exported, then dropped.",
    )
