"""Remove characters that a model reads but people cannot see. Does not load Django.

People read a document before they publish it. Characters that a screen does not show, or shows in a
different order, are removed first.
"""

from __future__ import annotations

import re

# Controls (except line ends and tabs), soft hyphens, blank fillers, direction marks and overrides,
# word joiners, tags, and variation selectors other than those of emoji.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Single joiners between two non-ASCII characters shape letters of other scripts, and emoji.
_JOINERS = re.compile(
    "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
)
_RUNS = re.compile("([\u200c\u200d\ufe00-\ufe0f])[\u200c\u200d\ufe00-\ufe0f]+")
_EMOJI = re.compile("\ufe0f\u200d")


def visible(text: str) -> str:
    """Return the text without invisible characters; separators become line ends."""
    text = text.replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = _JOINERS.sub("", _UNSEEN.sub("", text))
    return _RUNS.sub(lambda run: "\ufe0f\u200d" if _EMOJI.match(run[0]) else run[1], text)


def visible_line(text: str) -> str:
    """Return a name as one line without invisible characters."""
    return visible(" ".join(text.split()))
