"""Requests that continue or create a stored response. Loads neither Django nor torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

# The plan of `registry.catalog.endpoints`, which imports this module.
Plan = TypeVar("Plan")
Item = Mapping[str, Any]


class StoredRenderer(Protocol):
    """Renderer of a response stored under `id`. `ended` is the response once it is complete."""

    id: str
    ended: dict[str, Any] | None

    def begun(self) -> dict[str, Any]:
        """Return the response before its answer begins."""

    def forgo(self) -> None:
        """Mark the response as not stored."""


@dataclass(frozen=True, slots=True)
class Conversation(Generic[Plan]):
    """Part of a plan whose request may be stored, or continues a stored response.

    `previous` is the ID of the stored response; `store` is the caller's choice, None to leave it to
    the department's retention. `items` are the input items that the request adds.
    `plan_with(earlier, stored)` returns the plan after the earlier items of the conversation; it
    raises RequestInvalid. The renderers of these plans are `StoredRenderer`.
    """

    previous: str | None
    store: bool | None
    items: Sequence[Item]
    plan_with: Callable[[Sequence[Item], bool], Plan]
