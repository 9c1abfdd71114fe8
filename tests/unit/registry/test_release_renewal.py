"""Submitting a release again: which can be, what is carried over, and that the rest is anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Department, Person
from governance.policy.services import policy_bootstrap
from governance.reviews.checklist import checklist_attest
from governance.reviews.models import ChecklistItem, Review
from governance.reviews.policies.shipping import review_policies_bootstrap
from registry.releases.carrying import AGAIN, renewal_obstacle
from registry.releases.models import Release, ReleaseState
from registry.releases.renewal import (
    release_history,
    release_renew,
    release_renewal,
    renewal_preview,
)
from registry.releases.selectors import release_review
from registry.releases.services import release_answer, release_withdraw
from registry.releases.serving import release_servable
from registry.releases.validity import releases_expiring
from tests.proofs import proven
from tests.unit.audit_support import bodies, recorded
from tests.unit.registry.evidence_world import faults, files_of, packed
from tests.unit.registry.objects import evaluation
from tests.unit.registry.office import ANSWERS, ATTESTED, Office

pytestmark = pytest.mark.sweep


def in_state(release: Release, state: ReleaseState, **more: Any) -> Release:
    because = "It was evaluated again." if state is ReleaseState.VOIDED else ""
    Release.objects.filter(pk=release.pk).update(state=state, voided_because=because, **more)
    return Release.objects.get(pk=release.pk)


def ended(office: Office, name: str = "review-sentiment") -> Release:
    """An approved release whose time is over."""
    release = office.approve(office.submit(deployment_name=name))
    return in_state(release, ReleaseState.EXPIRED, expires_at=timezone.now() - timedelta(days=9))


def renew(office: Office, release: Release, who: Person | None = None, **given: Any) -> Release:
    return release_renew(actor=proven(who or office.submitter), release_id=release.pk, **given)


def carried(release: Release) -> set[str]:
    review = release_review(release)
    assert review is not None
    return {item.code for item in review.checklist.all() if item.carried_from_id is not None}


@pytest.mark.django_db
@pytest.mark.parametrize("state", list(ReleaseState))
def test_what_is_at_an_end_can_be_submitted_again(state: ReleaseState, office: Office) -> None:
    ends = timezone.now() + timedelta(days=90)
    release = office.submit()
    release.state, release.expires_at = state, ends
    obstacle = renewal_obstacle(release)
    assert (obstacle is None) == (state in AGAIN)
    if obstacle is not None:
        assert "it cannot be submitted again" in obstacle.message


@pytest.mark.django_db
def test_an_approved_one_can_be_near_its_end_and_in_its_grace(office: Office) -> None:
    release = office.approve(office.submit())
    with pytest.raises(WrongState, match="its approval lasts until"):
        renew(office, release)
    for days in (29, -3):
        Release.objects.update(expires_at=timezone.now() + timedelta(days=days))
        assert renewal_obstacle(Release.objects.get(pk=release.pk)) is None
    again = renew(office, release)
    release_servable(Release.objects.get(pk=release.pk))
    assert again.dossier["replaces"]["release"] == release.pk


@pytest.mark.django_db
def test_a_renewal_says_the_same_and_is_decided_anew(office: Office) -> None:
    old = ended(office)
    again = renew(office, old)
    assert again.renews == old
    assert again.state == ReleaseState.IN_REVIEW
    for same in ("purpose", "risk_answers", "dossier_fields", "tier", "environment", "visibility"):
        assert getattr(again, same) == getattr(old, same)
    assert set(again.departments.all()) == set(old.departments.all())
    assert (again.dossier, again.dossier_digest) == (old.dossier, old.dossier_digest)
    review = release_review(again)
    assert review is not None
    assert not review.decisions.exists()
    event = recorded(action="release:submit", subject_id=str(again.pk))
    assert bodies(pk=event.pk)[0]["data"]["renews"] == old.pk
    office.decide(again, office.compliance)
    assert office.decide(again, office.risk).state == ReleaseState.APPROVED
    release_servable(Release.objects.get(pk=again.pk))


@pytest.mark.django_db
def test_what_was_approved_anew_needs_no_more_reminding(office: Office) -> None:
    old = office.approve(office.submit())
    Release.objects.update(expires_at=timezone.now() + timedelta(days=3))
    again = renew(office, old)
    assert [each.pk for each in releases_expiring()] == [old.pk]
    office.decide(again, office.compliance)
    office.decide(again, office.risk)
    assert not releases_expiring().exists()


@pytest.mark.django_db
def test_attestations_whose_basis_stands_are_carried_over_by_name_and_date(office: Office) -> None:
    old = ended(office)
    again = renew(office, old)
    assert carried(again) == set(ATTESTED)
    was, now = release_review(old), release_review(again)
    assert was is not None
    assert now is not None
    before = {item.code: item for item in was.checklist.all()}
    for item in now.checklist.filter(carried_from__isnull=False):
        assert (item.attested_by, item.attested_at, item.note, item.carried_from) == (
            before[item.code].attested_by,
            before[item.code].attested_at,
            before[item.code].note,
            was,
        )
    (event,) = bodies(action="checklist:carry_over")
    assert {each["code"] for each in event["data"]["items"]} == set(ATTESTED)
    # An item that is carried over twice names the release in which it was attested.
    third = renew(office, in_state(again, ReleaseState.VOIDED))
    assert set(
        ChecklistItem.objects.filter(
            review=release_review(third), carried_from__isnull=False
        ).values_list("carried_from", flat=True)
    ) == {was.pk}


@pytest.mark.django_db
def test_a_pack_says_what_was_carried_over(office: Office) -> None:
    old = ended(office)
    again = renew(office, old)
    office.decide(again, office.compliance)
    office.decide(again, office.risk)
    files = files_of(packed(office, Release.objects.get(pk=again.pk)))
    assert faults(files) == {}
    assert f'"renews":{old.pk}'.encode() in files["decisions.json"].replace(b" ", b"")


@pytest.mark.django_db
def test_what_rests_on_what_changed_is_attested_anew(office: Office) -> None:
    purposed = renew(office, ended(office), purpose="Sort letters.")
    # Every item rests on the purpose.
    assert carried(purposed) == set()
    preview = renewal_preview(
        actor=proven(office.submitter), release_id=in_state(purposed, ReleaseState.VOIDED).pk
    )
    assert preview.carried == []
    assert len(preview.anew) == len(ATTESTED)


@pytest.mark.django_db
def test_answers_that_changed_take_every_attestation_back(office: Office) -> None:
    answers = {**ANSWERS, "notes": "Overseen by the head of the pharmacy."}
    assert carried(renew(office, ended(office), risk_answers=answers)) == set()


@pytest.mark.django_db
def test_a_new_measurement_changes_what_rests_on_it_alone(office: Office) -> None:
    old = ended(office)
    evaluation(office.tuned, office.test, office.trainer)
    preview = renewal_preview(actor=proven(office.submitter), release_id=old.pk)
    changes = {change.section: (change.before, change.after) for change in preview.changes}
    assert changes["evaluations"] == ("1 evaluation", "2 evaluations")
    assert {item.code for item in preview.carried} == set(ATTESTED)
    assert carried(renew(office, old)) == set(ATTESTED)


@pytest.mark.django_db
def test_an_item_in_other_words_is_attested_anew(office: Office) -> None:
    old = ended(office)
    review = release_review(old)
    ChecklistItem.objects.filter(review=review, code="oversight").update(title="Somebody watches")
    assert carried(renew(office, old)) == set(ATTESTED) - {"oversight"}


@pytest.mark.django_db
def test_an_item_that_is_not_known_rests_on_everything(office: Office) -> None:
    old = ended(office)
    ChecklistItem.objects.filter(review=release_review(old), code="oversight").update(
        code="something-else"
    )
    preview = renewal_preview(actor=proven(office.submitter), release_id=old.pk)
    assert "oversight" not in {item.code for item in preview.carried}


@pytest.mark.django_db
def test_who_had_a_part_in_it_by_now_vouches_for_nothing(office: Office) -> None:
    old = ended(office)
    evaluation(office.tuned, office.test, office.compliance)
    again = renew(office, old)
    assert carried(again) == set()
    assert not renewal_preview(
        actor=proven(office.submitter), release_id=in_state(again, ReleaseState.VOIDED).pk
    ).carried


@pytest.mark.django_db
def test_of_what_was_rejected_nothing_is_carried_over(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    office.decide(release, office.compliance, "reject")
    assert carried(renew(office, release)) == set()


@pytest.mark.django_db
def test_what_was_carried_over_can_be_attested_anew_and_an_answer_takes_it_back(
    office: Office,
) -> None:
    again = renew(office, ended(office))
    review = release_review(again)
    assert review is not None
    item = checklist_attest(
        actor=proven(office.risk), review_id=review.pk, code="oversight", note="Asked them."
    )
    assert (item.attested_by, item.carried_from) == (office.risk, None)
    with pytest.raises(WrongState, match="attested already"):
        checklist_attest(
            actor=proven(office.risk), review_id=review.pk, code="oversight", note="Again."
        )
    office.decide(again, office.risk, "request_changes")
    release_answer(
        actor=proven(office.submitter),
        release_id=again.pk,
        message="Said more.",
        risk_answers={**ANSWERS, "notes": "More."},
    )
    assert carried(again) == set()


@pytest.mark.django_db
def test_nothing_that_nobody_attested_is_marked_as_carried_over(office: Office) -> None:
    old, review = ended(office), release_review(renew(office, ended(office, name="other")))
    for item in (
        ChecklistItem.objects.filter(review=review, automatic=True).first(),
        ChecklistItem.objects.filter(review=review, automatic=False).first(),
    ):
        assert item is not None
        item.carried_from, item.attested_by = release_review(old), None
        with pytest.raises(IntegrityError, match="only_what_was_attested"), transaction.atomic():
            item.save()


@pytest.mark.django_db
def test_a_second_renewal_waits_for_the_first(office: Office) -> None:
    old = ended(office)
    renew(office, old)
    with pytest.raises(WrongState, match="a second request was not made"):
        renew(office, old)


@pytest.mark.django_db
def test_a_renewal_is_of_the_same_version_in_the_same_place(office: Office) -> None:
    with pytest.raises(InvalidInput, match="a renewal must have the same version"):
        office.submit(renews=ended(office), deployment_name="other")


@pytest.mark.django_db
def test_who_may_not_ask_does_not_renew(office: Office, person: Callable[..., Person]) -> None:
    old = ended(office)
    with pytest.raises(NotPermitted):
        renew(office, old, office.compliance)
    with pytest.raises(NotPermitted):
        renewal_preview(actor=proven(office.compliance), release_id=old.pk)
    with pytest.raises(NotFound):
        renew(office, old, person("Fay", "lead@finance"))
    assert Release.objects.count() == 1


@pytest.mark.django_db
def test_both_know_each_other_and_their_history(
    office: Office, person: Callable[..., Person]
) -> None:
    old = ended(office)
    again = renew(office, old)
    mine, strange = proven(office.submitter), proven(person("Fay", "lead@finance"))
    assert release_renewal(actor=mine, release=old) == again
    assert release_renewal(actor=strange, release=old) is None
    assert list(release_history(actor=mine, release=again)) == [again, old]
    assert not release_history(actor=strange, release=again).exists()
    release_withdraw(actor=mine, release_id=again.pk, reason="Later.")
    assert release_renewal(actor=mine, release=old) == again


@pytest.mark.django_db
def test_an_obstacle_is_said_before_it_is_met(office: Office) -> None:
    waiting = office.submit()
    seen = renewal_preview(actor=proven(office.submitter), release_id=waiting.pk)
    assert "is in review; it cannot be submitted again" in seen.obstacle
    old = in_state(waiting, ReleaseState.WITHDRAWN, risk_answers={})
    seen = renewal_preview(actor=proven(office.submitter), release_id=old.pk)
    assert seen.obstacle
    with pytest.raises(InvalidInput):
        renew(office, old)


@pytest.mark.django_db(transaction=True)
def test_of_two_that_renew_at_once_one_does(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    review_policies_bootstrap()
    policy_bootstrap()
    office = Office(person, department)
    old = ended(office)
    errors: list[Exception] = []
    ready = threading.Barrier(2)

    def attempt() -> None:
        try:
            ready.wait()
            renew(office, old)
        except WrongState as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert Release.objects.filter(renews=old).count() == 1
    assert Review.objects.filter(state="open").count() == 1
