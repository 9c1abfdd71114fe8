"""Receivers as a SIEM has them, each a real server in a thread: a collector over HTTP(S) and a
syslog receiver over TCP or TLS. Each may misbehave, as a test says.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.db import transaction

from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.principals import service_principal
from tests.waiting import PATIENCE_S

ACTOR = service_principal("tester")


def sealed(count: int, action: str = "model:create") -> None:
    """Record and seal events."""
    with transaction.atomic():
        audit_record_many(
            AuditEntry(ACTOR, action, Subject("model", str(i), f"model {i}")) for i in range(count)
        )
    while seal_once():
        pass


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of one's own, and what it signed: files in PEM."""

    authority: Path
    server: Path
    client: Path

    def serving(self, *, ask: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server)
        if ask:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


def make_certificates(folder: Path) -> Certificates:
    authority_key, authority = _certificate("authority", None)
    (folder / "authority.pem").write_bytes(_pem(authority))
    for name in ("server", "client"):
        key, certificate = _certificate(name, (authority_key, authority))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / f"{name}.pem").write_bytes(private + _pem(certificate))
    return Certificates(*(folder / f"{name}.pem" for name in ("authority", "server", "client")))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    name: str, issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_key = issuer[0] if issuer else key
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
    )
    return key, builder.sign(signing_key, hashes.SHA256())


class Collector:
    """Takes POSTs. `answer` is asked before each is read and says what becomes of it:

    a status; `(status, headers)`; "drop" to close before reading, "half" in the middle, "mute"
    after taking it without an answer; "hang" for never answering. A function of the body's lines
    decides after reading.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answer: Callable[[], Any] = lambda: 200
        self.lines: list[bytes] = []
        self.posts: list[dict[str, str]] = []
        self.over = threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://localhost:{self._server.server_port}/services/collector/event"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        what = self.answer()
        length = int(handler.headers["Content-Length"])
        if what in ("drop", "half"):
            if what == "half":
                handler.rfile.read(length // 2)
            _reset(handler.connection)
            handler.close_connection = True
            return
        body = handler.rfile.read(length)
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        lines = body.splitlines()
        if callable(what):
            what = what(lines)
        if what == "hang":
            self.over.wait(PATIENCE_S)
            handler.close_connection = True
            return
        if what in (200, "mute"):
            self.posts.append(dict(handler.headers))
            self.lines.extend(lines)
        if what == "mute":
            handler.close_connection = True
            return
        status, headers = what if isinstance(what, tuple) else (what, {})
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")


class SyslogReceiver:
    """Takes messages framed by octet counting. `patience` is asked for each connection, and says
    after how many bytes the receiver dies with what it has not read; None: never.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.patience: Callable[[], int | None] = lambda: None
        self.messages: list[bytes] = []
        self.connections = 0
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "syslog+tcp" if context is None else "syslog+tls"
        self.url = f"{scheme}://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError, ssl.SSLError), connection:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        left = self.patience()
        if left == 0:
            _reset(connection)
            return
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            held = b""
            while data := connection.recv(4096 if left is None else min(left, 4096)):
                held += data
                held = self._parse(held)
                if left is not None and (left := left - len(data)) <= 0:
                    _reset(connection)
                    return
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()

    def _parse(self, held: bytes) -> bytes:
        while b" " in held:
            length, _, rest = held.partition(b" ")
            if len(rest) < int(length):
                break
            self.messages.append(rest[: int(length)])
            held = rest[int(length) :]
        return held


def _reset(connection: socket.socket) -> None:
    """Close as the system does for a process that dies with unread bytes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(connection, ssl.SSLSocket):
        # Without a closure alert.
        connection = socket.socket(fileno=connection.detach())
    connection.close()


def sequences(lines: list[bytes]) -> list[int]:
    """The numbers of OCSF events, in the order in which each came first."""
    found = [json.loads(line[line.index(b"{") :])["metadata"]["sequence"] for line in lines]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def running(receiver: Collector | SyslogReceiver) -> Iterator[Any]:
    try:
        yield receiver
    finally:
        receiver.close()
