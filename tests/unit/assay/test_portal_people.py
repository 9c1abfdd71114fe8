"""People, departments and groups in the portal: who sees what, and what the buttons do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from governance.people.models import DirectoryGroup, GroupMapping, Person, RoleAssignment
from registry.responses.models import ResponseRetention
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in, signed_in
from tests.unit.audit_support import recorded_all

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# At most, whatever the length of the list; the menu asks some of them.
QUERIES = {"/people": 26, "/departments": 19, "/departments/engineering": 28, "/people/groups": 25}


@pytest.fixture
def company(company: Company) -> Company:
    group = DirectoryGroup.objects.create(name="Engineering leads", external_id="e-1")
    group.members.add(company.people["vera"])
    company.things["group"] = group
    return company


def text_of(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    text: str = response.content.decode()
    assert inline_in(text) == []
    return text


def test_a_lead_sets_how_long_a_department_keeps_responses(company: Company) -> None:
    enzo, devi = (signed_in(company.people[who]) for who in ("enzo", "devi"))
    path = "/departments/engineering"
    assert "stores no responses" in text_of(enzo.get(path))
    assert 'name="days"' not in text_of(devi.get(path))
    assert devi.post(path, {"days": "7"}).status_code == 403
    assert enzo.post("/departments/finance", {"days": "7"}).status_code == 404
    for wrong in ("366", "-1", "many", ""):
        refused = enzo.post(path, {"days": wrong})
        assert refused.status_code == 400
        assert "field-error" in refused.content.decode()
    assert not ResponseRetention.objects.exists()
    assert enzo.post(path, {"days": "7"}).headers["Location"] == path
    assert "Kept for 7 days" in text_of(devi.get(path))
    assert AuditEvent.objects.filter(action="response:retain", outcome="allowed").count() == 1


def map_group(company: Company, **given: Any) -> Any:
    body = {
        "group": "Engineering leads",
        "role": "lead",
        "department": company.departments["engineering"].pk,
        "specialty": "",
        **given,
    }
    return signed_in(company.people["ada"]).post("/people/groups", body)


def test_people_are_found_by_words_state_and_department(company: Company) -> None:
    ada = signed_in(company.people["ada"])
    assert "Vera Viewer" in text_of(ada.get("/people?q=vera"))
    assert "Vera Viewer" not in text_of(ada.get("/people?q=devi"))
    assert "Vera Viewer" in text_of(ada.get("/people?department=engineering&state=active"))
    assert "No people" in text_of(ada.get("/people?state=inactive"))
    assert "No people" in text_of(ada.get("/people", {"q": "a\0"}))
    assert "Devi" in text_of(ada.get("/people?state=nonsense"))


@pytest.mark.parametrize("who", ["asha", "omar"])
def test_who_sees_everyone_and_changes_nobody_gets_no_buttons(company: Company, who: str) -> None:
    client = signed_in(company.people[who])
    map_group(company)
    for address in ("/people", "/people/groups", f"/people/{company.people['vera'].pk}"):
        text = text_of(client.get(address))
        assert 'class="card-body" method="post"' not in text, address
        assert ">Remove<" not in re.sub(r"\s", "", text)
        assert "Remove role" not in text


@pytest.mark.parametrize("who", ["enzo", "devi"])
def test_a_member_sees_the_department_and_not_what_groups_mean(company: Company, who: str) -> None:
    client = signed_in(company.people[who])
    map_group(company)
    text = text_of(client.get("/departments/engineering"))
    assert "Devi Developer" in text
    assert "Groups with roles here" not in text
    assert ("Live keys" in text) is (who == "enzo")
    assert "finance" not in text_of(client.get("/departments"))
    assert client.get("/departments/finance").status_code == 404
    assert client.get("/people").status_code == 403
    assert client.get("/people/groups").status_code == 403
    assert client.get(f"/people/groups/{company.things['group'].pk}").status_code == 404
    assert client.post("/people/groups", {"group": "x", "role": "admin"}).status_code == 403
    page = text_of(client.get(f"/people/{company.people['devi'].pk}"))
    assert "Deactivate" not in page
    assert "External ID" not in page


def test_a_person_is_deactivated_with_a_reason_and_let_in_again(company: Company) -> None:
    ada, devi = signed_in(company.people["ada"]), company.people["devi"]
    theirs = signed_in(devi)
    assert theirs.get("/models").status_code == 200

    refused = ada.post(f"/people/{devi.pk}/deactivate", {"reason": ""})
    assert refused.status_code == 400
    assert 'role="alert"' in refused.content.decode()
    done = ada.post(f"/people/{devi.pk}/deactivate", {"reason": "Left for a rival."})
    assert done.status_code == 302
    assert theirs.get("/models").status_code == 302

    page = text_of(ada.get(f"/people/{devi.pk}"))
    assert "Left for a rival." in page
    assert "Grant a role" not in page
    seen = signed_in(company.people["enzo"]).get(f"/people/{devi.pk}")
    assert "Left for a rival." not in text_of(seen)
    assert ada.post(f"/people/{devi.pk}/deactivate", {"reason": "Again."}).status_code == 409

    back = ada.post(f"/people/{devi.pk}/reactivate", {"reason": "Came to their senses."})
    assert back.status_code == 302
    assert "Came to their senses." in {
        event.reason for event in recorded_all(action="person:reactivate")
    }


def test_only_administrators_end_anybodys_access(company: Company) -> None:
    devi = company.people["devi"]
    for who, status in (("enzo", 403), ("asha", 403), ("fay", 404)):
        client = signed_in(company.people[who])
        answer = client.post(f"/people/{devi.pk}/deactivate", {"reason": "x"})
        assert answer.status_code == status, who
    ada = company.people["ada"]
    own = signed_in(ada).post(f"/people/{ada.pk}/deactivate", {"reason": "x"})
    assert own.status_code == 403
    assert not Person.objects.filter(is_active=False).exists()


def test_a_group_is_mapped_and_its_members_show_where_their_role_is_from(
    company: Company,
) -> None:
    ada, vera = signed_in(company.people["ada"]), company.people["vera"]
    assert "Map it" in text_of(ada.get("/people/groups"))
    assert 'value="Engineering leads"' in text_of(ada.get("/people/groups?group=Engineering leads"))
    assert map_group(company).status_code == 302
    assert map_group(company).status_code == 409
    assert map_group(company, department="").status_code == 400

    page = text_of(ada.get(f"/people/{vera.pk}"))
    assert "through the group Engineering leads (provisioning)" in page
    assert "Remove lead" not in page
    assert "through the group" in text_of(ada.get("/departments/engineering"))
    assert "Groups with roles here" in text_of(ada.get("/departments/engineering"))
    assert "lead" in text_of(ada.get(f"/people/groups/{company.things['group'].pk}"))

    mapping = GroupMapping.objects.get()
    done = ada.post(f"/people/groups/mappings/{mapping.pk}/delete")
    assert done.status_code == 302
    assert not RoleAssignment.objects.filter(person=vera, role="lead").exists()
    assert ada.post(f"/people/groups/mappings/{mapping.pk}/delete").status_code == 404


def test_a_department_is_founded_and_shown(company: Company) -> None:
    ada = signed_in(company.people["ada"])
    done = ada.post("/departments", {"slug": "legal", "name": "Legal"})
    assert done.status_code == 302
    assert done.headers["Location"] == "/departments/legal"
    assert "become members" in text_of(ada.get("/departments/legal"))
    assert ada.post("/departments", {"slug": "legal", "name": "Legal"}).status_code == 409
    enzo = signed_in(company.people["enzo"])
    assert enzo.post("/departments", {"slug": "mine", "name": "Mine"}).status_code == 403
    assert ada.get("/departments/nowhere").status_code == 404


@pytest.mark.parametrize("address", QUERIES)
def test_a_page_costs_as_many_queries_whatever_its_length(company: Company, address: str) -> None:
    ada = signed_in(company.people["ada"])
    engineering = company.departments["engineering"]
    ada.get(address)
    counts = []
    for number in range(12):
        if number in {1, 11}:
            with CaptureQueriesContext(connection) as captured:
                text_of(ada.get(address))
            counts.append(len(captured))
        person = Person.objects.create(email=f"n{number}@example.org", name=f"N{number}")
        RoleAssignment.objects.create(
            person=person, role="viewer", department=engineering, source="scim", group="g"
        )
        DirectoryGroup.objects.create(name=f"g{number}").members.add(person)
        GroupMapping.objects.create(
            group=f"g{number}", role="lead", department=engineering, created_by=person
        )
    assert counts[0] == counts[1] <= QUERIES[address], [q["sql"][:120] for q in captured]
