"""A witness as C2SP's tlog-witness has it: one HTTP server, its own key, its own memory of the log.

`how` makes it a bad one: it hangs until it is closed, floods, lies, or answers as it is told.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governance.audit.checkpoint import BadCheckpoint, Checkpoint, Verifier, parse
from governance.audit.tree.merkle import verify_consistency


class WitnessServer:
    """Watches the logs whose public keys it is given. Use as a context manager."""

    def __init__(self, name: str, *logs: str, how: str = "") -> None:
        self.name = name
        self.how = how
        self.logs = {verifier.name: verifier for verifier in map(Verifier.from_text, logs)}
        self.seen: dict[str, Checkpoint] = {}
        self.requests: list[str] = []
        self.asked = threading.Event()
        self.released = threading.Event()
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> WitnessServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/prefix"

    @property
    def setting(self) -> str:
        """As ASSAY_AUDIT_WITNESSES names it."""
        return f"{self.vkey} {self.url}"

    @property
    def vkey(self) -> str:
        public = b"\x04" + self._key.public_key().public_bytes_raw()
        return f"{self.name}+{self._id().hex()}+{base64.b64encode(public).decode()}"

    def _id(self) -> bytes:
        public = self._key.public_key().public_bytes_raw()
        return hashlib.sha256(self.name.encode() + b"\n\x04" + public).digest()[:4]

    def cosign(self, note: str, at: int | None = None, key: Ed25519PrivateKey | None = None) -> str:
        """The line under a note."""
        seconds = int(time.time()) if at is None else at
        text = note.partition("\n\n")[0] + "\n"
        message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
        signature = self._id() + seconds.to_bytes(8, "big") + (key or self._key).sign(message)
        return f"— {self.name} {base64.b64encode(signature).decode()}\n"

    def answer(self, body: str) -> tuple[int, str]:
        """Status and text for one request, in the order of the specification."""
        head, _, note = body.partition("\n\n")
        first, *lines = head.split("\n")
        old = int(first.removeprefix("old "))
        proof = [base64.b64decode(line, validate=True) for line in lines]
        try:
            verifier = self.logs.get(parse(note).origin)
        except BadCheckpoint:
            return 400, ""
        if verifier is None:
            return 404, ""
        try:
            new = verifier.open(note)
        except BadCheckpoint:
            return 403, ""
        if old > new.size:
            return 400, ""
        with self._lock:
            known = self.seen.get(new.origin)
            if old != (known.size if known else 0):
                return 409, f"{known.size if known else 0}\n"
            if known and known.size == new.size and known.root != new.root:
                return 409, f"{known.size}\n"
            if known is None:
                if proof:
                    return 422, ""
            elif not verify_consistency(known.size, new.size, known.root, new.root, proof):
                return 422, ""
            self.seen[new.origin] = new
        return 200, self.cosign(note)

    def misbehave(self, note: str) -> tuple[int, str]:
        """Return the answer of a bad witness."""
        if self.how == "hangs":
            self.released.wait()
        other = Ed25519PrivateKey.from_private_bytes(bytes(32))
        return {
            "hangs": (200, ""),
            "floods": (200, "x" * 1_000_000),
            "another key": (200, self.cosign(note, key=other)),
            "another note": (200, self.cosign("log\n5\nAAAA\n\n")),
            "the future": (200, self.cosign(note, at=int(time.time()) + 86_400)),
            "no time": (200, self.cosign(note, at=2**63 - 1)),
            "long ago": (200, self.cosign(note, at=1)),
            "nothing": (200, ""),
            "no size": (409, "-1\n"),
            "a huge size": (409, f"{10**30}\n"),
            "out of order": (500, "out of order"),
            "redirects": (307, ""),
        }[self.how]


def _handler(witness: WitnessServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            witness.requests.append(body)
            witness.asked.set()
            if self.path != "/prefix/add-checkpoint":
                status, text = 404, ""
            elif witness.how:
                status, text = witness.misbehave(body.partition("\n\n")[2])
            else:
                status, text = witness.answer(body)
            data = text.encode()
            self.send_response(status)
            if status == 409:
                self.send_header("Content-Type", "text/x.tlog.size")
            if status == 307:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # Whoever asked has had enough.
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
