"""Endings of constrained answers: tokens that complete what an answer has opened.

A weak model repeats itself inside a string or a list until its tokens are used up. The rest of the
answer's tokens must then suffice to end strings, lists and objects, with required properties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from llguidance import LLMatcher

from registry.catalog.json_bounds import subschemas

# Bounds of one search, which holds up the other answers of the batch. A mask takes up to 8 ms.
MAX_ENDING = 512
_MAX_MASKS = 64
_MAX_ALLOWED = 256
_MAX_NAMES = 64
_AFTER_STRING = ("}", "]", ", ", ": ")
_ENDS = ("}", "]")
# Underscores stand in strings only. They fill a string up to its minimum length.
_FILLERS = ("____", "_")
_VALUES = ("null", *"0123456789", "false", '"', "[", "{")


class Closing:
    """Search for the ending of a grammar's answers.

    The search is greedy: it takes the first of the short texts that the grammar allows. It may miss
    an ending of a schema with alternatives that need more than the first text.

    Args:
        tokens_of: Returns the tokens of a text.
        bytes_of: Returns the bytes of a token's text.
        names: Names of required properties.
    """

    def __init__(
        self,
        tokens_of: Callable[[str], list[int]],
        bytes_of: Callable[[int], bytes],
        names: Iterable[str] = (),
    ) -> None:
        self._bytes_of = bytes_of
        self._quote = tokens_of('"')
        self._empty = tokens_of('""')
        self._after_string = [self._quote + tokens_of(each) for each in _AFTER_STRING]
        self._fillers = [tokens_of(each) for each in _FILLERS]
        self._ends = [tokens_of(each) for each in _ENDS]
        self._values = [tokens_of(each) for each in _VALUES]
        self._null = self._values[0]
        self._separators = [tokens_of(", "), tokens_of(" ")]
        keys = [f"{json.dumps(each, ensure_ascii=False)}: " for each in names]
        # Before a name, after a property, and after the quote that opens a name.
        self._keys = [tokens_of(each) for key in keys for each in (key, f", {key}", key[1:])]
        # A token rarely opens more than a few levels, with the properties that they require.
        self.growth = 8 + sum(len(each) + 2 for each in self._keys[::3])

    def ending(self, matcher: LLMatcher, most: int) -> list[int] | None:
        """Return tokens that complete the answer; None if `most` of them do not suffice.

        Args:
            matcher: State of the answer; it is not changed.
            most: Most tokens of the ending.
        """
        state = matcher.deep_copy()
        ending: list[int] = []
        masks = 0
        while not state.is_accepting():
            step = self._step(state)
            if not step and masks < _MAX_MASKS:
                masks += 1
                step = self._longest(state)
            if not step or len(ending) + len(step) > min(most, MAX_ENDING):
                return None
            if not state.consume_tokens(list(step)):
                return None
            ending += step
        return ending

    def _step(self, state: LLMatcher) -> Sequence[int]:
        """Return the next tokens of an ending; empty if the grammar allows none of the texts."""
        if forced := state.compute_ff_tokens():
            return forced
        candidates: list[list[int]]
        if _allows(state, self._empty):
            # A value or a name begins here.
            candidates = [*self._ends, self._null, self._empty]
        elif self._ends_string(state):
            return self._quote
        else:
            candidates = [
                *(self._fillers + self._ends + self._keys),
                # Before digits: a number that is long enough ends here.
                *(self._separators + self._values),
            ]
        for candidate in candidates:
            if _allows(state, candidate):
                return candidate
        return []

    def _ends_string(self, state: LLMatcher) -> bool:
        """Return whether a quote ends a string here."""
        if any(_allows(state, each) for each in self._after_string):
            return True
        after = state.deep_copy()
        return _allows(after, self._quote) and bool(
            after.consume_tokens(self._quote) and after.is_accepting()
        )

    def _longest(self, state: LLMatcher) -> list[int]:
        """Return one allowed token: a long one, to end soon, which opens nothing if possible."""
        allowed = list(islice(_tokens(state.compute_bitmask()), _MAX_ALLOWED))
        if not allowed:
            return []

        def rank(token: int) -> tuple[bool, int]:
            text = self._bytes_of(token)
            return not (b"{" in text or b"[" in text), len(text)

        return [max(allowed, key=rank)]


def required_names(schemas: Iterable[dict[str, Any]]) -> list[str]:
    """Return the names of the required properties in schemas, at most `_MAX_NAMES`."""
    names: dict[str, None] = {}
    for schema in schemas:
        for each in subschemas(schema):
            required = each.get("required")
            if isinstance(required, list):
                names.update((name, None) for name in required if isinstance(name, str))
    return list(names)[:_MAX_NAMES]


def repeats(tokens: Sequence[int], *, period: int) -> bool:
    """Return whether a sequence consists of one block of at most `period` tokens, repeated."""
    return any(tokens[size:] == tokens[:-size] for size in range(1, period + 1))


def _allows(state: LLMatcher, tokens: list[int]) -> bool:
    return bool(tokens) and int(state.validate_tokens(tokens)) == len(tokens)


def _tokens(mask: bytes) -> Iterator[int]:
    """Yield the tokens of a mask with one bit for each."""
    for place, bits in enumerate(mask):
        while bits:
            yield place * 8 + (bits & -bits).bit_length() - 1
            bits &= bits - 1
