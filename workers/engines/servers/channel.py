"""Requests to a server on a Unix socket, and its answers as they come. Standard library alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

# A line of an answer holds one token, or the end with the settings of the request.
MAX_LINE = 4 * 1024 * 1024
MAX_BODY = 16 * 1024 * 1024


class ServerFailed(Exception):
    """The server did not answer, or not as it should."""


class ServerRefused(Exception):
    """The server refused a request; the message is the server's own.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Stream:
    """One streamed answer. One thread reads it; any thread may close it.

    Args:
        path: The server's socket.
        timeout: Seconds without a byte after which the server counts as failed.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._connection = _Connection(path, timeout)
        self.closed = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def events(self, target: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request and yield each event of the answer, until the server ends it.

        Raises:
            ServerRefused: the server refused the request.
            ServerFailed: it ended, hung, or wrote what is no event; or `close` was called.
        """
        try:
            response = _sent(self._connection, "POST", target, body)
            while line := response.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise ServerFailed("a line of the answer is too long")
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    event = json.loads(line[6:])
                    if isinstance(event, dict):
                        yield event
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerFailed(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the request: the server notices that the reader is gone."""
        self.closed = True
        if (channel := self._connection.sock) is not None:
            with contextlib.suppress(OSError):  # It has ended already.
                channel.shutdown(socket.SHUT_RDWR)


def call(
    path: Path, target: str, body: Mapping[str, Any] | None = None, *, timeout: float = 60.0
) -> dict[str, Any]:
    """Return the JSON answer to one request: a POST of `body`, or a GET without one.

    Raises:
        ServerRefused: the server refused the request.
        ServerFailed: it did not answer in time, or not in JSON.
    """
    connection = _Connection(path, timeout)
    try:
        response = _sent(connection, "GET" if body is None else "POST", target, body)
        data = response.read(MAX_BODY)
        answer = json.loads(data) if data.lstrip()[:1] in (b"{", b"[") else {}
        return answer if isinstance(answer, dict) else {"answer": answer}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerFailed(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _sent(
    connection: http.client.HTTPConnection, method: str, target: str, body: Any
) -> http.client.HTTPResponse:
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": "application/json"}
    connection.request(method, target, data, headers)
    response = connection.getresponse()
    if response.status != 200:
        raise ServerRefused(_reason(response.read(MAX_BODY)), response.status)
    return response


def _reason(data: bytes) -> str:
    """Return the sentence of an error in OpenAI's shape, or the beginning of what there is."""
    try:
        error = json.loads(data)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:500]
    except (ValueError, KeyError, TypeError):
        return data[:500].decode("utf-8", "replace")
