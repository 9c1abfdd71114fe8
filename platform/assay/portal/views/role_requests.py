"""Requests for privileged roles: the list, and a second administrator's decision."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.portal.access import may
from assay.portal.http import ActionScreen, page_of
from governance.errors import InvalidInput
from governance.people.models import RoleRequestState
from governance.people.role_requests import (
    role_request_approve,
    role_request_get,
    role_request_reject,
    role_request_withdraw,
    role_requests_visible_to,
)
from governance.people.selectors import PEOPLE_AT_LARGE
from governance.permissions import Action
from governance.policy.services import authorize


class RoleRequests(ActionScreen):
    """All requests, pending first."""

    template_name = "portal/people/role_requests.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.PERSON_VIEW, resource=PEOPLE_AT_LARGE)
        rows = role_requests_visible_to(self.actor)
        pending = rows.filter(state=RoleRequestState.PENDING, expires_at__gt=timezone.now())
        return {
            "pending": pending,
            "page": page_of(self.request, rows.exclude(pk__in=pending.values("pk"))),
            "grants": may(self.actor, Action.ROLE_GRANT, kind="person"),
            "me": self.actor.person_id,
        }


class RoleRequestAct(RoleRequests):
    """Approves, rejects or withdraws one."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        role_request_get(actor=self.actor, request_id=id)
        what = self.request.POST.get("do", "")
        if what == "approve":
            role_request_approve(actor=self.actor, request_id=id)
            messages.success(self.request, "Approved. The role is granted.")
        elif what == "reject":
            reason = self.request.POST.get("reason", "")
            role_request_reject(actor=self.actor, request_id=id, reason=reason)
            messages.success(self.request, "Rejected.")
        elif what == "withdraw":
            role_request_withdraw(actor=self.actor, request_id=id)
            messages.success(self.request, "Withdrawn.")
        else:
            raise InvalidInput(
                "Choose to approve, reject or withdraw.", fields={"do": ["is needed"]}
            )
        return redirect("portal:role_requests")
