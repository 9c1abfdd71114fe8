"""Process that renders chat templates and tokenizes prompts, bounded in time and memory.

A chat template is a program and a tokenizer's regular expressions can run for minutes, and both
come with the model. `workers.engines.bounded` starts this module confined, with an empty
environment. It loads the model's tokenizer once and forks a process that answers requests, so that
a fork that takes too long can be killed and replaced (`registry/sandbox/forks.py`).
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import types
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from registry.sandbox import landlock
from registry.sandbox.forks import (
    MEBIBYTE,
    Answer,
    Bounds,
    CannotAnswer,
    address_space,
    allow_cpu,
    limit,
    run_source,
)
from registry.sandbox.system_calls import deny_new_processes

# Reading a tokenizer of 256,000 tokens takes about 300 MiB.
SETUP = Bounds(memory=2048 * MEBIBYTE, cpu_s=120)


class Prompts:
    """One model's tokenizer and chat template. Either may be missing."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._max_output: int = setup["max_output"]
        self._template: str | None = setup["template"]
        self._special_tokens: dict[str, Any] = setup["special_tokens"]
        self._tokenizer: Any = None
        if self._template is not None or setup["tokenizer"] is None:
            self._render = renderer()
        if setup["tokenizer"] is not None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_str(setup["tokenizer"])
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._tokenizer.encode_special_tokens = setup["split_special_tokens"]
            self._max_length: int | None = setup["max_length"]

    def messages(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
    ) -> bytes:
        """Return the tokens of the prompt that the chat template makes.

        Refuses tools and earlier calls that the template leaves out of the prompt.
        """
        text = self._rendered(self._template, messages, tools)
        for kind, others, own_tools in _without_parts(messages, tools):
            if self._rendered(self._template, others, own_tools) == text:
                raise CannotAnswer(
                    f"This model's chat template does not support tools: it leaves out {kind}."
                )
        return self._encoded([text], special_tokens=False)

    def grammar(self, grammar: str) -> bytes:
        """Try a grammar; returns nothing, or the reason why it cannot be enforced."""
        from llguidance import LLMatcher

        return str(LLMatcher.validate_grammar(grammar)).encode("utf-8", "replace")[:2000]

    def texts(self, texts: list[str], special_tokens: bool) -> bytes:
        """Return the tokens of each text, with or without the tokenizer's special tokens."""
        return self._encoded(texts, special_tokens=special_tokens)

    def read(
        self, texts: list[str], seconds: list[str] | None = None, side: str | None = None
    ) -> bytes:
        """Return rows: one of token counts, one of tokens per text; for pairs, also one of kinds.

        With `seconds`, each text forms a pair with one of them. An input over the limit is cut on a
        `side`, `left` or `right`, a pair in its longer text; without a side, its rows are empty.
        """
        batch = texts if seconds is None else list(zip(texts, seconds, strict=True))
        rows = self._tokenizer.encode_batch_fast(batch)
        lengths = [len(row.ids) for row in rows]
        limit = max(lengths) if self._max_length is None else self._max_length
        long = [at for at, length in enumerate(lengths) if length > limit]
        ids, kinds = [row.ids for row in rows], [row.type_ids for row in rows]
        if long and side is not None:
            self._tokenizer.enable_truncation(limit, direction=side)
            try:
                cut = self._tokenizer.encode_batch_fast([batch[at] for at in long])
            finally:
                self._tokenizer.no_truncation()
            for at, row in zip(long, cut, strict=True):
                ids[at], kinds[at] = row.ids, row.type_ids
        elif long:
            for at in long:
                ids[at], kinds[at] = [], []
        return packed([lengths, *ids, *(kinds if seconds is not None else [])])

    def windows(self, first: str, second: str | None, stride: int) -> bytes:
        """Return the windows of a text, or of a text paired with parts of a second one.

        Six rows for each window: tokens; kinds; start and end of each token in its text; number of
        its word, from 1; 1 or 2 for the text that contains it. A special token has 0 in the last
        two. Windows share `stride` tokens.
        """
        if self._max_length is None:
            raise CannotAnswer("This model does not say how many tokens it reads at once.")
        room = self._max_length - self._tokenizer.num_special_tokens_to_add(second is not None)
        if second is not None:
            room -= len(self._tokenizer.encode(first, add_special_tokens=False).ids)
        if room <= max(stride, self._max_length // 4):
            raise CannotAnswer(
                f"This model reads {self._max_length} tokens at a time; the question leaves too "
                "few of them for the text."
            )
        strategy = "only_first" if second is None else "only_second"
        self._tokenizer.enable_truncation(self._max_length, stride=stride, strategy=strategy)
        try:
            encoding = self._tokenizer.encode(first, second)
        finally:
            self._tokenizer.no_truncation()
        rows: list[list[int]] = []
        for window in [encoding, *encoding.overflowing]:
            rows += [
                window.ids,
                window.type_ids,
                [start for start, _ in window.offsets],
                [end for _, end in window.offsets],
                [0 if word is None else word + 1 for word in window.word_ids],
                [0 if text is None else text + 1 for text in window.sequence_ids],
            ]
        return packed(rows)

    def render(self, template: str, messages: list[dict[str, Any]]) -> bytes:
        """Return the prompt that a chat template makes, as text."""
        return self._rendered(template, messages).encode("utf-8", "replace")

    def pattern(self, pattern: str, samples: list[str]) -> bytes:
        """Split each sample by a tokenizer's regular expression, to see that it ends in time."""
        from tokenizers import Regex, pre_tokenizers

        try:
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
        except Exception as error:
            raise CannotAnswer(f"it does not compile: {error}") from error
        for sample in samples:
            split.pre_tokenize_str(sample)
        return b""

    def _rendered(
        self,
        template: str | None,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
    ) -> str:
        try:
            (text,), _ = self._render(
                conversations=[messages],
                tools=tools or None,
                chat_template=template,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            # Templates raise through Jinja if the roles do not alternate as they require.
            raise CannotAnswer(f"The chat template refuses the messages: {error}"[:500]) from error
        if len(text) > self._max_output:
            raise CannotAnswer(
                f"The chat template made {len(text)} characters of the messages; "
                f"at most {self._max_output} are accepted."
            )
        return str(text)

    def _encoded(self, texts: list[str], *, special_tokens: bool) -> bytes:
        rows = self._tokenizer.encode_batch_fast(texts, add_special_tokens=special_tokens)
        return packed([row.ids for row in rows])


def _without_parts(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, Any]] | None]]:
    """Yield the name of each part that a template must render, and the request without it."""
    if tools:
        yield "the tools", messages, None
    if any("tool_calls" in each for each in messages):
        plain = [{key: each[key] for key in each if key != "tool_calls"} for each in messages]
        yield "earlier calls", plain, tools
    if any(each["role"] == "tool" and each["content"] for each in messages):
        empty = [{**each, "content": ""} if each["role"] == "tool" else each for each in messages]
        yield "what tools returned", empty, tools


def renderer() -> Any:
    """Return transformers' function that renders chat templates.

    Its packages are replaced by empty modules: running their `__init__` takes three quarters of
    this process's start, and would put modules within reach of a template that needs none of them.
    """
    spec = importlib.util.find_spec("transformers")
    root = os.path.dirname(str(spec and spec.origin))
    for name, folder in (("transformers", root), ("transformers.utils", f"{root}/utils")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [folder]
    from transformers.utils.chat_template_utils import render_jinja_template

    return render_jinja_template


def packed(rows: list[list[int]]) -> bytes:
    """Return the rows as 32-bit numbers: number of rows, length of each, all tokens."""
    numbers = array("I", [len(rows), *map(len, rows)])
    for row in rows:
        numbers.extend(row)
    return numbers.tobytes()


def prepare(setup: dict[str, Any]) -> tuple[Answer, Callable[[], None]]:
    """Load a model's tokenizer and template."""
    prompts = Prompts(setup)
    memory = address_space() + int(setup["memory"])

    def begin() -> None:
        # A Landlock domain of its own keeps each fork away from its source and its siblings.
        if setup["paths"] is not None:
            landlock.confine(landlock.ruleset(setup["paths"], tcp=False, reader=True))
        deny_new_processes()
        limit(resource.RLIMIT_AS, memory)

    def answer(request: dict[str, Any], files: list[int]) -> bytes:
        allow_cpu(setup["cpu_s"])
        tokens: bytes = getattr(prompts, request.pop("do"))(**request)
        return tokens

    return answer, begin


if __name__ == "__main__":
    run_source(prepare, SETUP)
