"""Feedback by the gateway and by the management API."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from assay.models import IdempotencyRecord
from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.people.models import Person
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from registry.feedback.models import Feedback
from tests.people import make_person
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_playground import Browser, member
from tests.unit.registry.feedback_world import FeedbackOffice, open_feedback_office
from tests.worlds import built_once, copied

__all__ = ["stage"]

pytestmark = pytest.mark.sweep

PATH = "/v1/feedback"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
built = built_once(open_feedback_office)


@pytest.fixture
def office(built: FeedbackOffice, db: None) -> FeedbackOffice:
    return copied(built)


def ask(stage: Stage, token: str, **headers: str) -> str:
    """Ask the deployment `writer`, and put the request on record; return the answer's ID."""
    answer = stage.post(
        "/v1/chat/completions", token, json={"model": "writer", **ASKED}, headers=headers
    )
    assert answer.status_code == 200, answer.content
    stage.entries()
    collect_once(stage.redis, consumer="tests")
    return str(answer.json()["id"])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_an_application_corrects_an_answer_of_its_own_department(stage: Stage) -> None:
    stage.deployment()
    key = stage.key()
    said = {"request_id": ask(stage, key), "rating": "down", "input": ASKED, "correction": "Hello."}
    first = stage.post(PATH, key, json=said)
    again = stage.post(PATH, key, json=said)
    changed = stage.post(PATH, key, json={**said, "rating": "up"})
    theirs = stage.post(PATH, stage.key("finance"), json=said)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["request_id"] == UsageRecord.objects.get().request_id
    assert (first.json()["model"], first.json()["teaches"]) == ("writer", True)
    assert code(changed) == (409, "feedback_given")
    assert code(theirs) == (404, "request_not_found")
    feedback = Feedback.objects.get()
    assert (feedback.input, feedback.person) == (ASKED, None)
    event = AuditEvent.objects.get(action="feedback:create")
    assert (event.actor_kind, event.request_id) == ("key", first.headers["x-request-id"])


def test_every_field_of_feedback_is_kept(stage: Stage) -> None:
    stage.deployment()
    key = stage.key()
    said = {"rating": "down", "input": ASKED, "answer": "Ho", "correction": "Hi", "comment": "No."}
    assert stage.post(PATH, key, json={"request_id": ask(stage, key), **said}).status_code == 201
    assert Feedback.objects.values(*said).get() == said


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "missing_parameter")),
        ({"request_id": "req_1", "rating": "good"}, (400, "unsupported_value")),
        ({"request_id": "req_1", "prompt": "x"}, (400, "unknown_parameter")),
        ({"request_id": "req_1\0", "rating": "up"}, (404, "request_not_found")),
        ({"request_id": "req_1", "comment": "x" * 2_001}, (400, "invalid_value")),
        ({"request_id": "req_1", "answer": "x" * 600_000}, (413, "too_large")),
    ],
)
def test_what_does_not_fit_is_refused(
    stage: Stage, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert code(stage.post(PATH, stage.key(), json=body)) == expected


def test_feedback_needs_a_key_that_may_ask(stage: Stage) -> None:
    said = {"request_id": "req_1", "rating": "up"}
    assert code(stage.post(PATH, "nonsense", json=said)) == (401, "invalid_api_key")
    builder = stage.key(notify=False)
    ApiKey.objects.update(scopes=["model:create"])
    stage.notify()
    assert stage.post(PATH, builder, json=said).status_code in (403, 404)
    url = f"{stage.url}{PATH}"
    assert httpx.get(url).json()["error"]["code"] == "method_not_allowed"


def test_a_person_in_the_playground_is_the_author_of_their_feedback(stage: Stage) -> None:
    stage.deployment()
    browser = Browser(stage, member(stage))
    token = browser.token()
    said = {"request_id": ask(stage, token, cookie=browser.cookie), "rating": "down"}
    alone = stage.post(PATH, token, json=said)
    given = stage.post(PATH, token, json=said, headers={"cookie": browser.cookie})
    assert code(alone) == (401, "session_required")
    assert given.status_code == 201
    assert Feedback.objects.get().person == stage.person


def test_the_api_reviews_feedback_and_makes_data_of_it(office: FeedbackOffice) -> None:
    one, two = office.feedback(1), office.feedback(2, correction="")
    api = Api(office.trainer)
    accepted = api.post(f"feedback/{one.pk}/review", {"accept": True})
    problem_of(api.post(f"feedback/{two.pk}/review", {"accept": True}), 400, "feedback_unusable")
    rejected = api.post(f"feedback/{two.pk}/review", {"accept": False})
    listed = api.get("feedback", state="accepted", deployment="review-sentiment").body["results"]
    made = api.post(
        "datasets/train/feedback-versions", {"feedback": [one.pk], "base": office.train.pk}
    )
    erased = Api(office.lead).post(f"feedback/{two.pk}/erase", {"reason": "Requested."})

    assert (accepted.status_code, rejected.status_code) == (200, 200)
    assert [each["id"] for each in listed] == [one.pk]
    assert accepted.body["row"] == {"text": "text 1", "label": "bad"}
    assert (made.status_code, made.body["number"], made.body["rows"]) == (201, 2, 20)
    assert (made.body["base"], made.body["feedback"]) == (office.train.pk, 1)
    assert (erased.body["state"], erased.body["input"]) == ("erased", None)


def test_no_content_of_feedback_outlives_its_erasure_as_a_kept_answer(
    office: FeedbackOffice,
) -> None:
    given = office.feedback(4)
    said: tuple[tuple[Person, str, dict[str, Any]], ...] = (
        (office.trainer, "review", {"accept": True}),
        (office.lead, "erase", {"reason": "Requested."}),
    )
    for who, verb, body in said:
        answer = Api(who).post(f"feedback/{given.pk}/{verb}", body, idempotency_key=verb)
        assert answer.status_code == 200
    assert not IdempotencyRecord.objects.exists()


def test_another_departments_feedback_does_not_exist(office: FeedbackOffice) -> None:
    given = office.feedback(3)
    for who in (make_person("Lex", "lead@legal"), make_person("Ada", "admin")):
        api = Api(who)
        assert api.get("feedback").body["results"] == []
        problem_of(api.get(f"feedback/{given.pk}"), 404)
        problem_of(api.post(f"feedback/{given.pk}/review", {"accept": False}), 404)
        problem_of(api.post(f"feedback/{given.pk}/erase", {"reason": "x"}), 404)


def test_a_list_of_feedback_costs_as_many_queries_for_ten_as_for_one(
    office: FeedbackOffice,
) -> None:
    api = Api(office.trainer)
    api.get("departments")
    counts = []
    for number in range(10):
        office.feedback(100 + number, office.submitter)
        if number in (0, 9):
            with CaptureQueriesContext(connection) as captured:
                api.get("feedback")
            counts.append(len(captured))
    assert counts[0] == counts[1]
