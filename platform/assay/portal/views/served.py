"""Deployments that served a department at a moment, their approvers, and the evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from assay.portal.access import may
from assay.portal.http import Screen, page_of
from assay.portal.series import Stretch, serving_lanes
from governance.errors import InvalidInput
from governance.people.models import Department
from governance.people.selectors import departments_visible_to
from governance.permissions import Action
from governance.principals import Principal
from workers.deployments.served import (
    EMERGENCIES,
    Question,
    empty_answer_sentence,
    period_end,
    served_question,
)
from workers.deployments.served_evidence import served_answers

DRAWN = timedelta(days=30)
# Maximum answers on a page, periods in the drawing, and departments to choose from.
ANSWERS, STRETCHES, OFFERED = 20, 300, 500


class Served(Screen):
    """The question, the answer for a moment, and deployments of the weeks around it."""

    template_name = "portal/deployments/served.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        offered = list(departments_visible_to(self.actor).order_by("slug")[:OFFERED])
        typed = self.request.GET.get("at", "").strip()
        slug = self.request.GET.get("department", "").strip() or _own(self.actor, offered)
        context: dict[str, Any] = {"departments": offered, "slug": slug, "given": typed}
        if not slug:
            return context
        try:
            question = served_question(actor=self.actor, department=slug, at=_moment(typed))
        except InvalidInput as error:
            # Show the weeks up to now, together with the error in the question.
            question = served_question(actor=self.actor, department=slug)
            problem = InvalidInput(error.message, hint=error.hint)
            return {**context, "problem": problem, **self._around(question)}
        return {**context, **self._answer(question), **self._around(question)}

    def _answer(self, question: Question) -> dict[str, Any]:
        slug = question.department.slug
        rows = list(question.rows[: ANSWERS + 1])
        answers = served_answers(self.actor, question, rows[:ANSWERS])
        owners = {each.release.department.slug for each in answers if each.approval}
        packs = {
            owner
            for owner in owners
            if may(self.actor, Action.RELEASE_EVIDENCE, kind="release", department=owner)
        }
        return {
            "answers": answers,
            "more": len(rows) > ANSWERS,
            "said": "" if rows else empty_answer_sentence(self.actor, question),
            "packs": packs,
            "reads_log": may(self.actor, Action.AUDIT_VIEW, kind="audit", department=slug),
        }

    def _around(self, question: Question) -> dict[str, Any]:
        """Return the periods of the last 30 days, or of the 30 days around an earlier moment."""
        now, moment = timezone.now(), question.since
        since, until = now - DRAWN, now
        if moment < since:
            since, until = moment - DRAWN / 2, moment + DRAWN / 2
        slug = question.department.slug
        span = served_question(actor=self.actor, department=slug, since=since, until=until)
        rows = span.rows.prefetch_related(None).prefetch_related(EMERGENCIES)
        drawn = list(rows[: STRETCHES + 1])
        stretches = [
            Stretch(
                period.deployment.name,
                period.deployment.release_id,
                period.serving_from,
                period_end(period)[0],
            )
            for period in drawn[:STRETCHES]
        ]
        page = page_of(self.request, rows)
        marked = 100 * ((moment - since) / (until - since))
        return {
            "department": question.department,
            "moment": moment,
            "field": form_moment(moment),
            "since": since,
            "until": until,
            "is_recent": until == now,
            "lanes": serving_lanes(stretches, since, until, now),
            "undrawn": len(drawn) > STRETCHES,
            "mark": f"{min(marked, 99.6):.2f}",
            "page": page,
            "periods": [
                (period, *period_end(period), form_moment(period.serving_from)) for period in page
            ],
        }


def _own(actor: Principal, offered: list[Department]) -> str:
    """Return the default department: the person's own, else the first visible one."""
    slugs = [department.slug for department in offered]
    return next((slug for slug in slugs if slug in actor.departments), slugs[0] if slugs else "")


def _moment(text: str) -> datetime | None:
    """Return the date and time of the form, in UTC unless it has a time zone; None for now.

    Raises:
        InvalidInput: the text is not a date and time.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text[:40])
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except ValueError as error:
        sentence = f"{text[:40]!r} is not a date and time."
        raise InvalidInput(
            sentence, hint="Write it as 2026-05-01T14:30, in UTC.", fields={"at": [sentence]}
        ) from error


def form_moment(moment: datetime) -> str:
    """Return a moment as the form's field takes it: the next whole second, in UTC."""
    whole = moment.astimezone(UTC) + timedelta(microseconds=999_999)
    return whole.strftime("%Y-%m-%dT%H:%M:%S")
