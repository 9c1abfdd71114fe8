"""Nobody's name or address stands in clear in the audit log: people with names that occur nowhere
else live through all that can happen to people, and then the tables of the log are searched.
"""

from __future__ import annotations

from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.audit.personal import opened
from governance.audit.sealer import seal_once
from governance.keys.services import access_token_create
from governance.people.models import Person
from governance.people.provisioning import PersonRecord, person_provision
from governance.principals import service_principal
from governance.usage.collector import collect_once
from governance.usage.records import USAGE_STREAM, UsageEntry
from tests.abuse.company import (
    EVERYBODY,
    INQUIRIES,
    address_book,
    caller,
    in_turn,
    person_of,
    values,
)
from tests.abuse.surface import body_of, filled, operations, send
from tests.unit.assay.portal_data import Company
from tests.unit.assay.scim_support import TOKEN, USER, Scim
from tests.unit.assay.sign_in_support import Visitor, with_password
from tests.unit.assay.test_sign_in_sso import Provider, go, provider, server
from tests.unit.dump import found

__all__ = ["provider", "server"]

pytestmark = pytest.mark.sweep

LISA = {
    "name": "Lisabeth Zwetschgenmus",
    "email": "Lisabeth.Z@plum.example",
    "email_verified": True,
    "groups": ["staff"],
}
# As people, and programs of theirs, write them.
CANARIES = [
    "Zwetschgenmus",
    "plum.example",
    "Quittengelee",
    "quince.example",
    "quince-ext-99",
    "Schlehenfeuer",
    "sloe.example",
    "Stachelbeer",
    "gooseberry.example",
    "elderberry.example",
]


def in_the_log(canaries: list[str]) -> list[tuple[str, str, str]]:
    """Return the tables of the audit log that contain one of them."""
    return [hit for hit in found(canaries) if hit[1].startswith("governance_audit")]


@pytest.fixture
def named(company: Company) -> Company:
    """The company, whose people are called by names that occur nowhere else."""
    for person in Person.objects.all():
        person.name = f"{person.name} Stachelbeer"
        person.email = f"p{person.pk}@gooseberry.example"
        person.save()
    return company


def test_no_operation_writes_a_name_into_the_log(named: Company) -> None:
    """Every operation, by people in turn: what one changes the next one finds."""
    book, known = address_book(named), values(named)
    known |= {"email": "new.one@elderberry.example", "people_post:name": "New Stachelbeer"}
    callers = {name: caller(named, name) for name in EVERYBODY}
    for name in EVERYBODY:
        if "key" not in name:
            somebody = person_of(named, name)
            Person.objects.filter(pk=somebody.pk).update(
                name=f"{somebody.name} Stachelbeer", email=f"q{somebody.pk}@gooseberry.example"
            )
    before = AuditEvent.objects.count()
    changing = [o for o in operations() if not o.reads and o.path not in INQUIRIES]
    for number, operation in enumerate(changing):
        path, body = filled(operation, book), body_of(operation, known)
        for name in in_turn(number):
            send(callers[name], operation, path, body)
    assert AuditEvent.objects.count() > before + 200
    seal_once()
    assert in_the_log(CANARIES) == []
    whole = opened(AuditEvent.objects.order_by("id"))
    assert "Stachelbeer" in " ".join(event.actor_name for event in whole)


def test_signing_in_and_being_provisioned_write_no_name_into_the_log(
    named: Company, settings: Any, provider: Provider, redis: Any
) -> None:
    settings.SCIM_TOKEN = TOKEN
    ada = with_password(named.people["ada"])
    visitor = Visitor()
    visitor.password(ada)
    Visitor().post("/sign-in", email=ada.email, password="wrong")
    for _ in range(12):
        # Until the address is locked, which is a refusal of its own.
        Visitor().post("/sign-in", email="nobody@sloe.example", password="Schlehenfeuer")

    provider.knows("lisa-9", **LISA)
    assert go(Visitor(), provider, "lisa-9").status_code == 302
    assert Person.objects.filter(email="lisabeth.z@plum.example").exists()
    settings.OIDC_CREATE_PEOPLE = False
    provider.knows("lisa-10", **{**LISA, "email": "other@plum.example"})
    assert go(Visitor(), provider, "lisa-10").status_code == 401
    provider.knows("lisa-11", **LISA)
    assert go(Visitor(), provider, "lisa-11").status_code == 401

    scim = Scim()
    user = {
        "schemas": [USER],
        "userName": "quirin@quince.example",
        "name": {"givenName": "Quirin", "familyName": "Quittengelee"},
        "emails": [{"primary": True, "value": "quirin@quince.example"}],
        "displayName": "Quirin Quittengelee",
        "externalId": "quince-ext-99",
        "active": True,
    }
    made = scim.call("POST", "Users", user)
    assert made.status_code == 201, made.content
    assert scim.call("POST", "Users", user).status_code == 409
    bad = {**user, "userName": "", "emails": [{"value": "no address of quince.example"}]}
    assert scim.call("POST", "Users", bad).status_code == 400
    number = made.json()["id"]
    group = {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
        "displayName": "Juices",
        "members": [{"value": number}],
    }
    assert scim.call("POST", "Groups", group).status_code == 201
    assert scim.call("PUT", f"Users/{number}", {**user, "active": False}).status_code == 200
    assert (
        scim.call("PUT", f"Users/{number}", {**user, "displayName": "Q. Quittengelee"}).status_code
        == 200
    )
    assert scim.call("DELETE", f"Users/{number}").status_code == 204
    assert scim.call("DELETE", f"Users/{number}").status_code == 404
    assert AuditEvent.objects.filter(action="person:deprovision").exists()
    seal_once()
    assert in_the_log(CANARIES) == []


def test_a_personal_token_on_v1_writes_no_name_into_the_log(named: Company, redis: Any) -> None:
    record = PersonRecord("q@quince.example", "q@quince.example", "Quirin Quittengelee")
    quirin = person_provision(actor=service_principal("scim"), record=record)
    key, _ = access_token_create(person=quirin, name="Quittengelee's laptop")
    entry = UsageEntry(
        request_id="req_canary",
        occurred_at=1_790_000_000.0,
        outcome="invalid_api_key",
        endpoint="/v1/chat/completions",
        key_public_id=key.public_id,
        key_name=key.name,
        reason="A personal access token cannot be used on /v1.",
        client_address="192.0.2.44",
        ran=False,
    )
    redis.xadd(USAGE_STREAM, {"entry": entry.encode()})
    assert collect_once(redis, consumer="canary") == 1
    (event,) = opened(AuditEvent.objects.filter(request_id="req_canary"))
    assert event.actor_name == "Quirin Quittengelee"
    assert in_the_log([*CANARIES, "192.0.2.44"]) == []
