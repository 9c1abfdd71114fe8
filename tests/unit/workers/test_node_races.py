"""A node joins, signs in and is revoked at the same moment, each on a connection of its own."""

from __future__ import annotations

from functools import partial

import pytest

from governance.audit.models import AuditEvent
from governance.errors import DomainError, NotAuthenticated, WrongState
from tests.abuse.test_races import at_once, refusals
from tests.unit.registry.test_recall_races import one_after_another
from tests.unit.workers import company
from tests.unit.workers.nodes import Machine, joined
from workers.nodes.credentials import challenge_make
from workers.nodes.models import Node, NodeSession, NodeState
from workers.nodes.services import node_enroll, node_join, node_revoke
from workers.nodes.sessions import session_node, session_start

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_machine_that_joins_while_its_node_is_revoked_ends_revoked() -> None:
    """Whoever comes first; neither waits for the other forever."""
    ada = company.person("ada", "admin")
    for first in ("join", "revoke"):
        _, token, _ = node_enroll(actor=ada, name="gpu-1")
        join = partial(node_join, token=token, public_key=Machine().public_key)
        revoke = partial(node_revoke, actor=ada, name="gpu-1")
        calls = (join, revoke) if first == "join" else (revoke, join)
        results = one_after_another(*calls)
        refused = [each for each in results if isinstance(each, DomainError)]
        assert [type(each) for each in refused] == ([] if first == "join" else [NotAuthenticated])
        assert Node.objects.get().state == NodeState.REVOKED


def test_one_token_enrolls_one_of_two_machines_that_join_at_once() -> None:
    _, token, _ = node_enroll(actor=company.person("ada", "admin"), name="gpu-1")
    keys = [Machine().public_key for _ in range(2)]
    results = at_once(*(partial(node_join, token=token, public_key=key) for key in keys))
    assert refusals(results) == [401]
    (won,) = [index for index, each in enumerate(results) if isinstance(each, Node)]
    assert Node.objects.get().public_key == keys[won]


def test_two_machines_with_one_key_that_sign_in_at_once_leave_one_session_and_an_alarm() -> None:
    machine, _ = joined()
    tokens = at_once(machine.sign_in, machine.sign_in)
    answers = []
    for token in tokens:
        try:
            answers.append(session_node(token).name)
        except NotAuthenticated as error:
            answers.append(error.code)
    assert sorted(answers) == ["gpu-1", "node_session_replaced"]
    assert NodeSession.objects.filter(ended_at=None).count() == 1
    assert AuditEvent.objects.filter(action="node:conflict").count() == 1
    assert Node.objects.get().conflict_at is not None


def test_a_challenge_that_is_answered_twice_at_once_makes_one_session() -> None:
    machine, _ = joined()
    challenge = challenge_make(machine.name)
    answer = partial(
        session_start,
        name=machine.name,
        challenge=challenge,
        signature=machine.answer(challenge),
    )
    assert refusals(at_once(answer, answer)) == [401]
    assert NodeSession.objects.count() == 1


def test_a_node_that_is_enrolled_twice_at_once_has_one_token_that_works() -> None:
    ada = company.person("ada", "admin")
    made = at_once(*(partial(node_enroll, actor=ada, name="gpu-1") for _ in range(2)))
    joins = []
    for _, token, _ in made:
        try:
            joins.append(node_join(token=token, public_key=Machine().public_key).state)
        except (NotAuthenticated, WrongState) as error:
            joins.append(error.code)
    assert sorted(joins) == [NodeState.ENROLLED, "node_token_invalid"]
