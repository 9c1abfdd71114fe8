"""Waivers through the API, the portal and the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.audit.personal import opened_body
from governance.people.models import Person
from governance.reviews.waivers.models import Waiver
from tests.abuse.test_kept_input import verified
from tests.proofs import signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import tell_story
from tests.unit.assay.test_api_releases import decide, people, release
from tests.unit.assay.test_served_surfaces import kept
from tests.unit.audit_support import recorded

__all__ = ["people", "release"]

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]


def body(days: float = 20, **changes: Any) -> dict[str, Any]:
    end = timezone.now() + timedelta(days=days)
    return {"reason": "Named next week.", "expires_at": end.isoformat(), **changes}


def item_of(answer: Any, code: str) -> dict[str, Any]:
    (found,) = [item for item in answer["review"]["checklist"] if item["code"] == code]
    return dict(found)


def asked(api: Api, release: dict[str, Any], code: str = "classification") -> dict[str, Any]:
    answer = api.post(f"releases/{release['id']}/checklist/{code}/waivers", body())
    assert answer.status_code == 201, answer.content
    (waiver,) = item_of(answer.body, code)["waivers"]
    return dict(waiver)


def test_a_waiver_is_asked_for_granted_and_ends_the_approval(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    path = f"releases/{release['id']}"
    waiver = asked(people["dev"], release)
    assert (waiver["state"], waiver["asked_by"]["name"]) == ("requested", "Devi")
    deciding = {"verdict": "granted", "reason": "Until then it runs beside the old one."}
    problem_of(people["dev"].post(f"{path}/waivers/{waiver['id']}/decision", deciding), 403)
    granted = people["milo"].post(f"{path}/waivers/{waiver['id']}/decision", deciding)
    assert granted.status_code == 200, granted.content
    item = item_of(granted.body, "classification")
    assert (item["state"], item["waivers"][0]["decided_by"]["name"]) == ("waived", "Milo")
    assert "classification" not in granted.body["review"]["standing"]["blocking"]
    for item in granted.body["review"]["checklist"]:
        if item["state"] == "open":
            people["carla"].post(f"{path}/checklist/{item['code']}", {"note": "Read."})
    decide(people["carla"], release, "approve", "compliance")
    done = decide(people["milo"], release, "approve", "model-risk").body
    assert done["state"] == "approved"
    assert done["expires_at"][:16] == waiver["expires_at"][:16]
    revoked = people["carla"].post(f"{path}/waivers/{waiver['id']}/revoke", {"reason": "No."})
    assert revoked.status_code == 200, revoked.content
    assert item_of(revoked.body, "classification")["waivers"][0]["state"] == "revoked"
    problem_of(people["dev"].post("deployments", {"release": release["id"]}), 409)


def test_who_asked_takes_it_back(people: dict[str, Api], release: dict[str, Any]) -> None:
    waiver = asked(people["dev"], release)
    path = f"releases/{release['id']}/waivers/{waiver['id']}"
    problem_of(people["carla"].post(f"{path}/withdraw", {"reason": "Mine."}), 403)
    back = people["dev"].post(f"{path}/withdraw", {"reason": "Named."})
    assert item_of(back.body, "classification")["waivers"][0]["state"] == "withdrawn"
    problem_of(
        people["milo"].post(f"{path}/decision", {"verdict": "granted", "reason": "Late."}), 409
    )


def test_what_is_malformed_or_somebody_elses_is_refused(
    people: dict[str, Api], release: dict[str, Any]
) -> None:
    path = f"releases/{release['id']}/checklist"
    problem_of(people["dev"].post(f"{path}/classification/waivers", body(days=400)), 422)
    problem_of(people["dev"].post(f"{path}/classification/waivers", body(expires_at="soon")), 400)
    problem_of(people["dev"].post(f"{path}/nothing/waivers", body()), 404)
    problem_of(people["dev"].post(f"{path}/digest/waivers", body()), 409, "never_waived")
    problem_of(people["fay"].post(f"{path}/classification/waivers", body()), 404)
    waiver = asked(people["dev"], release)
    deciding = {"verdict": "granted", "reason": "Mine."}
    for api, number, status in (("fay", waiver["id"], 404), ("milo", waiver["id"] + 1, 404)):
        answer = people[api].post(f"releases/{release['id']}/waivers/{number}/decision", deciding)
        problem_of(answer, status)
    event = recorded(action="waiver:request", outcome="allowed")
    assert opened_body(event)["data"]["item"] == "classification"


@pytest.fixture
def browser(person: Callable[..., Person]) -> Callable[[str], Client]:
    def sign_in(name: str) -> Client:
        return signed_in(Client(), Person.objects.get(name=name))

    return sign_in


def test_the_page_asks_grants_and_says_until_when(
    people: dict[str, Api], release: dict[str, Any], browser: Callable[[str], Client]
) -> None:
    review = release["review"]["id"]
    devi, milo = browser("Devi"), browser("Milo")
    page = devi.get(f"/reviews/{review}").content.decode()
    assert "Request a waiver" in page
    assert "Cannot be waived." in page
    until = (timezone.now() + timedelta(days=20)).date().isoformat()
    sent = devi.post(
        f"/reviews/{review}/checklist/classification/waivers",
        {"reason": "Named next week.", "until": until},
    )
    assert sent.status_code == 302, sent.content
    page = milo.get(f"/reviews/{review}").content.decode()
    assert "requests a waiver until" in page
    assert "Named next week." in page
    seen = people["milo"].get(f"releases/{release['id']}").body
    pk = item_of(seen, "classification")["waivers"][0]["id"]
    refused = devi.post(f"/reviews/{review}/waivers/{pk}", {"do": "granted", "reason": "I do."})
    assert refused.status_code == 403
    decision = {"do": "granted", "reason": "“Fine” & dated."}
    granted = verified(Person.objects.get(name="Milo"), f"/reviews/{review}/waivers/{pk}", decision)
    assert granted.status_code == 302, granted.content
    page = milo.get(f"/reviews/{review}").content.decode()
    assert "Waived by Milo until" in page
    assert (
        milo.post(f"/reviews/{review}/waivers/{pk}", {"do": "x", "reason": "?"}).status_code == 400
    )
    revoked = milo.post(f"/reviews/{review}/waivers/{pk}", {"do": "revoked", "reason": "No."})
    assert revoked.status_code == 302
    assert "Waiver revoked" in milo.get(f"/reviews/{review}").content.decode()


def test_a_date_that_is_none_is_refused_in_a_sentence(
    people: dict[str, Api], release: dict[str, Any], browser: Callable[[str], Client]
) -> None:
    review, devi = release["review"]["id"], browser("Devi")
    for until in ("", "soon", "2020-01-01", "9999-12-31"):
        sent = devi.post(
            f"/reviews/{review}/checklist/classification/waivers",
            {"reason": "Named in time.", "until": until},
        )
        assert sent.status_code == 400, until
        page = sent.content.decode()
        assert page.count("Named in time.") == 1, until
        assert f'value="{until}"' in page


def test_what_served_tells_what_was_waived(db: None) -> None:
    company = tell_story()
    kept(company.deployment, 5)
    review = company.review_approved
    item = review.checklist.create(code="late", title="Late item", automatic=True, state="waived")
    now = timezone.now()
    Waiver.objects.create(
        review=review, item=item, digest=review.digest, round=review.round, reason="Next week.",
        expires_at=now + timedelta(days=30), asked_by=company.devi, state="granted",
        decided_by=company.milo, decided_at=now, decision_reason="Fine.",
    )  # fmt: skip
    told = Api(company.asha).get("served", department="engineering").body["results"][0]
    (waiver,) = item_of(told["approval"], "late")["waivers"]
    assert (waiver["decided_by"]["name"], waiver["reason"]) == ("Milo Model-Risk", "Next week.")
    html = signed_in(Client(), company.asha).get("/served?department=engineering").content.decode()
    assert "Waived" in html
    assert "by Milo Model-Risk until" in html
