"""Comments on the review page: at their places, drafted, submitted, answered, resolved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.people.models import Person
from governance.reviews.models import ChecklistItem, Decision, Review
from governance.reviews.threads.models import CommentDraft, ReviewThread, ThreadComment
from registry.releases.models import Release
from tests import proofs
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

# Further fields of a measurement in the dossier.
MEASURED = {
    "dataset": "d",
    "dataset_version": 1,
    "dataset_digest": "d" * 64,
    "digest": "d" * 64,
    "sample_size": 400,
    "rows": 400,
    "baseline": {},
    "baseline_name": "",
    "started_at": "2026-01-01T00:00:00+00:00",
    "started_by": "person 1",
    "rows_in_training_data": 0,
    "gates": [],
}


@pytest.fixture
def page(company: Company) -> str:
    return f"/reviews/{company.review_open.pk}"


def signed_in(person: Person) -> Client:
    return proofs.signed_in(Client(), person)


def say(client: Client, page: str, **form: Any) -> Any:
    asked = {"kind": "item", "key": "oversight", "text": "Who oversees it?", "do": "comment"}
    return client.post(f"{page}/comments", asked | form)


def shown(client: Client, page: str) -> str:
    response = client.get(page)
    assert response.status_code == 200
    html = response.content.decode()
    assert inline_in(html) == []
    return " ".join(html.split())


def test_a_comment_is_said_at_its_place_and_stands_in_the_conversation(
    company: Company, page: str
) -> None:
    carla = signed_in(company.carla)
    response = say(carla, page, tab="evidence")
    thread = ReviewThread.objects.get()
    assert response.status_code == 302
    assert response["Location"] == f"{page}?tab=evidence#thread-{thread.pk}"
    html = shown(carla, page)
    assert f'id="thread-{thread.pk}"' in html
    assert "Who oversees it?" in html
    assert f'<a href="#thread-{thread.pk}">' in html
    assert "Human oversight is named" in html


def test_sections_of_card_and_dossier_and_metrics_files_and_answers_are_places(
    company: Company, page: str
) -> None:
    measured = company.second.evaluations.get()
    kept = {
        **company.waiting.dossier,
        "card": "# Use\n",
        "risk": {"answers": company.waiting.risk_answers},
        "evaluations": [{"id": measured.pk, "metrics": measured.metrics, **MEASURED}],
        "identity": {"files": company.second.manifest["files"]},
    }
    Release.objects.filter(pk=company.waiting.pk).update(dossier=kept)
    carla = signed_in(company.carla)
    for tab, places in (
        ("card", ["Use"]),
        ("dossier", ["policy version", "identity"]),
        ("changed", ["adapter_model.safetensors", "Intended purpose", "chrF"]),
    ):
        html = shown(carla, f"{page}?tab={tab}")
        for words in places:
            assert f"Comment on {words}</label>" in html, (tab, words)


def test_a_reviewer_says_whether_it_blocks_and_others_are_not_asked(
    company: Company, page: str
) -> None:
    carla, enzo = signed_in(company.carla), signed_in(company.enzo)
    assert "Must be resolved before approval" in shown(carla, page)
    assert "Must be resolved before approval" not in shown(enzo, page)
    say(carla, page, may_block="yes", blocking="yes")
    say(enzo, page)
    assert [each.blocking for each in ReviewThread.objects.order_by("pk")] == [True, False]
    html = shown(carla, page)
    assert ">1 open thread</a>" in html
    assert "Blocks approval" in html


def test_a_disabled_approval_says_which_thread_is_in_its_way(company: Company, page: str) -> None:
    ChecklistItem.objects.filter(review=company.review_open).update(state="satisfied")
    carla = signed_in(company.carla)
    say(carla, page, may_block="yes", blocking="yes")
    thread = ReviewThread.objects.get()
    html = shown(carla, page)
    approve = re.search(r'<input[^>]*id="verdict-approve"[^>]*>', html)
    assert approve is not None
    assert "disabled" in approve[0]
    link = f'<a href="#thread-{thread.pk}">Thread {thread.pk} is not resolved</a>'
    assert link in html
    carla.post(f"{page}/threads/{thread.pk}", {"do": "resolve", "text": "Seen."})
    approve = re.search(r'<input[^>]*id="verdict-approve"[^>]*>', shown(carla, page))
    assert approve is not None
    assert "disabled" not in approve[0]


def test_drafts_are_counted_on_the_button_and_go_with_the_decision(
    company: Company, page: str
) -> None:
    carla, milo = signed_in(company.carla), signed_in(company.milo)
    response = say(carla, page, do="draft")
    assert response["Location"].startswith(f"{page}#at-")
    html = shown(carla, page)
    assert "Finish review (1 draft)" in html
    assert "Submit with 1 draft" in html
    assert "Who oversees it?" not in shown(milo, page)
    decision = {
        "verdict": "request_changes",
        "reason": "See there.",
        "digest": company.review_open.digest,
        "specialty": "compliance",
    }
    carla.post(f"{page}/decide", {**decision, "verdict": "comment", "keep_drafts": "yes"})
    assert CommentDraft.objects.count() == 1
    assert carla.post(f"{page}/decide", decision).status_code == 302
    assert not CommentDraft.objects.exists()
    entry = ThreadComment.objects.get()
    assert entry.decision == Decision.objects.latest("pk")
    assert "Who oversees it?" in shown(milo, page)


def test_a_draft_is_changed_and_discarded_and_another_persons_does_not_exist(
    company: Company, page: str
) -> None:
    carla, milo = signed_in(company.carla), signed_in(company.milo)
    say(carla, page, do="draft", may_block="yes", blocking="yes")
    draft = CommentDraft.objects.get()
    at = f"{page}/drafts/{draft.pk}"
    carla.post(at, {"do": "save", "text": "Rather this.", "may_block": "yes"})
    draft.refresh_from_db()
    assert (draft.text, draft.blocking) == ("Rather this.", False)
    for do in ("save", "discard"):
        assert milo.post(at, {"do": do, "text": "Mine."}).status_code == 404
    assert carla.post(at, {"do": "discard"}).status_code == 302
    assert not CommentDraft.objects.exists()


def test_a_draft_whose_place_is_gone_is_shown_as_outdated(company: Company, page: str) -> None:
    carla = signed_in(company.carla)
    Release.objects.filter(pk=company.waiting.pk).update(
        dossier={**company.waiting.dossier, "risk": {"answers": {"notes": "n"}}}
    )
    say(carla, page, kind="answer", key="notes", do="draft")
    Release.objects.filter(pk=company.waiting.pk).update(dossier=company.waiting.dossier)
    assert "Outdated: its place no longer exists" in shown(carla, page)


def test_the_department_answers_and_is_told_why_it_does_not_resolve(
    company: Company, page: str
) -> None:
    carla, enzo = signed_in(company.carla), signed_in(company.enzo)
    say(carla, page)
    thread = ReviewThread.objects.get()
    at = f"{page}/threads/{thread.pk}"
    assert enzo.post(at, {"do": "comment", "text": "The tech lead."}).status_code == 302
    html = shown(enzo, page)
    assert "Resolving: Enzo Engineering did not begin thread" in html
    refused = enzo.post(at, {"do": "resolve"})
    assert refused.status_code == 403
    assert "did not begin thread" in refused.content.decode()
    assert carla.post(at, {"do": "resolve"}).status_code == 302
    assert "Resolved" in shown(enzo, page)
    assert carla.post(at, {"do": "reopen", "text": "Not yet."}).status_code == 302
    assert carla.post(at, {"do": "draft", "text": "And who else?"}).status_code == 302
    assert CommentDraft.objects.get().thread == thread
    assert [each.said for each in thread.comments.all()] == [
        "comment", "comment", "resolve", "reopen",
    ]  # fmt: skip


def test_what_was_typed_is_kept_when_it_is_refused(company: Company, page: str) -> None:
    carla = signed_in(company.carla)
    words = "x" * 4001
    refused = say(carla, page, text=words)
    assert refused.status_code == 400
    html = refused.content.decode()
    assert f">{words}</textarea>" in html
    assert re.search(r'<details class="anchor" id="at-\w+" open>', html)
    for form in ({"do": ""}, {"kind": "place"}, {"key": "no-such"}):
        assert say(carla, page, **form).status_code == 400
    assert carla.post(f"{page}/threads/999999999", {"do": "resolve"}).status_code == 404
    assert carla.post(f"{page}/drafts/999999999", {"do": "else"}).status_code == 400
    assert not ReviewThread.objects.exists()


def test_on_an_earlier_dossier_is_said_of_thread_and_entry(company: Company, page: str) -> None:
    carla = signed_in(company.carla)
    say(carla, page)
    Review.objects.filter(pk=company.review_open.pk).update(digest="f" * 64, round=3)
    html = shown(carla, page)
    assert "On an earlier dossier, of round 2" in html
    assert "· on an earlier dossier" in html


def test_a_closed_review_shows_its_threads_and_takes_no_more(company: Company) -> None:
    review = company.review_approved
    Review.objects.filter(pk=review.pk).update(state="open")
    page = f"/reviews/{review.pk}"
    say(signed_in(company.carla), page, may_block="yes")
    Review.objects.filter(pk=review.pk).update(state="approved")
    html = shown(signed_in(company.carla), page)
    assert "Who oversees it?" in html
    assert "Comment now" not in html
    assert "Finish review" not in html


def test_another_department_finds_no_review_to_comment_on(company: Company, page: str) -> None:
    fay = signed_in(company.fay)
    assert say(fay, page).status_code == 404
    assert fay.post(f"{page}/threads/1", {"do": "resolve"}).status_code == 404


def test_the_page_asks_as_much_for_many_threads_as_for_one(company: Company, page: str) -> None:
    carla, enzo = signed_in(company.carla), signed_in(company.enzo)

    def some() -> None:
        say(carla, page)
        thread = ReviewThread.objects.latest("pk")
        enzo.post(f"{page}/threads/{thread.pk}", {"do": "comment", "text": "Me."})
        carla.post(f"{page}/threads/{thread.pk}", {"do": "resolve"})
        say(carla, page, do="draft")

    def counted() -> int:
        with CaptureQueriesContext(connection) as captured:
            shown(carla, page)
        return len(captured)

    some()
    # The first page shows pending messages; without them the pages can be compared.
    shown(carla, page)
    one = counted()
    for _ in range(4):
        some()
    shown(carla, page)
    assert counted() == one


def test_every_key_that_the_page_names_is_one_that_the_script_knows(
    company: Company, page: str
) -> None:
    html = shown(signed_in(company.carla), page)
    named = set(re.findall(r"<kbd>(.)</kbd>", html))
    script = Path("platform/assay/portal/static/assay.js").read_text(encoding="utf-8")
    table = script[script.index("const KEYS = {") :]
    known = set(re.findall(r'^  "?([a-z?])"?: ', table[: table.index("\n};")], re.MULTILINE))
    known |= set(re.findall(r"^  ([a-z]): ?[a-z]+,", table[: table.index("\n};")], re.MULTILINE))
    assert named == known


def test_a_release_without_gates_says_so_at_the_top(company: Company, page: str) -> None:
    release = Release.objects.get(pk=company.review_open.subject_id)
    text = signed_in(company.milo).get(page).content.decode()
    assert ("This release has no gates." in text) is not release.gated
    gate = {"metric": "accuracy", "comparator": ">=", "threshold": 0.8, "value": 0.9}
    release.dossier["evaluations"] = [MEASURED | {"id": 1, "metrics": {}, "gates": [gate]}]
    Release.objects.filter(pk=release.pk).update(dossier=release.dossier)
    assert "This release has no gates." not in signed_in(company.milo).get(page).content.decode()
    release.dossier["evaluations"][0]["gates"] = []
    Release.objects.filter(pk=release.pk).update(dossier=release.dossier)
    assert "This release has no gates." in signed_in(company.milo).get(page).content.decode()


def test_a_check_that_does_not_apply_is_not_shown_as_passed(company: Company, page: str) -> None:
    ChecklistItem.objects.filter(review=company.review_open, code="license").update(
        state="not_applicable", note="No gate is set on this model."
    )
    text = signed_in(company.milo).get(page).content.decode()
    item = text[text.index("License recorded") :]
    assert "Not applicable</span>" in item[:300]
    assert "No gate is set on this model." in item


def test_a_mention_shows_the_name_and_is_a_task_until_the_review_is_opened(
    company: Company, page: str
) -> None:
    carla, enzo = signed_in(company.carla), signed_in(company.enzo)
    say(carla, page, text="<b>@enzo</b>, see this.")
    assert "mentioned you" in enzo.get("/tasks").content.decode()
    html = shown(enzo, page)
    assert f'&lt;b&gt;<span class="mention">@{company.enzo.name}</span>&lt;/b&gt;, see' in html
    assert "mentioned you" not in enzo.get("/tasks").content.decode()


def test_the_box_completes_names_of_people_who_may_be_mentioned_and_no_others(
    company: Company, page: str
) -> None:
    def offered(person: Person, typed: str) -> list[str]:
        response = signed_in(person).get(f"{page}/people", {"q": typed})
        assert response.status_code == 200
        assert response["Cache-Control"] == "no-store"
        return [each["handle"] for each in response.json()["people"]]

    assert offered(company.carla, "enz") == ["enzo"]
    # Fay is of finance: she sees nothing of the review, and its people learn nothing of her.
    assert offered(company.ada, "fay") == []
    assert offered(company.enzo, "asha") == []
    # Carla has spoken in the review: her name is known, and her address is not.
    assert offered(company.enzo, "carl") == [f"person-{company.carla.pk}"]
    assert signed_in(company.fay).get(f"{page}/people", {"q": "enz"}).status_code == 404
    assert Client().get(f"{page}/people").status_code == 302
