"""Emergency access: request, confirmation, end, and the review afterward."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.forms.emergency import AfterReviewForm, EmergencyAccessForm
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from governance.permissions import Action
from registry.releases.emergency_access.checks import separation
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.releases.emergency_access.selectors import (
    emergency_access_get,
    emergency_accesses_to_review,
    emergency_accesses_visible_to,
)
from registry.releases.emergency_access.services import (
    emergency_access_confirm,
    emergency_access_end,
    emergency_access_refuse,
    emergency_access_request,
    emergency_access_review,
)
from registry.releases.selectors import release_get


class EmergencyAccesses(Screen):
    """All emergency accesses; those that await their review come first."""

    template_name = "portal/emergency_access/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        rows = emergency_accesses_visible_to(self.actor).exclude(state=EmergencyAccessState.ENDED)
        return {
            "waiting": list(emergency_accesses_to_review(self.actor)[:50]),
            "page": page_of(self.request, rows),
        }


class EmergencyAccessNew(ActionScreen):
    """Request emergency access to a release that is under review."""

    template_name = "portal/emergency_access/new.html"

    def form(self) -> EmergencyAccessForm:
        maximum = settings.EMERGENCY_ACCESS_MAX_HOURS
        return EmergencyAccessForm(self.request.POST or None, most=maximum, initial={"hours": 1})

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        return {"release": release_get(actor=self.actor, id=id), "form": self.form()}

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        emergency = emergency_access_request(
            actor=self.actor, release_id=id, **cleaned(self.form())
        )
        return self.done(
            "Requested. Nothing serves until a second person confirms it.",
            "portal:emergency_access",
            id=emergency.pk,
        )


class EmergencyAccessPage(ActionScreen):
    """One emergency access, and the person's actions on it."""

    template_name = "portal/emergency_access/emergency_access.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        emergency = emergency_access_get(actor=self.actor, id=id)
        confirms = self.may(emergency, Action.RELEASE_EMERGENCY_ACCESS_CONFIRM)
        return {
            "emergency": emergency,
            "release": emergency.release,
            "confirm": self.offered(emergency, EmergencyAccessState.REQUESTED, "confirm", confirms),
            "may_refuse": emergency.state == EmergencyAccessState.REQUESTED
            and (confirms or emergency.asked_by_id == self.actor.person_id),
            "may_end": emergency.state == EmergencyAccessState.ACTIVE and confirms,
            "review": self.offered(
                emergency,
                EmergencyAccessState.ENDED,
                "review",
                self.may(emergency, Action.RELEASE_DECIDE),
            ),
            "form": AfterReviewForm(self.request.POST or None),
        }

    def may(self, emergency: EmergencyAccess, action: Action) -> bool:
        return may(self.actor, action, kind="release", department=emergency.department.slug)

    def offered(
        self, emergency: EmergencyAccess, state: EmergencyAccessState, doing: str, allowed: bool
    ) -> dict[str, str] | None:
        """Return the offered action, or None; `blocked` is the reason if it is disabled."""
        if emergency.state != state or not allowed:
            return None
        why = separation(emergency, self.actor.person_id, doing)
        return {"blocked": f"You {why}; another person must do this." if why else ""}


class EmergencyAccessConfirm(EmergencyAccessPage):
    """Confirm an emergency access as the second person."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        emergency = emergency_access_confirm(actor=self.actor, emergency_access_id=id)
        return self.done(
            f"Release {emergency.release_id} may serve until "
            f"{emergency.ends_at:%Y-%m-%d %H:%M:%S} UTC.",
            "portal:emergency_access",
            id=id,
        )


class EmergencyAccessRefuse(EmergencyAccessPage):
    """Refuse an emergency access, or withdraw the request."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        emergency_access_refuse(
            actor=self.actor, emergency_access_id=id, reason=self.request.POST.get("reason", "")
        )
        return self.done("Refused.", "portal:emergency_access", id=id)


class EmergencyAccessEnd(EmergencyAccessPage):
    """End an emergency access early."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        emergency_access_end(
            actor=self.actor, emergency_access_id=id, reason=self.request.POST.get("reason", "")
        )
        return self.done("Ended. The release stops serving.", "portal:emergency_access", id=id)


class EmergencyAccessReview(EmergencyAccessPage):
    """Review an emergency access afterward: was it justified?"""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        values = cleaned(AfterReviewForm(self.request.POST))
        emergency_access_review(actor=self.actor, emergency_access_id=id, **values)
        return self.done("Reviewed.", "portal:emergency_access", id=id)
