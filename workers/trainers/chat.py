"""Conversations as tokens, with the answer told apart, and how well a model foresees answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workers.trainers.protocol import BadMaterial
from workers.trainers.training import read_rows

IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


@dataclass(frozen=True, slots=True)
class Conversation:
    """The prompt's tokens as serving makes them, and the answer's with the token that ends it."""

    prompt: list[int]
    answer: list[int]
    reference: str

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


def read_conversations(path: Path) -> list[list[dict[str, str]]]:
    """The message lists of a chat dataset. Raises BadMaterial."""
    rows = read_rows(path, _is_conversation, '{"messages": [{"role": …, "content": …}, …]}')
    return [row["messages"] for row in rows]


def _is_conversation(row: dict[str, Any]) -> bool:
    messages = row.get("messages")
    if not isinstance(messages, list) or len(messages) < 2:
        return False
    texts = all(
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in messages
    )
    return texts and messages[-1]["role"] == "assistant"


def encode_conversation(tokenizer: Any, messages: list[dict[str, str]]) -> Conversation:
    """Tokens by the chat template. Raises BadMaterial when the template refuses the messages."""
    try:
        prompt = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:
        raise BadMaterial(f"The chat template refuses a conversation: {error}") from error
    reference = messages[-1]["content"]
    end = tokenizer.eos_token or ""
    answer = whole[len(prompt) :] if whole.startswith(prompt) else reference + end
    if end and end in answer:
        answer = answer[: answer.rindex(end) + len(end)]
    return Conversation(
        prompt=list(tokenizer(prompt, add_special_tokens=False)["input_ids"]),
        answer=list(tokenizer(answer, add_special_tokens=False)["input_ids"]),
        reference=reference,
    )


def encode_fitting(
    tokenizer: Any, conversations: Sequence[list[dict[str, str]]], max_length: int
) -> list[Conversation]:
    """Those of at most `max_length` tokens; a cut answer would teach to stop halfway."""
    encoded = [encode_conversation(tokenizer, messages) for messages in conversations]
    return [each for each in encoded if each.length <= max_length]


def left_padded(pairs: Sequence[Conversation], pad: int) -> dict[str, Tensor]:
    """A batch whose answers stand at its right end, so that only there logits are made.

    Returns:
        `input_ids`, `attention_mask` and `position_ids` [rows, length], and `labels`
        [rows, longest answer] for the last positions.
    """
    longest = max(pair.length for pair in pairs)
    answers = max(len(pair.answer) for pair in pairs)
    ids = [[pad] * (longest - pair.length) + pair.prompt + pair.answer for pair in pairs]
    mask = [[0] * (longest - pair.length) + [1] * pair.length for pair in pairs]
    labels = [[IGNORED] * (answers - len(pair.answer)) + pair.answer for pair in pairs]
    attention = torch.tensor(mask)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(dim=-1) - 1).clamp(min=0),
        "labels": torch.tensor(labels),
    }


def answer_loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The summed negative log-likelihood of a batch's answers, in nats, and their tokens."""
    labels = batch["labels"]
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=labels.shape[1] + 1,
        use_cache=False,
    )
    logits = output.logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        labels.reshape(-1),
        ignore_index=IGNORED,
        reduction="sum",
    )
    return loss, (labels != IGNORED).sum()


def mean_answer_loss(
    model: Any,
    pairs: Sequence[Conversation],
    pad: int,
    *,
    between: Callable[[], None],
    batch_size: int = 4,
) -> float:
    """Nats per answer token over all pairs; `between` is called before each batch."""
    total, tokens = 0.0, 0
    ordered = sorted(pairs, key=lambda pair: pair.length)
    with torch.inference_mode():
        for start in range(0, len(ordered), batch_size):
            between()
            batch = left_padded(ordered[start : start + batch_size], pad)
            on_device = {key: value.to(model.device) for key, value in batch.items()}
            loss, count = answer_loss(model, on_device)
            total += float(loss)
            tokens += int(count)
    return total / tokens
