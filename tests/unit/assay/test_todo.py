"""Home and the notification center: what waits for a person, by role."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from assay.portal.todo import todos_of
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.reviews.models import Review
from registry.releases.models import Release
from tests import proofs
from tests.unit.assay.portal_data import Company
from workers.deployments.models import Deployment

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def signed_in(person: Person) -> Client:
    return proofs.signed_in(Client(), person)


def titles(person: Person) -> list[str]:
    return [task.title for task in todos_of(principal_for_person(person))]


def test_each_role_has_its_own_tasks(company: Company) -> None:
    Deployment.objects.filter(pk=company.deployment.pk).update(
        state="refused", message="config.json differs."
    )
    refused = f"Rejected bytes: {company.deployment.name}"
    review = f"Review {company.review_open.subject_name}"
    deploy = f"Deploy release {company.deployment.release_id}: {company.first}"

    assert review in titles(company.carla)
    assert refused not in titles(company.carla)
    assert {refused, deploy} <= set(titles(company.enzo))
    # Another department's people see nothing of it.
    assert not {refused, review, deploy} & set(titles(company.fay))


def test_what_a_newer_deployment_replaced_is_no_task(company: Company) -> None:
    Deployment.objects.filter(pk=company.deployment.pk).update(state="refused")
    assert any(title.startswith("Rejected bytes") for title in titles(company.enzo))
    newer = Deployment.objects.get(pk=company.deployment.pk)
    newer.pk, newer.state = None, "serving"
    newer.save()
    assert not any(title.startswith("Rejected bytes") for title in titles(company.enzo))


def test_home_center_and_badge_show_the_same_and_every_link_opens(company: Company) -> None:
    Deployment.objects.filter(pk=company.deployment.pk).update(state="refused")
    for name, person in company.people.items():
        client = signed_in(person)
        tasks = todos_of(principal_for_person(person))
        center = client.get("/tasks").content.decode()
        badge = client.get("/tasks/badge").content.decode()
        home = client.get("/").content.decode()
        assert (f">{len(tasks)}<" in badge) is bool(tasks), name
        for task in tasks:
            assert task.href in center, (name, task)
            assert task.href in home, (name, task)
            assert client.get(task.href).status_code == 200, (name, task)
        if not tasks:
            assert "You&#x27;re up to date" in center or "You're up to date" in center


def test_the_most_urgent_come_first(company: Company) -> None:
    Deployment.objects.filter(pk=company.deployment.pk).update(state="refused")
    tones = [task.tone for task in todos_of(principal_for_person(company.enzo))]
    assert len(set(tones)) > 1
    assert tones == sorted(tones, key=["bad", "warn", "info"].index)


def test_tasks_cost_a_bounded_number_of_queries(company: Company) -> None:
    client = signed_in(company.ada)
    client.get("/tasks/badge")
    with CaptureQueriesContext(connection) as captured:
        assert client.get("/tasks/badge").status_code == 200
    assert len(captured) == 20, [each["sql"][:90] for each in captured]


def test_browsers_keep_the_badge_briefly_for_its_person_and_check_pages_again(
    company: Company,
) -> None:
    client = signed_in(company.ada)
    badge = client.get("/tasks/badge").headers
    assert badge["Cache-Control"] == "private, max-age=30"
    assert "Cookie" in badge["Vary"]
    assert client.get("/tasks").headers["Cache-Control"] == "private, no-cache"


def test_a_version_that_was_not_evaluated_is_not_called_trusted(company: Company) -> None:
    client = signed_in(company.enzo)
    base = client.get(f"/versions/{company.first.base_id}").content.decode()
    assert "Intake passed · not evaluated" in base
    assert "Trusted" not in base.split("</h1>")[0]
    tuned = client.get(f"/versions/{company.second.pk}").content.decode()
    assert "Trusted · evaluated" in tuned
    versions = client.get(f"/models/{company.first.model.name}").content.decode()
    # At the top, in its row, and beside its result for each of the two gates.
    assert versions.count("Live</span>") == 4


def test_requested_changes_lead_to_the_answer(company: Company) -> None:
    Release.objects.filter(pk=company.waiting.pk).update(state="changes_requested")
    Review.objects.filter(pk=company.review_open.pk).update(state="changes_requested")
    title = f"Answer requested changes to {company.second}"
    (task,) = (task for task in todos_of(principal_for_person(company.enzo)) if task.title == title)
    assert task.href == f"/reviews/{company.review_open.pk}#answer"
    client = signed_in(company.enzo)
    assert 'id="answer"' in client.get(task.href).content.decode()
    release = client.get(f"/releases/{company.waiting.pk}").content.decode()
    assert f'href="{task.href}"' in release
