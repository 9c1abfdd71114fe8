"""Events per second streamed to a collector over HTTPS, saving the cursor after each batch.

The subject is a stream's loop: read, open, render, send, save the cursor. The reference posts the
same batches, already rendered, to the same collector over one connection. Each event concerns two
people; one of the rows opens their boxes. Rounds are interleaved.
"""

from __future__ import annotations

import ipaddress
import json
import multiprocessing
import ssl
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stores import own_stores
from benchmarks.table import Row, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from governance.audit.streaming.streamer import Streamer

EVENTS = 10_000


class Collector(BaseHTTPRequestHandler):
    """Accepts every body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def collect(certificate: str, ports: Any) -> None:
    """Run a collector in a separate process; put its port into `ports`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    ports.put(server.server_port)
    server.serve_forever()


def self_signed(file: Path) -> None:
    """Write a certificate for the collector, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


@contextmanager
def collector(folder: Path) -> Iterator[dict[str, Any]]:
    """Run a collector, and yield the settings of the destination."""
    file = folder / "collector.pem"
    self_signed(file)
    spawning = multiprocessing.get_context("spawn")
    ports = spawning.Queue()
    process = spawning.Process(target=collect, args=(str(file), ports), daemon=True)
    process.start()
    try:
        yield {"url": f"https://127.0.0.1:{ports.get(timeout=30)}/", "ca_file": str(file)}
    finally:
        process.terminate()
        process.join()


def run(*, quick: bool = False) -> list[Row]:
    """Start separate stores, measure, and stop them. Django must not be set up yet."""
    with own_stores():
        from django.conf import settings

        with collector(settings.DATA_DIR.parent) as reach:
            return _measure(reach, rounds=2 if quick else 5)


def _measure(reach: dict[str, Any], *, rounds: int) -> list[Row]:
    _record()
    rows = []
    for name, more in (
        ("people by their ids", {}),
        ("with personal data", {"personal_data": True}),
        ("people by their ids, CEF", {"format": "cef"}),
    ):
        ours: list[float] = []
        plain: list[float] = []
        for number in range(rounds):
            label = "".join(word[0] for word in name.split()).lower()
            one = _streamer({"name": f"{label}-{number}", **reach, **more})
            batches: list[list[bytes]] = []
            ours.append(_streamed_rate(one, batches))
            plain.append(_posted_rate(one, batches))
            one.close()
        rows.append(Row.of(name, "events/s", ours, plain))
    return rows


def _record() -> None:
    from django.db import transaction

    from governance.audit.sealer import seal_once
    from governance.audit.services import AuditEntry, Subject, audit_record_many
    from governance.people.models import Person
    from governance.people.selectors import principal_for_person

    people = [
        Person.objects.create(name=f"Person {n}", email=f"p{n}@example.org") for n in range(50)
    ]
    actors = [principal_for_person(person) for person in people]
    with transaction.atomic():
        audit_record_many(
            AuditEntry(
                actors[number % 50],
                "person:update",
                Subject("person", str(people[(number + 1) % 50].pk), "Somebody"),
                data={"changed": ["name"], "from": "A", "to": "B"},
            )
            for number in range(EVENTS)
        )
    while seal_once():
        pass


def _streamer(settings: dict[str, Any]) -> Streamer:
    from governance.audit.streaming.destinations import destinations_from
    from governance.audit.streaming.streamer import Streamer

    (destination,) = destinations_from(json.dumps([settings]), production=True)
    return Streamer(destination)


def _streamed_rate(streamer: Streamer, batches: list[list[bytes]]) -> float:
    """Return events per second of the stream; append the sent lines to `batches`."""
    send = streamer._sender.send

    def send_and_keep(lines: Any) -> None:
        batches.append(list(lines))
        send(lines)

    streamer._sender.send = send_and_keep  # type: ignore[method-assign]
    started = time.perf_counter()
    while sum(map(len, batches)) < EVENTS:
        streamer.step()
    took = time.perf_counter() - started
    streamer._sender.send = send  # type: ignore[method-assign]
    return EVENTS / took


def _posted_rate(streamer: Streamer, batches: list[list[bytes]]) -> float:
    started = time.perf_counter()
    for batch in batches:
        streamer._sender.send(batch)
    return EVENTS / (time.perf_counter() - started)


if __name__ == "__main__":
    show("Streaming over HTTPS", "the same bytes", run(quick="--quick" in sys.argv))
