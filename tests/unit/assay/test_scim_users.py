"""People as an identity provider keeps them over SCIM, in the shapes that Okta and Entra send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from governance.errors import NotAuthenticated, WrongState
from governance.keys.selectors import principal_for_token
from governance.keys.services import access_token_create
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.people.services import person_deactivate, person_reactivate
from tests.proofs import proven
from tests.unit.assay.scim_support import ENTERPRISE, TOKEN, USER, Scim, error_of
from tests.unit.assay.sign_in_support import give_totp
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]


@pytest.fixture(autouse=True)
def _provisioned(settings: Any) -> None:
    settings.SCIM_TOKEN = TOKEN


@pytest.fixture
def scim() -> Scim:
    return Scim()


OKTA = {
    "schemas": [USER],
    "userName": "Dora.Dev@example.org",
    "name": {"givenName": "Dora", "familyName": "Dev"},
    "emails": [{"primary": True, "value": "dora.dev@example.org", "type": "work"}],
    "displayName": "Dora Dev",
    "locale": "en-US",
    "externalId": "00ujl29u0le5T6Aj10h7",
    "groups": [],
    "password": "1mz050nq",
    "active": True,
}
ENTRA = {
    "schemas": [USER, ENTERPRISE],
    "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
    "userName": "Test_User_ab6490ee@example.org",
    "active": True,
    "addresses": [{"primary": True, "type": "work", "country": "DE"}],
    "displayName": "lennay",
    "emails": [{"primary": "True", "type": "work", "value": "lennay@example.org"}],
    "meta": {"resourceType": "User"},
    "name": {"formatted": "Lennay X", "familyName": "X", "givenName": "Lennay"},
    "roles": [],
    "title": "Engineer",
    ENTERPRISE: {"department": "Clinical", "employeeNumber": "7"},
}


def test_okta_makes_a_person_who_has_no_password_and_no_role(scim: Scim) -> None:
    answer = scim.call("POST", "Users", OKTA)
    assert answer.status_code == 201, answer.body
    body = answer.body
    assert answer.headers["Location"] == body["meta"]["location"]
    assert body["userName"] == "Dora.Dev@example.org"
    assert body["name"] == {"givenName": "Dora", "familyName": "Dev"}
    assert "password" not in body
    made = Person.objects.get(pk=body["id"])
    assert (made.email, made.name, made.external_id) == (
        "dora.dev@example.org",
        "Dora Dev",
        "00ujl29u0le5T6Aj10h7",
    )
    assert not made.has_usable_password()
    assert principal_for_person(made).roles == frozenset()
    event = AuditEvent.objects.get(action="person:create")
    assert (event.actor_kind, event.actor_id) == ("service", "scim")


def test_entra_makes_a_person_with_attributes_that_nobody_keeps(scim: Scim) -> None:
    answer = scim.call("POST", "Users", ENTRA)
    assert answer.status_code == 201, answer.body
    assert answer.body["emails"] == [
        {"value": "lennay@example.org", "type": "work", "primary": True}
    ]
    assert "title" not in answer.body
    assert Person.objects.get().user_name == "Test_User_ab6490ee@example.org"


def test_a_person_is_found_by_user_name_whatever_its_case_and_by_external_id(
    scim: Scim, person: Callable[..., Person]
) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    by_hand = person("Ada", "admin")
    for text, wanted in (
        ('userName eq "dora.DEV@example.org"', [made]),
        ('userName eq "ADA@example.org"', [str(by_hand.pk)]),
        ('externalId eq "00ujl29u0le5T6Aj10h7"', [made]),
        ('externalId eq "00UJL29U0LE5T6AJ10H7"', []),
        ('userName eq "nobody@example.org"', []),
        ('active eq true and userName sw "dora"', [made]),
        ('userName eq "x" or externalId eq "00ujl29u0le5T6Aj10h7"', [made]),
        ('emails[type eq "work" and value eq "dora.dev@example.org"]', [made]),
        ('emails.value co "dora"', [made]),
        ("not (active eq true)", []),
        ("externalId pr", [made]),
        (f'id eq "{made}"', [made]),
        ('id eq "x"', []),
        ('userName eq "a\\u0000"', []),
        ('meta.lastModified gt "2020-01-01T00:00:00Z" and name.familyName eq "dev"', [made]),
        (
            f'urn:ietf:params:scim:schemas:core:2.0:User:userName eq "{OKTA["userName"]}"',
            [made],
        ),
    ):
        answer = scim.get("Users", filter=text)
        assert answer.status_code == 200, (text, answer.body)
        assert [user["id"] for user in answer.body["Resources"]] == wanted, text
        assert answer.body["totalResults"] == len(wanted), text


def test_and_binds_more_tightly_than_or(scim: Scim) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    answer = scim.get("Users", filter='active eq true or active eq true and userName eq "x"')
    assert [user["id"] for user in answer.body["Resources"]] == [made]


def test_deep_nesting_harms_nothing(scim: Scim) -> None:
    answer = scim.get("Users", filter="(" * 490 + 'userName eq "a"' + ")" * 490)
    assert (answer.status_code, answer.body["totalResults"]) == (200, 0)
    answer = scim.get("Users", filter="not (" * 150 + "active eq true" + ")" * 150)
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    "text",
    [
        "userName eq",
        'shoeSize eq "44"',
        "userName gt 1",
        'password eq "x"',
        'groups.value eq "1"',
        "userName eq null",
        'meta.created gt "yesterday"',
        'userName eq "' + "a" * 1000 + '"',
        "",
    ],
)
def test_a_filter_that_cannot_be_answered_is_refused(scim: Scim, text: str) -> None:
    error_of(scim.get("Users", filter=text), 400, "invalidFilter")


def test_lists_come_in_pages_of_bounded_size_with_as_many_queries_whatever_their_length(
    scim: Scim,
) -> None:
    for number in range(7):
        Person.objects.create(email=f"p{number}@example.org", name=f"P{number}")
    first = scim.get("Users", startIndex=1, count=3).body
    assert (first["totalResults"], first["startIndex"], first["itemsPerPage"]) == (7, 1, 3)
    last = scim.get("Users", startIndex=7, count=3).body
    assert [user["userName"] for user in last["Resources"]] == ["p6@example.org"]
    assert scim.get("Users", startIndex=-4, count=1).body["startIndex"] == 1
    assert scim.get("Users", count=0).body["Resources"] == []
    assert scim.get("Users", startIndex=10**8).body["Resources"] == []
    with CaptureQueriesContext(
        connection,
    ) as few:
        scim.get("Users", count=1)
    with CaptureQueriesContext(connection) as many:
        scim.get("Users", count=5000)
    assert len(many) == len(few) <= 8, [q["sql"] for q in many]
    for nonsense in ("x", "1e3", "", "9" * 40):
        error_of(scim.get("Users", startIndex=nonsense), 400, "invalidValue")


def test_only_the_attributes_that_were_asked_for_are_answered(scim: Scim) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    body = scim.get(f"Users/{made}", attributes="userName").body
    assert set(body) == {"schemas", "id", "userName"}
    body = scim.get(f"Users/{made}", excludedAttributes="emails,name").body
    assert "emails" not in body
    assert body["userName"]


DEACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Okta", {"op": "replace", "value": {"active": False}}),
    ("Entra", {"op": "Replace", "path": "active", "value": "False"}),
    ("Entra, strict", {"op": "replace", "path": "active", "value": False}),
    ("with its schema", {"op": "replace", "path": f"{USER}:active", "value": False}),
]


@pytest.mark.parametrize("shape", [shape for _, shape in DEACTIVATIONS])
def test_who_is_set_inactive_loses_access_at_once(scim: Scim, shape: dict[str, Any]) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    dora = Person.objects.get(pk=made)
    _, token = access_token_create(person=dora, name="laptop")
    browser = Client()
    browser.force_login(dora)

    answer = scim.patch(f"Users/{made}", shape)

    assert (answer.status_code, answer.body["active"]) == (200, False)
    with pytest.raises(NotAuthenticated):
        principal_for_token(token)
    assert browser.get("/models").status_code == 302
    assert scim.get(f"Users/{made}").body["active"] is False
    back = scim.patch(f"Users/{made}", {"op": "Replace", "path": "active", "value": "True"})
    assert back.body["active"] is True
    with pytest.raises(NotAuthenticated, match="revoked"):
        principal_for_token(token)


def test_a_routine_push_does_not_let_in_whom_an_administrator_shut_out(
    scim: Scim, person: Callable[..., Person]
) -> None:
    """Providers say of everybody in use that they are active, with every change of theirs."""
    made = scim.call("POST", "Users", OKTA).body["id"]
    ada = proven(person("Ada", "admin"))
    person_deactivate(actor=ada, person_id=int(made), reason="Their laptop was stolen.")

    put = scim.call("PUT", f"Users/{made}", OKTA | {"displayName": "Dora D."})
    patched = scim.patch(f"Users/{made}", {"op": "Replace", "path": "active", "value": "True"})

    for answer in (put, patched):
        assert (answer.status_code, answer.body["active"]) == (200, False)
    dora = Person.objects.get(pk=made)
    assert (dora.name, dora.is_active) == ("Dora D.", False)
    assert dora.deactivation_reason == "Their laptop was stolen."
    scim.call("DELETE", f"Users/{made}")
    assert scim.call("POST", "Users", OKTA).body["active"] is False
    person_reactivate(actor=ada, person_id=int(made), reason="A new laptop.")
    assert scim.get(f"Users/{made}").body["active"] is True


def test_an_administrator_shuts_out_whom_the_provider_had_set_inactive(
    scim: Scim, person: Callable[..., Person]
) -> None:
    """Else the provider alone decides when they come back."""
    made = scim.call("POST", "Users", OKTA).body["id"]
    ada = proven(person("Ada", "admin"))
    set_inactive = {"op": "replace", "path": "active", "value": False}
    assert scim.patch(f"Users/{made}", set_inactive).body["active"] is False
    person_deactivate(actor=ada, person_id=int(made), reason="Under investigation.")
    with pytest.raises(WrongState, match="cannot be deactivated again"):
        person_deactivate(actor=ada, person_id=int(made), reason="Twice.")
    set_active = {"op": "replace", "path": "active", "value": True}
    assert scim.patch(f"Users/{made}", set_active).body["active"] is False
    assert Person.objects.get(pk=made).deactivation_reason == "Under investigation."
    # The provider says no more of whom an administrator shut out.
    scim.patch(f"Users/{made}", set_inactive)
    assert Person.objects.get(pk=made).deactivation_reason == "Under investigation."


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        (
            {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "new@example.org"},
            {"email": "new@example.org"},
        ),
        (
            {"op": "Add", "path": 'emails[type eq "other"].value', "value": "o@example.org"},
            {"email": "dora.dev@example.org"},
        ),
        ({"op": "Replace", "path": "displayName", "value": "D. Dev"}, {"name": "D. Dev"}),
        (
            {"op": "Replace", "path": "name.familyName", "value": "Smith"},
            {"family_name": "Smith", "name": "Dora Smith"},
        ),
        (
            {"op": "Add", "value": {"name.givenName": "Theodora", f"{ENTERPRISE}:manager": "9"}},
            {"given_name": "Theodora"},
        ),
        ({"op": "replace", "path": f"{ENTERPRISE}:department", "value": "x"}, {"name": "Dora Dev"}),
        ({"op": "replace", "path": 'addresses[type eq "work"].country', "value": "FR"}, {}),
        ({"op": "replace", "path": "name.formatted", "value": "D. Dev"}, {"name": "Dora Dev"}),
        ({"op": "remove", "path": "externalId"}, {"external_id": ""}),
        ({"op": "remove", "path": "emails"}, {"email": "dora.dev@example.org"}),
        (
            {"op": "replace", "value": {"userName": "dd@example.org"}},
            {"user_name": "dd@example.org"},
        ),
    ],
)
def test_a_patch_changes_what_it_names(
    scim: Scim, operation: dict[str, Any], changed: dict[str, str]
) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    answer = scim.patch(f"Users/{made}", operation)
    assert answer.status_code == 200, answer.body
    person = Person.objects.get(pk=made)
    assert {field: getattr(person, field) for field in changed} == changed
    assert person.is_active


@pytest.mark.parametrize(
    ("operation", "scim_type"),
    [
        ({"op": "bless", "path": "active", "value": True}, "invalidValue"),
        ({"op": "replace", "path": "active", "value": "perhaps"}, "invalidValue"),
        ({"op": "replace", "path": "((", "value": 1}, "invalidPath"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "remove", "path": "userName"}, "mutability"),
        ({"op": "remove", "path": "active"}, "mutability"),
        ({"op": "replace", "path": "id", "value": "7"}, "mutability"),
        ({"op": "replace", "path": "userName", "value": " "}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": "x" * 300}, "invalidValue"),
        ({"op": "replace", "path": "displayName", "value": "a\u202eb"}, "invalidValue"),
        ({"op": "replace", "path": "emails", "value": [{"value": "nobody"}]}, "invalidValue"),
        ({"op": "add", "value": 7}, "invalidValue"),
    ],
)
def test_a_patch_that_does_not_fit_changes_nothing(
    scim: Scim, operation: dict[str, Any], scim_type: str
) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    before = Person.objects.values().get(pk=made)
    error_of(scim.patch(f"Users/{made}", operation), 400, scim_type)
    assert Person.objects.values().get(pk=made) == before


def test_a_patch_costs_no_more_than_its_bounds(scim: Scim) -> None:
    """Each of these took a minute, with the person's row locked."""
    made = scim.call("POST", "Users", OKTA).body["id"]
    terms = 'type eq "a" or ' * 200
    long = f'emails[{terms}type eq "b"].value'
    for operation in (
        {"op": "replace", "path": long, "value": "x@example.org"},
        {"op": "add", "value": {long: "x@example.org"}},
    ):
        error_of(scim.patch(f"Users/{made}", operation), 400, "invalidPath")
    many = {"op": "add", "value": {f"x{number}.y": 1 for number in range(1001)}}
    error_of(scim.patch(f"Users/{made}", many), 400, "tooMany")
    growing = [
        {"op": "add", "path": f'emails[type eq "a{number}"].value', "value": "x@example.org"}
        for number in range(100)
    ]
    error_of(scim.patch(f"Users/{made}", *growing, growing[0]), 400, "tooMany")
    answer = error_of(scim.patch(f"Users/{made}", *growing), 400, "invalidValue")
    assert "21 e-mail addresses" in answer["detail"]


def test_a_replacement_says_everything_anew(scim: Scim) -> None:
    made = scim.call("POST", "Users", OKTA).body["id"]
    body = {"schemas": [USER], "id": made, "userName": "dora@example.org", "active": False}
    answer = scim.call("PUT", f"Users/{made}", body)
    assert answer.status_code == 200, answer.body
    person = Person.objects.get(pk=made)
    assert (person.name, person.external_id, person.is_active) == ("dora@example.org", "", False)
    assert AuditEvent.objects.filter(action="person:update").count() == 2
    unchanged = AuditEvent.objects.count()
    scim.call("PUT", f"Users/{made}", body)
    assert AuditEvent.objects.count() == unchanged


def test_an_account_that_was_made_by_hand_is_taken_over_under_its_roles(
    scim: Scim, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical")
    found = scim.get("Users", filter='userName eq "dora@example.org"').body["Resources"][0]
    assert found["id"] == str(dora.pk)
    answer = scim.patch(f"Users/{dora.pk}", {"op": "add", "path": "externalId", "value": "ext-1"})
    assert answer.status_code == 200, answer.body
    dora.refresh_from_db()
    assert dora.external_id == "ext-1"
    assert dora.role_assignments.get().source == "manual"


def test_names_that_are_taken_are_refused(scim: Scim, person: Callable[..., Person]) -> None:
    person("Ada", "admin")
    first = scim.call("POST", "Users", OKTA).body["id"]
    error_of(scim.call("POST", "Users", OKTA), 409, "uniqueness")
    error_of(scim.user("Ada"), 409, "uniqueness")
    for change in (
        {"userName": "DORA.DEV@example.org"},
        {"externalId": OKTA["externalId"]},
        {"emails": [{"value": "dora.dev@example.org"}]},
    ):
        error_of(scim.user("Other", **change), 409, "uniqueness")
    other = scim.user("Other").body["id"]
    operation = {"op": "replace", "path": "userName", "value": "dora.dev@EXAMPLE.org"}
    error_of(scim.patch(f"Users/{other}", operation), 409, "uniqueness")
    assert Person.objects.get(pk=first).user_name == OKTA["userName"]
    assert Person.objects.count() == 3


def test_who_is_deleted_is_gone_for_the_provider_and_kept_for_the_record(
    scim: Scim, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical", "reviewer:security")
    _, token = access_token_create(person=dora, name="laptop")
    assert scim.call("DELETE", f"Users/{dora.pk}").status_code == 204

    error_of(scim.get(f"Users/{dora.pk}"), 404)
    error_of(scim.call("DELETE", f"Users/{dora.pk}"), 404)
    assert scim.get("Users", filter='userName eq "dora@example.org"').body["totalResults"] == 0
    with pytest.raises(NotAuthenticated):
        principal_for_token(token)
    dora.refresh_from_db()
    assert (dora.is_active, dora.role_assignments.count()) == (False, 0)
    assert AuditEvent.objects.filter(action="role:revoke").count() == 2
    assert AuditEvent.objects.filter(action="person:deprovision").count() == 1

    again = scim.user("Dora", active=True)
    assert again.status_code == 201, again.body
    assert again.body["id"] == str(dora.pk)
    dora.refresh_from_db()
    assert dora.is_active
    assert principal_for_person(dora).roles == frozenset()


def test_whoever_gets_a_deleted_persons_address_is_not_signed_in_to_by_their_credentials(
    scim: Scim, person: Callable[..., Person]
) -> None:
    """The address of one who left goes to one who came: the password, the app and the name at the
    provider of the one who left open the account of the one who came no more."""
    dora = person("Dora", "developer@clinical")
    dora.set_password("correct horse battery staple")
    dora.save()
    give_totp(dora)
    SocialAccount.objects.create(provider="oidc-x", uid="dora-1", user=dora)
    assert scim.call("DELETE", f"Users/{dora.pk}").status_code == 204

    assert scim.user("Dora", active=True).status_code == 201

    dora.refresh_from_db()
    assert dora.is_active
    assert not dora.has_usable_password()
    assert not Authenticator.objects.exists()
    assert not SocialAccount.objects.exists()
    (body,) = bodies(action="person:forget_credentials")
    assert (body["data"]["factors"], body["data"]["links"]) == (2, 1)


def test_the_last_administrator_is_neither_deactivated_nor_deleted(
    scim: Scim, person: Callable[..., Person]
) -> None:
    ada = person("Ada", "admin")
    operation = {"op": "Replace", "path": "active", "value": "False"}
    answer = error_of(scim.patch(f"Users/{ada.pk}", operation), 409)
    assert "last administrator" in answer["detail"]
    error_of(scim.call("DELETE", f"Users/{ada.pk}"), 409)
    ada.refresh_from_db()
    assert ada.is_active


@pytest.mark.parametrize(
    ("body", "scim_type"),
    [
        (b"{", "invalidSyntax"),
        (b"\xff", "invalidSyntax"),
        ("[]", "invalidSyntax"),
        ('{"userName": "a@example.org", "userName": "b@example.org"}', "invalidSyntax"),
        ({"schemas": [USER]}, "invalidValue"),
        ({"schemas": [USER], "userName": 7}, "invalidValue"),
        ({"schemas": [USER], "userName": "nobody"}, "invalidValue"),
        ({"schemas": [USER], "userName": "a@example.org", "active": "perhaps"}, "invalidValue"),
        ({"schemas": [USER], "userName": "a@example.org", "emails": "x"}, "invalidValue"),
        (
            {"schemas": [USER], "userName": "a@b.org", "emails": [{"value": "a@b.org"}] * 21},
            "invalidValue",
        ),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_in_scims_own_shape(
    scim: Scim, body: Any, scim_type: str
) -> None:
    error_of(scim.call("POST", "Users", body), 400, scim_type)
    assert not Person.objects.exists()


def test_a_body_that_is_too_large_is_refused(scim: Scim, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    error_of(scim.call("POST", "Users", {"schemas": [USER], "userName": "x" * 2000}), 413)


def test_only_the_token_opens_scim_and_without_one_it_is_not_there(
    settings: Any, person: Callable[..., Person]
) -> None:
    ada = person("Ada", "admin")
    _, personal = access_token_create(person=ada, name="laptop")
    for token in (None, "", "wrong", TOKEN + "x", personal, "ü"):
        answer = Scim(token).get("Users")
        error_of(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    settings.SCIM_TOKEN = ""
    for path in ("Users", "ServiceProviderConfig", "Nothing"):
        error_of(Scim("").get(path), 404)
        error_of(Scim().get(path), 404)


def test_the_scim_token_opens_nothing_else() -> None:
    client = Client(headers={"authorization": f"Bearer {TOKEN}"})
    assert client.get("/api/v1/people").status_code == 401


def test_what_scim_can_do_is_said(scim: Scim) -> None:
    config = scim.get("ServiceProviderConfig").body
    assert config["patch"] == {"supported": True}
    assert config["bulk"]["supported"] is False
    types = scim.get("ResourceTypes").body
    assert [kind["endpoint"] for kind in types["Resources"]] == ["/Users", "/Groups"]
    assert scim.get("ResourceTypes/User").body["schema"] == USER
    schemas = {schema["id"]: schema for schema in scim.get("Schemas").body["Resources"]}
    attributes = {each["name"]: each for each in schemas[USER]["attributes"]}
    assert attributes["userName"]["required"] is True
    assert attributes["userName"]["uniqueness"] == "server"
    assert attributes["groups"]["mutability"] == "readOnly"
    assert scim.get(f"Schemas/{USER}").body["id"] == USER
    error_of(scim.get("Schemas/urn:nothing"), 404)


@pytest.mark.parametrize("path", ["", "Nothing", "Users/", "Users/x", "Users/1/2", "Me/x"])
def test_what_is_not_there_is_404_in_scims_own_shape(scim: Scim, path: str) -> None:
    error_of(scim.get(path), 404)


@pytest.mark.parametrize("path", ["Me", "Bulk", ".search"])
def test_optional_endpoints_answer_that_they_are_not_supported(scim: Scim, path: str) -> None:
    for method in ("GET", "POST"):
        error_of(scim.call(method, path), 501)


@pytest.mark.parametrize(("path", "status"), [("Nothing", 404), ("Bulk", 501)])
def test_no_path_asks_a_provider_for_a_forms_token(path: str, status: int) -> None:
    browser = Client(headers={"authorization": f"Bearer {TOKEN}"}, enforce_csrf_checks=True)
    answer = browser.post(f"/scim/v2/{path}", b"{}", content_type="application/scim+json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/scim+json")


def test_a_person_without_a_display_name_is_called_by_the_parts_of_the_name_or_the_user_name(
    scim: Scim,
) -> None:
    made = scim.call("POST", "Users", OKTA | {"displayName": "D. Dev"}).body["id"]
    for removed, name, display_name in (
        ("displayName", "Dora Dev", "Dora Dev"),
        ("name", "Dora Dev", "Dora Dev"),
        ("displayName", OKTA["userName"], None),
    ):
        answer = scim.patch(f"Users/{made}", {"op": "remove", "path": removed})
        assert answer.status_code == 200, answer.body
        assert Person.objects.get(pk=made).name == name
        assert scim.get(f"Users/{made}").body.get("displayName") == display_name
    assert "name" not in scim.get(f"Users/{made}").body


def test_a_removal_of_active_does_not_let_an_inactive_person_in(scim: Scim) -> None:
    made = scim.call("POST", "Users", OKTA | {"active": False}).body["id"]
    for operation in (
        {"op": "remove", "path": "active"},
        {"op": "replace", "value": {"active": None}},
    ):
        scim.patch(f"Users/{made}", operation)
        assert not Person.objects.get(pk=made).is_active


def test_methods_that_mean_nothing_are_refused(scim: Scim) -> None:
    answer = scim.call("DELETE", "Users")
    error_of(answer, 405)
    assert answer.headers["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_an_administrator_lets_in_again_whom_the_provider_deleted(
    scim: Scim, person: Callable[..., Person]
) -> None:
    ada, dora = proven(person("Ada", "admin")), person("Dora", "viewer@clinical")
    assert scim.call("DELETE", f"Users/{dora.pk}").status_code == 204
    person_reactivate(actor=ada, person_id=dora.pk, reason="Deleted by mistake.")
    found = scim.get("Users", filter='userName eq "dora@example.org"').body["Resources"]
    assert [(user["id"], user["active"]) for user in found] == [(str(dora.pk), True)]
