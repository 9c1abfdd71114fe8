"""Destinations of the audit log's streams, and their progress."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from assay.portal.access import may
from assay.portal.http import Screen
from governance.audit.streaming.selectors import audit_streams_visible_to
from governance.permissions import Action


class AuditStreams(Screen):
    """Every destination that is configured."""

    template_name = "portal/audit/streams.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "streams": audit_streams_visible_to(self.actor),
            "may_see_all": True,
            "may_export": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
        }


class AuditStreamRows(Screen):
    """The list alone, fetched every few seconds."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        streams = audit_streams_visible_to(self.actor)
        return render(request, "portal/audit/streams_rows.html", {"streams": streams})
