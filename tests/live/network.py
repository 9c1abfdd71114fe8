"""A network between a worker and the control plane that hangs, or breaks."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from django.db import connection

from tests.services import broker_url

CHUNK = 65_536
POLL_S = 0.05
Address = tuple[str, int] | str


class Network:
    """Forwards connections to `target`, a TCP address or the path of a Unix socket.

    `hang` stops all forwarding, and closes nothing: neither side learns of it. After `heal`, new
    connections work, and those from before stay silent forever, as behind a firewall that has
    forgotten them. `cut` ends all connections, and each new one at once, until `heal`.
    """

    def __init__(self, target: Address) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._era = 0
        self._hangs = self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def hang(self) -> None:
        self._hangs = True
        self._era += 1

    def cut(self) -> None:
        self._cut = True
        self._era += 1

    def heal(self) -> None:
        self._hangs = self._cut = False

    def close(self) -> None:
        self._closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                near.close()
                continue
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        era = self._era
        while self._hangs and not self._closed.is_set():
            time.sleep(POLL_S)  # The kernel has accepted it; nothing answers.
            era = -1
        far = self._connected()
        with near, far, selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while not self._closed.is_set():
                if era != self._era:
                    if not self._cut:
                        self._closed.wait()
                    return
                for key, _ in ready.select(POLL_S):
                    with suppress(ConnectionError):
                        data = key.fileobj.recv(CHUNK)  # type: ignore[union-attr]
                        if data and era == self._era:
                            key.data.sendall(data)
                            continue
                        if data:
                            continue
                    return

    def _connected(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target)
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._target)
        return far


@contextmanager
def network(target: Address) -> Iterator[Network]:
    """A network to `target` for the time of the block."""
    made = Network(target)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def web_network(url: str) -> Iterator[tuple[Network, str]]:
    """A network to the web process at `url`, and the URL by way of it."""
    parts = urlsplit(url)
    with network((str(parts.hostname), int(parts.port or 80))) as made:
        yield made, f"http://127.0.0.1:{made.port}"


@contextmanager
def database_network() -> Iterator[tuple[Network, dict[str, str]]]:
    """A network to the database, and libpq's settings by way of it."""
    host, port = connection.settings_dict["HOST"], connection.settings_dict["PORT"] or "5432"
    with network(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))) as made:
        yield made, {"PGHOST": "127.0.0.1", "PGPORT": str(made.port)}


@contextmanager
def broker_network() -> Iterator[tuple[Network, str]]:
    """A network to the broker, and its URL by way of it; a node gets its user for it later."""
    parts = urlsplit(broker_url("web"))
    target: Address = os.fspath(parts.path)
    if parts.scheme != "unix":
        target = (str(parts.hostname), int(parts.port or 6379))
    with network(target) as made:
        yield made, f"redis://127.0.0.1:{made.port}/0"
