"""Reading uploads: each is its owner's alone."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.engine import scope_allows
from governance.principals import Principal
from registry.uploads.models import Upload, UploadKind

# Allowed to do with a department's models or data before a file is uploaded for them.
UPLOADING = {UploadKind.INTAKE: Action.INTAKE_CREATE, UploadKind.DATASET: Action.DATASET_CREATE}


def uploads_of(actor: Principal) -> QuerySet[Upload]:
    """The actor's own uploads that have not expired, whatever else they may see; by an access
    token, those of the kinds that its scopes let it upload."""
    rows = Upload.objects.select_related("department")
    if actor.person_id is None:
        return rows.none()
    kinds = [kind for kind, action in UPLOADING.items() if scope_allows(actor.scopes, action)]
    return rows.filter(owner_id=actor.person_id, kind__in=kinds, expires_at__gt=timezone.now())


def upload_get(*, actor: Principal, id: UUID) -> Upload:  # noqa: A002
    """Raises NotFound when there is none, it is someone else's, or it has expired."""
    found = uploads_of(actor).filter(pk=id).first()
    if found is None:
        raise not_found(id)
    return found


def not_found(upload_id: UUID) -> NotFound:
    """The refusal, the same whether the upload is gone, expired, or never was the actor's."""
    return NotFound(
        f"There is no upload {upload_id} of yours.",
        hint="An upload expires; create it again. List yours with GET /api/v1/uploads.",
    )
