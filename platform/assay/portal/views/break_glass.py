"""Break-glass: asking, confirming, ending, and the review afterward."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.forms.emergency import AfterReviewForm, BreakGlassForm
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from governance.permissions import Action
from registry.releases.breakglass.checks import separation
from registry.releases.breakglass.models import BreakGlass, BreakGlassState
from registry.releases.breakglass.selectors import (
    break_glass_get,
    break_glasses_to_review,
    break_glasses_visible_to,
)
from registry.releases.breakglass.services import (
    break_glass_confirm,
    break_glass_end,
    break_glass_refuse,
    break_glass_request,
    break_glass_review,
)
from registry.releases.selectors import release_get


class BreakGlasses(Screen):
    """Every use and request: what waits for its review afterward first."""

    template_name = "portal/breakglass/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        rows = break_glasses_visible_to(self.actor).exclude(state=BreakGlassState.ENDED)
        return {
            "waiting": list(break_glasses_to_review(self.actor)[:50]),
            "page": page_of(self.request, rows),
        }


class BreakGlassNew(ActionScreen):
    """The request, for a release that is under review."""

    template_name = "portal/breakglass/new.html"

    def form(self) -> BreakGlassForm:
        most = settings.BREAK_GLASS_MAX_HOURS
        return BreakGlassForm(self.request.POST or None, most=most, initial={"hours": 1})

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        return {"release": release_get(actor=self.actor, id=id), "form": self.form()}

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        made = break_glass_request(actor=self.actor, release_id=id, **cleaned(self.form()))
        return self.done(
            "Requested. Nothing serves until a second person confirms it.",
            "portal:break_glass",
            id=made.pk,
        )


class BreakGlassPage(ActionScreen):
    """One break-glass, and what the person may do about it."""

    template_name = "portal/breakglass/break_glass.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        glass = break_glass_get(actor=self.actor, id=id)
        confirms = self.may(glass, Action.RELEASE_BREAK_GLASS_CONFIRM)
        return {
            "glass": glass,
            "release": glass.release,
            "confirm": self.offered(glass, BreakGlassState.REQUESTED, "confirm", confirms),
            "may_refuse": glass.state == BreakGlassState.REQUESTED
            and (confirms or glass.asked_by_id == self.actor.person_id),
            "may_end": glass.state == BreakGlassState.ACTIVE and confirms,
            "review": self.offered(
                glass,
                BreakGlassState.ENDED,
                "review",
                self.may(glass, Action.RELEASE_DECIDE),
            ),
            "form": AfterReviewForm(self.request.POST or None),
        }

    def may(self, glass: BreakGlass, action: Action) -> bool:
        return may(self.actor, action, kind="release", department=glass.department.slug)

    def offered(
        self, glass: BreakGlass, state: BreakGlassState, doing: str, allowed: bool
    ) -> dict[str, str] | None:
        """Return the offer, or None; `blocked` is the reason when it is shown but impossible."""
        if glass.state != state or not allowed:
            return None
        why = separation(glass, self.actor.person_id, doing)
        return {"blocked": f"You {why}; another person must do this." if why else ""}


class BreakGlassConfirm(BreakGlassPage):
    """As the second person."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        glass = break_glass_confirm(actor=self.actor, break_glass_id=id)
        return self.done(
            f"Release {glass.release_id} may serve until {glass.ends_at:%Y-%m-%d %H:%M:%S} UTC.",
            "portal:break_glass",
            id=id,
        )


class BreakGlassRefuse(BreakGlassPage):
    """Refuses it, or takes it back."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        break_glass_refuse(
            actor=self.actor, break_glass_id=id, reason=self.request.POST.get("reason", "")
        )
        return self.done("Refused.", "portal:break_glass", id=id)


class BreakGlassEnd(BreakGlassPage):
    """Ends it before its time."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        break_glass_end(
            actor=self.actor, break_glass_id=id, reason=self.request.POST.get("reason", "")
        )
        return self.done("Ended. The release stops serving.", "portal:break_glass", id=id)


class BreakGlassReview(BreakGlassPage):
    """Says afterward whether it was justified."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        given = cleaned(AfterReviewForm(self.request.POST))
        break_glass_review(actor=self.actor, break_glass_id=id, **given)
        return self.done("Reviewed.", "portal:break_glass", id=id)
