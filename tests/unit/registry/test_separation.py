"""Separation of duties on a release: everyone who had a hand in it, by the service and by rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, transaction

from governance.errors import NotPermitted
from governance.keys.selectors import principal_for_token
from governance.keys.services import access_token_create
from governance.people.models import Department, Person
from governance.reviews.models import Decision, Review
from registry.releases.models import Release
from registry.releases.separation import people_behind
from registry.releases.services import release_decide, release_submit
from tests.people import set_up_alone
from tests.proofs import fresh_proof, proven, vote_proof
from tests.unit.registry.objects import data, evaluation, model, taken_in, version
from tests.unit.registry.office import ANSWERS, FIELDS

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
ROWS = [{"text": f"text {n}", "label": "good"} for n in range(20)]
PARTS = (
    "started the training", "registered the line of versions", "brought in the training data",
    "started the evaluation", "brought in the test data", "made the base",
    "registered the base's line", "brought in the base", "brought in the base's data",
    "submitted the release",
)  # fmt: skip


class Works:
    """A release in which every part was somebody else's; all of them review for compliance too."""

    def __init__(
        self, person: Callable[..., Person], department: Callable[[str], Department]
    ) -> None:
        clinical = self.clinical = department("clinical")
        self.people = {
            part: person(f"Who {part}", "developer@clinical", "reviewer:compliance")
            for part in PARTS
        }
        who = self.people
        root = version(model(who["registered the base's line"], clinical, "root"), person("Root"))
        base = version(
            root.model, who["made the base"], "full", root,
            dataset_version=data(who["brought in the base's data"], clinical, "old", ROWS),
        )  # fmt: skip
        self.root_maker = root.created_by
        taken_in(root, who["brought in the base"], person("Signer"))
        self.tuned = version(
            model(who["registered the line of versions"], clinical, "tuned"),
            who["started the training"], "full", base,
            dataset_version=data(who["brought in the training data"], clinical, "train", ROWS),
        )  # fmt: skip
        test = data(who["brought in the test data"], clinical, "test", ROWS)
        evaluation(self.tuned, test, who["started the evaluation"])


@pytest.fixture
def works(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> Works:
    return Works(person, department)


@pytest.fixture
def release(works: Works) -> Release:
    return release_submit(
        actor=proven(works.people["submitted the release"]),
        version=works.tuned,
        environment="production",
        deployment_name="tuned",
        departments=[works.clinical],
        purpose="Sort reviews.",
        risk_answers=ANSWERS,
        dossier_fields=FIELDS,
    )


def test_everyone_with_a_part_is_kept_from_deciding_and_nobody_else(
    works: Works, release: Release
) -> None:
    for part, each in works.people.items():
        for verdict in ("approve", "reject", "request_changes"):
            with pytest.raises(NotPermitted, match="Separation of duties") as refused:
                release_decide(
                    actor=proven(each), release_id=release.pk, verdict=verdict,
                    reason=part, digest=release.dossier_digest,
                )  # fmt: skip
            assert refused.value.code == "separation_of_duties"
    review = Review.objects.get()
    assert set(review.excluded_people) == {
        *(each.pk for each in works.people.values()),
        works.root_maker.pk,
    }


@pytest.mark.parametrize("part", PARTS)
def test_the_database_takes_no_vote_of_theirs(works: Works, release: Release, part: str) -> None:
    review = Review.objects.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Decision.objects.create(
            review=review, submitter=review.opened_by, person=works.people[part],
            verdict="approve", specialty="compliance", reason="r", digest=review.digest,
            round=review.round, **vote_proof(),
        )  # fmt: skip


def test_who_signed_the_intake_of_the_base_is_an_independent_check(
    works: Works, person: Callable[..., Person]
) -> None:
    assert Person.objects.get(name="Signer").pk not in people_behind(works.tuned)


def test_an_access_token_is_its_person(works: Works, release: Release) -> None:
    _, token = access_token_create(
        person=works.people["started the training"], name="ci", proof=fresh_proof()
    )
    with pytest.raises(NotPermitted, match="Separation of duties"):
        release_decide(
            actor=principal_for_token(token), release_id=release.pk, verdict="approve",
            reason="By token.", digest=release.dossier_digest,
        )  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_who_alone_set_the_account_of_a_part_up_decides_as_little(
    works: Works, person: Callable[..., Person], part: str
) -> None:
    """Else an administrator works as a person whom they invented, and reviews as themselves."""
    maker = person("Maker", "reviewer:compliance")
    set_up_alone(maker, works.people[part])
    release = release_submit(
        actor=proven(works.people["submitted the release"]), version=works.tuned,
        environment="production", deployment_name="tuned", departments=[works.clinical],
        purpose="Sort reviews.", risk_answers=ANSWERS, dossier_fields=FIELDS,
    )  # fmt: skip
    with pytest.raises(NotPermitted, match="Separation of duties"):
        release_decide(
            actor=proven(maker), release_id=release.pk, verdict="approve",
            reason="Fine.", digest=release.dossier_digest,
        )  # fmt: skip
    review = Review.objects.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Decision.objects.create(
            review=review, submitter=review.opened_by, person=maker, verdict="approve",
            specialty="compliance", reason="r", digest=review.digest, round=review.round,
            **vote_proof(),
        )  # fmt: skip
