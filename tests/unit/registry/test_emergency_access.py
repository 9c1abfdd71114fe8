"""Emergency access: two persons, one dossier, some hours; and a third person's review afterward."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error as DatabaseError
from django.db import transaction
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.reminders.channels import mail_server_from
from governance.reviews.reminders.messages import mail_subject, mail_text, webhook_body
from governance.reviews.reminders.models import ReviewNotice, ReviewReminder
from governance.rowsecurity import scope
from registry.incidents.services import incident_open
from registry.releases.emergency_access.checks import CONFIRM_WITHIN
from registry.releases.emergency_access.force import emergency_access_in_force, serving_end
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.releases.emergency_access.selectors import (
    emergency_accesses_active,
    emergency_accesses_to_review,
    emergency_accesses_visible_to,
)
from registry.releases.emergency_access.services import (
    emergency_access_confirm,
    emergency_access_end,
    emergency_access_refuse,
    emergency_access_request,
    emergency_access_review,
    emergency_accesses_end_due,
)
from registry.releases.emergency_access.states import (
    ALLOWED_TRANSITIONS,
    emergency_access_set_state,
)
from registry.releases.models import Release, ReleaseState
from registry.releases.services import (
    release_answer,
    release_servable,
    release_withdraw,
)
from registry.versions.recall import recall_radius, version_recall
from tests.people import set_up_alone
from tests.proofs import proven
from tests.stored import stored_file
from tests.unit.audit_support import recorded, recorded_all
from tests.unit.registry.evidence_world import faults, files_of, packed
from tests.unit.registry.office import Office, open_office
from tests.worlds import built_once, copied

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


def submit() -> tuple[Office, Release]:
    office = open_office()
    return office, office.submit()


submitted_built = built_once(submit)


@pytest.fixture
def submitted(submitted_built: tuple[Office, Release], db: None) -> tuple[Office, Release]:
    return copied(submitted_built)


@pytest.fixture
def office(submitted: tuple[Office, Release]) -> Office:
    return submitted[0]


@pytest.fixture
def release(submitted: tuple[Office, Release]) -> Release:
    return submitted[1]


@pytest.fixture
def otto(person: Callable[..., Person]) -> Principal:
    return proven(person("Otti", "operator"))


@pytest.fixture
def ada(person: Callable[..., Person]) -> Principal:
    return proven(person("Ada", "admin"))


@pytest.fixture
def rita(person: Callable[..., Person]) -> Principal:
    return proven(person("Rita", "reviewer:security"))


def ask(who: Principal, release: Release, **changes: Any) -> EmergencyAccess:
    given = {"reason": "The ward stands still.", "hours": 2, **changes}
    return emergency_access_request(actor=who, release_id=release.pk, **given)


def broken(asker: Principal, second: Principal, release: Release) -> EmergencyAccess:
    return emergency_access_confirm(actor=second, emergency_access_id=ask(asker, release).pk)


def fresh(release: Release) -> Release:
    return Release.objects.get(pk=release.pk)


def backdate(emergency: EmergencyAccess, **by: float) -> None:
    """As if it had been confirmed earlier; past the trigger that keeps its times."""
    emergency.refresh_from_db()
    earlier = {
        name: getattr(emergency, name) - timedelta(**by)
        for name in ("asked_at", "confirmed_at", "ends_at", "ended_at", "due_at")
        if getattr(emergency, name) is not None
    }
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(
            "ALTER TABLE registry_emergencyaccess DISABLE TRIGGER assay_emergency_access_kept"
        )
        EmergencyAccess.objects.filter(pk=emergency.pk).update(**earlier)
        cursor.execute(
            "ALTER TABLE registry_emergencyaccess ENABLE TRIGGER assay_emergency_access_kept"
        )


def test_two_persons_let_it_serve_for_some_hours_before_the_review_has_decided(
    release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = ask(otto, release)
    with pytest.raises(WrongState, match="is in review; it may not serve"):
        release_servable(fresh(release))
    emergency_access_confirm(actor=ada, emergency_access_id=emergency.pk)
    release_servable(fresh(release))
    emergency.refresh_from_db()
    assert emergency.ends_at is not None
    assert emergency.confirmed_at is not None
    assert emergency.ends_at - emergency.confirmed_at == timedelta(hours=2)
    assert emergency.due_at == emergency.ends_at + timedelta(hours=24)
    assert serving_end(fresh(release)) == emergency.ends_at
    assert (emergency.dossier_digest, emergency.proof) == (release.dossier_digest, "totp")
    assert fresh(release).state == ReleaseState.IN_REVIEW
    told = [(e.action, e.actor_name) for e in recorded_all(subject_type="emergency_access")]
    assert told == [("emergency_access:requested", "Otti"), ("emergency_access:active", "Ada")]


def test_it_stops_by_itself_to_the_second(
    release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = broken(otto, ada, release)
    assert emergency.ends_at is not None
    before, after = emergency.ends_at - timedelta(seconds=1), emergency.ends_at
    assert emergency_access_in_force(fresh(release), before) == emergency
    assert emergency_access_in_force(fresh(release), after) is None
    assert emergency_accesses_end_due() == 0
    backdate(emergency, hours=3)
    with pytest.raises(WrongState, match="may not serve"):
        release_servable(fresh(release))
    assert emergency_accesses_end_due() == 1
    ended = EmergencyAccess.objects.get()
    assert (ended.state, ended.ended_at, ended.ended_by) == ("ended", ended.ends_at, None)
    assert recorded(action="emergency_access:ended").actor_kind == "service"


def test_nobody_confirms_alone_nor_what_they_had_a_part_in(
    office: Office, release: Release, ada: Principal, person: Callable[..., Person]
) -> None:
    emergency = ask(ada, release)
    for who in (ada, proven(office.submitter), proven(office.trainer)):
        with pytest.raises(NotPermitted, match="Separation of duties") as refused:
            emergency_access_confirm(actor=who, emergency_access_id=emergency.pk)
        assert refused.value.attempt is not None
    emergency.refresh_from_db()
    for confirmer in (ada.person_id, office.trainer.pk):
        with pytest.raises(DatabaseError), transaction.atomic():
            EmergencyAccess.objects.filter(pk=emergency.pk).update(confirmed_by_id=confirmer)
    assert EmergencyAccess.objects.get().state == "requested"


def test_who_confirms_proves_who_they_are(
    release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = ask(otto, release)
    with pytest.raises(NotPermitted) as refused:
        emergency_access_confirm(actor=replace(ada, proof=None), emergency_access_id=emergency.pk)
    assert refused.value.code == "step_up_required"


@pytest.mark.parametrize("role", ["admin", "operator", "lead@clinical"])
def test_admins_operators_and_leads_ask(
    release: Release, person: Callable[..., Person], role: str
) -> None:
    who = proven(person("Wim", role))
    with scope(who):
        assert ask(who, release).state == "requested"


@pytest.mark.parametrize(
    ("role", "error"),
    [
        ("developer@clinical", NotPermitted),
        ("reviewer:security", NotPermitted),
        ("auditor", NotPermitted),
        ("lead@finance", NotFound),
    ],
)
def test_others_do_not(
    release: Release, person: Callable[..., Person], role: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(proven(person("Wim", role)), release)
    assert not EmergencyAccess.objects.exists()


@pytest.mark.parametrize(
    ("role", "error"),
    [
        ("operator", NotPermitted),
        ("lead@clinical", NotPermitted),
        ("auditor", NotPermitted),
        ("lead@finance", NotFound),
    ],
)
def test_only_admins_and_reviewers_confirm_refuse_and_end(
    release: Release,
    otto: Principal,
    person: Callable[..., Person],
    role: str,
    error: type[Exception],
) -> None:
    emergency, who = ask(otto, release), proven(person("Wim", role))
    with pytest.raises(error):
        emergency_access_confirm(actor=who, emergency_access_id=emergency.pk)
    with pytest.raises(error):
        emergency_access_refuse(actor=who, emergency_access_id=emergency.pk, reason="No.")
    with pytest.raises(error):
        emergency_access_end(actor=who, emergency_access_id=emergency.pk, reason="No.")


@pytest.mark.parametrize(
    "changes", [{"reason": ""}, {"reason": "x" * 1001}, {"hours": 0}, {"hours": 9}, {"hours": -1}]
)
def test_a_malformed_request_is_refused(
    release: Release, otto: Principal, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        ask(otto, release, **changes)


def test_no_setting_and_nobody_makes_it_longer_than_it_was_asked_for(
    release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = broken(otto, ada, release)
    for change in (
        {"ends_at": timezone.now() + timedelta(hours=30)},
        {"hours": 25},
        {"dossier_digest": "0" * 64},
        {"confirmed_by_id": otto.person_id},
        {"excluded_people": []},
        {"state": "reviewed"},
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            EmergencyAccess.objects.filter(pk=emergency.pk).update(**change)
    with pytest.raises(DatabaseError), transaction.atomic():
        EmergencyAccess.objects.all().delete()


def test_a_request_that_nobody_confirms_lapses_after_an_hour(
    release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = ask(otto, release)
    backdate(emergency, hours=1)
    with pytest.raises(WrongState, match="over an hour ago"):
        emergency_access_confirm(actor=ada, emergency_access_id=emergency.pk)
    again = ask(otto, release)
    assert EmergencyAccess.objects.get(pk=emergency.pk).state == "lapsed"
    backdate(again, hours=1)
    assert emergency_accesses_end_due() == 1
    assert EmergencyAccess.objects.get(pk=again.pk).state == "lapsed"


def test_one_at_a_time_and_who_asked_takes_it_back(
    release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = ask(otto, release)
    with pytest.raises(WrongState, match="is already requested"):
        ask(ada, release)
    emergency_access_refuse(actor=otto, emergency_access_id=emergency.pk, reason="Not needed.")
    second = ask(otto, release)
    emergency_access_refuse(actor=ada, emergency_access_id=second.pk, reason="Wait for the review.")
    assert {each.state for each in EmergencyAccess.objects.all()} == {"refused"}
    with pytest.raises(WrongState, match="cannot be confirmed"):
        emergency_access_confirm(actor=ada, emergency_access_id=second.pk)


def test_bytes_origin_recall_and_incidents_are_never_excused(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = ask(otto, release)
    file = stored_file(office.tuned.manifest["files"][0]["sha256"])
    good = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"something else")
    with pytest.raises(WrongState, match="Emergency access is not possible") as refused:
        emergency_access_confirm(actor=ada, emergency_access_id=emergency.pk)
    assert refused.value.code == "never_excused"
    file.write_bytes(good)
    emergency_access_confirm(actor=ada, emergency_access_id=emergency.pk)
    release_servable(fresh(release))
    incident_open(
        actor=ada, title="Bad", happened="Bad.", severity="high", versions=[office.base.pk]
    )
    with pytest.raises(WrongState, match="may not serve"):
        release_servable(fresh(release))
    assert EmergencyAccess.objects.get().state == "ended"
    with pytest.raises(WrongState, match="suspends"):
        ask(otto, release)


def test_a_recall_ends_it(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    broken(otto, ada, release)
    digest = recall_radius(actor=ada, version_id=office.base.pk).digest
    version_recall(actor=ada, version_id=office.base.pk, reason="Unsafe.", confirm=digest)
    emergency = EmergencyAccess.objects.get()
    assert (emergency.state, emergency.ended_by_id) == ("ended", ada.person_id)
    with pytest.raises(WrongState, match="is recalled"):
        ask(otto, release)


def test_a_decision_ends_it_and_an_approval_makes_it_normal(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    broken(otto, ada, release)
    office.approve(release)
    assert EmergencyAccess.objects.get().state == "ended"
    release_servable(fresh(release))
    assert serving_end(fresh(release)) == fresh(release).serves_until

    other = office.submit(deployment_name="second")
    broken(otto, ada, other)
    office.decide(other, office.compliance, "reject")
    assert {each.state for each in EmergencyAccess.objects.all()} == {"ended"}
    with pytest.raises(WrongState, match="is rejected; it may not serve"):
        release_servable(fresh(other))


def test_another_dossier_is_not_what_two_persons_approved(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    broken(otto, ada, release)
    office.decide(release, office.compliance, "request_changes")
    release_servable(fresh(release))
    assert EmergencyAccess.objects.get().state == "active"
    asked = ask_other(otto, office)
    answered = release_answer(
        actor=proven(office.submitter),
        release_id=release.pk,
        message="More.",
        risk_answers={**release.risk_answers, "notes": "A pharmacist reads every one."},
    )
    assert answered.dossier_digest != release.dossier_digest
    assert EmergencyAccess.objects.get(release=release).state == "ended"
    assert EmergencyAccess.objects.get(pk=asked.pk).state == "requested"
    with pytest.raises(WrongState, match="may not serve"):
        release_servable(fresh(release))
    Release.objects.filter(pk=asked.release_id).update(dossier_digest="0" * 64)
    with pytest.raises(WrongState):
        emergency_access_confirm(actor=ada, emergency_access_id=asked.pk)


def ask_other(who: Principal, office: Office) -> EmergencyAccess:
    return ask(who, office.submit(deployment_name="second"))


def test_what_has_served_so_is_not_withdrawn_before_its_review_has_decided(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = ask(otto, release)
    waiting = office.submit(deployment_name="second")
    ask(otto, waiting)
    submitter = proven(office.submitter)
    release_withdraw(actor=submitter, release_id=waiting.pk, reason="Not needed.")
    assert EmergencyAccess.objects.get(release=waiting).state == "refused"
    emergency_access_confirm(actor=ada, emergency_access_id=emergency.pk)
    for _ in range(2):
        with pytest.raises(WrongState) as refused:
            release_withdraw(actor=submitter, release_id=release.pk, reason="Not needed.")
        assert refused.value.code == "served_by_emergency_access"
        if EmergencyAccess.objects.get(pk=emergency.pk).state == "active":
            emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="Over.")
    office.approve(release)
    assert release_withdraw(actor=submitter, release_id=release.pk, reason="Done.").state == (
        ReleaseState.WITHDRAWN
    )


def test_a_third_person_reviews_it_afterwards(
    office: Office, release: Release, otto: Principal, ada: Principal, rita: Principal,
    person: Callable[..., Person],
) -> None:  # fmt: skip
    both = proven(person("Bea", "reviewer:privacy", "operator"))
    emergency = emergency_access_confirm(actor=rita, emergency_access_id=ask(both, release).pk)
    given = {
        "emergency_access_id": emergency.pk,
        "verdict": "justified",
        "lessons": "More staff at night.",
    }
    carla = proven(office.compliance)
    with pytest.raises(WrongState, match="cannot become reviewed"):
        emergency_access_review(actor=carla, **given)
    emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="The ward runs again.")
    assert [each.pk for each in emergency_accesses_to_review(carla)] == [emergency.pk]
    for who in (both, rita, proven(office.trainer)):
        with pytest.raises(NotPermitted, match="Separation of duties"):
            emergency_access_review(actor=who, **given)
    for reviewer in (both.person_id, rita.person_id):
        with pytest.raises(DatabaseError), transaction.atomic():
            EmergencyAccess.objects.filter(pk=emergency.pk).update(
                state="reviewed", reviewed_by_id=reviewer, reviewed_at=timezone.now(),
                verdict="justified", lessons="Fine.",
            )  # fmt: skip
    with pytest.raises(InvalidInput):
        emergency_access_review(actor=carla, **{**given, "verdict": "perhaps"})
    with pytest.raises(InvalidInput):
        emergency_access_review(actor=carla, **{**given, "lessons": " "})
    with pytest.raises(NotPermitted):
        emergency_access_review(actor=ada, **given)
    with pytest.raises(NotPermitted) as unproved:
        emergency_access_review(actor=replace(carla, proof=None), **given)
    assert unproved.value.code == "step_up_required"
    done = emergency_access_review(actor=carla, **given)
    assert (done.state, done.verdict) == ("reviewed", "justified")
    assert recorded(action="emergency_access:reviewed").actor_name == "Carla"
    with pytest.raises(DatabaseError), transaction.atomic():
        EmergencyAccess.objects.update(verdict="not_justified")
    assert not emergency_accesses_to_review(carla).exists()


def test_an_overdue_review_keeps_the_department_from_emergency_access_again(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = broken(otto, ada, release)
    emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="Over.")
    other = office.submit(deployment_name="second")
    asked = ask(otto, other)
    backdate(emergency, hours=25)
    with pytest.raises(WrongState) as refused:
        emergency_access_confirm(actor=ada, emergency_access_id=asked.pk)
    assert refused.value.code == "after_review_overdue"
    with pytest.raises(WrongState, match="is overdue"):
        ask(otto, office.submit(deployment_name="third"))
    emergency_access_review(
        actor=proven(office.compliance), emergency_access_id=emergency.pk, verdict="not_justified",
        lessons="It could have waited.",
    )  # fmt: skip
    assert emergency_access_confirm(actor=ada, emergency_access_id=asked.pk).state == "active"


def test_it_is_due_when_the_review_is_at_the_latest(
    release: Release, otto: Principal, ada: Principal
) -> None:
    due = timezone.now() + timedelta(hours=5)
    Review.objects.update(due_at=due)
    assert broken(otto, ada, release).due_at == due


def test_only_what_is_under_review_is_served_so(
    office: Office, release: Release, otto: Principal
) -> None:
    office.approve(release)
    with pytest.raises(WrongState, match="is approved; emergency access is only"):
        ask(otto, release)


@pytest.mark.parametrize(
    ("before", "after"),
    [(before, after) for before, states in ALLOWED_TRANSITIONS.items() for after in sorted(states)],
)
def test_an_allowed_transition_of_an_emergency_access_is_saved(
    release: Release,
    otto: Principal,
    ada: Principal,
    rita: Principal,
    before: EmergencyAccessState,
    after: EmergencyAccessState,
) -> None:
    emergency = ask(otto, release)
    if before in {"active", "ended", "reviewed"}:
        emergency_access_confirm(actor=ada, emergency_access_id=emergency.pk)
    if before in {"ended", "reviewed"}:
        emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="Over.")
    if before == "reviewed":
        emergency_access_review(
            actor=rita, emergency_access_id=emergency.pk, verdict="justified", lessons="None."
        )
    if before == "refused":
        emergency_access_refuse(actor=ada, emergency_access_id=emergency.pk, reason="No.")
    if before == "lapsed":
        backdate(emergency, hours=2)
        emergency_accesses_end_due()
    emergency.refresh_from_db()
    assert emergency.state == before
    now = timezone.now()
    wanted: dict[str, dict[str, Any]] = {
        "active": {
            "confirmed_by_id": ada.person_id, "confirmed_at": now,
            "ends_at": now + timedelta(hours=1), "due_at": now + timedelta(hours=25),
        },
        "ended": {"ended_at": now},
        "reviewed": {
            "reviewed_by_id": rita.person_id, "reviewed_at": now, "verdict": "justified",
            "lessons": "None.",
        },
    }  # fmt: skip
    for name, value in wanted.get(after, {}).items():
        setattr(emergency, name, value)

    emergency_access_set_state(actor=ada, emergency=emergency, state=after, reason="r")
    assert EmergencyAccess.objects.get(pk=emergency.pk).state == after


def test_whoever_sees_the_release_sees_it(
    office: Office, release: Release, otto: Principal, ada: Principal,
    person: Callable[..., Person],
) -> None:  # fmt: skip
    broken(otto, ada, release)
    for role, seen in (("viewer@clinical", 1), ("auditor", 1), ("lead@finance", 0)):
        who = proven(person(f"X {role}", role))
        with scope(who):
            assert emergency_accesses_active(who).count() == seen
            assert emergency_accesses_visible_to(who).count() == seen
            assert EmergencyAccess.objects.count() == seen


def test_the_setting_bounds_it(release: Release, otto: Principal, settings: Any) -> None:
    settings.EMERGENCY_ACCESS_MAX_HOURS = 3
    with pytest.raises(InvalidInput, match="1 to 3 hours"):
        ask(otto, release, hours=4)
    assert ask(otto, release, hours=3).hours == 3
    assert timedelta(hours=1) == CONFIRM_WITHIN


def test_administrators_and_leads_are_told_of_each_by_mail_and_webhook(
    office: Office, release: Release, otto: Principal, ada: Principal,
    person: Callable[..., Person], settings: Any,
) -> None:  # fmt: skip
    lead, _ = person("Lea", "lead@clinical"), person("Fay", "lead@finance")
    settings.MAIL_SERVER = mail_server_from("smtp://127.0.0.1:25", sender="a@example.org")
    for hours in (1, 2):
        emergency = emergency_access_confirm(
            actor=ada, emergency_access_id=ask(otto, release, hours=hours).pk
        )
        emergency_access_end(actor=ada, emergency_access_id=emergency.pk, reason="Over.")
    reminders = list(ReviewReminder.objects.filter(kind="emergency"))
    assert [sorted(each.people) for each in reminders] == [sorted([ada.person_id, lead.pk])] * 2
    notices = ReviewNotice.objects.filter(reminder=reminders[0])
    assert {notice.person_id for notice in notices} == {ada.person_id, lead.pk}
    notice = notices[0]
    assert mail_subject(notice).startswith(
        "Emergency access, serving before its review has decided"
    )
    assert "gave it emergency access" in mail_text(notice)
    assert b'"event": "review.emergency"' in webhook_body(notice)


def test_the_evidence_pack_says_that_it_served_so(
    office: Office, release: Release, otto: Principal, ada: Principal
) -> None:
    emergency = broken(otto, ada, release)
    files = files_of(packed(office, release))
    assert faults(files) == {}
    (told,) = json.loads(files["decisions.json"])["emergency_access"]
    assert (told["id"], told["asked_by"]["name"], told["confirmed_by"]["name"]) == (
        emergency.pk,
        "Otti",
        "Ada",
    )
    events = json.loads(files["events.json"])["events"]
    said = [json.loads(each["canonical"])["action"] for each in events]
    assert [each for each in said if each.startswith("emergency_access:")] == [
        "emergency_access:requested",
        "emergency_access:active",
    ]


def test_who_set_the_requesters_account_up_alone_does_not_confirm(
    person: Callable[..., Person], release: Release
) -> None:
    """Else one administrator makes a lead, asks as that lead, and confirms as themselves."""
    maker, lead = person("Mara", "admin"), person("Lea", "lead@finance")
    lead.role_assignments.update(department=release.department)
    emergency = ask(proven(set_up_alone(maker, lead)), release)
    with pytest.raises(NotPermitted) as caught:
        emergency_access_confirm(actor=proven(maker), emergency_access_id=emergency.pk)
    assert caught.value.code == "separation_of_duties"
    emergency_access_confirm(
        actor=proven(person("Nora", "admin")), emergency_access_id=emergency.pk
    )
