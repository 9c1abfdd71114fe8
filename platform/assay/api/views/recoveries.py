"""Recoveries of accounts: requested by one administrator, approved by another."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, StrictSerializer
from assay.api.representations.governance import (
    RecoveryAnswer,
    RecoveryLinkAnswer,
    RecoveryRequestAnswer,
)
from governance.people.models import REASON_MAX, LinkPurpose
from governance.people.recoveries.approving import recovery_approve
from governance.people.recoveries.models import RecoveryState
from governance.people.recoveries.selectors import recoveries_visible_to, recovery_get
from governance.people.recoveries.services import recovery_reject, recovery_request


class RecoveryBody(StrictSerializer):
    """Purpose of the recovery's link, and the reason."""

    purpose = Choice(choices=LinkPurpose.choices, required=False)
    reason = Line(max_length=REASON_MAX)


class PersonRecoveriesView(Endpoint):
    """Recoveries of one account."""

    @operation(
        "People",
        "Request a recovery of an account: a new password, a new second factor, or both",
        body=RecoveryBody,
        answer=RecoveryRequestAnswer,
        status=201,
        description="Needs a fresh second factor. Hand the code to the person yourself; the "
        "administrator who approves the recovery gets its link, unless that is mailed.",
    )
    def post(self, request: Request, person_id: int) -> Response:
        given = {"purpose": LinkPurpose.PASSWORD, **self.body(RecoveryBody)}
        recovery, code = recovery_request(actor=self.actor, person_id=person_id, **given)
        answer = {"recovery": recovery, "code": code}
        response = self.answer(answer, RecoveryRequestAnswer, status=201)
        response.headers["Cache-Control"] = "no-store"
        return response


class RecoveriesQuery(StrictSerializer):
    """Which recoveries."""

    state = Choice(choices=RecoveryState.choices, required=False)


class RecoveriesView(Endpoint):
    """Recoveries of accounts."""

    @operation(
        "People",
        "List recoveries of accounts",
        query=RecoveriesQuery,
        answer=RecoveryAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        rows = recoveries_visible_to(self.actor)
        if state := self.query(RecoveriesQuery).get("state"):
            rows = rows.filter(state=state)
        return self.page(rows, RecoveryAnswer)


class RecoveryView(Endpoint):
    """One recovery."""

    @operation("People", "Get a recovery", answer=RecoveryAnswer)
    def get(self, request: Request, recovery_id: int) -> Response:
        self.query()
        return self.answer(recovery_get(actor=self.actor, recovery_id=recovery_id), RecoveryAnswer)


class RecoveryApproveView(Endpoint):
    """Approving a recovery that another administrator requested."""

    @operation(
        "People",
        "Approve a recovery, as another administrator",
        answer=RecoveryLinkAnswer,
        description="Needs a fresh second factor. Hand the link to the person yourself; they also "
        "need the requester's code.",
    )
    def post(self, request: Request, recovery_id: int) -> Response:
        self.nothing()
        recovery, address = recovery_approve(actor=self.actor, recovery_id=recovery_id)
        answer = {"recovery": recovery, "link": address or None}
        response = self.answer(answer, RecoveryLinkAnswer)
        response.headers["Cache-Control"] = "no-store"
        return response


class RecoveryRejectBody(StrictSerializer):
    """Why the account is not recovered."""

    reason = Line(max_length=REASON_MAX)


class RecoveryRejectView(Endpoint):
    """Rejecting a recovery before its link is opened."""

    @operation(
        "People",
        "Reject a recovery, as an administrator or as the owner of the account",
        body=RecoveryRejectBody,
        answer=RecoveryAnswer,
    )
    def post(self, request: Request, recovery_id: int) -> Response:
        given = self.body(RecoveryRejectBody)
        rejected = recovery_reject(actor=self.actor, recovery_id=recovery_id, **given)
        return self.answer(rejected, RecoveryAnswer)
