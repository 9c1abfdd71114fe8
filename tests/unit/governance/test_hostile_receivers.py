"""Receivers of what the controller sends: those that drip, flood or lead elsewhere cost a bounded
time and amount of memory, and get nothing that is another's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from governance import mail
from governance.audit.streaming import https
from governance.audit.streaming.destinations import destinations_from
from governance.audit.streaming.sending import SendFailed
from governance.reviews.reminders.channels import mail_server_from, webhook_from
from governance.reviews.reminders.sending import WebhookSender
from tests.waiting import PATIENCE_S

# Limit of one exchange in these tests; the receivers never end one.
LIMIT_S = 1.0
Play = Callable[[socket.socket, threading.Event], None]


class Receiver:
    """Plays a role on each connection, until it is closed."""

    def __init__(self, play: Play) -> None:
        self.connections = 0
        self._play = play
        self._over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                taken, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with taken, contextlib.suppress(OSError):
            self._play(taken, self._over)

    def close(self) -> None:
        self._over.set()
        self._listening.close()


@pytest.fixture
def receive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Play], Receiver]]:
    monkeypatch.setattr(https, "ANSWER_S", LIMIT_S)
    monkeypatch.setattr(mail, "TIMEOUT_S", LIMIT_S)
    started: list[Receiver] = []

    def start(play: Play) -> Receiver:
        started.append(Receiver(play))
        return started[-1]

    yield start
    for receiver in started:
        receiver.close()


def drip(first: bytes, each: bytes) -> Play:
    """A byte or a line at a time, each well within the time of one read."""

    def play(taken: socket.socket, over: threading.Event) -> None:
        taken.sendall(first)
        while not over.wait(LIMIT_S / 4):
            taken.sendall(each)

    return play


def flood(first: bytes, each: bytes) -> Play:
    def play(taken: socket.socket, over: threading.Event) -> None:
        taken.sendall(first)
        while not over.is_set():
            taken.sendall(each * 2000)

    return play


HTTP = {
    "headers that drip": drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "lines of headers that drip": drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "informational answers that drip": drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "informational answers without end": flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "headers without end": flood(b"HTTP/1.1 200 OK\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
}


def streamed(port: int) -> None:
    (to,) = destinations_from(
        f'[{{"name": "soc", "url": "http://127.0.0.1:{port}/x", "token": "t"}}]', production=False
    )
    sender = https.HttpsSender(to)
    try:
        sender.send([b"{}"])
    finally:
        sender.close()


def posted(port: int) -> None:
    webhook = webhook_from(
        f"http://127.0.0.1:{port}/x", secret="s" * 40, ca_file="", production=False
    )
    assert webhook is not None
    WebhookSender(webhook.destination).post(b"{}", {})


@pytest.mark.parametrize("how", HTTP)
@pytest.mark.parametrize("send", [streamed, posted])
def test_an_answer_ends_in_time_however_it_comes(
    receive: Callable[[Play], Receiver], send: Callable[[int], None], how: str
) -> None:
    receiver = receive(HTTP[how])
    assert _bounded(lambda: send(receiver.port))


MAIL = {
    "a greeting without end": flood(b"", b"220-hello there\r\n"),
    "lines of a greeting that drip": drip(b"", b"220-hello\r\n"),
    "a line that drips": drip(b"220-", b"x"),
}


@pytest.mark.parametrize("how", MAIL)
def test_a_mail_server_is_given_up_in_time_however_it_talks(
    receive: Callable[[Play], Receiver], how: str
) -> None:
    receiver = receive(MAIL[how])
    server = mail_server_from(f"smtp://127.0.0.1:{receiver.port}", sender="assay@example.org")
    assert server is not None
    assert _bounded(
        lambda: mail.mail_send(server, to="a@b.org", subject="s", text="t", message_id="m")
    )


def test_a_redirect_leads_nowhere(
    receive: Callable[[Play], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "ANSWER_S", PATIENCE_S)
    inner = receive(lambda taken, over: None)

    def redirect(taken: socket.socket, over: threading.Event) -> None:
        taken.recv(65_536)
        place = f"http://127.0.0.1:{inner.port}/latest/meta-data/"
        taken.sendall(f"HTTP/1.1 307 Go\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())
        # Closing a connection with unread bytes resets it, which loses the answer.
        while taken.recv(65_536):
            pass

    for send in (streamed, posted):
        with pytest.raises(SendFailed, match="redirects, which is not followed"):
            send(receive(redirect).port)
    assert inner.connections == 0


def _bounded(send: Callable[[], None]) -> bool:
    """Return whether it fails as a receiver does, in time, with little memory."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            send()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    tracemalloc.start()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    peak = 0
    while thread.is_alive() and time.monotonic() < deadline and peak < 2**25:
        thread.join(0.05)
        peak = max(peak, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peak < 2**25, f"{peak:,} bytes"
    assert not thread.is_alive(), "it still waits"
    return isinstance(outcome[0], SendFailed)
