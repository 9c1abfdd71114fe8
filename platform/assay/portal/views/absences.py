"""Absences of reviewers: mine, and where I stand in."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.portal.forms.base import SlugChoice, TablerForm
from assay.portal.http import ActionScreen, cleaned, page_of
from governance.people.models import Specialty
from governance.reviews.absences.selectors import absences_visible_to, reviewers_known_to
from governance.reviews.absences.services import absence_end, absence_set


class MomentInput(forms.DateTimeInput):
    """The browser's own picker; what is typed is UTC, as everywhere in the portal."""

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
        held = screen.actor.specialties
        self.fields["specialty"].choices = [  # type: ignore[attr-defined]
            choice for choice in Specialty.choices if choice[0] in held
        ]
        others = reviewers_known_to(screen.actor).exclude(pk=screen.actor.person_id or 0)
        self.fields["deputy"].queryset = others.order_by("name")  # type: ignore[attr-defined]


class Absences(ActionScreen):
    """The list, and for a reviewer the form."""

    template_name = "portal/reviews/absences.html"

    def form(self) -> AbsenceForm:
        given = self.request.POST if self.request.method == "POST" else None
        return AbsenceForm(given, screen=self, initial={"starts_at": timezone.now()})

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "page": page_of(self.request, absences_visible_to(self.actor)),
            "form": self.form() if self.actor.specialties else None,
            "now": timezone.now(),
            "me": self.actor.person_id,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        absence = absence_set(actor=self.actor, **cleaned(self.form()))
        messages.success(
            self.request, f"{absence.deputy.name} stands in for you, as {absence.specialty}."
        )
        return redirect("portal:absences")


class AbsenceEnd(Absences):
    """Ends one before its time."""

    def form(self) -> AbsenceForm:
        return AbsenceForm(screen=self, initial={"starts_at": timezone.now()})

    def act(self, **kwargs: Any) -> HttpResponse:
        absence_end(actor=self.actor, absence_id=kwargs["id"])
        messages.success(self.request, "The absence has ended. Earlier decisions stay valid.")
        return redirect("portal:absences")
