"""Deployments that served a department at a moment, their approvers, and the evidence."""

from __future__ import annotations

from collections.abc import Iterable

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import PAGE, operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Moment, Slug, StrictSerializer
from assay.api.representations.served import ServedAnswer, ServedPage
from governance.bounds import DEPARTMENT_MAX
from workers.deployments.models import ServingPeriod
from workers.deployments.served import Question, nothing_said, served_question
from workers.deployments.served_evidence import Served, served_answers


class ServedQuery(StrictSerializer):
    """Department, and time: a moment (default now) or a span."""

    department = Slug(max_length=DEPARTMENT_MAX)
    at = Moment(required=False)
    since = Moment(required=False)
    until = Moment(required=False, help_text="Not included; now unless told.")


class ServedView(Endpoint):
    """Deployments that served."""

    @operation(
        "Deployments",
        "What served a department then, who approved it, on what evidence",
        query=ServedQuery,
        answer=ServedPage,
        parameters=PAGE,
    )
    def get(self, request: Request) -> Response:
        question = served_question(actor=self.actor, **self.query(ServedQuery))

        def prepared(rows: Iterable[ServingPeriod]) -> list[Served]:
            return served_answers(self.actor, question, rows)

        page = self.page(question.rows, ServedAnswer, prepared=prepared).data
        said = "" if page["results"] or page["previous"] else nothing_said(self.actor, question)
        return Response({**_asked(question), "said": said, **page})


def _asked(question: Question) -> dict[str, object]:
    span = question.until is not None
    return {
        "department": question.department.slug,
        "at": question.at,
        "since": question.since if span else None,
        "until": question.until,
    }
