"""Conditions of a release and its grace, as callers of its deployment meet them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from django.utils import timezone

from governance.quotas.models import QuotaLimit
from registry.releases.models import Release
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_keys import CHAT, GOOD, Endless, Stream
from workers.wire import Delta, Done, Event, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


def conditions(**asked: Any) -> dict[str, Any]:
    return {"conditions": asked}


def test_a_department_that_a_condition_leaves_out_is_told_which(stage: Stage) -> None:
    deployment = stage.deployment(
        departments=("engineering", "finance"), **conditions(departments=["engineering"])
    )
    token = stage.key("finance")
    response = stage.post(CHAT, token, json=GOOD)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (403, "release_condition")
    assert error["message"] == (
        "Deployment writer does not serve department finance: its release "
        f"{deployment.release_id} was approved on the condition that only engineering uses it."
    )
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200
    outcomes = {(entry.department, entry.outcome) for entry in stage.entries(2)}
    assert outcomes == {("finance", "release_condition"), ("engineering", "ok")}
    seen = httpx.get(f"{stage.url}/v1/models", headers={"authorization": f"Bearer {token}"})
    assert [model["usable"] for model in seen.json()["data"]] == [False]


def test_who_may_not_know_of_it_learns_of_no_condition(stage: Stage) -> None:
    stage.deployment(
        departments=("engineering", "finance"), **conditions(departments=["engineering"])
    )
    response = stage.post(CHAT, stage.key("legal"), json=GOOD)
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")


def test_requests_per_minute_are_of_all_callers_together(stage: Stage) -> None:
    deployment = stage.deployment(
        departments=("engineering", "finance"), **conditions(requests_per_minute=3)
    )
    one, other, third = stage.key(), stage.key("finance"), stage.key("finance")
    for token in (one, other, third):
        answer = stage.post(CHAT, token, json=GOOD)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
    for token in (one, other):
        refused = stage.post(CHAT, token, json=GOOD)
        error = error_of(refused)
        assert (refused.status_code, error["code"]) == (429, "release_condition")
        release = deployment.release_id
        assert (
            f"By a condition of its approval, release {release} is limited to 3"
            in (error["message"])
        )
        assert 1 <= int(refused.headers["retry-after"]) <= 65
        assert refused.headers["x-assay-limit"] == f"release:{release} requests_per_minute"
    stopped = [entry for entry in stage.entries(5) if entry.outcome == "release_condition"]
    assert {entry.limit for entry in stopped} == {f"release:{release} requests_per_minute"}


def test_a_department_has_its_own_part_of_them(stage: Stage) -> None:
    deployment = stage.deployment(
        departments=("engineering", "finance"),
        **conditions(requests_per_minute=5, requests_per_minute_of={"finance": 1}),
    )
    finance, engineering = stage.key("finance"), stage.key()
    first, refused = (stage.post(CHAT, finance, json=GOOD) for _ in range(2))
    assert (first.status_code, refused.status_code) == (200, 429)
    assert "for department finance is limited to 1" in error_of(refused)["message"]
    # Refused requests of one department do not count against the other.
    *answered, refused = (stage.post(CHAT, engineering, json=GOOD) for _ in range(5))
    assert [answer.status_code for answer in answered] == [200] * 4
    assert refused.status_code == 429
    assert f"release {deployment.release_id} is limited to 5" in error_of(refused)["message"]


def test_a_limit_of_the_deployment_and_a_condition_both_hold(stage: Stage) -> None:
    stage.deployment(**conditions(requests_per_minute=2))
    QuotaLimit.objects.create(deployment="writer", kind="requests_per_minute", limit=1)
    stage.notify()
    token = stage.key()
    first, second = (stage.post(CHAT, token, json=GOOD) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert error_of(second)["code"] == "quota_exceeded"


def test_conditions_that_cannot_be_read_serve_nobody_and_stop_nothing_else(stage: Stage) -> None:
    stage.deployment("broken", **conditions(requests_per_minute="many"))
    stage.deployment("other", behavior=None, ready=False)
    token = stage.key()
    refused = stage.post(CHAT, token, json={**GOOD, "model": "broken"})
    assert (refused.status_code, error_of(refused)["code"]) == (403, "release_not_servable")
    assert "cannot be read" in error_of(refused)["message"]
    waiting = stage.post(CHAT, token, json={**GOOD, "model": "other"})
    assert (waiting.status_code, error_of(waiting)["code"]) == (503, "no_ready_replica")


def test_in_its_grace_it_answers_and_says_until_when(stage: Stage) -> None:
    ended = timezone.now() - timedelta(days=2)
    stage.deployment(expires_at=ended, grace_days=7)
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert answer.status_code == 200
    told = datetime.fromisoformat(answer.headers["x-assay-release-expires"])
    assert told == ended.replace(microsecond=0)
    stops = parsedate_to_datetime(answer.headers["sunset"]).astimezone(UTC)
    assert stops == (ended + timedelta(days=7)).replace(microsecond=0)
    scraped = httpx.get(f"{stage.url}/metrics").text
    (expires,) = [x for x in scraped.splitlines() if x.startswith("assay_release_expires_seconds{")]
    assert float(expires.split()[-1]) < 0
    assert 'assay_release_stops_seconds{deployment="writer"}' in scraped


def test_an_end_far_off_is_not_announced(stage: Stage) -> None:
    stage.deployment(expires_at=timezone.now() + timedelta(days=31))
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert answer.status_code == 200
    assert "sunset" not in answer.headers
    assert "x-assay-release-expires" not in answer.headers


def test_after_its_grace_it_serves_nobody(stage: Stage) -> None:
    stage.deployment(expires_at=timezone.now() - timedelta(days=7), grace_days=7)
    refused = stage.post(CHAT, stage.key(), json=GOOD)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "release_not_servable")


def test_what_runs_is_cut_when_the_end_that_was_asked_for_comes(
    stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GATEWAY_SNAPSHOT_TTL_S = 3600  # Nothing is read again meanwhile.
    until = timezone.now() + timedelta(hours=1)
    stage.deployment(
        behavior=Endless(stage), expires_at=until, **conditions(until=until.isoformat())
    )
    stream = Stream(stage, stage.key())
    # Nobody publishes anything: the gateway's own clock ends it.
    later = until.timestamp() + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert "is expired" in stream.end()
    assert Release.objects.get().state == "approved"


def test_the_worker_is_told_when_serving_stops_and_not_when_the_approval_ended(
    stage: Stage,
) -> None:
    seen: list[float] = []

    def note(request: InferenceRequest, reply: Any) -> None:
        seen.append(request.expires_at)
        events: list[Event] = [Delta("Hi", 1), Done("stop", 1, 1)]
        for event in events:
            reply(event)

    deployment = stage.deployment(behavior=note, expires_at=timezone.now(), grace_days=7)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200
    stops = deployment.release.serves_until
    assert stops is not None
    assert seen == [stops.timestamp()]
