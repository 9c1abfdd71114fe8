"""The audit log: in words, one event with its proof, verifying, exporting."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.utils import timezone
from django.utils.dateparse import parse_date

from assay.api.views.audit import from_thread, in_chunks, record_export
from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen, page_of
from assay.portal.words import described, described_all
from governance.audit.checkpoint import split_keys
from governance.audit.export import export_lines
from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.audit.proofs import consistency_proof, inclusion_proof
from governance.audit.selectors import (
    audit_checkpoints_visible_to,
    audit_event_get,
    audit_events_visible_to,
    event_text,
    latest_checkpoint,
    sealing_lag_s,
    verify_live,
)
from governance.audit.signing import audit_public_keys
from governance.errors import WrongState
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize

LIST_SIZE = 50
FILTERS = ("action", "outcome", "subject_type", "department")


def _day(text: str, at: time) -> datetime | None:
    day = parse_date(text) if len(text) == 10 else None
    return timezone.make_aware(datetime.combine(day, at)) if day else None


class AuditLog(ActionScreen):
    """The list, with filters."""

    template_name = "portal/audit/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.AUDIT_VIEW, resource=self.scope())
        given = {name: self.request.GET.get(name, "").strip()[:80] for name in FILTERS}
        query = self.request.GET.get("q", "").strip()[:100]
        since, until = self.request.GET.get("since", ""), self.request.GET.get("until", "")
        rows = audit_events_visible_to(
            self.actor,
            query=query or None,
            since=_day(since, time.min),
            until=_day(until, time.max),
            action=given["action"] or None,
            outcome=given["outcome"] or None,
            subject_type=given["subject_type"] or None,
            department=given["department"] or None,
        )
        page = page_of(self.request, rows, LIST_SIZE)
        return {
            "page": page,
            "events": described_all(page.object_list),
            "given": {**given, "q": query, "since": since, "until": until},
            "filtered": any([*given.values(), query, since, until]),
            "actions": Action,
            "checkpoint": latest_checkpoint(),
            "lag": sealing_lag_s(),
            "may_see_all": may(self.actor, Action.AUDIT_VIEW, kind="audit"),
            "may_export": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
            "report": None,
        }

    def scope(self) -> Resource:
        """The whole log, or the first department whose part of it the person may read."""
        if may(self.actor, Action.AUDIT_VIEW, kind="audit"):
            return Resource(type="audit", name="the audit log")
        mine = sorted(self.actor.departments)
        allowed = [
            slug
            for slug in mine
            if may(self.actor, Action.AUDIT_VIEW, kind="audit", department=slug)
        ]
        return Resource(
            type="audit", name="the audit log", department=allowed[0] if allowed else None
        )


class AuditVerify(AuditLog):
    """Verifies the whole log now and shows the outcome."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        authorize(
            actor=self.actor,
            action=Action.AUDIT_VIEW,
            resource=Resource(type="audit", name="the audit log"),
        )
        context = {**self.context(), "report": verify_live(), "error": None}
        return render(request, self.template_name, context)


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
        return {
            "event": event,
            "said": described(event),
            "explains": _has_decision(event)
            and may(self.actor, Action.POLICY_EXPLAIN, kind="policy"),
            "canonical": event_text(event),
            "tampered": tampered,
            "leaf_hash": bytes(event.leaf_hash).hex(),
            "proof": proof,
        }


def _has_decision(event: AuditEvent) -> bool:
    try:
        return "decision" in opened_body(event)["data"]
    except (ValueError, KeyError, TypeError):
        return False


def _attached(document: dict[str, Any], name: str) -> HttpResponse:
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
        return _attached(inclusion_proof(event), f"assay-audit-event-{event.pk}-proof")


class AuditCheckpoints(Screen):
    """Every signed head: what it covers, when it was published, that the log only grew since."""

    template_name = "portal/audit/checkpoints.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        page = page_of(self.request, audit_checkpoints_visible_to(self.actor), LIST_SIZE)
        return {
            "page": page,
            "heads": [(head, bytes(head.root_hash).hex()) for head in page.object_list],
            "keys": split_keys(audit_public_keys()),
            "lag": sealing_lag_s(),
        }


class AuditConsistency(Screen):
    """Downloads the proof that the log only grew since a checkpoint."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        size = kwargs["size"]
        proof = consistency_proof(actor=self.actor, old_size=size)
        return _attached(proof, f"assay-audit-consistency-from-{size}")


class AuditExport(Screen):
    """Downloads the sealed log, one JSON line per event, as `assay audit verify` reads it."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        record_export(self.actor)
        chunks = in_chunks(export_lines())
        streamed: Any = from_thread(chunks) if isinstance(request, ASGIRequest) else chunks
        return StreamingHttpResponse(
            streamed,
            content_type="application/x-ndjson",
            headers={
                "Content-Disposition": 'attachment; filename="assay-audit.jsonl"',
                "Cache-Control": "no-store",
            },
        )
