"""Comments at places of a release, and what an evidence pack says of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection

from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.reviews.models import Review
from governance.reviews.threads.models import Anchor, ReviewThread
from governance.reviews.threads.services import thread_reopen, thread_reply, thread_resolve
from registry.releases.anchors import WHOLE, metric_key, places_of
from registry.releases.models import Release
from registry.releases.threads import (
    release_draft_add,
    release_review_get,
    release_thread_open,
)
from tests.proofs import proven
from tests.unit.registry.evidence_world import (  # noqa: F401
    faults,
    files,
    files_of,
    forged,
    office,
    packed,
)
from tests.unit.registry.office import Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def test_a_comment_is_at_a_place_that_is_in_the_dossier(office: Office) -> None:  # noqa: F811
    release, reviewer = office.submit(), principal_for_person(office.risk)
    review = release_review_get(actor=reviewer, release_id=release.pk)
    release.dossier["card"] = "# Title\nWords.\n## Intended use\n"
    release.save()
    places = places_of(release, review)
    assert places[Anchor("card", "intended-use")] == "Intended use"
    assert places[WHOLE] == "The whole"
    assert {place.kind for place in places} >= {"general", "item", "file", "answer", "dossier"}
    for evaluation in release.dossier["evaluations"]:
        for name in evaluation["metrics"]:
            assert Anchor("metric", metric_key(evaluation["id"], name)) in places
    for place in places:
        entry = release_thread_open(
            actor=reviewer, release_id=release.pk, text="Why?", anchor=place
        )
        assert entry.thread.anchor == place
    for place in (Anchor("file", "no.such"), Anchor("item", "x"), Anchor("place", "x")):
        for call in (release_thread_open, release_draft_add):
            with pytest.raises(InvalidInput, match="to comment on"):
                call(actor=reviewer, release_id=release.pk, text="Why?", anchor=place)


def test_a_draft_is_at_a_place_or_in_a_thread(office: Office) -> None:  # noqa: F811
    release, reviewer = office.submit(), principal_for_person(office.risk)
    thread = release_thread_open(actor=reviewer, release_id=release.pk, text="Why?").thread
    answer = release_draft_add(
        actor=reviewer, release_id=release.pk, text="Because.", thread_id=thread.pk
    )
    assert (answer.thread_id, answer.anchor) == (thread.pk, WHOLE)
    item = release_draft_add(
        actor=reviewer, release_id=release.pk, text="Who?", anchor=Anchor("item", "oversight")
    )
    assert item.anchor.key == "oversight"


def test_who_may_not_see_the_release_learns_of_no_place_in_it(
    office: Office,  # noqa: F811
    person: Any,
) -> None:
    release = office.submit()
    outsider = principal_for_person(person("Olga", "lead@otherwise"))
    for place in (WHOLE, Anchor("file", "no.such")):
        with pytest.raises(NotFound):
            release_thread_open(actor=outsider, release_id=release.pk, text="?", anchor=place)


def discussed(office: Office) -> Release:  # noqa: F811
    """Approved after a thread that blocked was answered and resolved; long words in another."""
    release = office.submit()
    on: dict[str, Any] = {"release_id": release.pk}
    risk, submitter = proven(office.risk), principal_for_person(office.submitter)
    thread = release_thread_open(actor=risk, text="Who?", anchor=Anchor("item", "oversight"), **on)
    review = release_review_get(actor=risk, release_id=release.pk)
    at = {"review_id": review.pk, "thread_id": thread.thread_id}
    thread_reply(actor=submitter, text="The head of the pharmacy.", **at)
    thread_resolve(actor=risk, text="Good.", **at)
    thread_reopen(actor=risk, **at)
    thread_resolve(actor=risk, **at)
    release_thread_open(actor=risk, text="long " * 700, blocking=False, **on)
    release_draft_add(actor=risk, text="Seen the samples.", **on)
    return office.approve(release)


def threads_in(told: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told["reviews"][0]["threads"]
    return found


def test_a_pack_holds_what_was_said_and_verifies(office: Office) -> None:  # noqa: F811
    release = discussed(office)
    content = files_of(packed(office, release))
    assert faults(content) == {}
    threads = threads_in(json.loads(content["decisions.json"]))
    assert [entry["said"] for entry in threads[0]["entries"]] == [
        "comment", "comment", "resolve", "reopen", "resolve",
    ]  # fmt: skip
    assert threads[0]["anchor"] == {"kind": "item", "key": "oversight"}
    assert (threads[0]["state"], threads[0]["blocking"]) == ("resolved", True)
    assert len(threads[1]["entries"][0]["text"]) == len("long " * 700) - 1
    assert threads[2]["entries"][0]["text"] == "Seen the samples."

    def say(name: str, value: Any) -> Any:
        return lambda told: threads_in(told)[0]["entries"][0].update({name: value})

    for name, value in (
        ("text", "Nothing."),
        ("said", "resolve"),
        ("round", 2),
        ("digest", "b" * 64),
        ("at", "2020-01-01T00:00:00+00:00"),
        ("event", 0),
        ("person", {"id": 1, "name": "Somebody"}),
    ):
        assert list(faults(forged(content, decisions=say(name, value)))) == ["Threads"], name
    for name, value in (("state", "open"), ("blocking", False), ("anchor", {})):
        change = {name: value}
        made = forged(content, decisions=lambda told, c=change: threads_in(told)[0].update(c))
        assert list(faults(made)) == ["Threads"], name
    gone = forged(content, decisions=lambda told: threads_in(told).clear())
    assert "7 entries of threads in the log" in faults(gone)["Threads"]


def test_a_pack_is_not_made_of_threads_that_the_log_does_not_hold(
    office: Office,  # noqa: F811
) -> None:
    release = office.submit()
    reviewer: Person = office.risk
    release_thread_open(
        actor=principal_for_person(reviewer), release_id=release.pk, text="Why?", blocking=False
    )
    review = Review.objects.get(subject_id=str(release.pk))
    ReviewThread.objects.create(
        review=review, anchor_kind="general", digest=review.digest, round=1, opened_by=reviewer
    ).comments.create(person=reviewer, text="Never said.", digest=review.digest, round=1)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    with pytest.raises(WrongState, match="not those in the audit log"):
        packed(office, release)


def test_a_verifier_sees_an_approval_that_passed_an_open_thread(
    office: Office,  # noqa: F811
) -> None:
    release = office.submit()
    risk = principal_for_person(office.risk)
    thread = release_thread_open(actor=risk, release_id=release.pk, text="Who?").thread
    table = "governance_reviewthread"
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        rows = ReviewThread.objects.filter(pk=thread.pk)
        rows.update(state="resolved", resolved_by=office.risk, resolved_at=thread.opened_at)
        office.approve(release)
        rows.update(state="open", resolved_by=None, resolved_at=None)
    found = faults(files_of(packed(office, release)))
    assert found == {"Approval": "1 threads that block were open when it was approved"}
