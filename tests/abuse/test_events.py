"""Every change through the management API records actor, subject, reason, request and policy, and
so does every refusal.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from governance.audit.personal import opened, opened_body
from governance.audit.refusals import ANONYMOUS_BURST, BURST
from tests.abuse.company import EVERYBODY, INQUIRIES, address_book, browser, caller, in_turn, values
from tests.abuse.database import said_digests, undone
from tests.abuse.surface import Operation, addresses, body_of, filled, operations, send
from tests.unit.assay.portal_data import Company

pytestmark = pytest.mark.sweep

# Things of a department: an event about one says whose.
OWNED = frozenset(
    {
        "dataset",
        "dataset_version",
        "deployment",
        "evaluation",
        "gate",
        "intake",
        "job",
        "model",
        "release",
        "review",
        "version",
    }
)
# Actions on a person's own objects, which the policy does not decide.
OWN = frozenset(
    {"absence:end", "absence:set", "audit:cancel_export", "audit_filter:delete", "upload:discard"}
)


def changing() -> list[Operation]:
    """Every operation that may change something for somebody who says who they are."""
    return [
        operation
        for operation in operations()
        if not operation.reads and not operation.public and operation.path not in INQUIRIES
    ]


def events_of(response: Any) -> list[AuditEvent]:
    """The events of this very request."""
    identity = response.headers["x-request-id"]
    assert identity
    return opened(AuditEvent.objects.filter(request_id=identity).order_by("id"))


def faults_in(events: list[AuditEvent], outcome: str) -> list[str]:
    """Return the fields missing from the events."""
    said = [event for event in events if event.outcome == outcome]
    if not said:
        return [f"no event that is {outcome}"]
    found = []
    for event in said:
        if not event.actor_id or not event.actor_name:
            found.append(f"{event.action}: nobody acts")
        # A refused creation, or a refused action on all objects, has no subject to name.
        named = event.subject_id or event.subject_name or outcome == "denied"
        if not event.subject_type or not named:
            found.append(f"{event.action}: about nothing")
        if outcome == "denied" and not event.reason:
            found.append(f"{event.action}: no reason")
        if outcome == "allowed" and event.policy_version is None and event.action not in OWN:
            found.append(f"{event.action}: under no policy")
        if outcome == "allowed" and event.subject_type in OWNED and not event.department:
            found.append(f"{event.action}: of no department")
        decided = opened_body(event)["data"].get("decision")
        if decided is not None and event.policy_version is None:
            found.append(f"{event.action}: decided under no policy")
        if outcome == "allowed" and event.action not in OWN:
            found.extend(decision_faults(event, decided))
    return found


def decision_faults(event: AuditEvent, decided: dict[str, Any] | None) -> list[str]:
    """Flaws of the decision in the event of a change."""
    if decided is None:
        return [f"{event.action}: no decision"]
    found = []
    if not decided["allowed"]:
        found.append(f"{event.action}: its decision denies")
    if decided["principal"]["id"] != event.actor_id:
        found.append(f"{event.action}: the decision about another actor")
    if decided["action"].endswith(":view") and event.subject_type != "audit_filter":
        found.append(f"{event.action}: the decision about reading, {decided['action']}")
    return found


def test_every_change_and_every_refusal_is_an_event_with_all_that_it_must_say(
    company: Company,
) -> None:
    book, known = address_book(company), values(company)
    callers = {name: caller(company, name) for name in EVERYBODY}
    done, refused, faults = set(), set(), []
    for number, operation in enumerate(changing()):
        path, body = filled(operation, book), body_of(operation, known)
        for name in in_turn(number):
            client = callers[name]
            with undone():
                response = send(client, operation, path, body)
                events = events_of(response)
            if response.status_code == 500:
                faults.append((str(operation), name, f"{response.status_code}"))
            elif response.status_code >= 400:
                refused.add(str(operation))
                wrong = faults_in(events, "denied")
                faults += [(str(operation), name, each) for each in wrong]
            elif events:
                done.add(str(operation))
                outcome = "denied" if events[0].action == "intake:create" else "allowed"
                outcome = outcome if any(e.outcome == outcome for e in events) else "allowed"
                wrong = faults_in(events, outcome)
                faults += [(str(operation), name, each) for each in wrong]
            elif changes_something(client, operation, path, body):
                faults.append((str(operation), name, "changed something without a word"))
    assert faults == [], "\n".join(map(str, faults))
    assert len(done) >= 15, done
    assert len(refused) >= len(changing()) - 5


def changes_something(client: Client, operation: Operation, path: str, body: Any) -> bool:
    before = said_digests()
    with undone():
        send(client, operation, path, body)
        return said_digests() != before


def test_a_stranger_who_would_change_something_is_recorded_with_their_address(
    company: Company,
) -> None:
    book, known = address_book(company), values(company)
    stranger = Client(raise_request_exception=False)
    forger = Client(
        headers={"authorization": "Bearer assay_nothing"}, raise_request_exception=False
    )
    for operation in changing()[: ANONYMOUS_BURST // 4]:
        for client in (stranger, forger):
            response = send(client, operation, filled(operation, book), body_of(operation, known))
            assert response.status_code == 401, operation
            (event,) = events_of(response)
            assert (event.actor_kind, event.outcome) == ("anonymous", "denied")
            assert event.subject_name == filled(operation, book)
            assert event.reason
            assert opened_body(event)["client_address"] == "127.0.0.1"


def test_whoever_is_refused_without_end_fills_no_log(company: Company) -> None:
    client = caller(company, "a viewer of finance")
    before = AuditEvent.objects.count()
    path = f"/api/v1/jobs/{company.running.pk}/cancel"
    asked = BURST + 60
    for _ in range(asked):
        assert client.post(path, {}, content_type="application/json").status_code == 404
    recorded = AuditEvent.objects.count() - before
    # The number recorded beyond the burst depends on the speed of this loop, but is never all.
    assert BURST <= recorded <= asked
    sql = AuditEvent.objects.order_by("-id")[:1]
    assert opened(sql)[0].outcome == "denied"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("post", "/api/v1/people", {"email": "no address", "name": "X"}, 400),
        ("post", "/api/v1/people", {"email": "x@example.org", "color": "red"}, 400),
        ("post", "/api/v1/departments", {"slug": "engineering", "name": "Twice"}, 409),
        ("post", "/api/v1/jobs/00000000-0000-0000-0000-000000000007/cancel", {}, 404),
        ("delete", "/api/v1/people/1/roles/999999999", {}, 404),
    ],
)
def test_malformed_and_mistimed_changes_are_events_too(
    company: Company, method: str, path: str, body: dict[str, Any], status: int
) -> None:
    response = getattr(caller(company, "an admin"), method)(
        path, body, content_type="application/json"
    )
    assert response.status_code == status, response.content
    (event,) = events_of(response)
    assert (event.outcome, event.actor_kind) == ("denied", "person")
    assert event.reason
    if status == 409:
        # The policy permitted the action, and the state of the object refused it.
        assert (event.action, event.policy_version) == ("department:create", 1)


def test_the_portal_says_as_much_of_what_it_refuses(company: Company) -> None:
    admin = browser(company, "an admin")
    for path, form, status, action in (
        ("/departments", {"slug": "engineering", "name": "Twice"}, 409, "department:create"),
        ("/people", {"email": "", "name": ""}, 400, "portal:post"),
        ("/people/999999999/deactivate", {"reason": "x"}, 404, "portal:post"),
    ):
        response = admin.post(path, form)
        assert response.status_code == status, path
        (event,) = events_of(response)
        assert (event.action, event.outcome) == (action, "denied")
        assert event.reason
    checked = browser(company, "an admin", enforce_csrf_checks=True)
    response = checked.post("/departments", {"slug": "new", "name": "New"})
    assert response.status_code == 403
    (event,) = events_of(response)
    assert (event.action, event.actor_kind) == ("portal:post", "person")


# Forms for signing in or out, and forms that only read; a form that is shown again was refused by
# the page itself.
NO_CHANGE = ("/sign-", "/account", "/audit/verify", "/policy/why", "/policy/who", "/playground")


def test_every_form_of_the_portal_that_is_sent_is_an_event(company: Company) -> None:
    """Each is sent by an administrator, and by somebody of another department or its lead."""
    book = address_book(company)
    senders = ("a viewer of finance", "a lead of engineering", "an admin")
    clients = {who: browser(company, who) for who in senders}
    form = {"reason": "Mine.", "message": "Mine.", "role": "developer", "verdict": "reject"}
    silent: list[tuple[str, str, int]] = []
    outcomes: dict[str, set[str]] = {who: set() for who in senders}
    for number, address in enumerate(addresses("/")):
        path = address.filled(book)
        if address.pattern.startswith(("/api/", "/node/", "/scim/", "/v1/", "/static", *NO_CHANGE)):
            continue
        for who in (senders[number % 2], "an admin"):
            before = said_digests()
            with undone():
                response = clients[who].post(path, form)
                said = AuditEvent.objects.filter(request_id=response.headers["x-request-id"])
                told = set(said.values_list("outcome", flat=True))
                outcomes[who] |= told
                if response.status_code in {400, 403, 404, 409, 429} and address.places:
                    if "denied" not in told:
                        silent.append((who, address.pattern, response.status_code))
                elif response.status_code < 400 and not told and said_digests() != before:
                    silent.append((who, address.pattern, response.status_code))
    assert silent == []
    for who, told in outcomes.items():
        assert told >= ({"denied"} if "viewer" in who else {"allowed", "denied"}), who
