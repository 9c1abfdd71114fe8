"""Threads and one's own drafts, each at its place; what `reviews/anchor.html` shows there."""

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
    """One place as the page shows it: what was said there, and what may be."""

    anchor: Anchor
    words: str
    threads: list[ReviewThread] = field(default_factory=list)
    drafts: int = 0
    typed: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """For addresses within the page: keys may hold anything."""
        text = f"{self.anchor.kind}/{self.anchor.key}"
        return f"at-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def open(self) -> int:
        """Return the number of open threads."""
        return sum(thread.state == ThreadState.OPEN for thread in self.threads)


class Places:
    """Every place of the release, by what it is called."""

    def __init__(self, page: Page) -> None:
        self.known = places_of(page.release, page.review)
        self.said: dict[Anchor, list[ReviewThread]] = defaultdict(list)
        self.drafted: dict[Anchor, int] = defaultdict(int)
        self.typed = typed_comment(page)

    def words(self, anchor: Anchor) -> str:
        """Name of a place, also of one that is gone."""
        return self.known.get(anchor) or anchor.key or "The whole"

    def at(self, kind: str, key: object, label: str = "") -> Place | None:
        """The place, or None where there is none and nothing was said."""
        anchor = Anchor(str(kind), str(key))
        if anchor not in self.known and anchor not in self.said:
            return None
        typed = self.typed if self.typed and typed_at(self.typed) == anchor else None
        return Place(
            anchor,
            label or self.words(anchor),
            self.said.get(anchor, []),
            self.drafted.get(anchor, 0),
            typed,
        )


def typed_comment(page: Page) -> Mapping[str, Any] | None:
    """Return the text typed into a comment's form, to show it again."""
    posted = page.screen.request.POST
    return posted if posted.get("do") in COMMENTING and "kind" in posted else None


def typed_at(typed: Mapping[str, Any]) -> Anchor:
    """The place that a comment's form is at."""
    return Anchor(str(typed.get("kind", "")), str(typed.get("key", "")))


def threads(page: Page) -> dict[str, Any]:
    """Return threads, drafts and rights. The number of queries does not depend on their number."""
    voice = voice_of(page.actor, page.review)
    places = Places(page)
    found = list(threads_of(page.review))
    for thread in found:
        places.said[thread.anchor].append(thread)
        _complete(thread, places, voice.resolving(thread))
    drafts = list(drafts_of(page.actor, page.review))
    for draft in drafts:
        places.drafted[draft.anchor] += 1
        _placed(draft, places)
    return {
        "threads": found,
        "drafts": drafts,
        "places": places,
        "whole": WHOLE,
        # The tabs of the card and of the dossier show a text as one; its sections stand below it.
        "sections": [(a, words) for a, words in places.known.items() if a.kind == page.tab],
        "may_comment": voice.obstacle is None,
        "why_no_comment": voice.obstacle.message if voice.obstacle else "",
        "blocks": voice.obstacle is None and voice.decides,
    }


def _complete(thread: Any, places: Places, obstacle: Exception | None) -> None:
    _placed(thread, places)
    thread.why_not = str(obstacle) if obstacle else ""
    thread.entries = list(thread.comments.all())
    for entry in thread.entries:
        entry.parts = mention_parts(entry)
        entry.words = "".join(words or f"@{name}" for words, name in entry.parts)
    thread.first, thread.more = thread.entries[:1], thread.entries[1:]


def _placed(said: Any, places: Places) -> None:
    """Set the place in words, and the mark that it still exists."""
    said.where = places.words(said.anchor)
    said.kind_words = AnchorKind(said.anchor_kind).label
    said.outdated = said.anchor not in places.known
