"""Every pair of states of every state machine, and the sentences that they share.

Tests of the services show what an allowed transition does besides.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from django.db.models import TextChoices

from governance.audit.exports.services import EXPORT_STATES
from governance.credentials.services import CREDENTIAL_STATES
from governance.errors import NotPermitted, WrongState
from governance.people.models import RoleRequest, RoleRequestState
from governance.people.privileges import ROLE_REQUEST_STATES
from governance.people.recoveries.states import RECOVERY_STATES
from governance.policy.lifecycle import POLICIES
from governance.policy.models import PolicyState, PolicyVersion
from governance.reviews.models import ChecklistItem
from governance.reviews.policies.lifecycle import REVIEW_POLICIES
from governance.reviews.states import REVIEW_STATES
from governance.reviews.threads.states import THREAD_STATES
from governance.reviews.waivers.states import WAIVER_STATES
from governance.state_machine import StateMachine
from registry.batches.states import BATCH_STATES
from registry.feedback.services import FEEDBACK_STATES
from registry.incidents.states import INCIDENT_STATES
from registry.intake.states import INTAKE_STATES
from registry.knowledge.documents import DOCUMENT_STATES
from registry.knowledge.models import Document
from registry.releases.emergency_access.states import EMERGENCY_ACCESS_STATES
from registry.releases.states import RELEASE_STATES
from workers.deployments.states import DEPLOYMENT_STATES
from workers.jobs.states import JOB_STATES
from workers.nodes.states import NODE_STATES
from workers.schedules.states import SCHEDULE_STATES

ROOT = Path(__file__).resolve().parents[3]
MACHINES = (
    BATCH_STATES,
    CREDENTIAL_STATES,
    DEPLOYMENT_STATES,
    DOCUMENT_STATES,
    EMERGENCY_ACCESS_STATES,
    EXPORT_STATES,
    FEEDBACK_STATES,
    INCIDENT_STATES,
    INTAKE_STATES,
    JOB_STATES,
    NODE_STATES,
    POLICIES.states,
    RECOVERY_STATES,
    RELEASE_STATES,
    REVIEW_POLICIES.states,
    REVIEW_STATES,
    ROLE_REQUEST_STATES,
    SCHEDULE_STATES,
    THREAD_STATES,
    WAIVER_STATES,
)


def test_no_state_machine_of_the_product_is_missing_here() -> None:
    folders = (ROOT / name for name in ("governance", "registry", "workers", "platform"))
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    assert sum(len(re.findall(r"= ?StateMachine\(", text)) for text in sources) == len(MACHINES)


# Related rows that a machine's error messages name.
RELATED = {
    "document": {"document": Document(title="Handbook")},
    "waiver": {"item": ChecklistItem(title="No leak")},
}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.noun)
def test_a_row_moves_only_along_the_table(machine: StateMachine[Any, Any]) -> None:
    for before, to in product(machine.table, machine.table):
        row = machine.model(state=before, **RELATED.get(machine.noun, {}))
        if to in machine.table[before]:
            assert machine.set_state(row, to) == before
            assert row.state == to
        else:
            error = refused(machine, row, to)
            assert f" is {before.label.lower()}; it cannot become {to.label.lower()}." in str(error)
            assert row.state == before


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
