"""Groups over SCIM: who is in them, and the roles that follow, in Okta's and Entra's shapes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from governance.people.groups import group_mapping_create
from governance.people.models import Department, DirectoryGroup, Person
from governance.principals import Principal
from tests.unit.assay.scim_support import GROUP, TOKEN, Scim, error_of

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]


@pytest.fixture(autouse=True)
def _provisioned(settings: Any) -> None:
    settings.SCIM_TOKEN = TOKEN


@pytest.fixture
def scim() -> Scim:
    return Scim()


@pytest.fixture
def leads(actor: Callable[..., Principal], department: Callable[[str], Department]) -> None:
    """Group clinical-leads: its members lead clinical."""
    group_mapping_create(
        actor=actor("Ada", "admin"),
        group="clinical-leads",
        role="lead",
        department=department("clinical"),
    )


@pytest.fixture
def three(person: Callable[..., Person]) -> list[int]:
    return [person(name).pk for name in ("Dora", "Enzo", "Fay")]


def leading() -> set[int]:
    return set(Person.objects.filter(role_assignments__role="lead").values_list("pk", flat=True))


def members(group_id: str) -> set[int]:
    return set(DirectoryGroup.objects.get(pk=group_id).members.values_list("pk", flat=True))


@pytest.mark.usefixtures("leads")
def test_a_group_is_made_with_members_who_get_its_roles(scim: Scim, three: list[int]) -> None:
    answer = scim.group("clinical-leads", *three[:2], externalId="8aa1a0c0")
    assert answer.status_code == 201, answer.body
    assert answer.headers["Location"] == answer.body["meta"]["location"]
    assert answer.body["externalId"] == "8aa1a0c0"
    assert [member["value"] for member in answer.body["members"]] == list(map(str, three[:2]))
    names = scim.get(f"Groups/{answer.body['id']}", attributes="members.display").body["members"]
    assert [member["display"] for member in names] == ["Dora", "Enzo"]
    assert leading() == set(three[:2])
    user = scim.get(f"Users/{three[0]}").body
    assert user["groups"] == [{"value": answer.body["id"], "display": "clinical-leads"}]
    actions = AuditEvent.objects.filter(actor_id="scim").values_list("action", flat=True)
    assert set(actions) == {"group:create", "group:members", "role:grant"}


PATCHES: list[tuple[str, Callable[[list[int]], list[dict[str, Any]]], Callable[..., Any]]] = [
    (
        "Okta adds",
        lambda ids: [{"op": "add", "path": "members", "value": [{"value": str(ids[2])}]}],
        lambda ids: ids,
    ),
    (
        "Okta removes",
        lambda ids: [{"op": "remove", "path": f'members[value eq "{ids[0]}"]'}],
        lambda ids: ids[1:2],
    ),
    (
        "Okta replaces",
        lambda ids: [{"op": "replace", "path": "members", "value": [{"value": str(ids[2])}]}],
        lambda ids: ids[2:],
    ),
    (
        "Entra adds",
        lambda ids: [
            {"op": "Add", "path": "members", "value": [{"$ref": None, "value": str(ids[2])}]}
        ],
        lambda ids: ids,
    ),
    (
        "by a reference alone",
        lambda ids: [{"op": "add", "path": "members", "value": [{"$ref": f"../Users/{ids[2]}"}]}],
        lambda ids: ids,
    ),
    (
        "Entra removes",
        lambda ids: [{"op": "Remove", "path": "members", "value": [{"value": str(ids[0])}]}],
        lambda ids: ids[1:2],
    ),
    ("Entra empties", lambda ids: [{"op": "Remove", "path": "members"}], lambda ids: []),
    (
        "without a path",
        lambda ids: [{"op": "add", "value": {"members": [{"value": str(ids[2])}]}}],
        lambda ids: ids,
    ),
    (
        "both in one",
        lambda ids: [
            {"op": "remove", "path": f'members[value eq "{ids[0]}"]'},
            {"op": "add", "path": "members", "value": [{"value": str(ids[2])}]},
        ],
        lambda ids: ids[1:],
    ),
    (
        "with its schema",
        lambda ids: [{"op": "add", "path": f"{GROUP}:members", "value": {"value": str(ids[2])}}],
        lambda ids: ids,
    ),
    (
        "one more time",
        lambda ids: [{"op": "add", "path": "members", "value": [{"value": str(ids[0])}]}],
        lambda ids: ids[:2],
    ),
    (
        "who is not in it",
        lambda ids: [{"op": "remove", "path": f'members[value eq "{ids[2]}"]'}],
        lambda ids: ids[:2],
    ),
]


@pytest.mark.usefixtures("leads")
@pytest.mark.parametrize(
    ("operations", "left"), [each[1:] for each in PATCHES], ids=[each[0] for each in PATCHES]
)
def test_members_come_and_go_and_their_roles_with_them(
    scim: Scim,
    three: list[int],
    operations: Callable[[list[int]], list[dict[str, Any]]],
    left: Callable[[list[int]], list[int]],
) -> None:
    group = scim.group("clinical-leads", *three[:2]).body["id"]
    answer = scim.patch(f"Groups/{group}", *operations(three))
    assert answer.status_code == 204, answer.body
    assert members(group) == set(left(three)) == leading()


@pytest.mark.usefixtures("leads")
def test_a_group_that_is_renamed_means_something_else(scim: Scim, three: list[int]) -> None:
    group = scim.group("others", *three).body["id"]
    assert leading() == set()
    rename = {"op": "replace", "value": {"id": group, "displayName": "clinical-leads"}}
    assert scim.patch(f"Groups/{group}", rename).status_code == 204
    assert leading() == set(three)
    rename = {"op": "Replace", "path": "displayName", "value": "nobody"}
    assert scim.patch(f"Groups/{group}", rename).status_code == 204
    assert leading() == set()


@pytest.mark.usefixtures("leads")
def test_a_replacement_names_every_member_anew(scim: Scim, three: list[int]) -> None:
    group = scim.group("clinical-leads", *three).body["id"]
    body = {
        "schemas": [GROUP],
        "displayName": "clinical-leads",
        "members": [{"$ref": f"https://assay.example/scim/v2/Users/{three[1]}"}],
    }
    answer = scim.call("PUT", f"Groups/{group}", body)
    assert answer.status_code == 200, answer.body
    assert [member["value"] for member in answer.body["members"]] == [str(three[1])]
    assert leading() == {three[1]}


@pytest.mark.usefixtures("leads")
@pytest.mark.parametrize("reference", ["{base}/Groups/{id}", "Groups/{id}", "{id}", "Users/{id}/x"])
def test_a_reference_to_anything_but_a_person_adds_nobody(
    scim: Scim, three: list[int], reference: str
) -> None:
    group = scim.group("clinical-leads").body["id"]
    ref = reference.format(base="https://assay.example/scim/v2", id=three[0])
    add = {"op": "add", "path": "members", "value": [{"$ref": ref}]}
    error_of(scim.patch(f"Groups/{group}", add), 400, "invalidValue")
    body = {"schemas": [GROUP], "displayName": "clinical-leads", "members": [{"$ref": ref}]}
    error_of(scim.call("PUT", f"Groups/{group}", body), 400, "invalidValue")
    assert members(group) == leading() == set()


@pytest.mark.usefixtures("leads")
def test_a_deleted_group_and_a_deleted_member_take_their_roles_with_them(
    scim: Scim, three: list[int]
) -> None:
    group = scim.group("clinical-leads", *three).body["id"]
    assert scim.call("DELETE", f"Users/{three[0]}").status_code == 204
    assert members(group) == leading() == set(three[1:])
    assert scim.call("DELETE", f"Groups/{group}").status_code == 204
    assert leading() == set()
    error_of(scim.get(f"Groups/{group}"), 404)
    error_of(scim.call("DELETE", f"Groups/{group}"), 404)
    assert AuditEvent.objects.filter(action="group:delete").count() == 1


def test_groups_are_found_by_name_external_id_and_member(scim: Scim, three: list[int]) -> None:
    first = scim.group("Clinical leads", *three, externalId="ext-1").body["id"]
    second = scim.group("Others", three[0]).body["id"]
    for text, wanted in (
        ('displayName eq "clinical LEADS"', [first]),
        ('externalId eq "ext-1" and displayName sw "Clin"', [first]),
        (f'members[value eq "{three[0]}"]', [first, second]),
        (f'members.value eq "{three[1]}"', [first]),
        (f'members eq "{three[0]}" or members eq "{three[1]}"', [first, second]),
        (f'id eq "{second}" and members eq "{three[0]}"', [second]),
        ("members pr", [first, second]),
        (f'not (members.value eq "{three[1]}")', [second]),
    ):
        answer = scim.get("Groups", filter=text, excludedAttributes="members")
        assert answer.status_code == 200, (text, answer.body)
        assert [group["id"] for group in answer.body["Resources"]] == wanted, text
        assert answer.body["totalResults"] == len(wanted), text
        assert not any("members" in group for group in answer.body["Resources"])
    error_of(scim.get("Groups", filter='members.display eq "x"'), 400, "invalidFilter")


def test_a_list_of_groups_costs_as_many_queries_whatever_its_length(
    scim: Scim, three: list[int]
) -> None:
    for number in range(5):
        scim.group(f"g{number}", *three)
    with CaptureQueriesContext(connection) as few:
        scim.get("Groups", count=1)
    with CaptureQueriesContext(connection) as many:
        answer = scim.get("Groups")
    assert [len(group["members"]) for group in answer.body["Resources"]] == [3] * 5
    assert len(many) == len(few) <= 8, [query["sql"] for query in many]
    one = scim.get(f"Groups/{answer.body['Resources'][0]['id']}", excludedAttributes="members")
    assert "members" not in one.body


@pytest.mark.parametrize(
    ("operation", "scim_type"),
    [
        ({"op": "add", "path": "members", "value": [{"value": "999999"}]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": [{"value": "x"}]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": [{"value": "1" * 30}]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": [{"value": 7.5}]}, "invalidValue"),
        ({"op": "bless", "path": "members", "value": []}, "invalidValue"),
        ({"op": "remove", "path": 'members[display eq "Dora"]'}, "invalidPath"),
        ({"op": "replace", "path": 'members[value eq "1"]', "value": 1}, "noTarget"),
        ({"op": "replace", "path": "displayName", "value": ""}, "invalidValue"),
        ({"op": "replace", "path": "displayName", "value": "x" * 300}, "invalidValue"),
        ({"op": "remove", "path": "displayName"}, "mutability"),
        ({"op": "replace", "path": 7, "value": "x"}, "invalidPath"),
    ],
)
def test_a_patch_that_does_not_fit_changes_nothing(
    scim: Scim, three: list[int], operation: dict[str, Any], scim_type: str
) -> None:
    group = scim.group("g", *three).body["id"]
    joined = {"op": "remove", "path": f'members[value eq "{three[0]}"]'}
    error_of(scim.patch(f"Groups/{group}", joined, operation), 400, scim_type)
    assert members(group) == set(three)


def test_bodies_that_are_no_patch_are_refused(scim: Scim) -> None:
    group = scim.group("g").body["id"]
    for body in ([], {}, {"Operations": []}, {"schemas": [GROUP], "Operations": [{}]}, "x"):
        error_of(scim.call("PATCH", f"Groups/{group}", body), 400, "invalidSyntax")
    many = [{"op": "add", "path": "members", "value": []}] * 1001
    error_of(scim.patch(f"Groups/{group}", *many), 400, "tooMany")
    error_of(scim.patch(f"Groups/{group}", 7), 400, "invalidSyntax")  # type: ignore[arg-type]


def test_a_name_or_external_id_names_one_group(scim: Scim) -> None:
    scim.group("Leads", externalId="e")
    error_of(scim.group("LEADS"), 409, "uniqueness")
    error_of(scim.group("Others", externalId="e"), 409, "uniqueness")
    assert scim.group("Others").status_code == 201
    assert scim.group("More").status_code == 201


@pytest.mark.usefixtures("leads")
def test_who_is_inactive_gets_no_role_and_has_it_when_back(scim: Scim, three: list[int]) -> None:
    dora = three[0]
    scim.patch(f"Users/{dora}", {"op": "Replace", "path": "active", "value": "False"})
    group = scim.group("clinical-leads", dora).body["id"]
    assert leading() == set()
    scim.patch(f"Users/{dora}", {"op": "Replace", "path": "active", "value": "True"})
    assert leading() == {dora}
    assert members(group) == {dora}


def test_a_group_that_means_nothing_costs_little_however_large(
    scim: Scim, person: Callable[..., Person]
) -> None:
    made = Person.objects.bulk_create(
        Person(email=f"p{number}@example.org", name=f"P{number}") for number in range(2000)
    )
    group = scim.group("everyone").body["id"]
    value = [{"value": str(each.pk)} for each in made]
    with CaptureQueriesContext(connection) as queries:
        answer = scim.patch(f"Groups/{group}", {"op": "add", "path": "members", "value": value})
    assert answer.status_code == 204
    assert len(queries) < 25
    assert len(members(group)) == 2000


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The answers of calls that all start together."""
    barrier = threading.Barrier(len(calls))
    answers: list[Any] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            answers.append(call())
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("leads")
def test_of_changes_that_come_at_once_none_is_lost(
    scim: Scim, person: Callable[..., Person]
) -> None:
    people = [person(f"P{number}").pk for number in range(6)]
    group = scim.group("clinical-leads").body["id"]

    def join(pk: int) -> Any:
        operation = {"op": "add", "path": "members", "value": [{"value": str(pk)}]}
        return Scim().patch(f"Groups/{group}", operation)

    answers = at_once([lambda pk=pk: join(pk) for pk in people])  # type: ignore[misc]
    assert [answer.status_code for answer in answers] == [204] * 6
    assert members(group) == leading() == set(people)

    one = people[0]
    changes = [
        {"op": "replace", "path": "displayName", "value": "New Name"},
        {"op": "replace", "path": "active", "value": "False"},
        {"op": "replace", "path": "externalId", "value": "e-1"},
    ]
    answers = at_once(
        [lambda each=each: Scim().patch(f"Users/{one}", each) for each in changes]  # type: ignore[misc]
    )
    assert [answer.status_code for answer in answers] == [200] * 3
    changed = Person.objects.get(pk=one)
    assert (changed.name, changed.is_active, changed.external_id) == ("New Name", False, "e-1")


@pytest.mark.django_db(transaction=True)
def test_of_one_person_who_is_made_many_times_at_once_there_is_one(scim: Scim) -> None:
    answers = at_once([lambda: Scim().user("Twin") for _ in range(5)])
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert Person.objects.filter(email="twin@example.org").count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("leads")
def test_who_joins_a_group_while_their_account_ends_has_no_role(
    scim: Scim, person: Callable[..., Person]
) -> None:
    group = scim.group("clinical-leads").body["id"]
    for round_ in range(5):
        one = person(f"Q{round_}").pk
        join = {"op": "add", "path": "members", "value": [{"value": str(one)}]}
        answers = at_once(
            [
                lambda join=join: Scim().patch(f"Groups/{group}", join),  # type: ignore[misc]
                lambda one=one: Scim().call("DELETE", f"Users/{one}"),  # type: ignore[misc]
            ]
        )
        assert {answer.status_code for answer in answers} <= {204, 400, 409}
        gone = Person.objects.get(pk=one)
        assert not gone.is_active
        assert not gone.role_assignments.exists()
