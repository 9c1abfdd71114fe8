"""Exports of selected audit events: request one, follow its progress, download it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render

from assay.downloads import audit_export_file
from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen, page_of
from assay.portal.views.audit_list import typed_in
from governance.audit.exports.models import AuditExport, ExportFormat
from governance.audit.exports.services import (
    RETENTION,
    audit_export_cancel,
    audit_export_request,
    audit_exports_of,
    filters_of,
    may_export,
)
from governance.errors import DomainError, InvalidInput
from governance.permissions import Action

MOMENTS = frozenset({"since", "until"})
# Names of filters on the page, where they differ.
WORDS = {"query": "text", "since": "from", "until": "before", "who": "who", "request_id": "request"}


def in_words(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the value of each filter as a page shows them."""
    return [
        (
            WORDS.get(name, name.replace("_", " ")),
            str(value).replace("T", " ")[:16] + " UTC" if name in MOMENTS else str(value),
        )
        for name, value in filters.items()
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
    """The person's exports, and the form for an export of what the query string selects."""

    template_name = "portal/audit/exports.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        values = self.request.POST if self.request.method == "POST" else self.request.GET
        filters: dict[str, Any] = {}
        refused: DomainError | None = None
        try:
            filters = filters_of(typed_in(values))
        except InvalidInput as error:
            refused = error
        try:
            may_export(self.actor, filters)
        except DomainError as error:
            # People with earlier exports see the page, which says why they cannot request more.
            if not audit_exports_of(self.actor).exists():
                raise
            refused = error
        return {
            **_listed(self),
            "refused": refused,
            "asked": in_words(filters),
            "hidden": list(filters.items()),
            "formats": ExportFormat.choices,
            "hours": int(RETENTION.total_seconds() // 3600),
            "may_see_all": may(self.actor, Action.AUDIT_VIEW, kind="audit"),
            "may_export_all": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        export = audit_export_request(
            actor=self.actor,
            filters=typed_in(self.request.POST),
            format=self.request.POST.get("format", ExportFormat.JSONL),
        )
        return self.done(f"Export {export.pk} is in progress; see below.", "portal:audit_exports")


class AuditExportRows(Screen):
    """The rows of the exports, fetched while one is in progress."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return render(request, "portal/audit/exports_rows.html", _listed(self))


class AuditExportCancel(AuditExports):
    """Cancel an export that is in progress."""

    def act(self, **kwargs: Any) -> HttpResponse:
        export = audit_export_cancel(actor=self.actor, export_id=kwargs["id"])
        return self.done(f"Export {export.pk} is canceled.", "portal:audit_exports")


class AuditExportFile(Screen):
    """Download a finished export."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return audit_export_file(request, self.actor, kwargs["id"])
