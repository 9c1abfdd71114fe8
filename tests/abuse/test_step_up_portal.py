"""In the portal, a session without a fresh second factor binds nobody; a factor given with the form
lets it through.

Every address that takes a form is either in `BINDING` or in `EXEMPT`; a new one in neither fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from html import unescape
from typing import Any

from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from assay.portal.http import ActionScreen
from governance.audit.models import AuditEvent
from governance.people.models import Department, Person
from registry.versions.recall import recall_radius
from tests.abuse.company import address_book, person_of
from tests.abuse.database import digests, undone
from tests.abuse.surface import Address
from tests.abuse.test_step_up import (
    ADMIN,
    ASKS,
    BUILDS,
    COMPLIANCE,
    MARKS,
    OWN,
    PROTECTS,
    READS,
    RUNS,
    SAYS,
    SECURITY,
)
from tests.proofs import proven
from tests.unit.assay.portal_data import Company
from tests.unit.assay.sign_in_support import give_totp, totp_now
from tests.unit.audit_support import bodies

BINDING: Mapping[str, str] = {
    "/emergency-access/{id}/confirm": ADMIN,
    "/emergency-access/{id}/review": SECURITY,
    "/budgets/limits": ADMIN,
    "/budgets/limits/{id}": ADMIN,
    "/budgets/prices": ADMIN,
    "/departments/{slug}": "a lead of engineering",
    "/departments/{slug}/jobs-at-once": ADMIN,
    "/departments/{slug}/request-log": "a lead of engineering",
    "/departments/{slug}/request-log/erase": "a lead of engineering",
    "/departments/{slug}/request-log/forget": "a lead of engineering",
    "/departments/{slug}/request-log/key": "a lead of engineering",
    "/deployments/{id}/targets/remove": ADMIN,
    "/deployments/{id}/targets/switch": ADMIN,
    "/incidents/{id}/lift": SECURITY,
    "/intakes/{id}": SECURITY,
    "/keys/{id}/change": ADMIN,
    "/keys/{id}/rotate": ADMIN,
    "/knowledge/{name}/documents/{id}/recall": ADMIN,
    "/knowledge/{name}/share": "a lead of engineering",
    "/nodes": ADMIN,
    "/nodes/{name}/revoke": ADMIN,
    "/people": ADMIN,
    "/releases/{id}/requests/{request_id}/content": "a lead of engineering",
    "/retention/{name}": ADMIN,
    "/people/groups": ADMIN,
    "/people/groups/mappings/{id}/delete": ADMIN,
    "/people/recoveries/{id}": ADMIN,
    "/people/role-requests/{id}": ADMIN,
    "/people/{id}/deactivate": ADMIN,
    "/people/{id}/erase": ADMIN,
    "/people/{id}/factors/reset": ADMIN,
    "/people/{id}/link": ADMIN,
    "/people/{id}/reactivate": ADMIN,
    "/people/{id}/recover": ADMIN,
    "/people/{id}/roles": ADMIN,
    "/people/{id}/sign-in": ADMIN,
    "/policy/{number}/decide": ADMIN,
    "/review-policies/{id}/decide": ADMIN,
    "/reviews/absences": COMPLIANCE,
    "/reviews/{id}/decide": SECURITY,
    "/reviews/{id}/waivers/{waiver_id}": SECURITY,
    "/versions/{id}/recall": ADMIN,
}
# Of these, what first says why the state of their object refuses it.
STATE_FIRST = frozenset(
    {
        "/emergency-access/{id}/confirm",
        "/emergency-access/{id}/review",
        "/incidents/{id}/lift",
        "/people/{id}/sign-in",
        "/reviews/{id}/decide",
        "/reviews/{id}/waivers/{waiver_id}",
    }
)
OFFERED = "takes an approved release alone; the service takes the second factor, as for `remove`"
LOGGED = "takes the second factor if the department requires it; the service is tested with one"
FIRST = "takes the second factor before it shows its form, because a secret is never kept"
EXEMPT: Mapping[str, str] = {
    "/access-request": OWN,
    "/account/authenticator": OWN,
    "/account/confirm": OWN,
    "/account/factors/{id}/remove": OWN,
    "/account/passkeys": OWN,
    "/account/password": OWN,
    "/account/prove": OWN,
    "/account/recovery-codes": OWN,
    "/account/sessions/end": OWN,
    "/account/tokens": OWN,
    "/account/tokens/{id}/revoke": OWN,
    "/audit/exports": READS,
    "/audit/exports/{id}/cancel": OWN,
    "/audit/filters": OWN,
    "/audit/filters/{id}": OWN,
    "/audit/filters/{id}/delete": OWN,
    "/audit/verify": READS,
    "/deployments/{id}/targets/save": OFFERED,
    "/playground": RUNS,
    "/requests/export": LOGGED,
    "/requests/{request_id}/content": LOGGED,
    "/requests/{request_id}/feedback": LOGGED,
    "/credentials/new": FIRST,
    "/credentials/{id}/revoke": PROTECTS,
    "/credentials/{id}/rotate": FIRST,
    "/emergency-access/{id}/end": PROTECTS,
    "/emergency-access/{id}/refuse": PROTECTS,
    "/datasets/new": BUILDS,
    "/datasets/{name}": BUILDS,
    "/datasets/{name}/rows/{number}": READS,
    "/demo/sign-in": OWN,
    "/departments": "an empty department gives nobody anything",
    "/deployments/{id}/replicas": RUNS,
    "/deployments/{id}/rollback": RUNS,
    "/deployments/{id}/stop": RUNS,
    "/feedback/dataset": BUILDS,
    "/feedback/review": SAYS,
    "/feedback/{id}": SAYS,
    "/feedback/{id}/erase": PROTECTS,
    "/incidents/new": PROTECTS,
    "/nodes/{name}/cordon": RUNS,
    "/nodes/{name}/drain": RUNS,
    "/nodes/{name}/uncordon": RUNS,
    "/incidents/{id}/notes": SAYS,
    "/incidents/{id}/severity": SAYS,
    "/incidents/{id}/state": SAYS,
    "/incidents/{id}/versions": PROTECTS,
    "/intakes/hosted": ASKS,
    "/intakes/new": ASKS,
    "/batches/{id}/cancel": RUNS,
    "/jobs/{id}/cancel": RUNS,
    "/jobs/{id}/pause": RUNS,
    "/jobs/{id}/priority": RUNS,
    "/jobs/{id}/resume": RUNS,
    "/jobs/{id}/retry": BUILDS,
    "/keys": "makes keys that use and view deployments, and no others",
    "/keys/{id}/revoke": PROTECTS,
    "/knowledge/new": BUILDS,
    "/knowledge/{name}": BUILDS,
    "/knowledge/{name}/documents/{id}/delete": BUILDS,
    "/knowledge/{name}/documents/{id}/publish": BUILDS,
    "/knowledge/{name}/index": BUILDS,
    "/models/new": BUILDS,
    "/models/{name}/fine-tune": BUILDS,
    "/models/{name}/gates": BUILDS,
    "/models/{name}/prompts/new": BUILDS,
    "/people/access-requests/{id}/decline": "closes a request, and gives nobody anything",
    "/people/{id}/sessions/end": PROTECTS,
    "/playground/token": OWN,
    "/policy/{number}/discard": ASKS,
    "/uploads/{id}/discard": OWN,
    "/policy/{number}/draft": ASKS,
    "/policy/{number}/propose": ASKS,
    "/policy/{number}/rebase": ASKS,
    "/policy/{number}/rules": ASKS,
    "/policy/{number}/rules/{rule}": ASKS,
    "/policy/{number}/rules/{rule}/remove": ASKS,
    "/policy/{number}/tests/{place}": ASKS,
    "/policy/{number}/withdraw": ASKS,
    "/policy/{number}/yaml": ASKS,
    "/release-drafts/{id}/delete": BUILDS,
    "/releases/{id}/emergency-access": ASKS,
    "/releases/{id}/deploy": RUNS,
    "/releases/{id}/renewal": ASKS,
    "/releases/{id}/withdraw": PROTECTS,
    "/review-policies/new": ASKS,
    "/review-policies/{id}/edit": ASKS,
    "/review-policies/{id}/propose": ASKS,
    "/review-policies/{id}/withdraw": ASKS,
    "/reviews/absences/{id}/end": PROTECTS,
    "/reviews/{id}/answer": ASKS,
    "/reviews/{id}/assign": MARKS,
    "/reviews/{id}/attest": "counts only with an approval",
    "/reviews/{id}/checklist/{code}/waivers": ASKS,
    "/reviews/{id}/comments": SAYS,
    "/reviews/{id}/drafts/{draft_id}": OWN,
    "/reviews/{id}/threads/{thread_id}": SAYS,
    "/schedules/new": BUILDS,
    "/schedules/{id}/delete": BUILDS,
    "/schedules/{id}/pause": RUNS,
    "/schedules/{id}/resume": BUILDS,
    "/schedules/{id}/run": BUILDS,
    "/sign-in": OWN,
    "/sign-in/link": OWN,
    "/sign-in/link/password": OWN,
    "/sign-in/passkey": OWN,
    "/sign-in/second-factor": OWN,
    "/sign-in/second-factor/passkey": OWN,
    "/sign-out": OWN,
    "/versions/{id}/evaluate": BUILDS,
    "/versions/{id}/release": ASKS,
    "/versions/{id}/watch": BUILDS,
}


def taking_forms() -> set[str]:
    """Every address of the portal that a form is sent to."""
    return {path for path in _walk(get_resolver().url_patterns, "/") if not _of_programs(path)}


def _of_programs(path: str) -> bool:
    return path.startswith(("/api/", "/node/", "/scim/"))


def _walk(patterns: Any, prefix: str) -> Iterator[str]:
    for pattern in patterns:
        text = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, text)
        elif isinstance(pattern, URLPattern):
            view = getattr(pattern.callback, "view_class", None)
            plain = hasattr(view, "act") and view.act is ActionScreen.act
            if hasattr(view, "post") and not (plain and view.post is ActionScreen.post):
                yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", text)


def forms(company: Company) -> dict[str, dict[str, Any]]:
    """Bodies for each binding address."""
    now = timezone.localtime()
    radius = recall_radius(actor=proven(company.ada), version_id=company.second.pk)
    decision = {"verdict": "approve", "reason": "Fine."}
    finance = Department.objects.get(slug="finance")
    return {
        "/emergency-access/{id}/review": {"verdict": "justified", "lessons": "None."},
        "/budgets/limits": {
            "subject": "organization", "kind": "tokens_per_day", "limit": "5", "amount": "5",
        },
        "/budgets/limits/{id}": {"take-away": "yes"},
        "/budgets/prices": {"deployment": "", "take-away": "yes"},
        "/departments/{slug}": {"days": "7"},
        "/departments/{slug}/jobs-at-once": {"jobs_at_once": "2"},
        "/departments/{slug}/request-log": {
            "mode": "full", "days": "30", "daily_mib": "100", "second_factor": "yes",
        },
        "/departments/{slug}/request-log/erase": {"erase-reason": "Over."},
        "/departments/{slug}/request-log/forget": {"user": "u-1", "reason": "Requested."},
        "/deployments/{id}/targets/remove": {"release": "1", "revision": "0", "reason": "Over."},
        "/deployments/{id}/targets/switch": {"target": "1", "revision": "0", "reason": "Better."},
        "/incidents/{id}/lift": {"reason": "Fixed."},
        "/intakes/{id}": {"accept": "yes", "reason": "Good."},
        "/keys/{id}/change": {"name": "renamed", "purpose": "", "owner": str(company.enzo.pk)},
        "/keys/{id}/rotate": {"overlap": "24", "days": "90"},
        "/knowledge/{name}/documents/{id}/recall": {"reason": "Outdated."},
        "/knowledge/{name}/share": {"departments": [finance.pk]},
        "/nodes": {"name": "gpu-9"},
        "/releases/{id}/requests/{request_id}/content": {"reason": "Yearly check."},
        "/retention/{name}": {"months": "24"},
        "/people": {"email": "new@assay.example", "name": "New"},
        "/people/groups": {"group": "g", "role": "operator", "department": "", "specialty": ""},
        "/people/recoveries/{id}": {"do": "approve"},
        "/people/role-requests/{id}": {"do": "approve"},
        "/people/{id}/deactivate": {"reason": "Left."},
        "/people/{id}/erase": {"why": "Requested.", "confirm": company.enzo.email},
        "/people/{id}/factors/reset": {"reason": "Lost."},
        "/people/{id}/link": {"purpose": "password"},
        "/people/{id}/reactivate": {"reason": "Back."},
        "/people/{id}/recover": {"recovery-purpose": "password", "recovery-reason": "Lost."},
        "/people/{id}/roles": {"role": "operator", "department": "", "specialty": ""},
        "/people/{id}/sign-in": {"reason": "Another account."},
        "/policy/{number}/decide": decision,
        "/review-policies/{id}/decide": decision,
        "/reviews/absences": {
            "deputy": company.milo.pk, "specialty": "compliance",
            "starts_at": f"{now:%Y-%m-%dT%H:%M}",
            "ends_at": f"{now + timedelta(days=2):%Y-%m-%dT%H:%M}",
        },
        "/reviews/{id}/decide": {**decision, "digest": company.review_open.digest},
        "/reviews/{id}/waivers/{waiver_id}": {"do": "granted", "reason": "Fine."},
        "/versions/{id}/recall": {
            "reason": "Bad.", "confirm": str(company.second), "list": radius.digest,
        },
    }  # fmt: skip


def opened(company: Company, name: str) -> Client:
    """One of the company in the portal, signed in without a second factor."""
    client = Client(raise_request_exception=False)
    client.force_login(person_of(company, name))
    return client


def test_every_address_that_takes_a_form_is_known() -> None:
    assert not BINDING.keys() & EXEMPT.keys()
    assert BINDING.keys() | EXEMPT.keys() == taking_forms()


def test_a_session_of_a_password_binds_nobody(company: Company) -> None:
    company.key.scopes = ["deployment:invoke", "model:create"]
    company.key.save(update_fields=["scopes"])
    book, sent = address_book(company), forms(company)
    clients = {name: opened(company, name) for name in set(BINDING.values())}
    faults = []
    for pattern, name in BINDING.items():
        path = Address(pattern).filled(book)
        before = digests()
        with undone():
            denied = AuditEvent.objects.filter(outcome="denied").count()
            response = clients[name].post(path, sent.get(pattern, {}))
            same = digests() == before
            audited = AuditEvent.objects.filter(outcome="denied").count() > denied
        told = response.content.decode()
        states = {403, 409} if pattern in STATE_FIRST else {403}
        asked = "Verify your identity" in told or pattern in STATE_FIRST
        if response.status_code not in states or not (same and audited and asked):
            faults.append((pattern, response.status_code, same, audited, asked))
    assert not faults, "\n".join(map(str, faults))


def test_a_code_given_with_the_form_lets_it_through_and_keeps_what_was_typed(
    company: Company,
) -> None:
    admin = person_of(company, ADMIN)
    give_totp(admin)
    client = opened(company, ADMIN)
    form = {"email": "new@assay.example", "name": "“New” & <b>bold</b>"}
    page = client.post("/people", form)
    assert page.status_code == 403
    assert "Creating an account needs a second factor" in page.content.decode()
    again = hidden_fields(page.content.decode())
    assert again == {**form, "step_up": "yes"}

    wrong = client.post("/people", {**again, "code": "000000"})
    assert wrong.status_code == 401
    assert hidden_fields(wrong.content.decode()) == again
    assert not Person.objects.filter(email="new@assay.example").exists()

    right = totp_now(admin)
    done = client.post("/people", {**again, "code": right})
    assert done.status_code == 201
    assert Person.objects.get(email="new@assay.example").name == form["name"]
    event = bodies(action="person:create", outcome="allowed")[-1]
    assert event["data"]["proof_method"] == "totp"


def test_a_code_is_used_up_even_when_the_form_is_refused(company: Company) -> None:
    admin = person_of(company, ADMIN)
    give_totp(admin)
    code = totp_now(admin)
    form = {"email": "no address", "name": "New", "step_up": "yes", "code": code}
    assert opened(company, ADMIN).post("/people", form).status_code == 400
    assert opened(company, ADMIN).post("/people", form).status_code == 401


def hidden_fields(page: str) -> dict[str, str]:
    """The form that the step-up page sends again."""
    form = page.partition('<section class="card gate-box"')[2].partition("</form>")[0]
    found = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}
