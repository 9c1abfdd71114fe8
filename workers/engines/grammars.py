"""Grammars for answers: JSON by a schema, or tool calls. llguidance computes the masks.

A schema comes from the caller. A bounded process tries it first
(`PromptProcesses.check_grammar`), and the limits here bound its cost at each token.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from registry.catalog.generation import Tool
from workers.engines.closing import MAX_ENDING, Closing, repeats, required_names
from workers.engines.protocol import RequestRefused
from workers.engines.tool_calls import CallForm

logger = logging.getLogger(__name__)

# Separators as in Python and most training data. With free whitespace, a weak model could write
# whitespace without end.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# A state of the lexer takes 1 to 2 kB. 200,000 units of fuel take about 14 ms.
_LIMITS: dict[str, Any] = {
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "verbose_errors": False,
}


def json_grammar(schema: dict[str, Any]) -> str:
    """Return the grammar of one JSON value that fits a schema."""
    return f"start: {_json(schema)}\n"


def call_grammar(
    form: CallForm,
    tools: Sequence[Tool],
    *,
    single: bool,
    token: int | None = None,
    free: bool = False,
) -> str:
    """Return the grammar of an answer that consists of calls of `tools`.

    Args:
        form: The form of the calls.
        tools: The tools that may be called.
        single: Allow at most one call.
        token: The special token with which `form` begins, if the tokenizer has one.
        free: Allow text before and after calls; `form` must have an opening mark.
    """
    alternatives = " | ".join(f"tool_{number}" for number in range(len(tools)))
    rules = [f"body: {alternatives}"]
    for number, tool in enumerate(tools):
        head = json.dumps(f'{{"name": "{tool.name}", "{form.arguments}": ')
        rules.append(f'tool_{number}: {head} arguments_{number} "}}"')
        constrained = not free or tool.strict
        schema = tool.parameters if constrained else {"type": "object"}
        rules.append(f"arguments_{number}: {_json(schema)}")
    inner = "body" if single or not form.listed else 'body (", " body)*'
    if form.listed:
        inner = f'"[" {inner} "]"'
    start = f"<[{token}]> {inner}" if token is not None else inner
    if form.opening:
        line = "" if form.listed else "\n"
        opening, closing = json.dumps(form.opening + line), json.dumps(line + form.closing)
        if free:
            mark = json.dumps(form.opening)
            rest = f"{json.dumps(line)} {inner}" if line else inner
            rules += [
                "TEXT: /(.|\\n)*/",
                f"head[lazy]: TEXT {mark}",
                f"call: head {rest} {closing}",
            ]
            return "\n".join(["start: call* TEXT", *rules]) + "\n"
        rules.append(f"call: {opening} {inner} {closing}")
        start = "call" if single or form.listed else 'call ("\\n" call)*'
    return "\n".join([f"start: {start}", *rules]) + "\n"


def _json(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _LAYOUT})}"


class Vocabulary:
    """A tokenizer in llguidance's form, built at the first use in about a second.

    Args:
        tokenizer: A fast tokenizer of transformers.
        size: Number of logits at each position.
        ends: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, size: int, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.size = size
        self.end = min(ends)
        self._ends = ends
        self._lock = threading.Lock()
        self._built: LLTokenizer | None = None

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token's text; for a special token, the bytes of its name."""
        return bytes(self._tokens().decode_bytes([token]))

    def tokens_of(self, text: str) -> list[int]:
        """Return tokens whose bytes are those of a text, not always the tokenizer's own choice."""
        return list(self._tokens().greedy_tokenize(text))

    def matcher(self, grammar: str) -> LLMatcher:
        """Return a new matcher of a grammar. Raises RequestRefused."""
        matcher = LLMatcher(self._tokens(), grammar, limits=LLParserLimits(**_LIMITS), log_level=0)
        if matcher.is_error():
            raise grammar_refused(matcher.get_error())
        return matcher

    def _tokens(self) -> LLTokenizer:
        with self._lock:
            if self._built is None:
                self._built = LLTokenizer(
                    self._tokenizer.backend_tokenizer.to_str(),
                    n_vocab=max(self.size, len(self._tokenizer)),
                    eos_token=sorted(self._ends),
                )
            return self._built


class Constraint:
    """The grammar of one answer: it masks the tokens that may not follow, and ends an answer that
    repeats itself or uses up its tokens.

    Args:
        vocabulary: Tokenizer of the answer.
        grammar: Grammar of the answer, which has been checked.
        schemas: Schemas of the JSON values in the answer.
        calls: The answer consists of calls, and may end after any of them.

    Raises:
        RequestRefused: the grammar cannot be enforced.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        grammar: str,
        schemas: Sequence[dict[str, Any]],
        *,
        calls: bool,
    ) -> None:
        self._tokens_of = vocabulary.tokens_of
        self._matcher = vocabulary.matcher(grammar)
        self._closing = Closing(vocabulary.tokens_of, vocabulary.bytes_of, required_names(schemas))
        self._end = vocabulary.end
        self._calls = calls
        self._full = False  # no token is left
        # The most tokens that one token adds to the ending: it may begin another call or object.
        self._growth = self._closing.growth + len(self.ending(MAX_ENDING))
        self._words: Tensor | None = None
        self._unchecked = 0  # tokens that can still be taken before the room is checked
        self._recent: deque[int] = deque(maxlen=_REPETITION)
        self._ending: list[int] = []  # next tokens of the answer
        self._repetitions = 0

    def apply(self, logits: Tensor) -> None:
        """Set the logits of tokens that are not allowed to minus infinity; `logits` [vocabulary].

        Raises:
            RequestRefused: the grammar has become too complex.
        """
        size = logits.shape[-1]
        if self._words is None:
            self._words = torch.zeros((size + 31) // 32, dtype=torch.int32)
        self._matcher.unsafe_compute_mask_ptr(self._words.data_ptr(), self._words.numel() * 4)
        if self._matcher.is_error():
            raise self._too_complex()
        allowed = ((self._words.unsqueeze(1) >> _BITS) & 1).bool().flatten()[:size]
        logits.masked_fill_(~allowed.to(logits.device), float("-inf"))

    def take(self, token: int, left: int) -> int:
        """Advance by a chosen token, or by another one that ends the answer in time; returns it.

        Args:
            token: The chosen token.
            left: Number of tokens that may follow it.

        Raises:
            RequestRefused: the grammar has become too complex.
        """
        token = self._ending.pop(0) if self._ending else self._with_room(token, left)
        if not self._matcher.consume_token(token):
            raise self._too_complex()
        self._recent.append(token)
        self._full = left <= 0
        if not self._ending:
            self._end_repetition(left)
        return token

    def follow(self, text: str) -> None:
        """Advance by a text that has been sent. Raises as `take`."""
        plain = text.encode("utf-8", "replace").decode()  # a server may send a lone surrogate
        if not self._matcher.consume_tokens(self._tokens_of(plain)):
            raise self._too_complex()

    def ending(self, left: int) -> list[int]:
        """Return at most `left` tokens that complete the answer; empty if that is impossible."""
        return self._closing.ending(self._matcher, left) or []

    @property
    def complete(self) -> bool:
        """Return whether the grammar allows no further token, or needs none and none is left."""
        if self._calls and self._full and self._matcher.is_accepting():
            return True
        return bool(self._matcher.is_stopped())

    def _with_room(self, token: int, left: int) -> int:
        """Return `token` if the answer can be completed after it, else one that completes it."""
        if self._unchecked:
            self._unchecked -= 1
            return token
        after = self._matcher.deep_copy()
        if not after.consume_token(token) or after.is_stopped():
            return token
        ending = self._closing.ending(after, left)
        if ending is not None:
            # Within these tokens, no ending becomes longer than the rest of the answer.
            self._unchecked = (left - len(ending)) // (self._growth + 1)
            return token
        ending = self._closing.ending(self._matcher, left + 1)
        if ending is None:
            self._unchecked = left  # max_tokens are too few from the start: the answer is cut
            return token
        return ending[0] if ending else self._end

    def _end_repetition(self, left: int) -> None:
        """End strings and lists in which the answer repeats itself, one more level each time."""
        if len(self._recent) < _REPETITION or not repeats(list(self._recent), period=_PERIOD):
            return
        self._ending = self.ending(left)[: 2**self._repetitions]
        self._repetitions += 1
        self._recent.clear()
        self._unchecked = 0

    def _too_complex(self) -> RequestRefused:
        # Its engine logs the refusal with the request's ID.
        logger.debug("a grammar gave up: %s", self._matcher.get_error())
        return RequestRefused(
            "The grammar of the answer became too complex; simplify its schema.",
            code="schema_too_complex",
        )


# An answer repeats itself if a block of at most `_PERIOD` tokens fills its last `_REPETITION`.
_REPETITION, _PERIOD = 96, 24
_LISTING = re.compile(r"\n\s+\d+ \| ")
_BITS = torch.arange(32, dtype=torch.int32)


def grammar_refused(error: str) -> RequestRefused:
    """Return the error for a schema that cannot be enforced."""
    # The library quotes lines of the grammar; this module generated them, not the caller.
    message = _LISTING.split(error, maxsplit=1)[0].rpartition("failed to compile JSON schema: ")[2]
    reason = " ".join(message.split()).rstrip(".")
    return RequestRefused(
        f"The JSON schema cannot be enforced: {reason[:300] or 'it is too large'}.",
        code="unsupported_schema",
    )
