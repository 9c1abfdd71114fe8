"""The reviewer's inbox: what waits for the person, and every review they may see, by due time."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from assay.portal.access import departments_where
from assay.portal.http import Screen, page_of
from governance.people.models import Specialty
from governance.permissions import Action
from governance.principals import Principal
from governance.reviews.assignments.selectors import assignees_by_review
from governance.reviews.inbox import (
    DUE,
    WAITING,
    Asked,
    Counts,
    inbox_counts,
    missing_specialties,
    reviews_awaiting,
)
from governance.reviews.models import Review, ReviewState
from governance.reviews.policies.models import SHIPPED
from governance.reviews.selectors import reviews_visible_to

TABS = (
    ("mine", "Waiting for you"),
    ("waiting", "All waiting"),
    ("overdue", "Overdue"),
    ("closed", "Closed"),
)
DUE_WORDS = {"overdue": "Overdue", "week": "Within a week"}


class Reviews(Screen):
    """A tab of reviews, narrowed as the filters say; what is due first comes first."""

    template_name = "portal/reviews/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        asked = self.asked()
        counts = inbox_counts(self.actor, asked)
        tab = self.tab(asked, counts)
        page = page_of(self.request, self.rows(tab, asked))
        lacking = missing_specialties(page.object_list)
        assigned = assignees_by_review(page.object_list)
        return {
            "tab": tab,
            "tabs": [(code, title, getattr(counts, code)) for code, title in TABS],
            "page": page,
            "rows": [
                (review, lacking[review.pk], assigned[review.pk]) for review in page.object_list
            ],
            "asked": asked,
            "narrowed": asked != Asked(),
            "specialties": specialties_for(self.actor),
            "tiers": SHIPPED,
            "states": ReviewState.choices,
            "dues": [(which, DUE_WORDS[which]) for which in DUE],
            "departments": departments_where(
                self.actor, Action.DEPARTMENT_VIEW, kind="department"
            ).values_list("slug", "name"),
        }

    def asked(self) -> Asked:
        """Return the filter in the address; unknown parts filter nothing."""
        get = self.request.GET

        def among(name: str, known: Any) -> str:
            given = get.get(name, "")
            return given if given in known else ""

        return Asked(
            missing=among("missing", Specialty.values),
            tier=among("tier", SHIPPED),
            state=among("state", ReviewState.values),
            due=among("due", DUE),
            department=get.get("department", "").replace("\x00", "")[:40],
            assignee=self.actor.person_id if get.get("assigned") == "me" else None,
        )

    def tab(self, asked: Asked, counts: Counts) -> str:
        """Return the requested tab; else the person's own tab if it has tasks, else the tab with
        all tasks."""
        given = self.request.GET.get("tab", "")
        if given in dict(TABS):
            return given
        if asked.state and asked.state not in WAITING:
            return "closed"
        return "mine" if counts.mine or self.actor.specialties else "waiting"

    def rows(self, tab: str, asked: Asked) -> QuerySet[Review]:
        if tab == "mine":
            return asked.applied(reviews_awaiting(self.actor))
        reviews = asked.applied(reviews_visible_to(self.actor))
        if tab == "closed":
            return reviews.exclude(state__in=WAITING).order_by("-closed_at", "-pk")
        if tab == "overdue":
            reviews = Asked(due="overdue").applied(reviews)
        return reviews.filter(state__in=WAITING).order_by("due_at", "pk")


def specialties_for(actor: Principal) -> list[str]:
    """Every specialty, the person's own first."""
    return sorted(Specialty.values, key=lambda each: (each not in actor.specialties, each))
