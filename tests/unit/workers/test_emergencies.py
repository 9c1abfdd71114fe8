"""Effects of incidents and emergency access on deployments, and their later reports."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from governance.errors import WrongState
from governance.people.models import Person
from governance.principals import Principal
from registry.incidents.lifting import incident_lift
from registry.incidents.services import incident_move, incident_open
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.emergency_access.services import (
    emergency_access_confirm,
    emergency_access_end,
    emergency_access_request,
    emergency_accesses_end_due,
)
from registry.releases.models import Release
from tests.proofs import proven
from tests.unit.registry.office import Office
from tests.unit.registry.test_emergency_access import backdate
from workers.deployments.models import Deployment, ReplicaState
from workers.deployments.plans import load_plan
from workers.deployments.selectors import live_or_recalled
from workers.deployments.served import served_question
from workers.deployments.served_evidence import Served, served_answers
from workers.deployments.services import (
    deployment_create,
    deployments_stop_unservable,
    replica_report,
)

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


@pytest.fixture
def otto(office: Office) -> Principal:
    return proven(office.operator)


@pytest.fixture
def ada(person: Callable[..., Person]) -> Principal:
    return proven(person("Ada", "admin"))


def broken(otto: Principal, ada: Principal, release: Release) -> EmergencyAccess:
    asked = emergency_access_request(
        actor=otto, release_id=release.pk, reason="The ward stands still.", hours=2
    )
    return emergency_access_confirm(actor=ada, emergency_access_id=asked.pk)


def serve(otto: Principal, release: Release) -> Deployment:
    made = deployment_create(actor=otto, release_id=release.pk)
    replica_report(
        deployment_id=made.pk,
        worker="e1",
        state=ReplicaState.READY,
        loaded_digest=release.version.digest,
    )
    return Deployment.objects.get(pk=made.pk)


def answers(ada: Principal) -> list[Served]:
    question = served_question(actor=ada, department="clinical")
    return served_answers(ada, question, question.rows)


def test_a_release_is_deployed_by_emergency_access_and_stops_with_it(
    office: Office, otto: Principal, ada: Principal
) -> None:
    release = office.submit()
    with pytest.raises(WrongState, match="is in review; it may not serve"):
        deployment_create(actor=otto, release_id=release.pk)
    emergency = broken(otto, ada, release)
    deployment = serve(otto, release)
    assert emergency.ends_at is not None
    assert load_plan(deployment).expires_at == emergency.ends_at.timestamp()
    assert deployments_stop_unservable() == 0
    emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="Over.")
    with pytest.raises(WrongState, match="may not serve"):
        load_plan(Deployment.objects.get(pk=deployment.pk))
    assert deployments_stop_unservable() == 1
    deployment.refresh_from_db()
    assert deployment.state == "stopped"
    since = timezone.now() - timedelta(hours=1)
    assert [each.pk for each in live_or_recalled(since)] == [deployment.pk]


def test_an_approval_in_between_lets_it_go_on_serving(
    office: Office, otto: Principal, ada: Principal
) -> None:
    release = office.submit()
    broken(otto, ada, release)
    deployment = serve(otto, release)
    approved = office.approve(release)
    assert deployments_stop_unservable() == 0
    again = Deployment.objects.get(pk=deployment.pk)
    assert approved.serves_until is not None
    assert load_plan(again).expires_at == approved.serves_until.timestamp()


def test_a_suspension_stops_the_deployment_and_lifting_it_lets_one_deploy_again(
    office: Office, otto: Principal, ada: Principal
) -> None:
    release = office.approve(office.submit())
    deployment = serve(otto, release)
    incident = incident_open(
        actor=ada, title="Bad", happened="Bad.", severity="high", versions=[office.base.pk]
    )
    assert deployments_stop_unservable() == 1
    since = timezone.now() - timedelta(hours=1)
    assert [each.pk for each in live_or_recalled(since)] == [deployment.pk]
    with pytest.raises(WrongState, match="is suspended; it may not serve"):
        deployment_create(actor=otto, release_id=release.pk)
    for state in ("investigating", "resolved"):
        incident_move(actor=ada, incident_id=incident.pk, state=state, text="Mended.")
    incident_lift(actor=proven(office.risk), incident_id=incident.pk, reason="Mended.")
    assert serve(otto, release).state == "serving"


def test_what_served_says_that_it_was_by_emergency_access_and_until_when(
    office: Office, otto: Principal, ada: Principal
) -> None:
    release = office.submit()
    emergency = broken(otto, ada, release)
    serve(otto, release)
    (now,) = answers(ada)
    assert [each.pk for each in now.emergencies] == [emergency.pk]
    assert (now.until, now.ended) == (None, "")
    backdate(emergency, hours=2)
    emergency.refresh_from_db()
    # Over, though neither its row nor its deployment has been moved yet.
    assert answers(ada) == []
    assert emergency_accesses_end_due() == 1
    assert deployments_stop_unservable() == 1


def test_a_period_of_a_emergency_access_ends_with_it_however_late_it_is_stopped(
    office: Office, otto: Principal, ada: Principal
) -> None:
    release = office.submit()
    emergency = broken(otto, ada, release)
    serve(otto, release)
    emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="Over.")
    emergency.refresh_from_db()
    since = timezone.now() - timedelta(hours=1)
    span = served_question(actor=ada, department="clinical", since=since)
    (told,) = served_answers(ada, span, span.rows)
    assert (told.until, told.ended) == (emergency.ended_at, "emergency_access_over")
    assert [each.pk for each in told.emergencies] == [emergency.pk]


def test_what_was_approved_is_not_said_to_have_served_by_emergency_access(
    office: Office, otto: Principal, ada: Principal
) -> None:
    release = office.submit()
    emergency = broken(otto, ada, release)
    office.approve(release)
    serve(otto, release)
    (told,) = answers(ada)
    assert (told.emergencies, told.until) == ([], None)
    assert EmergencyAccess.objects.get(pk=emergency.pk).state == "ended"
