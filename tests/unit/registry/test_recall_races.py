"""A recall while somebody registers, submits, approves or deploys below it, on PostgreSQL: whoever
comes first, in the end nothing below is trusted, open, approved or live.

The first is held in its transaction, with what it has locked, until the second waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from governance.errors import DomainError
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.reviews.models import Review
from registry.releases.models import Release
from registry.releases.services import release_withdraw
from registry.versions.models import ModelVersion
from registry.versions.recall import recall_radius, version_recall
from registry.versions.services import _insert
from tests.proofs import proven
from tests.unit.registry.office import Office
from tests.waiting import PATIENCE_S
from workers.deployments.models import Deployment
from workers.deployments.services import deployment_create, deployments_stop_unservable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]
Call = Callable[[], Any]


@pytest.fixture
def office(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> Office:
    return Office(person, department)


@pytest.fixture
def ada(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def somebody_waits() -> bool:
    """True when another transaction waits for a lock of this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
            " AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
        )
        return bool(cursor.fetchone()[0])


def one_after_another(first: Call, second: Call) -> tuple[Any, Any]:
    """`second` begins when `first` has done everything but commit, and `first` commits once
    `second` waits for it or is through. Results or refusals."""
    results: list[Any] = [None, None]
    done, over = threading.Event(), threading.Event()

    def run_first() -> None:
        try:
            with transaction.atomic():
                results[0] = first()
                done.set()
                until = time.monotonic() + PATIENCE_S
                while time.monotonic() < until and not (over.is_set() or somebody_waits()):
                    time.sleep(0.02)
        except DomainError as error:
            results[0] = error
        finally:
            done.set()
            connection.close()

    def run_second() -> None:
        done.wait(PATIENCE_S)
        try:
            results[1] = second()
        except DomainError as error:
            results[1] = error
        finally:
            over.set()
            connection.close()

    threads = [threading.Thread(target=run) for run in (run_first, run_second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results[0], results[1]


def recalling(ada: Principal, version: ModelVersion, *, again: bool = True) -> Call:
    """Recalls it; like a person, reads the list again when it has changed."""

    def recall() -> Any:
        for attempt in range(3):
            digest = recall_radius(actor=ada, version_id=version.pk).digest
            try:
                return version_recall(
                    actor=ada, version_id=version.pk, reason="Unsafe.", confirm=digest
                )
            except DomainError as error:
                if error.code != "lineage_changed" or not again or attempt == 2:
                    raise
        return None

    return recall


def nothing_is_left(office: Office) -> None:
    """Nothing below the base is trusted, open, approved or, after the controller's round, live."""
    deployments_stop_unservable()
    assert not ModelVersion.objects.filter(state="trusted").exists()
    ended = {"recalled", "withdrawn"}
    assert set(Release.objects.values_list("state", flat=True)) <= ended
    assert not Review.objects.filter(state__in=["open", "changes_requested"]).exists()
    assert not Deployment.objects.filter(state__in=["pending", "serving"]).exists()


def registering(office: Office) -> Call:
    """The next version on the base, as the control plane writes it once MLflow has it."""

    def register() -> ModelVersion:
        return _insert(
            ModelVersion(
                model=office.tuned.model,
                number=2,
                kind="full",
                base=ModelVersion.objects.get(pk=office.base.pk),
                digest="7" * 64,
                manifest={},
                size_bytes=1,
                created_by=office.trainer,
                job_id=uuid4(),
            )
        )

    return register


@pytest.mark.parametrize("recall_first", [True, False])
def test_registering(office: Office, ada: Principal, recall_first: bool) -> None:
    recall, register = recalling(ada, office.base), registering(office)
    if recall_first:
        done, refused = one_after_another(recall, register)
        assert (done.versions, refused.status) == (2, 409)
        assert "nothing may be registered on it" in refused.message
    else:
        registered, done = one_after_another(register, recall)
        assert (registered.kind, done.versions) == ("full", 3)
    nothing_is_left(office)


def test_a_list_read_before_a_registration_confirms_nothing(office: Office, ada: Principal) -> None:
    _, refused = one_after_another(registering(office), recalling(ada, office.base, again=False))
    assert (refused.status, refused.code) == (409, "lineage_changed")
    assert not ModelVersion.objects.filter(state="recalled").exists()


@pytest.mark.parametrize("recall_first", [True, False])
def test_submitting(office: Office, ada: Principal, recall_first: bool) -> None:
    recall = recalling(ada, office.base)
    if recall_first:
        done, refused = one_after_another(recall, office.submit)
        assert (done.versions, refused.status) == (2, 409)
    else:
        _, done = one_after_another(office.submit, recall)
        assert (done.releases, done.reviews) == (1, 1)
    nothing_is_left(office)


@pytest.mark.parametrize("recall_first", [True, False])
def test_approving(office: Office, ada: Principal, recall_first: bool) -> None:
    release = office.submit()
    office.attest(release)
    office.decide(release, office.compliance)
    recall = recalling(ada, office.base)

    def approve() -> Release:
        return office.decide(release, office.risk)

    if recall_first:
        done, refused = one_after_another(recall, approve)
        assert (done.releases, done.reviews, refused.status) == (1, 1, 409)
    else:
        approved, done = one_after_another(approve, recall)
        assert (approved.state, done.releases) == ("approved", 1)
    nothing_is_left(office)


@pytest.mark.parametrize("recall_first", [True, False])
def test_deploying(
    office: Office, ada: Principal, person: Callable[..., Person], recall_first: bool
) -> None:
    release = office.approve(office.submit())
    operator = proven(office.operator)
    recall = recalling(ada, office.base)

    def deploy() -> Deployment:
        return deployment_create(actor=operator, release_id=release.pk)

    if recall_first:
        done, refused = one_after_another(recall, deploy)
        assert (done.releases, refused.status) == (1, 409)
        assert not Deployment.objects.exists()
    else:
        deployed, done = one_after_another(deploy, recall)
        assert (deployed.name, done.releases) == ("review-sentiment", 1)
    nothing_is_left(office)


@pytest.mark.parametrize("recall_first", [True, False])
def test_withdrawing(office: Office, ada: Principal, recall_first: bool) -> None:
    release = office.submit()
    lead = proven(office.submitter)
    recall = recalling(ada, office.base)

    def withdraw() -> Release:
        return release_withdraw(actor=lead, release_id=release.pk, reason="Not needed.")

    if recall_first:
        done, refused = one_after_another(recall, withdraw)
        assert (done.releases, refused.status) == (1, 409)
    else:
        _, done = one_after_another(withdraw, recall)
        assert (done.versions, done.releases) == (2, 0)
    nothing_is_left(office)


def test_two_recalls_of_one_lineage(office: Office, ada: Principal) -> None:
    first, second = one_after_another(recalling(ada, office.tuned), recalling(ada, office.base))
    assert (first.versions, second.versions) == (1, 1)
    nothing_is_left(office)
