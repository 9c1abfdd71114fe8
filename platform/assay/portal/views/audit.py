"""The audit log: in words, one event with its proof, verifying, exporting."""

from __future__ import annotations

from typing import Any

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
)

from assay.downloads import audit_log_file
from assay.portal.access import may
from assay.portal.facts import facts
from assay.portal.http import Screen
from assay.portal.words import described
from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.audit.selectors import (
    audit_event_get,
    event_text,
)
from governance.audit.tree.proofs import inclusion_proof
from governance.errors import WrongState
from governance.permissions import Action


class AuditEventPage(Screen):
    """One event: in words, as canonical bytes, and where it stands in the tree."""

    template_name = "portal/audit/event.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        event = audit_event_get(actor=self.actor, id=id)
        proof, tampered = None, ""
        if event.sequence is not None:
            try:
                proof = inclusion_proof(event)
            except WrongState as error:
                tampered = error.message
        data = _recorded(event)
        names = (event.actor_name, event.subject_name)
        return {
            "event": event,
            "said": described(event),
            "facts": facts(data),
            "erased": any(name.startswith("erased person") for name in names),
            "explains": "decision" in data
            and may(self.actor, Action.POLICY_EXPLAIN, kind="policy"),
            "canonical": event_text(event),
            "tampered": tampered,
            "leaf_hash": bytes(event.leaf_hash).hex(),
            "proof": proof,
        }


def _recorded(event: AuditEvent) -> dict[str, Any]:
    """The event's data; empty when its bytes were tampered with."""
    try:
        data = opened_body(event)["data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def attached(document: dict[str, Any], name: str) -> HttpResponse:
    """A proof to be downloaded."""
    return JsonResponse(
        document,
        json_dumps_params={"indent": 2},
        headers={
            "Content-Disposition": f'attachment; filename="{name}.json"',
            "Cache-Control": "no-store",
        },
    )


class AuditEventProof(Screen):
    """Downloads the proof of one event, as `assay audit check` reads it."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        event = audit_event_get(actor=self.actor, id=kwargs["id"])
        return attached(inclusion_proof(event), f"assay-audit-event-{event.pk}-proof")


class AuditExport(Screen):
    """Downloads the sealed log, one JSON line per event, as `assay audit verify` reads it."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return audit_log_file(request, self.actor, content_type="application/x-ndjson")
