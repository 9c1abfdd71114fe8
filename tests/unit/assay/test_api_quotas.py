"""Limits, prices, alerts and sums through the API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.people.models import Department, Person
from governance.quotas.alerts import alerts_raise
from governance.quotas.models import QuotaLimit
from governance.quotas.wire import READY_KEY
from governance.usage.models import UsageRecord
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import tell_story

pytestmark = [pytest.mark.usefixtures("policy"), pytest.mark.sweep]


@pytest.fixture
def admin(person: Callable[..., Person], redis: Any) -> Api:
    redis.set(READY_KEY, 1)
    return Api(person("Ada", "admin"))


@pytest.fixture
def lead(person: Callable[..., Person]) -> Api:
    return Api(person("Lena", "lead@clinical"))


@pytest.fixture
def key(department: Callable[[str], Department], person: Callable[..., Person]) -> ApiKey:
    return ApiKey.objects.create(
        public_id="abcd",
        secret_hmac=b"",
        pepper_version=1,
        name="app",
        department=department("clinical"),
        created_by=person("Mia"),
        expires_at=timezone.now() + timedelta(days=1),
    )


def count(redis: Any, subject: str, **amounts: int) -> None:
    now = timezone.now()
    redis.hset(f"assay:quota:month:{now:%Y-%m}:{subject}", mapping={"none": 0, **amounts})
    redis.hset(f"assay:quota:day:{now:%Y-%m-%d}:{subject}", mapping={"none": 0, **amounts})


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        ({"organization": True}, "organization"),
        ({"department": "clinical"}, "department:clinical"),
        ({"deployment": "writer"}, "deployment:writer"),
        ({"key": 0}, "key:abcd"),
    ],
)
def test_a_limit_on_each_kind_of_subject_tells_how_far_it_is_used(
    admin: Api, key: ApiKey, redis: Any, subject: dict[str, Any], named: str
) -> None:
    subject = {"key": key.pk} if "key" in subject else subject
    count(redis, named, device=2500, device_reserved=1000)
    body = {"kind": "gpu_seconds_per_month", "limit": 10, "shadow": True, **subject}
    made = admin.post("quotas", body)
    assert made.status_code == 200
    (listed,) = admin.get("quotas").body["results"]
    assert listed == made.body
    assert listed["subject"] == named
    assert listed["description"] == "10 s of device time per month"
    assert (listed["used"], listed["reserved"], listed["remaining"]) == (3, 1, 6)
    assert (listed["percent"], listed["full"], listed["shadow"]) == (35, False, True)
    assert listed["resets_at"] is not None
    assert admin.post("quotas", {**body, "limit": None}).status_code == 204
    assert not QuotaLimit.objects.exists()


def test_exactly_one_subject_is_named(admin: Api, key: ApiKey) -> None:
    body = {"kind": "tokens_per_day", "limit": 1}
    for subjects in (
        {},
        {"organization": False},
        {"organization": True, "department": "clinical"},
        {"key": key.pk, "deployment": "writer"},
    ):
        problem_of(admin.post("quotas", {**body, **subjects}), 422)


def test_while_the_store_is_away_limits_are_listed_without_their_use(
    admin: Api, settings: Any
) -> None:
    admin.post("quotas", {"kind": "tokens_per_day", "limit": 5, "organization": True})
    settings.REDIS_URL = "unix:///nowhere.sock"
    (listed,) = admin.get("quotas").body["results"]
    assert (listed["limit"], listed["used"], listed["stops_today"]) == (5, None, None)


def test_a_lead_asks_which_limit_stops_a_key_and_sees_the_organizations_too(redis: Any) -> None:
    redis.set(READY_KEY, 1)
    company = tell_story()
    admin, lead, key = Api(company.ada), Api(company.enzo), company.key
    named = {"key": key.pk, "deployment": "docstring-writer"}
    for subject, limit in (
        ({"organization": True}, 7),
        ({"department": "engineering"}, 100),
        ({"key": key.pk}, 100),
        ({"deployment": "docstring-writer"}, 0),
    ):
        admin.post("quotas", {"kind": "tokens_per_day", "limit": limit, **subject})
    count(redis, "organization", tokens=7)
    answer = lead.get("quotas/effective", **named).body
    assert [limit["subject"] for limit in answer["limits"]] == [
        "organization",
        "department:engineering",
        f"key:{key.public_id}",
        "deployment:docstring-writer",
    ]
    assert answer["stopped_by"] == [
        "organization tokens_per_day",
        "deployment:docstring-writer tokens_per_day",
    ]
    assert len(lead.get("quotas/effective", key=key.pk).body["limits"]) == 3
    problem_of(Api(company.fay).get("quotas/effective", key=key.pk), 404)
    for wrong in ("0", "x", "-1", "999999999999999999"):
        assert lead.get("quotas/effective", key=wrong).status_code in {400, 404}


def test_limits_of_a_deployment_that_one_may_not_see_look_like_those_of_none(
    redis: Any,
) -> None:
    company = tell_story()
    own = ApiKey.objects.create(
        public_id="clin", secret_hmac=b"", pepper_version=1, name="app",
        department=company.departments["clinical"], created_by=company.people["clara"],
        expires_at=timezone.now() + timedelta(days=1),
    )  # fmt: skip
    QuotaLimit.objects.create(kind="tokens_per_day", limit=5, deployment="docstring-writer")
    lead, asked = Api(company.people["clara"]), {"key": own.pk}
    assert lead.get("quotas/effective", **asked).status_code == 200
    answers = [
        lead.get("quotas/effective", **asked, deployment=name)
        for name in ("docstring-writer", "nowhere")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    seen = Api(company.ada).get("quotas/effective", **asked, deployment="docstring-writer").body
    assert [limit["subject"] for limit in seen["limits"]] == ["deployment:docstring-writer"]
    assert Api(company.ada).get("quotas/effective", **asked, deployment="nowhere").body == {
        "limits": [],
        "stopped_by": [],
    }


def test_a_limit_is_full_only_when_nothing_is_left_of_it(
    admin: Api, key: ApiKey, redis: Any
) -> None:
    admin.post("quotas", {"kind": "gpu_seconds_per_month", "limit": 10, "organization": True})
    for used, stopped in ((9_500, []), (10_000, ["organization gpu_seconds_per_month"])):
        count(redis, "organization", device=used)
        assert admin.get("quotas/effective", key=key.pk).body["stopped_by"] == stopped


def test_alerts_are_listed_to_those_who_see_the_limit(admin: Api, lead: Api, redis: Any) -> None:
    admin.post("quotas", {"kind": "tokens_per_day", "limit": 10, "organization": True})
    admin.post("quotas", {"kind": "tokens_per_day", "limit": 10, "department": "clinical"})
    count(redis, "organization", tokens=8)
    count(redis, "department:clinical", tokens=5)
    assert alerts_raise() == 3
    found = [(row["subject"], row["threshold"]) for row in admin.get("quotas/alerts").body]
    assert found == [("organization", 80), ("department:clinical", 50)]
    assert [row["subject"] for row in lead.get("quotas/alerts").body] == ["department:clinical"]


def test_prices_are_set_listed_and_taken_away_by_admins(admin: Api, lead: Api) -> None:
    problem_of(lead.post("prices", {"deployment": None, "prompt": 1}), 404)
    assert lead.get("prices").status_code in {403, 404}
    assert (
        admin.post("prices", {"deployment": None, "prompt": 1, "device_second": 2}).status_code
        == 200
    )
    assert admin.post("prices", {"deployment": "writer", "completion": 3}).status_code == 200
    listed = [(row["deployment"], row["prompt"], row["completion"], row["device_second"])
              for row in admin.get("prices").body]  # fmt: skip
    assert listed == [(None, 1, 0, 2), ("writer", 0, 3, 0)]
    problem_of(admin.post("prices", {"deployment": None, "remove": True, "prompt": 1}), 422)
    assert admin.post("prices", {"deployment": "writer", "remove": True}).status_code == 204
    assert len(admin.get("prices").body) == 1


def test_an_admin_compares_counters_with_the_ledger_and_an_auditor_repairs_nothing(
    admin: Api, redis: Any, person: Callable[..., Person]
) -> None:
    count(redis, "organization", tokens=8)
    auditor = Api(person("Otto", "auditor"))
    found = auditor.post("quotas/reconcile", {"mode": "compare"}).body
    assert (found["differences"], found["repaired"], found["was_ready"]) == (2, False, True)
    assert found["drifts"] == [
        {"window": name, "subject": "organization", "field": "tokens", "expected": 0, "found": 8}
        for name in ("day", "month")
    ]
    problem_of(auditor.post("quotas/reconcile", {"mode": "repair"}), 403)
    assert admin.post("quotas/reconcile", {"mode": "repair"}).body["differences"] == 2
    assert admin.post("quotas/reconcile", {"mode": "compare"}).body["differences"] == 0
    assert AuditEvent.objects.filter(action="quota:reconcile", outcome="allowed").count() == 3


def record(number: int, **changes: Any) -> None:
    values = {
        "request_id": f"req_{number}",
        "occurred_at": timezone.now(),
        "department": "clinical",
        "key_public_id": "abcd",
        "deployment": "writer",
        "version_digest": "",
        "endpoint": "/v1/embeddings",
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "device_ms": 5,
        "cost_micro": 7,
        "outcome": "ok",
    }
    UsageRecord.objects.create(**{**values, **changes})


def test_use_is_summed_a_day_and_by_group_for_those_who_may_see_it(
    admin: Api, lead: Api, person: Callable[..., Person]
) -> None:
    yesterday = timezone.now() - timedelta(days=1)
    record(1)
    record(2, outcome="failed")
    record(3, deployment="reader", occurred_at=yesterday)
    record(4, department="finance", deployment="")
    whole = admin.get("usage/days").body
    assert (whole["currency"], whole["by"]) == ("EUR", None)
    assert [(day["requests"], day["failed"], day["cost_micro"]) for day in whole["days"]] == [
        (1, 0, 7),
        (3, 1, 21),
    ]
    by = admin.get("usage/days", by="deployment", days=7).body["days"]
    assert [(day["name"], day["requests"]) for day in by] == [("reader", 1), ("", 1), ("writer", 2)]
    (today,) = lead.get("usage/days", by="department", days=1).body["days"]
    assert (today["name"], today["requests"], today["device_ms"]) == ("clinical", 2, 10)
    for wrong in ({"days": "0"}, {"days": "367"}, {"days": "x"}, {"by": "color"}):
        problem_of(admin.get("usage/days", **wrong), 400)


def test_use_is_summed_by_unit_and_never_across_units(admin: Api) -> None:
    other = {"prompt_tokens": 0, "completion_tokens": 0, "endpoint": "/v1/x"}
    record(1)
    record(2, unit="images", metered=4, **other)
    record(3, unit="images", metered=5, **other)
    record(4, unit="points", metered=6, **other)
    (today,) = admin.get("usage/days").body["days"]
    assert today["units"] == {"tokens": 5, "images": 9, "points": 6}
    assert (today["prompt_tokens"], today["completion_tokens"]) == (2, 3)
    listed = [(row["unit"], row["units"]) for row in admin.get("usage").body["results"]]
    assert listed == [("points", 6), ("images", 5), ("images", 4), ("tokens", 5)]


def test_prices_per_unit_are_set_and_listed_and_unknown_units_are_refused(admin: Api) -> None:
    units = {"images": 40_000, "audio_seconds": 100, "points": 0}
    made = admin.post("prices", {"deployment": None, "units": units})
    assert made.body["units"] == {"images": 40_000, "audio_seconds": 100}
    assert admin.get("prices").body[0]["units"] == made.body["units"]
    for status, wrong in (
        (422, {"tokens": 1}), (422, {"cheese": 1}), (400, {"images": -1}),
        (400, {"images": 10**13}), (400, {"images": 0.5}), (400, ["images"]),
        (400, {str(number): 1 for number in range(99)}),
    ):  # fmt: skip
        problem_of(admin.post("prices", {"deployment": None, "units": wrong}), status)
    assert admin.get("prices").body[0]["units"] == made.body["units"]


def test_limits_on_units_are_set_and_read_like_those_on_tokens(admin: Api, redis: Any) -> None:
    count(redis, "organization", images=7, images_reserved=1)
    body = {"kind": "images_per_day", "limit": 10, "organization": True}
    made = admin.post("quotas", body).body
    assert made["description"] == "10 images per day"
    assert (made["used"], made["reserved"], made["remaining"]) == (7, 1, 2)
    problem_of(admin.post("quotas", {**body, "kind": "cheese_per_day"}), 400)


def test_only_the_largest_groups_stand_alone(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governance.usage.selectors.GROUPS_SHOWN", 1)
    record(1, cost_micro=100)
    record(2, deployment="small")
    record(3, deployment="tiny")
    by = admin.get("usage/days", by="deployment").body["days"]
    assert [(day["name"], day["requests"]) for day in by] == [("writer", 1), (None, 2)]
