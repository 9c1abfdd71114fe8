"""Actions by the words that people see of them; the portal says which, in its sentences.

The log knows only actions such as `role:grant`. Whoever shows events as sentences registers these
here, so that a search for "granted a role" finds what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"\w+")
# Stand in nearly every sentence, and so tell nothing.
_EMPTY = frozenset({"a", "an", "and", "by", "for", "in", "it", "its", "of", "the", "to", "with"})
# Letters of a word that is only begun.
_BEGUN = 4
_known: dict[str, set[frozenset[str]]] = {}


def action_words_register(phrases: Mapping[str, str]) -> None:
    """Make actions known by their phrases, such as `granted a role to {}`."""
    for action, phrase in phrases.items():
        _known.setdefault(action, set()).add(frozenset(_words(phrase)))


def actions_said(text: str) -> tuple[str, ...]:
    """Return the actions with a phrase that holds every word of `text`; the last may be begun."""
    words = _words(text)
    if not words:
        return ()
    *whole, begun = words
    return tuple(
        sorted(
            action
            for action, phrases in _known.items()
            if any(_says(phrase, whole, begun) for phrase in phrases)
        )
    )


def _says(phrase: frozenset[str], whole: Iterable[str], begun: str) -> bool:
    if not phrase.issuperset(whole):
        return False
    return begun in phrase or (
        len(begun) >= _BEGUN and any(word.startswith(begun) for word in phrase)
    )


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if word not in _EMPTY]
