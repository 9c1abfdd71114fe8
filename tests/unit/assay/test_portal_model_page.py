"""The page of a model: live versions, trend, use, lineage and reviews that a person may see."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.reviews.models import Review
from governance.usage.models import UsageRecord
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion
from tests.unit.assay.portal_data import Company, copied, sha
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from workers.deployments.models import Deployment

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
WRITER, BASE = "/models/docstring-writer", "/models/smollm2-135m"


def page(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    html = answer.content.decode()
    assert inline_in(html) == []
    return " ".join(html.split("<main")[1].split())


def card(html: str, title: str) -> str:
    """Return the card of that title; empty if the page has none."""
    cards = [each for each in html.split('<section class="card"') if f">{title}</h2>" in each]
    return cards[0] if cards else ""


def chart(html: str, name: str) -> Any:
    data = re.search(rf'<div id="{name}" hidden>(.*?)</div>', html)
    return json.loads(data[1]) if data else None


def used(deployment: str, digest: str) -> None:
    """Record a request of engineering to a version."""
    UsageRecord.objects.create(
        request_id=str(uuid.uuid4()), occurred_at=timezone.now(), department="engineering",
        key_public_id="k7f3a9q2", deployment=deployment, version_digest=digest,
        endpoint="/v1/chat/completions", outcome="ok",
    )  # fmt: skip


def test_the_page_shows_the_card_the_live_deployment_and_how_to_call_it(company: Company) -> None:
    html = page(signed_in(company.enzo), WRITER)
    # Version 1 is live: its card shows, though version 2 has one too.
    assert "Old card" in card(html, "Model card")
    assert "of v1, live" in card(html, "Model card")
    live = card(html, "Live")
    assert f"/deployments/{company.deployment.pk}" in live
    assert html.count('href="/playground?deployment=docstring-writer"') == 2
    for language in ("curl", "Python", "JavaScript"):
        assert f"<summary>{language}</summary>" in card(html, "API example")
    assert "&quot;model&quot;: &quot;docstring-writer&quot;" in card(html, "API example")
    # A viewer may not use it.
    viewer = page(signed_in(company.vera), WRITER)
    assert "Old card" in viewer
    assert "/playground?deployment" not in viewer


def test_without_a_live_version_the_newest_card_shows(company: Company) -> None:
    Deployment.objects.update(state="stopped")
    html = page(signed_in(company.enzo), WRITER)
    assert "Writes one-line docstrings" in card(html, "Model card")
    assert "No live deployment is visible to you" in card(html, "Live")
    assert card(html, "API example") == ""
    assert ">Live</span>" not in html


def test_the_card_names_people(company: Company) -> None:
    card_text = f"Accepted by person {company.milo.pk}."
    ModelVersion.objects.filter(pk=company.first.pk).update(card=card_text)
    html = page(signed_in(company.enzo), WRITER)
    assert f"Accepted by {company.milo.name}." in card(html, "Model card")


def test_the_trend_follows_one_metric_with_its_gates_and_live_versions(company: Company) -> None:
    client = signed_in(company.enzo)
    drawn = chart(page(client, f"{WRITER}?metric=chrf"), "trend-data")
    assert (drawn["labels"], drawn["marked"]) == (["v1 (live)", "v2"], [0])
    measured, gate = drawn["series"]
    assert (measured["name"], measured["data"]) == ("docstrings-test", [28.4, 31.2])
    assert (gate["name"], gate["data"]) == ("Gate ≥ 35 on docstrings-test", [35.0, 35.0])
    assert gate["color"] == measured["color"]
    tabs = page(client, WRITER)
    assert '<a href="?metric=perplexity#trend"' in tabs
    primary = chart(tabs, "trend-data")["series"][0]["data"]
    for odd in ("no-such", "%00", "x" * 999):
        assert (
            chart(page(client, f"{WRITER}?metric={odd}"), "trend-data")["series"][0]["data"]
            == primary
        )
    # Another dataset is another line; training data is none.
    first = Evaluation.objects.get(version=company.first)
    copied(first, dataset_version=company.train, job_id=uuid.uuid4(), metrics={"chrf": 50.0})
    assert len(chart(page(client, f"{WRITER}?metric=chrf"), "trend-data")["series"]) == 3
    Evaluation.objects.filter(dataset_version=company.train).update(on_training_data=True)
    assert len(chart(page(client, f"{WRITER}?metric=chrf"), "trend-data")["series"]) == 2
    # One version is no trend.
    Evaluation.objects.filter(version=company.second).delete()
    assert chart(page(client, WRITER), "trend-data") is None


def test_usage_counts_the_requests_to_versions_of_the_model(company: Company) -> None:
    client = signed_in(company.enzo)
    # The same name may have served another model.
    used("docstring-writer", sha("another model"))
    usage = card(page(client, WRITER), "Requests, last 14 days")
    assert "40 requests, 5 failed or canceled" in usage
    assert card(page(client, BASE), "Requests, last 14 days") == ""


def test_lineage_leads_to_bases_data_and_fine_tunes(company: Company) -> None:
    client = signed_in(company.enzo)
    lineage = card(page(client, WRITER), "Lineage")
    assert f'href="{BASE}"' in lineage
    assert 'href="/datasets/docstrings-train"' in lineage
    assert f'href="{WRITER}"' in card(page(client, BASE), "Lineage")


def test_reviews_name_the_verdicts_of_the_present_round(company: Company) -> None:
    reviews = card(page(signed_in(company.enzo), WRITER), "Reviews")
    assert f"/reviews/{company.review_open.pk}" in reviews
    assert f"/releases/{company.live.pk}" in reviews
    assert reviews.count("Carla Compliance: Approve") == 1
    assert "Request changes" not in reviews


def test_another_department_finds_no_page(company: Company) -> None:
    assert signed_in(company.fay).get(WRITER).status_code == 404
    assert signed_in(company.clara).get(f"{WRITER}?metric=chrf").status_code == 404


def test_a_shared_base_shows_nothing_else_of_its_owner(company: Company) -> None:
    """Another department may see the model, but not its owner's use, reviews, data and tests."""
    base = company.base
    release = copied(company.live, version=base, deployment_name="base-writer")
    review = Review.objects.get(pk=company.review_approved.pk)
    copied(review, subject_id=str(release.pk))
    copied(company.deployment, release=release, name="base-writer")
    used("base-writer", base.digest)
    ModelVersion.objects.filter(pk=base.pk).update(
        card="# Base card", dataset_version=company.held_out
    )
    more = copied(base, number=2, digest=sha("base-2"))
    for version in (base, more):
        evaluation = Evaluation.objects.get(version=company.first)
        copied(evaluation, version=version, job_id=uuid.uuid4())
    owner, other = page(signed_in(company.enzo), BASE), page(signed_in(company.fay), BASE)
    for html in (owner, other):
        assert "Base card" in html
    for title in ("Requests, last 14 days", "Reviews", "Lineage", "API example"):
        assert card(owner, title) != ""
        assert card(other, title) == ""
    assert chart(owner, "trend-data") is not None
    assert chart(other, "trend-data") is None
    for name in ("base-writer", "docstring", "Carla", "/playground?"):
        assert name not in other
    # A reviewer sees the reviews, but no usage.
    reviewer = page(signed_in(company.carla), BASE)
    assert card(reviewer, "Reviews") != ""
    assert card(reviewer, "Requests, last 14 days") == ""


def test_the_page_costs_as_many_queries_for_many_of_everything(company: Company) -> None:
    client = signed_in(company.enzo)
    client.get(WRITER)
    few = queries(client, WRITER)
    for number in range(6):
        digest = sha(f"more {number}")
        version = copied(company.second, number=number + 10, digest=digest, job_id=None)
        release = copied(company.live, version=version, deployment_name=f"more-{number}")
        release.departments.set(company.departments.values())
        copied(Review.objects.get(pk=company.review_open.pk), subject_id=str(release.pk))
        copied(company.deployment, release=release, name=f"more-{number}")
        model = copied(company.writer, name=f"child-{number}")
        copied(company.second, model=model, digest=digest, base=version, job_id=None)
        used(f"more-{number}", digest)
    html = page(client, WRITER)
    assert card(html, "Lineage").count("/models/child-") == 6
    assert card(html, "Live").count("/deployments/") == 7
    assert queries(client, WRITER) == few
    assert few - SCOPE == 24
