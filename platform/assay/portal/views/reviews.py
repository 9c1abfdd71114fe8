"""Reviews: the page on which a release is decided, and its assignees."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from assay.portal.comparison import subject_of
from assay.portal.forms.dossier import DossierForms
from assay.portal.http import ActionScreen, Screen, number_in
from assay.portal.reviewing.checklist import checklist
from assay.portal.reviewing.conditions import conditions, submitted_conditions
from assay.portal.reviewing.conversation import FREE_TEXT, conversation, trail
from assay.portal.reviewing.decision import decision
from assay.portal.reviewing.parts import Page
from assay.portal.reviewing.sides import sides_of
from assay.portal.since import review_news
from governance.errors import InvalidInput, NotFound
from governance.permissions import Action
from governance.reviews.assignments.selectors import assignable_people, assignees_by_review
from governance.reviews.assignments.services import review_assign, review_unassign
from governance.reviews.checklist import checklist_attest
from governance.reviews.models import Review, ReviewState
from governance.reviews.selectors import reviews_visible_to
from governance.reviews.threads.mentions import mentions_seen
from governance.reviews.waivers.selectors import checklist_prefetch
from registry.incidents.selectors import incidents_of
from registry.releases.models import ReleaseState
from registry.releases.selectors import release_get
from registry.releases.services import release_answer, release_decide

ITEMS_MAX = 100
TABS = (
    ("changed", "What changed"),
    ("evidence", "Evidence"),
    ("card", "Model card"),
    ("dossier", "Dossier"),
    ("audit", "Audit trail"),
)
# Excludes fields that are drawn already, which may be long.
RECORDED = ("metrics", "intervals", "baseline", "baseline_name", "slices", "sample_size")


def dossier(page: Page) -> dict[str, Any]:
    """Return forms of the dossier's answers; empty unless changes were requested."""
    if page.review.state != ReviewState.CHANGES_REQUESTED:
        return {}
    before = page.release.dossier_fields
    return {"dossier": DossierForms(page.screen.request.POST or None, before)}


def changed(page: Page) -> dict[str, Any]:
    """Return the version with its evidence, compared with the live version."""
    subject = subject_of(page.actor, page.release)
    query = page.screen.request.GET
    blind = query.get("blind") == "1"
    reveal = blind and query.get("reveal") == "1"
    rows: list[dict[str, Any]] = []
    if page.tab == "evidence":
        rows = [
            {
                "drawn": drawn,
                "recorded": {name: getattr(drawn.evaluation, name) for name in RECORDED},
                "sides": sides_of(
                    drawn.measured, person_id=page.actor.person_id, blind=blind, reveal=reveal
                ),
            }
            for drawn in subject.evidence
        ]
    return {
        "subject": subject,
        "evidence_count": len(subject.evidence),
        "blind": blind,
        "reveal": reveal,
        "side_by_side": rows,
    }


def assignees(page: Page) -> dict[str, Any]:
    """Return the assignees, and the candidates for people who may assign the review."""
    assigned = assignees_by_review([page.review])[page.review.pk]
    may_assign = page.is_open and page.may(Action.REVIEW_ASSIGN, "review")
    people = assignable_people(page.actor, page.review) if may_assign else []
    free = [person for person in people if person not in assigned]
    return {
        "assignees": assigned,
        "may_assign": may_assign,
        "may_take": any(person.pk == page.actor.person_id for person in free),
        "assignable": [person for person in free if person.pk != page.actor.person_id],
    }


def review_find(screen: Screen, pk: int) -> Review:
    """Return the review with the related rows that its page shows.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    review = (
        reviews_visible_to(screen.actor)
        .select_related("department", "opened_by", "review_policy")
        .prefetch_related("decisions__person", "decisions__in_place_of", checklist_prefetch())
        .filter(pk=pk)
        .first()
    )
    if review is None:
        raise NotFound(f"Review {pk} does not exist, or you may not see it.")
    return review


class ReviewPage(ActionScreen):
    """All information for a decision on one page."""

    template_name = "portal/reviews/review.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        page = super().get(request, *args, **kwargs)
        mentions_seen(actor=self.actor, review_id=kwargs["id"])
        return page

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        review = review_find(self, id)
        release = release_get(actor=self.actor, id=int(review.subject_id))
        tab = self.request.GET.get("tab", "changed")
        page = Page(self, review, release, tab if tab in dict(TABS) else "changed")
        discussion = conversation(page)
        return {
            "news": review_news(self.actor, review, discussion["threads"]),
            "review": review,
            "release": release,
            "incidents": incidents_of(self.actor, release.version_id),
            "tabs": TABS,
            "tab": page.tab,
            "typed": self.request.POST,
            "may_renew": release.state == ReleaseState.VOIDED
            and page.may(Action.RELEASE_SUBMIT, "release"),
            "may_pack": page.may(Action.RELEASE_EVIDENCE, "release"),
            **assignees(page),
            **changed(page),
            **checklist(page),
            **conditions(page),
            **discussion,
            **decision(page),
            **dossier(page),
            **trail(page),
        }

    def back(self, sentence: str, fragment: str = "conversation") -> HttpResponse:
        """Redirect to a part of the review's page, which shows `sentence`."""
        return self.done(sentence, "portal:review", id=self.kwargs["id"], fragment=fragment)


class Decide(ReviewPage):
    """Record a decision."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        post = self.request.POST
        release_decide(
            actor=self.actor,
            release_id=int(review.subject_id),
            verdict=post.get("verdict", ""),
            reason=post.get("reason", "").strip(),
            digest=post.get("digest", ""),
            specialty=post.get("specialty", ""),
            conditions=submitted_conditions(post),
            submit_drafts="keep_drafts" not in post,
        )
        return self.back("Recorded. The audit log records it under your name.")


class Answer(ReviewPage):
    """Answer requested changes for the department; a new round begins."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        release = release_get(actor=self.actor, id=int(review.subject_id))
        answers = dict(release.risk_answers)
        for name in FREE_TEXT:
            text = self.request.POST.get(f"risk_{name}")
            if text is not None:
                answers[name] = text.strip()
        release_answer(
            actor=self.actor,
            release_id=release.pk,
            message=self.request.POST.get("message", "").strip(),
            risk_answers=answers if answers != release.risk_answers else None,
            dossier_fields=DossierForms(self.request.POST, release.dossier_fields).fields(),
        )
        return self.back("Answered. The reviewers will look again.")


class Attest(ReviewPage):
    """Attest the selected checklist items, all or none, with the same note."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        codes = list(dict.fromkeys(self.request.POST.getlist("item")))
        if not 1 <= len(codes) <= ITEMS_MAX:
            raise InvalidInput(
                "No checklist item is selected." if not codes else "Too many items are selected.",
                hint="Select the items that you attest, then try again.",
                fields={"item": ["Select at least one."]},
            )
        note = self.request.POST.get("note", "").strip()
        for code in codes:
            checklist_attest(actor=self.actor, review_id=review.pk, code=code, note=note)
        count = f"{len(codes)} items" if len(codes) > 1 else "1 item"
        return self.back(f"Attested {count}.", "checklist")


class Assign(ReviewPage):
    """Assign the review to one person, or unassign them."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        post = self.request.POST
        person_id = number_in(post, "person")
        if person_id is None:
            raise InvalidInput(
                "No person is selected; the assignment was not changed.",
                fields={"person": ["Select a person."]},
            )
        arguments: dict[str, Any] = {"review_id": review.pk, "person_id": person_id}
        match post.get("do"):
            case "assign":
                review_assign(actor=self.actor, **arguments)
                return self.done("Assigned.", "portal:review", id=id)
            case "unassign":
                review_unassign(actor=self.actor, **arguments)
                return self.done("Unassigned.", "portal:review", id=id)
        raise InvalidInput("The form does not say what to do; nothing was done.")
