"""Rolling back by API, portal and command line."""

from __future__ import annotations

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.people.models import Person, RoleAssignment
from registry.releases.models import Release
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import inline_in, signed_in
from tests.unit.assay.test_review_comparison import words
from tests.unit.workers import company
from tests.unit.workers.test_deployments_rollback import served, versions_of_one
from workers.deployments.models import Deployment

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


class Story:
    """Two releases that served one after the other, and the people around them."""

    def __init__(self) -> None:
        self.old, self.new = versions_of_one(2)
        served(self.old)
        self.deployment = served(self.new)
        company.developer()
        self.developer = Person.objects.get(email="dev-clinical@example.org")
        self.page = f"/deployments/{self.deployment.pk}"

    def somebody(self, name: str, role: str, where: str = "") -> Person:
        made = Person.objects.create(name=name, email=f"{name}@example.org")
        RoleAssignment.objects.create(
            person=made, role=role, department=company.department(where) if where else None
        )
        return made


@pytest.fixture
def story(db: None) -> Story:
    return Story()


def test_the_api_lists_what_served_before_and_rolls_back(story: Story) -> None:
    api, path = Api(story.developer), f"deployments/{story.deployment.pk}/rollback"
    (choice,) = api.get(path).body
    assert (choice["release"], choice["obstacle"], choice["state"]) == (
        story.old.pk,
        "",
        "approved",
    )
    made = api.post(path, {"release": story.old.pk, "reason": "Nonsense."})
    assert made.status_code == 201
    assert (made.body["release"], made.body["state"]) == (story.old.pk, "pending")
    problem_of(api.post(path, {"release": story.old.pk, "reason": "Again."}), 409)


def test_the_api_says_why_not(story: Story) -> None:
    api, path = Api(story.developer), f"deployments/{story.deployment.pk}/rollback"
    Release.objects.filter(pk=story.old.pk).update(expires_at=timezone.now())
    assert "expired on" in api.get(path).body[0]["obstacle"]
    refused = api.post(path, {"release": story.old.pk, "reason": "Nonsense."})
    assert "expired on" in problem_of(refused, 409)["detail"]
    problem_of(api.post(path, {"release": story.old.pk}), 400)
    problem_of(api.post(path, {"release": 999_999_999, "reason": "x"}), 404)
    denied = AuditEvent.objects.filter(action="deployment:create", outcome="denied")
    assert denied.exists()


def test_other_departments_and_viewers_are_refused(story: Story) -> None:
    path = f"deployments/{story.deployment.pk}/rollback"
    body = {"release": story.old.pk, "reason": "x"}
    outsider = Api(story.somebody("Fay", "developer", "finance"))
    assert outsider.get(path).status_code == 404
    assert outsider.post(path, body).status_code == 404
    viewer = Api(story.somebody("Vera", "viewer", "clinical"))
    assert viewer.post(path, body).status_code == 403
    assert Deployment.objects.count() == 2


def test_the_portal_offers_it_on_the_page_and_rolls_back(story: Story) -> None:
    client = signed_in(story.developer)
    html = client.get(story.page).content.decode()
    assert inline_in(html) == []
    assert f'name="release" value="{story.old.pk}"' in html
    response = client.post(
        f"{story.page}/rollback", {"release": str(story.old.pk), "reason": "Nonsense."}
    )
    again = Deployment.objects.get(release=story.old, state="pending")
    assert response.headers["Location"] == f"/deployments/{again.pk}"
    # The one that was replaced offers nothing any more.
    assert "Roll back to" not in client.get(story.page).content.decode()


def test_the_portal_lists_what_may_not_serve_again_without_a_button(story: Story) -> None:
    Release.objects.filter(pk=story.old.pk).update(state="withdrawn")
    client = signed_in(story.developer)
    html = client.get(story.page).content.decode()
    assert "is withdrawn; it may not serve" in html
    assert f'name="release" value="{story.old.pk}"' not in html
    response = client.post(
        f"{story.page}/rollback", {"release": str(story.old.pk), "reason": "Nonsense."}
    )
    assert response.status_code == 409
    assert "is withdrawn; it may not serve" in response.content.decode()


@pytest.mark.parametrize("release", ["", "abc", "1\0", "9" * 40, "١"])
def test_nonsense_for_a_release_is_refused(story: Story, release: str) -> None:
    response = signed_in(story.developer).post(
        f"{story.page}/rollback", {"release": release, "reason": "x"}
    )
    assert response.status_code in {400, 404}
    assert Deployment.objects.count() == 2


def test_viewers_are_offered_nothing(story: Story) -> None:
    viewer = signed_in(story.somebody("Vera", "viewer", "clinical"))
    assert "Roll back to" not in viewer.get(story.page).content.decode()


def test_deploying_asks_with_what_changes_and_then_replaces(story: Story) -> None:
    client = signed_in(story.developer)
    Deployment.objects.filter(pk=story.deployment.pk).update(replicas_min=0, replicas_max=3)
    address = f"/releases/{story.old.pk}/deploy"

    page = client.get(address).content.decode()

    assert inline_in(page) == []
    shown = words(page)
    assert f"Version {story.new.version} {story.old.version}" in shown
    assert f"Release {story.new.pk} Release {story.old.pk}" in shown
    assert "0 to 3, as now" in shown
    assert "Deploy to production" in shown
    viewer = signed_in(story.somebody("Vera", "viewer", "clinical"))
    assert "Deploy to production" not in words(viewer.get(address).content.decode())
    assert Deployment.objects.get(state="serving").release_id == story.new.pk

    assert client.post(address).status_code == 302
    live = Deployment.objects.get(state="pending")
    assert (live.release_id, live.replicas_max) == (story.old.pk, 3)


def test_a_release_that_ended_after_its_page_was_opened_is_not_deployed(story: Story) -> None:
    client, address = signed_in(story.developer), f"/releases/{story.old.pk}/deploy"
    assert "Deploy to production" in words(client.get(address).content.decode())
    Release.objects.filter(pk=story.old.pk).update(state="recalled")
    answer = client.post(address)
    assert answer.status_code == 409
    assert "Deploy to production" not in words(answer.content.decode())
    assert Deployment.objects.get(state="serving").release_id == story.new.pk
    stranger = signed_in(story.somebody("Fay", "lead", "finance"))
    assert stranger.get(address).status_code == stranger.post(address).status_code == 404
