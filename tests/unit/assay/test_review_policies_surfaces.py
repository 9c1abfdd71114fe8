"""Review policies in the portal, the API and the command line; and the tier beside the form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.people.models import Person
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.shipping import shipped_text
from registry.releases.models import Release
from tests import proofs
from tests.unit.assay.api_support import Api
from tests.unit.assay.portal_data import Company, tell_story
from tests.unit.assay.test_cli import Run, ada, run, signed_in
from tests.unit.assay.test_portal_pages import inline_in

__all__ = ["ada", "run", "signed_in"]
pytestmark = pytest.mark.sweep

LIMITED = shipped_text("limited")
LONGER = LIMITED.replace("valid_days: 180", "valid_days: 200")


def browser(person: Person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def body(response: Any) -> str:
    text: str = response.content.decode()
    return text


# The portal


def test_a_version_goes_from_a_draft_to_force_in_the_portal(
    policy: object, person: Callable[..., Person]
) -> None:
    carla, milo = person("Carla", "reviewer:compliance"), person("Milo", "reviewer:model-risk")
    author, decider = browser(carla), proofs.signed_in(Client(), milo)
    source = ReviewPolicy.objects.get(name="limited")
    editor = author.get(f"/review-policies/new?from={source.pk}")
    assert editor.context["text"] == LIMITED
    author.post("/review-policies/new", {"text": LONGER.replace("\n", "\r\n")})
    draft = ReviewPolicy.objects.get(version=2)
    assert draft.text == LONGER

    changes = body(author.get(f"/review-policies/{draft.pk}?tab=changes"))
    assert "-valid_days: 180" in changes
    assert "+valid_days: 200" in changes
    author.post(f"/review-policies/{draft.pk}/propose")
    assert "You edited this policy" in body(author.get(f"/review-policies/{draft.pk}"))
    refused = author.post(
        f"/review-policies/{draft.pk}/decide", {"verdict": "approve", "reason": "Mine."}
    )
    assert (refused.status_code, "Separation of duties" in body(refused)) == (403, True)

    path = f"/review-policies/{draft.pk}/decide"
    unproved = browser(milo).post(path, {"verdict": "approve", "reason": "Longer is enough."})
    assert (unproved.status_code, "Your input is kept" in body(unproved)) == (403, True)
    without = decider.post(path, {"verdict": "approve", "reason": " "})
    assert (without.status_code, "Give a reason" in body(without)) == (400, True)
    decider.post(path, {"verdict": "approve", "reason": "Longer is enough."})
    draft.refresh_from_db()
    assert draft.state == "active"
    page = body(decider.get(f"/review-policies/{draft.pk}"))
    assert "Longer is enough." in page
    assert "200 days" in page


def test_a_fault_is_shown_with_its_line_and_what_was_typed_stays(
    policy: object, person: Callable[..., Person]
) -> None:
    client = browser(person("Ada", "admin"))
    text = LIMITED.replace("rank: 20", "rank: many")
    answer = client.post("/review-policies/new", {"text": text})
    assert answer.status_code == 400
    assert "Line 5: rank must be a whole number" in body(answer)
    assert "rank: many" in body(answer)
    assert not ReviewPolicy.objects.filter(version=2).exists()


def test_somebody_elses_change_in_between_is_not_overwritten(
    policy: object, person: Callable[..., Person]
) -> None:
    client = browser(person("Ada", "admin"))
    client.post("/review-policies/new", {"text": LONGER})
    draft = ReviewPolicy.objects.get(version=2)
    stale = {"text": LIMITED, "seen": "0" * 64}
    answer = client.post(f"/review-policies/{draft.pk}/edit", stale)
    assert (answer.status_code, "changed meanwhile" in body(answer)) == (409, True)
    client.post(f"/review-policies/{draft.pk}/edit", {**stale, "seen": draft.digest})
    draft.refresh_from_db()
    assert draft.text == LIMITED
    client.post(f"/review-policies/{draft.pk}/withdraw")
    draft.refresh_from_db()
    assert draft.state == "withdrawn"


@pytest.mark.parametrize("roles", [("viewer@clinical",), ("auditor",), ("reviewer:security",)])
def test_everybody_reads_what_is_in_force_and_nobody_elses_drafts(
    roles: tuple[str, ...], policy: object, person: Callable[..., Person]
) -> None:
    browser(person("Ada", "admin")).post("/review-policies/new", {"text": LONGER})
    draft, client = ReviewPolicy.objects.get(version=2), browser(person("Vera", *roles))
    page = body(client.get("/review-policies"))
    for title in ("Minimal risk", "Limited risk", "General-purpose model", "High risk"):
        assert title in page
    assert "limited v2" not in page
    high = ReviewPolicy.objects.get(name="high")
    page = body(client.get(f"/review-policies/{high.pk}"))
    for said in ("Article 27", "A.6.2.4 verification and validation", "MEASURE 2.11", "privacy"):
        assert said in page
    for path in (f"/review-policies/{draft.pk}", f"/review-policies/{draft.pk}/edit"):
        assert client.get(path).status_code in (403, 404)
    assert client.get("/review-policies/new").status_code == 403
    assert client.get("/review-policies/999999").status_code == 404


def test_the_pages_cost_few_queries_and_hold_nothing_inline(
    policy: object, person: Callable[..., Person]
) -> None:
    client, high = browser(person("Ada", "admin")), ReviewPolicy.objects.get(name="high")
    client.get("/review-policies")
    paths = ["/review-policies", "/review-policies/new"]
    paths += [f"/review-policies/{high.pk}?tab={t}" for t in ("items", "changes", "yaml", "audit")]
    for path in paths:
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(path)
        assert answer.status_code == 200, path
        assert len(captured) <= 24, (path, [each["sql"][:100] for each in captured])
        assert inline_in(body(answer)) == []


# The tier beside the form


YES_NO = (
    "vulnerable_groups",
    "personal_data",
    "special_categories",
    "interacts_with_people",
    "generates_content",
    "general_purpose_model",
)


def risk(**answers: str) -> dict[str, str]:
    return {
        "eu_ai_act_role": "deployer",
        "annex_iii": "none",
        "data_classification": "internal",
        "autonomy": "suggests",
        **dict.fromkeys(YES_NO, "no"),
        **answers,
    }


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "the lowest is <strong>Minimal risk</strong>"),
        ({"personal_data": "yes"}, "At least <strong>Limited risk</strong>: it handles personal"),
        ({"general_purpose_model": "yes"}, "At least <strong>General-purpose model</strong>"),
        ({"annex_iii": "justice"}, "At least <strong>High risk</strong>: its purpose lies in"),
    ],
)
def test_the_form_tells_which_tier_follows_and_why(
    answers: dict[str, str], said: str, policy: object, person: Callable[..., Person]
) -> None:
    client = browser(person("Devi", "developer@clinical"))
    answer = client.get("/releases/tier", risk(**answers))
    assert said in body(answer)
    assert client.get("/releases/tier", risk(annex_iii="sports")).status_code == 400
    assert "Answer 1 more question" in body(client.get("/releases/tier", risk(autonomy="")))


def test_the_form_asks_every_question_and_offers_the_tiers_in_force(db: None) -> None:
    company: Company = tell_story()
    client = browser(company.devi)
    page = client.get(f"/versions/{company.second.pk}/release")
    form = page.context["form"]
    assert [value for value, _ in form.fields["tier"].choices] == [
        "",
        "minimal",
        "limited",
        "general-purpose",
        "high",
    ]
    for question in form.questions():
        assert f'name="{question.name}"' in body(page)
    assert 'hx-get="/releases/tier"' in body(page)
    before = Release.objects.count()
    answer = client.post(
        f"/versions/{company.second.pk}/release",
        {
            **risk(annex_iii="employment"),
            "environment": "staging",
            "deployment_name": "docstrings-too",
            "departments": [company.departments["engineering"].pk],
            "visibility": "department",
            "tier": "limited",
            "purpose": "Docstrings.",
            "affected_people": "Developers.",
        },
    )
    assert answer.status_code == 400
    assert "At least high" in body(answer) or "it is at least high" in body(answer)
    assert Release.objects.count() == before


# The API


def test_a_version_goes_from_a_draft_to_force_by_the_api(
    policy: object, person: Callable[..., Person]
) -> None:
    author, decider = Api(person("Ada", "admin")), Api(person("Carla", "reviewer:compliance"))
    made = author.post("review-policies", {"text": LIMITED})
    assert made.status_code == 201
    path = f"review-policies/{made.body['id']}"
    stale = author.patch(path, {"text": LONGER, "digest": "0" * 64})
    assert stale.status_code == 409
    changed = author.patch(path, {"text": LONGER, "digest": made.body["digest"]})
    assert changed.body["document"]["valid_days"] == 200
    assert changed.body["document"]["applies_when"][0]["is"] == [True]
    assert author.post(f"{path}/propose").body["state"] == "proposed"
    word = {"verdict": "approve", "reason": "Good."}
    own = author.post(f"{path}/decide", word)
    assert (own.status_code, own.body["code"]) == (403, "separation_of_duties")
    assert decider.post(f"{path}/decide", {"verdict": "maybe", "reason": "x"}).status_code == 400
    active = decider.post(f"{path}/decide", word).body
    assert (active["state"], active["decided_by"]["name"]) == ("active", "Carla")
    again = decider.post(f"{path}/decide", word)
    assert again.status_code == 409
    listed = decider.get("review-policies", name="limited").body["results"]
    assert [(row["version"], row["state"]) for row in listed] == [(2, "active"), (1, "superseded")]
    assert len(decider.get("review-policies", state="active").body["results"]) == 4


def test_the_api_names_the_lines_that_are_wrong(
    policy: object, person: Callable[..., Person]
) -> None:
    api = Api(person("Ada", "admin"))
    refused = api.post("review-policies", {"text": LIMITED.replace("check: leak", "check: leek")})
    assert refused.status_code == 422
    assert "is not a check" in str(refused.body["errors"])
    assert "line " in str(refused.body["errors"])
    for text in (7, "", "a\x00b", "x" * 70_000):
        assert api.post("review-policies", {"text": text}).status_code in (400, 413)
    assert (
        Api(person("Vera", "viewer@clinical"))
        .post("review-policies", {"text": LIMITED})
        .status_code
        == 403
    )


def test_a_draft_is_withdrawn_by_the_api(policy: object, person: Callable[..., Person]) -> None:
    api = Api(person("Ada", "admin"))
    made = api.post("review-policies", {"text": LIMITED}).body
    path = f"review-policies/{made['id']}"
    assert api.post(f"{path}/withdraw", {"reason": "Not needed."}).body["state"] == "withdrawn"
    assert api.post(f"{path}/propose").status_code == 409
    vera = Api(person("Vera", "viewer@clinical"))
    assert vera.get(path).status_code == 404
    # A hidden policy is refused in the words of one that does not exist.
    hidden, absent = (
        vera.post(f"{each}/withdraw", {"reason": "Not needed."})
        for each in (path, "review-policies/999999")
    )
    assert (hidden.status_code, hidden.body["detail"]) == (404, absent.body["detail"])


# The command line


@pytest.mark.django_db(transaction=True)
def test_the_command_line_reads_drafts_and_checks(
    signed_in: Run, person: Callable[..., Person], tmp_path: Path
) -> None:
    _, out, _ = signed_in("api", "get", "review-policies", code=0)
    assert "general-purpose" in {row["name"] for row in json.loads(out)["results"]}
    _, out, _ = signed_in("review-policies", "show", "limited", code=0)
    assert "180 days" in out
    _, out, _ = signed_in("review-policies", "show", "limited", "--yaml", code=0)
    assert out == LIMITED
    file = tmp_path / "limited.yaml"
    file.write_text(LONGER)
    _, out, _ = signed_in("review-policies", "check", str(file), code=0)
    assert "valid 200 days" in " ".join(out.split())
    signed_in("api", "post", "review-policies", "-f", f"text={LONGER}", code=0)
    made = ReviewPolicy.objects.get(version=2)
    path = f"review-policies/{made.pk}"
    signed_in("api", "post", f"{path}/propose", code=0)
    vote = ("-f", "verdict=approve", "-f", "reason=Mine.")
    _, _, said = signed_in("api", "post", f"{path}/decide", *vote, code=4)
    assert "Separation of duties" in said
    signed_in("api", "post", f"{path}/withdraw", code=0)
    made.refresh_from_db()
    assert made.state == "withdrawn"
    file.write_text(LIMITED.replace("rank: 20", "rank: many"))
    code, _, said = signed_in("review-policies", "check", str(file))
    assert (code, "line 5: rank" in said) == (1, True)
    code, _, said = signed_in("review-policies", "show", "limited", "--version", "9")
    assert (code, "No version 9" in said) == (1, True)
