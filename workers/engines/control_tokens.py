"""Control tokens, which callers of a prompt version and documents may not write themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from registry.catalog.generation import GenerationInputs
from registry.catalog.requests import printable
from workers.engines.prompts import PromptProcesses
from workers.engines.protocol import RequestRefused


class ControlTokenCheck:
    """Refuses conversations in which a caller's text would be read as turns of its own.

    Args:
        tokenizer: A fast tokenizer of transformers.
        prompts: The processes that tokenize.
    """

    def __init__(self, tokenizer: Any, prompts: PromptProcesses) -> None:
        self._prompts = prompts
        self._names = control_tokens(tokenizer, prompts.template or "")

    def check(self, request_id: str, inputs: GenerationInputs) -> None:
        """Refuse messages that hold more control tokens than the deployment's own prompt does.

        Without a prompt of its own, passages are refused that hold any.

        Raises:
            RequestRefused: they do, or as `PromptProcesses.encode`.
            PromptCancelled: the request was cancelled.
        """
        if inputs.own_texts is None:
            found = self._counted(request_id, inputs.passages)
        else:
            found = self._counted(request_id, _texts(inputs))
            found.subtract(self._counted(request_id, inputs.own_texts))
        for token, count in found.items():
            if count > 0:
                raise RequestRefused(
                    f"The messages, variables or passages hold {printable(self._names[token])}, "
                    "which is a control token of this model; leave it out.",
                    code="control_token",
                )

    def _counted(self, request_id: str, texts: Iterable[str]) -> Counter[int]:
        """Return how often each control token stands in the texts, as the tokenizer reads them."""
        times = Counter(texts)
        found: Counter[int] = Counter()
        if not times:
            return found
        rows = self._prompts.encode_texts(request_id, list(times), special_tokens=False)
        for row, count in zip(rows, times.values(), strict=True):
            for token in row:
                if token in self._names:
                    found[token] += count
        return found


def control_tokens(tokenizer: Any, template: str) -> dict[int, str]:
    """Return the tokens that can begin or end a turn, and their texts.

    They are the special tokens, and added tokens that the chat template writes (DeepSeek's
    `<｜User｜>` is not special). Of the latter, tags with a closing tag, such as `<think>`, mark
    parts of a turn and are left out.
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
    """Return whether a text is a tag whose other half is among the texts."""
    if not (text.startswith("<") and text.endswith(">")):
        return False
    other = f"<{text[2:]}" if text.startswith("</") else f"</{text[1:]}"
    return other in texts


def _texts(inputs: GenerationInputs) -> list[str]:
    """Return every text of a conversation that a chat template can write."""
    found: list[str] = []
    for message in inputs.messages or ():
        found += [message.role, message.text, message.tool_call_id or ""]
        for call in message.tool_calls:
            found += [call.id, call.name, _json(call.arguments), *_strings(call.arguments)]
    for tool in inputs.tools:
        found += [tool.name, tool.description, _json(tool.parameters), *_strings(tool.parameters)]
    return [text for text in found if text]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _strings(value: Any) -> list[str]:
    """Return the texts in plain JSON, as a template finds them: without escapes."""
    if isinstance(value, dict):
        return [text for each in value.items() for part in each for text in _strings(part)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [value] if isinstance(value, str) else []
