"""RFC 5424 messages over TLS (RFC 5425) or TCP, with octet counting (RFC 6587).

Syslog has no acknowledgment. So each batch has its own connection, which must end properly: we send
everything, the receiver's system acknowledges every byte while the connection is open, we close our
side, and the receiver, which sees this only after reading all of it, closes too. Over TLS we
require its closure alert, which a third party cannot forge. A receiver that dies with unread
messages resets the connection instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fcntl import ioctl

from governance.audit.streaming.destinations import Destination
from governance.audit.streaming.ocsf import severity_of
from governance.audit.streaming.records import Record
from governance.audit.streaming.sending import (
    ANSWER_S,
    CONNECT_S,
    SendFailed,
    failure_words,
    tls_context,
)

LOG_AUDIT = 13
# OCSF's severity → syslog's: informational, notice, warning, error, critical.
SEVERITIES = {1: 6, 2: 5, 3: 4, 4: 3, 5: 2}
STRAY_BYTES_MAX = 64 * 1024
LOOK_AGAIN_MS = 2
_UNEXPECTED = "it sends data, which syslog receivers do not do"


def syslog_message(record: Record, text: bytes, *, host: str) -> bytes:
    """Return the message with `text`, without its frame."""
    priority = LOG_AUDIT * 8 + SEVERITIES[severity_of(record)]
    moment = datetime.fromisoformat(str(record.body["occurred_at"])).astimezone(UTC)
    at = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    message_id = _printable(str(record.body["action"]), 32)
    return f"<{priority}>1 {at} {_printable(host, 255)} assay - {message_id} - ".encode() + text


def framed(message: bytes) -> bytes:
    """Return the message with its length in octets before it."""
    return b"%d %s" % (len(message), message)


class SyslogSender:
    """Sender with a new connection for each batch."""

    def __init__(self, destination: Destination) -> None:
        self._to = destination

    def send(self, lines: Sequence[bytes]) -> None:
        context = tls_context(self._to) if self._to.encrypted else None
        try:
            with socket.create_connection((self._to.host, self._to.port), CONNECT_S) as plain:
                connection = plain
                if context is not None:
                    connection = context.wrap_socket(plain, server_hostname=self._to.host)
                with connection:
                    _deliver(connection, b"".join(framed(line) for line in lines))
        except OSError as error:
            raise SendFailed(
                f"{self._to.address} did not accept the batch: {failure_words(error)}."
            ) from error

    def close(self) -> None:
        """Do nothing: no connection stays open between batches."""


def _deliver(connection: socket.socket, payload: bytes) -> None:
    deadline = time.monotonic() + ANSWER_S
    connection.settimeout(ANSWER_S)
    connection.sendall(payload)
    _await_acknowledged(connection, deadline)
    _check_standing(connection)
    _end_in_good_order(connection, deadline)


def _await_acknowledged(connection: socket.socket, deadline: float) -> None:
    """Wait until the receiver's system has acknowledged all bytes, if this system can tell."""
    broken = select.poll()
    broken.register(connection, 0)
    while True:
        try:
            (unacknowledged,) = struct.unpack("i", ioctl(connection, termios.TIOCOUTQ, bytes(4)))
        except OSError:
            return
        if unacknowledged == 0:
            return
        # Waits a little, only for a broken connection.
        if broken.poll(LOOK_AGAIN_MS):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if time.monotonic() > deadline:
            raise TimeoutError


def _check_standing(connection: socket.socket) -> None:
    """Raise ConnectionError if the receiver closed the connection before our side did."""
    connection.setblocking(False)
    try:
        for _ in range(STRAY_BYTES_MAX // 1024):
            if not connection.recv(1024):
                raise ConnectionResetError(0, "it closed the connection early")
        raise ConnectionAbortedError(0, _UNEXPECTED)
    except (BlockingIOError, ssl.SSLWantReadError):
        pass


def _end_in_good_order(connection: socket.socket, deadline: float) -> None:
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        # Sends our closure alert and waits for the receiver's.
        connection.unwrap().close()
        return
    connection.shutdown(socket.SHUT_WR)
    for _ in range(STRAY_BYTES_MAX // 1024):
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        if not connection.recv(1024):
            return
    raise ConnectionAbortedError(0, _UNEXPECTED)


def _printable(text: str, width: int) -> str:
    """Return a header field: printable ASCII without spaces; a hyphen if it is empty."""
    with contextlib.suppress(UnicodeError):
        text = text.encode("ascii", "replace").decode()
    field = "".join(c if "!" <= c <= "~" else "_" for c in text[:width])
    return field or "-"
