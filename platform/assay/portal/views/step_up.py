"""Step-up: a second factor, given again by somebody who is signed in."""

from __future__ import annotations

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.accounts import passkeys
from assay.accounts.factors import code_check, factors_of, first_factor_refused
from assay.accounts.freshness import DEMONSTRATION
from assay.accounts.pages import destination
from assay.accounts.personas import personas_allowed
from assay.accounts.tokens import no_second_factor
from assay.portal.account_forms import CodeForm
from assay.portal.http import ActionScreen
from assay.portal.reviewing.conditions import Typed, typed_conditions
from governance.people.proof import FRESH, LOCAL, proof_fresh
from governance.people.signing_in import own_account, step_up_record
from governance.principals import Principal

# In a session: what was typed on a review's page before its reader went to prove who they are.
TYPED = "assay_typed"
_FIELDS = {"verdict": 20, "speciality": 20, "reason": 4000}


def give_second_factor(request: HttpRequest, actor: Principal) -> None:
    """Check the passkey or code that was posted, and note in session and log that it was right.

    Raises:
        NotAuthenticated, InvalidInput, QuotaExceeded, Unavailable: as the check of either.
    """
    person = own_account(actor)
    if "credential" in request.POST:
        factor = passkeys.passkey_check(person=person, credential=request.POST["credential"])
    else:
        factor = code_check(person=person, code=request.POST.get("code", ""))
    step_up_record(actor=actor, method=str(factor.type))
    record_authentication(
        request, request.user, "mfa", id=factor.pk, type=factor.type, reauthenticated=True
    )


@method_decorator([never_cache, sensitive_post_parameters("code", "credential")], name="dispatch")
class Prove(ActionScreen):
    """Who decides proves who they are, by a second factor; a password alone does not do.

    In the local demonstration somebody without one proves it by a click, which is called that.
    """

    template_name = "portal/account/prove.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        person = own_account(self.actor)
        factors = factors_of(person.pk)
        return {
            "person": person,
            "factors": factors,
            "factor_refused": first_factor_refused(person),
            "code_form": CodeForm(),
            "next": destination(self.request),
            "local": not factors.any and personas_allowed(self.request),
            "proven": proof_fresh(self.actor),
            "minutes": FRESH.seconds // 60,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        person = own_account(self.actor)
        if factors_of(person.pk).any:
            give_second_factor(self.request, self.actor)
        elif "local" in self.request.POST and personas_allowed(self.request):
            step_up_record(actor=self.actor, method=LOCAL)
            record_authentication(
                self.request, self.request.user, DEMONSTRATION, reauthenticated=True
            )
        else:
            raise no_second_factor(person)
        return redirect(destination(self.request))


def typed_keep(request: HttpRequest, review_id: int) -> None:
    """Keep what was typed into a decision, until it is taken."""
    kept = {name: request.POST.get(name, "")[:most] for name, most in _FIELDS.items()}
    asked = {"conditions": typed_conditions(request)}
    request.session[TYPED] = {"review": review_id, **kept, **asked}


def typed_kept(request: HttpRequest, review_id: int) -> dict[str, str]:
    """What was typed on that review's page; empty when nothing is kept of it."""
    kept: dict[str, Any] = request.session.get(TYPED) or {}
    return kept if kept.get("review") == review_id else {}


def conditions_kept(request: HttpRequest, review_id: int) -> Typed:
    """The conditions typed on that review's page."""
    kept: Any = typed_kept(request, review_id)
    found: Typed = kept.get("conditions", {})
    return found


def typed_forget(request: HttpRequest) -> None:
    """The decision is taken."""
    request.session.pop(TYPED, None)
