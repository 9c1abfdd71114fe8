"""The last approval and what voids, ends or changes the same release, at one moment and in both
orders: a void, a withdrawal or a recall is never lost, and nothing serves under what is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.errors import DomainError
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.reviews.models import ReviewState
from registry.catalog import task_catalog, task_code
from registry.catalog.code import CODES, TaskCode
from registry.catalog.packages import Package
from registry.evaluations.services import gate_set
from registry.incidents.services import incident_open
from registry.releases import checklist, serving, software
from registry.releases.models import Release, ReleaseState
from registry.releases.services import release_withdraw, releases_expire_due
from registry.releases.serving import serving_verdicts
from registry.releases.voiding import releases_void_due
from tests.proofs import proven
from tests.unit.registry.objects import evaluation
from tests.unit.registry.office import Office
from tests.unit.registry.test_deciding_races import one_missing, states, votes
from tests.unit.registry.test_recall_races import one_after_another, recalling
from tests.unit.registry.test_voiding import put_in_force
from tests.unit.workers.test_code_binding import package

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]
OTHER = TaskCode((Package("other", "2"),))


@pytest.fixture
def office(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> Office:
    return Office(person, department)


def refused(release: Release) -> bool:
    fresh = Release.objects.get(pk=release.pk)
    return serving_verdicts([fresh])[fresh.pk].refusal is not None


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Run a call as a process that has other packages of each task, as a controller that was
    upgraded before the web process."""
    here = threading.local()

    def code(name: str) -> TaskCode | None:
        return OTHER if getattr(here, "other", False) else task_code(name)

    for module in (checklist, software):
        monkeypatch.setattr(module, "task_code", code)

    def run(call: Callable[[], Any]) -> Any:
        here.other = True
        try:
            return call()
        finally:
            here.other = False

    return run


@pytest.mark.parametrize("void_first", [True, False])
@pytest.mark.parametrize("what", ["gate", "policy", "code"])
def test_the_last_approval_and_what_voids(
    office: Office,
    actor: Callable[..., Principal],
    elsewhere: Callable[[Callable[[], Any]], Any],
    what: str,
    void_first: bool,
) -> None:
    release = one_missing(office)

    def approve() -> Release:
        return office.decide(release, office.risk)

    def void() -> Any:
        if what == "policy":
            return put_in_force(actor, release.tier)
        if what == "code":
            return elsewhere(releases_void_due)
        return gate_set(
            actor=proven(office.trainer),
            model=office.tuned.model,
            dataset=office.test.dataset,
            metric="accuracy",
            comparator=">=",
            threshold=0.99,
        )

    if void_first:
        _, late = one_after_another(void, approve)
        assert late.status == 409
        assert states(release) == (ReleaseState.VOIDED, ReviewState.VOIDED)
        assert votes(release) == [("Carla", "approve")]
        assert refused(release)
    else:
        approved, _ = one_after_another(approve, void)
        assert approved.state == ReleaseState.APPROVED
        assert states(release) == (ReleaseState.APPROVED, ReviewState.APPROVED)
        # The controller gives no lease to a version whose code differs from its own.
        assert not refused(release)
        assert elsewhere(lambda: refused(release))


@pytest.mark.parametrize("end_first", [True, False])
def test_the_last_approval_and_an_incident_on_its_version(
    office: Office, actor: Callable[..., Principal], end_first: bool
) -> None:
    release = one_missing(office)
    ada = actor("Ada", "admin")

    def approve() -> Release:
        return office.decide(release, office.risk)

    def suspend() -> Any:
        return incident_open(
            actor=ada, title="Wrong doses", happened="Ten times.", severity="critical",
            versions=[office.tuned.pk],
        )  # fmt: skip

    first, second = one_after_another(*((suspend, approve) if end_first else (approve, suspend)))
    if end_first:
        assert second.status == 409
        assert votes(release) == [("Carla", "approve")]
    else:
        assert first.approved_at is not None
        assert states(release)[0] == ReleaseState.SUSPENDED
    assert refused(release)


@pytest.mark.parametrize("expire_first", [True, False])
@pytest.mark.parametrize("end", ["withdraw", "recall", "incident"])
def test_the_end_of_its_time_and_another_end(
    office: Office, actor: Callable[..., Principal], end: str, expire_first: bool
) -> None:
    release = office.approve(office.submit())
    ada = actor("Ada", "admin")
    past = timezone.now() - timedelta(days=90)
    Release.objects.filter(pk=release.pk).update(expires_at=past)

    def ends() -> Any:
        if end == "withdraw":
            return release_withdraw(
                actor=proven(office.submitter), release_id=release.pk, reason="Not needed."
            )
        if end == "recall":
            return recalling(ada, office.tuned)()
        return incident_open(
            actor=ada, title="Wrong doses", happened="Ten times.", severity="critical",
            versions=[office.tuned.pk],
        )  # fmt: skip

    order = (releases_expire_due, ends) if expire_first else (ends, releases_expire_due)
    first, second = one_after_another(*order)
    late = second if expire_first else first
    if end == "withdraw" and expire_first:
        assert late.status == 409
    releases_expire_due()
    over = {"withdraw": "withdrawn", "recall": "recalled", "incident": "expired"}
    reached = "expired" if expire_first else over[end]
    assert states(release)[0] == reached
    assert refused(release)
    assert serving.check_dossier(Release.objects.get(pk=release.pk)) is None


def test_a_renewal_is_void_when_the_code_changes_once_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The review shows the change to the second code, so it cannot approve the third."""
    task = office.tuned.model.task
    old = office.approve(office.submit())
    second, third = package("2", runner="a"), package("3", runner="b")
    monkeypatch.setitem(CODES, task, second)
    assert refused(old)
    evaluation(office.tuned, office.test, office.trainer, details={"code": second.digest})
    waiting = office.submit(renews=old)
    office.attest(waiting)
    office.decide(waiting, office.compliance)
    monkeypatch.setitem(CODES, task, third)
    with pytest.raises(Exception, match=r"mine 3") as late:
        office.decide(waiting, office.risk)
    assert getattr(late.value, "code", "") == "dossier_outdated"
    assert releases_void_due() == 1
    assert states(waiting) == (ReleaseState.VOIDED, ReviewState.VOIDED)
    # Back to the first code: the first approval, which never ended, counts again.
    monkeypatch.setitem(CODES, task, TaskCode())
    assert not refused(old)
    assert refused(waiting)


def test_a_release_whose_package_is_gone_is_decided_by_nobody_and_can_be_taken_back(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = office.tuned.model.task
    approved = office.approve(office.submit(deployment_name="approved"))
    waiting, other = one_missing(office), one_missing(office, deployment_name="other")
    monkeypatch.delitem(CODES, task)
    monkeypatch.delitem(task_catalog().tasks, task)
    for attempt in (
        lambda: office.decide(waiting, office.risk),
        lambda: office.submit(deployment_name="third"),
    ):
        with pytest.raises(DomainError) as refusal:
            attempt()
        assert "no installed package provides it" in str(refusal.value).lower()
    release_withdraw(actor=proven(office.submitter), release_id=other.pk, reason="Not needed.")
    assert releases_void_due() == 1
    assert f"{task} cannot be used here" in Release.objects.get(pk=waiting.pk).voided_because
    assert states(other)[0] == ReleaseState.WITHDRAWN
    assert refused(approved)
    assert states(approved)[0] == ReleaseState.APPROVED, "It serves again with its package."
