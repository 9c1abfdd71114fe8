"""Chats stored under the ID of their answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from assay.plugins import declare
from tasks.text_generation.rendering import ChatRenderer


def stored_plan(
    plan: declare.Plan, metadata: Mapping[str, str] | None, items: list[dict[str, Any]]
) -> declare.Plan:
    """Return the plan of a chat to store with its messages (`items`), if its department keeps
    responses."""
    renderer = cast(ChatRenderer, plan.renderer)
    stored = StoredChatRenderer(
        id=renderer.id,
        model=renderer.model,
        created=renderer.created,
        include_usage=renderer.include_usage,
        choices=renderer.choices,
        tier=renderer.tier,
        metadata=dict(metadata or {}),
    )
    stored_version = replace(plan, renderer=stored)
    conversation = declare.Conversation(None, True, items, lambda earlier, stores: stored_version)
    return replace(stored_version, conversation=conversation)


@dataclass(slots=True)
class StoredChatRenderer(ChatRenderer):
    """A chat to store with `metadata`. `ended` is the complete chat, None until then."""

    metadata: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Any] | None = None
    _streamed: dict[int, declare.Choice] = field(default_factory=dict)

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        # A dataclass with slots has no `__class__` cell for `super()`.
        self.ended = {**ChatRenderer.whole(self, answer), "metadata": self.metadata}
        return self.ended

    def delta(self, piece: declare.Piece) -> str:
        self._streamed.setdefault(piece.index, declare.Choice(piece.index)).add(piece)
        return ChatRenderer.delta(self, piece)

    def closing(self, answer: declare.Answer) -> str:
        """Return the end of the stream, and set `ended` to the chat that was streamed."""
        for index in range(self.choices):
            choice = self._streamed.setdefault(index, declare.Choice(index))
            choice.finish_reason = choice.finish_reason or answer.finish_reason
        choices = [self._streamed[index] for index in sorted(self._streamed)]
        self.whole(replace(answer, choices=choices))
        return ChatRenderer.closing(self, answer)

    def begun(self) -> dict[str, Any]:
        """Return the chat before the first piece of its answer."""
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [],
            "metadata": self.metadata,
        }

    def forgo(self) -> None:
        """Change nothing: a chat does not state whether it is stored."""
