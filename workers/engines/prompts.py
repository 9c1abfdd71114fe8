"""Tokenize a request's inputs in processes that can be killed.

A model's chat template and tokenizer are code that came with it, so they never run in the process
that holds the weights: each engine has separate processes for them (`workers.engines.bounded`). If
a request exceeds a limit, its process is killed and replaced; other engines are not affected.
"""

from __future__ import annotations

import logging
import threading
from array import array
from dataclasses import dataclass, field
from typing import Any

from registry.catalog.generation import ChatMessage, GenerationInputs, Tool
from registry.catalog.inputs import Truncate
from registry.sandbox.source import BoundedProcess, ProcessEnded, RequestDeclined
from workers.engines.architectures import UnsupportedModel
from workers.engines.bounded import Limits, prompt_source
from workers.engines.described_tools import described
from workers.engines.protocol import EngineStopped, RequestRefused
from workers.engines.tool_calls import DESCRIBED, form_of
from workers.request_logs import about

logger = logging.getLogger(__name__)

# Tokens of model families that mark the beginning, the end and the gap of a text, in that order.
FILL_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, and Assay's own
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, SantaCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
)

# One process handles thousands of prompts a second; the second answers while the first is stuck.
PROCESSES = 2


class PromptCanceled(Exception):
    """The request was canceled before its prompt was ready."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of one text, or of two texts together, that a model reads at once.

    Each token has a kind, a start and an end (characters of its text), the number of its word, from
    1, and in `texts` 1 or 2 for the text that contains it. Special tokens have 0 in the last two.
    """

    tokens: list[int]
    kinds: list[int]
    starts: list[int]
    ends: list[int]
    words: list[int]
    texts: list[int]

    def fits(self, characters: tuple[int, int]) -> bool:
        """Return whether every token lies inside its text; `characters` are the texts' lengths."""
        rows = (self.kinds, self.starts, self.ends, self.words, self.texts)
        if any(len(row) != len(self.tokens) for row in rows):
            return False
        return all(
            text <= 2 and (not text or start <= end <= characters[text - 1])
            for start, end, text in zip(self.starts, self.ends, self.texts, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens of texts or of pairs of texts, with the kind of each token for pairs.

    `cut` are the indices of inputs that were cut as requested; `cut_tokens` is their total loss.
    """

    tokens: list[list[int]]
    kinds: list[list[int]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    cut_tokens: int = 0

    @property
    def cut_inputs(self) -> int:
        """Number of inputs that were cut."""
        return len(self.cut)


# The tokenizers library's names of the sides.
_SIDES: dict[Truncate, str | None] = {"none": None, "end": "right", "start": "left"}


@dataclass(slots=True, eq=False)
class _Job:
    process: BoundedProcess | None = None
    canceled: bool = False


class PromptProcesses:
    """The processes of one model. Any number of threads may encode.

    Args:
        tokenizer: A fast tokenizer of transformers, with the chat template.
        max_length: The most tokens that the model reads of one input of `read_texts` and
            `read_pairs`, and of one window.
        limits: Bounds on each request.

    Raises:
        UnsupportedModel: The tokenizer is not a fast one, or cannot be loaded within the limits.
    """

    def __init__(
        self, tokenizer: Any, *, max_length: int | None = None, limits: Limits | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._setup = _setup(tokenizer, max_length)
        self._max_length = max_length
        self._tokens = len(tokenizer)
        self._fill = fill_tokens(tokenizer)
        self._describes_tools = form_of(self._setup["template"]) is DESCRIBED
        self._changed = threading.Condition()
        self._idle: list[BoundedProcess] = []
        self._count = 0
        self._jobs: dict[str, _Job] = {}
        self._closed = False
        try:
            self._source = prompt_source(self._setup, self._limits)
        except ProcessEnded as error:
            raise UnsupportedModel(f"The tokenizer cannot be loaded: {error}.") from error

    def encode(self, request_id: str, inputs: GenerationInputs) -> list[int]:
        """Return the prompt's tokens: messages go through the chat template; a prompt with a suffix
        is arranged for filling in the middle.

        Raises:
            RequestRefused: The template refuses the messages, a limit was exceeded, or the model
                cannot fill in the middle.
            PromptCanceled: `cancel` was called.
            EngineStopped: `close` was called.
        """
        request: dict[str, Any]
        if inputs.prompt is not None and inputs.suffix is not None:
            return self._around(request_id, inputs.prompt, inputs.suffix)
        if inputs.messages is None:
            request = {"do": "texts", "texts": [inputs.prompt], "special_tokens": True}
        elif not self._setup["template"]:
            raise RequestRefused("This model has no chat template; send a prompt instead.")
        else:
            turns = [_turn(each) for each in inputs.messages]
            tools = [_tool(tool) for tool in inputs.tools]
            if self._describes_tools and (tools or any(_of_tools(turn) for turn in turns)):
                turns, tools = described(turns, tools), []
            request = {"do": "messages", "messages": turns, "tools": tools}
        (tokens,) = self._rows(self._ask(request_id, request), 1)
        if not tokens:
            raise RequestRefused("The prompt is empty.")
        return tokens

    def _around(self, request_id: str, prefix: str, suffix: str) -> list[int]:
        """Return the tokens of beginning and end, with marks that request the middle."""
        if self._fill is None:
            raise RequestRefused(
                "This model cannot fill in the middle; leave suffix out.",
                code="suffix_unsupported",
            )
        # Tokens that the tokenizer puts before every text.
        (lead,) = self.encode_texts(request_id, [""])
        before, after = self.encode_texts(request_id, [prefix, suffix], special_tokens=False)
        begin, hole, end = self._fill
        return [*lead, begin, *before, hole, *after, end]

    @property
    def template(self) -> str | None:
        """Return the model's chat template."""
        template: str | None = self._setup["template"]
        return template

    def check_grammar(self, request_id: str, grammar: str) -> str:
        """Return the reason why a grammar cannot be enforced, or "". Raises as `encode`."""
        reason = self._ask(request_id, {"do": "grammar", "grammar": grammar})
        return reason.decode("utf-8", "replace")

    def encode_texts(
        self, request_id: str, texts: list[str], *, special_tokens: bool = True
    ) -> list[list[int]]:
        """Return the tokens of each text. Raises as `encode`."""
        request = {"do": "texts", "texts": texts, "special_tokens": special_tokens}
        return self._rows(self._ask(request_id, request), len(texts))

    def read_texts(self, request_id: str, texts: list[str], truncate: Truncate = "none") -> Reading:
        """Return the tokens of each text, within the model's limit.

        Raises as `encode`, and RequestRefused for a text that is too long and may not be cut.
        """
        (lengths, *rows) = self._read(request_id, {"texts": texts}, truncate, 1 + len(texts))
        return self._within(lengths, rows, [], truncate, "input")

    def read_pairs(
        self, request_id: str, pairs: list[tuple[str, str]], truncate: Truncate = "none"
    ) -> Reading:
        """Return the tokens of each pair of texts, and the kind of each token: for most models, 0
        in the first text and 1 in the second. Raises as `read_texts`."""
        firsts, seconds = map(list, zip(*pairs, strict=True))
        texts = {"texts": firsts, "seconds": seconds}
        (lengths, *rows) = self._read(request_id, texts, truncate, 1 + 2 * len(pairs))
        tokens, kinds = rows[: len(pairs)], rows[len(pairs) :]
        if any(len(each) != len(kind) for each, kind in zip(tokens, kinds, strict=True)):
            raise _broken("its answer is malformed")
        return self._within(lengths, tokens, kinds, truncate, "pair")

    def lengths(self, request_id: str, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text of any length. Raises as `encode`."""
        return self._read(request_id, {"texts": texts}, "none", 1 + len(texts))[0]

    def _read(
        self, request_id: str, texts: dict[str, Any], truncate: Truncate, count: int
    ) -> list[list[int]]:
        request = {"do": "read", **texts, "side": _SIDES[truncate]}
        rows = self._unpacked(self._ask(request_id, request))
        if len(rows) != count or len(rows[0]) != len(texts["texts"]):
            raise _broken("its answer is malformed")
        return rows

    def _within(
        self,
        lengths: list[int],
        tokens: list[list[int]],
        kinds: list[list[int]],
        truncate: Truncate,
        noun: str,
    ) -> Reading:
        """Return the checked reading. Raises RequestRefused if an input is too long and uncut."""
        limit = self._max_length
        for row in tokens:
            self._check_tokens(row)
        if limit is None:
            return Reading(tokens, kinds)
        if any(len(row) > limit for row in tokens):
            raise _broken("its answer is malformed")
        long = [at for at, length in enumerate(lengths) if length > limit]
        if long and truncate == "none":
            which = f"the {noun}" if len(lengths) == 1 else f"{noun} {long[0] + 1}"
            raise RequestRefused(
                f"This model's maximum context length is {limit:,} tokens; {which} has "
                f"{lengths[long[0]]:,}. Shorten it, or send it in parts.",
                code="context_length_exceeded",
            )
        lost = sum(lengths[at] - len(tokens[at]) for at in long)
        return Reading(tokens, kinds, long, lost)

    def encode_windows(
        self, request_id: str, first: str, second: str | None = None, *, stride: int
    ) -> list[Window]:
        """Return a text, or a text paired with each part of a second one, in windows that the model
        can read. Windows share `stride` tokens. Raises as `encode`.
        """
        request = {"do": "windows", "first": first, "second": second, "stride": stride}
        rows = self._unpacked(self._ask(request_id, request))
        windows = [Window(*rows[at : at + 6]) for at in range(0, len(rows) - 5, 6)]
        texts = (len(first), len(second or ""))
        if not windows or len(rows) % 6 or not all(each.fits(texts) for each in windows):
            raise _broken("its answer is malformed")
        for window in windows:
            self._check_tokens(window.tokens)
        return windows

    def cancel(self, request_id: str) -> None:
        """End the work on a request immediately; unknown requests are ignored."""
        with self._changed:
            job = self._jobs.get(request_id)
            if job is None:
                return
            job.canceled = True
            if job.process is not None:
                job.process.kill()
            self._changed.notify_all()

    def close(self) -> None:
        """End all processes; running and waiting requests are refused."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                if job.process is not None:
                    job.process.kill()
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for process in idle:
            process.close()
        self._source.close()

    def _rows(self, result: bytes, count: int) -> list[list[int]]:
        """Return the `count` rows of tokens in a result."""
        rows = self._unpacked(result)
        if len(rows) != count:
            raise _broken("its answer is malformed")
        for row in rows:
            self._check_tokens(row)
        return rows

    def _check_tokens(self, row: list[int]) -> None:
        if row and max(row) >= self._tokens:
            raise _broken("it answered with unknown tokens")

    def _unpacked(self, result: bytes) -> list[list[int]]:
        """Return the rows of numbers in a result, which the model's own code may have forged."""
        numbers = array("I")
        numbers.frombytes(result[: len(result) // 4 * 4])
        count = numbers[0] if numbers else 0
        lengths = numbers[1 : count + 1]
        if not numbers or sum(lengths) != len(numbers) - count - 1:
            raise _broken("its answer is malformed")
        values = numbers[count + 1 :]
        rows, at = [], 0
        for length in lengths:
            rows.append(values[at : at + length].tolist())
            at += length
        return rows

    def _ask(self, request_id: str, request: dict[str, Any]) -> bytes:
        job = _Job()
        with self._changed:
            self._jobs[request_id] = job
        try:
            process = self._take(job)
            alive = False
            try:
                result = process.ask(request)
                alive = True
            except RequestDeclined as error:
                alive = True
                raise RequestRefused(str(error)) from error
            except ProcessEnded as error:
                if job.canceled:
                    raise PromptCanceled from error
                if self._closed:
                    raise EngineStopped from error
                logger.warning(
                    "The prompt process of request %s ended: %s",
                    request_id,
                    error,
                    extra=about(request_id),
                )
                raise _broken(str(error)) from error
            finally:
                self._give_back(job, process, alive=alive)
            if job.canceled:
                raise PromptCanceled
            return result
        finally:
            with self._changed:
                self._jobs.pop(request_id, None)

    def _take(self, job: _Job) -> BoundedProcess:
        """Reserve a process for the job; start one while there are fewer than `PROCESSES`."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: job.canceled or self._closed or self._idle or self._count < PROCESSES,
                self._limits.seconds,
            ):
                raise RequestRefused(
                    "Too many prompts are being read; try again shortly.",
                    code="engine_overloaded",
                    status=429,
                )
            if job.canceled:
                raise PromptCanceled
            if self._closed:
                raise EngineStopped
            if self._idle:
                job.process = self._idle.pop()
                return job.process
            self._count += 1
        try:
            process = self._source.process()
        except (ProcessEnded, OSError) as error:
            self._one_less()
            if self._closed:
                raise EngineStopped from error
            logger.exception("A prompt process could not be started")
            raise _broken("its process cannot be started") from error
        with self._changed:
            job.process = process
        return process

    def _give_back(self, job: _Job, process: BoundedProcess, *, alive: bool) -> None:
        with self._changed:
            job.process = None
            if alive and not job.canceled and not self._closed:
                self._idle.append(process)
                self._changed.notify()
                return
        process.close()
        self._one_less()

    def _one_less(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()


def _turn(message: ChatMessage) -> dict[str, Any]:
    """Return a message in the format of chat templates, where a call's arguments are an object."""
    turn: dict[str, Any] = {"role": message.role, "content": message.model_dump()["content"]}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _of_tools(turn: dict[str, Any]) -> bool:
    """Return whether a turn calls tools or holds a result."""
    return "tool_calls" in turn or turn["role"] == "tool"


def _tool(tool: Tool) -> dict[str, Any]:
    """Return a tool in the format of chat templates."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def fill_tokens(tokenizer: Any) -> tuple[int, int, int] | None:
    """Return the tokens that mark beginning, end and middle for filling in; None if missing."""
    added = tokenizer.get_added_vocab()
    for begin, end, middle in FILL_TOKENS:
        if {begin, end, middle} <= added.keys():
            return added[begin], added[end], added[middle]
    return None


def _setup(tokenizer: Any, max_length: int | None) -> dict[str, Any]:
    """Return the settings from which a process encodes exactly as `tokenizer` does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel("The model has no fast tokenizer.")
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return {
        "tokenizer": backend.to_str(),
        "template": template,
        "special_tokens": {
            name: value if isinstance(value, list) else str(value)
            for name, value in tokenizer.special_tokens_map.items()
        },
        "split_special_tokens": bool(tokenizer.split_special_tokens),
        "max_length": max_length,
    }


def _broken(reason: str) -> RequestRefused:
    return RequestRefused(
        f"The model's chat template or tokenizer could not read this prompt: {reason}.",
        code="prompt_unreadable",
    )
