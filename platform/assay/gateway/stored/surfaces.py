"""The paths under `/v1` that reach stored objects, each group in a module of its own."""

from __future__ import annotations

from typing import Protocol

from assay.gateway.stored import batches, chats, files, responses, vector_stores
from assay.gateway.stored.requests import Asked
from governance.permissions import Action


class Surface(Protocol):
    """A module that answers a group of paths."""

    PATH: str

    def label(self, method: str, path: str) -> str:
        """Return the path as metrics and the ledger name it; empty when it is not one of these."""

    def check_method(self, endpoint: str, method: str) -> None:
        """Raise WrongMethod unless the path that is labeled `endpoint` takes `method`."""

    def action_of(self, endpoint: str, method: str) -> Action:
        """Return the action that a request is."""

    async def answer(self, asked: Asked) -> None:
        """Answer a request, and record it.

        Raises:
            DomainError: it is refused.
        """


_SURFACES: tuple[Surface, ...] = (vector_stores, responses, files, batches, chats)


def surface_of(method: str, path: str) -> Surface | None:
    """Return the module that answers `path`, if any."""
    return next((each for each in _SURFACES if each.label(method, path)), None)


def surface_paths() -> tuple[str, ...]:
    """Return the path that each group begins with."""
    return tuple(dict.fromkeys(each.PATH for each in _SURFACES))
