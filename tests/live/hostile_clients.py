"""Clients that hold the web process up: with requests that are hard to read, and with silence."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from urllib.parse import urlsplit

import httpx

CONNECT_S = 10.0


def head(method: str, path: str, *lines: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    """Return a connection from a loopback address of that name."""
    where = urlsplit(url)
    address = (where.hostname, where.port)
    made = socket.socket()
    try:
        # Bytes that this client does not read stay in the server's buffers.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(CONNECT_S)
        made.bind((source, 0))
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


@contextmanager
def holding(
    url: str, count: int, opening: bytes, *, addresses: int = 1, also: Callable[..., None] = id
) -> Iterator[list[socket.socket]]:
    """Hold `count` connections on which `opening` was sent until the block ends, opening each anew
    once the server closes it. `also` is called with each socket again and again.
    """
    sources = cycle([f"127.0.0.{number + 2}" for number in range(addresses)])
    stop = threading.Event()
    held: list[socket.socket] = []

    def opened() -> socket.socket | None:
        try:
            made = connect(url, next(sources))
            made.sendall(opening)
            made.setblocking(False)
        except OSError:
            return None
        return made

    def keep() -> None:
        while not stop.wait(0.2):
            gone = closed_ones(held)
            for number, each in enumerate(held):
                if stop.is_set():
                    return
                if each.fileno() in gone:
                    each.close()
                    if (again := opened()) is not None:
                        held[number] = again
                else:
                    with contextlib.suppress(OSError):
                        also(each)

    held.extend(made for made in (opened() for _ in range(count)) if made is not None)
    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield held
    finally:
        stop.set()
        keeper.join()
        for each in held:
            each.close()


def closed_ones(held: list[socket.socket]) -> set[int]:
    """Return the descriptors of those that the server has closed, reading nothing."""
    poll = select.poll()
    for each in held:
        if each.fileno() >= 0:
            poll.register(each, select.POLLRDHUP)
    return {number for number, _ in poll.poll(0)}


@contextmanager
def repeating(url: str, requests: list[bytes], threads: int = 2) -> Iterator[Counter[str]]:
    """Send the requests again and again until the block ends; counts the answers by status."""
    stop = threading.Event()
    answers: Counter[str] = Counter()

    def run(number: int) -> None:
        mine = cycle(requests[number:] + requests[:number])
        while not stop.is_set():
            with contextlib.suppress(OSError), connect(url) as spoken:
                spoken.sendall(next(mine))
                answers[spoken.recv(65536)[9:12].decode("latin-1")] += 1

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in running:
            thread.join()


def answered(url: str, seconds: float) -> int:
    """Return how often `/healthz` answered in that time."""
    end, count = time.monotonic() + seconds, 0
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.monotonic() < end:
            count += client.get("/healthz").status_code == 200
    return count


def heard(spoken: socket.socket) -> bytes:
    """Return the head of the first answer."""
    answer = b""
    while b"\r\n\r\n" not in answer and (part := spoken.recv(65536)):
        answer += part
    return answer
