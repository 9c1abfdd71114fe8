"""Events of the platform's own work name the job, release or deployment."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.people.models import Department, Person
from governance.people.recoveries.approving import recovery_on_server
from governance.people.services import first_admin_create
from governance.policy.services import policy_bootstrap
from governance.principals import RequestContext, background, request_context, service_principal
from registry.releases.models import Release
from registry.releases.services import releases_expire_due
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import ReplicaState
from workers.deployments.services import (
    deployment_create,
    deployments_stop_unservable,
    replica_report,
)
from workers.jobs.leases import job_claim, job_fail
from workers.jobs.models import Job, JobKind

pytestmark = pytest.mark.django_db
CONTROLLER = service_principal("controller")


def by_the_platform() -> dict[str, str]:
    """Action → request id of each event of a process of the platform."""
    rows = AuditEvent.objects.filter(actor_kind="service").order_by("id")
    return dict(rows.values_list("action", "request_id"))


def test_a_job_is_named_in_every_event_of_its_worker() -> None:
    job = Job.objects.create(
        kind=JobKind.EVALUATE,
        department=Department.objects.create(slug="clinical", name="Clinical"),
        created_by=Person.objects.create(email="dev@example.org", name="Dev"),
        title="Evaluate",
        spec={"version": 1},
    )
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    job_fail(claim, "Out of memory.", retry=False)
    assert by_the_platform() == {"job:claim": f"job-{job.pk}", "job:fail": f"job-{job.pk}"}


def test_so_are_deployments_and_releases_whose_time_is_over() -> None:
    approved = release(adapter())
    deployment = deployment_create(actor=company.developer(), release_id=approved.pk)
    replica_report(
        deployment_id=deployment.pk,
        worker="e1",
        state=ReplicaState.READY,
        loaded_digest=approved.version.digest,
    )
    Release.objects.filter(pk=approved.pk).update(
        approved_at=timezone.now() - timedelta(days=2),
        expires_at=timezone.now() - timedelta(days=1),
    )
    releases_expire_due()
    deployments_stop_unservable()
    told = by_the_platform()
    assert told["deployment:serve"] == told["deployment:stop"] == f"deployment-{deployment.pk}"
    assert told["release:expired"] == f"release-{approved.pk}"


def test_the_installation_names_itself() -> None:
    policy_bootstrap()
    ada = first_admin_create(email="ada@example.org", name="Ada")
    recovery_on_server(person_id=ada.pk, reason="The first administrator.")
    assert set(by_the_platform().values()) == {"bootstrap"}


def test_within_a_request_the_request_is_named_and_people_name_no_work() -> None:
    person = company.developer()
    token = request_context.set(RequestContext("req-1"))
    try:
        with background("job-7", CONTROLLER):
            assert request_context.get().request_id == "req-1"
    finally:
        request_context.reset(token)
    with background("job-7", person):
        assert request_context.get().request_id == ""
    with background("job-7", CONTROLLER):
        assert request_context.get().request_id == "job-7"
    assert request_context.get().request_id == ""
