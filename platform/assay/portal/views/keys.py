"""API keys: the list, making one (shown once), revoking."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from assay.portal.access import departments_where
from assay.portal.forms import KeyForm
from assay.portal.http import ActionScreen, cleaned, page_of
from governance.keys.selectors import keys_visible_to
from governance.keys.services import key_create, key_revoke
from governance.permissions import Action


class Keys(ActionScreen):
    """Every key the person may see, and the form that makes one."""

    template_name = "portal/keys.html"

    def form(self) -> KeyForm:
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        return KeyForm(self.request.POST or None, departments=departments)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        rows = keys_visible_to(self.actor).select_related("department", "person", "created_by")
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        return {
            "page": page_of(self.request, rows),
            "form": self.form() if departments else None,
            "now": timezone.now(),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(self.form())
        days = values.pop("days")
        key, token = key_create(
            actor=self.actor, expires_at=timezone.now() + timedelta(days=days), **values
        )
        root = f"{self.request.scheme}://{self.request.get_host()}"
        context = {"key": key, "token": token, "root": root}
        response = render(self.request, "portal/key_made.html", context, status=201)
        response.headers["Cache-Control"] = "no-store"
        return response


class KeyRevoke(Keys):
    """Ends a key at once."""

    def form(self) -> KeyForm:
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        return KeyForm(departments=departments)

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        key = key_revoke(actor=self.actor, key_id=kwargs["id"])
        messages.success(self.request, f"{key.name} is revoked; it stops working at once.")
        return redirect("portal:keys")
