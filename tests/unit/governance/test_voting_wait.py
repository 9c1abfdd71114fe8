"""A new or newly empowered account votes only after the time that the review policy states."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.audit.services import Subject
from governance.errors import NotPermitted
from governance.people.models import Department, Person, RoleAssignment
from governance.principals import Principal
from governance.reviews.models import Decision, Review
from governance.reviews.policies.document import document_parsed
from governance.reviews.policies.models import SHIPPED, ReviewPolicy
from governance.reviews.policies.shipping import installed_text, shipped_text
from governance.reviews.selectors import verdict_obstacle_words
from governance.reviews.services import review_decide, review_open
from tests.proofs import proven

pytestmark = pytest.mark.django_db


@pytest.fixture
def carla(person: Callable[..., Person]) -> Person:
    return person("Carla", "reviewer:compliance")


@pytest.fixture
def review(
    policy: object, actor: Callable[..., Principal], department: Callable[[str], Department]
) -> Review:
    """A review that is held under a shipped policy."""
    return review_open(
        actor=actor("Dora", "developer@clinical"),
        subject=Subject("release", "7", "triage v1"),
        department=department("clinical"),
        tier="minimal",
        digest="ab" * 32,
        required_approvals={"compliance": 1},
        excluded_people=[],
        checklist=[],
        due_at=timezone.now() + timedelta(days=7),
        review_policy=ReviewPolicy.objects.get(name="minimal"),
    )


def vote(review: Review, carla: Person) -> Review:
    return review_decide(
        actor=proven(carla),
        review_id=review.pk,
        verdict="reject",
        reason="Not yet.",
        digest=review.digest,
        specialty="compliance",
    )


def new_role(carla: Person) -> None:
    RoleAssignment.objects.filter(person=carla).update(created_at=timezone.now())


def new_account(carla: Person) -> None:
    Person.objects.filter(pk=carla.pk).update(created_at=timezone.now())


def back_in_power(carla: Person) -> None:
    Person.objects.filter(pk=carla.pk).update(empowered_at=timezone.now())


@pytest.mark.parametrize("change", [new_role, new_account, back_in_power])
def test_whoever_is_new_waits(
    review: Review, carla: Person, change: Callable[[Person], None]
) -> None:
    change(carla)
    ends = timezone.now() + timedelta(hours=24)
    assert f"{ends:%-d %B %Y}" in verdict_obstacle_words(proven(carla), review, "reject")
    with pytest.raises(NotPermitted, match="may vote from") as refused:
        vote(review, carla)
    assert refused.value.code == "vote_wait"
    assert not Decision.objects.exists()


def test_whoever_has_waited_votes(review: Review, carla: Person) -> None:
    RoleAssignment.objects.filter(person=carla).update(
        created_at=timezone.now() - timedelta(hours=24, minutes=1)
    )
    assert vote(review, carla).state == "rejected"


def test_another_role_that_is_old_does_not_shorten_it(review: Review, carla: Person) -> None:
    new_role(carla)
    RoleAssignment.objects.create(person=carla, role="reviewer", specialty="privacy")
    with pytest.raises(NotPermitted, match="may vote from"):
        vote(review, carla)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_state_a_day_and_the_demo_none(name: str, settings: Any) -> None:
    assert document_parsed(shipped_text(name)).vote_after_hours == 24
    assert document_parsed(installed_text(name)).vote_after_hours == 24
    settings.DEMO = True
    text = installed_text(name)
    assert document_parsed(text).vote_after_hours == 0
    assert "Only in this demonstration" in text
