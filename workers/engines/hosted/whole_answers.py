"""Answers that are never streamed: the results of tasks other than text generation."""

from __future__ import annotations

from typing import Any

import orjson

from workers.egress.connections import ProviderFailed
from workers.engines.hosted.failures import MALFORMED, malformed, stated_failure
from workers.engines.hosted.shapes import State
from workers.wire import Delta


class WholeReader:
    """Base of their readers. A subclass returns the results of an answer."""

    def __init__(self, state: State) -> None:
        self.state = state

    def event(self, data: bytes) -> list[Delta]:
        """Raise ProviderFailed: the answer is sent whole."""
        raise ProviderFailed("The provider streamed an answer that was not requested as a stream.")

    def whole(self, body: bytes) -> list[Delta]:
        """Record the results of an answer; it has no pieces. Raises ProviderFailed."""
        state = self.state
        try:
            state.results = self._results(body)
        except MALFORMED as error:
            raise malformed(error) from error
        state.finish, state.complete = {0: "stop"}, True
        return []

    def _results(self, body: bytes) -> list[Any]:
        """Return the results, and record what the answer states. Raises an error of `MALFORMED` or
        ProviderFailed."""
        raise NotImplementedError

    def _parsed(self, body: bytes) -> Any:
        """Return a body in JSON, and record its model. Raises ProviderFailed for an error in it."""
        answer = orjson.loads(body)
        if answer.get("error"):
            raise stated_failure(answer)
        self.state.names(answer.get("model"))
        return answer
