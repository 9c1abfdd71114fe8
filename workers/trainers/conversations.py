"""Conversations as tokens: the prompt that is given, and the answer that is learnt or measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workers.trainers.protocol import BadMaterial
from workers.trainers.training import read_rows

IGNORED = -100  # torch's cross-entropy leaves these positions out


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation: `tokens` holds the prompt and then, from `start` on, the answer."""

    tokens: list[int]
    start: int


def read_conversations(path: Path) -> list[dict[str, Any]]:
    """Rows {"messages": […]} that end with the assistant's answer. Raises BadMaterial."""
    return read_rows(path, _is_conversation, '{"messages": [{"role": …, "content": …}, …]}')


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


def prompt_of(tokenizer: Any, row: dict[str, Any]) -> list[int]:
    """The tokens up to where the answer begins."""
    text = tokenizer.apply_chat_template(
        row["messages"][:-1], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def example_of(tokenizer: Any, row: dict[str, Any], max_length: int) -> Example | None:
    """The whole conversation; None when there is no room for any of the answer."""
    prompt = prompt_of(tokenizer, row)
    answer = tokenizer(row["messages"][-1]["content"], add_special_tokens=False)["input_ids"]
    tokens = [*prompt, *answer, tokenizer.eos_token_id][:max_length]
    return Example(tokens, len(prompt)) if len(tokens) > len(prompt) else None


def examples_of(tokenizer: Any, rows: list[dict[str, Any]], max_length: int) -> list[Example]:
    """Raises BadMaterial when nothing fits, or the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise BadMaterial("The base has no chat template; conversations cannot be read.")
    found = [example_of(tokenizer, row, max_length) for row in rows]
    kept = [example for example in found if example is not None]
    if not kept:
        raise BadMaterial(f"No prompt leaves room for an answer within {max_length} tokens.")
    return kept


def collate(examples: list[Example], padding: int) -> dict[str, torch.Tensor]:
    """Right-padded [batch, longest] tensors; only the answer's tokens are labels."""
    longest = max(len(example.tokens) for example in examples)
    shape = (len(examples), longest)
    tokens = torch.full(shape, padding)
    labels = torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        whole = torch.tensor(example.tokens)
        tokens[row, :length] = whole
        labels[row, example.start : length] = whole[example.start :]
        mask[row, :length] = 1
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}
