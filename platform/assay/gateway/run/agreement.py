"""Compare a shadow's answer with the one that the client got, and keep one number.

Texts are compared by chrF, and labels and spans by equality. Both answers are in memory until both
have ended, and are stored nowhere.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from governance.usage.records import Compared, UsageEntry
from registry.catalog.declaration import Modality
from workers.wire import Delta, Done

# Characters of each text that are compared; chrF of so many takes about 4 ms.
TEXT_MAX = 4000
CHRF, EXACT = "chrF", "exact match"


@dataclass(slots=True)
class AnswerText:
    """Beginning of the first choice of an answer."""

    text: str = ""

    def add(self, event: Delta) -> None:
        if event.index == 0 and len(self.text) < TEXT_MAX:
            self.text = (self.text + event.text)[:TEXT_MAX]


@dataclass(frozen=True, slots=True)
class Ended:
    """The ledger's entry of an answer, and its content; None if it failed."""

    entry: UsageEntry
    content: Any


@dataclass(slots=True)
class Original:
    """A copied request. `end` has its end, or None if it cannot be compared: its caller left."""

    text: AnswerText = field(default_factory=AnswerText)
    end: asyncio.Future[Ended | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def ended(self, entry: UsageEntry | None, done: Done | None) -> None:
        if self.end.done():
            return
        if entry is None or not entry.ran or entry.outcome not in ("ok", "failed"):
            self.end.set_result(None)
        else:
            content = None if entry.outcome == "failed" else content_of(self.text, done)
            self.end.set_result(Ended(entry, content))


def content_of(text: AnswerText, done: Done | None) -> Any:
    """Return what is compared: the text of an answer or, without any, its results."""
    return text.text or (None if done is None else done.results)


async def compared(original: Ended, content: Any, outputs: tuple[Modality, ...]) -> Compared:
    """Compare the answer of a shadow, None if it failed, with the original one."""
    entry = original.entry
    measure, agreement = "", None
    if content is not None and original.content is not None:
        measure, agreement = await _agreement(original.content, content, outputs)
    return Compared(
        against=entry.release or 0,
        failed=entry.outcome != "ok",
        total_ms=entry.total_ms,
        units=entry.units,
        cost_micro=entry.cost_micro,
        measure=measure,
        agreement=agreement,
    )


async def _agreement(
    one: Any, other: Any, outputs: tuple[Modality, ...]
) -> tuple[str, float | None]:
    if Modality.TEXT in outputs:
        ours, theirs = _text(one), _text(other)
        if ours is None or theirs is None:
            return "", None
        # In a thread, because the first comparison loads a library.
        return CHRF, await asyncio.to_thread(_similarity, ours, theirs)
    if {*outputs} & {Modality.LABEL, Modality.SPANS}:
        return EXACT, float(_decision(one) == _decision(other))
    return "", None


def _text(content: Any) -> str | None:
    """Return an answer's only text; None if it has another form."""
    if isinstance(content, list) and len(content) == 1:
        (content,) = content
    return content[:TEXT_MAX] if isinstance(content, str) else None


def _similarity(one: str, other: str) -> float:
    # Loads sacrebleu, which only processes that compare shadows need.
    from workers.chrf import chrf

    return min(1.0, max(0.0, chrf([other], [one]) / 100))


def _decision(content: Any) -> Any:
    """Return results without scores. Of labels with scores, only the best one remains."""
    if isinstance(content, dict):
        return {
            name: _decision(value)
            for name, value in content.items()
            if not isinstance(value, float)
        }
    if not isinstance(content, list):
        return content
    if content and all(
        isinstance(each, dict) and {*each} == {"label", "score"} for each in content
    ):
        return max(content, key=lambda each: each["score"])["label"]
    return [_decision(each) for each in content]
