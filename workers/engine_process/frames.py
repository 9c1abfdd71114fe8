"""Messages between an engine worker and the process of its engines.

A frame has two lengths, of the rest of the frame and of its JSON; then the JSON; then the byte
strings of the message, one after another. The JSON lists the place of each, so that a caller's
value cannot pass for bytes. Frames do not use pickle: one side holds keys, the other reads models.
"""

from __future__ import annotations

import contextlib
import io
import json
import queue
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

Message = dict[str, Any]
_Path = tuple[str | int, ...]

# Environment variable of a run with the descriptor of its socket to an egress worker.
RELAY = "ASSAY_RELAY"
MAX_FRAME = 512 * 1024 * 1024
# The most waiting frames that one call sends.
_TOGETHER = 64
_READ_AHEAD = 256 * 1024
_LENGTHS = struct.Struct("!II")


class BadFrame(ValueError):
    """The message cannot be packed, or the frame cannot be unpacked."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Return the frame of a message of JSON values and bytes.

    Raises:
        BadFrame: it is larger than `MAX_FRAME`, or has a value that JSON cannot represent.
    """
    strings: list[tuple[_Path, bytes]] = []
    body = _without_bytes(message, (), strings)
    places = [(path, len(data)) for path, data in strings]
    try:
        text = to_json((body, places), inf_nan_mode="constants")
    except ValueError as error:
        raise BadFrame(f"It cannot be sent: {error}") from error
    size = len(text) + sum(length for _, length in places)
    if size > MAX_FRAME:
        raise BadFrame(f"It has {size} bytes; at most {MAX_FRAME} are sent.")
    return b"".join((_LENGTHS.pack(size, len(text)), text, *(data for _, data in strings)))


def unpack(stream: IO[bytes], most: int = MAX_FRAME) -> Message | None:
    """Return the next message, of at most `most` bytes; None at the end of the stream.

    Raises:
        BadFrame: the frame is too large, truncated or malformed.
    """
    head = stream.read(_LENGTHS.size)
    if not head:
        return None
    size, text_size = _LENGTHS.unpack(head) if len(head) == _LENGTHS.size else (0, 1)
    if size > most or text_size > size:
        raise BadFrame(f"A frame declares {size} bytes, {text_size} of them JSON.")
    text = stream.read(text_size)
    try:
        body, places = _parsed(text)
        left = size - text_size
        for path, length in places:
            if not 0 <= length <= left:
                raise BadFrame("A frame declares more bytes than it has.")
            left -= length
            data = stream.read(length)
            if len(data) != length:
                raise BadFrame("The stream ended within a frame.")
            _put(body, path, data)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadFrame(f"A frame is malformed: {error}") from error
    if left or not isinstance(body, dict):
        raise BadFrame("A frame is malformed.")
    return body


def _parsed(text: bytes) -> Any:
    try:
        return from_json(text)
    except ValueError:
        # `from_json` reads 200 levels of nesting but `to_json` writes 255: a valid message of one
        # side must not end the other.
        return json.loads(text)


def _without_bytes(value: Any, path: _Path, strings: list[tuple[_Path, bytes]]) -> Any:
    """Return `value` with None in place of bytes, which are added to `strings`.

    Lists of numbers are skipped, because they cannot contain bytes.
    """
    if isinstance(value, bytes):
        strings.append((path, value))
        return None
    if isinstance(value, Mapping):
        return {key: _without_bytes(part, (*path, key), strings) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return [_without_bytes(part, (*path, at), strings) for at, part in enumerate(value)]
    return value


def _put(body: Any, path: Sequence[Any], data: bytes) -> None:
    """Put bytes in their place. Raises TypeError or LookupError if the place does not exist."""
    for step in path[:-1]:
        body = body[step]
    if body[path[-1]] is not None:
        raise LookupError("bytes stand in the place of another value")
    body[path[-1]] = data


def plain(value: Any) -> Any:
    """Return the set fields of a schema as JSON and bytes; pydantic would iterate over streams."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return [plain(part) for part in value]
    if hasattr(value, "read"):
        return value.read()
    return value


class Channel:
    """One side of the socket. Any thread may `send`; one thread reads `messages`.

    A separate thread writes, so that callers do not wait for a slow reader.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._broken = False
        self._thread = threading.Thread(target=self._write, name="engine-frames", daemon=True)
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message; it is lost if the other side has ended. Raises BadFrame."""
        frame = pack(message)
        if not self._broken:
            self._queue.put(frame)

    def messages(self, most: int = MAX_FRAME) -> Iterator[Message]:
        """Yield messages of at most `most` bytes until the other side ends. Raises BadFrame."""
        raw = self._end.makefile("rb", buffering=0)
        with self._end, io.BufferedReader(raw, _READ_AHEAD) as stream:
            while True:
                try:
                    message = unpack(stream, most)
                except OSError:
                    return
                if message is None:
                    return
                yield message

    def close(self) -> None:
        """Send the queued messages and end the connection."""
        self._queue.put(None)

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            frames, over = [first], False
            while len(frames) < _TOGETHER and not self._queue.empty():
                frame = self._queue.get()
                if frame is None:
                    over = True
                    break
                frames.append(frame)
            try:
                self._end.sendall(b"".join(frames))
            except OSError:
                over = True
            if over:
                break
        self._broken = True
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
