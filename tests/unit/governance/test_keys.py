from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_module
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotAuthenticated, NotFound, NotPermitted, WrongState
from governance.keys.models import ApiKey
from governance.keys.selectors import key_get, keys_visible_to, principal_for_token
from governance.keys.services import access_token_create, key_create, key_revoke
from governance.keys.tokens import format_token, mint, parse_token, secret_hmac
from governance.people.models import Department, Person
from governance.principals import ActorRole, Principal, PrincipalKind
from tests.waiting import PATIENCE_S


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


def test_a_token_parses_into_what_it_was_made_of() -> None:
    public_id, secret = mint()
    parsed = parse_token(format_token(public_id, secret))
    assert (parsed.public_id, parsed.secret) == (public_id, secret)
    assert secret not in repr(parsed)
    assert mint() != mint()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1],
        lambda token: token + "a",
        lambda token: token.replace("assay", "essay"),
        lambda token: token[:20] + ("b" if token[20] == "a" else "a") + token[21:],
        lambda token: token[:-1] + ("b" if token[-1] == "a" else "a"),
        lambda token: token + "\n",
        lambda token: "assay_" * 20,
        lambda token: "",
        lambda token: token[:20] + "\x00é" + token[22:],
    ],
)
def test_a_spoilt_token_is_told_from_a_dead_one_and_never_echoed(
    spoil: Callable[[str], str],
) -> None:
    token = spoil(format_token(*mint()))
    with pytest.raises(ValueError, match=r"form|checksum") as caught:
        parse_token(token)
    assert not token or token not in str(caught.value)


def test_the_hmac_depends_on_secret_and_pepper() -> None:
    assert len(secret_hmac("s", b"p")) == 32
    assert secret_hmac("s", b"p") != secret_hmac("s", b"q")
    assert secret_hmac("s", b"p") != secret_hmac("t", b"p")


def test_a_departments_key_speaks_for_its_department(make: Callable[..., Any]) -> None:
    key, token = make(scopes=["usage:view", "deployment:invoke", "usage:view"])
    principal = principal_for_token(token)
    assert (principal.kind, principal.department) == (PrincipalKind.KEY, "clinical")
    assert principal.scopes == {"deployment:invoke", "usage:view"}
    assert (principal.key_id, principal.person_id, principal.roles) == (key.pk, None, frozenset())
    key.refresh_from_db()
    assert key.last_used_at is not None


def test_the_secret_is_stored_nowhere(make: Callable[..., Any]) -> None:
    key, token = make()
    secret = parse_token(token).secret
    row = ApiKey.objects.filter(pk=key.pk).values().get()
    events = AuditEvent.objects.filter(action="key:create")
    assert events.count() == 1
    assert secret not in str(row)
    assert secret.encode() not in b"".join(bytes(e.canonical) for e in events)


def test_an_unknown_id_and_a_wrong_secret_get_the_same_answer(make: Callable[..., Any]) -> None:
    key, _ = make()
    answers = set()
    for public_id in (key.public_id, mint()[0]):
        with pytest.raises(NotAuthenticated) as caught:
            principal_for_token(format_token(public_id, mint()[1]))
        answers.add(caught.value.message)
    assert answers == {"The key is not known."}


def test_a_revoked_key_is_dead_at_once(make: Callable[..., Any], lead: Principal) -> None:
    key, token = make()
    key_revoke(actor=lead, key_id=key.pk)
    with pytest.raises(NotAuthenticated, match=r"triage app .* was revoked on"):
        principal_for_token(token)
    with pytest.raises(WrongState, match="cannot be revoked again"):
        key_revoke(actor=lead, key_id=key.pk)
    assert AuditEvent.objects.filter(action="key:revoke", subject_id=key.public_id).count() == 1


def test_an_expired_key_is_dead(make: Callable[..., Any]) -> None:
    key, token = make()
    made = timezone.now() - timedelta(days=9)
    ApiKey.objects.filter(pk=key.pk).update(
        created_at=made, expires_at=timezone.now() - timedelta(seconds=1)
    )
    with pytest.raises(NotAuthenticated, match="expired on"):
        principal_for_token(token)


def test_a_key_survives_a_new_pepper_and_not_the_loss_of_its_own(
    make: Callable[..., Any], settings: Any
) -> None:
    _, old = make()
    settings.KEY_PEPPERS = {**settings.KEY_PEPPERS, 2: b"another pepper"}
    new_key, new = make()
    assert new_key.pepper_version == 2
    principal_for_token(old)
    principal_for_token(new)
    settings.KEY_PEPPERS = {2: b"another pepper"}
    principal_for_token(new)
    with pytest.raises(NotAuthenticated):
        principal_for_token(old)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["deployment:fly"]}, "scopes"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, "expires_at"),
        ({"expires_at": timezone.now().replace(tzinfo=None)}, "expires_at"),
    ],
)
def test_a_key_that_is_asked_for_wrongly_is_not_made(
    make: Callable[..., Any], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(**changes)
    assert list(caught.value.fields) == [field]
    assert not ApiKey.objects.exists()


def test_only_its_lead_or_an_admin_makes_a_departments_key(
    make: Callable[..., Any], actor: Callable[..., Principal]
) -> None:
    make(actor=actor("Ada", "admin"))
    with pytest.raises(NotPermitted):
        make(actor=actor("Dora", "developer@clinical"))
    with pytest.raises(NotFound):
        make(actor=actor("Finn", "lead@finance"))


def test_another_departments_key_does_not_exist(
    make: Callable[..., Any], actor: Callable[..., Principal]
) -> None:
    key, _ = make()
    stranger = actor("Finn", "lead@finance")
    assert not keys_visible_to(stranger).exists()
    with pytest.raises(NotFound):
        key_get(actor=stranger, key_id=key.pk)
    for missing in (key.pk, key.pk + 1000, 10**30):
        with pytest.raises(NotFound):
            key_revoke(actor=stranger, key_id=missing)


def test_an_access_token_is_its_person_and_its_scopes_narrow(
    policy: object, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical")
    _, token = access_token_create(person=dora, name="laptop")
    principal = principal_for_token(token)
    assert (principal.kind, principal.person_id) == (PrincipalKind.PERSON, dora.pk)
    assert principal.scopes is None
    assert principal.roles == {ActorRole("developer", "clinical")}
    _, narrow = access_token_create(person=dora, name="ci", scopes=["job:create"])
    assert principal_for_token(narrow).scopes == {"job:create"}


def test_an_access_token_dies_with_its_account(
    policy: object, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical")
    _, token = access_token_create(person=dora, name="laptop")
    dora.is_active = False
    dora.save()
    with pytest.raises(NotAuthenticated, match="inactive"):
        principal_for_token(token)
    with pytest.raises(WrongState, match="inactive"):
        access_token_create(person=dora, name="again")


def test_one_revokes_ones_own_token_and_nobody_elses(
    policy: object, person: Callable[..., Person], actor: Callable[..., Principal]
) -> None:
    key, token = access_token_create(person=person("Dora"), name="laptop")
    with pytest.raises(NotFound):
        key_revoke(actor=actor("Eve", "lead@clinical"), key_id=key.pk)
    key_revoke(actor=principal_for_token(token), key_id=key.pk)
    assert ApiKey.objects.get(pk=key.pk).revoked_at is not None


def test_the_database_wants_exactly_one_owner(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    dora, clinical = person("Dora"), department("clinical")
    for owners in ({}, {"person": dora, "department": clinical}):
        with pytest.raises(IntegrityError), transaction.atomic():
            ApiKey.objects.create(
                public_id="x",
                secret_hmac=b"",
                pepper_version=1,
                name="x",
                expires_at=timezone.now() + timedelta(days=1),
                **owners,
            )


@pytest.mark.django_db(transaction=True)
def test_gateways_hear_of_a_change_only_once_it_is_committed(
    make: Callable[..., Any], lead: Principal, redis: redis_module.Redis
) -> None:
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("assay:snapshot")
    listener.get_message(timeout=PATIENCE_S)

    def heard() -> bool:
        return listener.get_message(timeout=PATIENCE_S, ignore_subscribe_messages=True) is not None

    key, _ = make()
    assert heard()
    key_revoke(actor=lead, key_id=key.pk)
    assert heard()
    with pytest.raises(InvalidInput):
        make(name="")
    redis.publish("assay:snapshot", "the next message is ours")
    message = listener.get_message(timeout=PATIENCE_S)
    assert message is not None
    assert message["data"] == b"the next message is ours"
    listener.close()
