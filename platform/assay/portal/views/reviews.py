"""Reviews: the inbox, and the page on which a release is decided."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from assay.portal.access import may
from assay.portal.comparison import subject_of
from assay.portal.http import ActionScreen, Screen, page_of
from assay.portal.reads import reviews_awaiting
from assay.portal.words import described_all
from governance.audit.selectors import audit_events_visible_to
from governance.errors import NotFound
from governance.permissions import Action
from governance.reviews.models import ChecklistState, Review, ReviewState, Verdict
from governance.reviews.selectors import review_standing, reviews_visible_to, why_not
from governance.reviews.services import checklist_attest
from registry.releases.selectors import release_get
from registry.releases.services import release_answer, release_decide

OPEN = (ReviewState.OPEN, ReviewState.CHANGES_REQUESTED)
TABS = (
    ("changed", "What changed"),
    ("evidence", "Evidence"),
    ("card", "Model card"),
    ("dossier", "Dossier"),
    ("audit", "Audit trail"),
)
VERDICTS = (
    (Verdict.COMMENT, "Comment", "Say something without deciding."),
    (Verdict.APPROVE, "Approve", "It may run, for the stated purpose and departments."),
    (Verdict.REQUEST_CHANGES, "Request changes", "The department answers; then you decide again."),
    (Verdict.REJECT, "Reject", "Final: this request does not run."),
)

# The risk answers that an answer to the reviewers may reword.
FREE_TEXT = ("intended_purpose", "affected_people", "notes")


class Reviews(Screen):
    """The inbox: mine first, by due time; then everything else the person may see."""

    template_name = "portal/reviews/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        mine = list(reviews_awaiting(self.actor).select_related("department", "opened_by")[:50])
        others = reviews_visible_to(self.actor).exclude(pk__in=[review.pk for review in mine])
        state = self.request.GET.get("state", "")
        if state == "open":
            others = others.filter(state__in=OPEN)
        elif state in ReviewState.values:
            others = others.filter(state=state)
        others = others.select_related("department", "opened_by").order_by("-pk")
        return {
            "mine": mine,
            "page": page_of(self.request, others),
            "state": state,
            "states": [("open", "waiting"), *[c for c in ReviewState.choices if c[0] != "open"]],
        }


def review_find(screen: Screen, pk: int) -> Review:
    """The review with what the page shows of it.

    Raises:
        NotFound: there is none, or the actor may not see it.
    """
    review = (
        reviews_visible_to(screen.actor)
        .select_related("department", "opened_by")
        .prefetch_related("decisions__person", "checklist__attested_by")
        .filter(pk=pk)
        .first()
    )
    if review is None:
        raise NotFound(f"There is no review {pk} that you may see.")
    return review


def choices_for(screen: Screen, review: Review) -> list[dict[str, str]]:
    """The four verdicts, each with why it is disabled when it is."""
    return [
        {
            "value": verdict,
            "title": title,
            "about": about,
            "blocked": why_not(screen.actor, review, verdict),
        }
        for verdict, title, about in VERDICTS
    ]


def timeline(review: Review) -> list[dict[str, Any]]:
    """Opened, every decision with separators where a new round began, and how it ended."""
    items: list[dict[str, Any]] = [
        {"kind": "opened", "at": review.opened_at, "person": review.opened_by}
    ]
    current = 1
    for decision in review.decisions.all():
        if decision.round > current:
            current = decision.round
            items.append({"kind": "round", "round": current})
        answer = decision.verdict == Verdict.COMMENT and decision.person_id == review.opened_by_id
        items.append({"kind": "answer" if answer else "decision", "decision": decision})
    if review.round > current:
        items.append({"kind": "round", "round": review.round})
    if review.closed_at:
        items.append({"kind": "closed", "at": review.closed_at, "state": review.state})
    return items


class ReviewPage(ActionScreen):
    """Everything that a decision needs on one page."""

    template_name = "portal/reviews/review.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        review = review_find(self, id)
        release = release_get(actor=self.actor, id=int(review.subject_id))
        tab = self.request.GET.get("tab", "changed")
        tab = tab if tab in dict(TABS) else "changed"
        subject = subject_of(self.actor, release)
        checklist = list(review.checklist.all())
        met = sum(item.state == ChecklistState.SATISFIED for item in checklist)
        deciding = review.state in OPEN and may(
            self.actor, Action.RELEASE_DECIDE, kind="release", department=review.department.slug
        )
        commenting = review.state in OPEN and may(
            self.actor, Action.REVIEW_COMMENT, kind="review", department=review.department.slug
        )
        choices = choices_for(self, review) if deciding or commenting else []
        return {
            "review": review,
            "release": release,
            "subject": subject,
            "tabs": TABS,
            "tab": tab,
            "standing": review_standing(review),
            "checklist": checklist,
            "met": met,
            "timeline": timeline(review),
            "choices": choices,
            "decides": any(not c["blocked"] for c in choices if c["value"] != Verdict.COMMENT),
            "specialities": sorted(self.actor.specialities & set(review.required_approvals)),
            "may_attest": deciding
            and may(
                self.actor,
                Action.CHECKLIST_ATTEST,
                kind="review",
                department=review.department.slug,
            )
            and review.opened_by_id != self.actor.person_id
            and self.actor.person_id not in review.excluded_people,
            "may_pack": may(
                self.actor,
                Action.RELEASE_EVIDENCE,
                kind="release",
                department=review.department.slug,
            ),
            "may_answer": review.state == ReviewState.CHANGES_REQUESTED
            and may(
                self.actor,
                Action.RELEASE_SUBMIT,
                kind="release",
                department=review.department.slug,
            ),
            "typed": self.request.POST,
            "rewordable": [(name, release.risk_answers.get(name, "")) for name in FREE_TEXT],
            **self.trail(tab, review),
            "evidence_count": len(subject.evidence),
        }

    def trail(self, tab: str, review: Review) -> dict[str, Any]:
        """The audit events of the release and its review, for their tab only."""
        if tab != "audit":
            return {}
        events = audit_events_visible_to(self.actor).filter(
            subject_type=review.subject_type, subject_id=review.subject_id
        )
        own = audit_events_visible_to(self.actor).filter(
            subject_type="review", subject_id=str(review.pk)
        )
        return {"trail": described_all((events | own).order_by("-id")[:100])}


def back(pk: int) -> HttpResponse:
    return redirect(f"{reverse('portal:review', args=[pk])}#conversation")


class Decide(ReviewPage):
    """Records one person's word."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        post = self.request.POST
        release_decide(
            actor=self.actor,
            release_id=int(review.subject_id),
            verdict=post.get("verdict", ""),
            reason=post.get("reason", "").strip(),
            digest=post.get("digest", ""),
            speciality=post.get("speciality", ""),
        )
        messages.success(self.request, "Recorded. It stands in the audit log under your name.")
        return back(id)


class Answer(ReviewPage):
    """The department answers requested changes; a new round begins."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        release = release_get(actor=self.actor, id=int(review.subject_id))
        answers = dict(release.risk_answers)
        for name in FREE_TEXT:
            given = self.request.POST.get(f"risk_{name}")
            if given is not None:
                answers[name] = given.strip()
        release_answer(
            actor=self.actor,
            release_id=release.pk,
            message=self.request.POST.get("message", "").strip(),
            risk_answers=answers if answers != release.risk_answers else None,
        )
        messages.success(self.request, "Answered. The reviewers were asked to look again.")
        return back(id)


class Attest(ReviewPage):
    """A reviewer vouches for one checklist item."""

    def act(self, *, id: int, code: str, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        note = self.request.POST.get("note", "").strip()
        checklist_attest(actor=self.actor, review_id=review.pk, code=code, note=note)
        messages.success(self.request, "Attested.")
        return back(id)
