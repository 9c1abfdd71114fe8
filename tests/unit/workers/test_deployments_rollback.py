"""Back to what served before, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.principals import Principal
from governance.rowsecurity import scope
from registry.releases.models import Release
from registry.versions.recall import recall_radius, version_recall
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_deployments_services import deployed, ready
from workers.deployments.models import Deployment
from workers.deployments.rollback import deployment_rollback, rollback_choices
from workers.deployments.services import deployment_stop

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


def versions_of_one(count: int) -> list[Release]:
    """Approved releases of as many versions under one name."""
    first = adapter()
    made = [release(first)]
    for number in range(1, count):
        files = {"adapter.bin": f"tuned {number}".encode()}
        version = company.version(first.model, "adapter", base=first.base, files=files)
        made.append(release(version))
    return made


def served(of: Release) -> Deployment:
    deployment = deployed(of)
    ready(deployment)
    return deployment


def back(deployment: Deployment, to: Release, who: Principal | None = None, **changes: Any) -> Any:
    return deployment_rollback(
        **{
            "actor": who or company.developer(),
            "deployment_id": deployment.pk,
            "release_id": to.pk,
            "reason": "It answers nonsense.",
            **changes,
        }
    )


def test_a_rollback_puts_what_served_before_in_the_place_of_what_serves() -> None:
    old, new = versions_of_one(2)
    first, second = served(old), served(new)
    again = back(second, old)
    second.refresh_from_db()
    assert (again.release_id, again.state, again.name) == (old.pk, "pending", first.name)
    assert (second.state, second.message) == ("stopped", f"Replaced by release {old.pk}.")
    event = AuditEvent.objects.get(action="deployment:rollback")
    assert (event.subject_id, event.department, event.outcome) == (
        str(again.pk),
        "clinical",
        "allowed",
    )


def test_the_choices_are_what_served_before_the_latest_first() -> None:
    oldest, middle, new, never = versions_of_one(4)
    for each in (oldest, middle):
        served(each)
    deployed(never)
    last = served(new)
    choices = rollback_choices(actor=company.developer(), deployment=last)
    assert [choice.release.pk for choice in choices] == [middle.pk, oldest.pk]
    assert [choice.obstacle for choice in choices] == ["", ""]


def test_after_it_stopped_too() -> None:
    old, new = versions_of_one(2)
    served(old)
    last = served(new)
    operator = company.person("omar", "operator")
    deployment_stop(actor=operator, deployment_id=last.pk, reason="Nonsense.")
    assert back(last, old).release_id == old.pk


def test_what_is_expired_recalled_or_withdrawn_is_listed_and_refused() -> None:
    expired, ended, withdrawn, recalled, new = versions_of_one(5)
    for each in (expired, ended, withdrawn, recalled):
        served(each)
    last = served(new)
    Release.objects.filter(pk=expired.pk).update(state="expired")
    Release.objects.filter(pk=ended.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    Release.objects.filter(pk=withdrawn.pk).update(state="withdrawn")
    admin = company.person("ada", "admin")
    digest = recall_radius(actor=admin, version_id=recalled.version_id).digest
    version_recall(actor=admin, version_id=recalled.version_id, reason="Unsafe.", confirm=digest)
    choices = {
        choice.release.pk: choice.obstacle
        for choice in rollback_choices(actor=company.developer(), deployment=last)
    }
    assert set(choices) == {expired.pk, ended.pk, withdrawn.pk, recalled.pk}
    for each, word in (
        (expired, "is expired"),
        (ended, "expired on"),
        (withdrawn, "is withdrawn"),
        (recalled, "is recalled"),
    ):
        assert word in choices[each.pk]
        with pytest.raises(WrongState, match=word):
            back(last, each)
    last.refresh_from_db()
    assert last.state == "serving"


def test_what_never_served_or_serves_now_is_refused() -> None:
    old, new, never = versions_of_one(3)
    served(old)
    last = served(new)
    with pytest.raises(WrongState, match="never served as docs") as refused:
        back(last, never)
    assert refused.value.code == "never_served"
    with pytest.raises(WrongState, match=r"is of release \d+ itself"):
        back(last, new)
    with pytest.raises(InvalidInput):
        back(last, old, reason=" ")


def test_an_older_deployment_is_not_rolled_back_under_a_newer_one() -> None:
    old, new = versions_of_one(2)
    first, second = served(old), served(new)
    with pytest.raises(WrongState, match=f"again since, as deployment {second.pk}"):
        back(first, new)
    assert rollback_choices(actor=company.developer(), deployment=first) == []
    assert len(rollback_choices(actor=company.developer(), deployment=second)) == 1


def test_who_may_not_deploy_rolls_nothing_back() -> None:
    old, new = versions_of_one(2)
    served(old)
    last = served(new)
    with pytest.raises(NotPermitted):
        back(last, old, company.person("vera", "viewer", "clinical"))
    with pytest.raises(NotFound):
        back(last, old, company.developer("finance"))
    assert Deployment.objects.count() == 2


def test_it_works_within_what_row_security_lets_a_developer_see() -> None:
    old, new = versions_of_one(2)
    served(old)
    last = served(new)
    developer = company.developer()
    with scope(developer):
        (choice,) = rollback_choices(actor=developer, deployment=last)
        assert back(last, choice.release, developer).release_id == old.pk


def queries(call: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        call()
    return len(captured)


def test_many_releases_cost_as_few_queries_as_none_and_ten_are_listed() -> None:
    releases = versions_of_one(13)
    for each in releases[:-1]:
        served(each)
    last = served(releases[-1])
    Release.objects.exclude(pk__in=[releases[-1].pk, releases[-2].pk]).update(state="withdrawn")
    developer = company.developer()
    assert len(rollback_choices(actor=developer, deployment=last)) == 10
    many = queries(lambda: rollback_choices(actor=developer, deployment=last))
    Release.objects.filter(pk=releases[-2].pk).update(state="withdrawn")
    none_left = queries(lambda: rollback_choices(actor=developer, deployment=last))
    assert none_left == 12
    assert many <= none_left + 8
