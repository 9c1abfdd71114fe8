"""A key's owner, networks, deployments and lifetime, its rotation, and reports of leaked keys."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_module
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.errors import (
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Unavailable,
    WrongState,
)
from governance.keys import leaks, services
from governance.keys.checks import lifetime_days
from governance.keys.leaks import key_report_leaked
from governance.keys.models import ApiKey
from governance.keys.networks import address_allowed, network_fault
from governance.keys.selectors import key_get, keys_used, keys_visible_to, principal_for_token
from governance.keys.services import access_token_create, key_create, key_revoke, key_rotate
from governance.keys.tokens import format_token, mint, parse_token
from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.principals import Principal, RequestContext, request_context

pytestmark = pytest.mark.sweep


@pytest.fixture
def lead(actor: Callable[..., Principal]) -> Principal:
    return actor("Lena", "lead@clinical")


@pytest.fixture
def make(lead: Principal, department: Callable[[str], Department]) -> Callable[..., Any]:
    def make_key(**changes: Any) -> tuple[ApiKey, str]:
        asked: dict[str, Any] = {
            "actor": lead,
            "department": department("clinical"),
            "name": "triage app",
            "scopes": ["deployment:invoke"],
            "expires_at": timezone.now() + timedelta(days=30),
        }
        return key_create(**(asked | changes))

    return make_key


def from_address(address: str) -> Any:
    return request_context.set(RequestContext(client_address=address))


def test_whoever_makes_a_key_answers_for_it_unless_another_member_is_named(
    make: Callable[..., Any], lead: Principal, person: Callable[..., Person]
) -> None:
    key, _ = make(purpose=" Triage of letters. ")
    assert (key.owner_id, key.purpose) == (lead.person_id, "Triage of letters.")
    vera = person("Vera", "viewer@clinical")
    assert make(owner=vera)[0].owner_id == vera.pk


def test_a_stranger_or_one_who_left_cannot_be_made_to_answer_for_a_key(
    make: Callable[..., Any], person: Callable[..., Person]
) -> None:
    left = person("Leo", "developer@clinical")
    left.is_active = False
    left.save()
    for owner in (person("Fay", "lead@finance"), left):
        with pytest.raises(InvalidInput) as caught:
            make(owner=owner)
        assert list(caught.value.fields) == ["owner"]


def test_who_answers_for_a_key_sees_and_revokes_it_while_they_are_a_member(
    make: Callable[..., Any], person: Callable[..., Person]
) -> None:
    vera = person("Vera", "viewer@clinical")
    own, _ = make(owner=vera)
    other, _ = make()
    seen = keys_visible_to(principal_for_person(vera))
    assert [key.pk for key in seen] == [own.pk]
    with pytest.raises(NotFound):
        key_revoke(actor=principal_for_person(vera), key_id=other.pk)
    RoleAssignment.objects.filter(person=vera).delete()
    with pytest.raises(NotFound):
        key_revoke(actor=principal_for_person(vera), key_id=own.pk)
    RoleAssignment.objects.create(person=vera, role="viewer", department=own.department)
    key_revoke(actor=principal_for_person(vera), key_id=own.pk, reason="Not needed\n any more.")
    own.refresh_from_db()
    assert own.revoked_reason == "Not needed any more."


def test_how_long_a_key_may_live_is_the_policys_to_say(
    make: Callable[..., Any], lead: Principal
) -> None:
    make(expires_at=timezone.now() + timedelta(days=366))
    with pytest.raises(NotPermitted, match="366 days at most"):
        make(expires_at=timezone.now() + timedelta(days=367))
    key, _ = make()
    with pytest.raises(NotPermitted, match="366 days at most"):
        key_rotate(
            actor=lead, key_id=key.pk, expires_at=timezone.now() + timedelta(days=366, hours=1)
        )


def test_days_are_counted_upwards() -> None:
    now = timezone.now()
    assert lifetime_days(now + timedelta(days=30, minutes=1)) == 31
    assert lifetime_days(now + timedelta(minutes=5)) == 1
    assert lifetime_days(now - timedelta(days=3)) == 0
    assert lifetime_days(now.replace(tzinfo=None)) == 0


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"networks": ["10.0.0.1/8"]}, "networks", "write 10.0.0.0/8"),
        ({"networks": ["ten"]}, "networks", "is not a network"),
        ({"networks": ["fe80::%\x1b[31m/64"]}, "networks", "is not a network"),
        ({"networks": ["fe80::%" + "x" * 40]}, "networks", "is not a network"),
        ({"networks": [f"10.0.0.0/{'0' * 60}8"]}, "networks", "is not a network"),
        ({"networks": ["::ffff:10.0.0.0/104"]}, "networks", "write 10.0.0.0/8"),
        ({"networks": [f"10.0.{n}.0/24" for n in range(33)]}, "networks", "32 networks"),
        ({"allowed_deployments": ["a b"]}, "allowed_deployments", "name of a deployment"),
        ({"allowed_deployments": ["x" * 81]}, "allowed_deployments", "name of a deployment"),
        ({"allowed_deployments": [f"d{n}" for n in range(101)]}, "allowed_deployments", "100"),
        ({"purpose": "a\x00b"}, "purpose", "printable"),
        ({"purpose": "x" * 301}, "purpose", "300"),
    ],
)
def test_what_a_key_is_bound_to_has_a_form_and_bounds(
    make: Callable[..., Any], changes: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(**changes)
    assert list(caught.value.fields) == [field]
    assert says in caught.value.fields[field][0]
    assert not ApiKey.objects.exists()


def test_networks_and_deployments_are_kept_in_order_and_once(make: Callable[..., Any]) -> None:
    key, _ = make(
        networks=["2001:db8::/32", "10.0.0.0/8", " 10.0.0.0/8"],
        allowed_deployments=["writer", "judge", "writer"],
    )
    assert key.networks == ["10.0.0.0/8", "2001:db8::/32"]
    assert key.allowed_deployments == ["judge", "writer"]


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("10.1.2.3", [], True),
        ("", [], True),
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("11.1.2.3", ["10.0.0.0/8", "11.1.2.3"], True),
        ("2001:db8::1", ["2001:db8::/32"], True),
        ("2001:db9::1", ["10.0.0.0/8", "2001:db8::/32"], False),
        ("", ["0.0.0.0/0"], False),
        ("10.1.2.3, 1.1.1.1", ["0.0.0.0/0"], False),
    ],
)
def test_an_address_lies_in_a_network_or_it_does_not(
    address: str, networks: list[str], allowed: bool
) -> None:
    assert address_allowed(address, networks) is allowed
    assert all(network_fault(network) == "" for network in networks)


def test_a_key_bound_to_a_network_is_refused_elsewhere_on_the_management_api(
    make: Callable[..., Any],
) -> None:
    _, token = make(networks=["10.0.0.0/8"])
    for address, good in (("10.9.9.9", True), ("192.0.2.1", False), ("", False)):
        reset = from_address(address)
        try:
            if good:
                principal_for_token(token)
            else:
                with pytest.raises(NotAuthenticated, match="is not accepted from") as caught:
                    principal_for_token(token)
                assert caught.value.code == "address_not_allowed"
        finally:
            request_context.reset(reset)


def test_a_rotated_key_has_a_successor_that_is_alike_and_both_work_in_the_overlap(
    make: Callable[..., Any], lead: Principal
) -> None:
    old, old_token = make(
        networks=["0.0.0.0/0", "::/0"], allowed_deployments=["writer"], purpose="Triage."
    )
    new, token = key_rotate(actor=lead, key_id=old.pk, overlap=timedelta(hours=2))
    old.refresh_from_db()
    assert parse_token(token).public_id == new.public_id != old.public_id
    assert (new.rotated_from_id, new.root_id, old.root_id) == (old.pk, old.pk, None)
    for name in ("name", "scopes", "networks", "allowed_deployments", "purpose", "department_id"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.owner_id == old.owner_id
    left = old.expires_at - timezone.now()
    assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)
    assert abs(new.expires_at - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    reset = from_address("10.0.0.1")
    try:
        for each in (old_token, token):
            principal_for_token(each)
        made = timezone.now() - timedelta(days=9)
        ApiKey.objects.filter(pk=old.pk).update(created_at=made, expires_at=timezone.now())
        principal_for_token(token)
        with pytest.raises(NotAuthenticated, match="expired"):
            principal_for_token(old_token)
    finally:
        request_context.reset(reset)
    event = AuditEvent.objects.get(action="key:rotate")
    # The decision stands with what was asked for, so that it can be explained there.
    assert opened_body(event)["data"]["decision"]["action"] == "key:rotate"
    assert event.subject_id == old.public_id
    assert new.public_id.encode() in bytes(event.canonical)


def test_without_overlap_the_old_key_is_dead_at_once(
    make: Callable[..., Any], lead: Principal
) -> None:
    old, old_token = make()
    _, token = key_rotate(actor=lead, key_id=old.pk, overlap=timedelta(0))
    principal_for_token(token)
    with pytest.raises(NotAuthenticated, match="Rotated without overlap"):
        principal_for_token(old_token)


def test_a_rotation_never_lengthens_the_old_keys_life(
    make: Callable[..., Any], lead: Principal
) -> None:
    old, _ = make(expires_at=timezone.now() + timedelta(hours=1))
    ends = old.expires_at
    key_rotate(actor=lead, key_id=old.pk, overlap=timedelta(days=30))
    old.refresh_from_db()
    assert old.expires_at == ends


def test_every_key_of_a_row_of_rotations_has_the_first_as_its_root(
    make: Callable[..., Any], lead: Principal
) -> None:
    first, _ = make()
    second, _ = key_rotate(actor=lead, key_id=first.pk)
    third, _ = key_rotate(actor=lead, key_id=second.pk)
    assert (second.root_id, third.root_id, third.rotated_from_id) == (
        first.pk,
        first.pk,
        second.pk,
    )
    shown = key_get(actor=lead, key_id=second.pk)
    assert (shown.rotated_from, shown.successor) == (first, third)


def test_a_key_is_rotated_once_and_only_while_it_lives(
    make: Callable[..., Any], lead: Principal, person: Callable[..., Person]
) -> None:
    twice, _ = make()
    key_rotate(actor=lead, key_id=twice.pk)
    with pytest.raises(WrongState, match="has been rotated already") as caught:
        key_rotate(actor=lead, key_id=twice.pk)
    assert "successor" in caught.value.hint
    revoked, _ = make()
    key_revoke(actor=lead, key_id=revoked.pk)
    with pytest.raises(WrongState, match="is revoked; it cannot be rotated"):
        key_rotate(actor=lead, key_id=revoked.pk)
    expired, _ = make()
    made = timezone.now() - timedelta(days=9)
    ApiKey.objects.filter(pk=expired.pk).update(created_at=made, expires_at=timezone.now())
    with pytest.raises(WrongState, match="is expired; it cannot be rotated"):
        key_rotate(actor=lead, key_id=expired.pk)
    alive, _ = make()
    for overlap in (timedelta(seconds=-1), timedelta(days=31)):
        with pytest.raises(InvalidInput):
            key_rotate(actor=lead, key_id=alive.pk, overlap=overlap)


def test_nobody_not_even_an_admin_gets_a_persons_token_by_rotating_it(
    actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    admin = actor("Ada", "admin")
    token, _ = access_token_create(person=person("Dora", "developer@clinical"), name="laptop")
    with pytest.raises(WrongState, match="personal access token"):
        key_rotate(actor=admin, key_id=token.pk)
    assert ApiKey.objects.count() == 1


def test_a_person_has_at_most_so_many_live_tokens(
    person: Callable[..., Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "TOKENS_MAX", 2)
    dora, ben = person("Dora"), person("Ben")
    first, _ = access_token_create(person=dora, name="one")
    access_token_create(person=dora, name="two")
    with pytest.raises(WrongState, match="Dora has 2 access tokens") as refused:
        access_token_create(person=dora, name="three")
    assert (refused.value.code, refused.value.status) == ("too_many_tokens", 409)
    access_token_create(person=ben, name="of another person")
    # Revoked and expired tokens do not count.
    ApiKey.objects.filter(pk=first.pk).update(revoked_at=timezone.now())
    access_token_create(person=dora, name="three")
    ApiKey.objects.filter(person=dora, name="two").update(
        created_at=timezone.now() - timedelta(days=2), expires_at=timezone.now()
    )
    access_token_create(person=dora, name="four")


def test_another_departments_key_cannot_be_rotated(
    make: Callable[..., Any], actor: Callable[..., Principal]
) -> None:
    key, _ = make()
    with pytest.raises(NotFound):
        key_rotate(actor=actor("Finn", "lead@finance"), key_id=key.pk)
    with pytest.raises(NotFound):
        key_rotate(actor=actor("Dev", "developer@clinical"), key_id=key.pk)
    with pytest.raises(NotPermitted):
        key_rotate(actor=actor("Asha", "auditor"), key_id=key.pk)


def test_the_database_gives_a_key_one_successor_at_most_and_a_root_to_each(
    make: Callable[..., Any], lead: Principal
) -> None:
    first, _ = make()
    second, _ = key_rotate(actor=lead, key_id=first.pk)
    third, _ = make()
    for columns in ({"rotated_from": first, "root": first}, {"rotated_from": second}):
        with pytest.raises(IntegrityError), transaction.atomic():
            ApiKey.objects.filter(pk=third.pk).update(**columns)


def test_last_uses_are_noted_in_two_statements_and_never_go_back(
    make: Callable[..., Any], django_assert_num_queries: Any
) -> None:
    keys = [make()[0] for _ in range(3)]
    now = timezone.now()
    with django_assert_num_queries(2):
        keys_used({**{key.public_id: now for key in keys}, "gone": now})
    with django_assert_num_queries(1):
        keys_used({key.public_id: now - timedelta(seconds=5) for key in keys})
    assert set(ApiKey.objects.values_list("last_used_at", flat=True)) == {now}


def test_a_key_that_somebody_found_is_dead_at_once_and_the_log_says_why(
    make: Callable[..., Any], redis: redis_module.Redis
) -> None:
    key, token = make()
    key_report_leaked(token=f"  {token}\n")
    with pytest.raises(NotAuthenticated, match="Reported as leaked"):
        principal_for_token(token)
    event = AuditEvent.objects.get(action="key:revoke")
    assert (event.actor_kind, event.reason) == ("anonymous", "Reported as leaked")
    assert event.subject_id == key.public_id
    assert parse_token(token).secret.encode() not in bytes(event.canonical)
    key_report_leaked(token=token)
    assert AuditEvent.objects.filter(action="key:revoke").count() == 1


def test_a_personal_token_that_somebody_found_is_dead_too(
    policy: object, person: Callable[..., Person], redis: redis_module.Redis
) -> None:
    _, token = access_token_create(person=person("Dora"), name="laptop")
    key_report_leaked(token=token)
    with pytest.raises(NotAuthenticated):
        principal_for_token(token)


def test_a_public_id_alone_revokes_nothing(
    make: Callable[..., Any], redis: redis_module.Redis
) -> None:
    key, token = make()
    key_report_leaked(token=format_token(key.public_id, mint()[1]))
    principal_for_token(token)


def test_a_wrong_checksum_costs_neither_database_nor_count(
    make: Callable[..., Any], redis: redis_module.Redis, django_assert_num_queries: Any
) -> None:
    _, token = make()
    spoilt = token[:-1] + ("a" if token[-1] != "a" else "b")
    with django_assert_num_queries(0):
        for text in (spoilt, "", "assay_", "\x00", "é" * 200):
            key_report_leaked(token=text)
    assert redis.keys("assay:leak-reports:*") == []
    principal_for_token(token)


def test_reports_are_counted_by_address_and_all_together(
    policy: object, redis: redis_module.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "PER_ADDRESS", 2)
    monkeypatch.setattr(leaks, "FOR_ALL", 5)
    told = []
    for last in (1, 1, 1, 2, 2, 3, 4):
        address = f"10.0.0.{last}"
        reset = from_address(address)
        try:
            key_report_leaked(token=format_token(*mint()))
            told.append(address)
        except QuotaExceeded:
            continue
        finally:
            request_context.reset(reset)
    assert told == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"]


def test_one_address_does_not_use_up_the_reports_of_all_others(
    make: Callable[..., Any], redis: redis_module.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder of a leaked key could otherwise keep everyone from reporting it."""
    monkeypatch.setattr(leaks, "PER_ADDRESS", 2)
    monkeypatch.setattr(leaks, "FOR_ALL", 5)
    _, token = make()
    reset = from_address("10.0.0.1")
    for _ in range(20):
        with contextlib.suppress(QuotaExceeded):
            key_report_leaked(token=format_token(*mint()))
    request_context.reset(reset)
    reset = from_address("10.0.0.2")
    key_report_leaked(token=token)
    request_context.reset(reset)
    with pytest.raises(NotAuthenticated):
        principal_for_token(token)


def test_addresses_of_one_ipv6_network_count_as_one(
    policy: object, redis: redis_module.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "PER_ADDRESS", 2)
    told = []
    for address in ("2001:db8::1", "2001:db8::2:3", "2001:db8::4", "2001:db8:0:1::1"):
        reset = from_address(address)
        try:
            key_report_leaked(token=format_token(*mint()))
            told.append(address)
        except QuotaExceeded:
            continue
        finally:
            request_context.reset(reset)
    assert told == ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"]


def test_reports_that_cannot_be_counted_are_not_looked_at(
    make: Callable[..., Any], settings: Any
) -> None:
    _, token = make()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(Unavailable):
        key_report_leaked(token=token)
