"""A review's threads and the actor's drafts by place, as `reviews/anchor.html` shows them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.portal.reviewing.parts import Page
from governance.reviews.threads.mentions import mention_parts
from governance.reviews.threads.models import (
    Anchor,
    AnchorKind,
    ReviewThread,
    ThreadState,
)
from governance.reviews.threads.selectors import drafts_of, threads_of, voice_of
from registry.releases.anchors import WHOLE, places_of

COMMENTING = ("draft", "comment")


@dataclass
class Place:
    """One place on the page: its threads, the number of drafts, and the text being typed."""

    anchor: Anchor
    words: str
    threads: list[ReviewThread] = field(default_factory=list)
    drafts: int = 0
    typed: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """HTML ID for links within the page; a hash, because keys may contain any character."""
        text = f"{self.anchor.kind}/{self.anchor.key}"
        return f"at-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def open(self) -> int:
        """Return the number of open threads."""
        return sum(thread.state == ThreadState.OPEN for thread in self.threads)


class Places:
    """All places of the release by anchor."""

    def __init__(self, page: Page) -> None:
        self.names = places_of(page.release, page.review)
        self.threads: dict[Anchor, list[ReviewThread]] = defaultdict(list)
        self.drafted: dict[Anchor, int] = defaultdict(int)
        self.typed = typed_comment(page)

    def words(self, anchor: Anchor) -> str:
        """Return the name of a place, even if it no longer exists."""
        return self.names.get(anchor) or anchor.key or "The whole"

    def at(self, kind: str, key: object, label: str = "") -> Place | None:
        """Return the place; None if it does not exist and has no threads."""
        anchor = Anchor(str(kind), str(key))
        if anchor not in self.names and anchor not in self.threads:
            return None
        typed = self.typed if self.typed and typed_at(self.typed) == anchor else None
        return Place(
            anchor,
            label or self.words(anchor),
            self.threads.get(anchor, []),
            self.drafted.get(anchor, 0),
            typed,
        )


def typed_comment(page: Page) -> Mapping[str, Any] | None:
    """Return the text typed into a comment's form, to show it again."""
    posted = page.screen.request.POST
    return posted if posted.get("do") in COMMENTING and "kind" in posted else None


def typed_at(typed: Mapping[str, Any]) -> Anchor:
    """Return the place of a comment's form."""
    return Anchor(str(typed.get("kind", "")), str(typed.get("key", "")))


def threads(page: Page) -> dict[str, Any]:
    """Return threads, drafts and rights. The number of queries does not depend on their number."""
    voice = voice_of(page.actor, page.review)
    places = Places(page)
    rows = list(threads_of(page.review))
    for thread in rows:
        places.threads[thread.anchor].append(thread)
        _complete(thread, places, voice.resolving(thread))
    drafts = list(drafts_of(page.actor, page.review))
    for draft in drafts:
        places.drafted[draft.anchor] += 1
        _set_place(draft, places)
    return {
        "threads": rows,
        "drafts": drafts,
        "places": places,
        "whole": WHOLE,
        # The card and dossier tabs show one text; comments on its sections are listed below it.
        "sections": [(a, words) for a, words in places.names.items() if a.kind == page.tab],
        "may_comment": voice.obstacle is None,
        "why_no_comment": voice.obstacle.message if voice.obstacle else "",
        "blocks": voice.obstacle is None and voice.decides,
    }


def _complete(thread: Any, places: Places, obstacle: Exception | None) -> None:
    _set_place(thread, places)
    thread.why_not = str(obstacle) if obstacle else ""
    thread.entries = list(thread.comments.all())
    for entry in thread.entries:
        entry.parts = mention_parts(entry)
        entry.words = "".join(words or f"@{name}" for words, name in entry.parts)
    thread.first, thread.more = thread.entries[:1], thread.entries[1:]


def _set_place(item: Any, places: Places) -> None:
    """Set the words of an item's place, and true in `outdated` if the place no longer exists."""
    item.where = places.words(item.anchor)
    item.kind_words = AnchorKind(item.anchor_kind).label
    item.outdated = item.anchor not in places.names
