"""Step-up: a signed-in person gives a second factor again."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.accounts.pages import destination
from assay.portal.http import ActionScreen
from assay.portal.second_factor import give_second_factor, second_factor_context
from governance.people.proof import FRESH, proof_fresh


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
