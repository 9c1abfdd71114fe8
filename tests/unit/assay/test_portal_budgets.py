"""The budget pages: what they show to whom, and what their forms do."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.portal.budgets import usage_chart
from governance.keys.models import ApiKey
from governance.keys.services import key_rotate
from governance.quotas.alerts import alerts_raise
from governance.quotas.kinds import KINDS
from governance.quotas.models import Price, QuotaLimit
from governance.quotas.wire import READY_KEY
from governance.usage.models import UsageRecord
from governance.usage.selectors import UsageSum
from tests.proofs import proven
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import EVERYONE, inline_in, signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
PAGES = ("/budgets", "/budgets/which", "/budgets?days=7&by=key&of=cost", "/budgets?of=device")


@pytest.fixture
def company(company: Company, redis: Any) -> Company:
    redis.set(READY_KEY, 1)
    return company


@pytest.fixture
def limits(company: Company, redis: Any) -> list[QuotaLimit]:
    """On each kind of subject; the department's is used to 85 per cent."""
    engineering = company.departments["engineering"]
    made = [
        QuotaLimit.objects.create(kind="money_per_month", limit=25_000_000),
        QuotaLimit.objects.create(kind="tokens_per_day", limit=100, department=engineering),
        QuotaLimit.objects.create(kind="requests_per_minute", limit=60, api_key=company.key),
        QuotaLimit.objects.create(
            kind="gpu_seconds_per_month", limit=60, deployment="docstring-writer", shadow=True
        ),
    ]
    today = f"assay:quota:day:{timezone.now():%Y-%m-%d}:department:engineering"
    redis.hset(today, mapping={"tokens": 85, "tokens_reserved": 5})
    return made


def page(client: Client, address: str, status: int = 200) -> str:
    response = client.get(address)
    assert response.status_code == status, address
    html = response.content.decode()
    assert inline_in(html) == [], address
    return " ".join(html.split())


@pytest.mark.parametrize("who", EVERYONE)
def test_every_page_renders_for_every_role(
    company: Company, limits: list[QuotaLimit], who: str
) -> None:
    client = signed_in(company.people[who])
    for address in PAGES:
        page(client, address)


def test_bars_say_what_is_used_and_reserved_and_a_banner_what_is_running_out(
    company: Company, limits: list[QuotaLimit]
) -> None:
    alerts_raise()
    html = page(signed_in(company.enzo), "/budgets")
    assert "85% used, 5% reserved" in html
    assert "90% · 85 tokens used · 5 tokens reserved" in html
    assert "has used 80% or more of its tokens per day" in html
    assert "25.00 EUR" not in html  # The organization's are for those who see the organization.
    everything = page(signed_in(company.ada), "/budgets")
    for words in ("The organization", "25.00 EUR per month", "Shadow", "Deployment docstring"):
        assert words in everything
    for address in ("/", "/usage"):
        assert "has used 80%" in page(signed_in(company.enzo), address)
        assert "has used 80%" not in page(signed_in(company.fay), address)


def test_a_department_has_its_own_list(company: Company, limits: list[QuotaLimit]) -> None:
    client = signed_in(company.ada)
    html = page(client, "/budgets?department=engineering")
    for words in ("100 tokens per day", "60 requests per minute"):
        assert words in html
    assert "25.00 EUR per month" not in html
    assert "No quotas" in page(client, "/budgets?department=finance")
    for nonsense in ("%00", "x' OR 1=1", "<b>", "a" * 41):
        assert "25.00 EUR per month" in page(client, f"/budgets?department={nonsense}")


def test_the_usage_page_tells_cost_and_device_time_and_jobs_beside_requests(
    company: Company,
) -> None:
    UsageRecord.objects.create(
        request_id="job_1", occurred_at=timezone.now(), department="engineering",
        endpoint="jobs/fine_tune", outcome="ok", device_ms=90_500, cost_micro=1_250_000,
    )  # fmt: skip
    html = page(signed_in(company.enzo), "/usage?by=deployment")
    for words in ('<th scope="row">Jobs</th>', "90.5 s", "1.25", "Cost in EUR"):
        assert words in html


def test_other_units_have_a_chart_and_a_column_of_their_own_where_they_are_used(
    company: Company,
) -> None:
    client = signed_in(company.enzo)
    html = page(client, "/usage")
    assert "Tokens per day" in html
    for words in ("Other units", "Images per day", "of=images"):
        assert words not in html + page(client, "/budgets")
    for unit, metered in (("images", 12), ("audio_seconds", 1)):
        UsageRecord.objects.create(
            request_id=unit, occurred_at=timezone.now(), department="engineering", outcome="ok",
            endpoint="/v1/x", deployment="painter", unit=unit, metered=metered,
        )  # fmt: skip
    html = page(client, "/usage")
    for words in (
        "Images per day",
        "Audio seconds per day",
        "12 images, 1 s of audio",
        "Other units",
    ):
        assert words in html
    html = page(client, "/budgets?of=images")
    for words in ("Images per day, by department", "of=audio_seconds"):
        assert words in html


def test_a_price_per_unit_is_set_shown_and_kept_by_the_form(company: Company) -> None:
    client = signed_in(company.ada)
    Price.objects.create(units={"images": 40_000})
    assert "0.04 per image" in page(client, "/budgets")
    form = page(client, "/budgets/prices?deployment=")
    assert "Per audio second" in form
    assert form.count('type="number"') == form.count('class="form-control"') == 8
    assert 'value="0.04"' in form
    answer = client.post(
        "/budgets/prices", {"deployment": "", "images": "0.05", "characters": "0.000002"}
    )
    assert answer.status_code == 302
    assert Price.objects.get().units == {"images": 50_000, "characters": 2}


def test_the_usage_table_is_of_the_same_days_as_the_figures_above_it(company: Company) -> None:
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    for name, moment in (("first", timedelta(0)), ("too-early", timedelta(microseconds=1))):
        UsageRecord.objects.create(
            request_id=name, occurred_at=midnight - timedelta(days=6) - moment, outcome="ok",
            department="engineering", endpoint="/v1/x", deployment=name, prompt_tokens=1,
        )  # fmt: skip
    html = page(signed_in(company.enzo), "/usage?days=7")
    assert ">first<" in html
    assert ">too-early<" not in html


def test_while_the_store_is_away_the_page_says_so(
    company: Company, limits: list[QuotaLimit], settings: Any
) -> None:
    settings.REDIS_URL = "unix:///nowhere.sock"
    assert "counter store does not respond" in page(signed_in(company.enzo), "/budgets")
    assert "counter store does not respond" in page(
        signed_in(company.enzo), f"/budgets/limits/{limits[1].pk}"
    )


def test_a_lead_asks_which_limit_stops_a_key(
    company: Company, limits: list[QuotaLimit], redis: Any
) -> None:
    address = f"/budgets/which?key={company.key.pk}&deployment=docstring-writer"
    html = page(signed_in(company.enzo), address)
    assert "No quota stops editor plug-in now" in html
    for words in ("25.00 EUR per month", "100 tokens per day", "60 requests per minute"):
        assert words in html
    month = f"{timezone.now():%Y-%m}"
    redis.hset(f"assay:quota:month:{month}:organization", "money", 25_000_000)
    assert "<strong>The organization</strong> is used up" in page(signed_in(company.enzo), address)
    page(signed_in(company.clara), address, 400)
    page(signed_in(company.enzo), "/budgets/which?key=x", 400)


def test_an_admin_sets_a_limit_in_peoples_units(company: Company) -> None:
    client = signed_in(company.ada)
    page(client, "/budgets/limits")
    for subject, kind, amount, expected in (
        ("organization", "money_per_month", "12.5", 12_500_000),
        ("department:engineering", "gpu_seconds_per_month", "90", 90),
        (f"key:{company.key.pk}", "tokens_per_day", "5", 5),
        ("deployment:docstring-writer", "requests_per_minute", "7", 7),
    ):
        body = {"subject": subject, "kind": kind, "amount": amount, "shadow": "on"}
        assert client.post("/budgets/limits", body).status_code == 302
        row = QuotaLimit.objects.latest("id")
        assert (row.kind, row.limit, row.shadow) == (kind, expected, True)
    assert {row.subject.partition(":")[0] for row in QuotaLimit.objects.all()} == {
        "organization", "department", "key", "deployment",
    }  # fmt: skip


def test_a_key_whose_first_secret_is_gone_is_still_limited_and_asked_about(
    company: Company,
) -> None:
    client, first = signed_in(company.ada), company.key
    second, _ = key_rotate(actor=proven(company.ada), key_id=first.pk, overlap=timedelta(0))
    body = {"subject": f"key:{second.pk}", "kind": "tokens_per_day", "amount": "5"}
    assert client.post("/budgets/limits", body).status_code == 302
    assert QuotaLimit.objects.get().api_key == first
    assert "5 tokens per day" in page(client, f"/budgets/which?key={second.pk}")


def test_keys_that_succeed_one_another_are_offered_once(company: Company) -> None:
    second, _ = key_rotate(actor=proven(company.ada), key_id=company.key.pk)
    html = page(signed_in(company.ada), "/budgets/which")
    assert f'value="{second.pk}"' in html
    assert f'value="{company.key.pk}"' not in html


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "-1"},
        {"amount": "1.5"},
        {"amount": "NaN"},
        {"amount": "1e99"},
        {"amount": ""},
        {"kind": "cheese"},
        {"subject": "department:nowhere"},
        {"subject": "organization:x"},
        {"subject": ""},
    ],
)
def test_nonsense_is_refused_and_the_form_comes_back(
    company: Company, wrong: dict[str, str]
) -> None:
    body = {"subject": "organization", "kind": "tokens_per_day", "amount": "5", **wrong}
    response = signed_in(company.ada).post("/budgets/limits", body)
    assert response.status_code == 400
    assert 'role="alert"' in response.content.decode()
    assert not QuotaLimit.objects.exists()


def test_a_limit_is_changed_and_taken_away_on_its_page(
    company: Company, limits: list[QuotaLimit]
) -> None:
    client = signed_in(company.ada)
    for row in limits:
        html = page(client, f"/budgets/limits/{row.pk}")
        assert "Remove quota" in html
    money, tokens = (f"/budgets/limits/{row.pk}" for row in limits[:2])
    assert 'value="25"' in page(client, money)
    assert client.post(money, {"amount": "30.25"}).status_code == 302
    limits[0].refresh_from_db()
    assert limits[0].limit == 30_250_000
    assert client.post(tokens, {"amount": "1.5"}).status_code == 400
    assert client.post(tokens, {"take-away": "yes"}).status_code == 302
    assert client.get(tokens).status_code == 404


def test_a_lead_sees_a_limit_and_changes_none(company: Company, limits: list[QuotaLimit]) -> None:
    client = signed_in(company.enzo)
    address = f"/budgets/limits/{limits[1].pk}"
    assert "Remove quota" not in page(client, address)
    assert client.post(address, {"amount": "5"}).status_code == 403
    assert client.post("/budgets/limits", {}).status_code == 404
    page(client, "/budgets/limits", 404)
    assert client.get(f"/budgets/limits/{limits[0].pk}").status_code == 404
    assert client.get("/budgets/prices").status_code in {403, 404}
    stranger = signed_in(company.fay)
    assert stranger.get(address).status_code == 404
    assert stranger.post(address, {"amount": "5"}).status_code == 404
    limits[1].refresh_from_db()
    assert limits[1].limit == 100


def test_a_price_is_set_shown_and_taken_away(company: Company) -> None:
    client = signed_in(company.ada)
    body = {"deployment": "docstring-writer", "prompt": "0.15", "completion": "0.6"}
    assert client.post("/budgets/prices", body).status_code == 302
    assert client.post("/budgets/prices", {"device_second": "0.000833"}).status_code == 302
    price = Price.objects.get(deployment="docstring-writer")
    assert (price.prompt, price.completion, price.device_second) == (150_000, 600_000, 0)
    html = page(client, "/budgets")
    assert "0.15" in html
    assert "0.000833" in html
    assert 'value="0.15"' in page(client, "/budgets/prices?deployment=docstring-writer")
    assert client.post("/budgets/prices", {"prompt": "-1"}).status_code == 400
    body = {"deployment": "docstring-writer", "take-away": "yes"}
    assert client.post("/budgets/prices", body).status_code == 302
    assert Price.objects.count() == 1


def test_a_page_costs_the_same_number_of_queries_for_one_limit_and_for_many(
    company: Company, limits: list[QuotaLimit]
) -> None:
    client = signed_in(company.ada)
    addresses = ("/budgets", f"/budgets/which?key={company.key.pk}")
    for address in addresses:
        client.get(address)

    def queries() -> list[int]:
        found = []
        for address in addresses:
            with CaptureQueriesContext(connection) as captured:
                assert client.get(address).status_code == 200
            found.append(len(captured))
        return found

    few = queries()
    for number in range(12):
        key = ApiKey.objects.get(pk=company.key.pk)
        key.pk, key.public_id = None, f"more{number:04d}"
        key.save()
        for kind in list(KINDS)[:3]:
            QuotaLimit.objects.create(kind=kind, limit=number, api_key=key)
    assert queries() == few


def test_the_chart_draws_the_three_largest_and_everything_else() -> None:
    day = date(2026, 11, 25)

    def use(name: str | None, tokens: int) -> UsageSum:
        return UsageSum(day, name, 1, 0, tokens, 0, {"tokens": tokens}, 0, 0)

    rows = [use("a", 5), use("b", 4), use("c", 3), use("d", 2), use("", 9), use(None, 1)]
    chart = usage_chart(rows, first=day, days=2, by="deployment", measure="tokens")
    assert [(series["name"], series["data"]) for series in chart["series"]] == [
        ("jobs", [9, 0]),
        ("a", [5, 0]),
        ("b", [4, 0]),
        ("everything else", [6, 0]),
    ]
    assert chart["labels"] == ["25 Nov", "26 Nov"]
