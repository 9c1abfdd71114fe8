"""Assignees on the review page, in the inbox, in tasks and through the API."""

from __future__ import annotations

import pytest
from django.test import Client

from assay.portal.todo import todos_of
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.reviews.assignments.models import ReviewAssignment
from tests import proofs
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def signed_in(person: Person) -> Client:
    return proofs.signed_in(Client(), person)


def test_a_reviewer_takes_the_review_on_its_page(company: Company) -> None:
    carla, at = signed_in(company.carla), f"/reviews/{company.review_open.pk}"
    html = carla.get(at).content.decode()
    assert inline_in(html) == []
    assert "Assign to me" in html
    form = {"do": "assign", "person": company.carla.pk}
    assert carla.post(f"{at}/assign", form)["Location"] == at
    html = carla.get(at).content.decode()
    assert "Unassign Carla" in html
    assert "Assign to me" not in html
    assert carla.post(f"{at}/assign", {**form, "do": "unassign"}).status_code == 302
    assert not ReviewAssignment.objects.exists()


def test_the_page_offers_no_names_that_the_person_may_not_see(company: Company) -> None:
    html = signed_in(company.enzo).get(f"/reviews/{company.review_open.pk}").content.decode()
    assert company.asha.name not in html
    assert "Assign to me" not in html


def test_bad_forms_are_refused_in_words(company: Company) -> None:
    carla, at = signed_in(company.carla), f"/reviews/{company.review_open.pk}/assign"
    for form, status, words in (
        ({"do": "assign", "person": ""}, 400, "No person is selected"),
        ({"do": "assign", "person": "9" * 40}, 400, "No person is selected"),
        ({"do": "assign", "person": "\x00"}, 400, "No person is selected"),
        ({"do": "assign", "person": "999999"}, 404, "no person 999999"),
        ({"do": "", "person": company.carla.pk}, 400, "does not say what to do"),
        ({"do": "assign", "person": company.enzo.pk}, 400, "submitted the subject of the review"),
    ):
        response = carla.post(at, form)
        assert response.status_code == status, form
        assert words in response.content.decode(), form


def test_inbox_and_tasks_show_what_is_assigned(company: Company) -> None:
    review = company.review_open
    carla = signed_in(company.carla)
    assert f'/reviews/{review.pk}"' not in carla.get("/reviews?assigned=me").content.decode()
    ReviewAssignment.objects.create(review=review, person=company.carla, assigned_by=company.enzo)
    html = " ".join(carla.get("/reviews?assigned=me").content.decode().split())
    assert f'/reviews/{review.pk}"' in html
    assert f"assigned to {company.carla.name}" in html
    tasks = todos_of(principal_for_person(company.carla))
    (mine,) = [task for task in tasks if task.href == f"/reviews/{review.pk}"]
    assert mine.detail.startswith("assigned to you")


def test_the_api_assigns_lists_and_unassigns(company: Company) -> None:
    carla, at = Api(company.carla), f"releases/{company.waiting.pk}/assignees"
    made = carla.post(at, {"person": company.carla.pk})
    assert made.status_code == 201, made.content
    expected = [{"id": company.carla.pk, "name": company.carla.name}]
    assert made.body["review"]["assignees"] == expected
    (found,) = carla.get("reviews", assigned="me").body["results"]
    assert found["assignees"] == expected
    assert Api(company.asha).get("reviews", assigned="me").body["results"] == []
    assert carla.delete(f"{at}/{company.carla.pk}").status_code == 204
    assert carla.get("reviews", assigned="me").body["results"] == []
    problem_of(carla.delete(f"{at}/{company.carla.pk}"), 404)
    problem_of(carla.post(at, {"person": company.enzo.pk}), 422)
    problem_of(Api(company.fay).post(at, {"person": company.carla.pk}), 404)
