"""Two at once: what may happen once happens once, and the rule that one of them would break holds
afterward. Each runs in a thread and a transaction of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from governance.audit.exports.models import AuditExport
from governance.audit.exports.services import UNDER_WAY_MAX, audit_export_request
from governance.audit.models import AuditEvent
from governance.errors import DomainError
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create, key_revoke
from governance.people.models import Department, Person, RoleAssignment
from governance.people.services import department_create, person_deactivate, role_grant, role_revoke
from governance.policy.lifecycle import (
    draft_create,
    policy_approve,
    policy_propose,
    policy_reject,
    policy_withdraw,
)
from governance.policy.models import PolicyState, PolicyVersion
from governance.principals import Principal
from tests.abuse.company import attacked_company
from tests.abuse.surface import JSON
from tests.proofs import proven

pytestmark = pytest.mark.django_db(transaction=True)

Call = Callable[[], Any]


def at_once(*calls: Call) -> list[Any]:
    """Each in its own thread, from one start; results or refusals, in order."""
    start = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Call) -> None:
        try:
            start.wait()
            results[index] = call()
        except DomainError as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def refusals(results: list[Any]) -> list[int]:
    return [result.status for result in results if isinstance(result, DomainError)]


@pytest.fixture
def admins(actor: Callable[..., Principal]) -> list[Principal]:
    return [actor(name, "admin") for name in ("Ada", "Ben", "Cleo")]


def proposal(admin: Principal) -> PolicyVersion:
    rules = PolicyVersion.objects.get(state=PolicyState.ACTIVE).rules
    draft = draft_create(actor=admin, rules=rules, note=f"By {admin.name}.")
    return policy_propose(actor=admin, number=draft.number)


def test_two_admins_approve_one_policy(admins: list[Principal]) -> None:
    """One of them decides; the other is told that it is decided."""
    ada, ben, cleo = admins
    number = proposal(ada).number
    results = at_once(*(lambda a=a: policy_approve(actor=a, number=number) for a in (ben, cleo)))
    assert refusals(results) == [409]
    assert PolicyVersion.objects.filter(state=PolicyState.ACTIVE).count() == 1
    allowed = AuditEvent.objects.filter(
        subject_type="policy", subject_id=str(number), outcome="allowed"
    ).exclude(action="policy:draft")
    assert len({each.actor_id for each in allowed} & {ben.id, cleo.id}) == 1


def test_one_approves_and_one_rejects(admins: list[Principal]) -> None:
    ada, ben, cleo = admins
    number = proposal(ada).number
    results = at_once(
        lambda: policy_approve(actor=ben, number=number),
        lambda: policy_reject(actor=cleo, number=number, reason="No."),
    )
    assert refusals(results) == [409]
    state = PolicyVersion.objects.get(number=number).state
    assert state in {PolicyState.ACTIVE, PolicyState.REJECTED}
    assert PolicyVersion.objects.filter(state=PolicyState.ACTIVE).count() == 1


def test_one_approves_what_its_author_takes_back(admins: list[Principal]) -> None:
    ada, ben, _ = admins
    number = proposal(ada).number
    results = at_once(
        lambda: policy_approve(actor=ben, number=number),
        lambda: policy_withdraw(actor=ada, number=number, reason="Wait."),
    )
    assert refusals(results) == [409]


def test_two_policies_are_approved_over_the_same_one(admins: list[Principal]) -> None:
    """The second would undo the first unseen: it was drafted on what is no longer in force."""
    ada, ben, cleo = admins
    first, second = proposal(ada).number, proposal(ben).number
    results = at_once(
        lambda: policy_approve(actor=cleo, number=first),
        lambda: policy_approve(actor=cleo, number=second),
    )
    assert refusals(results) == [409]
    assert PolicyVersion.objects.filter(state=PolicyState.ACTIVE).count() == 1


def test_two_admins_take_each_others_role_away(actor: Callable[..., Principal]) -> None:
    """One admin remains, always."""
    ada, ben = actor("Ada", "admin"), actor("Ben", "admin")

    def demote(by: Principal, whom: Principal) -> Call:
        row = RoleAssignment.objects.get(person_id=whom.person_id)
        return lambda: role_revoke(actor=by, assignment_id=row.pk)

    results = at_once(demote(ada, ben), demote(ben, ada))
    assert len(refusals(results)) == 1
    assert RoleAssignment.objects.filter(role="admin").count() == 1


def test_two_admins_deactivate_each_other(actor: Callable[..., Principal]) -> None:
    ada, ben = actor("Ada", "admin"), actor("Ben", "admin")

    def end(by: Principal, whom: Principal) -> Call:
        assert whom.person_id is not None
        identity = whom.person_id
        return lambda: person_deactivate(actor=by, person_id=identity, reason="They go.")

    results = at_once(end(ada, ben), end(ben, ada))
    assert len(refusals(results)) == 1
    assert Person.objects.filter(is_active=True, role_assignments__role="admin").count() == 1


def test_one_is_demoted_while_the_other_is_deactivated(actor: Callable[..., Principal]) -> None:
    """Two different ways to lose the last admin, at once."""
    ada, ben = actor("Ada", "admin"), actor("Ben", "admin")
    row = RoleAssignment.objects.get(person_id=ada.person_id)
    assert ben.person_id is not None
    results = at_once(
        lambda: role_revoke(actor=ben, assignment_id=row.pk),
        lambda: person_deactivate(actor=ada, person_id=ben.person_id or 0, reason="They go."),
    )
    assert len(refusals(results)) == 1
    assert Person.objects.filter(is_active=True, role_assignments__role="admin").count() == 1


def test_two_admins_grant_one_role(
    admins: list[Principal], person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    dora, clinical = person("Dora"), department("clinical")
    results = at_once(
        *(
            lambda a=a: role_grant(actor=a, person=dora, role="developer", department=clinical)
            for a in admins
        )
    )
    assert refusals(results) == [409, 409]
    assert dora.role_assignments.count() == 1


def test_two_admins_found_one_department(admins: list[Principal]) -> None:
    results = at_once(
        *(lambda a=a: department_create(actor=a, slug="space", name="Space") for a in admins)
    )
    assert refusals(results) == [409, 409]
    assert Department.objects.filter(slug="space").count() == 1


def test_two_admins_revoke_one_key(
    admins: list[Principal], department: Callable[[str], Department]
) -> None:
    person = Person.objects.get(name="Ada")
    key, _ = access_token_create(person=person, name="one")
    # The owner too; everybody else may not know of a personal token.
    results = at_once(*(lambda a=a: key_revoke(actor=a, key_id=key.pk) for a in admins))
    assert sorted(refusals(results)) == [409, 409]
    assert AuditEvent.objects.filter(action="key:revoke", outcome="allowed").count() == 1


def test_a_token_is_used_while_it_is_revoked(admins: list[Principal]) -> None:
    """After the revocation is answered, nothing more is."""
    ada = Person.objects.get(name="Ada")
    key, token = access_token_create(person=ada, name="used")
    over = threading.Event()
    late: list[int] = []

    def use() -> None:
        client = Client(headers={"authorization": f"Bearer {token}"})
        while not over.is_set():
            client.get("/api/v1/me")
        late.extend(client.get("/api/v1/me").status_code for _ in range(5))

    def revoke() -> None:
        key_revoke(actor=proven(ada), key_id=key.pk)
        over.set()

    at_once(use, use, revoke)
    assert late == [401] * 10


def test_an_account_is_deactivated_while_it_makes_itself_keys(
    admins: list[Principal],
) -> None:
    """No token outlives the account, in whichever order the two come."""
    ben = Person.objects.get(name="Ben")
    ada = proven(Person.objects.get(name="Ada"))
    tokens: list[str] = []

    def mint() -> None:
        for number in range(10):
            tokens.extend(access_token_create(person=ben, name=f"t{number}")[1:])

    at_once(mint, mint, lambda: person_deactivate(actor=ada, person_id=ben.pk, reason="They go."))
    for token in tokens:
        client = Client(headers={"authorization": f"Bearer {token}"})
        assert client.get("/api/v1/me").status_code == 401
    alive = ApiKey.objects.filter(person=ben, revoked_at=None, expires_at__gt=timezone.now())
    assert not alive.exists()


def test_one_idempotency_key_from_ten_tabs(
    admins: list[Principal], department: Callable[[str], Department], redis: Any
) -> None:
    """One of them does it; the others are told the same, or to wait."""
    RoleAssignment.objects.all().delete()
    Department.objects.all().delete()
    with transaction.atomic():
        company = attacked_company()
    _, token = access_token_create(person=company.enzo, name="tabs")
    path = f"/api/v1/deployments/{company.deployment.pk}/stop"

    def press() -> int:
        client = Client(headers={"authorization": f"Bearer {token}", "idempotency-key": "once"})
        return int(client.post(path, {"reason": "Over."}, content_type=JSON).status_code)

    statuses = at_once(*[press] * 10)
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    stops = AuditEvent.objects.filter(action="deployment:stop", outcome="allowed")
    assert stops.count() == 1


def test_more_exports_are_asked_for_at_once_than_may_be_under_way(
    actor: Callable[..., Principal],
) -> None:
    auditor = actor("Asha", "auditor")
    asked = [lambda: audit_export_request(actor=auditor, filters={})] * (UNDER_WAY_MAX + 4)
    assert refusals(at_once(*asked)) == [409] * 4
    assert AuditExport.objects.count() == UNDER_WAY_MAX
