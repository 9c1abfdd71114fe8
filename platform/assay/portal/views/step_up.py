"""Step-up: a second factor, given again by somebody who is signed in."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.accounts.pages import destination
from assay.portal.http import ActionScreen
from assay.portal.reviewing.conditions import Typed, typed_conditions
from assay.portal.second_factor import give_second_factor, second_factor_context
from governance.people.proof import FRESH, proof_fresh

# In a session: what was typed on a review's page before its reader went to prove who they are.
TYPED = "assay_typed"
_FIELDS = {"verdict": 20, "speciality": 20, "reason": 4000}


@method_decorator([never_cache, sensitive_post_parameters("code", "credential")], name="dispatch")
class Prove(ActionScreen):
    """Verifies by a second factor who decides; a password alone is not enough."""

    template_name = "portal/account/prove.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        target = destination(self.request)
        return {
            **second_factor_context(self.request, self.actor),
            "action": reverse("portal:account_prove"),
            "hidden": [("next", target)],
            "next": target,
            "proven": proof_fresh(self.actor),
            "minutes": FRESH.seconds // 60,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        give_second_factor(self.request, self.actor)
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
