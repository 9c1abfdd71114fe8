"""Check for control tokens, which callers of a prompt version and documents may not write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from registry.catalog.generation import ChatMessage, GenerationInputs
from registry.catalog.requests import printable
from workers.engines.prompts import PromptProcesses
from workers.engines.protocol import RequestRefused

# A character for private use, which no tokenizer has learned.
_UNUSUAL = "\ue0f0"


class ControlTokenCheck:
    """Prevents callers and documents from writing their own turns into a conversation.

    Args:
        tokenizer: A fast tokenizer of transformers.
        prompts: The processes that tokenize.
    """

    def __init__(self, tokenizer: Any, prompts: PromptProcesses) -> None:
        self._prompts = prompts
        self._names = control_tokens(tokenizer, prompts.template or "")
        self._unknown: int | None = tokenizer.unk_token_id
        self._is_probed = False
        # First characters: without one of them, a text cannot contain a control token.
        self._starts = {name.strip()[:1] for name in self._names.values()} - {""}

    def neutralize(self, request_id: str, inputs: GenerationInputs) -> GenerationInputs:
        """Return the request with the control tokens in its passages made harmless.

        Messages may not contain more control tokens than the deployment's own prompt. Tokens are
        counted in the texts and again in the rendered prompt: a chat template that removes words
        could join the rest into a token.

        Raises:
            RequestRefused: the messages contain more, or as `PromptProcesses.encode`.
            PromptCanceled: the request was canceled.
        """
        self._probe(request_id)
        inputs = self._without_tokens_in_passages(inputs)
        if inputs.own_texts is None:
            self._refuse(self._counted(request_id, inputs.passages))
            return inputs
        own = self._counted(request_id, inputs.own_texts)
        self._refuse(self._counted(request_id, _texts(inputs)) - own)
        harmless = self._harmless(inputs)
        if harmless != inputs:
            rendered = Counter(self._prompts.encode(request_id, inputs))
            plain = Counter(self._prompts.encode(request_id, harmless))
            self._refuse(rendered - plain - own)
        return inputs

    def _probe(self, request_id: str) -> None:
        """Find out once whether the tokenizer really encodes unknown characters as `_unknown`.

        If so, that token is not a control token. Byte-level tokenizers encode every character, and
        may declare one of their control tokens as the unknown token.
        """
        if self._unknown is not None and not self._is_probed:
            (row,) = self._prompts.encode_texts(request_id, [_UNUSUAL], special_tokens=False)
            if self._unknown not in row:
                self._unknown = None
        self._is_probed = True

    def _refuse(self, tokens: Counter[int]) -> None:
        """Raise RequestRefused if any of the tokens is a control token."""
        for token in tokens:
            if token in self._names and token != self._unknown:
                raise RequestRefused(
                    f"The messages, variables or passages hold {printable(self._names[token])}, "
                    "which is a control token of this model; leave it out.",
                    code="control_token",
                )

    def _counted(self, request_id: str, texts: Iterable[str]) -> Counter[int]:
        """Return the count of each control token in the tokenized texts."""
        times = Counter(texts)
        counts: Counter[int] = Counter()
        if not times:
            return counts
        rows = self._prompts.encode_texts(request_id, list(times), special_tokens=False)
        for row, count in zip(rows, times.values(), strict=True):
            for token in row:
                if token in self._names:
                    counts[token] += count
        return counts

    def _without_tokens_in_passages(self, inputs: GenerationInputs) -> GenerationInputs:
        """Return the request with a space inside each control token that a passage spells out."""
        if inputs.messages is None:
            return inputs
        changed = {each: self._spaced(each) for each in inputs.passages}
        changed = {text: spaced for text, spaced in changed.items() if text != spaced}
        if not changed:
            return inputs

        def replaced(text: str) -> str:
            for passage, spaced in changed.items():
                text = text.replace(passage, spaced)
            return text

        return inputs.model_copy(
            update={
                "messages": [_with_text(each, replaced) for each in inputs.messages],
                "passages": [changed.get(each, each) for each in inputs.passages],
            }
        )

    def _spaced(self, text: str) -> str:
        for name in self._names.values():
            name = name.strip()
            if len(name) > 1:
                text = text.replace(name, f"{name[:1]} {name[1:]}")
        return text

    def _harmless(self, inputs: GenerationInputs) -> GenerationInputs:
        """Return the request without the first characters of control tokens."""

        def plain(text: str) -> str:
            return "".join(" " if each in self._starts else each for each in text)

        return inputs.model_copy(
            update={"messages": [_with_text(each, plain) for each in inputs.messages or ()]}
        )


def control_tokens(tokenizer: Any, template: str) -> dict[int, str]:
    """Return the tokens that can begin or end a turn, and their texts.

    These are the special tokens, and added tokens that the chat template writes (DeepSeek's
    `<｜User｜>` is not special). Added tags with a closing tag, such as `<think>`, mark parts of a
    turn and are left out.
    """
    added = {int(token): each for token, each in tokenizer.added_tokens_decoder.items()}
    texts = {each.content for each in added.values()}
    return {
        token: each.content
        for token, each in added.items()
        if each.special
        or (each.content.strip() and each.content in template and not _paired(each.content, texts))
    }


def _paired(text: str, texts: set[str]) -> bool:
    """Return whether a text is a tag whose opening or closing counterpart is among the texts."""
    if not (text.startswith("<") and text.endswith(">")):
        return False
    other = f"<{text[2:]}" if text.startswith("</") else f"</{text[1:]}"
    return other in texts


def _with_text(message: ChatMessage, change: Callable[[str], str]) -> ChatMessage:
    """Return a message with changed texts; tool calls and images stay the same."""
    if isinstance(message.content, str):
        return message.model_copy(update={"content": change(message.content)})
    parts = [
        part.model_copy(update={"text": change(part.text)}) if part.type == "text" else part
        for part in message.content
    ]
    return message.model_copy(update={"content": parts})


def _texts(inputs: GenerationInputs) -> list[str]:
    """Return every text of a conversation that a chat template can render."""
    texts: list[str] = []
    for message in inputs.messages or ():
        texts += [message.role, message.text, message.tool_call_id or ""]
        for call in message.tool_calls:
            texts += [call.id, call.name, _json(call.arguments), *_strings(call.arguments)]
    for tool in inputs.tools:
        texts += [tool.name, tool.description, _json(tool.parameters), *_strings(tool.parameters)]
    return [text for text in texts if text]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _strings(value: Any) -> list[str]:
    """Return the strings in a JSON value, unescaped as a template reads them."""
    if isinstance(value, dict):
        return [text for each in value.items() for part in each for text in _strings(part)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [value] if isinstance(value, str) else []
