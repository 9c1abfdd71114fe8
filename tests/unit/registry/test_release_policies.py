"""Review policy of a release, selected by its risk answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.errors import InvalidInput, WrongState
from governance.people.selectors import principal_for_person
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.policies.lifecycle import (
    review_policy_decide,
    review_policy_draft,
    review_policy_propose,
)
from governance.reviews.policies.models import SHIPPED, ReviewPolicy
from governance.reviews.policies.selectors import (
    minimum_tier_for,
    policy_document,
    review_policies_in_force,
)
from governance.reviews.policies.shipping import shipped_text
from registry.datasets.models import Dataset
from registry.evaluations.models import Gate, GateResult
from registry.releases.checklist import CHECKS
from registry.releases.models import Release, ReleaseState
from registry.releases.risk import QUESTIONS, RiskAnswers
from registry.releases.selectors import release_review
from registry.releases.services import release_answer
from registry.releases.terms import terms_of
from registry.releases.vocabulary import VOCABULARY
from registry.versions.models import ModelVersion
from tests.proofs import proven
from tests.unit.registry.office import ANSWERS, Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def review_of(release: Release) -> Review:
    review = release_review(release)
    assert review is not None
    return review


def in_force(actor: Callable[..., Principal], text: str) -> ReviewPolicy:
    """Put a version in force by two people."""
    author, decider = actor("Ada", "admin"), actor("Ben", "admin")
    draft = review_policy_draft(actor=author, text=text)
    review_policy_propose(actor=author, policy_id=draft.pk)
    return review_policy_decide(
        actor=decider, policy_id=draft.pk, verdict="approve", reason="Agreed."
    )


def test_every_question_and_every_check_is_one_that_there_is() -> None:
    fields = RiskAnswers.model_fields
    free = {"intended_purpose", "affected_people", "notes"}
    assert set(QUESTIONS) == set(fields) - free
    for question, answers in QUESTIONS.items():
        for answer in answers:
            said = {**ANSWERS, "personal_data": True, question: answer}
            if not said["personal_data"]:
                said["special_categories"] = False
            assert RiskAnswers.model_validate(said)
    assert set(VOCABULARY.checks) == set(CHECKS)


@pytest.mark.parametrize(
    ("answers", "tier"),
    [
        ({}, "minimal"),
        ({"generates_content": True}, "minimal"),
        ({"personal_data": True}, "limited"),
        ({"autonomy": "decides_with_human"}, "limited"),
        ({"interacts_with_people": True}, "limited"),
        ({"data_classification": "restricted"}, "limited"),
        ({"eu_ai_act_role": "modifier"}, "limited"),
        ({"general_purpose_model": True}, "general-purpose"),
        ({"general_purpose_model": True, "personal_data": True}, "general-purpose"),
        ({"autonomy": "decides"}, "high"),
        ({"annex_iii": "employment"}, "high"),
        ({"annex_iii": "biometrics", "general_purpose_model": True}, "high"),
        ({"personal_data": True, "special_categories": True}, "high"),
        ({"vulnerable_groups": True}, "high"),
    ],
)
def test_the_highest_policy_that_applies_is_the_least(
    answers: dict[str, Any], tier: str, policy: object
) -> None:
    least = minimum_tier_for({**ANSWERS, **answers}, review_policies_in_force())
    assert least.name == tier
    assert bool(least.why) == (tier != "minimal")


def test_a_higher_tier_may_be_chosen_and_a_lower_one_not(office: Office) -> None:
    decides = {**ANSWERS, "annex_iii": "education"}
    for lower in ("minimal", "limited", "general-purpose"):
        with pytest.raises(InvalidInput, match="annex III of the EU AI Act, so it is at least h"):
            office.submit(risk_answers=decides, tier=lower)
    assert office.submit(risk_answers=decides, tier="high").tier == "high"
    assert office.submit(deployment_name="second", tier="high").tier == "high"


def test_a_review_follows_the_version_in_force_when_it_opens(office: Office) -> None:
    release = office.submit()
    review, active = review_of(release), ReviewPolicy.objects.get(name="limited")
    assert review.review_policy == active
    assert release.dossier["review_policy"] == {
        "name": "limited",
        "version": 1,
        "digest": active.digest,
    }
    assert review.required_approvals == {"compliance": 1, "model-risk": 1}
    assert review.due_at - timezone.now() == pytest.approx(
        timedelta(days=14), abs=timedelta(minutes=5)
    )
    with pytest.raises(IntegrityError, match="keeps its"), transaction.atomic():
        Review.objects.filter(pk=review.pk).update(review_policy=None)


def test_a_version_put_in_force_later_holds_for_reviews_that_open_later(
    office: Office, actor: Callable[..., Principal]
) -> None:
    release = office.submit()
    office.attest(release)
    office.decide(release, office.compliance)
    approved = office.decide(release, office.risk)
    waiting = office.submit(deployment_name="waiting")
    text = shipped_text("limited").replace("valid_days: 180", "valid_days: 40")
    # As policies named the check earlier.
    text = text.replace("check: license", "check: license")
    newer = in_force(actor, text.replace("code: oversight", "code: supervision"))

    # An approved release keeps its terms; a waiting one is void, with the reason.
    assert terms_of(approved).valid_days == 180
    assert policy_document(newer).valid_days == 40
    approved.refresh_from_db()
    assert approved.state == ReleaseState.APPROVED
    waiting.refresh_from_db()
    assert waiting.state == ReleaseState.VOIDED
    assert review_of(waiting).review_policy_id == review_of(approved).review_policy_id

    later = office.submit(deployment_name="later")
    assert review_of(later).review_policy == newer
    assert terms_of(later).valid_days == 40
    codes = set(review_of(later).checklist.values_list("code", flat=True))
    assert review_of(later).checklist.get(code="license").state == "satisfied"
    assert "supervision" in codes
    assert "oversight" not in codes


def test_an_answer_brings_the_items_along_that_it_asks_for(office: Office) -> None:
    release = office.submit()
    assert not review_of(release).checklist.filter(code="transparency").exists()
    office.decide(release, office.compliance, "request_changes")
    answered = release_answer(
        actor=principal_for_person(office.submitter),
        release_id=release.pk,
        message="Said more.",
        risk_answers={**ANSWERS, "generates_content": True},
    )
    item = review_of(answered).checklist.get(code="transparency")
    assert (item.state, item.automatic) == ("open", False)


def test_answers_that_ask_for_more_approvals_need_a_new_review(office: Office) -> None:
    office.submit(tier="high")
    release = Release.objects.get()
    assert review_of(release).required_approvals == {
        "compliance": 1,
        "model-risk": 1,
        "security": 1,
    }
    office.decide(release, office.compliance, "request_changes")
    with pytest.raises(WrongState, match="needs approval for privacy, which it did not open with"):
        release_answer(
            actor=principal_for_person(office.submitter),
            release_id=release.pk,
            message="There is personal data.",
            risk_answers={**ANSWERS, "personal_data": True},
        )


def test_without_a_policy_in_force_nothing_is_reviewed(office: Office) -> None:
    ReviewPolicy.objects.filter(state="active").update(state="superseded")
    with pytest.raises(WrongState, match="No review policy is in force"):
        office.submit()


@pytest.mark.parametrize("tier", SHIPPED)
def test_the_checklist_is_that_of_the_policy(tier: str, office: Office) -> None:
    release = office.submit(tier=tier)
    items = {item.code: item for item in review_of(release).checklist.all()}
    said = next(e for e in review_policies_in_force() if e.policy.name == tier).document
    asked = {item.code: item for item in said.items_for(ANSWERS)}
    assert set(items) == set(asked)
    for code, item in items.items():
        by_machine = asked[code].kind == "automatic" and item.state != "open"
        assert item.automatic == by_machine
        assert item.why == asked[code].why
        assert not (item.waivable and not asked[code].waivable)
    assert not items["digest"].waivable


def test_high_risk_asks_for_a_gate_and_a_card(office: Office) -> None:
    GateResult.objects.all().delete()
    Gate.objects.all().delete()
    states = {i.code: i for i in review_of(office.submit(tier="high")).checklist.all()}
    assert states["gates"].state == "failed"
    assert states["gates"].note == "No gate is set on this model. The tier high requires 1."
    assert states["card"].state == "failed"
    assert states["card"].automatic
    ModelVersion.objects.filter(pk=office.tuned.pk).update(card="# Sentiment\n\n" + "For us. " * 20)
    again = review_of(office.submit(tier="high", deployment_name="again"))
    # A length says nothing about content: a reviewer judges it.
    card = again.checklist.get(code="card")
    assert (card.state, card.automatic) == ("open", False)
    assert card.note.startswith("The card has ")


def test_a_card_that_was_too_short_is_judged_again_after_an_answer(office: Office) -> None:
    release = office.submit(tier="high")
    office.decide(release, office.compliance, "request_changes")
    ModelVersion.objects.filter(pk=office.tuned.pk).update(card="# Sentiment\n\n" + "For us. " * 20)
    release_answer(actor=proven(office.submitter), release_id=release.pk, message="Card extended.")
    card = review_of(release).checklist.get(code="card")
    assert (card.state, card.automatic) == ("open", False)


def test_no_gate_is_never_shown_as_passed(office: Office) -> None:
    GateResult.objects.all().delete()
    Gate.objects.all().delete()
    release = office.submit(tier="minimal")
    item = review_of(release).checklist.get(code="gates")
    assert item.state == "not_applicable"
    assert item.note == "No gate is set on this model, and the tier minimal requires none."
    assert not release.gated


def test_a_classification_below_that_of_the_training_data_is_found(office: Office) -> None:
    Dataset.objects.filter(pk=office.train.dataset_id).update(classification="confidential")
    item = review_of(office.submit()).checklist.get(code="classification-stated")
    assert (item.state, item.note) == (
        "failed",
        "The release states internal, but train is confidential.",
    )
    stated = {**ANSWERS, "data_classification": "restricted"}
    item = review_of(office.submit(deployment_name="b", risk_answers=stated)).checklist.get(
        code="classification-stated"
    )
    assert item.state == "satisfied"
