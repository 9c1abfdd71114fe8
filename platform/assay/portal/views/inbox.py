"""The inbox: reviews that await the person, and all that they may see, by due date."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from assay.portal.access import departments_where
from assay.portal.http import Screen, page_of
from assay.portal.lists import Field, states
from assay.portal.templatetags.assay import sentence
from governance.people.models import Specialty
from governance.permissions import Action
from governance.principals import Principal
from governance.reviews.assignments.selectors import assignees_by_review
from governance.reviews.inbox import (
    WAITING,
    Counts,
    ReviewFilter,
    inbox_counts,
    missing_specialties,
    reviews_awaiting,
)
from governance.reviews.models import Review, ReviewState
from governance.reviews.policies.models import SHIPPED
from governance.reviews.selectors import reviews_visible_to

TABS = (
    ("mine", "Pending your review"),
    ("waiting", "All pending"),
    ("overdue", "Overdue"),
    ("closed", "Closed"),
)
DUE_WORDS = {"overdue": "Overdue", "week": "Within a week"}


class Reviews(Screen):
    """One tab of reviews, filtered, those due first at the top."""

    template_name = "portal/reviews/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        query = ReviewFilter.lenient(self.request.GET.dict())
        if query.tier not in SHIPPED:
            query = query.model_copy(update={"tier": None})
        counts = inbox_counts(self.actor, query)
        tab = self.tab(query, counts)
        page = page_of(self.request, self.rows(tab, query))
        narrowed = query != ReviewFilter()
        missing = missing_specialties(page.object_list)
        assigned = assignees_by_review(page.object_list)
        return {
            "tab": tab,
            "tabs": [(code, title, getattr(counts, code)) for code, title in TABS],
            "page": page,
            "rows": [
                (review, missing[review.pk], assigned[review.pk]) for review in page.object_list
            ],
            "toolbar": self.toolbar(),
            "hidden": {"tab": tab},
            "narrowed": narrowed,
            "clear": f"?tab={tab}" if narrowed else "",
        }

    def toolbar(self) -> list[Field]:
        """Return the filters; the one for departments only for people who may see departments."""
        departments = departments_where(self.actor, Action.DEPARTMENT_VIEW, kind="department")
        owners = list(departments.values_list("slug", "name"))
        specialties = [(each, sentence(each)) for each in specialties_for(self.actor)]
        fields = [
            Field("missing", "Still needs", specialties, none="Any role"),
            Field("tier", "Tier", [(tier, sentence(tier)) for tier in SHIPPED]),
            Field("due", "Due", list(DUE_WORDS.items()), none="Any time"),
            states(ReviewState.choices),
            Field("assigned", "Assigned to", [("me", "Me")], none="Anyone"),
        ]
        return [*fields, Field("department", "Department", owners)] if owners else fields

    def tab(self, query: ReviewFilter, counts: Counts) -> str:
        """Return the requested tab; else the person's own tab if it has tasks, else the tab with
        all tasks."""
        tab = self.request.GET.get("tab", "")
        if tab in dict(TABS):
            return tab
        if query.state and query.state not in WAITING:
            return "closed"
        return "mine" if counts.mine or self.actor.specialties else "waiting"

    def rows(self, tab: str, query: ReviewFilter) -> QuerySet[Review]:
        if tab == "mine":
            return query.applied_for(self.actor, reviews_awaiting(self.actor))
        reviews = query.applied_for(self.actor, reviews_visible_to(self.actor))
        if tab == "closed":
            return reviews.exclude(state__in=WAITING).order_by("-closed_at", "-pk")
        if tab == "overdue":
            reviews = ReviewFilter(due="overdue").applied_for(self.actor, reviews)
        return reviews.filter(state__in=WAITING).order_by("due_at", "pk")


def specialties_for(actor: Principal) -> list[str]:
    """Return every specialty, the person's own first."""
    return sorted(Specialty.values, key=lambda each: (each not in actor.specialties, each))
