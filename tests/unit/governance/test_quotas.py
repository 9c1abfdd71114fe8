from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create, key_create
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.quotas.kinds import KINDS, amount_words, limit_words, money_words
from governance.quotas.models import QuotaLimit
from governance.quotas.prices import Tariff
from governance.quotas.selectors import (
    limits_applying,
    prices_get,
    quota_limits,
    quotas_visible_to,
    tariff_for,
    tariffs,
    uses,
)
from governance.quotas.services import price_set, quota_set
from governance.quotas.wire import Limit
from governance.usage.units import Unit

KIND = "tokens_per_minute"


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def clinical(department: Callable[[str], Department]) -> Department:
    return department("clinical")


@pytest.fixture
def key(admin: Principal, clinical: Department) -> ApiKey:
    return key_create(
        actor=admin,
        department=clinical,
        name="app",
        scopes=["deployment:invoke"],
        expires_at=timezone.now() + timedelta(days=1),
    )[0]


def test_a_limit_is_set_changed_and_taken_away(
    admin: Principal, clinical: Department, key: ApiKey
) -> None:
    quota_set(actor=admin, kind=KIND, limit=100, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=0, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=7, api_key=key)
    assert quota_limits() == [
        Limit("department:clinical", KIND, 0),
        Limit(f"key:{key.public_id}", KIND, 7),
    ]
    quota_set(actor=admin, kind=KIND, limit=None, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=None, department=clinical)
    assert [limit.limit for limit in quota_limits()] == [7]
    assert AuditEvent.objects.filter(action="quota:set", department="clinical").count() == 5


def test_organization_and_deployments_have_limits_and_a_shadow_is_one_too(admin: Principal) -> None:
    quota_set(actor=admin, kind="money_per_month", limit=5, organization=True, shadow=True)
    quota_set(actor=admin, kind="gpu_seconds_per_month", limit=6, deployment="writer")
    assert quota_limits() == [
        Limit("organization", "money_per_month", 5, shadow=True),
        Limit("deployment:writer", "gpu_seconds_per_month", 6),
    ]
    assert quota_limits({"organization"}) == quota_limits()[:1]
    quota_set(actor=admin, kind="money_per_month", limit=5, organization=True)
    assert quota_limits()[0].shadow is False


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "cheese"}, "kind"),
        ({"limit": -1}, "limit"),
        ({"limit": 10**30}, "limit"),
        ({"kind": "gpu_seconds_per_month", "limit": 10**13}, "limit"),
        ({"department": None}, "department"),
        ({"organization": True}, "department"),
        ({"deployment": "writer"}, "department"),
        ({"department": None, "deployment": "x" * 81}, "deployment"),
        ({"department": None, "deployment": "a|b"}, "deployment"),
        ({"department": None, "deployment": "a\nb"}, "deployment"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    admin: Principal, clinical: Department, changes: dict[str, Any], field: str
) -> None:
    asked: dict[str, Any] = {"kind": KIND, "limit": 1, "department": clinical} | changes
    with pytest.raises(InvalidInput) as caught:
        quota_set(actor=admin, **asked)
    assert list(caught.value.fields) == [field]


@pytest.mark.parametrize(
    "both", [{"department", "api_key"}, {"department", "deployment"}, {"api_key", "deployment"}]
)
def test_the_database_too_refuses_a_limit_on_two_subjects(
    clinical: Department, key: ApiKey, both: set[str]
) -> None:
    subjects = {"department": clinical, "api_key": key, "deployment": "writer"}
    chosen: dict[str, Any] = {name: subjects[name] for name in both}
    with pytest.raises(IntegrityError), transaction.atomic():
        QuotaLimit.objects.create(kind=KIND, limit=1, **chosen)


def test_a_persons_access_token_has_no_limit_of_its_own(
    admin: Principal, person: Callable[..., Person]
) -> None:
    token, _ = access_token_create(person=person("Dora"), name="laptop")
    with pytest.raises(InvalidInput, match="access token"):
        quota_set(actor=admin, kind=KIND, limit=1, api_key=token)


def test_a_lead_sees_limits_and_sets_none_and_others_see_nothing(
    admin: Principal, clinical: Department, actor: Callable[..., Principal], key: ApiKey
) -> None:
    quota_set(actor=admin, kind=KIND, limit=1, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=1, api_key=key)
    lead, stranger = actor("Lena", "lead@clinical"), actor("Finn", "lead@finance")
    assert quotas_visible_to(lead).count() == 2
    assert not quotas_visible_to(stranger).exists()
    with pytest.raises(NotPermitted):
        quota_set(actor=lead, kind=KIND, limit=2, department=clinical)
    with pytest.raises(NotFound):
        quota_set(actor=stranger, kind=KIND, limit=2, department=clinical)
    assert set(QuotaLimit.objects.values_list("limit", flat=True)) == {1}


def test_nobody_but_an_admin_limits_the_organization_or_sets_prices(
    actor: Callable[..., Principal],
) -> None:
    for roles in (["lead@clinical"], ["auditor"], ["operator"], ["reviewer:security"]):
        other = actor(roles[0], *roles)
        with pytest.raises((NotPermitted, NotFound)):
            quota_set(actor=other, kind=KIND, limit=1, organization=True)
        with pytest.raises((NotPermitted, NotFound)):
            price_set(actor=other, deployment="", tariff=Tariff(prompt=1))


def test_every_limit_that_binds_a_request_is_named_the_widest_first(
    admin: Principal, clinical: Department, key: ApiKey, department: Callable[[str], Department]
) -> None:
    quota_set(actor=admin, kind=KIND, limit=4, deployment="writer")
    quota_set(actor=admin, kind=KIND, limit=3, api_key=key)
    quota_set(actor=admin, kind=KIND, limit=2, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=1, organization=True)
    quota_set(actor=admin, kind=KIND, limit=9, department=department("finance"))
    quota_set(actor=admin, kind=KIND, limit=9, deployment="reader")
    assert [row.limit for row in limits_applying(key=key, deployment="writer")] == [1, 2, 3, 4]
    assert [row.limit for row in limits_applying(key=key)] == [1, 2, 3]


def test_a_price_is_set_changed_taken_away_and_audited(admin: Principal) -> None:
    price_set(actor=admin, deployment="", tariff=Tariff(1, 2, 3))
    price_set(actor=admin, deployment="writer", tariff=Tariff(4, 5, 6))
    assert tariff_for("writer", tariffs()) == Tariff(4, 5, 6)
    assert tariff_for("another", tariffs()) == Tariff(1, 2, 3)
    assert [price.deployment for price in prices_get(actor=admin)] == ["", "writer"]
    price_set(actor=admin, deployment="writer", tariff=None)
    assert tariff_for("writer", tariffs()) == Tariff(1, 2, 3)
    assert AuditEvent.objects.filter(action="quota:price").count() == 3
    with pytest.raises(InvalidInput) as caught:
        price_set(actor=admin, deployment="", tariff=Tariff(prompt=-1, device_second=10**13))
    assert set(caught.value.fields) == {"prompt", "device_second"}


def test_money_is_whole_micro_units_and_what_has_a_price_never_costs_nothing() -> None:
    tariff = Tariff(prompt=150_000, completion=600_000, device_second=500)
    assert tariff.cost(prompt_tokens=1_000_000) == 150_000
    assert tariff.cost(prompt_tokens=10, completion_tokens=10) == 8  # 7.5, rounded up
    assert tariff.cost(device_ms=1) == 1  # 0.5, rounded up
    assert tariff.cost(prompt_tokens=10, completion_tokens=10, device_ms=1000) == 508
    assert tariff.cost() == 0
    most = Tariff(10**12, 10**12, 10**12)
    assert most.cost(prompt_tokens=2**31, completion_tokens=2**31) == 2**32 * 10**6


def test_a_unit_is_charged_by_its_own_price_and_tokens_by_theirs() -> None:
    tariff = Tariff(prompt=150_000, device_second=500, units={"images": 40_000, "points": 1})
    assert tariff.cost(unit="images", units=3) == 120_000
    assert tariff.cost(unit="images", units=3, device_ms=1) == 120_001  # 0.5, rounded up
    assert tariff.cost(unit="images", units=3, prompt_tokens=10**6) == 120_000
    assert tariff.cost(unit="audio_seconds", units=3) == 0
    assert tariff.cost(unit="tokens", units=9, prompt_tokens=1_000_000) == 150_000


@pytest.mark.parametrize(
    ("units", "field"),
    [({"tokens": 1}, "units.tokens"), ({"cheese": 1}, "units.cheese"),
     ({"images": -1}, "units.images"), ({"images": 10**13}, "units.images")],
)  # fmt: skip
def test_a_price_per_unit_is_of_a_known_unit_and_within_bounds(
    admin: Principal, units: dict[str, int], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        price_set(actor=admin, deployment="", tariff=Tariff(units=units))
    assert list(caught.value.fields) == [field]


def test_a_price_per_unit_is_kept_and_audited(admin: Principal) -> None:
    price_set(actor=admin, deployment="", tariff=Tariff(units={"images": 5, "points": 0}))
    assert tariff_for("painter", tariffs()) == Tariff(units={"images": 5})
    price_set(actor=admin, deployment="", tariff=None)
    event = AuditEvent.objects.filter(action="quota:price").latest("id")
    assert json.loads(event.canonical)["data"]["before"]["units"] == {"images": 5}


def test_every_unit_can_be_limited_per_minute_day_and_month() -> None:
    for unit in Unit:
        for window in ("minute", "day", "month"):
            kind = KINDS[f"{unit}_per_{window}"]
            assert (kind.unit, kind.window, kind.scale) == (unit, window, 1)
            assert kind.is_budget is (window != "minute")
            assert [other for other in Unit if kind.counts(other)] == [unit]
    assert all(KINDS["money_per_month"].counts(unit) for unit in Unit)
    assert max(map(len, KINDS)) <= 30  # As long as the column is.


def test_amounts_read_as_people_write_them() -> None:
    assert limit_words("audio_seconds_per_day", 1200, "EUR") == "1,200 audio seconds per day"
    assert amount_words("audio_seconds_per_day", 1, "EUR") == "1 s of audio"
    assert amount_words("images_per_minute", 12, "EUR") == "12 images"
    assert money_words(12_500_000, "EUR") == "12.50 EUR"
    assert money_words(420, "EUR") == "0.00042 EUR"
    assert money_words(-1_500_000, "EUR") == "-1.50 EUR"
    assert limit_words("money_per_month", 25_000_000_000, "EUR") == "25,000.00 EUR per month"
    assert limit_words("requests_per_minute", 1200, "EUR") == "1,200 requests per minute"
    assert amount_words("gpu_seconds_per_month", 3500, "EUR") == "3.5 s of device time"
    assert amount_words("tokens_per_day", 1200, "EUR") == "1,200 tokens"


def test_how_far_a_limit_is_used_is_told_in_its_own_unit(
    admin: Principal, clinical: Department, redis: Any
) -> None:
    quota_set(actor=admin, kind="gpu_seconds_per_month", limit=10, department=clinical)
    quota_set(actor=admin, kind="tokens_per_day", limit=0, department=clinical)
    month = f"{timezone.now():%Y-%m}"
    counter = f"assay:quota:month:{month}:department:clinical"
    redis.hset(counter, mapping={"device": 4001, "device_held": 1000, "device_reserved": 500})
    seconds, tokens = uses(quotas_visible_to(admin).order_by("id"))
    assert (seconds.used, seconds.reserved, seconds.remaining) == (5, 2, 4)
    assert (seconds.percent, seconds.used_percent) == (55, 40)
    assert seconds.used_words == "4 s of device time"
    assert (tokens.percent, tokens.remaining, tokens.full) == (100, 0, True)
    assert uses([]) == []
