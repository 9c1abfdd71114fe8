"""Sizes of the tables that grow with use, how long they are kept, and their exports."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.forms.retention import TableRetentionForm
from assay.portal.http import ActionScreen, cleaned, posted
from governance.errors import NotFound
from governance.permissions import Action
from governance.retention.models import Growing
from governance.retention.selectors import retention_overview
from governance.retention.services import table_retention_set

_ACTIONS = {
    Growing.USAGE: (Action.USAGE_RETAIN, "usage"),
    Growing.JOB_EVENTS: (Action.JOB_RETAIN, "job"),
}
# Months and exports of each table that the page lists.
SHOWN = 24


class Retention(ActionScreen):
    """Months of each table, with a form to set its retention."""

    template_name = "portal/operations/retention.html"

    def context(self, *, name: str = "", **kwargs: Any) -> dict[str, Any]:
        tables = []
        for table in retention_overview(actor=self.actor):
            action, kind = _ACTIONS[table.growing]
            form = None
            if may(self.actor, action, kind=kind):
                sent = posted(self.request, "retention_set") if name == table.growing else None
                form = TableRetentionForm(sent, initial={"months": table.kept_months})
            months = list(reversed(table.months))
            tables.append(
                {
                    "table": table,
                    "form": form,
                    "months": months[:SHOWN],
                    "archives": table.archives[:SHOWN],
                }
            )
        return {"tables": tables}


class RetentionSet(Retention):
    """Set the retention of one table."""

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        if name not in Growing.values:
            raise NotFound(f"There is no table {name[:40]!r} with a retention.")
        growing = Growing(name)
        values = cleaned(TableRetentionForm(self.request.POST))
        rule = table_retention_set(actor=self.actor, name=growing, months=values["months"])
        kept = "forever" if rule.months is None else f"for {rule.months} months"
        return self.done(f"{growing.label.capitalize()} are kept {kept}.", "portal:retention")
