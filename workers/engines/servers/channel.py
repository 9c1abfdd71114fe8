"""Requests to a server on a Unix socket, and its streamed answers.

orjson parses the answers, because it refuses lone surrogates and numbers that are not finite, which
cannot be sent to a caller.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

# A line of an answer contains one token, or the end and the settings of the request.
MAX_LINE = 4 * 1024 * 1024
MAX_BODY = 16 * 1024 * 1024


class ServerFailed(Exception):
    """The server did not answer, or its answer is malformed."""


class ServerRefused(Exception):
    """The server refused a request; the message is the server's own.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Address:
    """Socket of a server, and the key that it requires with each request."""

    socket: Path
    key: str = field(repr=False)


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(address.socket)
        self.key = address.key

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
        address: Address of the server.
        timeout: Seconds without a byte after which the server counts as failed.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._connection = _Connection(address, timeout)
        self._channel: socket.socket | None = None
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
            ServerFailed: it ended, hung, or wrote a malformed event; or `close` was called.
        """
        try:
            self._connection.connect()
            self._channel = self._connection.sock
            # An earlier `close` had no socket to shut down.
            if self.closed:
                raise ServerFailed("the request was ended before it was sent")
            response = _sent(self._connection, "POST", target, body)
            while line := response.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise ServerFailed("a line of the answer is too long")
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    event = orjson.loads(line[6:])
                    if isinstance(event, dict):
                        yield event
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerFailed(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the request; the server notices the closed connection."""
        self.closed = True
        if self._channel is not None:
            with contextlib.suppress(OSError):  # The connection has ended already.
                self._channel.shutdown(socket.SHUT_RDWR)


def call(
    address: Address, target: str, body: Mapping[str, Any] | None = None, *, timeout: float = 60.0
) -> dict[str, Any]:
    """Return the JSON answer to one request: a POST of `body`, or a GET without one.

    Raises:
        ServerRefused: the server refused the request.
        ServerFailed: it did not answer in time, or the answer is not JSON.
    """
    connection = _Connection(address, timeout)
    try:
        response = _sent(connection, "GET" if body is None else "POST", target, body)
        data = response.read(MAX_BODY)
        answer = orjson.loads(data) if data.lstrip()[:1] in (b"{", b"[") else {}
        return answer if isinstance(answer, dict) else {"answer": answer}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerFailed(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def get_text(address: Address, target: str, *, timeout: float) -> str:
    """Return the text that answers a GET. Raises as `call`."""
    connection = _Connection(address, timeout)
    try:
        return _sent(connection, "GET", target, None).read(MAX_BODY).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerFailed(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _sent(connection: _Connection, method: str, target: str, body: Any) -> http.client.HTTPResponse:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {connection.key}"}
    if data is not None:
        headers["Content-Type"] = "application/json"
    connection.request(method, target, data, headers)
    response = connection.getresponse()
    if response.status != 200:
        raise ServerRefused(_reason(response.read(MAX_BODY)), response.status)
    return response


def _reason(data: bytes) -> str:
    """Return the message of an error in OpenAI's format, else the beginning of the body."""
    try:
        error = orjson.loads(data)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:500]
    except (ValueError, KeyError, TypeError):
        return data[:500].decode("utf-8", "replace")
