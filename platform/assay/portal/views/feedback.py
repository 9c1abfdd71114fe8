"""Feedback: the list, one piece with its review, and the form that turns it into data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from assay.portal.access import departments_where, may
from assay.portal.forms.feedback import FeedbackDataForm, FeedbackReasonForm, FeedbackReviewForm
from assay.portal.http import ActionScreen, cleaned, number_in, posted
from assay.portal.lists import Field, ListScreen, states
from governance.english import counted
from governance.errors import InvalidInput, NotFound
from governance.permissions import Action
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.selectors import dataset_versions_visible_to, datasets_visible_to
from registry.feedback.datasets import FEEDBACK_MAX, feedback_dataset_version
from registry.feedback.models import Feedback, FeedbackState
from registry.feedback.rows import right_answer
from registry.feedback.schemas import FeedbackFilter
from registry.feedback.selectors import (
    feedback_get,
    feedback_unused,
    feedback_visible_to,
)
from registry.feedback.services import REVIEWED_AT_ONCE, feedback_erase, feedback_review
from registry.versions.selectors import versions_visible_to

LINES_SHOWN = 400


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of feedback in the list. `right` is empty while the right answer is not known."""

    feedback: Feedback
    input_text: str
    right: str
    choosable: bool


def input_text(feedback: Feedback) -> str:
    """Return the texts of the input as people read them."""
    return "\n".join(_texts(feedback.input))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            if name not in ("role", "type"):
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


def accepts(request: HttpRequest) -> bool:
    """Return true if the review accepts. Raises InvalidInput if it neither accepts nor rejects."""
    verdict = request.POST.get("verdict")
    if verdict not in ("accept", "reject"):
        raise InvalidInput("Choose to accept or to reject.")
    return verdict == "accept"


class FeedbackList(ListScreen):
    """Feedback that the person may see, by deployment and state."""

    template_name = "portal/feedback/list.html"
    title = "Feedback"
    lead = "Ratings and corrections of answers, from applications and people of your departments."
    columns = "Feedback | Input | Right answer | Rating | State | Sent"
    filters = FeedbackFilter

    def rows(self) -> QuerySet[Feedback]:
        rows, query = feedback_visible_to(self.actor), self.request.GET
        version = number_in(query, "data")
        if version is not None:
            return rows.filter(dataset_versions=version)
        return rows if "state" in query else rows.filter(state=FeedbackState.PENDING)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        context, query = super().context(**kwargs), self.request.GET
        visible = feedback_visible_to(self.actor).order_by("deployment")
        names = visible.values_list("deployment", flat=True).distinct()[:200]
        lines = [self._line(feedback) for feedback in context["page"].object_list]
        context["page"].object_list = lines
        choosable = any(line.choosable for line in lines)
        unused = feedback_unused(self.actor)
        if deployment := context["chosen"].deployment:
            unused = unused.filter(deployment=deployment)
        return {
            **context,
            "toolbar": (
                Field("deployment", "Deployment", [(name, name) for name in names]),
                # The content of a dataset version is shown in every state.
                states(FeedbackState.choices)
                if "data" in query
                else states([*FeedbackState.choices, ("", "any")], none=""),
            ),
            "hidden": {name: query[name] for name in ("data",) if name in query},
            "unused": unused.count(),
            "choosable": choosable,
            "reviewed_at_once": REVIEWED_AT_ONCE,
            "columns": f"□ all | {self.columns}" if choosable else self.columns,
        }

    def _line(self, feedback: Feedback) -> Line:
        right = right_answer(feedback)
        return Line(
            feedback,
            input_text=input_text(feedback)[:LINES_SHOWN],
            right=right[:LINES_SHOWN],
            choosable=feedback.state == FeedbackState.PENDING
            and feedback.person_id != self.actor.person_id
            and feedback.input is not None
            and bool(right),
        )


class FeedbackReviews(FeedbackList, ActionScreen):
    """Accept or reject the feedback that was selected in the list."""

    def act(self, **kwargs: Any) -> HttpResponse:
        ids = [int(each[:18]) for each in self.request.POST.getlist("id") if each.isdecimal()]
        accept = accepts(self.request)
        done = feedback_review(actor=self.actor, feedback_ids=ids, accept=accept)
        verb = "Accepted" if accept else "Rejected"
        return self.done(f"{verb} {len(done)}.", "portal:feedback", query=self.request.GET)


class FeedbackPage(ActionScreen):
    """One piece of feedback, and the decision on it."""

    template_name = "portal/feedback/feedback.html"

    def form(self, feedback: Feedback) -> FeedbackReviewForm:
        initial = {"correction": right_answer(feedback)}
        return FeedbackReviewForm(posted(self.request, "feedback_one"), initial=initial)

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        feedback = feedback_get(actor=self.actor, id=id)
        department = feedback.department.slug
        versions = feedback.dataset_versions.select_related("dataset").order_by("pk")
        return {
            "feedback": feedback,
            "asked": input_text(feedback),
            "form": self.form(feedback),
            "reason_form": FeedbackReasonForm(posted(self.request, "feedback_erase")),
            "version": versions_visible_to(self.actor).filter(pk=feedback.version_id).first(),
            "data": list(versions[:20]),
            "own": feedback.person_id is not None and feedback.person_id == self.actor.person_id,
            "may_review": feedback.state != FeedbackState.ERASED
            and may(self.actor, Action.FEEDBACK_REVIEW, kind="feedback", department=department),
            "may_erase": feedback.state != FeedbackState.ERASED
            and may(self.actor, Action.FEEDBACK_ERASE, kind="feedback", department=department),
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        feedback = feedback_get(actor=self.actor, id=id)
        accept = accepts(self.request)
        correction = cleaned(self.form(feedback))["correction"] if accept else ""
        feedback_review(actor=self.actor, feedback_ids=[id], accept=accept, correction=correction)
        return self.done("Accepted." if accept else "Rejected.", "portal:feedback_one", id=id)


class FeedbackErase(FeedbackPage):
    """Erase the content of one piece of feedback."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        reason = cleaned(FeedbackReasonForm(self.request.POST))["reason"]
        feedback_erase(actor=self.actor, feedback_id=id, reason=reason)
        return self.done("The content is erased.", "portal:feedback_one", id=id)


class FeedbackData(ActionScreen):
    """Make a dataset version from the accepted feedback on one deployment."""

    template_name = "portal/feedback/dataset.html"

    def accepted(self, deployment: str) -> QuerySet[Feedback]:
        """Return accepted feedback on the deployment that is in no dataset version yet."""
        return feedback_unused(self.actor).filter(deployment=deployment)

    def form(self, deployment: str) -> FeedbackDataForm:
        newest = self.accepted(deployment).first()
        if newest is None:
            raise NotFound(f"No accepted feedback on {deployment} is left to add to a dataset.")
        owners = departments_where(self.actor, Action.DATASET_CREATE, kind="dataset")
        datasets = datasets_visible_to(self.actor).filter(
            task=newest.task, row_kind="", department__in=owners
        )
        versions = dataset_versions_visible_to(self.actor).filter(
            dataset__task=newest.task, dataset__row_kind=""
        )
        before = self._learned_from(newest, datasets)
        initial = {} if before is None else {"dataset": before.dataset_id, "base": before.pk}
        return FeedbackDataForm(
            self.request.POST or None, datasets=datasets, versions=versions, initial=initial
        )

    def _learned_from(
        self, feedback: Feedback, datasets: QuerySet[Dataset]
    ) -> DatasetVersion | None:
        """Return the newest version of the data that the deployed version was trained on."""
        version = versions_visible_to(self.actor).filter(pk=feedback.version_id).first()
        data = None if version is None else version.dataset_version
        if data is None or not datasets.filter(pk=data.dataset_id).exists():
            return None
        return data.dataset.versions.order_by("-number").first()

    def context(self, **kwargs: Any) -> dict[str, Any]:
        deployment = self.request.GET.get("deployment", "")[:80].replace("\0", "")
        return {
            "deployment": deployment,
            "form": self.form(deployment),
            "count": self.accepted(deployment).count(),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        deployment = self.request.GET.get("deployment", "")[:80].replace("\0", "")
        values = cleaned(self.form(deployment))
        dataset: Dataset = values["dataset"]
        rows = self.accepted(deployment).filter(department=dataset.department_id, task=dataset.task)
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[:FEEDBACK_MAX])
        if not ids:
            sentence = (
                f"{dataset.name} belongs to another department or task than the accepted "
                f"feedback on {deployment}."
            )
            raise InvalidInput(sentence, fields={"dataset": [sentence]})
        version = feedback_dataset_version(
            actor=self.actor, dataset=dataset, feedback_ids=ids, base=values["base"]
        )
        return self.done(
            f"{version} has {counted(version.rows, 'row')}, {len(ids)} of them from feedback.",
            "portal:dataset",
            name=dataset.name,
        )
