"""A recall by API, portal and command line: the list first, then the action."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from governance.usage.models import UsageRecord
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in
from workers.deployments.models import Deployment
from workers.deployments.services import deployments_stop_unservable

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def recall_page(company: Company) -> str:
    return f"/versions/{company.base.pk}/recall"


def listed(html: str) -> str:
    return html.split('name="list" value="')[1].split('"')[0]


def test_the_api_shows_everything_below_and_who_is_struck(company: Company) -> None:

    found = Api(company.ada).get(f"versions/{company.base.pk}/recall").body

    assert [each["name"] for each in found["versions"]] == [
        "smollm2-135m v1",
        "docstring-writer v1",
        "docstring-writer v2",
    ]
    assert {each["id"]: each["state"] for each in found["releases"]} == {
        company.live.pk: "approved",
        company.waiting.pk: "in_review",
    }
    assert [each["name"] for each in found["deployments"]] == ["docstring-writer"]
    assert (found["versions_total"], found["releases_total"], found["deployments_total"]) == (
        3,
        2,
        1,
    )
    assert [each["department"] for each in found["traffic"]] == ["engineering"]
    assert found["traffic"][0]["requests"] == 40


def test_traffic_of_other_versions_and_of_long_ago_is_not_counted(company: Company) -> None:
    UsageRecord.objects.create(
        request_id="req_other", occurred_at=timezone.now(), department="finance",
        key_public_id="k", deployment="docstring-writer", version_digest="0" * 64,
        endpoint="/v1/chat/completions", outcome="ok",
    )  # fmt: skip
    UsageRecord.objects.create(
        request_id="req_old", occurred_at=timezone.now() - timedelta(days=40),
        department="clinical", key_public_id="k", deployment="docstring-writer",
        version_digest=company.first.digest, endpoint="/v1/chat/completions", outcome="ok",
    )  # fmt: skip
    found = Api(company.ada).get(f"versions/{company.base.pk}/recall").body
    assert [each["department"] for each in found["traffic"]] == ["engineering"]


def test_the_api_recalls_what_was_confirmed_and_what_serves_stops(company: Company) -> None:
    api, path = Api(company.milo), f"versions/{company.base.pk}/recall"
    digest = api.get(path).body["digest"]
    problem_of(api.post(path, {"reason": "Unsafe.", "confirm": "0" * 64}), 409, "lineage_changed")

    answer = api.post(path, {"reason": "Unsafe.", "confirm": digest})

    assert answer.status_code == 200
    assert {name: answer.body[name] for name in ("versions", "releases", "reviews")} == {
        "versions": 3,
        "releases": 2,
        "reviews": 1,
    }
    assert deployments_stop_unservable() == 1
    assert Deployment.objects.get().state == "stopped"
    problem_of(api.post(path, {"reason": "Again.", "confirm": digest}), 409, "wrong_state")
    problem_of(api.post("deployments", {"release": company.live.pk}), 403)
    assert (
        "is recalled"
        in Api(company.enzo).post("deployments", {"release": company.live.pk}).body["detail"]
    )


@pytest.mark.parametrize(
    ("who", "status"), [("fay", 404), ("clara", 403), ("enzo", 403), ("carla", 403), ("asha", 403)]
)
def test_others_are_refused_by_api(company: Company, who: str, status: int) -> None:
    # The base is shared, so that clinical knows of it; the adapter is engineering's own.
    version = company.second if who == "fay" else company.base
    api, path = Api(company.people[who]), f"versions/{version.pk}/recall"
    assert api.get(path).status_code == status
    assert api.post(path, {"reason": "No.", "confirm": "0" * 64}).status_code == status
    assert not ModelVersion.objects.filter(state="recalled").exists()


@pytest.mark.parametrize(
    "body", [{}, {"reason": "x"}, {"confirm": "x"}, {"reason": "", "confirm": "x"}]
)
def test_an_incomplete_body_is_refused(company: Company, body: dict[str, str]) -> None:
    path = f"versions/{company.base.pk}/recall"
    problem_of(Api(company.ada).post(path, body), 400)


def test_the_portal_asks_for_a_second_factor_before_it_recalls(company: Company) -> None:
    client = Client()
    client.force_login(company.ada)
    page = client.get(recall_page(company))
    given = {
        "reason": "It leaks.",
        "list": listed(page.content.decode()),
        "confirm": "smollm2-135m v1",
    }
    refused = client.post(recall_page(company), given)
    assert refused.status_code == 403
    assert "Verify your identity" in refused.content.decode()
    assert not ModelVersion.objects.filter(state="recalled").exists()


def test_the_portal_shows_the_list_and_recalls_by_typed_name(company: Company) -> None:
    client = signed_in(company.ada)
    html = client.get(recall_page(company)).content.decode()
    assert inline_in(html) == []
    assert "docstring-writer v2" in html
    assert "Recall 3 versions" in html
    given = {"reason": "It leaks.", "list": listed(html)}

    wrong = client.post(recall_page(company), {**given, "confirm": "smollm2-135m"})
    assert wrong.status_code == 400
    assert "nothing was recalled" in wrong.content.decode()
    assert not ModelVersion.objects.filter(state="recalled").exists()

    done = client.post(recall_page(company), {**given, "confirm": "smollm2-135m v1"})
    assert done.headers["Location"] == f"/versions/{company.base.pk}"
    assert ModelVersion.objects.filter(state="recalled").count() == 3


def test_the_portal_shows_the_new_list_when_it_has_changed(company: Company) -> None:
    client = signed_in(company.ada)
    old = listed(client.get(recall_page(company)).content.decode())
    Release.objects.filter(pk=company.waiting.pk).update(state="withdrawn")

    given = {"reason": "It leaks.", "confirm": "smollm2-135m v1", "list": old}
    response = client.post(recall_page(company), given)

    html = response.content.decode()
    assert response.status_code == 409
    assert "no longer the list that was confirmed" in html
    assert "stays withdrawn" in html
    assert "It leaks." in html
    assert listed(html) != old
    assert not ModelVersion.objects.filter(state="recalled").exists()
    given["list"] = listed(html)
    assert client.post(recall_page(company), given).status_code == 302


def test_every_page_of_what_is_recalled_says_so(company: Company) -> None:
    digest = Api(company.ada).get(f"versions/{company.base.pk}/recall").body["digest"]
    body = {"reason": "Poisoned at the source.", "confirm": digest}
    assert Api(company.ada).post(f"versions/{company.base.pk}/recall", body).status_code == 200

    client = signed_in(company.enzo)
    for page in (
        f"/versions/{company.second.pk}",
        f"/releases/{company.live.pk}",
        f"/reviews/{company.review_open.pk}",
        f"/deployments/{company.deployment.pk}",
    ):
        html = client.get(page).content.decode()
        assert "Poisoned at the source." in html, page
        assert inline_in(html) == []
    assert "smollm2-135m v1" in client.get(f"/versions/{company.second.pk}").content.decode()
    assert (
        "Recall…"
        not in signed_in(company.ada).get(f"/versions/{company.second.pk}").content.decode()
    )
    shown = signed_in(company.ada).get(recall_page(company))
    assert shown.status_code == 200
    assert "Recall permanently" not in shown.content.decode()


@pytest.mark.parametrize(
    ("who", "offered"), [("ada", True), ("milo", True), ("carla", False), ("enzo", False)]
)
def test_only_those_who_may_are_offered_a_recall(company: Company, who: str, offered: bool) -> None:
    html = signed_in(company.people[who]).get(f"/versions/{company.base.pk}").content.decode()
    assert ("Recall…" in html) is offered


@pytest.mark.parametrize(("who", "status"), [("enzo", 403), ("carla", 403), ("fay", 404)])
def test_others_are_refused_by_the_portal(company: Company, who: str, status: int) -> None:
    client = signed_in(company.people[who])
    page = f"/versions/{company.second.pk}/recall"
    given = {"reason": "No.", "confirm": "docstring-writer v2", "list": "0" * 64}
    assert client.get(page).status_code == status
    assert client.post(page, given).status_code == status
    assert not ModelVersion.objects.filter(state="recalled").exists()


def test_the_list_costs_the_same_number_of_queries_for_few_and_for_many(company: Company) -> None:
    client = signed_in(company.ada)
    queries(client, recall_page(company))
    few = queries(client, recall_page(company))
    for number in range(3, 15):
        version = ModelVersion.objects.create(
            model=company.writer, number=number, kind="adapter", base=company.base,
            digest=f"{number:064d}", manifest={"files": []}, size_bytes=1, created_by=company.enzo,
        )  # fmt: skip
        release = Release.objects.create(
            version=version, department=company.departments["engineering"],
            environment="staging", deployment_name=f"writer-{number}", purpose="More.",
            dossier={}, dossier_digest="0" * 64, submitted_by=company.enzo, state="approved",
            approved_at=timezone.now(), expires_at=timezone.now() + timedelta(days=9),
        )  # fmt: skip
        release.departments.add(company.departments["finance"])
        Deployment.objects.create(
            name=f"writer-{number}", release=release, created_by=company.enzo,
            department=company.departments["engineering"], state="serving",
        )  # fmt: skip
    assert queries(client, recall_page(company)) == few
