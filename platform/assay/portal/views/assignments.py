"""Assigning a review to the people who could decide on it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.views.reviews import ReviewPage, review_find
from governance.errors import InvalidInput
from governance.reviews.assignments.services import review_assign, review_unassign


class Assign(ReviewPage):
    """Assigns the review to one person, or unassigns them."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        post = self.request.POST
        given = post.get("person", "")
        if not (given.isascii() and given.isdigit() and len(given) < 18):
            raise InvalidInput(
                "No person is selected; the assignment was not changed.",
                fields={"person": ["Select a person."]},
            )
        on: dict[str, Any] = {"review_id": review.pk, "person_id": int(given)}
        match post.get("do"):
            case "assign":
                review_assign(actor=self.actor, **on)
                messages.success(self.request, "Assigned.")
            case "unassign":
                review_unassign(actor=self.actor, **on)
                messages.success(self.request, "Unassigned.")
            case _:
                raise InvalidInput("The form does not say what to do; nothing was done.")
        return redirect("portal:review", id)
