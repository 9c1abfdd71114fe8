"""Threads of a review, in the format of an evidence pack."""

from __future__ import annotations

from typing import Any

from governance.audit.models import AuditEvent
from governance.reviews.models import Review
from governance.reviews.threads.models import ReviewThread, ThreadComment
from governance.reviews.threads.selectors import threads_of
from registry.releases.evidence_documents import REASON_LOGGED, Names, contradicted
from registry.releases.evidence_events import Record


def threads_document(review: Review, record: Record, names: Names) -> list[dict[str, Any]]:
    """Threads with every entry, each with the position of its event in the log.

    Raises:
        WrongState: the rows say something else than the log.
    """
    said = {
        body["data"]["entry"]: (event, body)
        for event, body in record.about("review", review.pk)
        if "thread" in body["data"]
    }
    threads = threads_of(review)
    if said.keys() != {entry.pk for thread in threads for entry in thread.comments.all()}:
        raise contradicted(review)
    return [
        {
            "id": thread.pk,
            "anchor": {"kind": thread.anchor_kind, "key": thread.anchor_key},
            "blocking": thread.blocking,
            "state": thread.state,
            "digest": thread.digest,
            "round": thread.round,
            "entries": [
                _entry(thread, entry, said[entry.pk], names) for entry in thread.comments.all()
            ],
        }
        for thread in threads
    ]


def _entry(
    thread: ReviewThread,
    entry: ThreadComment,
    said: tuple[AuditEvent, dict[str, Any]],
    names: Names,
) -> dict[str, Any]:
    event, body = said
    facts = ("thread", "blocking", "digest", "round")
    kept = (str(entry.person_id), thread.pk, thread.blocking, entry.digest, entry.round)
    if kept != (body["actor_id"], *(body["data"].get(name) for name in facts)):
        raise contradicted(thread.review)
    # As of decisions: the log holds the beginning of long words, and none whose box is closed now.
    logged: str = body["reason"]
    cut = len(logged) == REASON_LOGGED and entry.text.startswith(logged[:-1])
    return {
        "event": event.sequence or 0,
        "said": entry.said,
        "person": names.of(entry.person_id),
        "text": entry.text if cut else logged,
        "digest": entry.digest,
        "round": entry.round,
        "at": body["occurred_at"],
    }
