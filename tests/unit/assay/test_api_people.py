"""People, their standing, and what groups mean, through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.people.models import Department, DirectoryGroup, Person, RoleAssignment
from tests.unit.assay.api_support import Api, problem_of

pytestmark = pytest.mark.usefixtures("policy", "redis")


@pytest.fixture
def admin(person: Callable[..., Person]) -> Api:
    return Api(person("Ada", "admin"))


def names(answer: Any) -> list[str]:
    return sorted(each["name"] for each in answer.body["results"])


def test_people_are_found_by_words_state_and_department(
    admin: Api, person: Callable[..., Person]
) -> None:
    person("Dora", "developer@clinical", "viewer@clinical")
    gone = person("Doris", "lead@finance")
    assert admin.post(f"people/{gone.pk}/deactivate", {"reason": "Left."}).status_code == 200

    assert names(admin.get("people")) == ["Ada", "Dora", "Doris"]
    assert names(admin.get("people", q="dor")) == ["Dora", "Doris"]
    assert names(admin.get("people", q="DORA@EXAMPLE")) == ["Dora"]
    assert names(admin.get("people", q="dor", state="active")) == ["Dora"]
    assert names(admin.get("people", state="inactive")) == ["Doris"]
    assert names(admin.get("people", department="clinical")) == ["Dora"]
    assert names(admin.get("people", q="100%_")) == []
    problem_of(admin.get("people", state="dead"), 400)
    problem_of(admin.get("people", q="x" * 101), 400)


def test_a_person_is_deactivated_with_a_reason_and_let_in_again(
    admin: Api, person: Callable[..., Person]
) -> None:
    dora = person("Dora", "developer@clinical")
    hers = Api(dora)
    assert hers.get("me").status_code == 200

    problem_of(admin.post(f"people/{dora.pk}/deactivate", {}), 400)
    answer = admin.post(f"people/{dora.pk}/deactivate", {"reason": "Left."})
    assert (answer.status_code, answer.body["is_active"]) == (200, False)
    assert answer.body["deactivated_at"]
    problem_of(hers.get("me"), 401)
    problem_of(admin.post(f"people/{dora.pk}/deactivate", {"reason": "Left."}), 409)

    answer = admin.post(f"people/{dora.pk}/reactivate", {"reason": "Is back."})
    assert (answer.body["is_active"], answer.body["deactivated_at"]) == (True, None)
    problem_of(hers.get("me"), 401)
    assert admin.get(f"people/{dora.pk}").body["roles"][0]["source"] == "manual"
    problem_of(admin.post(f"people/{dora.pk}/reactivate", {}), 409)
    problem_of(admin.post("people/987654321/deactivate", {"reason": "x"}), 404)


def test_only_administrators_change_a_standing(person: Callable[..., Person]) -> None:
    dora = person("Dora", "developer@clinical")
    for name, role in (("Lena", "lead@clinical"), ("Asha", "auditor"), ("Omar", "operator")):
        answer = Api(person(name, role)).post(f"people/{dora.pk}/deactivate", {"reason": "x"})
        problem_of(answer, 403)
    outsider = Api(person("Fay", "lead@finance"))
    problem_of(outsider.post(f"people/{dora.pk}/deactivate", {"reason": "x"}), 404)
    dora.refresh_from_db()
    assert dora.is_active


def test_a_group_is_mapped_and_its_members_hold_the_role_until_it_is_not(
    admin: Api, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    department("clinical")
    dora = person("Dora")
    DirectoryGroup.objects.create(name="leads", external_id="e-1").members.add(dora)
    listed = admin.get("groups").body["results"]
    assert [(group["name"], group["members"]) for group in listed] == [("leads", 1)]

    body = {"group": "leads", "role": "lead", "department": "clinical"}
    made = admin.post("group-mappings", body)
    assert made.status_code == 201, made.body
    assert made.body["created_by"]["name"] == "Ada"
    problem_of(admin.post("group-mappings", body), 409)
    problem_of(admin.post("group-mappings", {"group": "leads", "role": "lead"}), 422)
    problem_of(admin.post("group-mappings", body | {"department": "nowhere"}), 404)
    role = admin.get(f"people/{dora.pk}").body["roles"][0]
    assert (role["role"], role["source"], role["group"]) == ("lead", "scim", "leads")
    problem_of(admin.delete(f"people/{dora.pk}/roles/{role['id']}"), 409)

    assert [m["group"] for m in admin.get("group-mappings").body["results"]] == ["leads"]
    assert admin.delete(f"group-mappings/{made.body['id']}").status_code == 204
    problem_of(admin.delete(f"group-mappings/{made.body['id']}"), 404)
    assert not RoleAssignment.objects.filter(person=dora).exists()


def test_what_groups_mean_is_for_who_sees_everyone(
    admin: Api, person: Callable[..., Person]
) -> None:
    made = admin.post("group-mappings", {"group": "root", "role": "admin"}).body
    DirectoryGroup.objects.create(name="root")
    auditor, lead = Api(person("Asha", "auditor")), Api(person("Lena", "lead@clinical"))
    assert len(auditor.get("group-mappings").body["results"]) == 1
    assert len(auditor.get("groups").body["results"]) == 1
    problem_of(auditor.delete(f"group-mappings/{made['id']}"), 403)
    assert lead.get("group-mappings").body["results"] == []
    assert lead.get("groups").body["results"] == []
    problem_of(lead.delete(f"group-mappings/{made['id']}"), 404)
    for caller in (auditor, lead):
        problem_of(caller.post("group-mappings", {"group": "mine", "role": "admin"}), 403)


def test_a_department_is_shown_to_its_members(admin: Api, person: Callable[..., Person]) -> None:
    lead = Api(person("Lena", "lead@clinical"))
    assert lead.get("departments/clinical").body["name"] == "Clinical"
    outsider = Api(person("Fay", "lead@finance"))
    problem_of(outsider.get("departments/clinical"), 404)
    problem_of(admin.get("departments/nowhere"), 404)
