"""Conditions that approvers ask for: what can be asked, what of several holds, that it stands."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from governance.errors import InvalidInput, NotPermitted, WrongState
from governance.people.models import Department, Person
from governance.policy.services import policy_bootstrap
from governance.reviews.models import Decision
from governance.reviews.policies.shipping import review_policies_bootstrap
from registry.releases.conditions import Conditions, conditions_checked, requested_conditions
from registry.releases.logged_requests import REVIEWERS, content_readers
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.services import release_answer, release_servable, releases_expire_due
from registry.releases.states import release_set_state
from tests.proofs import proven
from tests.unit.audit_support import bodies
from tests.unit.registry.evidence_world import faults, files_of, forged, packed
from tests.unit.registry.office import Office

pytestmark = pytest.mark.sweep


def under_review(office: Office, department: Callable[[str], Department]) -> Release:
    """A release for three departments, of which nothing but the votes is missing."""
    slugs = ("clinical", "engineering", "finance")
    release = office.submit(departments=[department(slug) for slug in slugs])
    office.attest(release)
    return release


def in_days(days: int) -> datetime:
    return (timezone.now() + timedelta(days=days)).replace(microsecond=0)


@pytest.mark.django_db
def test_the_strictest_of_every_approval_holds(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    early, late = in_days(20), in_days(40)
    office.decide(
        release,
        office.compliance,
        conditions={
            "departments": ["finance", "clinical"],
            "until": late.isoformat(),
            "requests_per_minute": 100,
            "requests_per_minute_of": {"finance": 5, "clinical": 30},
            "obligations": ["A pharmacist reads every tenth answer."],
        },
    )
    approved = office.decide(
        release,
        office.risk,
        conditions={
            "departments": ["clinical", "engineering"],
            "until": early.isoformat(),
            "requests_per_minute": 250,
            "requests_per_minute_of": {"clinical": 40},
            "obligations": ["A pharmacist reads every tenth answer.", "No children."],
        },
    )
    assert approved.state == ReleaseState.APPROVED
    assert approved.conditions == {
        "departments": ["clinical"],
        "until": early.astimezone(UTC).isoformat(),
        "requests_per_minute": 100,
        "requests_per_minute_of": {"clinical": 30},
        "obligations": ["A pharmacist reads every tenth answer.", "No children."],
    }
    assert (approved.expires_at, approved.grace_days) == (early, 0)
    release_servable(Release.objects.get(pk=approved.pk))


@pytest.mark.django_db
def test_one_approver_suffices_to_open_content_to_other_reviewers(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    assert content_readers(release, proven(office.compliance)) == ""
    office.decide(release, office.compliance)
    office.decide(release, office.risk, conditions={"reviewers_read_content": True})
    release = Release.objects.get()
    assert release.conditions == {"reviewers_read_content": True}
    assert content_readers(release, proven(office.compliance)) == REVIEWERS
    assert content_readers(release, proven(office.risk)) == ""
    release_servable(release)
    with pytest.raises(InvalidInput, match="is true or false"):
        conditions_checked({"reviewers_read_content": "yes"}, release)


@pytest.mark.django_db
def test_an_approval_without_conditions_ends_as_its_terms_say(office: Office) -> None:
    approved = office.approve(office.submit())
    assert approved.conditions == {}
    assert approved.grace_days == 7
    assert approved.approved_at is not None
    assert approved.serves_until == approved.approved_at + timedelta(days=187)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"departments": ["legal"]}, "names legal, which the release does not"),
    ({"departments": "clinical"}, "is a list of departments"),
    ({"until": "2020-01-01T00:00:00Z"}, "must lie between now and"),
    ({"until": "2099-01-01T00:00:00Z"}, "when the approval ends anyway"),
    ({"until": "tomorrow"}, "is a date and time"),
    ({"until": "2027-01-01T00:00:00"}, "with its offset from UTC"),
    ({"requests_per_minute": 0}, "is a whole number from 1"),
    ({"requests_per_minute": True}, "is a whole number from 1"),
    ({"requests_per_minute": 1.5}, "is a whole number from 1"),
    ({"requests_per_minute_of": {"legal": 3}}, "names legal, which may not use it"),
    (
        {"departments": ["clinical"], "requests_per_minute_of": {"finance": 3}},
        "names finance, which may not use it",
    ),
    ({"requests_per_minute_of": {"clinical": -1}}, "is a whole number from 1"),
    ({"obligations": "be good"}, "is a list of at most 10"),
    ({"obligations": ["x"] * 11}, "is a list of at most 10"),
    ({"obligations": ["x" * 301]}, "at most 300"),
    ({"obligations": ["a\0b"]}, "NUL"),
    ({"weather": "dry"}, "weather is not a condition"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("conditions", "words"), REFUSED)
def test_what_cannot_be_asked_is_refused_and_no_vote_is_taken(
    conditions: dict[str, Any],
    words: str,
    office: Office,
    department: Callable[[str], Department],
) -> None:
    release = under_review(office, department)
    with pytest.raises(InvalidInput, match=words):
        office.decide(release, office.compliance, conditions=conditions)
    assert not Decision.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("verdict", ["comment", "reject", "request_changes"])
def test_only_an_approval_takes_conditions(verdict: str, office: Office) -> None:
    release = office.submit()
    with pytest.raises(InvalidInput, match="takes no conditions"):
        office.decide(release, office.compliance, verdict, conditions={"requests_per_minute": 5})
    with (
        pytest.raises(IntegrityError, match="only_an_approval_has_conditions"),
        transaction.atomic(),
    ):
        Decision.objects.create(
            review=release_review(release),  # type: ignore[misc]
            submitter=office.submitter,
            person=office.operator,
            verdict="comment",
            reason="Mind this.",
            conditions={"requests_per_minute": 5},
            digest=release.dossier_digest,
            round=1,
        )


@pytest.mark.django_db
def test_all_departments_are_no_condition(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    everybody = ["finance", "clinical", "engineering"]
    office.decide(release, office.compliance, conditions={"departments": everybody})
    assert Decision.objects.get().conditions == {}


@pytest.mark.django_db
def test_who_may_not_decide_asks_for_nothing(office: Office) -> None:
    release = office.submit()
    with pytest.raises(NotPermitted, match="Separation of duties"):
        office.decide(release, office.submitter, conditions={"requests_per_minute": 5})


@pytest.mark.django_db
def test_approvals_that_leave_nobody_are_not_both_taken(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    office.decide(release, office.compliance, conditions={"departments": ["clinical"]})
    with pytest.raises(WrongState, match="together they leave no department"):
        office.decide(release, office.risk, conditions={"departments": ["finance"]})
    assert Decision.objects.count() == 1
    assert Release.objects.get().state == ReleaseState.IN_REVIEW


@pytest.mark.django_db
def test_an_end_that_has_passed_approves_nothing(
    office: Office, department: Callable[[str], Department], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = under_review(office, department)
    end = timezone.now() + timedelta(hours=1)
    office.decide(release, office.compliance, conditions={"until": end.isoformat()})
    monkeypatch.setattr(timezone, "now", lambda: end + timedelta(seconds=1))
    with pytest.raises(WrongState, match="which has passed"):
        office.decide(release, office.risk)
    assert Release.objects.get().state == ReleaseState.IN_REVIEW


@pytest.mark.django_db
def test_changes_begin_without_conditions(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    office.decide(release, office.compliance, conditions={"requests_per_minute": 5})
    office.decide(release, office.risk, "request_changes")
    release = release_answer(
        actor=proven(office.submitter), release_id=release.pk, message="Here it is."
    )
    review = release_review(release)
    assert review is not None
    assert requested_conditions(review) == []
    office.decide(release, office.compliance)
    assert office.decide(release, office.risk).conditions == {}


@pytest.mark.django_db
def test_what_was_approved_stands_in_the_database(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    office.decide(release, office.compliance, conditions={"requests_per_minute": 5})
    office.decide(release, office.risk)
    for change in ({"conditions": {}}, {"grace_days": 99}):
        with pytest.raises(IntegrityError, match="keeps the conditions"), transaction.atomic():
            Release.objects.update(**change)
    with (
        pytest.raises(IntegrityError, match="keeps the release that it renews"),
        transaction.atomic(),
    ):
        Release.objects.update(renews=release.pk)


@pytest.mark.django_db
@pytest.mark.parametrize("forged", [{}, {"requests_per_minute": 500}, {"until": "never"}])
def test_conditions_that_nobody_asked_for_serve_nothing(
    forged: dict[str, Any], office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    office.decide(release, office.compliance, conditions={"requests_per_minute": 5})
    office.decide(release, office.risk)
    with connection.cursor() as cursor:
        # As whoever owns the table could.
        cursor.execute("SET LOCAL session_replication_role = replica")
        Release.objects.update(conditions=forged)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")
    with pytest.raises(WrongState, match="may not serve"):
        release_servable(Release.objects.get())


@pytest.mark.django_db
def test_the_log_keeps_the_conditions_and_no_free_words(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    said = {"requests_per_minute": 5, "obligations": ["Ask Uma first."]}
    office.decide(release, office.compliance, conditions=said)
    office.decide(release, office.risk)
    for action in ("release:decide", "release:approved"):
        kept = [
            body["data"]["conditions"]
            for body in bodies(action=action)
            if body["data"].get("conditions")
        ]
        assert [each["requests_per_minute"] for each in kept] == [5]
        assert "Uma" not in str(kept)


@pytest.mark.django_db
def test_an_until_ends_it_without_grace(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    office.decide(release, office.compliance, conditions={"until": in_days(3).isoformat()})
    office.decide(release, office.risk)
    Release.objects.update(expires_at=timezone.now())
    release = Release.objects.get()
    assert not release.in_grace
    with pytest.raises(WrongState, match="expired on"):
        release_servable(release)
    assert releases_expire_due() == 1


@pytest.mark.django_db
def test_an_end_put_off_past_its_until_does_not_serve(
    office: Office, department: Callable[[str], Department], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = under_review(office, department)
    end = timezone.now() + timedelta(hours=1)
    office.decide(release, office.compliance, conditions={"until": end.isoformat()})
    office.decide(release, office.risk)
    Release.objects.update(expires_at=timezone.now() + timedelta(days=90))
    monkeypatch.setattr(timezone, "now", lambda: end + timedelta(seconds=1))
    with pytest.raises(WrongState, match="may not serve"):
        release_servable(Release.objects.get())


@pytest.mark.django_db
def test_conditions_read_as_a_person_says_them() -> None:
    whole = Conditions(
        departments=("clinical", "finance"),
        until=datetime(2027, 3, 1, tzinfo=UTC),
        requests_per_minute=100,
        requests_per_minute_of={"clinical": 1},
        obligations=("No children.",),
    )
    assert whole.words() == [
        "only clinical and finance",
        "until 1 March 2027, 00:00 UTC",
        "at most 100 requests per minute, of all callers together",
        "at most 1 request per minute of department clinical",
        "No children.",
    ]
    assert Conditions.from_json(whole.to_json()) == whole
    assert Conditions().words() == []


@pytest.mark.django_db
def test_a_release_under_review_carries_no_conditions_yet(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    office.decide(release, office.compliance, conditions={"requests_per_minute": 5})
    assert Release.objects.get(pk=release.pk).conditions == {}
    release = Release.objects.get(pk=release.pk)
    release_set_state(
        actor=proven(office.submitter), release=release, state=ReleaseState.WITHDRAWN, reason="No."
    )
    assert Release.objects.get(pk=release.pk).conditions == {}


@pytest.mark.django_db
def test_a_pack_says_the_conditions_and_no_others_pass(
    office: Office, department: Callable[[str], Department]
) -> None:
    release = under_review(office, department)
    said = {"requests_per_minute": 5, "obligations": ["No children."]}
    office.decide(release, office.compliance, conditions=said)
    office.decide(release, office.risk)
    files = files_of(packed(office, Release.objects.get()))
    assert faults(files) == {}
    told = json.loads(files["decisions.json"])
    assert told["conditions"] == said
    assert [each["conditions"] for each in told["reviews"][0]["decisions"]] == [said, {}]
    assert b"at most 5 requests per minute" in files["dossier.html"]

    def lifted(decisions: Any) -> None:
        decisions["conditions"] = {}

    def reworded(decisions: Any) -> None:
        decisions["reviews"][0]["decisions"][0]["conditions"]["obligations"] = ["Children too."]

    assert "on other conditions" in faults(forged(files, decisions=lifted))["Decisions"]
    assert "another decision" in faults(forged(files, decisions=reworded))["Decisions"]


@pytest.mark.django_db(transaction=True)
def test_of_two_who_approve_at_once_the_strictest_holds(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    review_policies_bootstrap()
    policy_bootstrap()
    office = Office(person, department)
    release = under_review(office, department)
    ready, faults_seen = threading.Barrier(2), []

    def approve(who: Person, conditions: dict[str, Any]) -> None:
        try:
            ready.wait()
            office.decide(release, who, conditions=conditions)
        except Exception as error:
            faults_seen.append(error)
        finally:
            connection.close()

    asked_for = [
        (office.compliance, {"departments": ["clinical", "finance"], "requests_per_minute": 9}),
        (office.risk, {"departments": ["clinical", "engineering"], "requests_per_minute": 5}),
    ]
    threads = [threading.Thread(target=approve, args=each) for each in asked_for]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults_seen == []
    approved = Release.objects.get()
    assert approved.state == ReleaseState.APPROVED
    assert approved.conditions == {"departments": ["clinical"], "requests_per_minute": 5}
    release_servable(approved)
