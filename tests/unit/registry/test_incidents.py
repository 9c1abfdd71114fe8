"""Incidents: what they suspend at once, what lifts that, and who may do which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error as DatabaseError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.principals import Principal, service_principal
from governance.rowsecurity import scope
from registry.incidents.lifting import incident_lift
from registry.incidents.models import (
    Incident,
    IncidentNote,
    IncidentSuspension,
    IncidentVersion,
)
from registry.incidents.reach import suspended_by
from registry.incidents.selectors import (
    incident_get,
    incident_notes,
    incident_reaches,
    incidents_pressing,
    incidents_visible_to,
)
from registry.incidents.services import (
    incident_add_version,
    incident_move,
    incident_note,
    incident_open,
    incident_rate,
)
from registry.incidents.states import ALLOWED_TRANSITIONS, incident_set_state
from registry.releases.models import Release, ReleaseState
from registry.releases.services import release_servable, release_withdraw, releases_expire_due
from registry.releases.voiding import releases_void_due
from registry.versions.models import ModelVersion
from registry.versions.recall import recall_radius, version_recall
from tests.proofs import proven
from tests.unit.audit_support import recorded, recorded_all
from tests.unit.registry.objects import evaluation, model, version
from tests.unit.registry.office import Office

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


@pytest.fixture
def ada(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def rita(actor: Callable[..., Principal]) -> Principal:
    """A reviewer for security who has had nothing to do with anything."""
    return actor("Rita", "reviewer:security")


def report(who: Principal, *of: ModelVersion, **changes: Any) -> Incident:
    return incident_open(
        **{
            "actor": who,
            "title": "Wrong doses",
            "happened": "It names ten times the dose.",
            "severity": "high",
            "versions": [each.pk for each in of],
            **changes,
        }
    )


def resolve(who: Principal, incident: Incident) -> None:
    for state in ("investigating", "resolved"):
        incident_move(actor=who, incident_id=incident.pk, state=state, text="Looked into it.")


def states() -> dict[int, str]:
    return dict(Release.objects.values_list("pk", "state"))


def refused_by_the_database(change: Callable[[], Any]) -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        change()


@pytest.mark.parametrize(
    ("severity", "state"),
    [
        ("low", "approved"),
        ("medium", "approved"),
        ("high", "suspended"),
        ("critical", "suspended"),
    ],
)
def test_a_high_or_critical_one_suspends_at_once_what_stands_on_it(
    office: Office, ada: Principal, severity: str, state: str
) -> None:
    release = office.approve(office.submit())
    waiting = office.submit(deployment_name="second")
    incident = report(ada, office.base, severity=severity)
    assert states() == {release.pk: state, waiting.pk: "in_review"}
    suspends = incidents_visible_to(ada).get(pk=incident.pk).suspends  # type: ignore[attr-defined]
    assert suspends is (state == "suspended")
    told = [event.action for event in recorded_all(action__startswith="release:suspend")]
    assert told == (["release:suspended"] if suspends else [])
    assert recorded(action="incident:open").subject_name == f"incident {incident.pk}"
    if suspends:
        with pytest.raises(WrongState, match="is suspended; it may not serve"):
            release_servable(Release.objects.get(pk=release.pk))


def test_the_same_bytes_and_what_is_registered_later_are_reached(
    office: Office, ada: Principal
) -> None:
    twin = ModelVersion.objects.create(
        model=model(office.supplier, office.clinical, "copy"),
        number=1,
        kind="base",
        digest=office.base.digest,
        manifest=office.base.manifest,
        size_bytes=1,
        created_by=office.supplier,
    )
    incident = report(ada, office.base)
    later = version(twin.model, office.supplier, "full", twin)
    beside = version(office.base.model, office.supplier)
    ids = [office.base.pk, office.tuned.pk, twin.pk, later.pk, beside.pk]
    assert suspended_by(ids) == dict.fromkeys(ids[:-1], incident.pk)


def test_nothing_under_a_suspending_incident_is_approved(office: Office, ada: Principal) -> None:
    release = office.submit()
    office.attest(release)
    office.decide(release, office.compliance)
    incident = report(ada, office.base)
    with pytest.raises(WrongState, match=f"Incident {incident.pk} suspends") as refused:
        office.decide(release, office.risk)
    assert refused.value.code == "incident_suspends"
    now = timezone.now()
    forged = {"state": "approved", "approved_at": now, "expires_at": now + timedelta(days=1)}
    with pytest.raises(IntegrityError, match="cannot be approved"), transaction.atomic():
        Release.objects.filter(pk=release.pk).update(**forged)
    resolve(ada, incident)
    lift_by_somebody(incident, office)
    assert office.decide(release, office.risk).state == ReleaseState.APPROVED


def lift_by_somebody(incident: Incident, office: Office) -> Any:
    return incident_lift(actor=proven(office.risk), incident_id=incident.pk, reason="Corrected.")


def test_resolving_lifts_nothing_and_lifting_gives_back(
    office: Office, ada: Principal, rita: Principal
) -> None:
    release = office.approve(office.submit())
    incident = report(ada, office.tuned)
    with pytest.raises(WrongState, match="is open; its suspension cannot be lifted"):
        incident_lift(actor=rita, incident_id=incident.pk, reason="Fine.")
    resolve(ada, incident)
    assert states() == {release.pk: "suspended"}
    with pytest.raises(WrongState, match="still suspends; it cannot be closed"):
        incident_move(actor=ada, incident_id=incident.pk, state="closed", text="Done.")
    with pytest.raises(NotPermitted, match="needs a second factor") as unproved:
        incident_lift(actor=replace(rita, proof=None), incident_id=incident.pk, reason="Fine.")
    assert unproved.value.code == "step_up_required"
    done = incident_lift(actor=rita, incident_id=incident.pk, reason="Fine.")
    assert ([each.pk for each in done.approved], done.suspended) == ([release.pk], [])
    release_servable(Release.objects.get(pk=release.pk))
    event = recorded(action="release:approved", reason__contains="lifted")
    assert event.actor_name == "Rita"
    with pytest.raises(WrongState, match="suspends nothing"):
        incident_lift(actor=rita, incident_id=incident.pk, reason="Again.")


def test_another_incident_or_the_end_of_its_time_keeps_a_release_suspended(
    office: Office, ada: Principal, rita: Principal
) -> None:
    release = office.approve(office.submit())
    first, second = report(ada, office.tuned), report(ada, office.base)
    resolve(ada, first)
    done = incident_lift(actor=rita, incident_id=first.pk, reason="Fine.")
    assert (done.approved, [each.pk for each in done.suspended]) == ([], [release.pk])
    Release.objects.update(expires_at=timezone.now() - timedelta(days=60))
    resolve(ada, second)
    done = incident_lift(actor=rita, incident_id=second.pk, reason="Fine.")
    assert done.approved == []
    assert releases_expire_due() == 1
    assert states() == {release.pk: "expired"}


def test_raising_it_adding_to_it_and_opening_it_again_suspend_too(
    office: Office, ada: Principal, rita: Principal
) -> None:
    release = office.approve(office.submit())
    incident = report(ada, office.tuned, severity="low")
    rated = {"actor": ada, "incident_id": incident.pk, "serious": "", "text": "It is worse."}
    incident_rate(severity="critical", **rated)
    assert states() == {release.pk: "suspended"}
    incident_rate(severity="low", **rated)
    assert states() == {release.pk: "suspended"}
    resolve(ada, incident)
    incident_lift(actor=rita, incident_id=incident.pk, reason="Fine.")
    assert states() == {release.pk: "approved"}
    incident_rate(severity="high", **rated)
    assert states() == {release.pk: "approved"}
    incident_move(actor=ada, incident_id=incident.pk, state="investigating", text="Again.")
    assert states() == {release.pk: "suspended"}

    beside = version(model(office.supplier, office.clinical, "other"), office.supplier)
    wide = report(ada, beside)
    incident_lift_all(rita, ada, incident)
    assert states() == {release.pk: "approved"}
    incident_add_version(
        actor=ada, incident_id=wide.pk, version_id=office.base.pk, text="That too."
    )
    assert states() == {release.pk: "suspended"}
    with pytest.raises(WrongState, match="names it already"):
        incident_add_version(
            actor=ada, incident_id=wide.pk, version_id=office.base.pk, text="Again."
        )


def incident_lift_all(who: Principal, ada: Principal, incident: Incident) -> None:
    incident_move(actor=ada, incident_id=incident.pk, state="resolved", text="Done.")
    incident_lift(actor=who, incident_id=incident.pk, reason="Fine.")


def test_every_allowed_transition_of_an_incident_is_saved(office: Office, ada: Principal) -> None:
    incident = report(ada, office.base, severity="low")
    for before, following in ALLOWED_TRANSITIONS.items():
        for after in following:
            Incident.objects.update(state=before, resolved_at=timezone.now())
            incident.refresh_from_db()
            incident_set_state(actor=ada, incident=incident, state=after, reason="r", decision=None)
            assert Incident.objects.get().state == after


def test_who_reported_it_or_had_a_part_in_it_lifts_nothing(
    office: Office, ada: Principal, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    both = person("Bea", "reviewer:model-risk", "developer@clinical")
    own = version(model(both, office.clinical, "own"), both)
    reporter = actor("Rob", "reviewer:security")
    incident = report(reporter, own)
    resolve(ada, incident)
    for who, why in ((reporter, "reported"), (principal_for_person(both), "had a part in")):
        with pytest.raises(NotPermitted, match=why) as refused:
            incident_lift(actor=who, incident_id=incident.pk, reason="Fine.")
        assert refused.value.code == "separation_of_duties"
        assert refused.value.attempt is not None
        refused_by_the_database(
            lambda who=who: IncidentSuspension.objects.update(  # type: ignore[misc]
                lifted_at=timezone.now(), lifted_by_id=who.person_id, lift_reason="Fine."
            )
        )
    for role in ("admin", "operator", "reviewer:compliance", "lead@clinical", "auditor"):
        with pytest.raises(NotPermitted):
            incident_lift(actor=actor(f"X {role}", role), incident_id=incident.pk, reason="Fine.")


def test_who_had_a_part_in_what_it_suspends_lifts_nothing(
    office: Office, ada: Principal, rita: Principal, person: Callable[..., Person]
) -> None:
    """Of releases too, and of what stands on the version that it names."""
    roles = ("reviewer:model-risk", "developer@clinical")
    submits, trains, adds = (person(name, *roles) for name in ("Sam", "Tom", "Ann"))
    office.approve(office.submit(submits))
    version(model(trains, office.clinical, "below"), trains, "full", office.base)
    incident = report(ada, office.base)
    further = version(model(office.supplier, office.clinical, "further"), office.supplier)
    incident_add_version(
        actor=principal_for_person(adds),
        incident_id=incident.pk,
        version_id=further.pk,
        text="That too.",
    )
    resolve(ada, incident)
    for who in (submits, trains, adds):
        with pytest.raises(NotPermitted, match="had a part in"):
            incident_lift(actor=principal_for_person(who), incident_id=incident.pk, reason="Fine.")
    assert len(incident_lift(actor=rita, incident_id=incident.pk, reason="Fine.").approved) == 1


def test_a_version_of_a_department_that_one_may_not_see_is_not_named(
    office: Office, ada: Principal, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    fay = person("Fay", "lead@finance")
    theirs = version(model(fay, Department.objects.get(slug="finance"), "hidden-name"), fay)
    incident = report(ada, office.tuned)
    incident_add_version(
        actor=ada, incident_id=incident.pk, version_id=theirs.pk, text="The same cause."
    )
    colleague = actor("Cleo", "viewer@clinical")
    with scope(colleague):
        seen = incident_get(actor=colleague, id=incident.pk)
        named = [str(link.version) for link in seen.links.all()]
        told = [f"{note.detail} {note.text}" for note in incident_notes(seen)]
    assert named == [str(office.tuned)]
    assert not [line for line in told if "hidden-name" in line]


def test_what_was_written_down_stands(office: Office, ada: Principal, rita: Principal) -> None:
    incident = report(ada, office.base)
    incident_note(actor=ada, incident_id=incident.pk, text="The supplier knows.")
    resolve(ada, incident)
    incident_lift(actor=rita, incident_id=incident.pk, reason="Fine.")
    changes: list[Callable[[], Any]] = [
        lambda: IncidentNote.objects.update(text="Nothing happened."),
        lambda: IncidentNote.objects.all().delete(),
        lambda: IncidentVersion.objects.update(version=office.tuned),
        lambda: IncidentVersion.objects.all().delete(),
        lambda: IncidentSuspension.objects.update(lifted_by_id=ada.person_id),
        lambda: IncidentSuspension.objects.update(lifted_at=None, lifted_by=None, lift_reason=""),
        lambda: IncidentSuspension.objects.all().delete(),
        lambda: IncidentSuspension.objects.create(incident=incident, excluded_people=[]),
    ]
    for change in changes:
        refused_by_the_database(change)
    assert [note.kind for note in incident_notes(incident)] == ["note", "state", "state", "lifted"]
    incident_move(actor=ada, incident_id=incident.pk, state="closed", text="Done.")
    with pytest.raises(WrongState, match="is closed; nothing can be added"):
        incident_note(actor=ada, incident_id=incident.pk, text="One more thing.")


@pytest.mark.parametrize(
    ("serious", "days"), [("", None), ("general", 15), ("widespread", 2), ("death", 10)]
)
def test_a_serious_one_says_until_when_it_must_be_reported(
    office: Office, ada: Principal, serious: str, days: int | None
) -> None:
    known = timezone.now() - timedelta(hours=5)
    incident = report(ada, office.base, serious=serious, aware_at=known)
    assert incident.report_by == (None if days is None else known + timedelta(days=days))


@pytest.mark.parametrize(
    "changes",
    [
        {"title": ""},
        {"title": "x" * 121},
        {"happened": " "},
        {"severity": "terrible"},
        {"serious": "rather"},
        {"versions": []},
        {"versions": list(range(1, 22))},
        {"aware_at": timezone.now() + timedelta(days=2)},
    ],
)
def test_a_malformed_report_is_refused(
    office: Office, ada: Principal, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        report(ada, office.base, **changes)
    assert not Incident.objects.exists()


@pytest.mark.parametrize(
    "role",
    [
        "admin",
        "operator",
        "reviewer:privacy",
        "lead@clinical",
        "developer@clinical",
        "developer@finance",
    ],
)
def test_whoever_owns_uses_reviews_or_runs_it_reports(
    office: Office,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
    role: str,
) -> None:
    finance = department("finance")
    office.approve(office.submit(departments=[office.clinical, finance]))
    who = actor("Wim", role)
    with scope(who):
        incident = report(who, office.tuned)
        assert incident_get(actor=who, id=incident.pk).title == "Wrong doses"
    assert {each.slug for each in incident.departments.all()} == {"clinical", "finance"}


def test_others_neither_report_nor_see(office: Office, actor: Callable[..., Principal]) -> None:
    outsider, auditor = actor("Fay", "lead@finance"), actor("Asha", "auditor")
    with pytest.raises(NotFound, match=f"Version {office.tuned.pk} does not exist"):
        report(outsider, office.tuned)
    with pytest.raises(NotFound, match="Version 999999 does not exist"):
        report(outsider, office.tuned, versions=[999999])
    with pytest.raises(NotPermitted):
        report(auditor, office.tuned)
    with pytest.raises((NotFound, NotPermitted)):
        report(service_principal("controller"), office.tuned)
    incident = report(principal_for_person(office.operator), office.tuned)
    for who in (outsider,):
        with scope(who):
            assert not incidents_visible_to(who).exists()
            assert not Incident.objects.exists()
            assert not IncidentVersion.objects.exists()
        with pytest.raises(NotFound):
            incident_note(actor=who, incident_id=incident.pk, text="Hello.")
    with pytest.raises(NotPermitted):
        incident_note(actor=auditor, incident_id=incident.pk, text="Hello.")
    assert incident_get(actor=auditor, id=incident.pk)


def test_a_department_may_not_drag_in_a_version_that_is_not_its_own(
    office: Office, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    fay = person("Fay", "lead@finance")
    theirs = version(model(fay, office.clinical.__class__.objects.get(slug="finance"), "f"), fay)
    approved = office.approve(office.submit())
    who = principal_for_person(fay)
    with pytest.raises(NotFound):
        report(who, theirs, office.tuned)
    incident = report(who, theirs)
    with pytest.raises(NotFound):
        incident_add_version(
            actor=who, incident_id=incident.pk, version_id=office.tuned.pk, text="That too."
        )
    assert states() == {approved.pk: "approved"}


def test_who_reported_it_from_a_using_department_keeps_its_record(
    office: Office, actor: Callable[..., Principal], department: Callable[[str], Department]
) -> None:
    finance = department("finance")
    office.approve(office.submit(departments=[office.clinical, finance]))
    reporter, colleague = actor("Fay", "developer@finance"), actor("Fin", "lead@finance")
    incident = report(reporter, office.tuned)
    with scope(reporter):
        incident_note(actor=reporter, incident_id=incident.pk, text="It happened twice.")
    with pytest.raises(NotPermitted), scope(colleague):
        incident_note(actor=colleague, incident_id=incident.pk, text="Me too.")


def test_a_suspended_release_is_withdrawn_or_recalled_and_then_stays_so(
    office: Office, ada: Principal, rita: Principal
) -> None:
    first = office.approve(office.submit())
    second = office.approve(office.submit(deployment_name="second"))
    incident = report(ada, office.tuned)
    release_withdraw(
        actor=principal_for_person(office.submitter), release_id=first.pk, reason="Not needed."
    )
    digest = recall_radius(actor=ada, version_id=office.base.pk).digest
    version_recall(actor=ada, version_id=office.base.pk, reason="Unsafe.", confirm=digest)
    resolve(ada, incident)
    incident_lift(actor=rita, incident_id=incident.pk, reason="Recalled anyway.")
    assert states() == {first.pk: "withdrawn", second.pk: "recalled"}


def test_what_it_reaches_is_shown_as_far_as_one_may_see_it(
    office: Office, ada: Principal, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    release = office.approve(office.submit())
    incident = report(ada, office.base, severity="medium")
    found = incident_reaches(ada, incident_get(actor=ada, id=incident.pk))
    assert [each.pk for each in found.versions] == [office.base.pk, office.tuned.pk]
    assert ([each.pk for each in found.releases], found.releases_total) == ([release.pk], 1)
    assert not incidents_pressing(ada).exists()
    worse = report(ada, office.base)
    assert [each.pk for each in incidents_pressing(ada)] == [worse.pk]


def test_a_long_lineage_costs_no_more_queries(office: Office, ada: Principal) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            report(ada, office.base)
        return len(captured)

    office.approve(office.submit())
    few = cost()
    parent = office.tuned
    for _ in range(6):
        parent = version(office.base.model, office.supplier, "full", parent)
    assert cost() <= few


def test_what_would_mend_it_stays_under_review_while_what_it_replaces_is_suspended(
    office: Office, ada: Principal, rita: Principal
) -> None:
    live = office.approve(office.submit())
    mended = version(office.tuned.model, office.trainer, "full", office.base)
    evaluation(mended, office.test, office.trainer)
    waiting = office.submit(version=mended)
    assert waiting.dossier["replaces"]["release"] == live.pk
    incident = report(ada, office.tuned)
    assert states() == {live.pk: "suspended", waiting.pk: "in_review"}
    assert releases_void_due() == 0
    resolve(ada, incident)
    incident_lift(actor=rita, incident_id=incident.pk, reason="Fine.")
    assert releases_void_due() == 0
    assert states() == {live.pk: "approved", waiting.pk: "in_review"}
