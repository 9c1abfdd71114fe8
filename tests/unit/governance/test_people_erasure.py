"""Erasing a person: what is personal goes for good, what they did stays and still verifies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.db import IntegrityError, connection, transaction
from django.test import Client

from assay.portal.words import described
from governance.audit.exports.log import export_lines
from governance.audit.exports.models import AuditExport, ExportState
from governance.audit.exports.services import audit_export_request
from governance.audit.models import AuditEvent, AuditPersonKey
from governance.audit.sealer import seal_once
from governance.audit.search.models import AuditFilter
from governance.audit.search.saved_filters import audit_filter_save
from governance.audit.selectors import verify_live
from governance.audit.signing import audit_public_keys
from governance.audit.tree.proofs import inclusion_proof
from governance.audit.verify import verify_export
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.keys.services import access_token_create, key_revoke
from governance.people.erasure import person_erase
from governance.people.models import DirectoryGroup, Person
from governance.people.provisioning import (
    PersonRecord,
    person_deprovision,
    person_provision,
    provisioned_people,
)
from governance.people.roles import role_grant
from governance.people.selectors import principal_for_person
from governance.people.services import person_deactivate, person_reactivate
from governance.policy.inquiries import event_explain
from governance.policy.lifecycle import draft_create
from governance.policy.models import PolicyVersion
from governance.policy.replay import policy_replay
from governance.principals import Principal, service_principal
from tests.unit.audit_support import bodies, recorded, recorded_all
from tests.unit.dump import found

CANARIES = ("Zebedee", "Quillfrost", "zeb.q@canary.example", "zq-ext-4711")
WHY = "Asked for it on 3 May."
PROVIDER = service_principal("scim")


@pytest.fixture(autouse=True)
def _a_second_place_of_its_own(settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def zebedee(admin: Principal) -> Person:
    """Somebody with everything that a person can have, who has done and suffered things."""
    record = PersonRecord(
        user_name="zeb.q@canary.example",
        email="zeb.q@canary.example",
        name="Zebedee Quillfrost",
        given_name="Zebedee",
        family_name="Quillfrost",
        external_id="zq-ext-4711",
    )
    person = person_provision(actor=PROVIDER, record=record)
    role_grant(actor=admin, person=person, role="auditor")
    EmailAddress.objects.create(user=person, email=person.email)
    Authenticator.objects.create(user=person, type="totp", data={"secret": "x"})
    SocialAccount.objects.create(user=person, provider="oidc", uid=person.email)
    DirectoryGroup.objects.create(name="Finance").members.add(person)
    Client().force_login(person)
    token, _ = access_token_create(person=person, name="Zebedee's laptop")
    key_revoke(actor=principal_for_person(person), key_id=token.pk, reason="Zebedee lost it")
    return person


def erased(admin: Principal, person: Person, reason: str = WHY) -> Person:
    if Person.objects.get(pk=person.pk).is_active:
        person_deactivate(actor=admin, person_id=person.pk, reason="Zebedee left.")
    return person_erase(actor=admin, person_id=person.pk, reason=reason)


def test_neither_name_nor_address_stands_anywhere_and_what_they_did_does(
    admin: Principal, zebedee: Person
) -> None:
    assert {table for _, table, _ in found(CANARIES)} >= {
        "account_emailaddress",
        "governance_apikey",
        "governance_person",
        "socialaccount_socialaccount",
    }
    assert "governance_auditevent" not in {table for _, table, _ in found(CANARIES)}
    gone = erased(admin, zebedee)
    assert found(CANARIES) == []
    assert gone.name == f"Erased person {gone.pk}"
    assert gone.email == f"erased-{gone.pk}@invalid"
    assert not gone.has_usable_password()
    assert list(gone.role_assignments.all()) == list(gone.directory_groups.all()) == []
    event = recorded(action="person:erase")
    # The event is of after the erasure: it calls them by number alone.
    assert described(event).what == f"erased person {gone.pk} from the records"
    assert event.subject_name == ""
    assert (event.actor_name, event.reason, event.policy_version) == ("Ada", WHY, 1)
    (body,) = bodies(action="person:erase")
    assert (body["data"]["factors"], body["data"]["links"], body["data"]["sessions"]) == (1, 1, 0)
    theirs = recorded_all(actor_kind="person", actor_id=str(gone.pk))
    assert {e.actor_name for e in theirs} == {f"erased person {gone.pk}"}
    # Other people's events read as before.
    assert "Ada" in {e.actor_name for e in recorded_all(action="role:grant")}


def test_who_looked_for_them_keeps_the_search_and_not_the_name(
    admin: Principal, zebedee: Person
) -> None:
    theirs = principal_for_person(zebedee)
    for actor, given in (
        (admin, {"who": "zeb.q@canary.example", "action": "role:"}),
        (admin, {"who": "quillfrost"}),
        (admin, {"query": "Zebedee Quillfrost"}),
        (admin, {"query": "writer"}),
        (theirs, {"who": "Zebedee"}),
    ):
        name = f"filter {AuditFilter.objects.count()}"
        audit_filter_save(actor=actor, name=name, parameters=given)
        audit_export_request(actor=actor, filters=given)
        AuditExport.objects.update(state=ExportState.CANCELED)
    erased(admin, zebedee)
    assert found(CANARIES) == []
    number = f"erased person {zebedee.pk}"
    expected = [
        {"who": number, "action": "role:"}, {"who": number}, {"query": number}, {"query": "writer"},
    ]  # fmt: skip
    kept = AuditFilter.objects.order_by("pk").values_list("parameters", flat=True)
    assert list(kept) == expected
    exports = AuditExport.objects.order_by("pk").values_list("filters", flat=True)
    assert list(exports) == [*expected, {}]


def test_every_hash_stands_and_exports_from_before_and_after_verify(
    admin: Principal, zebedee: Person
) -> None:
    seal_once()
    before = list(export_lines())
    leaves = dict(AuditEvent.objects.values_list("pk", "leaf_hash"))
    erased(admin, zebedee)
    seal_once()
    after = list(export_lines())
    assert {pk: bytes(h) for pk, h in leaves.items()} == {
        pk: bytes(h) for pk, h in AuditEvent.objects.values_list("pk", "leaf_hash") if pk in leaves
    }
    assert verify_live().ok
    for lines in (before, after):
        assert verify_export(lines, public_keys=audit_public_keys()).ok
    for event in AuditEvent.objects.filter(subject_type="person", subject_id=str(zebedee.pk)):
        # Raises when the proof does not hold.
        assert inclusion_proof(event)["sequence"] == event.sequence
    assert not [canary for canary in CANARIES if canary in "\n".join(after)]


def test_what_they_decided_is_explained_and_rehearsed_without_their_name(
    admin: Principal, zebedee: Person, person: Callable[..., Person]
) -> None:
    token, _ = access_token_create(person=zebedee, name="another")
    key_revoke(actor=principal_for_person(zebedee), key_id=token.pk, reason="lost")
    event = AuditEvent.objects.filter(action="key:revoke").latest("id")
    erased(admin, zebedee)
    explained = event_explain(actor=admin, event_id=event.pk)
    assert explained.now.decision.allowed
    assert not [c for c in CANARIES if c.casefold() in str(explained).casefold()]
    draft = draft_create(actor=admin, rules=PolicyVersion.objects.get(number=1).rules)
    rehearsed = policy_replay(actor=admin, number=draft.number)
    assert rehearsed.replayed > 0
    assert rehearsed.groups == []


@pytest.mark.parametrize(
    "reason",
    ["", " ", "x" * 301, "a\0b", "Zebedee asked.", "frau QUILLFROST", "for zeb.q@canary.example"],
)
def test_a_reason_is_given_and_does_not_name_them(
    admin: Principal, zebedee: Person, reason: str
) -> None:
    person_deactivate(actor=admin, person_id=zebedee.pk, reason="Left.")
    with pytest.raises(InvalidInput):
        erased(admin, zebedee, reason)
    zebedee.refresh_from_db()
    assert zebedee.name == "Zebedee Quillfrost"
    assert AuditPersonKey.objects.get(person=zebedee).key is not None


def test_only_admins_erase_and_only_others_whose_access_has_ended_and_once(
    admin: Principal, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    other = person("Someone Else")
    for who in (actor("Olga", "operator"), actor("Otto", "auditor"), PROVIDER):
        with pytest.raises(NotPermitted):
            person_erase(actor=who, person_id=other.pk, reason=WHY)
    with pytest.raises(WrongState, match="is active"):
        person_erase(actor=admin, person_id=other.pk, reason=WHY)
    assert admin.person_id is not None
    with pytest.raises(NotPermitted, match="themselves"):
        person_erase(actor=admin, person_id=admin.person_id, reason=WHY)
    with pytest.raises(NotFound):
        person_erase(actor=admin, person_id=999_999, reason=WHY)
    erased(admin, other)
    with pytest.raises(WrongState, match="erased again"):
        person_erase(actor=admin, person_id=other.pk, reason=WHY)
    with pytest.raises(WrongState, match="activated again"):
        person_reactivate(actor=admin, person_id=other.pk)
    with pytest.raises(IntegrityError), transaction.atomic():
        Person.objects.filter(pk=other.pk).update(is_active=True)


def test_the_identity_provider_sees_them_no_more_and_their_address_is_somebody_new(
    admin: Principal, zebedee: Person
) -> None:
    person_deprovision(actor=PROVIDER, person_id=zebedee.pk)
    erased(admin, zebedee)
    assert zebedee.pk not in provisioned_people(PROVIDER).values_list("pk", flat=True)
    record = PersonRecord(
        user_name="zeb.q@canary.example",
        email="zeb.q@canary.example",
        name="Zora Quinn",
        external_id="zq-ext-4711",
    )
    new = person_provision(actor=PROVIDER, record=record)
    assert new.pk != zebedee.pk
    assert new.is_active
    seen = {e.subject_name for e in recorded_all(subject_type="person", subject_id=str(zebedee.pk))}
    assert seen == {f"erased person {zebedee.pk}", ""}


@pytest.mark.sweep
@pytest.mark.django_db(transaction=True)
def test_of_erasing_and_reactivating_at_once_one_wins_and_nothing_is_half_done(
    admin: Principal, person: Callable[..., Person]
) -> None:
    for number in range(8):
        somebody = person(f"Somebody {number}")
        person_deactivate(actor=admin, person_id=somebody.pk, reason="Left.")
        refused = at_once(
            partial(person_erase, actor=admin, person_id=somebody.pk, reason=WHY),
            partial(person_reactivate, actor=admin, person_id=somebody.pk),
        )
        assert len(refused) == 1
        gone = refused == [1]
        now = Person.objects.get(pk=somebody.pk)
        key = AuditPersonKey.objects.get(person=now).key
        assert (now.erased_at is not None, now.is_active, key is None) == (gone, not gone, gone)
        assert now.name == (f"Erased person {now.pk}" if gone else f"Somebody {number}")


def at_once(*acts: Callable[[], Person]) -> list[int]:
    """Run them at the same time; which of them were refused for the state that they found."""
    start = threading.Barrier(len(acts))
    refused: list[int] = []

    def run(number: int) -> None:
        start.wait()
        try:
            acts[number]()
        except WrongState:
            refused.append(number)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused
