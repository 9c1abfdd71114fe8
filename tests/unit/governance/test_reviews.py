from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Department, Person, RoleAssignment
from governance.principals import Principal
from governance.reviews.checklist import ChecklistEntry, CheckOutcome, checklist_attest
from governance.reviews.models import Decision, Review, ReviewState
from governance.reviews.selectors import (
    review_standing,
    reviews_visible_to,
    verdict_obstacle_words,
)
from governance.reviews.services import (
    review_answer,
    review_close,
    review_decide,
)
from governance.reviews.states import ALLOWED_TRANSITIONS, review_set_state
from governance.reviews.threads import limits
from tests.people import set_up_alone
from tests.proofs import proven

DIGEST, OTHER = "a" * 64, "b" * 64


def decide(actor: Principal, review: Review, verdict: str, **changes: Any) -> Review:
    asked: dict[str, Any] = {"reason": "because", "digest": review.digest, "specialty": ""}
    return review_decide(actor=actor, review_id=review.pk, verdict=verdict, **(asked | changes))


@pytest.mark.parametrize(
    ("before", "after"),
    [(before, after) for before, states in ALLOWED_TRANSITIONS.items() for after in sorted(states)],
    ids=str,
)
def test_an_allowed_transition_is_saved_and_audited(
    opened: Callable[..., Review], submitter: Principal, before: ReviewState, after: ReviewState
) -> None:
    review = opened()
    Review.objects.filter(pk=review.pk).update(state=before)
    moved = review_set_state(actor=submitter, review_id=review.pk, state=after, reason="a test")
    assert moved.state == after
    assert (moved.closed_at is not None) is not ALLOWED_TRANSITIONS[after]
    verb = "reopened" if after is ReviewState.OPEN else after.value
    assert AuditEvent.objects.filter(action=f"review:{verb}").count() == 1


def test_a_refused_transition_changes_nothing(
    opened: Callable[..., Review], submitter: Principal
) -> None:
    review = opened()
    Review.objects.filter(pk=review.pk).update(state=ReviewState.REJECTED)
    with pytest.raises(WrongState, match="is rejected; it cannot become approved"):
        review_set_state(
            actor=submitter, review_id=review.pk, state=ReviewState.APPROVED, reason="a test"
        )
    assert Review.objects.get(pk=review.pk).state == ReviewState.REJECTED


def test_the_last_missing_approval_approves(
    opened: Callable[..., Review], compliance: Principal, risk: Principal
) -> None:
    review = opened()
    assert decide(compliance, review, "approve").state == ReviewState.OPEN
    standing = review_standing(review)
    assert standing.approvals == {"compliance": 1}
    assert standing.missing == {"model-risk": 1}
    approved = decide(risk, review, "approve")
    assert approved.state == ReviewState.APPROVED
    assert approved.closed_at is not None
    assert review_standing(approved).complete


def test_a_vote_is_not_taken_twice(opened: Callable[..., Review], compliance: Principal) -> None:
    review = opened()
    decide(compliance, review, "approve")
    for verdict in ("approve", "reject", "request_changes"):
        with pytest.raises(WrongState, match="has voted in round 1"):
            decide(compliance, review, verdict)
    decide(compliance, review, "comment")


def test_someone_with_two_specialties_counts_once(
    opened: Callable[..., Review], actor: Callable[..., Principal]
) -> None:
    review = opened()
    both = actor("Bea", "reviewer:compliance", "reviewer:model-risk")
    with pytest.raises(InvalidInput, match="compliance or model-risk"):
        decide(both, review, "approve")
    assert decide(both, review, "approve", specialty="compliance").state == ReviewState.OPEN
    assert review_standing(review).missing == {"model-risk": 1}
    with pytest.raises(WrongState, match="has voted"):
        decide(both, review, "approve", specialty="model-risk")


def test_with_one_specialty_left_to_give_it_need_not_be_named(
    opened: Callable[..., Review], actor: Callable[..., Principal], compliance: Principal
) -> None:
    review = opened()
    decide(compliance, review, "approve")
    both = actor("Bea", "reviewer:compliance", "reviewer:model-risk")
    assert decide(both, review, "approve").state == ReviewState.APPROVED


@pytest.mark.parametrize("specialty", ["", "privacy", "compliance", "cheese\x00"])
def test_an_approval_needs_a_specialty_that_is_held_and_asked_for(
    opened: Callable[..., Review], actor: Callable[..., Principal], specialty: str
) -> None:
    review = opened()
    privacy = actor("Priya", "reviewer:privacy")
    with pytest.raises(NotPermitted, match="needs approval for compliance and model-risk"):
        decide(privacy, review, "approve", specialty=specialty)
    assert not Decision.objects.exists()
    # Any reviewer may reject a release.
    assert decide(privacy, review, "reject").state == ReviewState.REJECTED


@pytest.mark.parametrize("verdict", ["approve", "reject", "request_changes"])
def test_the_submitter_never_decides_whatever_they_are(
    opened: Callable[..., Review], submitter: Principal, verdict: str
) -> None:
    review = opened()
    RoleAssignment.objects.create(
        person_id=submitter.person_id, role="reviewer", specialty="compliance"
    )
    reviewing = review.opened_by
    for who in (submitter, proven(reviewing)):
        with pytest.raises(NotPermitted, match="Separation of duties: Dora submitted") as caught:
            decide(who, review, verdict)
        assert caught.value.code == "separation_of_duties"
        attempt = caught.value.attempt
        assert attempt is not None
        assert (attempt.action, attempt.subject.type) == ("release:decide", "review")
        assert verdict_obstacle_words(who, review, verdict) == caught.value.message
    assert decide(submitter, review, "comment").state == ReviewState.OPEN


def test_an_excluded_person_neither_decides_nor_attests(
    opened: Callable[..., Review], compliance: Principal
) -> None:
    assert compliance.person_id is not None
    review = opened(
        excluded_people=[compliance.person_id], checklist=[ChecklistEntry("purpose", "Purpose")]
    )
    with pytest.raises(NotPermitted, match="had a part in") as caught:
        decide(compliance, review, "approve")
    assert caught.value.attempt is not None
    with pytest.raises(NotPermitted, match="may not attest") as caught:
        checklist_attest(actor=compliance, review_id=review.pk, code="purpose", note="fine")
    assert caught.value.attempt is not None
    assert caught.value.attempt.action == "checklist:attest"


def test_approval_waits_for_the_checklist_and_says_for_what(
    opened: Callable[..., Review], compliance: Principal, risk: Principal
) -> None:
    review = opened(
        checklist=[
            ChecklistEntry("digest", "Digest verified", outcome=CheckOutcome.PASSED),
            ChecklistEntry("purpose", "Purpose stated"),
        ]
    )
    with pytest.raises(WrongState, match=r"cannot be approved: Purpose stated \(needs judgment\)"):
        decide(compliance, review, "approve")
    item = checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="read it")
    assert (item.state, item.attested_by_id) == ("satisfied", risk.person_id)
    with pytest.raises(WrongState, match="attested already"):
        checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="again")
    assert verdict_obstacle_words(compliance, review, "approve") == ""
    decide(compliance, review, "approve")
    assert decide(risk, review, "approve").state == ReviewState.APPROVED


def test_what_a_machine_found_wrong_no_reviewer_can_attest(
    opened: Callable[..., Review], compliance: Principal
) -> None:
    review = opened(
        checklist=[
            ChecklistEntry(
                "gates", "Gates passed", outcome=CheckOutcome.FAILED, note="accuracy is 0.4."
            )
        ]
    )
    with pytest.raises(WrongState, match=r"Gates passed \(failed: accuracy is 0\.4\)"):
        decide(compliance, review, "approve")
    with pytest.raises(WrongState, match="checked automatically"):
        checklist_attest(actor=compliance, review_id=review.pk, code="gates", note="trust me")
    for missing in ("cheese", "a\x00b"):
        with pytest.raises(NotFound, match="has no item"):
            checklist_attest(actor=compliance, review_id=review.pk, code=missing, note="x")
    assert decide(compliance, review, "reject").state == ReviewState.REJECTED


def test_an_answer_begins_a_round_in_which_old_votes_do_not_count(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    review = opened(
        checklist=[
            ChecklistEntry("purpose", "Purpose"),
            ChecklistEntry("gates", "Gates", outcome=CheckOutcome.FAILED),
        ]
    )
    checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="read it")
    review = decide(compliance, review, "request_changes", reason="a gate failed")
    assert review.state == ReviewState.CHANGES_REQUESTED
    with pytest.raises(WrongState, match="is changes requested; it cannot take") as caught:
        decide(risk, review, "approve")
    assert "clinical has answered" in caught.value.hint

    gates = ChecklistEntry("gates", "Gates", outcome=CheckOutcome.PASSED)
    review = review_answer(
        actor=submitter,
        review_id=review.pk,
        digest=OTHER,
        message="trained longer",
        checklist=[gates],
    )
    assert (review.state, review.round, review.digest) == (ReviewState.OPEN, 2, OTHER)
    # Another digest takes back what was attested about the old one.
    assert [item.code for item in review_standing(review).blocking] == ["purpose"]
    checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="read it again")
    with pytest.raises(WrongState, match="the decision was not taken") as stale:
        decide(compliance, review, "approve", digest=DIGEST)
    assert stale.value.code == "digest_mismatch"
    decide(compliance, review, "approve")
    assert review_standing(review).missing == {"model-risk": 1}


def test_answering_with_the_same_digest_keeps_what_was_attested(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    review = opened(checklist=[ChecklistEntry("purpose", "Purpose")])
    checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="read it")
    decide(compliance, review, "request_changes")
    review = review_answer(
        actor=submitter, review_id=review.pk, digest=DIGEST, message="it is meant so"
    )
    decide(compliance, review, "approve")
    assert decide(risk, review, "approve").state == ReviewState.APPROVED


def test_only_its_department_answers_and_only_when_asked(
    opened: Callable[..., Review],
    submitter: Principal,
    compliance: Principal,
    actor: Callable[..., Principal],
) -> None:
    review = opened()
    asked: dict[str, Any] = {"review_id": review.pk, "digest": OTHER, "message": "here"}
    with pytest.raises(WrongState, match="nothing to answer"):
        review_answer(actor=submitter, **asked)
    decide(compliance, review, "request_changes")
    with pytest.raises(NotPermitted):
        review_answer(actor=compliance, **asked)
    with pytest.raises(NotFound):
        review_answer(actor=actor("Finn", "lead@finance"), **asked)
    with pytest.raises(InvalidInput):
        review_answer(actor=submitter, **(asked | {"message": " \x00"}))


def test_who_answers_has_had_a_part_in_it(
    opened: Callable[..., Review], compliance: Principal, actor: Callable[..., Principal]
) -> None:
    review = opened()
    decide(compliance, review, "request_changes")
    colleague = actor("Carl", "developer@clinical", "reviewer:model-risk")
    review_answer(actor=colleague, review_id=review.pk, digest=OTHER, message="mended")
    review.refresh_from_db()
    with pytest.raises(NotPermitted, match="Separation of duties"):
        decide(colleague, review, "approve")


def test_who_attested_and_then_answers_for_the_department_has_attested_nothing(
    opened: Callable[..., Review],
    compliance: Principal,
    risk: Principal,
    actor: Callable[..., Principal],
) -> None:
    review = opened(checklist=[ChecklistEntry(code, code) for code in ("purpose", "oversight")])
    both = actor("Bea", "developer@clinical", "reviewer:model-risk")
    checklist_attest(actor=both, review_id=review.pk, code="purpose", note="read it")
    checklist_attest(actor=risk, review_id=review.pk, code="oversight", note="read it")
    decide(compliance, review, "request_changes")
    review = review_answer(actor=both, review_id=review.pk, digest=DIGEST, message="it is so")
    assert [item.code for item in review_standing(review).blocking] == ["purpose"]


@pytest.mark.parametrize("state", ["approved", "rejected", "withdrawn", "voided"])
def test_a_closed_review_takes_nothing_more(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal, state: str
) -> None:
    review = opened(checklist=[ChecklistEntry("purpose", "Purpose")])
    Review.objects.filter(pk=review.pk).update(state=state)
    for verdict in ("comment", "request_changes", "approve", "reject"):
        with pytest.raises(WrongState, match=f"is {state}; it cannot take"):
            decide(compliance, review, verdict)
    with pytest.raises(WrongState):
        checklist_attest(actor=compliance, review_id=review.pk, code="purpose", note="x")
    with pytest.raises(WrongState):
        review_close(actor=submitter, review_id=review.pk, state="withdrawn", reason="x")


def test_its_department_withdraws_and_another_subject_may_follow(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal
) -> None:
    review = opened()
    with pytest.raises(WrongState, match="under review already"):
        opened()
    with pytest.raises(NotPermitted):
        review_close(actor=compliance, review_id=review.pk, state="withdrawn", reason="x")
    with pytest.raises(InvalidInput):
        review_close(actor=submitter, review_id=review.pk, state="approved", reason="x")
    closed = review_close(actor=submitter, review_id=review.pk, state="withdrawn", reason="not yet")
    assert closed.state == ReviewState.WITHDRAWN
    assert opened().pk != review.pk


@pytest.mark.parametrize(
    "quorum", [{}, {"compliance": 0}, {"cheese": 1}, {"compliance": 1, "security": -1}]
)
def test_a_quorum_never_defaults(opened: Callable[..., Review], quorum: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="at least one approval"):
        opened(required_approvals=quorum)
    assert not Review.objects.exists()


@pytest.mark.parametrize(
    ("verdict", "changes", "error"),
    [
        ("cheese", {}, InvalidInput),
        ("approve", {"reason": "  "}, InvalidInput),
        ("approve", {"reason": "x" * 4001}, InvalidInput),
        ("approve", {"digest": OTHER}, WrongState),
        ("comment", {"digest": ""}, WrongState),
    ],
)
def test_a_decision_that_is_wrong_in_itself_changes_nothing(
    opened: Callable[..., Review],
    compliance: Principal,
    verdict: str,
    changes: dict[str, str],
    error: type[DomainError],
) -> None:
    with pytest.raises(error):
        decide(compliance, opened(), verdict, **changes)
    assert not Decision.objects.exists()


def test_a_review_one_may_not_see_does_not_exist(
    opened: Callable[..., Review],
    actor: Callable[..., Principal],
    compliance: Principal,
    submitter: Principal,
) -> None:
    review = opened()
    stranger = actor("Finn", "lead@finance")
    assert not reviews_visible_to(stranger).exists()
    for review_id in (review.pk, review.pk + 1000, 10**30):
        with pytest.raises(NotFound):
            review_decide(
                actor=stranger, review_id=review_id, verdict="comment", reason="x", digest=DIGEST
            )
    assert verdict_obstacle_words(stranger, review, "comment") != ""
    for member in (compliance, submitter):
        assert reviews_visible_to(member).get() == review


def test_a_viewer_comments_and_does_not_decide(
    opened: Callable[..., Review], actor: Callable[..., Principal]
) -> None:
    review = opened()
    viewer = actor("Vera", "viewer@clinical")
    assert decide(viewer, review, "comment").state == ReviewState.OPEN
    with pytest.raises(NotPermitted, match="may not decide on release"):
        decide(viewer, review, "approve")


def test_nobody_comments_without_end(
    opened: Callable[..., Review],
    actor: Callable[..., Principal],
    compliance: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So many comments would fit no evidence pack."""
    monkeypatch.setattr(limits, "COMMENTS_MAX", 2)
    review, viewer = opened(), actor("Vera", "viewer@clinical")
    for _ in range(2):
        decide(viewer, review, "comment")
    with pytest.raises(WrongState, match="2 comments"):
        decide(viewer, review, "comment")
    decide(compliance, review, "comment")
    decide(compliance, review, "approve")
    assert review.decisions.count() == 4


def test_only_people_submit(
    opened: Callable[..., Review], department: Callable[[str], Department]
) -> None:
    from governance.principals import service_principal

    with pytest.raises(DomainError):
        opened(actor=service_principal("controller"))


def test_every_decision_is_audited_with_what_it_was_about(
    opened: Callable[..., Review], compliance: Principal
) -> None:
    review = opened()
    decide(compliance, review, "approve", reason="sound")
    event = AuditEvent.objects.get(action="release:decide")
    assert (event.subject_type, event.subject_id) == ("review", str(review.pk))
    assert (event.reason, event.department, event.policy_version) == ("sound", "clinical", 1)
    body = bytes(event.canonical).decode()
    assert DIGEST in body
    assert '"specialty":"compliance"' in body


def test_who_set_an_authors_account_up_alone_is_excluded(
    opened: Callable[..., Review], person: Callable[..., Person], compliance: Principal
) -> None:
    """An administrator who could act as the author must not review as themselves."""
    maker, author = Person.objects.get(pk=compliance.person_id), person("Ana", "developer@clinical")
    set_up_alone(maker, author)
    review = opened(excluded_people=[author.pk])
    assert maker.pk in review.excluded_people
    with pytest.raises(NotPermitted) as caught:
        decide(compliance, review, "approve")
    assert caught.value.code == "separation_of_duties"
