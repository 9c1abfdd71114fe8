"""A message counts once, and only for its sender."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis as redis_module
from django.test import Client

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.people.models import Person
from governance.reviews.models import Decision
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_STREAM, UsageEntry
from tests.abuse.company import SECRET, browser, caller, token_of
from tests.abuse.surface import JSON, said
from tests.proofs import signed_in
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.portal_data import PASSWORD, Company
from workers.jobs.models import Job
from workers.wire import Delta, Done

__all__ = ["stage"]


def stop(client: Client, company: Company, key: str, **more: Any) -> Any:
    path = f"/api/v1/deployments/{company.deployment.pk}/stop"
    body = {"reason": SECRET, **more}
    return client.post(path, body, content_type=JSON, headers={"idempotency-key": key})


def test_a_captured_vote_sent_again_is_no_second_vote(company: Company) -> None:
    """Byte for byte, with everything that was in it."""
    reviewer = browser(company, "a security reviewer")
    review = company.review_open
    form = {"verdict": "reject", "reason": "Once.", "digest": review.digest, "specialty": ""}
    first = reviewer.post(f"/reviews/{review.pk}/decide", form)
    again = reviewer.post(f"/reviews/{review.pk}/decide", form)
    assert (first.status_code, again.status_code) == (302, 409)
    assert Decision.objects.filter(reason="Once.").count() == 1


def test_a_vote_sent_again_under_its_key_is_answered_and_counts_once(company: Company) -> None:
    """Also once the proof of who sent it is too old for a new one."""
    token = token_of(company, "a security reviewer")
    client = Client(headers={"authorization": f"Bearer {token}"}, raise_request_exception=False)
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    body = {
        "verdict": "reject", "reason": "Once.", "specialty": "security",
        "digest": company.review_open.digest,
    }  # fmt: skip

    def vote(**headers: str) -> Any:
        return client.post(path, body, content_type=JSON, headers=headers)

    first = vote(**{"idempotency-key": "vote-1"})
    ApiKey.objects.update(proof_method="", proved_at=None)
    again, new = vote(**{"idempotency-key": "vote-1"}), vote(**{"idempotency-key": "vote-2"})
    assert (first.status_code, again.status_code, new.status_code) == (201, 201, 409)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert Decision.objects.filter(reason="Once.").count() == 1
    assert AuditEvent.objects.filter(action="review:rejected").count() == 1


def test_a_vote_of_an_earlier_round_says_nothing_in_this_one(company: Company) -> None:
    review = company.review_open
    assert review.round == 2
    client = Client(raise_request_exception=False)
    signed_in(client, company.carla)
    form = {"verdict": "request_changes", "reason": "Again?", "digest": "f" * 64}
    assert client.post(f"/reviews/{review.pk}/decide", form).status_code == 409
    assert not Decision.objects.filter(reason="Again?").exists()


def test_an_idempotency_key_repeats_its_answer_to_nobody_else(company: Company) -> None:
    """Somebody who has seen the key in a log learns nothing, and blocks nothing."""
    mine = caller(company, "a lead of engineering")
    theirs = caller(company, "a lead of finance")
    assert stop(theirs, company, "key-1").status_code == 404
    first = stop(mine, company, "key-1")
    assert first.status_code == 200
    stolen = stop(theirs, company, "key-1")
    assert stolen.status_code == 404
    assert SECRET not in said(stolen)
    again = stop(mine, company, "key-1")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()


def test_an_idempotency_key_carries_no_other_request(company: Company) -> None:
    client = caller(company, "a lead of engineering")
    assert stop(client, company, "key-2").status_code == 200
    assert stop(client, company, "key-2", reason="Another reason.").status_code == 409
    path = f"/api/v1/releases/{company.live.pk}/withdraw"
    moved = client.post(
        path, {"reason": SECRET}, content_type=JSON, headers={"idempotency-key": "key-2"}
    )
    assert moved.status_code == 409


def test_a_repeated_answer_is_not_given_to_who_may_not_see_it_any_more(company: Company) -> None:
    client = caller(company, "a lead of engineering")
    assert stop(client, company, "key-3").status_code == 200
    Person.objects.get(name="A Lead Of Engineering").role_assignments.all().delete()
    answer = stop(client, company, "key-3")
    assert answer.status_code in {403, 404, 409}
    assert SECRET not in said(answer)


def test_a_session_that_signed_out_is_over(company: Company) -> None:
    """A copied cookie does not outlive it."""
    company.carla.set_password(PASSWORD)
    company.carla.save()
    client = Client()
    client.post("/sign-in", {"email": company.carla.email, "password": PASSWORD})
    copied = Client()
    copied.cookies["sessionid"] = client.cookies["sessionid"].value
    assert copied.get("/api/v1/me").status_code == 200
    client.post("/sign-out")
    assert copied.get("/api/v1/me").status_code == 401


def test_signing_in_changes_the_session(company: Company) -> None:
    """A session that an attacker planted beforehand is not the one that is signed in."""
    company.carla.set_password(PASSWORD)
    company.carla.save()
    attacker = browser(company, "a viewer of finance")
    planted = attacker.cookies["sessionid"].value
    victim = Client()
    victim.cookies["sessionid"] = planted
    victim.post("/sign-in", {"email": company.carla.email, "password": PASSWORD})
    assert victim.cookies["sessionid"].value != planted
    assert attacker.get("/api/v1/me").status_code == 401 or (
        attacker.get("/api/v1/me").json()["name"] != company.carla.name
    )


def test_a_job_is_not_canceled_twice(company: Company) -> None:
    client = caller(company, "a lead of engineering")
    path = f"/api/v1/jobs/{company.running.pk}/cancel"
    first, again = (client.post(path, {}, content_type=JSON) for _ in range(2))
    assert first.status_code == 200
    assert again.status_code in {200, 409}
    cancels = AuditEvent.objects.filter(action="job:cancel", outcome="allowed")
    assert cancels.count() == 1
    assert Job.objects.get(pk=company.running.pk).cancel_requested


def entry(**changes: Any) -> UsageEntry:
    made = UsageEntry(
        request_id="req_once", occurred_at=1_790_000_000.0, outcome="ok",
        endpoint="/v1/chat/completions", department="engineering", key_public_id="k7f3a9q2",
        key_name="editor", deployment="docstring-writer", prompt_tokens=5, completion_tokens=7,
    )  # fmt: skip
    return replace(made, **changes)


def deliver(redis: redis_module.Redis, *entries: UsageEntry) -> None:
    for each in entries:
        redis.xadd(USAGE_STREAM, {"entry": each.encode()})
    while collect_once(redis, consumer="attack", block_ms=1):
        pass


def test_usage_that_is_delivered_again_is_billed_once(
    company: Company, redis: redis_module.Redis
) -> None:
    """The same entry, and one that would overwrite it: the first stands."""
    deliver(redis, entry())
    deliver(
        redis, entry(), entry(prompt_tokens=0, completion_tokens=0), entry(department="finance")
    )
    record = UsageRecord.objects.get(request_id="req_once")
    assert (record.department, record.prompt_tokens, record.completion_tokens) == (
        "engineering", 5, 7,
    )  # fmt: skip
    assert AuditEvent.objects.filter(delivery="req_once").count() == 1


def test_an_answer_that_ends_twice_is_billed_once(stage: Stage) -> None:
    """A worker that sends its end again, with more tokens."""

    def twice(_request: Any, reply: Any) -> None:
        reply(Delta("Hello", 1))
        for tokens in (3, 3_000_000):
            reply(Done("stop", prompt_tokens=5, completion_tokens=tokens, queue_ms=1))

    stage.deployment(behavior=twice)
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}
    answer = stage.post("/v1/chat/completions", stage.key(), json=body)
    assert answer.json()["usage"]["completion_tokens"] == 3
    assert [each.completion_tokens for each in stage.entries()] == [3]


def test_the_callers_own_request_id_bills_nobody_elses_request(stage: Stage) -> None:
    """A repeated `x-request-id` would merge two requests into one in the ledger."""
    stage.deployment()
    token = stage.key()
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}
    for _ in range(2):
        stage.post("/v1/chat/completions", token, json=body, headers={"x-request-id": "req_once"})
    assert len({each.request_id for each in stage.entries(2)}) == 2


@pytest.mark.parametrize("junk", ["", "x" * 256, "a b", "\x07", "é"])
def test_an_idempotency_key_that_is_none_is_refused(company: Company, junk: str) -> None:
    client = caller(company, "a lead of engineering")
    answer = stop(client, company, junk)
    assert answer.status_code == 400
    assert json.loads(answer.content)["code"] == "invalid_input"
