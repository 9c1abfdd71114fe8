"""Incidents and emergency access against concurrent changes, on PostgreSQL: whichever comes first,
in the end no release under a suspending incident is approved or live, and an emergency access is
confirmed once.

The first is held in its transaction, with what it has locked, until the second waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.people.models import Department, Person
from governance.principals import Principal
from registry.incidents.lifting import incident_lift
from registry.incidents.models import Incident, IncidentSuspension
from registry.incidents.services import incident_move, incident_open, incident_rate
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.emergency_access.services import (
    emergency_access_confirm,
    emergency_access_end,
    emergency_access_request,
)
from registry.releases.models import Release
from registry.releases.services import release_withdraw
from registry.versions.models import ModelVersion
from tests.proofs import proven
from tests.unit.registry.office import Office
from tests.unit.registry.test_recall_races import one_after_another, recalling, registering
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
def ada(person: Callable[..., Person]) -> Principal:
    return proven(person("Ada", "admin"))


@pytest.fixture
def rita(person: Callable[..., Person]) -> Principal:
    return proven(person("Rita", "reviewer:security"))


def opening(who: Principal, version: ModelVersion, severity: str = "high") -> Call:
    def run() -> Incident:
        return incident_open(
            actor=who, title="Bad", happened="Bad.", severity=severity, versions=[version.pk]
        )

    return run


def nothing_serves(*states: str) -> None:
    deployments_stop_unservable()
    assert set(Release.objects.values_list("state", flat=True)) == set(states)
    assert not Deployment.objects.filter(state__in=["pending", "serving"]).exists()


@pytest.mark.parametrize("incident_first", [True, False])
def test_approving(office: Office, ada: Principal, incident_first: bool) -> None:
    release = office.submit()
    office.attest(release)
    office.decide(release, office.compliance)

    def approve() -> Release:
        return office.decide(release, office.risk)

    if incident_first:
        _, refused = one_after_another(opening(ada, office.base), approve)
        assert (refused.status, refused.code) == (409, "incident_suspends")
        nothing_serves("in_review")
    else:
        approved, _ = one_after_another(approve, opening(ada, office.base))
        assert approved.state == "approved"
        nothing_serves("suspended")


@pytest.mark.parametrize("incident_first", [True, False])
def test_deploying(office: Office, ada: Principal, incident_first: bool) -> None:
    release = office.approve(office.submit())

    def deploy() -> Deployment:
        return deployment_create(actor=proven(office.operator), release_id=release.pk)

    if incident_first:
        _, refused = one_after_another(opening(ada, office.base), deploy)
        assert refused.status == 409
    else:
        deployed, _ = one_after_another(deploy, opening(ada, office.base))
        assert deployed.name == "review-sentiment"
    nothing_serves("suspended")


@pytest.mark.parametrize("incident_first", [True, False])
def test_registering(office: Office, ada: Principal, incident_first: bool) -> None:
    first, second = opening(ada, office.base), registering(office)
    if not incident_first:
        first, second = second, first
    one_after_another(first, second)
    from registry.incidents.reach import suspended_by

    ids = list(ModelVersion.objects.values_list("pk", flat=True))
    assert len(ids) == 3
    assert suspended_by(ids).keys() == set(ids)


@pytest.mark.parametrize("incident_first", [True, False])
def test_recalling(office: Office, ada: Principal, incident_first: bool) -> None:
    office.approve(office.submit())
    first, second = opening(ada, office.base), recalling(ada, office.base)
    if not incident_first:
        first, second = second, first
    results = one_after_another(first, second)
    assert {type(each).__name__ for each in results} == {"Incident", "Recalled"}
    nothing_serves("recalled")


@pytest.mark.parametrize("lift_first", [True, False])
def test_lifting_one_while_another_is_opened(
    office: Office, ada: Principal, rita: Principal, lift_first: bool
) -> None:
    office.approve(office.submit())
    incident = opening(ada, office.tuned)()
    for state in ("investigating", "resolved"):
        incident_move(actor=ada, incident_id=incident.pk, state=state, text="Mended.")

    def lift() -> Any:
        return incident_lift(actor=rita, incident_id=incident.pk, reason="Mended.")

    first, second = lift, opening(ada, office.base)
    one_after_another(first, second) if lift_first else one_after_another(second, first)
    assert IncidentSuspension.objects.filter(lifted_at__isnull=True).count() == 1
    nothing_serves("suspended")


def test_lifting_twice(office: Office, ada: Principal, rita: Principal) -> None:
    office.approve(office.submit())
    incident = opening(ada, office.tuned)()
    for state in ("investigating", "resolved"):
        incident_move(actor=ada, incident_id=incident.pk, state=state, text="Mended.")

    def lift() -> Any:
        return incident_lift(actor=rita, incident_id=incident.pk, reason="Mended.")

    done, refused = one_after_another(lift, lift)
    assert (len(done.approved), refused.status) == (1, 409)


def test_raising_it_twice(office: Office, ada: Principal) -> None:
    office.approve(office.submit())
    incident = opening(ada, office.tuned, "low")()

    def rate() -> Any:
        return incident_rate(
            actor=ada, incident_id=incident.pk, severity="high", serious="", text="Worse."
        )

    _, refused = one_after_another(rate, rate)
    assert refused.status == 409
    assert IncidentSuspension.objects.count() == 1


def asking(office: Office, release: Release) -> Call:
    return lambda: emergency_access_request(
        actor=proven(office.operator), release_id=release.pk, reason="Night.", hours=2
    )


def confirming(who: Principal, emergency: EmergencyAccess) -> Call:
    return lambda: emergency_access_confirm(actor=who, emergency_access_id=emergency.pk)


def test_two_ask_at_once(office: Office) -> None:
    release = office.submit()
    asked, refused = one_after_another(asking(office, release), asking(office, release))
    assert (asked.state, refused.status) == ("requested", 409)
    assert EmergencyAccess.objects.count() == 1


def test_two_confirm_at_once(office: Office, ada: Principal, rita: Principal) -> None:
    emergency = asking(office, office.submit())()
    done, refused = one_after_another(confirming(ada, emergency), confirming(rita, emergency))
    assert (done.state, refused.status) == ("active", 409)
    assert EmergencyAccess.objects.get().confirmed_by_id == ada.person_id


@pytest.mark.parametrize("confirm_first", [True, False])
def test_confirming_while_it_is_withdrawn(
    office: Office, ada: Principal, confirm_first: bool
) -> None:
    release = office.submit()
    emergency = asking(office, release)()

    def withdraw() -> Release:
        return release_withdraw(
            actor=proven(office.submitter), release_id=release.pk, reason="Not needed."
        )

    if confirm_first:
        _, refused = one_after_another(confirming(ada, emergency), withdraw)
        assert refused.code == "served_by_emergency_access"
        assert EmergencyAccess.objects.get().state == "active"
    else:
        _, refused = one_after_another(withdraw, confirming(ada, emergency))
        assert refused.status == 409
        assert EmergencyAccess.objects.get().state == "refused"


@pytest.mark.parametrize("confirm_first", [True, False])
def test_confirming_while_an_incident_is_opened(
    office: Office, ada: Principal, confirm_first: bool
) -> None:
    emergency = asking(office, office.submit())()
    first, second = confirming(ada, emergency), opening(ada, office.base)
    if confirm_first:
        one_after_another(first, second)
        assert EmergencyAccess.objects.get().state == "ended"
    else:
        _, refused = one_after_another(second, first)
        assert refused.status == 409
        assert EmergencyAccess.objects.get().state == "refused"


@pytest.mark.parametrize("confirm_first", [True, False])
def test_confirming_while_it_is_approved(
    office: Office, ada: Principal, confirm_first: bool
) -> None:
    release = office.submit()
    office.attest(release)
    office.decide(release, office.compliance)
    emergency = asking(office, release)()

    def approve() -> Release:
        return office.decide(release, office.risk)

    first, second = confirming(ada, emergency), approve
    one_after_another(first, second) if confirm_first else one_after_another(second, first)
    assert Release.objects.get().state == "approved"
    assert EmergencyAccess.objects.get().state == ("ended" if confirm_first else "refused")


def test_two_end_it_at_once(office: Office, ada: Principal, rita: Principal) -> None:
    emergency = asking(office, office.submit())()
    confirming(ada, emergency)()

    def ending(who: Principal) -> Call:
        return lambda: emergency_access_end(
            actor=who, emergency_access_id=emergency.pk, reason="Over."
        )

    done, refused = one_after_another(ending(ada), ending(rita))
    assert (done.state, refused.status) == ("ended", 409)
    assert EmergencyAccess.objects.get().ended_by_id == ada.person_id
