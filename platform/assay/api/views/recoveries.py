"""Recoveries of accounts: requested by one administrator, approved by another."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from assay.api.representations.governance import (
    RecoveryAnswer,
    RecoveryLinkAnswer,
    RecoveryRequestAnswer,
)
from assay.api.routes import Routes
from governance.people.recoveries.approving import recovery_approve
from governance.people.recoveries.models import AccountRecovery
from governance.people.recoveries.schemas import NewRecovery, RecoveryFilter, RecoveryRejection
from governance.people.recoveries.selectors import recoveries_visible_to, recovery_get
from governance.people.recoveries.services import recovery_reject, recovery_request
from governance.principals import Principal

routes = Routes("People", RecoveryAnswer)


@routes.post(
    "people/<id:person_id>/recoveries",
    "Request a recovery of an account: a new password, a new second factor, or both",
    answer=RecoveryRequestAnswer,
    status=201,
    name="person_recoveries_post",
)
def request(actor: Principal, person_id: int, body: NewRecovery) -> dict[str, Any]:
    """Requires a recent second factor. Give the code to the person yourself; the administrator who
    approves the recovery gets its link, unless it is mailed.
    """
    recovery, code = recovery_request(actor=actor, person_id=person_id, **dict(body))
    return {"recovery": recovery, "code": code}


@routes.list("recoveries", "List recoveries of accounts")
def list_recoveries(actor: Principal, query: RecoveryFilter) -> QuerySet[AccountRecovery]:
    return query.applied(recoveries_visible_to(actor))


@routes.get("recoveries/<id:recovery_id>", "Get a recovery")
def show(actor: Principal, recovery_id: int) -> AccountRecovery:
    return recovery_get(actor=actor, recovery_id=recovery_id)


@routes.post(
    "recoveries/<id:recovery_id>/approve",
    "Approve a recovery, as another administrator",
    answer=RecoveryLinkAnswer,
)
def approve(actor: Principal, recovery_id: int) -> dict[str, Any]:
    """Requires a recent second factor. Give the link to the person yourself; they also need the
    requester's code.
    """
    recovery, address = recovery_approve(actor=actor, recovery_id=recovery_id)
    return {"recovery": recovery, "link": address or None}


@routes.post(
    "recoveries/<id:recovery_id>/reject",
    "Reject a recovery, as an administrator or as the owner of the account",
)
def reject(actor: Principal, recovery_id: int, body: RecoveryRejection) -> AccountRecovery:
    return recovery_reject(actor=actor, recovery_id=recovery_id, reason=body.reason)
