"""From a request to an approval: the dossier that is frozen, and who may decide on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Department
from governance.principals import Principal
from governance.reviews.models import Review
from registry.canonical import json_digest
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_get, release_review, releases_visible_to
from registry.releases.services import (
    release_answer,
    release_decide,
    release_servable,
    release_submit,
    release_withdraw,
    releases_expire_due,
)
from registry.releases.states import ALLOWED_TRANSITIONS, release_set_state
from registry.versions.models import ModelVersion, VersionState
from tests.proofs import proven
from tests.stored import version_part
from tests.unit.registry.objects import data, evaluation, model, taken_in, version
from tests.unit.registry.office import ANSWERS, ATTESTED, Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def test_a_request_freezes_all_that_is_decided_on(office: Office) -> None:
    release = office.submit()
    dossier = release.dossier
    assert release.state == ReleaseState.IN_REVIEW
    assert dossier["identity"]["files"] == office.tuned.manifest["files"]
    assert [each["digest"] for each in dossier["identity"]["bases"]] == [office.base.digest]
    assert dossier["data"]["digest"] == office.train.digest
    assert dossier["evaluations"][0]["gates"][0]["passed"] is True
    assert dossier["evaluations"][0]["rows_in_training_data"] == 0
    assert dossier["replaces"] is None
    assert dossier["policy_version"] == 1
    states = {code: state for code, (state, _) in office.checklist(release).items()}
    automatic = {"digest", "license", "evaluated", "gates", "leak", "intake"}
    automatic |= {"classification-stated", "dossier-complete"}
    assert {code for code, state in states.items() if state == "satisfied"} == automatic
    assert {code for code, state in states.items() if state == "open"} == set(ATTESTED)


def test_the_digest_can_be_computed_again_from_the_row(office: Office) -> None:
    release = Release.objects.get(pk=office.submit().pk)
    assert json_digest(release.dossier) == release.dossier_digest


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": "staging"},
        {"deployment_name": "other"},
        {"visibility": "organization"},
        {"purpose": "Sort them twice."},
        {"risk_answers": {**ANSWERS, "notes": "More."}},
        {"tier": "high"},
    ],
)
def test_the_digest_changes_with_anything_that_is_asked(
    office: Office, changes: dict[str, Any]
) -> None:
    first = office.submit()
    release_withdraw(actor=proven(office.submitter), release_id=first.pk, reason="Again.")
    assert office.submit().dossier_digest == first.dossier_digest
    Release.objects.exclude(pk=first.pk).delete()
    assert office.submit(**changes).dossier_digest != first.dossier_digest


def test_the_digest_changes_with_card_metrics_and_evaluations(office: Office) -> None:
    digests = {office.submit(deployment_name="a").dossier_digest}
    for change in ({"card": "# Other"}, {"metrics": {"loss": 1.0}}, {"license": "MIT"}):
        Release.objects.all().delete()
        ModelVersion.objects.filter(pk=office.tuned.pk).update(**change)
        office.tuned.refresh_from_db()
        digests.add(office.submit(deployment_name="a").dossier_digest)
    Release.objects.all().delete()
    evaluation(office.tuned, office.test, office.trainer)
    digests.add(office.submit(deployment_name="a").dossier_digest)
    assert len(digests) == 5


def test_two_roles_approve_it_and_then_it_may_serve(office: Office) -> None:
    release = office.submit()
    with pytest.raises(WrongState, match="it may not serve"):
        release_servable(release)
    office.attest(release)
    assert office.decide(release, office.compliance).state == ReleaseState.IN_REVIEW
    release = office.decide(release, office.risk)
    assert release.state == ReleaseState.APPROVED
    assert release.expires_at is not None
    assert release.approved_at is not None
    assert release.expires_at - release.approved_at == timedelta(days=180)
    release_servable(Release.objects.get(pk=release.pk))


@pytest.mark.parametrize("name", ["submitter", "trainer", "uploader", "supplier"])
def test_who_had_a_part_in_it_may_not_approve_it(office: Office, name: str) -> None:
    release = office.submit()
    office.attest(release)
    with pytest.raises(NotPermitted, match="Separation of duties") as refused:
        office.decide(release, getattr(office, name))
    assert refused.value.attempt is not None
    release.refresh_from_db()
    assert release.state == ReleaseState.IN_REVIEW


def test_an_unmet_checklist_keeps_it_from_being_approved(office: Office) -> None:
    release = office.submit()
    with pytest.raises(WrongState, match="cannot be approved"):
        office.decide(release, office.compliance)


def test_requested_changes_are_answered_with_a_new_dossier(office: Office) -> None:
    release = office.submit()
    old = release.dossier_digest
    assert office.decide(release, office.compliance, "request_changes").state == (
        ReleaseState.CHANGES_REQUESTED
    )
    answered = release_answer(
        actor=proven(office.submitter),
        release_id=release.pk,
        message="Said who oversees it.",
        risk_answers={**ANSWERS, "notes": "A pharmacist reads every one."},
    )
    assert answered.state == ReleaseState.IN_REVIEW
    assert answered.dossier_digest != old
    assert answered.dossier["risk"]["answers"]["notes"] == "A pharmacist reads every one."
    office.attest(answered)
    with pytest.raises(WrongState, match="is about"):
        office.decide(answered, office.compliance, digest=old)
    office.decide(answered, office.compliance)
    assert office.decide(answered, office.risk).state == ReleaseState.APPROVED


def test_there_is_nothing_to_answer_before_changes_are_requested(office: Office) -> None:
    with pytest.raises(WrongState, match="nothing to answer"):
        release_answer(
            actor=proven(office.submitter),
            release_id=office.submit().pk,
            message="Hello.",
        )


def test_an_evaluation_after_freezing_asks_for_a_new_dossier(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    evaluation(office.tuned, office.test, office.trainer, metrics={"accuracy": 0.2})
    with pytest.raises(WrongState, match="is voided"):
        office.decide(release, office.compliance)
    review = release_review(release)
    assert review is not None
    assert not review.decisions.exists()


def test_a_recalled_version_or_base_is_neither_released_nor_approved_nor_served(
    office: Office,
) -> None:
    approved = office.approve(office.submit())
    waiting = office.submit(deployment_name="second")
    office.attest(waiting)
    office.base.state = VersionState.RECALLED
    office.base.save()
    with pytest.raises(WrongState, match=r"minilm v1 is recalled; sentiment v1 cannot be served"):
        release_servable(Release.objects.get(pk=approved.pk))
    with pytest.raises(WrongState, match="minilm v1 is recalled"):
        office.decide(waiting, office.compliance)
    with pytest.raises(WrongState, match="minilm v1 is recalled"):
        office.submit(deployment_name="third")


def test_a_changed_dossier_or_other_bytes_may_not_serve(office: Office) -> None:
    release = office.approve(office.submit())
    release.dossier["purpose"] = "Anything."
    with pytest.raises(WrongState, match="does not have the digest that was approved"):
        release_servable(release)
    release = Release.objects.get(pk=release.pk)
    release.version.digest = "0" * 64
    with pytest.raises(WrongState, match=r"names .*, not 000000000000"):
        release_servable(release)


def test_a_release_whose_users_or_place_were_changed_after_approval_may_not_serve(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = office.approve(office.submit())
    release.departments.add(department("finance"))
    with pytest.raises(WrongState, match="was approved with other departments than it has now"):
        release_servable(Release.objects.get(pk=release.pk))
    release.departments.remove(department("finance"))
    release_servable(Release.objects.get(pk=release.pk))
    Release.objects.filter(pk=release.pk).update(visibility="organization")
    with pytest.raises(WrongState, match="was approved with other visibility"):
        release_servable(Release.objects.get(pk=release.pk))


def test_a_row_that_says_approved_without_the_votes_may_not_serve(office: Office) -> None:
    release = office.submit()
    now = timezone.now()
    Release.objects.filter(pk=release.pk).update(
        state="approved", approved_at=now, expires_at=now + timedelta(days=1)
    )
    forged = Release.objects.get(pk=release.pk)
    with pytest.raises(WrongState, match="has no review that approves its dossier"):
        release_servable(forged)
    Review.objects.update(state="approved")
    with pytest.raises(WrongState, match="has no review that approves its dossier"):
        release_servable(forged)


def test_an_approval_ends_by_itself(office: Office) -> None:
    release = office.approve(office.submit())
    assert releases_expire_due() == 0
    assert release.grace_days == 7
    Release.objects.update(expires_at=timezone.now() - timedelta(days=7))
    release.refresh_from_db()
    with pytest.raises(WrongState, match=r"expired on .*, and its grace is over"):
        release_servable(release)
    assert releases_expire_due() == 1
    release.refresh_from_db()
    assert release.state == ReleaseState.EXPIRED


def test_withdrawing_ends_the_review_and_the_serving(office: Office) -> None:
    who = proven(office.submitter)
    waiting = office.submit(deployment_name="second")
    release_withdraw(actor=who, release_id=waiting.pk, reason="Not needed.")
    review = release_review(waiting)
    assert review is not None
    assert review.state == "withdrawn"
    approved = office.approve(office.submit())
    release = release_withdraw(actor=who, release_id=approved.pk, reason="Not needed.")
    with pytest.raises(WrongState, match="is withdrawn; it may not serve"):
        release_servable(release)
    with pytest.raises(WrongState, match="is withdrawn; it cannot become withdrawn"):
        release_withdraw(actor=who, release_id=approved.pk, reason="Again.")


def test_the_dossier_shows_what_it_replaces(office: Office) -> None:
    live = office.approve(office.submit())
    again = office.submit()
    assert again.dossier["replaces"]["release"] == live.pk
    assert again.dossier["replaces"]["digest"] == office.tuned.digest
    with pytest.raises(WrongState, match="a second request was not made"):
        office.submit()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"environment": "moon"}, "environment"),
        ({"deployment_name": "No Name"}, "deployment_name"),
        ({"departments": []}, "departments"),
        ({"visibility": "all"}, "visibility"),
        ({"purpose": " "}, "purpose"),
        ({"tier": "none"}, "tier"),
        ({"tier": "minimal", "risk_answers": {**ANSWERS, "personal_data": True}}, "tier"),
        ({"risk_answers": {**ANSWERS, "autonomy": "decides"}}, "tier"),
        ({"risk_answers": {}}, "risk_answers.intended_purpose"),
        (
            {"risk_answers": {**ANSWERS, "special_categories": True}},
            "risk_answers.special_categories",
        ),
        ({"risk_answers": {**ANSWERS, "annex_iii": "sports"}}, "risk_answers.annex_iii"),
        ({"risk_answers": {**ANSWERS, "extra": 1}}, "risk_answers.extra"),
        ({"risk_answers": {**ANSWERS, "personal_data": "no"}}, "risk_answers.personal_data"),
    ],
)
def test_a_malformed_request_names_its_field(
    office: Office, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        office.submit(**changes)
    assert field in refused.value.fields
    assert not Release.objects.exists()


def test_above_minimal_a_measurement_is_asked_for(office: Office) -> None:
    unmeasured = version(office.tuned.model, office.trainer, "full", office.base)
    with pytest.raises(InvalidInput, match="was never evaluated"):
        office.submit(version=unmeasured)
    release = office.submit(version=unmeasured, tier="minimal")
    states = office.checklist(release)
    assert states["evaluated"] == (
        "not_applicable",
        "It was not evaluated, and the tier minimal does not require it.",
    )
    assert states["gates"] == ("failed", "accuracy >= 0.75 on test: not measured.")


def test_a_task_without_evaluation_says_so(office: Office) -> None:
    encoder = version(
        model(office.supplier, office.clinical, "encoder", "embeddings"), office.supplier
    )
    taken_in(encoder, office.supplier, office.operator)
    states = office.checklist(office.submit(version=encoder))
    assert states["evaluated"] == (
        "not_applicable",
        "The task embeddings has no evaluation.",
    )
    assert states["leak"][0] == "not_applicable"
    assert states["classification-stated"][0] == "not_applicable"


def test_failed_gates_leaks_and_tampered_bytes_fail_the_checklist(office: Office) -> None:
    leaky = data(office.uploader, office.clinical, "leaky", [{"text": "TEXT 1", "label": "good"}])
    evaluation(office.tuned, leaky, office.trainer)
    evaluation(office.tuned, office.test, office.trainer, metrics={"accuracy": 0.5})
    file = version_part(office.tuned.digest, "model.safetensors")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"!")
    states = office.checklist(office.submit())
    assert states["gates"] == ("failed", "accuracy >= 0.75 on test: failed with 0.5.")
    assert states["leak"][0] == "failed"
    assert "leaky: 1 of 1 row is in the training data." in states["leak"][1]
    assert states["digest"][0] == "failed"
    assert "model.safetensors has SHA-256" in states["digest"][1]


def test_another_department_neither_submits_nor_sees(
    office: Office, actor: Callable[..., Principal]
) -> None:
    release = office.submit()
    stranger = actor("Fritz", "developer@finance")
    with pytest.raises(NotFound):
        release_submit(
            actor=stranger,
            version=office.tuned,
            environment="production",
            deployment_name="x",
            departments=[office.clinical],
            purpose="x",
            risk_answers=ANSWERS,
        )
    with pytest.raises(NotFound):
        release_get(actor=stranger, id=release.pk)
    with pytest.raises(NotFound):
        release_withdraw(actor=stranger, release_id=release.pk, reason="x")
    with pytest.raises(NotFound):
        release_decide(
            actor=stranger,
            release_id=release.pk,
            verdict="approve",
            reason="x",
            digest=release.dossier_digest,
        )
    assert releases_visible_to(proven(office.risk)).get() == release


def test_a_list_of_releases_takes_a_fixed_number_of_queries(
    office: Office, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for name in ("a", "b", "c"):
        office.submit(deployment_name=name)
    reader = proven(office.risk)
    with django_assert_num_queries(3):
        for release in releases_visible_to(reader):
            assert release.version.model.department == release.department
            assert [each.slug for each in release.departments.all()] == ["clinical"]
            assert release.submitted_by.name == "Devi"


@pytest.mark.parametrize("before", list(ReleaseState))
def test_every_allowed_transition_of_a_release_is_saved(
    office: Office, before: ReleaseState
) -> None:
    release = office.submit()
    release.approved_at = release.expires_at = timezone.now()
    release.voided_because = "Something changed."
    for after in ALLOWED_TRANSITIONS[before]:
        release.state = before
        release.save()
        move(office, release, after)
        assert Release.objects.get(pk=release.pk).state == after


def move(office: Office, release: Release, after: ReleaseState) -> None:
    release_set_state(actor=proven(office.operator), release=release, state=after, reason="Why.")
