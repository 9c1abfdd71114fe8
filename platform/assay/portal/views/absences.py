"""Absences of reviewers: the person's own, and those in which they are the deputy."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpResponse
from django.utils import timezone

from assay.forms import TablerForm
from assay.portal.forms.base import SlugChoice
from assay.portal.http import ActionScreen, cleaned, page_of
from governance.people.models import Specialty
from governance.reviews.absences.selectors import absences_visible_to, reviewers_visible_to
from governance.reviews.absences.services import absence_end, absence_set


class MomentInput(forms.DateTimeInput):
    """The browser's date picker; typed times are UTC, as everywhere in the portal."""

    input_type = "datetime-local"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%dT%H:%M")


class AbsenceForm(TablerForm):
    """Deputy, specialty and dates of an absence."""

    specialty = forms.ChoiceField(label="You review for")
    deputy = SlugChoice(queryset=None, empty_label="Choose a reviewer")
    starts_at = forms.DateTimeField(label="From (UTC)", widget=MomentInput())
    ends_at = forms.DateTimeField(label="Until (UTC)", widget=MomentInput())

    def __init__(self, *args: Any, screen: ActionScreen, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        specialties = screen.actor.specialties
        self.fields["specialty"].choices = [  # type: ignore[attr-defined]
            choice for choice in Specialty.choices if choice[0] in specialties
        ]
        others = reviewers_visible_to(screen.actor).exclude(pk=screen.actor.person_id or 0)
        self.fields["deputy"].queryset = others.order_by("name")  # type: ignore[attr-defined]


class Absences(ActionScreen):
    """The list of absences, with a form for reviewers."""

    template_name = "portal/reviews/absences.html"

    def form(self) -> AbsenceForm:
        posted = self.request.POST if self.request.method == "POST" else None
        return AbsenceForm(posted, screen=self, initial={"starts_at": timezone.now()})

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "page": page_of(self.request, absences_visible_to(self.actor)),
            "form": self.form() if self.actor.specialties else None,
            "now": timezone.now(),
            "me": self.actor.person_id,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        absence = absence_set(actor=self.actor, **cleaned(self.form()))
        return self.done(
            f"{absence.deputy.name} is your deputy for {absence.specialty}.", "portal:absences"
        )


class AbsenceEnd(Absences):
    """End an absence early."""

    def form(self) -> AbsenceForm:
        return AbsenceForm(screen=self, initial={"starts_at": timezone.now()})

    def act(self, **kwargs: Any) -> HttpResponse:
        absence_end(actor=self.actor, absence_id=kwargs["id"])
        return self.done("The absence has ended. Earlier decisions stay valid.", "portal:absences")
