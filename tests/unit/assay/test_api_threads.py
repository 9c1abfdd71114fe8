"""Threads and drafts through the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from governance.people.models import Person
from governance.reviews.models import ChecklistItem
from governance.reviews.threads.models import CommentDraft, ReviewThread
from registry.releases.models import Release
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
ITEM = {"kind": "item", "key": "oversight"}


@pytest.fixture
def base(company: Company) -> str:
    """Address of the release under review."""
    return f"releases/{company.waiting.pk}"


def caller(person: Person) -> Api:
    return Api(person)


def test_a_thread_is_begun_answered_resolved_and_reopened(company: Company, base: str) -> None:
    reviewer, lead = caller(company.carla), caller(company.enzo)
    begun = reviewer.post(f"{base}/threads", {"text": "Who oversees it?", "anchor": ITEM})
    assert begun.status_code == 201, begun.content
    thread = begun.body
    assert (thread["anchor"], thread["blocking"], thread["state"]) == (ITEM, True, "open")
    assert thread["digest"] == company.waiting.dossier_digest
    at = f"{base}/threads/{thread['id']}"
    answered = lead.post(f"{at}/comments", {"text": "The tech lead."})
    assert answered.status_code == 201
    assert "did not begin thread" in answered.body["why_not"]
    problem_of(lead.post(f"{at}/resolve"), 403, "reviewers_only")
    resolved = caller(company.milo).post(f"{at}/resolve", {"text": "Good."})
    assert resolved.status_code == 200, resolved.content
    assert (resolved.body["state"], resolved.body["why_not"]) == ("resolved", "")
    assert resolved.body["resolved_by"]["name"] == "Milo Model-Risk"
    problem_of(reviewer.post(f"{at}/resolve"), 409)
    assert reviewer.post(f"{at}/reopen").body["state"] == "open"
    found = lead.get(at).body
    assert [(each["said"], each["text"]) for each in found["entries"]] == [
        ("comment", "Who oversees it?"),
        ("comment", "The tech lead."),
        ("resolve", "Good."),
        ("reopen", ""),
    ]
    listed = reviewer.get(f"{base}/threads", state="open").body["results"]
    assert [each["id"] for each in listed] == [thread["id"]]
    assert reviewer.get(f"{base}/threads", state="resolved").body["results"] == []


def test_an_open_thread_that_blocks_is_in_the_standing_and_why_not(
    company: Company, base: str
) -> None:
    ChecklistItem.objects.filter(review=company.review_open).update(state="satisfied")
    reviewer = caller(company.carla)
    thread = reviewer.post(f"{base}/threads", {"text": "Why?"}).body
    review = reviewer.get(base).body["review"]
    assert review["standing"]["unresolved"] == [thread["id"]]
    assert f"thread {thread['id']} is not resolved" in review["why_not"]["approve"]
    body = {"verdict": "approve", "reason": "r", "digest": company.waiting.dossier_digest}
    problem_of(reviewer.post(f"{base}/decisions", body), 409, "threads_unresolved")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"text": ""}, 400),
        ({"text": "x" * 4001}, 400),
        ({"text": "x", "anchor": {"kind": "place", "key": "x"}}, 400),
        ({"text": "x", "anchor": {"kind": "item", "key": "no-such"}}, 400),
        ({"text": "x", "anchor": {"kind": "general", "key": "x"}}, 400),
        ({"text": "x", "anchor": "item"}, 400),
        ({"text": "x", "blocking": "yes"}, 400),
        ({"text": "x", "opened_by": 1}, 400),
    ],
)
def test_what_is_no_comment_is_refused(
    company: Company, base: str, body: dict[str, Any], status: int
) -> None:
    for place in ("threads", "drafts"):
        problem_of(caller(company.carla).post(f"{base}/{place}", body), status)
    assert not ReviewThread.objects.exists()
    assert not CommentDraft.objects.exists()


def test_drafts_are_submitted_with_a_decision(company: Company, base: str) -> None:
    reviewer = caller(company.carla)
    made = reviewer.post(f"{base}/drafts", {"text": "Who?", "anchor": ITEM})
    assert made.status_code == 201, made.content
    assert (made.body["outdated"], made.body["blocking"]) == (False, True)
    at = f"{base}/drafts/{made.body['id']}"
    changed = reviewer.patch(at, {"text": "Who oversees it?", "blocking": False})
    assert (changed.body["text"], changed.body["blocking"]) == ("Who oversees it?", False)
    other = reviewer.post(f"{base}/drafts", {"text": "Never mind."}).body
    assert reviewer.delete(f"{base}/drafts/{other['id']}").status_code == 204
    decision = {
        "verdict": "comment",
        "reason": "Two questions.",
        "digest": company.waiting.dossier_digest,
    }
    kept = reviewer.post(f"{base}/decisions", {**decision, "submit_drafts": False})
    assert kept.status_code == 201
    assert len(reviewer.get(f"{base}/drafts").body["results"]) == 1
    reviewer.post(f"{base}/decisions", decision)
    assert reviewer.get(f"{base}/drafts").body["results"] == []
    (thread,) = reviewer.get(f"{base}/threads").body["results"]
    (entry,) = thread["entries"]
    last = reviewer.get(f"{base}/decisions").body[-1]
    assert (entry["text"], entry["decision"]) == ("Who oversees it?", last["id"])


def test_a_draft_of_somebody_else_does_not_exist(company: Company, base: str) -> None:
    mine = caller(company.carla).post(f"{base}/drafts", {"text": "Between us."}).body
    other = caller(company.milo)
    at = f"{base}/drafts/{mine['id']}"
    assert other.get(f"{base}/drafts").body["results"] == []
    problem_of(other.patch(at, {"text": "Mine."}), 404)
    problem_of(other.delete(at), 404)
    assert b"Between us." not in other.get(base).content
    assert CommentDraft.objects.get().text == "Between us."


def test_a_draft_whose_place_is_gone_is_outdated_and_still_its_authors(
    company: Company, base: str
) -> None:
    reviewer = caller(company.carla)
    release = Release.objects.get(pk=company.waiting.pk)
    release.dossier = {**release.dossier, "risk": {"answers": {"notes": "n"}}}
    release.save()
    answer = {"kind": "answer", "key": "notes"}
    made = reviewer.post(f"{base}/drafts", {"text": "Which?", "anchor": answer}).body
    release.dossier = {**release.dossier, "risk": {"answers": {}}}
    release.save()
    (found,) = reviewer.get(f"{base}/drafts").body["results"]
    assert found["outdated"]
    assert reviewer.delete(f"{base}/drafts/{made['id']}").status_code == 204


def test_another_departments_threads_and_drafts_do_not_exist(company: Company, base: str) -> None:
    thread = caller(company.carla).post(f"{base}/threads", {"text": "Who?"}).body
    outsider = caller(company.fay)
    for path in (f"{base}/threads", f"{base}/threads/{thread['id']}", f"{base}/drafts"):
        problem_of(outsider.get(path), 404)
    for path in ("threads", "drafts", f"threads/{thread['id']}/comments"):
        problem_of(outsider.post(f"{base}/{path}", {"text": "Psst."}), 404)
    problem_of(outsider.post(f"{base}/threads/{thread['id']}/resolve"), 404)


def test_a_list_costs_as_much_for_many_threads_as_for_one(company: Company, base: str) -> None:
    reviewer = caller(company.carla)

    def counted(path: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert reviewer.get(path).status_code == 200
        return len(captured)

    def say() -> None:
        thread = reviewer.post(f"{base}/threads", {"text": "Why?"}).body
        at = f"{base}/threads/{thread['id']}"
        caller(company.milo).post(f"{at}/comments", {"text": "Because."})
        reviewer.post(f"{at}/resolve")
        reviewer.post(f"{base}/drafts", {"text": "Later."})

    say()
    one = {path: counted(f"{base}/{path}") for path in ("threads", "drafts")}
    assert one == {"threads": 17, "drafts": 17}
    for _ in range(4):
        say()
    assert {path: counted(f"{base}/{path}") for path in one} == one
    assert len(reviewer.get(f"{base}/threads").body["results"]) == 5
