"""Served deployments, through the API, the portal and the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.portal.series import LaneBar, Stretch, serving_lanes
from assay.portal.views.served import form_moment
from governance.audit.services import Subject, audit_record
from governance.principals import service_principal
from governance.usage.models import UsageRecord
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_api_lists import SCOPE as API_SCOPE
from tests.unit.assay.test_portal_pages import SCOPE, inline_in
from workers.deployments.models import Deployment, ServingPeriod

pytestmark = pytest.mark.sweep

WORKER = service_principal("engine-worker")
EVERYONE = ("ada", "omar", "asha", "carla", "milo", "enzo", "devi", "vera")


@pytest.fixture
def company(company: Company) -> Company:
    """The story, in which docstring-writer has served for ten days, and twice before."""
    for begun, ended in ((25, 20), (20, 12), (10, None)):
        kept(company.deployment, begun, ended)
    return company


def kept(deployment: Deployment, begun: float, ended: float | None = None) -> ServingPeriod:
    """A period of so many days ago."""
    now = timezone.now()
    subject = Subject("deployment", str(deployment.pk), deployment.name)

    def event(verb: str) -> Any:
        return audit_record(actor=WORKER, action=f"deployment:{verb}", subject=subject)

    period = ServingPeriod.objects.create(
        deployment=deployment,
        digest=deployment.release.version.digest,
        serving_from=now - timedelta(days=begun),
        began_event=event("serve"),
    )
    if ended is not None:
        period.serving_until = now - timedelta(days=ended)
        period.ended_as, period.ended_event = "pending", event("await")
        period.save()
    return period


def days_ago(days: float) -> str:
    return (timezone.now() - timedelta(days=days)).isoformat()


def test_the_api_says_what_serves_now_who_approved_it_and_on_what(company: Company) -> None:
    body = Api(company.asha).get("served", department="engineering").body
    assert (body["department"], body["said"], body["since"], body["until"]) == (
        "engineering", "", None, None,
    )  # fmt: skip
    assert body["at"] is not None
    (served,) = body["results"]
    assert (served["name"], served["environment"]) == ("docstring-writer", "production")
    assert served["digest"] == served["version"]["digest"] == company.first.digest
    assert (served["serving_until"], served["ended"], served["ended_event"]) == (None, "", None)
    began = ServingPeriod.objects.latest("pk").began_event_id
    assert served["began_event"]["proof_url"] == f"/api/v1/audit/events/{began}/proof"
    release = served["release"]
    assert release["dossier_digest"] == company.live.dossier_digest
    assert release["departments"] == ["engineering"]
    assert release["evidence_url"] == f"/api/v1/releases/{company.live.pk}/evidence"
    approval = served["approval"]
    assert approval["review"]["id"] == company.review_approved.pk
    assert len(approval["review"]["checklist"]) == 5
    assert [(vote["person"]["name"], vote["specialty"]) for vote in approval["votes"]] == [
        ("Milo Model-Risk", "model-risk"),
        ("Carla Compliance", "compliance"),
    ]


def test_the_usage_of_a_moment_is_that_of_its_release_in_its_hour(company: Company) -> None:
    moment = timezone.now().replace(minute=30) - timedelta(days=1)
    hour = moment.replace(minute=0, second=0, microsecond=0)
    for minutes, outcome, release in (
        (5, "ok", company.live),
        (50, "canceled", company.live),
        (30, "ok", company.waiting),
        (-1, "ok", company.live),
        (60, "ok", company.live),
    ):
        UsageRecord.objects.create(
            request_id=f"req_of_{minutes}", occurred_at=hour + timedelta(minutes=minutes),
            department="engineering", deployment="docstring-writer", release=release.pk,
            version_digest=company.first.digest, endpoint="/v1/chat/completions",
            prompt_tokens=10, completion_tokens=2, total_ms=1, outcome=outcome,
        )  # fmt: skip
    query = {"department": "engineering", "at": moment.isoformat()}
    (served,) = Api(company.asha).get("served", **query).body["results"]
    assert served["usage"] == {
        "since": hour.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "until": (hour + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "requests": 2,
        "failed": 1,
        "tokens": 24,
    }


def test_the_api_answers_for_a_moment_and_for_a_span(company: Company) -> None:
    api = Api(company.asha)

    def found(**query: Any) -> list[int]:
        body = api.get("served", department="engineering", **query).body
        return [served["id"] for served in body["results"]]

    first, second, third = ServingPeriod.objects.order_by("pk").values_list("pk", flat=True)
    assert found(at=days_ago(22)) == [first]
    assert found(at=days_ago(15)) == [second]
    assert found(at=days_ago(11)) == []
    assert found(at=days_ago(1)) == found() == [third]
    assert found(since=days_ago(30)) == [third, second, first]
    assert found(since=days_ago(22), until=days_ago(15)) == [second, first]
    page = api.get("served", department="engineering", since=days_ago(30), page_size="2").body
    rest = api.get(page["next"].partition("/api/v1/")[2]).body
    assert [served["id"] for served in page["results"] + rest["results"]] == [third, second, first]
    assert rest["said"] == ""


def test_an_empty_answer_says_what_there_is_instead(company: Company) -> None:
    api = Api(company.asha)
    before = api.get("served", department="engineering", at=days_ago(90)).body
    assert before["results"] == []
    assert "The first one began to serve at" in before["said"]
    never = api.get("served", department="finance").body
    assert never["said"].endswith("or at any other time.")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "department"),
        ({"department": "engineering", "at": "2999-01-01T00:00:00Z"}, "at"),
        ({"department": "engineering", "at": "2026-01-01T00:00:00"}, "at"),
        ({"department": "engineering", "at": "yesterday"}, "at"),
        ({"department": "engineering", "until": "2026-01-01T00:00:00Z"}, "since"),
        ({"department": "Engineering'; --"}, "department"),
    ],
)
def test_what_is_no_question_is_refused(
    company: Company, query: dict[str, str], field: str
) -> None:
    problem = problem_of(Api(company.asha).get("served", **query), 400)
    assert [error["field"] for error in problem["errors"]] == [field]


def test_another_departments_people_are_told_that_there_is_no_such_department(
    company: Company,
) -> None:
    problem_of(Api(company.fay).get("served", department="engineering"), 404)
    assert Api(company.vera).get("served", department="engineering").status_code == 200
    problem_of(Api(company.vera).get("served", department="finance"), 404)


def test_an_answer_costs_as_many_queries_for_many_periods_as_for_one(company: Company) -> None:
    api = Api(company.asha)
    api.get("served", department="engineering")
    costs = []
    for since in (days_ago(1), days_ago(30)):
        with CaptureQueriesContext(connection) as captured:
            answer = api.get("served", department="engineering", since=since)
        costs.append((len(answer.body["results"]), len(captured) - API_SCOPE))
    # The key, the caller's roles, and what the selectors ask.
    assert costs == [(1, 14), (3, 14)], [query["sql"][:100] for query in captured]


@pytest.mark.parametrize("who", EVERYONE)
def test_the_page_answers_everybody_who_may_see_the_department(company: Company, who: str) -> None:
    client = Client()
    client.force_login(company.people[who])
    response = client.get("/served", {"department": "engineering"})
    html = response.content.decode()
    assert response.status_code == 200
    assert inline_in(html) == []
    assert company.first.digest in html
    assert "Carla Compliance" in html
    assert f"/reviews/{company.review_approved.pk}" in html
    assert html.count('class="meter"') == 2
    may_pack = who in {"ada", "omar", "asha", "carla", "milo", "enzo"}
    assert (f"/releases/{company.live.pk}/evidence" in html) is may_pack
    began = ServingPeriod.objects.latest("pk").began_event_id
    assert (f"/audit/{began}" in html) is (who in {"ada", "omar", "asha", "enzo"})


def test_the_page_shows_a_moment_and_the_weeks_around_it(company: Company) -> None:
    client = Client()
    client.force_login(company.asha)
    first = ServingPeriod.objects.earliest("pk")
    page = client.get("/served", {"department": "engineering"})
    assert "The last 30 days" in page.content.decode()
    link = f"at={form_moment(first.serving_from)}"
    assert link in page.content.decode()
    then = " ".join(client.get(f"/served?department=engineering&{link}").content.decode().split())
    assert "then lost its last worker" in then
    long_ago = (timezone.now() - timedelta(days=45)).strftime("%Y-%m-%dT%H:%M")
    before = client.get("/served", {"department": "engineering", "at": long_ago}).content.decode()
    assert "The 30 days around it" in before
    assert "The first one began to serve at" in before


@pytest.mark.parametrize(
    ("at", "words"),
    [("2999-01-01T00:00", "is in the future"), ("tomorrow", "is not a date and time")],
)
def test_the_page_says_what_is_wrong_with_a_moment(company: Company, at: str, words: str) -> None:
    client = Client()
    client.force_login(company.asha)
    html = client.get("/served", {"department": "engineering", "at": at}).content.decode()
    assert words in html
    assert 'class="meter"' in html


def test_the_page_of_another_department_is_not_found(company: Company) -> None:
    client = Client()
    client.force_login(company.fay)
    assert client.get("/served", {"department": "engineering"}).status_code == 404
    assert client.get("/served", {"department": "\x00"}).status_code == 404
    own = client.get("/served").content.decode()
    assert "No deployments visible to you served Finance" in own
    assert company.first.digest not in own


def test_who_belongs_nowhere_is_told_so(company: Company, person: Callable[..., Any]) -> None:
    client = Client()
    client.force_login(person("Nora Nowhere"))
    assert "No department visible to you" in client.get("/served").content.decode()


def test_the_page_costs_as_many_queries_for_many_periods_as_for_one(company: Company) -> None:
    client = Client()
    client.force_login(company.asha)
    address = "/served?department=engineering"
    client.get(address)
    costs = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as captured:
            assert client.get(address).status_code == 200
        costs.append(len(captured) - SCOPE)
        for number in range(15):
            other = Deployment.objects.create(
                name=f"more-{number}", release=company.live, state="stopped",
                department=company.departments["engineering"], created_by=company.enzo,
            )  # fmt: skip
            kept(other, 5)
    assert costs == [24, 24], [query["sql"][:100] for query in captured]


def test_other_pages_lead_to_it(company: Company) -> None:
    client = Client()
    client.force_login(company.enzo)
    assert 'href="/served"' in client.get("/deployments").content.decode()
    department = client.get("/departments/engineering").content.decode()
    assert 'href="/served?department=engineering"' in department


def test_lanes_show_what_is_short_and_stay_within_the_time_that_is_drawn() -> None:
    now = timezone.now()
    day = timedelta(days=1)
    since = now - 10 * day
    lanes = serving_lanes(
        [
            Stretch("b", 2, now - 5 * day, None),
            Stretch("b", 1, now - 20 * day, now - 5 * day),
            Stretch("a", 3, now - timedelta(seconds=1), now),
        ],
        since,
        now,
        now,
    )
    assert [lane.name for lane in lanes] == ["a", "b"]
    assert lanes[0].bars == [LaneBar("99.50", "0.50", False)]
    assert lanes[1].bars == [LaneBar("0.00", "50.00", False), LaneBar("50.00", "50.00", True)]
    assert (lanes[1].days, lanes[1].serves, lanes[0].serves) == (10.0, True, False)
