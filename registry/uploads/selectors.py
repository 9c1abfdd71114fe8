"""Queries for uploads; only its owner may see an upload."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.engine import scope_allows
from governance.principals import Principal
from registry.uploads.models import Upload, UploadKind

# Permission in a department that an upload requires, by kind.
UPLOADING = {UploadKind.INTAKE: Action.INTAKE_CREATE, UploadKind.DATASET: Action.DATASET_CREATE}


def uploads_of(actor: Principal) -> QuerySet[Upload]:
    """Return the actor's own unexpired uploads, but not those of other people; with an access
    token, only the kinds that its scopes allow."""
    rows = Upload.objects.select_related("department")
    if actor.person_id is None:
        return rows.none()
    kinds = [kind for kind, action in UPLOADING.items() if scope_allows(actor.scopes, action)]
    return rows.filter(owner_id=actor.person_id, kind__in=kinds, expires_at__gt=timezone.now())


def upload_get(*, actor: Principal, id: UUID) -> Upload:  # noqa: A002
    """Return an upload. Raises NotFound if it does not exist, is someone else's, or has expired."""
    upload = uploads_of(actor).filter(pk=id).first()
    if upload is None:
        raise not_found(id)
    return upload


def not_found(upload_id: UUID) -> NotFound:
    """Return the error, the same for a missing, an expired, and another person's upload."""
    return NotFound(
        f"There is no upload {upload_id} of yours.",
        hint="An upload expires; create it again. List yours with GET /api/v1/uploads.",
    )
