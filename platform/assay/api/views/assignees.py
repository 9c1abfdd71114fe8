"""People to whom a release's review is assigned."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Identifier, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.releases import ReleaseDetail
from assay.api.views.releases import shown_release
from governance.reviews.assignments.services import review_assign, review_unassign
from registry.releases.threads import release_review_get


class AssigneeBody(StrictSerializer):
    """The person to assign the review to; they must be able to decide on it."""

    person = Identifier()


class AssigneesView(Endpoint):
    """Assignees of a release's review."""

    @operation(
        "Reviews",
        "Assign a release's review to a person who could decide on it",
        body=AssigneeBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        given = self.body(AssigneeBody)
        review = release_review_get(actor=self.actor, release_id=release_id)
        review_assign(actor=self.actor, review_id=review.pk, person_id=given["person"])
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail, status=201)


class AssigneeView(Endpoint):
    """One assignee."""

    @operation("Reviews", "Unassign a person from a release's review", answer=None, status=204)
    def delete(self, request: Request, release_id: int, person_id: int) -> Response:
        review = release_review_get(actor=self.actor, release_id=release_id)
        review_unassign(actor=self.actor, review_id=review.pk, person_id=person_id)
        return Response(status=204)
