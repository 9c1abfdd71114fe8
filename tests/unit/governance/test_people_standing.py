"""Deactivated people lose access at once and for good; their record stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotAuthenticated, NotFound, NotPermitted, WrongState
from governance.keys.models import ApiKey
from governance.keys.selectors import principal_for_token
from governance.keys.services import access_token_create
from governance.people.models import Person, RoleAssignment
from governance.people.roles import role_revoke
from governance.people.selectors import principal_for_person
from governance.people.services import person_deactivate, person_reactivate
from governance.principals import Principal, service_principal
from tests.unit.audit_support import recorded

pytestmark = pytest.mark.sweep


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def signed_in(client: Client) -> bool:
    """True while the client's session still represents a person."""

    class Request:
        session = client.session

    return get_user(Request()).is_authenticated  # type: ignore[arg-type]


def test_deactivation_ends_sessions_and_tokens_and_roles_have_no_effect(
    admin: Principal, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical")
    client = Client()
    client.force_login(dora)
    _, token = access_token_create(person=dora, name="laptop")
    assert signed_in(client)

    person_deactivate(actor=admin, person_id=dora.pk, reason="Left the company.")

    assert not signed_in(client)
    assert client.get("/models").status_code == 302
    with pytest.raises(NotAuthenticated):
        principal_for_token(token)
    dora.refresh_from_db()
    assert principal_for_person(dora).roles == frozenset()
    assert dora.role_assignments.count() == 1
    assert (dora.is_active, dora.deactivation_reason) == (False, "Left the company.")
    assert dora.deactivated_at is not None
    event = recorded(action="person:deactivate")
    assert (event.reason, event.subject_id) == ("Left the company.", str(dora.pk))
    assert AuditEvent.objects.filter(action="key:revoke").count() == 1


def test_who_comes_back_has_their_roles_but_neither_old_sessions_nor_old_tokens(
    admin: Principal, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical")
    client = Client()
    client.force_login(dora)
    _, token = access_token_create(person=dora, name="laptop")
    person_deactivate(actor=admin, person_id=dora.pk, reason="Parental leave.")

    back = person_reactivate(actor=admin, person_id=dora.pk, reason="Is back.")

    assert not signed_in(client)
    with pytest.raises(NotAuthenticated, match="revoked"):
        principal_for_token(token)
    assert principal_for_person(back).departments == {"clinical"}
    assert (back.deactivated_at, back.deactivation_reason) == (None, "")
    assert recorded(action="person:reactivate").reason == "Is back."
    client.force_login(back)
    assert signed_in(client)


def test_an_expired_token_is_left_as_it_is(admin: Principal, person: Callable[..., Person]) -> None:
    dora = person("Dora")
    key, _ = access_token_create(person=dora, name="old")
    past = timezone.now() - timedelta(days=2)
    ApiKey.objects.filter(pk=key.pk).update(created_at=past, expires_at=past + timedelta(days=1))
    person_deactivate(actor=admin, person_id=dora.pk, reason="Left.")
    assert ApiKey.objects.get(pk=key.pk).revoked_at is None


def test_only_who_may_deactivates_and_nobody_themselves(
    actor: Callable[..., Principal], person: Callable[..., Person], admin: Principal
) -> None:
    carl = person("Carl", "viewer@clinical")
    with pytest.raises(NotPermitted):
        person_deactivate(
            actor=actor("Lena", "lead@clinical"), person_id=carl.pk, reason="A quarrel."
        )
    with pytest.raises(NotFound):
        person_deactivate(
            actor=actor("Fay", "lead@finance"), person_id=carl.pk, reason="A quarrel."
        )
    with pytest.raises(NotPermitted):
        person_deactivate(actor=actor("Asha", "auditor"), person_id=carl.pk, reason="Why not.")
    assert admin.person_id is not None
    with pytest.raises(NotPermitted, match="their own account"):
        person_deactivate(actor=admin, person_id=admin.person_id, reason="Enough.")
    with pytest.raises(NotFound):
        person_deactivate(actor=admin, person_id=10**9, reason="Nobody.")
    carl.refresh_from_db()
    assert carl.is_active


@pytest.mark.parametrize("reason", ["", "   ", "x" * 301, "a\x00b"])
def test_a_deactivation_needs_a_sound_reason(
    admin: Principal, person: Callable[..., Person], reason: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        person_deactivate(actor=admin, person_id=person("Carl").pk, reason=reason)
    assert list(caught.value.fields) == ["reason"]


def test_a_standing_cannot_be_given_twice(admin: Principal, person: Callable[..., Person]) -> None:
    carl = person("Carl")
    with pytest.raises(WrongState, match="is active"):
        person_reactivate(actor=admin, person_id=carl.pk)
    person_deactivate(actor=admin, person_id=carl.pk, reason="Left.")
    with pytest.raises(WrongState, match="is inactive"):
        person_deactivate(actor=admin, person_id=carl.pk, reason="Left.")


def test_the_last_administrator_stays(admin: Principal) -> None:
    assert admin.person_id is not None
    with pytest.raises(WrongState, match="last administrator"):
        person_deactivate(
            actor=service_principal("scim"), person_id=admin.person_id, reason="Removed."
        )


def test_the_database_holds_that_who_is_deactivated_is_not_active(
    person: Callable[..., Person],
) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Person.objects.filter(pk=person("Carl").pk).update(deactivated_at=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_of_two_last_administrators_who_lose_access_at_once_one_stays(
    actor: Callable[..., Principal],
) -> None:
    first, second = actor("Ada", "admin"), actor("Bea", "admin")
    held = RoleAssignment.objects.get(person_id=first.person_id)
    barrier = threading.Barrier(2)
    refused: list[Exception] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            work()
        except WrongState as error:
            refused.append(error)
        finally:
            connection.close()

    assert second.person_id is not None
    gone = second.person_id
    works: list[Callable[[], Any]] = [
        lambda: role_revoke(actor=second, assignment_id=held.pk),
        lambda: person_deactivate(
            actor=service_principal("scim"), person_id=gone, reason="Removed."
        ),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(refused) == 1
    assert RoleAssignment.objects.filter(role="admin", person__is_active=True).count() == 1
