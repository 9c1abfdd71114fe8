"""Deployments that served a department at each moment of a story, their approvers, and the
evidence.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.sealer import seal_once
from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound
from governance.principals import Principal
from governance.reviews.models import ChecklistItem, Decision, Review
from governance.rowsecurity import scope
from governance.usage.models import UsageRecord
from registry.canonical import json_digest
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Deployment, ReplicaState
from workers.deployments.served import empty_answer_sentence, served_question
from workers.deployments.served_evidence import Served, served_answers
from workers.deployments.services import (
    deployment_create,
    deployment_stop,
    deployments_stop_unservable,
    replica_report,
    replicas_stop,
)

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


def serve(of: Release, *, is_ready: bool = True) -> Deployment:
    where = of.department.slug
    made = deployment_create(actor=company.developer(where), release_id=of.pk)
    if is_ready:
        ready(made)
    return made


def ready(deployment: Deployment) -> None:
    replica_report(
        deployment_id=deployment.pk,
        worker="e1",
        state=ReplicaState.READY,
        loaded_digest=deployment.release.version.digest,
    )


def auditor() -> Principal:
    return company.person("asha", "auditor")


def answers(
    at: datetime | None = None,
    *,
    actor: Principal | None = None,
    department: str = "clinical",
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Served]:
    actor = actor or auditor()
    asked = served_question(actor=actor, department=department, at=at, since=since, until=until)
    return served_answers(actor, asked, asked.rows)


def digests(at: datetime | None = None) -> list[str]:
    return [served.period.digest for served in answers(at)]


def said(at: datetime | None = None, *, actor: Principal | None = None) -> str:
    actor = actor or auditor()
    return empty_answer_sentence(actor, served_question(actor=actor, department="clinical", at=at))


def test_the_story_of_a_name_is_answered_at_each_of_its_moments() -> None:
    before = timezone.now()
    first = serve(release(adapter(b"first")), is_ready=False)
    approved_only = timezone.now()
    ready(first)
    while_first = timezone.now()
    second = serve(release(adapter(b"second")), is_ready=False)
    while_it_loads = timezone.now()
    ready(second)
    while_second = timezone.now()
    replicas_stop(worker="e1")
    without_worker = timezone.now()
    ready(second)
    again = timezone.now()
    lead = company.person("lea", "lead", "clinical")
    deployment_stop(actor=lead, deployment_id=second.pk, reason="Wrong answers.")
    after_the_stop = timezone.now()
    third = serve(release(adapter(b"third")))
    while_third = timezone.now()
    Release.objects.filter(pk=third.release_id).update(expires_at=timezone.now())
    expired_and_not_stopped_yet = timezone.now()
    deployments_stop_unservable()
    after_expiry = timezone.now()
    fourth = serve(release(adapter(b"fourth")))
    while_fourth = timezone.now()
    ModelVersion.objects.filter(pk=fourth.release.version_id).update(state="recalled")
    Release.objects.filter(pk=fourth.release_id).update(state="recalled")
    deployments_stop_unservable()

    def bytes_of(deployment: Deployment) -> list[str]:
        return [deployment.release.version.digest]

    assert digests(before) == digests(approved_only) == []
    assert digests(while_first) == bytes_of(first)
    assert digests(while_it_loads) == []
    assert digests(while_second) == digests(again) == bytes_of(second)
    assert digests(without_worker) == digests(after_the_stop) == []
    assert digests(while_third) == bytes_of(third)
    assert digests(expired_and_not_stopped_yet) == digests(after_expiry) == []
    assert digests(while_fourth) == bytes_of(fourth)
    assert digests() == []

    whole = answers(since=before)
    assert [served.ended for served in whole] == [
        "stopped", "expired", "stopped", "pending", "stopped",
    ]  # fmt: skip
    third.release.refresh_from_db()
    assert whole[1].until == third.release.expires_at
    assert [served.ended for served in answers(since=before, until=while_it_loads)] == ["stopped"]
    assert "The first one began to serve at" in said(before)
    assert "Deployments at other times are on record" in said()


def test_a_period_holds_its_first_moment_and_not_its_last() -> None:
    deployment = serve(release(adapter()))
    lead = company.person("lea", "lead", "clinical")
    deployment_stop(actor=lead, deployment_id=deployment.pk)
    period = deployment.periods.get()
    assert period.serving_until is not None
    instant = timedelta(microseconds=1)
    assert len(answers(period.serving_from)) == 1
    assert len(answers(period.serving_until - instant)) == 1
    assert answers(period.serving_until) == []
    assert answers(period.serving_from - instant) == []
    assert answers(since=period.serving_until) == []
    assert answers(since=period.serving_from - instant, until=period.serving_from) == []


def test_the_answer_says_who_approved_it_and_on_what() -> None:
    of = release(adapter())
    measured = [{"id": 5, "digest": "e" * 64, "metrics": {"chrf": 31.0}}]
    of.dossier["evaluations"] = measured
    approved_anew(of)
    review = Review.objects.get(digest=of.dossier_digest)
    ChecklistItem.objects.create(review=review, code="digest", title="t", state="satisfied")
    Decision.objects.create(
        review=review, submitter=review.opened_by, person=review.opened_by, verdict="comment",
        reason="Please look.", digest=review.digest, round=1,
    )  # fmt: skip
    vera = company.person("vera-reviews", "reviewer", specialty="compliance")
    audit_record(actor=vera, action="release:decide", subject=Subject("review", str(review.pk), ""))
    serve(of)
    assert [each.period.began_event.sequence for each in answers()] == [None]
    seal_once()
    (served,) = answers()
    assert served.approval is not None
    assert served.approval.review == review
    assert [(v.person.name, v.specialty, v.reason) for v in served.approval.votes] == [
        ("Vera", "compliance", "Fine.")
    ]
    assert [item.code for item in served.approval.review.checklist.all()] == ["digest"]
    assert served.approval.evaluations == measured
    actions = [event.action for event in served.approval.events]
    assert actions == ["release:decide", "deployment:create"]
    assert all(event.sequence is not None for event in served.approval.events)
    assert served.period.began_event.action == "deployment:serve"
    assert (served.until, served.ended) == (None, "")


def approved_anew(of: Release, **release_part: object) -> Release:
    """The release with another dossier, and the review that approved that one."""
    of.dossier = {**of.dossier, "release": {**of.dossier["release"], **release_part}}
    of.dossier_digest = json_digest(of.dossier)
    of.save()
    review = Review.objects.get(subject_id=str(of.pk))
    vote = review.decisions.get()
    review.pk, vote.pk = None, None
    review.digest = vote.digest = of.dossier_digest
    review.state = "open"
    review.save()
    vote.review = review
    vote.save()
    Review.objects.filter(pk=review.pk).update(state="approved")
    return of


def test_votes_of_an_earlier_round_did_not_approve_it() -> None:
    of = release(adapter())
    first = Review.objects.get(subject_id=str(of.pk))
    (vote,) = first.decisions.all()
    asked = Review.objects.create(
        subject_type="release", subject_id=str(of.pk), subject_name="docs",
        department=of.department, digest=of.dossier_digest, required_approvals={"compliance": 1},
        policy_version=1, due_at=timezone.now(), opened_by=first.opened_by,
    )  # fmt: skip
    vote.pk, vote.review, vote.verdict, vote.reason = None, asked, "request_changes", "Whose data?"
    vote.save()
    Review.objects.filter(pk=asked.pk).update(round=2)
    vote.pk, vote.round, vote.verdict, vote.reason = None, 2, "approve", "Answered."
    vote.save()
    Review.objects.filter(pk=asked.pk).update(state="approved")
    serve(of)
    (served,) = answers()
    assert served.approval is not None
    assert served.approval.review == first  # The first that approved this dossier.
    Review.objects.filter(pk=first.pk).update(state="voided")
    (served,) = answers()
    assert served.approval is not None
    assert served.approval.review == asked
    assert [vote.reason for vote in served.approval.votes] == ["Answered."]


@pytest.mark.parametrize(
    ("name", "role", "where", "sees"),
    [
        ("an admin", "admin", None, True),
        ("an operator", "operator", None, True),
        ("an auditor", "auditor", None, True),
        ("a reviewer", "reviewer", None, True),
        ("a lead", "lead", "clinical", True),
        ("a viewer", "viewer", "clinical", True),
        ("a lead of finance", "lead", "finance", False),
        ("a viewer of finance", "viewer", "finance", False),
    ],
)
def test_who_may_ask(name: str, role: str, where: str | None, sees: bool) -> None:
    serve(release(adapter()))
    specialty = "compliance" if role == "reviewer" else ""
    asking = company.person(name.replace(" ", "-"), role, where, specialty)
    with scope(asking):
        if sees:
            (served,) = answers(actor=asking)
            assert served.approval is not None
            assert len(served.approval.votes) == 1
        else:
            with pytest.raises(NotFound):
                answers(actor=asking)


def test_who_uses_another_departments_deployment_sees_what_served_and_not_its_review() -> None:
    of = release(adapter())
    finance = company.department("finance")
    of.departments.add(finance)
    serve(approved_anew(of, departments=["clinical", "finance"]))
    viewer = company.person("vic", "viewer", "finance")
    with scope(viewer):
        (served,) = answers(actor=viewer, department="finance")
        assert (served.deployment.name, served.approval) == ("docs", None)
        assert served.usage is not None
        with pytest.raises(NotFound):
            answers(actor=viewer, department="clinical")


def test_the_use_of_that_hour_is_the_departments_own() -> None:
    of = release(adapter())
    serve(of)
    now = timezone.now()
    for number, (department, outcome, when) in enumerate(
        (
            ("clinical", "ok", now),
            ("clinical", "failed", now),
            ("finance", "ok", now),
            ("clinical", "ok", now - timedelta(hours=1)),
        )
    ):
        UsageRecord.objects.create(
            request_id=f"r{number}", occurred_at=when, department=department, deployment="docs",
            release=of.pk, prompt_tokens=10, completion_tokens=5, outcome=outcome,
        )  # fmt: skip
    (served,) = answers(now)
    assert served.usage is not None
    assert (served.usage.requests, served.usage.failed, served.usage.tokens) == (2, 1, 30)
    assert served.usage.since <= now < served.usage.until
    reviewer = company.person("rita", "reviewer", specialty="compliance")
    assert [each.usage for each in answers(now, actor=reviewer)] == [None]
    assert [each.usage for each in answers(since=now - timedelta(days=1))] == [None]


def test_the_future_and_what_is_no_span_are_refused_in_words() -> None:
    company.department("clinical")
    now = timezone.now()
    hour = timedelta(hours=1)
    for words, moments in (
        ("is in the future; what serves then is not known", {"at": now + hour}),
        ("is in the future", {"since": now, "until": now + hour}),
        ("not both", {"at": now, "since": now - hour}),
        ("set since, too", {"until": now}),
        ("ends before it begins", {"since": now, "until": now - hour}),
        ("ends before it begins", {"since": now - hour, "until": now - hour}),
    ):
        with pytest.raises(InvalidInput, match=words):
            answers(**moments)  # type: ignore[arg-type]


def test_a_department_that_nothing_ever_served_is_told_so() -> None:
    company.department("clinical")
    assert answers(timezone.now() - timedelta(days=4_000)) == []
    assert said().endswith("or at any other time.")


def test_another_department_does_not_exist() -> None:
    company.department("clinical")
    with pytest.raises(NotFound):
        answers(department="nowhere")
    with pytest.raises(NotFound):
        answers(department="clin\x00ical")


def test_twelve_periods_cost_no_more_queries_than_one() -> None:
    company.department("clinical")
    asking = auditor()
    answers(actor=asking)  # Parses the policy.
    counts = []
    for number in range(12):
        serve(release(adapter(f"bytes {number}".encode()), name=f"docs-{number}"))
        if number in {0, 11}:
            with CaptureQueriesContext(
                connection,
            ) as captured:
                found = answers(actor=asking)
                for each in found:
                    assert each.approval is not None
                    assert [vote.person.name for vote in each.approval.votes] == ["Vera"]
                    assert each.release.departments.all()
            counts.append((len(found), len(captured)))
    assert counts == [(1, 16), (12, 16)], [q["sql"][:120] for q in captured]
