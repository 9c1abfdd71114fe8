"""The signed heads of the audit log: who keeps them outside, and that the log only grew."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponseBase

from assay.portal.access import may
from assay.portal.http import Screen, page_of
from assay.portal.views.audit import attached
from governance.audit.checkpoint import split_keys
from governance.audit.models import AuditCheckpoint
from governance.audit.outside.selectors import kept_outside
from governance.audit.selectors import (
    audit_checkpoints_visible_to,
    publish_lag_s,
    sealing_lag_s,
)
from governance.audit.signing import audit_public_keys
from governance.audit.tree.proofs import consistency_proof
from governance.permissions import Action

LIST_SIZE = 50


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
    """Every signed head: when it was published, who cosigned it, that the log only grew since."""

    template_name = "portal/audit/checkpoints.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        heads = audit_checkpoints_visible_to(self.actor).prefetch_related("cosignatures")
        page = page_of(self.request, heads, LIST_SIZE)
        keepers = kept_outside(self.actor)
        return {
            "page": page,
            "heads": [_shown(head) for head in page.object_list],
            "keepers": keepers,
            "witnessed": len(keepers) > 1,
            "keys": split_keys(audit_public_keys()),
            "lag": sealing_lag_s(),
            "publish_lag": publish_lag_s(),
            "may_export": may(self.actor, Action.AUDIT_EXPORT, kind="audit"),
        }


class AuditConsistency(Screen):
    """Downloads the proof that the log only grew since a checkpoint."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        size = kwargs["size"]
        proof = consistency_proof(actor=self.actor, old_size=size)
        return attached(proof, f"assay-audit-consistency-from-{size}")
