"""A provider that answers as another model: events, an incident, and a suspension."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, NotPermitted
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from registry.incidents.lifting import incident_lift
from registry.incidents.models import Incident, IncidentNotice, Severity
from registry.incidents.raising import incident_notices_send_due
from registry.incidents.services import incident_move, incident_open, incident_rate
from registry.releases.conditions import conditions_checked
from registry.releases.models import ReleaseState
from tests.database_roles import acting_as
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import signed_in
from tests.unit.audit_support import bodies
from tests.unit.governance.test_review_reminders import Postbox, postbox
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_hosted_versions import deployed, gpt, prompt_on
from workers.control.direct import DirectControl
from workers.deployments.alarms import provider_differs
from workers.deployments.health import deployment_health
from workers.deployments.models import Deployment, StatedModel
from workers.deployments.services import deployment_create
from workers.deployments.software import software_measure
from workers.deployments.stated_models import FURTHER, NAMES_MAX, stated_models_record
from workers.measurements.models import Measurement
from workers.remote.control import RemoteControl

__all__ = ["postbox"]

pytestmark = pytest.mark.django_db
MODEL = "gpt-4o-2024-08-06"


def state(deployment: Deployment, model: str = "gpt-5", fingerprint: str = "") -> None:
    with acting_as("worker"):
        DirectControl().model_stated(
            worker="egress@a", deployment_id=deployment.pk, model=model, fingerprint=fingerprint
        )


def record() -> int:
    with acting_as("controller"):
        return stated_models_record()


def an_hour_ago() -> None:
    StatedModel.objects.update(seen_at=timezone.now() - timedelta(hours=1))


def suspending(**changes: Any) -> Deployment:
    approved = release(
        gpt(**changes), "assistant", engine="hosted", conditions={"suspend_on_difference": True}
    )
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def test_a_difference_is_recorded_once_an_hour_and_raises_one_incident() -> None:
    deployment = deployed(gpt())
    for _ in range(3):
        state(deployment, "gpt-5", "fp_9")
        record()
    (event,) = bodies(action="deployment:provider_differs")
    assert (event["actor_id"], event["department"]) == ("controller", "clinical")
    assert event["data"]["model"] == "gpt-5"
    assert "answered a request to assistant as gpt-5 fp_9" in event["reason"]
    incident = Incident.objects.get()
    assert (incident.severity, incident.reporter, incident.cause) == (
        "medium",
        None,
        "provider_differs",
    )
    assert incident.about == deployment.release.version
    deployment.release.refresh_from_db()
    assert deployment.release.state == ReleaseState.APPROVED
    assert provider_differs() == "Answered: assistant as gpt-5 fp_9."
    an_hour_ago()
    StatedModel.objects.update(recorded_at=timezone.now() - timedelta(hours=1))
    state(deployment, "gpt-5", "fp_9")
    assert record() == 1
    assert len(bodies(action="deployment:provider_differs")) == 2
    assert Incident.objects.count() == 1
    StatedModel.objects.update(seen_at=timezone.now() - timedelta(hours=3))
    assert provider_differs() == ""


def test_with_the_condition_a_difference_suspends_until_a_reviewer_lifts_it() -> None:
    deployment = suspending()
    on_it = release(prompt_on(deployment.release.version), "letters", engine="hosted")
    state(deployment, MODEL)
    record()
    assert not Incident.objects.exists()
    state(deployment)
    record()
    incident = Incident.objects.get()
    assert incident.severity == Severity.HIGH
    for each in (deployment.release, on_it):
        each.refresh_from_db()
        assert each.state == ReleaseState.SUSPENDED
    (event,) = bodies(action="release:suspended", subject_id=str(deployment.release_id))
    assert event["reason"] == f"Incident {incident.pk} is high."
    reviewer = company.person("risk", "reviewer", specialty="security")
    for to in ("investigating", "resolved"):
        incident_move(actor=reviewer, incident_id=incident.pk, state=to, text="The alias moved.")
    maker = company.person("maker", "reviewer", specialty="security")
    with pytest.raises(NotPermitted, match="had a part in"):
        incident_lift(actor=maker, incident_id=incident.pk, reason="It answers as before.")
    incident_lift(actor=reviewer, incident_id=incident.pk, reason="It answers as before.")
    deployment.release.refresh_from_db()
    assert deployment.release.state == ReleaseState.APPROVED
    an_hour_ago()
    StatedModel.objects.update(recorded_at=timezone.now() - timedelta(hours=2))
    state(deployment)
    record()
    assert Incident.objects.filter(suspensions__lifted_at__isnull=True).count() == 1
    assert Incident.objects.count() == 2


def test_the_condition_of_another_release_rates_the_incident_higher_once() -> None:
    first = deployed(gpt())
    state(first)
    record()
    strict = release(
        first.release.version, "strict", engine="hosted",
        conditions={"suspend_on_difference": True},
    )  # fmt: skip
    second = deployment_create(actor=company.developer(), release_id=strict.pk)
    state(second)
    record()
    incident = Incident.objects.get()
    assert incident.severity == Severity.HIGH
    note = incident.notes.get()
    assert (note.person, note.detail) == (None, "medium → high")
    operator = company.person("ops", "operator")
    incident_rate(
        actor=operator, incident_id=incident.pk, severity="low", serious="", text="An alias."
    )
    state(second, "gpt-6")
    record()
    incident.refresh_from_db()
    assert incident.severity == Severity.LOW


def test_another_fingerprint_that_the_description_permits_is_an_event_alone() -> None:
    deployment = deployed(gpt())
    for fingerprint in ("fp_1", "", "fp_2", "fp_2"):
        state(deployment, MODEL, fingerprint)
        record()
    (event,) = bodies(action="deployment:provider_fingerprint")
    assert event["data"]["first"] == "fp_1"
    assert event["data"]["fingerprint"] == "fp_2"
    assert not Incident.objects.exists()


def test_names_are_bounded_and_a_difference_beyond_is_still_noticed() -> None:
    deployment = deployed(gpt())
    for number in range(NAMES_MAX + 5):
        state(deployment, MODEL, f"fp_{number}")
    assert StatedModel.objects.count() == NAMES_MAX
    state(deployment, "gpt-5")
    state(deployment, "gpt-6")
    assert StatedModel.objects.count() == NAMES_MAX + 1
    while record():
        pass
    (event,) = bodies(action="deployment:provider_differs")
    assert event["data"]["model"] == FURTHER


def test_a_worker_adds_names_and_decides_nothing() -> None:
    deployment = deployed(gpt())
    state(deployment)
    for sql in (
        "UPDATE workers_statedmodel SET differs = false, recorded_at = now()",
        "UPDATE workers_statedmodel SET model = 'x'",
        "DELETE FROM workers_statedmodel",
        "INSERT INTO registry_incidentversion (incident_id, version_id) VALUES (1, 1)",
    ):
        with (
            acting_as("worker"),
            pytest.raises(DatabaseError, match="permission denied"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
    with pytest.raises(NotFound, match="No provider answers"):
        state(deployment_create(actor=company.developer(), release_id=release(adapter()).pk))
    with pytest.raises(NotPermitted, match="A node calls no provider"):
        RemoteControl.model_stated(
            None,
            worker="n",
            deployment_id=1,
            model="",
            fingerprint="",  # type: ignore[arg-type]
        )


def test_a_worker_neither_dates_its_names_nor_fills_the_table() -> None:
    deployment, own = deployed(gpt()), deployment_create(
        actor=company.developer(), release_id=release(adapter()).pk
    )  # fmt: skip
    insert = (
        "INSERT INTO workers_statedmodel (deployment_id, model, fingerprint, first_at, seen_at) "
        "VALUES (%s, %s, '', 'infinity', '-infinity')"
    )
    with acting_as("worker"), connection.cursor() as cursor:
        cursor.executemany(insert, [(deployment.pk, f"gpt-{number}") for number in range(5, 85)])
        cursor.execute("UPDATE workers_statedmodel SET seen_at = 'infinity'")
    row = StatedModel.objects.get(model="gpt-5")
    assert abs(row.seen_at - timezone.now()) < timedelta(minutes=1)
    assert row.first_at == row.seen_at
    for place, name in ((own, "gpt-5"), (deployment, "gpt-99"), (deployment, "a\nb")):
        with (
            acting_as("worker"),
            pytest.raises(DatabaseError, match=r"no provider|too many names|control character"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(insert, [place.pk, name])
    state(deployment, "gpt-99")
    assert StatedModel.objects.filter(model=FURTHER).exists()


def test_the_condition_is_for_hosted_models_only() -> None:
    wanted = {"suspend_on_difference": True}
    assert conditions_checked(wanted, suspending().release).suspend_on_difference
    with pytest.raises(InvalidInput, match="only for models that a provider runs"):
        conditions_checked(wanted, release(adapter()))


def test_leads_of_concerned_departments_get_a_mail(postbox: Postbox) -> None:
    company.person("lea", "lead", "clinical")
    company.person("fay", "lead", "finance")
    deployment = suspending()
    state(deployment)
    record()
    with acting_as("controller"):
        assert incident_notices_send_due() == IncidentNotice.objects.count() == 1
    assert postbox.to == ["lea@example.org"]
    text = postbox.mails[0].get_payload()
    assert "answered as gpt-5" in text.replace("\n", " ")
    assert "assistant" not in text
    assert "The affected releases are suspended." in text


def test_an_incident_has_a_reporter_or_a_cause(postbox: Postbox) -> None:
    deployment = deployed(gpt())
    state(deployment)
    record()
    incident = Incident.objects.get()
    with (
        pytest.raises(IntegrityError, match="incident_has_reporter_or_cause"),
        transaction.atomic(),
    ):
        Incident.objects.filter(pk=incident.pk).update(cause="")
    with pytest.raises(IntegrityError, match="one_unresolved_finding"), transaction.atomic():
        Incident.objects.create(
            title="Again", happened="Again", severity="low", cause="provider_differs",
            about=incident.about, department=incident.department, aware_at=timezone.now(),
        )  # fmt: skip
    developer = company.developer()
    reported = incident_open(
        actor=developer, title="Wrong", happened="Wrong", severity="low",
        versions=[deployment.release.version_id],
    )  # fmt: skip
    assert (reported.cause, reported.reporter_id) == ("", developer.person_id)


def test_pages_api_health_and_metric_show_what_answers_stated() -> None:
    deployment = deployed(gpt())
    state(deployment, MODEL, "fp_1")
    state(deployment, "gpt-5", "fp_9")
    record()
    software_measure()
    assert Measurement.objects.get(name="software").figures["stated"] == {"assistant": 1}
    lead = Person.objects.get(pk=company.person("lea", "lead", "clinical").person_id)
    client = signed_in(lead)
    version = deployment.release.version
    for address in (f"/deployments/{deployment.pk}", f"/versions/{version.pk}"):
        page = client.get(address).content.decode()
        assert "gpt-5" in page, address
        assert "not in the description" in page
        assert f"The provider of {version} answers as another model" in page
    rows = Api(lead).get(f"versions/{version.pk}/stated-models").body["results"]
    assert [(row["model"], row["differs"]) for row in rows] == [("gpt-5", True), (MODEL, False)]
    health = deployment_health(actor=principal_for_person(lead), deployment_id=deployment.pk)
    texts = [each.text for each in health.changes if each.kind == "provider"]
    assert set(texts) == {"Refused answers of gpt-5 fp_9", f"First answer of {MODEL} fp_1"}
    problem_of(Api(_stranger()).get(f"versions/{version.pk}/stated-models"), 404)


def _stranger() -> Person:
    return Person.objects.get(pk=company.person("fay", "lead", "finance").person_id)
