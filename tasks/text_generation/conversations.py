"""Conversations as tokens: the prompt, and the answer to learn or to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assay.plugins import declare, run

MIN_ROWS = 8
# Minimum share of conversations that must fit into `max_length`.
LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation: `tokens` contains the prompt and, from `start` on, the answer."""

    tokens: list[int]
    start: int

    def learned(self) -> dict[str, list[int]]:
        """Return tokens and labels; only the answer's tokens are labels."""
        labels = [run.IGNORED_TOKEN] * self.start + self.tokens[self.start :]
        return {"input_ids": self.tokens, "labels": labels}


@dataclass(frozen=True, slots=True)
class Fitted:
    """Conversations cut to a length. `left_out` counts those without room for any of their answer,
    `shortened` those with a cut answer; `longest` is the longest length, in tokens."""

    examples: list[Example]
    left_out: int
    shortened: int
    longest: int

    def words(self, max_length: int) -> str:
        """Describe what did not fit into `max_length`; empty if everything fit."""
        if not self.left_out and not self.shortened:
            return ""
        total = len(self.examples) + self.left_out
        sentences = []
        if self.left_out:
            sentences.append(
                f"{self.left_out} of {total} conversations are left out: their prompts leave no "
                f"room for an answer within {max_length} tokens."
            )
        if self.shortened:
            sentences.append(
                f"{self.shortened} of {total} answers are cut short at {max_length} tokens."
            )
        return " ".join([*sentences, f"The longest conversation has {self.longest} tokens."])


def read_conversations(path: Path) -> list[dict[str, Any]]:
    """Return rows {"messages": […]} that end with the assistant's answer. Raises BadMaterial."""
    return run.read_rows(path, _is_conversation, '{"messages": [{"role": …, "content": …}, …]}')


def _is_conversation(row: dict[str, Any]) -> bool:
    messages = row.get("messages")
    return (
        isinstance(messages, list)
        and len(messages) >= 2
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in messages
        )
        and messages[-1]["role"] == "assistant"
    )


class ConversationReader:
    """Turns rows into tokens with the chat template and the tokenizer of the base.

    Both are code, so they run in confined processes (`workers.engines.prompts`), which `close`
    ends.

    Raises:
        BadMaterial: The tokenizer cannot be used.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise run.BadMaterial("The base has no chat template; conversations cannot be read.")
        self._end = tokenizer.eos_token_id
        try:
            self._prompts = run.PromptProcesses(tokenizer)
        except run.UnsupportedModel as error:
            raise run.BadMaterial(str(error)) from error

    def prompt(self, row: dict[str, Any]) -> list[int]:
        """Return the tokens before the answer. Raises BadMaterial if there are none."""
        try:
            inputs = declare.GenerationInputs.model_validate({"messages": row["messages"][:-1]})
            return self._prompts.encode("row", inputs)
        except (run.RequestRefused, ValidationError) as error:
            raise run.BadMaterial(f"A conversation cannot be read. {error}") from error

    def whole(self, row: dict[str, Any]) -> Example:
        """Return the conversation at its full length. Raises BadMaterial."""
        prompt = self.prompt(row)
        try:
            (answer,) = self._prompts.encode_texts(
                "row", [row["messages"][-1]["content"]], special_tokens=False
            )
        except run.RequestRefused as error:
            raise run.BadMaterial(f"An answer cannot be read. {error}") from error
        return Example([*prompt, *answer, self._end], len(prompt))

    def examples(self, rows: list[dict[str, Any]], max_length: int) -> Fitted:
        """Return the conversations with room for an answer. Raises BadMaterial if none has room."""
        fitting: list[Example] = []
        shortened = longest = 0
        for row in rows:
            whole = self.whole(row)
            longest = max(longest, len(whole.tokens))
            if (example := cut_to(whole, max_length)) is not None:
                fitting.append(example)
                shortened += len(example.tokens) < len(whole.tokens)
        if not fitting:
            raise run.BadMaterial(
                f"No prompt leaves room for an answer within {max_length} tokens."
            )
        return Fitted(fitting, len(rows) - len(fitting), shortened, longest)

    def close(self) -> None:
        """End the processes."""
        self._prompts.close()


def cut_to(whole: Example, max_length: int) -> Example | None:
    """Return the conversation cut to a length; None without room for any of the answer."""
    tokens = whole.tokens[:max_length]
    return Example(tokens, whole.start) if len(tokens) > whole.start else None


def require_enough(fitted: Fitted, rows: int, max_length: int, progress: run.Progress) -> None:
    """Warn about conversations that do not fit. Raises BadMaterial if too few fit."""
    if rows < MIN_ROWS:
        raise run.BadMaterial(f"There are {rows} conversations; at least {MIN_ROWS} are needed.")
    warning, fits = fitted.words(max_length), len(fitted.examples)
    if fits < max(MIN_ROWS, rows * LEAST_SHARE):
        raise run.BadMaterial(
            f"Only {fits} of {rows} conversations fit into max_length {max_length}; at least half "
            f"of them, and {MIN_ROWS}, must. {warning} Raise max_length, or train on shorter rows."
        )
    if warning:
        progress.warn(warning)
