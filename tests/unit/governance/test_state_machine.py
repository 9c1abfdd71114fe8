"""The sentences that every state machine shares, and transition tables that name every state."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import TextChoices

from governance.audit.exports.services import EXPORT_STATES
from governance.errors import NotPermitted, WrongState
from governance.people.models import RoleRequest, RoleRequestState
from governance.people.privileges import ROLE_REQUEST_STATES
from governance.policy.lifecycle import POLICIES
from governance.policy.models import PolicyState, PolicyVersion
from governance.reviews.policies.lifecycle import REVIEW_POLICIES
from governance.reviews.states import REVIEW_STATES
from governance.reviews.threads.states import THREAD_STATES
from governance.reviews.waivers.states import WAIVER_STATES
from governance.state_machine import StateMachine

MACHINES = (
    EXPORT_STATES,
    POLICIES.states,
    REVIEW_POLICIES.states,
    REVIEW_STATES,
    ROLE_REQUEST_STATES,
    THREAD_STATES,
    WAIVER_STATES,
)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.noun)
def test_a_table_names_every_state_of_its_column(machine: StateMachine[Any, Any]) -> None:
    states = {value for value, _ in machine.model._meta.get_field("state").choices or ()}
    assert set(machine.table) == states
    assert frozenset().union(*machine.table.values()) <= states


def refused(machine: StateMachine[Any, Any], row: object, to: TextChoices) -> WrongState:
    with pytest.raises(WrongState) as caught:
        machine.require(row, to)
    return caught.value


def test_a_refused_transition_lists_the_allowed_ones() -> None:
    row = PolicyVersion(number=9, state=PolicyState.PROPOSED)
    error = refused(POLICIES.states, row, PolicyState.DRAFT)
    assert error.message == "Policy 9 is proposed; it cannot become draft."
    assert error.hint == "From there it can become active, rejected, withdrawn."
    assert row.state == PolicyState.PROPOSED


def test_a_final_state_says_what_to_do_instead() -> None:
    row = RoleRequest(pk=4, state=RoleRequestState.EXPIRED)
    error = refused(ROLE_REQUEST_STATES, row, RoleRequestState.APPROVED)
    assert error.message == "Role request 4 is expired; it cannot become approved."
    assert error.hint == "That state is final; request the role again."


def test_a_hidden_row_is_missing_and_the_attempt_is_kept() -> None:
    error = NotPermitted("Denied.", attempt=None)
    assert POLICIES.states.missing(error).message == POLICIES.states.missing().message
