"""Buttons of the portal: their actions and refusals."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client, override_settings

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.reviews.models import Decision
from tests.unit.assay.portal_data import PASSWORD, Company, copied
from tests.unit.assay.test_portal_pages import inline_in, signed_in
from tests.unit.assay.test_review_comparison import words
from workers.deployments.models import Deployment
from workers.jobs.models import Job

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
LOOPBACK = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000"}


def decide(client: Client, company: Company, **given: Any) -> Any:
    review = company.review_open
    body = {"verdict": "comment", "reason": "Looks careful.", "digest": review.digest, **given}
    return client.post(f"/reviews/{review.pk}/decide", body)


def test_a_comment_is_recorded_and_the_page_comes_back(company: Company) -> None:
    response = decide(signed_in(company.carla), company)

    assert response.status_code == 302
    assert Decision.objects.filter(reason="Looks careful.", person=company.carla).exists()


def test_a_refused_decision_says_why_and_is_audited(company: Company) -> None:
    response = decide(signed_in(company.enzo), company, verdict="approve", specialty="compliance")

    assert response.status_code == 403
    assert 'role="alert"' in response.content.decode()
    assert inline_in(response.content.decode()) == []
    assert AuditEvent.objects.filter(outcome="denied", actor_id=str(company.enzo.pk)).count() >= 2


def test_a_decision_on_another_digest_is_a_conflict_and_keeps_what_was_typed(
    company: Company,
) -> None:
    response = decide(signed_in(company.carla), company, verdict="reject", digest="0" * 64)

    assert response.status_code == 409
    assert "Looks careful." in response.content.decode()
    assert not Decision.objects.filter(verdict="reject").exists()


@pytest.mark.parametrize("verdict", ["", "bless", "approve\0"])
def test_nonsense_for_a_verdict_is_refused(company: Company, verdict: str) -> None:
    response = decide(signed_in(company.carla), company, verdict=verdict)

    assert response.status_code == 400


def test_disabled_choices_say_why(company: Company) -> None:
    html = signed_in(company.carla).get(f"/reviews/{company.review_open.pk}").content.decode()

    approve = html.split('value="approve"')[1].split("</div>")[0]
    assert "disabled" in approve
    assert "All gates passed" in approve


def test_a_reviewer_attests_the_selected_items_all_or_none(company: Company) -> None:
    review = company.review_open
    review.checklist.create(code="classification", title="Classification fits", state="open")
    client, address = signed_in(company.carla), f"/reviews/{review.pk}/attest"
    grounds = {"note": "Named in the answers."}

    for items in ([], ["oversight", "gates"], ["oversight", "absent"], ["x"] * 2 + ["y"]):
        assert client.post(address, {**grounds, "item": items}).status_code in (400, 404, 409)
    assert client.post(address, {"item": ["oversight"]}).status_code == 400
    assert review.checklist.get(code="oversight").attested_by is None

    both = ["oversight", "classification"]
    assert client.post(address, {**grounds, "item": both}).status_code == 302
    attested = review.checklist.filter(attested_by=company.carla, state="satisfied")
    assert set(attested.values_list("code", flat=True)) == set(both)


def test_nothing_is_preselected_and_what_blocks_is_a_link(company: Company) -> None:
    review = company.review_open
    html = " ".join(signed_in(company.carla).get(f"/reviews/{review.pk}").content.decode().split())

    verdicts = html.split('<fieldset class="verdicts">')[1].split("</fieldset>")[0]
    assert "checked" not in verdicts
    blocks = html.split("Blocks approval:")[1].split("</span>")[0]
    assert '<a href="#item-gates">1 failed check</a>' in blocks
    assert '<a href="#item-oversight">1 item to judge</a>' in blocks
    assert 'id="item-gates"' in html
    assert "2 automatic checks passed" in html
    form = signed_in(company.devi).get(f"/versions/{company.second.pk}/release").context["form"]
    for name in ("data_classification", "annex_iii", "personal_data", "tier"):
        assert form.fields[name].choices[0] == ("", "Choose…")
        assert form[name].value() in (None, "")


def test_posts_without_a_token_are_refused(company: Company) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(company.carla)
    for address in (
        f"/reviews/{company.review_open.pk}/decide",
        f"/jobs/{company.running.pk}/cancel",
        f"/keys/{company.key.pk}/revoke",
        "/keys",
        "/audit/verify",
        "/sign-out",
    ):
        response = client.post(address, {})
        assert response.status_code == 403, address
        assert inline_in(response.content.decode()) == []


def test_another_departments_things_cannot_be_acted_on(company: Company) -> None:
    client = signed_in(company.fay)
    for address in (
        f"/reviews/{company.review_open.pk}/decide",
        f"/jobs/{company.running.pk}/cancel",
        f"/jobs/{company.running.pk}/pause",
        f"/jobs/{company.running.pk}/resume",
        f"/keys/{company.key.pk}/revoke",
        f"/deployments/{company.deployment.pk}/stop",
        f"/releases/{company.live.pk}/deploy",
        f"/releases/{company.waiting.pk}/withdraw",
    ):
        denied = AuditEvent.objects.filter(outcome="denied", actor_id=str(company.fay.pk))
        before = denied.count()
        assert client.post(address, {"reason": "mine now"}).status_code == 404, address
        assert denied.count() == before + 1, address


def test_a_deployment_is_not_stopped_without_a_reason(company: Company) -> None:
    client, address = signed_in(company.enzo), f"/deployments/{company.deployment.pk}/stop"
    for reason in ("", "  ", "x" * 501):
        assert client.post(address, {"reason": reason}).status_code == 400
    company.deployment.refresh_from_db()
    assert company.deployment.state == "serving"


def test_a_key_is_shown_once(company: Company) -> None:
    client = signed_in(company.enzo)
    response = client.post(
        "/keys",
        {
            "name": "build bot",
            "department": company.departments["engineering"].pk,
            "scopes": ["deployment:invoke"],
            "days": "30",
        },
    )

    html = response.content.decode()
    key = ApiKey.objects.get(name="build bot")
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert f"assay_{key.public_id}_" in html
    assert inline_in(html) == []
    assert html.split(f"assay_{key.public_id}_")[1][:20] not in client.get("/keys").content.decode()


def test_a_key_for_another_department_cannot_be_made(company: Company) -> None:
    response = signed_in(company.enzo).post(
        "/keys",
        {
            "name": "thief",
            "department": company.departments["finance"].pk,
            "scopes": ["deployment:invoke"],
            "days": "30",
        },
    )

    assert response.status_code == 400
    assert not ApiKey.objects.filter(name="thief").exists()


def test_a_job_is_canceled(company: Company) -> None:
    response = signed_in(company.devi).post(f"/jobs/{company.running.pk}/cancel")

    assert response.status_code == 302
    assert Job.objects.get(pk=company.running.pk).cancel_requested


def test_a_job_is_paused_and_resumed(company: Company) -> None:
    client, job = signed_in(company.devi), company.running
    address = f"/jobs/{job.pk}"
    page = client.get(address).content.decode()
    assert "Its run writes a checkpoint and stops. It goes on from its newest checkpoint." in page
    assert client.post(f"{address}/pause").status_code == 302
    page = client.get(address).content.decode()
    assert "<strong>Its run writes a checkpoint and stops.</strong>" in page
    assert f'action="{address}/pause"' not in page
    Job.objects.filter(pk=job.pk).update(state="finishing", stop_request="")
    # It delivered before it could stop.
    assert "A person paused it." not in client.get(address).content.decode()
    Job.objects.filter(pk=job.pk).update(state="paused", stop_request="", lease_until=None)
    page = client.get(address).content.decode()
    assert "It has no checkpoint, so it starts from the beginning." in page
    assert "It fails if it is not resumed within 7 days." in page
    assert client.post(f"{address}/resume").status_code == 302
    assert Job.objects.get(pk=job.pk).state == "queued"
    assert client.post(f"{address}/resume").status_code == 409


def test_job_events_continue_after_the_last_one_seen(company: Company) -> None:
    client = signed_in(company.devi)
    address = f"/jobs/{company.running.pk}/events.json"
    whole = json.loads(client.get(address).content)
    last = whole["events"][-1]["id"]

    assert whole["live"] is True
    assert json.loads(client.get(f"{address}?after={last}").content)["events"] == []
    assert client.get(f"{address}?after=nonsense").status_code == 200


def test_an_auditor_verifies_and_exports(company: Company) -> None:
    client = signed_in(company.asha)

    assert client.post("/audit/verify").status_code == 200
    exported = client.get("/audit/export")
    assert exported.status_code == 200
    assert json.loads(next(iter(exported.streaming_content)).decode().splitlines()[0])
    assert signed_in(company.enzo).get("/audit/export").status_code in {403, 404}


def test_the_password_form_signs_in(company: Company) -> None:
    company.enzo.set_password(PASSWORD)
    company.enzo.save()
    client = Client()

    wrong = client.post("/sign-in", {"email": "enzo@assay.example", "password": "guess"})
    right = client.post("/sign-in", {"email": "enzo@assay.example", "password": PASSWORD})

    assert wrong.status_code == 401
    assert right.status_code == 302
    assert client.get("/").status_code == 200


def test_signing_in_never_leads_to_another_site(company: Company) -> None:
    company.enzo.set_password(PASSWORD)
    company.enzo.save()
    body = {"email": "enzo@assay.example", "password": PASSWORD, "next": "https://evil.example/"}

    assert Client().post("/sign-in", body).headers["Location"] == "/"


@override_settings(DEMO=True)
def test_personas_walk_in_on_loopback_in_the_demonstration(company: Company) -> None:
    client = Client(**LOOPBACK)

    assert "without password or second factor" in client.get("/sign-in").content.decode()
    assert client.post("/demo/sign-in", {"person": company.enzo.pk}).status_code == 302
    page = client.get("/")
    assert page.status_code == 200
    assert "by one click, without a" in page.content.decode()
    plain = signed_in(company.enzo).get("/").content.decode()
    assert "by one click" not in plain


@pytest.mark.parametrize(
    ("demo", "where"),
    [
        (False, LOOPBACK),
        (True, {**LOOPBACK, "REMOTE_ADDR": "192.0.2.7"}),
        (True, {**LOOPBACK, "HTTP_X_FORWARDED_FOR": "192.0.2.7"}),
        (True, {**LOOPBACK, "HTTP_HOST": "assay.example"}),
    ],
)
def test_personas_do_not_exist_elsewhere(
    company: Company, demo: bool, where: dict[str, str]
) -> None:
    with override_settings(DEMO=demo, ALLOWED_HOSTS=["*"]):
        client = Client(**where)  # type: ignore[arg-type]
        assert client.post("/demo/sign-in", {"person": company.enzo.pk}).status_code == 404
        assert "without password or second factor" not in client.get("/sign-in").content.decode()
        assert "_auth_user_id" not in client.session


def test_deploying_shows_what_changes_before_it_happens(company: Company) -> None:
    client, old = signed_in(company.enzo), company.live
    new = copied(old, version=company.second)
    new.departments.add(company.departments["finance"])
    Deployment.objects.update(replicas_max=3)

    page = client.get(f"/releases/{new.pk}/deploy").content.decode()

    assert inline_in(page) == []
    shown = words(page)
    assert f"Version {company.first} {company.second}" in shown
    assert f"Release {old.pk} Release {new.pk}" in shown
    assert "Departments Engineering Finance" in shown
    assert "1 to 3, as now" in shown
    assert "34 requests with 1 key" in shown
    again = words(client.get(f"/releases/{old.pk}/deploy").content.decode())
    assert "is deployed as docstring-writer already" in again
    assert "Deploy to production" not in again
    assert Deployment.objects.filter(state="serving").count() == 1


def test_what_blocks_an_approval_is_a_list_of_links(company: Company) -> None:
    page = signed_in(company.carla).get(f"/reviews/{company.review_open.pk}").content.decode()
    box = page.partition('id="about-approve"')[2].partition("</ul>")[0]
    assert "2 items to settle first" in words(box)
    links = re.findall(r'href="#([^"]+)">([^<]+)<', box)
    assert dict(links) == {
        "item-gates": "All gates passed",
        "item-oversight": "Human oversight is named",
    }
    assert all(f'id="{anchor}"' in page for anchor, _ in links)
    fix = f"/versions/{company.second.pk}/readiness?tier=high"
    assert f'href="{fix}"' in page.partition('id="item-gates"')[2]
    assert signed_in(company.enzo).get(fix).status_code == 200


def test_the_release_form_chooses_nothing_and_copies_earlier_answers(company: Company) -> None:
    client, address = signed_in(company.enzo), f"/versions/{company.second.pk}/release"

    def chosen(page: str, name: str) -> list[str]:
        select = page.partition(f'id="id_{name}"')[2].partition("</select>")[0]
        return re.findall(r'<option value="([^"]*)" selected', select)

    empty = client.get(address).content.decode()
    assert chosen(empty, "environment") in ([], [""])
    assert chosen(empty, "tier") in ([], [""])
    assert f'<option value="{company.live.pk}">' in empty
    filled = client.get(f"{address}?like={company.live.pk}").content.decode()
    assert chosen(filled, "environment") == ["production"]
    assert chosen(filled, "tier") == [company.live.tier]
    assert company.live.purpose in filled
    # A release of another department is not copied.
    hidden = copied(company.live, department=company.departments["finance"])
    assert chosen(client.get(f"{address}?like={hidden.pk}").content.decode(), "tier") in ([], [""])
