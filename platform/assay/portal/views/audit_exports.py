"""Exports of selected audit events: asked for, followed while they are made, taken along."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from assay.api.views.audit_exports import file_response
from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen, page_of
from governance.audit.exports import (
    FILTERS,
    KEPT_FOR,
    audit_export_ask,
    audit_export_cancel,
    audit_export_open,
    audit_exports_of,
    may_export,
)
from governance.audit.exports_models import AuditExport, ExportFormat
from governance.errors import DomainError
from governance.permissions import Action

TEXT_MAX = 100
# How the list of events calls a filter, where that is shorter.
SHORT = {"q": "query"}
# What a filter is called on the page.
WORDS = {"query": "text", "since": "from", "until": "to"}


def filters_in(given: Mapping[str, str]) -> dict[str, Any]:
    """The filters in an address of the list of events; what is none of them is left out."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        name, value = SHORT.get(name, name), value.strip()[:TEXT_MAX]
        if name not in FILTERS or not value:
            continue
        if name in ("since", "until"):
            moment = _moment(value, last=name == "until")
            if moment is not None:
                found[name] = moment
        else:
            found[name] = value
    return found


def _moment(text: str, *, last: bool) -> datetime | None:
    """A moment, or the beginning of a day; of the last day, the beginning of the next one."""
    try:
        day = parse_date(text)
        moment = parse_datetime(text) if day is None else None
    except ValueError:
        return None
    if day is not None:
        moment = datetime.combine(day, time.min) + (timedelta(days=1) if last else timedelta(0))
    if moment is None or not 1970 < moment.year < 9999:
        return None
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def in_words(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Filters as they are shown: what each is called, and its value."""
    return [
        (WORDS.get(name, name.replace("_", " ")), str(value)) for name, value in filters.items()
    ]


def _listed(screen: Screen) -> dict[str, Any]:
    page = page_of(screen.request, audit_exports_of(screen.actor))
    rows: list[AuditExport] = list(page.object_list)
    return {
        "page": page,
        "rows": [(export, in_words(export.filters)) for export in rows],
        "live": any(export.is_live for export in rows),
    }


class AuditExports(ActionScreen):
    """The person's exports, and the form that asks for one of what `?` selects."""

    template_name = "portal/audit/exports.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        given = self.request.POST if self.request.method == "POST" else self.request.GET
        filters = filters_in(given)
        refused = None
        try:
            may_export(self.actor, filters)
        except DomainError as error:
            # Who may look at what was made before, and make nothing now, is told why.
            if not audit_exports_of(self.actor).exists():
                raise
            refused = error
        return {
            **_listed(self),
            "refused": refused,
            "asked": in_words(filters),
            "hidden": [
                (name, value.isoformat() if isinstance(value, datetime) else value)
                for name, value in filters.items()
            ],
            "formats": ExportFormat.choices,
            "hours": int(KEPT_FOR.total_seconds() // 3600),
            "may_see_all": may(self.actor, Action.AUDIT_VIEW, kind="audit"),
            "may_export_all": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        export = audit_export_ask(
            actor=self.actor,
            filters=filters_in(self.request.POST),
            format=self.request.POST.get("format", ExportFormat.JSONL),
        )
        messages.success(self.request, f"Export {export.pk} is being made; it shows below.")
        return redirect("portal:audit_exports")


class AuditExportRows(Screen):
    """The list alone, fetched while one of them is being made."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return render(request, "portal/audit/exports_rows.html", _listed(self))


class AuditExportCancel(AuditExports):
    """Ends one that is being made."""

    def act(self, **kwargs: Any) -> HttpResponse:
        export = audit_export_cancel(actor=self.actor, export_id=kwargs["id"])
        messages.success(self.request, f"Export {export.pk} is cancelled.")
        return redirect("portal:audit_exports")


class AuditExportFile(Screen):
    """Downloads one that is done."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        export, file = audit_export_open(actor=self.actor, export_id=kwargs["id"])
        return file_response(request, export, file)
