"""Search for actions by the words of the portal's sentences about them.

The log has only actions such as `role:grant`. The portal registers the phrases with which it shows
them, so that a search for "granted a role" finds these events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"\w+")
# Words ignored in a search, because they are in nearly every sentence.
_EMPTY = frozenset({"a", "an", "and", "by", "for", "in", "it", "its", "of", "the", "to", "with"})
# Minimum number of letters for the beginning of a word to match.
_PREFIX_MIN = 4
_phrases: dict[str, set[frozenset[str]]] = {}


def action_words_register(phrases: Mapping[str, str]) -> None:
    """Register the phrases of actions, such as `granted a role to {}`."""
    for action, phrase in phrases.items():
        _phrases.setdefault(action, set()).add(frozenset(_words(phrase)))


def actions_matching(text: str) -> tuple[str, ...]:
    """Return the actions with a phrase that contains all words of `text`; the last is a prefix."""
    words = _words(text)
    if not words:
        return ()
    *whole, last = words
    return tuple(
        sorted(
            action
            for action, phrases in _phrases.items()
            if any(_matches(phrase, whole, last) for phrase in phrases)
        )
    )


def _matches(phrase: frozenset[str], whole: Iterable[str], last: str) -> bool:
    if not phrase.issuperset(whole):
        return False
    return last in phrase or (
        len(last) >= _PREFIX_MIN and any(word.startswith(last) for word in phrase)
    )


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if word not in _EMPTY]
