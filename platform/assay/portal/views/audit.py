"""The audit log: one event with its proof, checkpoints, streams, and the export."""

from __future__ import annotations

from typing import Any

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
)
from django.shortcuts import render

from assay.downloads import audit_log_file
from assay.portal.access import may
from assay.portal.facts import facts
from assay.portal.http import Screen, page_of
from assay.portal.words import described
from governance.audit.checkpoint import split_keys
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.outside.selectors import keeper_states
from governance.audit.personal import opened_body
from governance.audit.selectors import (
    audit_checkpoints_visible_to,
    audit_event_get,
    event_text,
    publish_lag_s,
    sealing_lag_s,
)
from governance.audit.signing import audit_public_keys
from governance.audit.streaming.selectors import audit_streams_visible_to
from governance.audit.tree.proofs import consistency_proof, inclusion_proof
from governance.errors import WrongState
from governance.permissions import Action

LIST_SIZE = 50


class AuditEventPage(Screen):
    """One event: in words, as canonical bytes, and its place in the tree."""

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
    """Return the event's data; empty if its bytes were tampered with."""
    try:
        data = opened_body(event)["data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def attached(document: dict[str, Any], name: str) -> HttpResponse:
    """Return a proof as a download."""
    return JsonResponse(
        document,
        json_dumps_params={"indent": 2},
        headers={
            "Content-Disposition": f'attachment; filename="{name}.json"',
            "Cache-Control": "no-store",
        },
    )


class AuditEventProof(Screen):
    """Download the proof of one event, as `assay audit check` reads it."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        event = audit_event_get(actor=self.actor, id=kwargs["id"])
        return attached(inclusion_proof(event), f"assay-audit-event-{event.pk}-proof")


class AuditExport(Screen):
    """Download the sealed log, one JSON line per event, as `assay audit verify` reads it."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return audit_log_file(request, self.actor, content_type="application/x-ndjson")


def _shown(head: AuditCheckpoint) -> dict[str, Any]:
    published = head.published_at
    return {
        "head": head,
        "root": bytes(head.root_hash).hex(),
        "took": None if published is None else (published - head.created_at).total_seconds(),
        "cosigned": [
            (one.witness.rpartition("+")[0], one.cosigned_at) for one in head.cosignatures.all()
        ],
    }


class AuditCheckpoints(Screen):
    """Every signed head with its publication, cosignatures, and proof that the log only grew."""

    template_name = "portal/audit/checkpoints.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        heads = audit_checkpoints_visible_to(self.actor).prefetch_related("cosignatures")
        page = page_of(self.request, heads, LIST_SIZE)
        keepers = keeper_states(self.actor)
        witnessed = len(keepers) > 1
        return {
            "page": page,
            "heads": [_shown(head) for head in page.object_list],
            "keepers": keepers,
            "witnessed": witnessed,
            "columns": f"# Events | Root | Signed | Second place{' | Cosigned' * witnessed} | …",
            "keys": split_keys(audit_public_keys()),
            "lag": sealing_lag_s(),
            "publish_lag": publish_lag_s(),
            "may_export": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
        }


class AuditConsistency(Screen):
    """Download the proof that the log only grew since a checkpoint."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        size = kwargs["size"]
        proof = consistency_proof(actor=self.actor, old_size=size)
        return attached(proof, f"assay-audit-consistency-from-{size}")


class AuditStreams(Screen):
    """Every configured destination of audit events."""

    template_name = "portal/audit/streams.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "streams": audit_streams_visible_to(self.actor),
            "may_see_all": True,
            "may_export": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
        }


class AuditStreamRows(Screen):
    """The rows of the streams, fetched every few seconds."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        streams = audit_streams_visible_to(self.actor)
        return render(request, "portal/audit/streams_rows.html", {"streams": streams})
