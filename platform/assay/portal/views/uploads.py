"""Uploads in parts, for the forms that take files."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from assay.portal.http import ActionScreen
from governance.errors import InvalidInput
from governance.principals import Principal
from registry.uploads.models import Upload, UploadKind
from registry.uploads.selectors import upload_get, uploads_of
from registry.uploads.services import upload_discard


def submitted_uploads(request: HttpRequest) -> list[UUID]:
    """Return the uploads that a form names in place of files.

    Raises:
        InvalidInput: one of them is not a valid ID.
    """
    try:
        return [UUID(text) for text in request.POST.getlist("uploads")]
    except ValueError:
        raise InvalidInput("An upload has an invalid ID.") from None


def upload_context(
    actor: Principal, request: HttpRequest, kind: str, target: str = ""
) -> dict[str, Any]:
    """Return the actor's uploads of this kind, or of those only the ones for `target`: `attached`
    came with this form, `unfinished` are all others."""
    named = set(request.POST.getlist("uploads"))
    rows = uploads_of(actor).filter(kind=kind)
    mine: list[Upload] = list(rows.filter(target=target) if target else rows)
    return {
        "upload_kind": kind,
        "upload_target": target,
        "attached": [each for each in mine if str(each.pk) in named and each.completed_at],
        "unfinished": [each for each in mine if str(each.pk) not in named],
    }


class UploadDiscard(ActionScreen):
    """Discard one of the person's uploads."""

    def act(self, *, id: UUID, **kwargs: Any) -> HttpResponse:  # noqa: A002
        upload = upload_get(actor=self.actor, id=id)
        upload_discard(actor=self.actor, upload_id=id)
        messages.success(self.request, "The upload is discarded.")
        if upload.kind == UploadKind.INTAKE:
            return redirect("portal:intake_new")
        if not upload.target:
            return redirect("portal:datasets")
        return redirect("portal:dataset", name=upload.target)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self.http_method_not_allowed(request)
