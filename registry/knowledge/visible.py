"""Characters that a model reads and a reader does not see. Knows no Django.

Whoever publishes a document has read its text. What a screen does not show, or shows in another
order than it is stored, is taken out of it first.
"""

from __future__ import annotations

import re

# Controls (lines and tabs aside), soft hyphens, fillers that are blank, marks and overrides of
# direction, joiners of words, tags, and selectors of variants beyond those of emoji.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Joiners shape letters of other scripts than Latin, and emoji, and stand alone between two.
_JOINERS = re.compile(
    "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
)
_RUNS = re.compile("([\u200c\u200d\ufe00-\ufe0f])[\u200c\u200d\ufe00-\ufe0f]+")
_EMOJI = re.compile("\ufe0f\u200d")


def visible(text: str) -> str:
    """Return the text without what is not seen. A line or paragraph separator is a line's end."""
    text = text.replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = _JOINERS.sub("", _UNSEEN.sub("", text))
    return _RUNS.sub(lambda run: "\ufe0f\u200d" if _EMOJI.match(run[0]) else run[1], text)


def visible_line(text: str) -> str:
    """Return a name of one line without what is not seen."""
    return visible(" ".join(text.split()))
