"""The last days of an approval: warnings, each once, the grace, and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import WrongState
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.policy.services import policy_bootstrap
from governance.reviews.policies.shipping import review_policies_bootstrap
from registry.releases import validity
from registry.releases.models import Release, ReleaseState
from registry.releases.serving import release_servable, release_startable
from registry.releases.validity import (
    releases_expire_due,
    releases_expiring,
    releases_warn_due,
)
from tests.unit.audit_support import bodies, recorded_all
from tests.unit.registry.office import Office

pytestmark = pytest.mark.sweep

WARNED = ("release:expiring", "release:in_grace")


def passing(release: Release, of: timedelta) -> None:
    """As if so much time had passed since the approval of `release`."""
    row = Release.objects.get(pk=release.pk)
    moved = {
        name: getattr(row, name) - of
        for name in ("approved_at", "expires_at", "warns_at")
        if getattr(row, name) is not None
    }
    Release.objects.filter(pk=release.pk).update(**moved)


def warnings() -> list[tuple[str, int]]:
    return [(body["action"], body["data"]["days"]) for body in bodies(action__in=WARNED)]


@pytest.mark.django_db
def test_each_warning_is_given_once_and_in_time(office: Office) -> None:
    release = office.approve(office.submit())
    assert releases_warn_due() == 0
    given: list[list[tuple[str, int]]] = []
    # To 31, 30, 7, 1 and 0 days before the end, and to that of the grace.
    for days in (149, 1, 23, 6, 1, 6):
        passing(release, timedelta(days=days))
        before = len(warnings())
        releases_warn_due()
        assert releases_warn_due() == 0
        given.append(warnings()[before:])
    assert given == [
        [],
        [("release:expiring", 30)],
        [("release:expiring", 7)],
        [("release:expiring", 1)],
        [("release:in_grace", 0)],
        [],
    ]
    told = recorded_all(action="release:in_grace")[0]
    assert "what serves under it goes on until" in told.reason
    assert (told.subject_type, told.department) == ("release", "clinical")


@pytest.mark.django_db
def test_after_a_standstill_the_last_warning_alone_is_given(office: Office) -> None:
    release = office.approve(office.submit())
    passing(release, timedelta(days=175))
    assert releases_warn_due() == 1
    assert warnings() == [("release:expiring", 5)]
    passing(release, timedelta(days=4))
    assert releases_warn_due() == 1
    assert warnings()[1:] == [("release:expiring", 1)]


@pytest.mark.django_db
def test_a_short_approval_is_not_warned_of_before_it_began(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    until = timezone.now() + timedelta(days=5)
    office.decide(release, office.compliance, conditions={"until": until.isoformat()})
    release = office.decide(release, office.risk)
    assert release.warns_at == until - timedelta(days=1)
    passing(release, timedelta(days=4))
    assert releases_warn_due() == 1
    # No grace, and so no word of one.
    assert Release.objects.get().warns_at is None


@pytest.mark.django_db
def test_what_is_at_an_end_is_not_warned_of(office: Office) -> None:
    release = office.approve(office.submit())
    passing(release, timedelta(days=170))
    Release.objects.update(state=ReleaseState.WITHDRAWN)
    assert releases_warn_due() == 0
    Release.objects.update(state=ReleaseState.APPROVED)
    passing(release, timedelta(days=30))
    releases_warn_due()
    assert warnings() == []


@pytest.mark.django_db
def test_in_its_grace_it_serves_and_nothing_new_begins(office: Office) -> None:
    release = office.approve(office.submit())
    release_startable(release)
    passing(release, timedelta(days=181))
    release = Release.objects.get()
    assert release.in_grace
    release_servable(release)
    with pytest.raises(WrongState, match="nothing new is deployed under it"):
        release_startable(release)
    assert releases_expire_due() == 0
    passing(release, timedelta(days=6))
    release = Release.objects.get()
    assert not release.in_grace
    with pytest.raises(WrongState, match="and its grace is over"):
        release_servable(release)
    assert releases_expire_due() == 1
    assert "with 7 days of grace" in recorded_all(action="release:expired")[0].reason


@pytest.mark.django_db
def test_who_may_see_a_release_finds_that_it_expires(
    office: Office, person: Callable[..., Person]
) -> None:
    release = office.approve(office.submit())
    assert not releases_expiring().exists()
    passing(release, timedelta(days=170))
    assert [each.pk for each in releases_expiring()] == [release.pk]
    assert not releases_expiring(within_days=7).exists()
    mine = principal_for_person(office.submitter)
    strange = principal_for_person(person("Fay", "lead@finance"))
    assert [each.pk for each in releases_expiring(mine)] == [release.pk]
    assert not releases_expiring(strange).exists()
    passing(release, timedelta(days=20))
    assert not releases_expiring().exists()


@pytest.mark.django_db(transaction=True)
def test_two_controllers_give_one_warning(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    review_policies_bootstrap()
    policy_bootstrap()
    office = Office(person, department)
    release = office.approve(office.submit())
    passing(release, timedelta(days=150))
    counts: list[int] = []
    ready = threading.Barrier(2)

    def warn() -> None:
        try:
            ready.wait()
            counts.append(releases_warn_due())
        finally:
            connection.close()

    threads = [threading.Thread(target=warn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 1]
    assert AuditEvent.objects.filter(action="release:expiring").count() == 1


@pytest.mark.django_db
def test_a_warning_and_its_event_come_together_or_not_at_all(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = office.approve(office.submit())
    passing(release, timedelta(days=150))
    due = Release.objects.get().warns_at

    def broken(**_: Any) -> None:
        raise RuntimeError("no log")

    monkeypatch.setattr(validity, "audit_record", broken)
    with pytest.raises(RuntimeError), transaction.atomic():
        releases_warn_due()
    kept: datetime | None = Release.objects.get().warns_at
    assert kept == due
