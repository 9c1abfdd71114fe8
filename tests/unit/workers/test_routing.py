"""Targets of a deployment: who may change them, what a target may be, and when a canary ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.schemas import parsed
from governance.usage.models import UsageRecord
from registry.feedback.models import Feedback
from registry.releases.models import Release, ReleaseState
from tests.unit.audit_support import bodies, recorded
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Deployment, DeploymentState, ServingLease
from workers.deployments.rollback import deployment_rollback
from workers.deployments.services import (
    deployment_create,
    deployment_stop,
    deployments_stop_unservable,
)
from workers.deployments.targets import targets_settle
from workers.routing.canary import (
    LEAST,
    LEAST_FEEDBACK,
    Sample,
    canaries_judge,
    compared,
    verdict_lines,
)
from workers.routing.schemas import TargetsChange, TargetsSwitch
from workers.routing.selectors import releases_offered, targets_view
from workers.routing.services import targets_change, targets_switch
from workers.routing.statistics import error_rate_p, slower_p

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def deployed() -> Deployment:
    primary = deployment_create(
        actor=company.developer(), release_id=release(adapter(b"stable")).pk
    )
    Deployment.objects.filter(pk=primary.pk).update(state=DeploymentState.SERVING)
    return primary


def changed(primary: Deployment, *targets: dict[str, Any], revision: int = 0) -> list[Deployment]:
    """The live targets after a change by a developer."""
    change = parsed(
        TargetsChange, {"targets": list(targets), "revision": revision, "reason": "Try it"}
    )
    targets_change(actor=company.developer(), deployment_id=primary.pk, change=change)
    return list(primary.targets.filter(state__in=("pending", "serving")).order_by("position"))


def serving(target: Deployment) -> None:
    Deployment.objects.filter(pk=target.pk).update(state=DeploymentState.SERVING)


def canary_of(primary: Deployment, **columns: Any) -> Deployment:
    new = release(adapter(b"canary"))
    (target,) = changed(primary, {"release": new.pk, "role": "canary", "weight": 20, **columns})
    return target


def test_a_target_has_a_release_lease_and_event_of_its_own() -> None:
    primary = deployed()
    target = canary_of(primary)
    assert (target.name, target.department, target.state) == ("docs", primary.department, "pending")
    assert ServingLease.objects.filter(deployment=target).exists()
    primary.refresh_from_db()
    assert (primary.state, primary.targets_revision) == ("serving", 1)
    (event,) = bodies(action="deployment:route", outcome="allowed")
    assert event["data"]["before"] == []
    assert event["data"]["after"] == [
        {
            "deployment": target.pk,
            "release": target.release_id,
            "role": "canary",
            "weight": 20,
            "conditions": {},
        }
    ]


def test_the_list_replaces_all_targets() -> None:
    primary = deployed()
    first = canary_of(primary)
    other = release(adapter(b"other"))
    again = changed(
        primary,
        {"release": other.pk, "role": "fallback"},
        {
            "release": first.release_id,
            "role": "serve",
            "weight": 100,
            "conditions": {"prompt_tokens_min": 10},
        },
        revision=1,
    )
    assert [(each.role, each.position) for each in again] == [("fallback", 1), ("serve", 2)]
    assert again[1].pk == first.pk
    assert again[1].routing_conditions == {"prompt_tokens_min": 10}
    assert changed(primary, revision=2) == []
    assert set(primary.targets.values_list("state", flat=True)) == {"stopped"}


def test_two_people_who_change_targets_at_once_do_not_overwrite_each_other() -> None:
    primary = deployed()
    canary_of(primary)
    with pytest.raises(WrongState, match="have changed since revision 0") as refused:
        changed(primary, revision=0)
    assert refused.value.code == "targets_changed"
    assert primary.targets.filter(state="pending").count() == 1


def test_a_change_needs_a_second_factor_and_a_role() -> None:
    primary = deployed()
    change = parsed(TargetsChange, {"targets": [], "revision": 0, "reason": "Try it"})
    unproven = principal_for_person(Person.objects.get(email="dev-clinical@example.org"))
    with pytest.raises(NotPermitted) as refused:
        targets_change(actor=unproven, deployment_id=primary.pk, change=change)
    assert refused.value.code == "step_up_required"
    viewer = company.person("vera", "viewer", "clinical")
    with pytest.raises(NotPermitted):
        targets_change(actor=viewer, deployment_id=primary.pk, change=change)


def test_another_departments_deployment_target_or_release_does_not_exist() -> None:
    primary = deployed()
    target = canary_of(primary)
    stranger = company.developer("finance")
    change = parsed(TargetsChange, {"targets": [], "revision": 1, "reason": "Try it"})
    switch = TargetsSwitch(target=target.pk, revision=1, reason="Try it")
    with pytest.raises(NotFound):
        targets_change(actor=stranger, deployment_id=primary.pk, change=change)
    with pytest.raises(NotFound):
        targets_switch(actor=stranger, deployment_id=primary.pk, switch=switch)
    theirs = release(adapter(where="finance"))
    with pytest.raises(NotFound):
        changed(primary, {"release": theirs.pk, "role": "fallback"}, revision=1)
    with pytest.raises(NotFound, match="no live target 999999"):
        targets_switch(
            actor=company.developer(),
            deployment_id=primary.pk,
            switch=TargetsSwitch(target=999_999, revision=1, reason="Try it"),
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "other"}, "was approved for the name other"),
        ({"environment": "staging"}, "was approved for staging"),
        ({"state": ReleaseState.RECALLED}, "may not serve"),
        ({"hours": -0.001}, "expired"),
    ],
)
def test_a_release_that_may_not_serve_here_is_no_target(
    options: dict[str, Any], sentence: str
) -> None:
    primary = deployed()
    new = release(adapter(b"new"), **options)
    with pytest.raises(WrongState, match=sentence):
        changed(primary, {"release": new.pk, "role": "fallback"})
    assert not primary.targets.exists()


def test_only_a_release_that_is_limited_to_it_is_a_shadow_and_nothing_else() -> None:
    primary = deployed()
    whole = release(adapter(b"whole"))
    limited = release(adapter(b"limited"), conditions={"shadow_only": True})
    with pytest.raises(WrongState, match="not approved as a shadow"):
        changed(primary, {"release": whole.pk, "role": "shadow", "weight": 5})
    with pytest.raises(WrongState, match="only as a shadow"):
        changed(primary, {"release": limited.pk, "role": "fallback"})
    with pytest.raises(WrongState, match="only as a shadow"):
        deployment_create(actor=company.developer(), release_id=limited.pk)
    (shadow,) = changed(primary, {"release": limited.pk, "role": "shadow", "weight": 5})
    with pytest.raises(IntegrityError), transaction.atomic():
        Deployment.objects.filter(pk=shadow.pk).update(role="fallback", weight=0)
    serving(shadow)
    with pytest.raises(WrongState, match="only as a shadow"):
        targets_switch(
            actor=company.developer(),
            deployment_id=primary.pk,
            switch=TargetsSwitch(target=shadow.pk, revision=1, reason="Try it"),
        )


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ([{"release": 1, "role": "serve", "weight": 60}] * 2, "in the list twice"),
        (
            [
                {"release": 1, "role": "serve", "weight": 60},
                {"release": 2, "role": "canary", "weight": 50},
            ],
            "add up to more than 100",
        ),
        ([{"release": 1, "role": "fallback", "weight": 5}], "fallback has no weight"),
        ([{"release": 1, "role": "shadow"}], "needs a weight"),
        ([{"release": 1, "role": ""}], "serve, canary, fallback or shadow"),
        (
            [{"release": 1, "role": "serve", "conditions": {"time_from": "08:00"}}],
            "time_from and time_until",
        ),
        ([{"release": 1, "role": "serve", "conditions": {"color": "red"}}], "color"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(
    targets: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(TargetsChange, {"targets": targets, "revision": 0, "reason": "Try it"})
    assert sentence in str(refused.value.fields)


def test_an_endpoint_that_does_not_exist_is_refused() -> None:
    primary = deployed()
    new = release(adapter(b"new"))
    wrong = {"release": new.pk, "role": "serve", "conditions": {"endpoints": ["/v1/chatt"]}}
    with pytest.raises(InvalidInput, match="is not an inference endpoint"):
        changed(primary, wrong)


def test_a_switch_swaps_primary_and_target_in_one_step_and_back() -> None:
    primary = deployed()
    target = canary_of(primary)
    switch = TargetsSwitch(target=target.pk, revision=1, reason="It is better")
    with pytest.raises(WrongState, match="is pending"):
        targets_switch(actor=company.developer(), deployment_id=primary.pk, switch=switch)
    serving(target)
    targets_switch(actor=company.developer(), deployment_id=primary.pk, switch=switch)
    primary.refresh_from_db()
    target.refresh_from_db()
    assert (target.target_of_id, target.role, target.weight) == (None, "", 0)
    assert (primary.target_of_id, primary.role, primary.weight) == (target.pk, "canary", 0)
    assert primary.state == DeploymentState.SERVING
    assert target.targets_revision == 2
    back = TargetsSwitch(target=primary.pk, revision=2, reason="It is not")
    targets_switch(actor=company.developer(), deployment_id=target.pk, switch=back)
    primary.refresh_from_db()
    assert (primary.target_of_id, primary.targets_revision) == (None, 3)
    assert AuditEvent.objects.filter(action="deployment:switch").count() == 2
    with pytest.raises(WrongState, match="is a target"):
        deployment_rollback(
            actor=company.developer(),
            deployment_id=target.pk,
            release_id=primary.release_id,
            reason="It is worse",
        )


def test_a_new_release_of_the_name_keeps_the_targets_of_the_former_one() -> None:
    primary = deployed()
    target = canary_of(primary)
    with pytest.raises(WrongState, match="is a target of docs already"):
        deployment_create(actor=company.developer(), release_id=target.release_id)
    newer = deployment_create(actor=company.developer(), release_id=release(adapter(b"newer")).pk)
    target.refresh_from_db()
    newer.refresh_from_db()
    assert (target.target_of_id, target.state) == (newer.pk, "pending")
    assert newer.targets_revision == 2


def test_targets_of_another_environment_stop_with_their_primary() -> None:
    primary = deployed()
    target = canary_of(primary)
    other = release(adapter(b"staged"), environment="staging")
    newer = deployment_create(actor=company.developer(), release_id=other.pk)
    target.refresh_from_db()
    assert (target.state, target.target_of_id) == ("stopped", primary.pk)
    assert f"deployment {newer.pk}" in target.message


def test_a_canary_is_compared_with_a_new_primary_from_the_switch_on() -> None:
    primary = deployed()
    canary, share = changed(
        primary,
        {"release": release(adapter(b"canary")).pk, "role": "canary", "weight": 5},
        {"release": release(adapter(b"share")).pk, "role": "serve", "weight": 5},
    )
    before = timezone.now() - timedelta(hours=1)
    Deployment.objects.filter(pk=canary.pk).update(routed_at=before, canary_verdict={"at": "then"})
    serving(share)
    switch = TargetsSwitch(target=share.pk, revision=1, reason="It is better")
    targets_switch(actor=company.developer(), deployment_id=primary.pk, switch=switch)
    canary.refresh_from_db()
    assert canary.target_of_id == share.pk
    assert canary.routed_at is not None
    assert canary.routed_at > before
    assert canary.canary_verdict == {}


def test_targets_stop_if_their_name_was_deployed_again_after_their_primary_ended() -> None:
    primary = deployed()
    (fallback,) = changed(primary, {"release": release(adapter(b"spare")).pk, "role": "fallback"})
    serving(fallback)
    Deployment.objects.filter(pk=primary.pk).update(state=DeploymentState.REFUSED)
    deployment_create(actor=company.developer(), release_id=release(adapter(b"newer")).pk)
    assert targets_settle() == 1
    fallback.refresh_from_db()
    assert (fallback.state, fallback.target_of_id) == ("stopped", primary.pk)
    assert targets_settle() == 0


def test_a_person_who_stops_a_deployment_stops_its_targets() -> None:
    primary = deployed()
    target = canary_of(primary)
    operator = company.person("omar", "operator")
    deployment_stop(actor=operator, deployment_id=primary.pk, reason="Enough")
    target.refresh_from_db()
    assert (target.state, target.message) == (
        "stopped",
        f"Its primary, deployment {primary.pk}, was stopped.",
    )


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_loaded_fallback_takes_the_place_of_a_primary_whose_release_ended(
    *, is_loaded: bool
) -> None:
    primary = deployed()
    spare, other = release(adapter(b"spare")), release(adapter(b"other"))
    fallback, share = changed(
        primary,
        {"release": spare.pk, "role": "fallback"},
        {"release": other.pk, "role": "serve", "weight": 10},
    )
    if is_loaded:
        serving(fallback)
    Release.objects.filter(pk=primary.release_id).update(state=ReleaseState.RECALLED)
    assert deployments_stop_unservable() == 1
    for each in (primary, fallback, share):
        each.refresh_from_db()
    assert primary.state == DeploymentState.STOPPED
    if not is_loaded:
        assert {fallback.state, share.state} == {"stopped"}
        return
    assert (fallback.target_of_id, fallback.role) == (None, "")
    assert (share.target_of_id, share.state) == (fallback.pk, "pending")
    event = recorded(action="deployment:succeed", outcome="allowed")
    assert event.actor_name == "controller"
    assert targets_settle() == 0


def used(
    name: str,
    release_id: int,
    outcome: str,
    count: int,
    *,
    ms: int = 100,
    endpoint: str = "/v1/chat/completions",
) -> None:
    now = timezone.now()
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"{release_id}-{outcome}-{ms}-{endpoint}-{number}",
            occurred_at=now,
            department="clinical",
            deployment=name,
            release=release_id,
            endpoint=endpoint,
            outcome=outcome,
            total_ms=ms + number % 7,
        )
        for number in range(count)
    )


@pytest.mark.parametrize(
    ("failed", "ms", "rolled_back", "name"),
    [
        (0, 100, False, ""),
        (2, 120, False, ""),
        (20, 100, True, "Fisher's exact test"),
        (0, 900, True, "Mann–Whitney U test"),
    ],
)
def test_a_canary_that_is_worse_loses_its_share(
    failed: int, ms: int, name: str, *, rolled_back: bool
) -> None:
    primary = deployed()
    canary = canary_of(primary)
    used("docs", primary.release_id, "ok", 200)
    used("docs", primary.release_id, "failed", 2)
    used("docs", canary.release_id, "ok", 60, ms=ms)
    used("docs", canary.release_id, "failed", failed)
    Deployment.objects.update(routed_at=timezone.now() - timedelta(hours=1))
    assert canaries_judge() == int(rolled_back)
    canary.refresh_from_db()
    primary.refresh_from_db()
    assert canary.canary_verdict["rolled_back"] is rolled_back
    assert canary.canary_verdict["canary"]["requests"] == 60 + failed
    assert (canary.weight, canary.state) == (0 if rolled_back else 20, "pending")
    assert primary.targets_revision == 1 + rolled_back
    if rolled_back:
        (event,) = bodies(action="deployment:canary_rollback", outcome="allowed")
        assert event["reason"].startswith(name)
        assert event["data"]["share"] == 20
        assert canaries_judge() == 0


def rated(deployment: Deployment, count: int, **columns: Any) -> None:
    """Feedback on answers of a deployment's release."""
    release = deployment.release
    Feedback.objects.bulk_create(
        Feedback(
            request_id=f"{deployment.pk}-{columns}-{number}",
            department=deployment.department,
            deployment=deployment.name,
            release=release,
            version=release.version,
            answered_at=timezone.now(),
            **columns,
        )
        for number in range(count)
    )


@pytest.mark.parametrize(
    ("good", "bad", "corrected", "rolled_back"),
    [(30, 0, 0, False), (28, 2, 0, False), (15, 15, 0, True), (15, 0, 15, True), (0, 10, 9, False)],
)
def test_a_canary_with_more_negative_feedback_loses_its_share(
    good: int, bad: int, corrected: int, *, rolled_back: bool
) -> None:
    primary = deployed()
    canary = canary_of(primary)
    rated(primary, 98, rating="up")
    rated(primary, 2, rating="down")
    rated(canary, good, rating="up")
    rated(canary, bad, rating="down")
    rated(canary, corrected, correction="positive")
    # Without a rating or correction, as after an erasure, it decides nothing.
    rated(canary, 40, comment="")
    Deployment.objects.update(routed_at=timezone.now() - timedelta(hours=1))
    assert canaries_judge() == int(rolled_back)
    canary.refresh_from_db()
    verdict = canary.canary_verdict
    sides = [(verdict[side]["rated"], verdict[side]["negative"]) for side in ("canary", "stable")]
    assert sides == [(good + bad + corrected, bad + corrected), (100, 2)]
    line = verdict_lines(verdict)[2]
    assert (line.title, line.stable) == ("Negative feedback", "2 of 100 (2.0%)")
    assert (canary.weight == 0, bool(line.test and line.test["worse"])) == (rolled_back,) * 2
    if rolled_back:
        (event,) = bodies(action="deployment:canary_rollback", outcome="allowed")
        assert event["reason"].startswith("Fisher's exact test of the negative feedback: p = ")
        assert event["data"]["decided_by"] == "Fisher's exact test of the negative feedback"
        assert event["data"]["canary"]["negative"] == bad + corrected


def test_requests_before_the_share_and_copies_for_shadows_are_not_compared() -> None:
    primary = deployed()
    canary = canary_of(primary)
    used("docs", primary.release_id, "ok", 50)
    used("docs", canary.release_id, "failed", 50, endpoint="jobs/shadow")
    rows = Deployment.objects.filter(pk=canary.pk)
    rows.update(routed_at=timezone.now() - timedelta(hours=1))
    assert canaries_judge() == 0
    used("docs", canary.release_id, "failed", 50)
    rows.update(routed_at=timezone.now() + timedelta(hours=1))
    assert canaries_judge() == 0
    canary.refresh_from_db()
    assert canary.canary_verdict["canary"]["requests"] == 0


def test_a_few_requests_decide_nothing() -> None:
    few = Sample([("failed", 1)] * (LEAST - 1), [True] * (LEAST_FEEDBACK - 1))
    verdict = compared(few, Sample([("ok", 1)] * 500, [False] * 500), timezone.now())
    assert verdict.tests == ()
    assert verdict.worse is None


def test_the_tests_are_those_of_the_textbooks() -> None:
    # 8 of 10 against 2 of 10, by Fisher; all of six longer than all of six, 1 of 924 orders.
    assert error_rate_p(8, 10, 2, 10) == pytest.approx(0.01151, abs=1e-5)
    assert error_rate_p(0, 10, 0, 10) == 1.0
    assert slower_p([10, 11, 12, 13, 14, 15], [1, 2, 3, 4, 5, 6]) == pytest.approx(0.0025, abs=1e-4)
    assert slower_p([5] * 40, [5] * 40) == 1.0


def test_the_page_shows_shares_and_offers_releases() -> None:
    primary = deployed()
    canary_of(primary)
    spare = release(adapter(b"spare"))
    actor = company.developer()
    views = targets_view(actor, primary)
    assert [(each.role, each.share) for each in views] == [("primary", 80), ("canary", 20)]
    assert [each.pk for each in releases_offered(actor, primary)] == [spare.pk]


def test_vectors_of_another_model_are_no_answers() -> None:
    encoder = company.model("encoder", "embeddings")
    first, second = (
        release(company.version(encoder, files={"config.json": b"{}", "weights.bin": content}))
        for content in (b"one", b"two")
    )
    primary = deployment_create(actor=company.developer(), release_id=first.pk)
    serving(primary)
    for target in ({"role": "fallback"}, {"role": "canary", "weight": 5}):
        with pytest.raises(WrongState, match="vectors cannot be compared"):
            changed(primary, {"release": second.pk, **target})
    # Loaded without a share, it can replace the primary in one step.
    again = release(first.version)
    spare, other = changed(
        primary,
        {"release": again.pk, "role": "fallback"},
        {"release": second.pk, "role": "serve", "weight": 0},
    )
    serving(other)
    switch = TargetsSwitch(target=other.pk, revision=1, reason="It is better")
    with pytest.raises(WrongState, match=f"Target {spare.pk} of .* answers with another model"):
        targets_switch(actor=company.developer(), deployment_id=primary.pk, switch=switch)
    deployment_create(actor=company.developer(), release_id=release(second.version).pk)
    spare.refresh_from_db()
    assert (spare.state, "cannot be compared" in spare.message) == ("stopped", True)
    other.refresh_from_db()
    assert other.state == DeploymentState.SERVING
