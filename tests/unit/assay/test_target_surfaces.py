"""Targets of a deployment by API and portal."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.people.models import Person, RoleAssignment
from governance.usage.models import ShadowTotal
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_portal_pages import inline_in, signed_in
from tests.unit.assay.test_review_comparison import words
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_routing import changed, deployed, serving, used
from workers.deployments.models import Deployment
from workers.routing.canary import canaries_judge

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def developer() -> Person:
    company.developer()
    return Person.objects.get(email="dev-clinical@example.org")


def person_in(name: str, role: str, where: str) -> Person:
    made = Person.objects.create(name=name, email=f"{name}@example.org")
    RoleAssignment.objects.create(person=made, role=role, department=company.department(where))
    return made


def body(*targets: dict[str, Any], revision: int = 0) -> dict[str, Any]:
    return {"targets": list(targets), "revision": revision, "reason": "Try it"}


def test_the_api_changes_lists_and_switches_targets() -> None:
    primary, new = deployed(), release(adapter(b"new"))
    api, path = Api(developer()), f"deployments/{primary.pk}/targets"
    canary = {"release": new.pk, "role": "canary", "weight": 20}
    answer = api.put(path, body(canary))
    assert answer.status_code == 200, answer.content
    assert answer.body["targets_revision"] == 1
    target = Deployment.objects.get(target_of=primary)
    used("docs", new.pk, "ok", 3)
    used("docs", new.pk, "failed", 1)
    rows = api.get(path).body
    assert [(row["deployment"], row["role"], row["share"]) for row in rows] == [
        (primary.pk, "primary", 80),
        (target.pk, "canary", 20),
    ]
    assert api.get(f"deployments/{target.pk}").body["target_of"] == primary.pk
    problem_of(api.put(path, body(canary)), 409, "targets_changed")
    switch = {"target": target.pk, "revision": 1, "reason": "It is better"}
    problem_of(api.post(f"deployments/{primary.pk}/switch", switch), 409)
    serving(target)
    switched = api.post(f"deployments/{primary.pk}/switch", switch)
    assert (switched.status_code, switched.body["id"]) == (200, target.pk)
    assert (switched.body["role"], switched.body["target_of"]) == ("", None)


def test_the_api_refuses_what_no_schema_permits() -> None:
    primary, new = deployed(), release(adapter(b"new"))
    api, path = Api(developer()), f"deployments/{primary.pk}/targets"
    problem_of(api.put(path, body({"release": new.pk, "role": "boss"})), 400)
    problem_of(api.put(path, body({"release": new.pk, "role": "fallback", "weight": 5})), 422)
    problem_of(api.put(path, body(*[{"release": n, "role": "serve"} for n in range(1, 10)])), 400)
    assert not Deployment.objects.filter(target_of=primary).exists()


def test_other_departments_find_nothing_and_viewers_change_nothing() -> None:
    primary = deployed()
    path = f"deployments/{primary.pk}/targets"
    outsider = Api(person_in("Fay", "developer", "finance"))
    switch = {"target": 1, "revision": 0, "reason": "x"}
    assert outsider.get(path).status_code == 404
    assert outsider.put(path, body()).status_code == 404
    assert outsider.post(f"deployments/{primary.pk}/switch", switch).status_code == 404
    viewer = Api(person_in("Vera", "viewer", "clinical"))
    assert viewer.get(path).status_code == 200
    assert viewer.put(path, body()).status_code == 403
    assert viewer.post(f"deployments/{primary.pk}/switch", switch).status_code == 403


def test_the_portal_adds_changes_switches_and_removes_a_target() -> None:
    primary, new = deployed(), release(adapter(b"new"))
    client, page = signed_in(developer()), f"/deployments/{primary.pk}/targets"
    html = client.get(page).content.decode()
    assert inline_in(html) == []
    assert f'value="{new.pk}"' in html
    assert '<details class="mb-3">' in html
    form = {
        "release": new.pk,
        "role": "serve",
        "weight": 30,
        "departments": "clinical",
        "reason": "Try it",
        "revision": 0,
    }
    assert client.post(f"{page}/save", form).status_code == 302
    target = Deployment.objects.get(target_of=primary)
    assert (target.weight, target.routing_conditions) == (30, {"departments": ["clinical"]})
    shown = words(client.get(page).content.decode())
    assert "from clinical" in shown
    present = client.get(f"{page}?release={new.pk}").content.decode()
    assert f'value="{new.pk}" selected' in present
    assert '<details class="mb-3" open>' in present
    stale = client.post(f"{page}/save", form)
    assert stale.status_code == 409
    assert "have changed since revision 0" in stale.content.decode()
    serving(target)
    switch = {"target": target.pk, "revision": 1, "reason": "It is better"}
    answer = client.post(f"{page}/switch", switch)
    assert answer.headers["Location"] == f"/deployments/{target.pk}/targets"
    page = f"/deployments/{target.pk}/targets"
    remove = {"release": primary.release_id, "revision": 2, "reason": "Done"}
    assert client.post(f"{page}/remove", remove).status_code == 302
    primary.refresh_from_db()
    assert primary.state == "stopped"


def test_the_portal_shows_what_is_wrong_with_a_target() -> None:
    primary, new = deployed(), release(adapter(b"new"))
    client, page = signed_in(developer()), f"/deployments/{primary.pk}/targets"
    wrong = {"release": new.pk, "role": "shadow", "weight": 5, "reason": "x", "revision": 0}
    answer = client.post(f"{page}/save", wrong)
    assert answer.status_code == 409
    assert "was not approved as a shadow" in answer.content.decode()
    assert client.post(f"{page}/save", {**wrong, "weight": 500}).status_code == 400
    assert not Deployment.objects.filter(target_of=primary).exists()


def test_viewers_see_targets_and_no_form() -> None:
    primary = deployed()
    viewer = signed_in(person_in("Vera", "viewer", "clinical"))
    html = viewer.get(f"/deployments/{primary.pk}/targets").content.decode()
    assert "Save target" not in html
    assert f"/deployments/{primary.pk}/targets" in html


def test_the_page_costs_the_same_number_of_queries_for_one_target_and_for_many() -> None:
    primary = deployed()
    client, page = signed_in(developer()), f"/deployments/{primary.pk}/targets"
    client.get(page)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(page).status_code == 200
        return len(captured)

    releases = [release(adapter(f"new {number}".encode())).pk for number in range(7)]
    changed(primary, {"release": releases[0], "role": "fallback"})
    queries()
    few = queries()
    targets = [{"release": pk, "role": "fallback"} for pk in releases[:5]]
    changed(primary, *targets, revision=1)
    assert queries() == few


def test_page_and_api_show_what_a_shadow_and_a_canary_did() -> None:
    primary = deployed()
    shadow = release(adapter(b"shadow"), conditions={"shadow_only": True})
    canary = release(adapter(b"canary"))
    changed(
        primary,
        {"release": shadow.pk, "role": "shadow", "weight": 5},
        {"release": canary.pk, "role": "canary", "weight": 5},
    )
    used("docs", primary.release_id, "ok", 40)
    used("docs", canary.pk, "failed", 40)
    Deployment.objects.update(routed_at=timezone.now() - timedelta(hours=1))
    assert canaries_judge() == 1
    now = timezone.now()
    ShadowTotal.objects.create(
        deployment="docs",
        department="clinical",
        release=shadow.pk,
        against=primary.release_id,
        unit="tokens",
        copies=4,
        answered=4,
        compared=4,
        measure="chrF",
        agreement=3.0,
        first_at=now,
        last_at=now,
    )
    rows = Api(developer()).get(f"deployments/{primary.pk}/targets").body
    (compared,) = rows[1]["shadow"]
    assert (compared["against"], compared["agreement"]) == (primary.release_id, 0.75)
    assert [row["shadow"] for row in (rows[0], rows[2])] == [[], []]
    assert rows[2]["verdict"]["decided_by"] == "Fisher's exact test of the error rate"
    answer = signed_in(developer()).get(f"/deployments/{primary.pk}/targets")
    page = unescape(words(answer.content.decode()))
    for part in (
        "75.0% (chrF, 4 answers)",
        "Decided by Fisher's exact test of the error rate",
        "Error rate 40 of 40 (100.0%) 0 of 40 (0.0%) Fisher's exact test: worse",
        "Negative feedback none none none yet; each side needs 20 answers with feedback",
    ):
        assert part in page
