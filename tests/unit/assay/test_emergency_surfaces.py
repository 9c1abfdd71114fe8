"""Incidents and emergency access by API, portal and command line."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.people.models import Person
from registry.incidents.models import Incident
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.emergency_access.services import (
    emergency_access_confirm,
    emergency_access_end,
    emergency_access_request,
)
from registry.releases.models import Release
from registry.releases.selectors import release_review
from tests import proofs
from tests.abuse.test_kept_input import verified
from tests.proofs import proven
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import inline_in, queries
from tests.unit.registry.office import Office
from tests.unit.registry.test_emergency_access import backdate

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return person("Ada", "admin")


def signed_in(person: Person) -> Client:
    return proofs.signed_in(Client(), person)


def page(person: Person, address: str, status: int = 200) -> str:
    response = signed_in(person).get(address)
    assert response.status_code == status, address
    html = response.content.decode()
    assert inline_in(html) == []
    return html


def reported(office: Office, **changes: Any) -> dict[str, Any]:
    return {
        "title": "Wrong doses",
        "happened": "It names ten times the dose.",
        "severity": "high",
        "versions": [office.base.pk],
        **changes,
    }


def test_an_incident_lives_from_its_report_to_its_end_by_api(office: Office, ada: Person) -> None:
    release = office.approve(office.submit())
    api = Api(ada)
    made = api.post("incidents", reported(office, serious="general"))
    assert made.status_code == 201, made.content
    incident = made.body["id"]
    assert (made.body["state"], made.body["suspends"]) == ("open", True)
    assert [each["id"] for each in made.body["linked"]] == [office.base.pk]
    assert [each["name"] for each in made.body["versions_reached"]] == ["minilm v1", "sentiment v1"]
    assert [each["state"] for each in made.body["releases_reached"]] == ["suspended"]
    assert made.body["report_by"] > made.body["aware_at"]

    path = f"incidents/{incident}"
    api.post(f"{path}/notes", {"text": "The supplier knows."})
    api.post(f"{path}/versions", {"version": office.tuned.pk, "text": "That too."})
    rated = api.post(f"{path}/severity", {"severity": "critical", "serious": "", "text": "Worse."})
    assert (rated.body["severity"], rated.body["report_by"]) == ("critical", None)
    problem_of(api.post(f"{path}/state", {"state": "closed", "text": "Over."}), 409)
    for state in ("investigating", "resolved"):
        assert api.post(f"{path}/state", {"state": state, "text": "So."}).body["state"] == state
    problem_of(api.post(f"{path}/lift", {"reason": "Fine."}), 403)
    lifted = Api(office.risk).post(f"{path}/lift", {"reason": "Corrected."})
    assert lifted.body == {"incident": incident, "approved": [release.pk], "suspended": []}
    found = api.get(path).body
    assert [note["kind"] for note in found["notes"]] == [
        "note", "version", "severity", "state", "state", "lifted",
    ]  # fmt: skip
    assert found["suspensions"][0]["lifted_by"]["name"] == "Milo"
    assert found["suspends"] is False
    assert [each["id"] for each in api.get("incidents", state="resolved").body["results"]] == [
        incident
    ]
    assert api.get("incidents", severity="low").body["results"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"severity": "bad"},
        {"versions": []},
        {"versions": ["1"]},
        {"title": "x" * 121},
        {"title": "two\nlines"},
        {"serious": "very"},
        {"color": "red"},
    ],
)
def test_a_malformed_report_is_refused_by_api(
    office: Office, ada: Person, changes: dict[str, Any]
) -> None:
    problem_of(Api(ada).post("incidents", reported(office, **changes)), 400)
    assert not Incident.objects.exists()


def test_a_emergency_access_lives_from_its_request_to_its_review_by_api(
    office: Office, ada: Person
) -> None:
    release = office.submit()
    operator, admin, reviewer = Api(office.operator), Api(ada), Api(office.compliance)
    asked = operator.post(
        f"releases/{release.pk}/emergency-access", {"reason": "The ward stands still.", "hours": 2}
    )
    assert (asked.status_code, asked.body["state"]) == (201, "requested")
    path = f"emergency-access/{asked.body['id']}"
    problem_of(operator.post(f"{path}/confirm", {}), 403)
    active = admin.post(f"{path}/confirm", {})
    assert (active.body["state"], active.body["confirmed_by"]["name"]) == ("active", "Ada")
    assert active.body["dossier_digest"] == release.dossier_digest
    assert (
        admin.get("emergency-access", state="active").body["results"][0]["id"] == asked.body["id"]
    )
    ended = reviewer.post(f"{path}/end", {"reason": "The ward runs again."})
    assert (ended.body["state"], ended.body["ended_by"]["name"]) == ("ended", "Carla")
    body = {"verdict": "justified", "lessons": "More staff at night."}
    problem_of(admin.post(f"{path}/review", body), 403)
    done = reviewer.post(f"{path}/review", body)
    assert (done.body["state"], done.body["verdict"]) == ("reviewed", "justified")
    assert operator.get(path).body["lessons"] == "More staff at night."


def test_a_request_is_refused_by_api(office: Office, ada: Person) -> None:
    release = office.submit()
    path = f"releases/{release.pk}/emergency-access"
    problem_of(Api(office.operator).post(path, {"reason": "Now.", "hours": 25}), 400)
    problem_of(Api(office.operator).post(path, {"reason": "Now.", "hours": "2"}), 400)
    problem_of(Api(office.submitter).post(path, {"reason": "Now.", "hours": 2}), 403)
    asked = Api(office.operator).post(path, {"reason": "Now.", "hours": 2})
    refused = Api(ada).post(
        f"emergency-access/{asked.body['id']}/refuse", {"reason": "It can wait."}
    )
    assert refused.body["state"] == "refused"


def test_the_portal_reports_keeps_and_lifts(office: Office, ada: Person) -> None:
    release = office.approve(office.submit())
    assert "Report an incident…" in page(ada, f"/versions/{office.base.pk}")
    client = signed_in(ada)
    address = f"/incidents/new?version={office.base.pk}"
    assert "Report an incident of minilm v1" in page(ada, address)
    form = {"title": "Wrong doses", "happened": "Ten times.", "severity": "high", "serious": ""}
    missing = client.post(address, {**form, "title": "", "version": office.base.pk})
    assert missing.status_code == 400
    assert "Ten times." in missing.content.decode()
    known = {"serious": "death", "aware_at": "2026-01-02T03:04"}
    made = client.post("/incidents/new", {**form, **known, "version": office.base.pk})
    incident = Incident.objects.get()
    assert made.headers["Location"] == f"/incidents/{incident.pk}"
    assert incident.aware_at.isoformat() == "2026-01-02T03:04:00+00:00"
    assert Release.objects.get(pk=release.pk).state == "suspended"

    html = page(ada, f"/incidents/{incident.pk}")
    for words in (
        "that this incident affects",
        "this deadline has passed",
        "Wrong doses",
    ):
        assert words in html
    assert "Wrong doses" in page(ada, "/")
    assert "Wrong doses" in page(ada, "/incidents")
    assert "Wrong doses" in page(ada, f"/versions/{office.base.pk}")
    assert "Wrong doses" not in page(ada, "/incidents?state=closed")
    review = release_review(release)
    assert review is not None
    # Through what it stands on.
    for address in (f"/releases/{release.pk}", f"/reviews/{review.pk}"):
        assert "until a reviewer lifts the suspension" in page(ada, address)

    path = f"/incidents/{incident.pk}"
    for action, posted in (
        ("notes", {"text": "The supplier knows."}),
        ("versions", {"version": office.tuned.pk, "text": "That too."}),
        ("severity", {"severity": "critical", "serious": "", "text": "Worse."}),
        ("state", {"state": "investigating", "text": "Looking."}),
        ("state", {"state": "resolved", "text": "Mended."}),
    ):
        assert client.post(f"{path}/{action}", posted).status_code == 302, action
    wrong = client.post(f"{path}/state", {"state": "open", "text": "No."})
    assert (wrong.status_code, "cannot become open" in wrong.content.decode()) == (409, True)
    assert "Lift suspension" not in page(ada, path)
    assert "Lift suspension" in page(office.risk, path)
    done = verified(office.risk, f"{path}/lift", {"reason": "“Corrected” & tested."})
    assert done.status_code == 302
    assert "“Corrected” & tested." in unescape(page(ada, path))
    assert Release.objects.get(pk=release.pk).state == "approved"
    assert "lifted by Milo" in page(ada, path)


def test_who_may_not_lift_is_told_why(office: Office, person: Callable[..., Person]) -> None:
    reporter = person("Rob", "reviewer:security")
    signed_in(reporter).post(
        "/incidents/new",
        {"title": "T", "happened": "H", "severity": "high", "serious": "",
         "version": office.base.pk},
    )  # fmt: skip
    path = f"/incidents/{Incident.objects.get().pk}"
    assert "You reported it or had a part" in page(reporter, path)
    assert "Resolve it first." in page(office.risk, path)


def test_what_is_not_said_or_not_ones_own_is_refused_by_the_portal(
    office: Office, ada: Person, person: Callable[..., Person]
) -> None:
    assert "Name the version" in page(ada, "/incidents/new", 400)
    page(ada, "/incidents/new?version=x", 400)
    outsider = person("Fay", "lead@finance")
    page(outsider, f"/incidents/new?version={office.tuned.pk}", 404)
    page(outsider, "/incidents/999", 404)
    assert "No incidents" in page(outsider, "/incidents")


def test_the_portal_shows_emergency_access_loudly_and_has_it_reviewed(
    office: Office, ada: Person, person: Callable[..., Person]
) -> None:
    release = office.submit()
    operator, viewer = office.operator, person("Vera", "viewer@clinical")
    outsider = person("Fay", "lead@finance")
    assert "Request emergency access…" in page(operator, f"/releases/{release.pk}")
    assert "Request emergency access…" not in page(viewer, f"/releases/{release.pk}")
    address = f"/releases/{release.pk}/emergency-access"
    assert "At most 8" in page(operator, address)
    assert signed_in(operator).post(address, {"reason": "", "hours": 2}).status_code == 400
    made = signed_in(operator).post(address, {"reason": "The ward stands still.", "hours": 2})
    emergency = EmergencyAccess.objects.get()
    path = f"/emergency-access/{emergency.pk}"
    assert made.headers["Location"] == path
    assert "Withdraw request" in page(operator, path)
    assert "You are the second person" in page(ada, path)
    assert "You are the second person" not in page(operator, path)

    unproved = Client()
    unproved.force_login(ada)
    asking = unproved.post(f"{path}/confirm")
    assert (asking.status_code, "Verify your identity" in asking.content.decode()) == (403, True)
    assert signed_in(ada).post(f"{path}/confirm").status_code == 302
    for who, address, seen in (
        (viewer, "/models", True),
        (ada, "/keys", True),
        (office.risk, "/", True),
        (outsider, "/models", False),
    ):
        banner = "serves before its review has decided" in " ".join(page(who, address).split())
        assert banner is seen, who.name
    assert "Deploy" in page(operator, f"/releases/{release.pk}")
    assert "The ward stands still." in page(viewer, "/emergency-access")

    assert signed_in(ada).post(f"{path}/end", {"reason": "Over."}).status_code == 302
    assert "serves before its review has decided" not in page(viewer, "/models")
    assert "Emergency access to review" in page(office.compliance, "/reviews")
    assert "Emergency access to review" not in page(operator, "/reviews")
    assert "You requested emergency access" not in page(office.compliance, path)
    review = {"verdict": "not_justified", "lessons": "It could have waited."}
    assert signed_in(office.compliance).post(f"{path}/review", review).status_code == 302
    assert "It could have waited." in page(viewer, path)
    assert "Emergency access to review" not in page(office.compliance, "/reviews")


def test_a_review_afterward_keeps_what_was_typed_while_the_person_verifies(
    office: Office, ada: Person, redis: Any
) -> None:
    """The page led away from its form, promised to keep the input, and came back empty."""
    emergency = emergency_access_request(
        actor=proven(office.operator), release_id=office.submit().pk, reason="Night.", hours=1
    )
    emergency_access_confirm(actor=proven(ada), emergency_access_id=emergency.pk)
    emergency_access_end(actor=proven(ada), emergency_access_id=emergency.pk, reason="Over.")
    reviewer, path = office.compliance, f"/emergency-access/{emergency.pk}"
    shown = page(reviewer, path)
    assert "/account/prove" not in shown
    assert 'name="lessons"' in shown
    lessons = "More staff at “night” & <less> haste.\r\nAnd a second line."
    typed = {"verdict": "not_justified", "lessons": lessons}
    assert verified(reviewer, f"{path}/review", typed).status_code == 302
    emergency.refresh_from_db()
    assert (emergency.verdict, emergency.lessons) == ("not_justified", lessons)


def test_who_may_not_confirm_or_review_is_told_why(
    office: Office, ada: Person, person: Callable[..., Person]
) -> None:
    both = person("Bea", "admin", "reviewer:privacy")
    emergency = emergency_access_request(
        actor=proven(both), release_id=office.submit().pk, reason="Night.", hours=1
    )
    path = f"/emergency-access/{emergency.pk}"
    assert "You requested emergency access" in page(both, path)
    assert "You had a part in" in page(office.trainer, path)
    emergency_access_confirm(actor=proven(office.compliance), emergency_access_id=emergency.pk)
    emergency_access_end(actor=proven(ada), emergency_access_id=emergency.pk, reason="Over.")
    assert "You confirmed emergency access" in page(office.compliance, path)


def test_an_overdue_review_is_said_to_be(office: Office, ada: Person) -> None:
    emergency = emergency_access_request(
        actor=proven(office.operator), release_id=office.submit().pk, reason="Night.", hours=1
    )
    emergency_access_confirm(actor=proven(ada), emergency_access_id=emergency.pk)
    emergency_access_end(actor=proven(ada), emergency_access_id=emergency.pk, reason="Over.")
    backdate(emergency, hours=30)
    assert "overdue since" in page(office.risk, "/reviews")
    assert "overdue" in page(office.risk, f"/emergency-access/{emergency.pk}")


def test_what_served_shows_the_emergency(office: Office, ada: Person) -> None:
    from workers.deployments.models import ReplicaState
    from workers.deployments.services import deployment_create, replica_report

    release = office.submit()
    emergency = emergency_access_request(
        actor=proven(office.operator), release_id=release.pk, reason="Night.", hours=1
    )
    emergency_access_confirm(actor=proven(ada), emergency_access_id=emergency.pk)
    made = deployment_create(actor=proven(office.operator), release_id=release.pk)
    replica_report(
        deployment_id=made.pk, worker="e1", state=ReplicaState.READY,
        loaded_digest=office.tuned.digest,
    )  # fmt: skip
    (row,) = Api(ada).get("served", department="clinical").body["results"]
    assert [each["id"] for each in row["emergency_access"]] == [emergency.pk]
    assert row["emergency_access"][0]["confirmed_by"]["name"] == "Ada"
    html = page(ada, "/served?department=clinical")
    assert "Served without an approval of its review" in html
    assert "without a review" in html
    assert "Report an incident…" in page(ada, f"/deployments/{made.pk}")
    address = f"/incidents/new?deployment={made.pk}"
    assert "Report an incident of sentiment v1" in page(ada, address)


def test_pages_cost_the_same_for_few_and_for_many(office: Office, ada: Person) -> None:
    client = signed_in(ada)
    addresses = ("/incidents?state=", "/emergency-access")

    def more(number: int) -> None:
        made = Incident.objects.create(
            title=f"T {number}", happened="H", severity="high", aware_at=timezone.now(),
            department=office.clinical, reporter=ada,
        )  # fmt: skip
        made.departments.add(office.clinical)
        made.links.create(version=office.base, added_by=ada)
        emergency = emergency_access_request(
            actor=proven(office.operator), hours=1, reason="Night.",
            release_id=office.submit(deployment_name=f"n-{number}").pk,
        )  # fmt: skip
        emergency_access_confirm(actor=proven(ada), emergency_access_id=emergency.pk)

    more(0)
    for address in (*addresses, "/"):
        client.get(address)
    few = {address: queries(client, address) for address in (*addresses, "/")}
    for number in range(1, 5):
        more(number)
    assert {address: queries(client, address) for address in (*addresses, "/")} == few
