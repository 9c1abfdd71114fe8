"""Recoveries of accounts: requested, approved and rejected."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.access import may
from assay.portal.forms.account import RecoveryForm
from assay.portal.http import ActionScreen, cleaned, page_of
from assay.portal.views.one_time_links import secret_page
from assay.portal.views.sessions import PersonSignIn
from governance.errors import InvalidInput
from governance.people.models import OneTimeLink
from governance.people.recoveries.approving import recovery_approve
from governance.people.recoveries.models import AccountRecovery, RecoveryState
from governance.people.recoveries.selectors import recoveries_live, recoveries_visible_to
from governance.people.recoveries.services import recovery_reject, recovery_request
from governance.people.selectors import sees_everyone
from governance.permissions import Action


class Recoveries(ActionScreen):
    """Recoveries that the person may see: all of them, or those of their own account."""

    template_name = "portal/people/recoveries.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        live, me = recoveries_live(self.actor), self.actor.person_id
        closed = recoveries_visible_to(self.actor).exclude(pk__in=live.values("pk"))
        decides = may(self.actor, Action.ROLE_GRANT, kind="person")
        return {
            "live": live,
            "page": page_of(self.request, closed),
            "everyone": sees_everyone(self.actor),
            "decides": decides,
            "approvable": {
                row.pk
                for row in live
                if decides
                and row.state == RecoveryState.PENDING
                and me not in (row.person_id, row.requested_by_id)
            },
            "me": me,
        }


class RecoveryAct(Recoveries):
    """Approve a recovery and show its link, or reject it."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        verdict = self.request.POST.get("do", "")
        if verdict == "approve":
            recovery, address = recovery_approve(actor=self.actor, recovery_id=id)
            return recovery_link_page(self, recovery, address)
        if verdict != "reject":
            raise InvalidInput("Choose to approve or to reject.", fields={"do": ["is needed"]})
        reason = self.request.POST.get("reason", "")
        recovery_reject(actor=self.actor, recovery_id=id, reason=reason)
        return self.done("The recovery is rejected.", "portal:recoveries")


def recovery_link_page(
    screen: ActionScreen, recovery: AccountRecovery, address: str
) -> HttpResponse:
    """Return the page that shows the link of an approved recovery, once only."""
    if not address:
        sentence = f"Approved. The link is mailed to {recovery.person.email}."
        messages.success(screen.request, sentence)
        return redirect("portal:recoveries")
    link = OneTimeLink.objects.filter(recovery=recovery).latest("pk")
    context = {
        "link": link,
        "person": recovery.person,
        "address": address,
        "recovery": recovery,
        "for_password": link.purpose == "password",
    }
    return secret_page(screen.request, "portal/account/link_made.html", context)


class RecoveryRequest(PersonSignIn):
    """Request a recovery, and show its code once."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        values = cleaned(RecoveryForm(self.request.POST, prefix=RecoveryForm.PREFIX))
        recovery, code = recovery_request(actor=self.actor, person_id=id, **values)
        context = {"recovery": recovery, "person": recovery.person, "code": code}
        return secret_page(self.request, "portal/account/recovery_code.html", context)
