"""Seals on what crosses the broker between gateways and engine workers.

The broker carries messages and vouches for none. Each web process and each engine worker process
has an X25519 key pair of its own. A worker's public key stands in its replica's row, so that the
gateway seals a request for exactly the processes that hold the deployment; a gateway's travels with
its requests. The key of a pair comes from both, and from the installation's wire key, which the
broker never sees.

Each request has a random key, encrypted once for each recipient. It encrypts and authenticates the
request (AES-256-GCM); the keys of replies derive from it, one for each delivery to a worker. The
sequence number of a reply is its nonce; request, deployment, digest and reply stream are its
associated data. So no message can be read, forged, replayed, reordered, moved to another request or
left out unnoticed. Knows neither Django nor torch.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic_core import to_json

from workers.wire import Event, Failed, InferenceRequest, decode_events, encode_events

KEY_BYTES = 32
NONCE_BYTES = 12
_TAG_BYTES = 16
_FIRST_NONCE = bytes(NONCE_BYTES)
# A request is remembered until its caller has stopped waiting, so that it runs once.
LONGEST_S = 3600.0
# Public keys of gateways whose pair key is kept.
PAIRS_MAX = 1000
NOT_ADDRESSED = Failed(
    "unavailable", "The deployment is changing hands between workers; ask again.", 503
)


class Forged(Exception):
    """The message was not made by whom it must come from, or is not the next one."""


class NotAddressed(Exception):
    """A genuine request that is sealed for other processes. `fields` answer it."""

    def __init__(self, request_id: str, stream: str, fields: dict[Any, Any]) -> None:
        super().__init__(f"Request {request_id} is sealed for other workers.")
        self.stream = stream
        self.fields = fields


class WireKey:
    """Derive one key for each purpose from the installation's secret.

    Raises:
        ValueError: the secret is empty.
    """

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError(
                "ASSAY_WIRE_KEY is missing: web processes and engine workers need the same secret "
                "of at least 32 characters in ASSAY_WIRE_KEY or ASSAY_WIRE_KEY_FILE."
            )
        self._secret = secret.encode()
        self._cancel = self._derived(b"cancel")
        self._bounce = self._derived(b"not addressed")
        # Copied for each request: preparing the key costs more than the MAC.
        self._header = HMAC(self._derived(b"header"), hashes.SHA256())
        self._pairs = self._derived(b"pairs")

    def pair(self, own: X25519PrivateKey, other: bytes, gateway: bytes, worker: bytes) -> AESGCM:
        """The cipher between one gateway and one worker process."""
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
        info = b"assay wire 1 pair" + gateway + worker
        return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, self._pairs, info).derive(shared))

    def header_mac(self, header: bytes) -> bytes:
        mac = self._header.copy()
        mac.update(header)
        return mac.finalize()

    def bounce_mac(self, request_id: str, stream: str) -> bytes:
        """Proof that a worker of the installation sends a request back unopened."""
        return hmac.digest(self._bounce, json.dumps([request_id, stream]).encode(), "sha256")

    def cancel_message(self, request_id: str) -> str:
        """The notice that a request is cancelled."""
        return f"{request_id}:{self._cancel_mac(request_id)}"

    def cancelled(self, message: str) -> str:
        """The request that `cancel_message` names.

        Raises:
            Forged: no gateway of this installation wrote it.
        """
        request_id, _, mac = message.rpartition(":")
        if not hmac.compare_digest(mac.encode(), self._cancel_mac(request_id).encode()):
            raise Forged("The cancellation carries no valid MAC.")
        return request_id

    def _cancel_mac(self, request_id: str) -> str:
        return hmac.digest(self._cancel, request_id.encode(), "sha256").hex()

    def _derived(self, purpose: bytes) -> bytes:
        kdf = HKDF(hashes.SHA256(), KEY_BYTES, None, b"assay wire 1 " + purpose)
        return kdf.derive(self._secret)


class GatewaySeals:
    """One web process: seals requests, each for the workers that hold the deployment."""

    def __init__(self, wire: WireKey) -> None:
        self._wire = wire
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes_raw()
        self._pairs: dict[str, AESGCM] = {}
        self._lock = threading.Lock()

    def seal(
        self, request: InferenceRequest, recipients: Iterable[str]
    ) -> tuple[dict[str, Any], ReplyReader]:
        """The message for the broker, and what reads the replies to it.

        `recipients` are public keys of worker processes in hexadecimal.
        """
        key = os.urandom(KEY_BYTES)
        header = {
            "request_id": request.request_id,
            "reply_stream": request.reply_stream,
            "gateway": self._public.hex(),
            "seals": {worker: self._wrapped(key, worker, request) for worker in recipients},
        }
        text = _canonical(header)
        body = AESGCM(_expanded(key, b"request")).encrypt(
            _FIRST_NONCE, to_json(request.to_message(), inf_nan_mode="constants"), text
        )
        message = {**header, "mac": _text(self._wire.header_mac(text)), "body": _text(body)}
        return message, ReplyReader(self._wire, request, key, frozenset(header["seals"]))

    def _wrapped(self, key: bytes, worker: str, request: InferenceRequest) -> str:
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._pair(worker).encrypt(nonce, key, request.request_id.encode())
        return _text(nonce + sealed)

    def _pair(self, worker: str) -> AESGCM:
        with self._lock:
            found = self._pairs.get(worker)
            if found is None:
                if len(self._pairs) >= PAIRS_MAX:
                    self._pairs.clear()
                other = bytes.fromhex(worker)
                found = self._wire.pair(self._private, other, self._public, other)
                self._pairs[worker] = found
        return found


class WorkerSeals:
    """One engine worker process: opens requests that are sealed for it, each once."""

    def __init__(self, wire: WireKey) -> None:
        self._wire = wire
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes_raw()
        self._pairs: dict[str, AESGCM] = {}
        self._opened: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def public_key(self) -> str:
        """In hexadecimal, as gateways read it from the replica's row."""
        return self._public.hex()

    def open(self, message: Mapping[str, Any]) -> tuple[InferenceRequest, ReplySeals]:
        """The request in `message`, and what seals the replies to it.

        Raises:
            Forged: no gateway of this installation made it, it was changed, or it came before.
            NotAddressed: it is sealed for other processes.
        """
        try:
            header = {
                name: message[name] for name in ("request_id", "reply_stream", "gateway", "seals")
            }
            text = _canonical(header)
            genuine = hmac.compare_digest(_bytes(message["mac"]), self._wire.header_mac(text))
            if not genuine:
                raise Forged("The request carries no valid MAC.")
            sealed = header["seals"].get(self.public_key)
            if sealed is None:
                raise self._bounce(header["request_id"], header["reply_stream"])
            key = self._unwrapped(header["gateway"], _bytes(sealed), header["request_id"])
            body = AESGCM(_expanded(key, b"request")).decrypt(
                _FIRST_NONCE, _bytes(message["body"]), text
            )
            request = InferenceRequest.from_message(json.loads(body))
        except (KeyError, TypeError, ValueError, AttributeError, InvalidTag) as error:
            raise Forged(f"The request cannot be opened: {type(error).__name__}.") from error
        self._once(request)
        return request, ReplySeals(request, key, self._public, alone=len(header["seals"]) == 1)

    def cancelled(self, message: str) -> str:
        """As `WireKey.cancelled`."""
        return self._wire.cancelled(message)

    def _bounce(self, request_id: str, stream: str) -> NotAddressed:
        mac = self._wire.bounce_mac(request_id, stream)
        return NotAddressed(request_id, stream, {"id": request_id, "bounce": mac})

    def _unwrapped(self, gateway: str, sealed: bytes, request_id: str) -> bytes:
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        return self._pair(gateway).decrypt(nonce, ciphertext, request_id.encode())

    def _pair(self, gateway: str) -> AESGCM:
        with self._lock:
            found = self._pairs.get(gateway)
            if found is None:
                if len(self._pairs) >= PAIRS_MAX:
                    self._pairs.clear()
                other = bytes.fromhex(gateway)
                found = self._wire.pair(self._private, other, other, self._public)
                self._pairs[gateway] = found
        return found

    def _once(self, request: InferenceRequest) -> None:
        now = time.time()
        with self._lock:
            for request_id, until in list(self._opened.items()):
                if until > now:
                    break
                del self._opened[request_id]
            if request.request_id in self._opened:
                raise Forged("The request was delivered before.")
            self._opened[request.request_id] = min(
                request.deadline or now + LONGEST_S, now + LONGEST_S
            )


class ReplySeals:
    """The replies of one worker to one delivery of a request, in order.

    Attributes:
        alone: The request was sealed for this worker and no other.
    """

    def __init__(
        self, request: InferenceRequest, key: bytes, worker: bytes, *, alone: bool
    ) -> None:
        self.alone = alone
        self.request_id = request.request_id
        self.stream = request.reply_stream
        self._delivery = worker + os.urandom(_TAG_BYTES)
        self._cipher = AESGCM(_expanded(key, b"reply" + self._delivery))
        self._context = _context(request)
        self._next = 0

    def seal(self, *events: Event) -> dict[Any, Any]:
        """Return the fields of the stream's next entry, which carries `events` in their order.

        Not for several threads at once.
        """
        number, self._next = self._next, self._next + 1
        body = self._cipher.encrypt(_nonce(number), encode_events(events), self._context)
        return {"id": self.request_id, "by": self._delivery, "n": number, "event": body}


class ReplyReader:
    """Checks and decrypts the replies to one request, which one worker makes in one order."""

    def __init__(
        self, wire: WireKey, request: InferenceRequest, key: bytes, workers: frozenset[str]
    ) -> None:
        self._wire = wire
        self._request = request
        self._key = key
        self._workers = workers
        self._context = _context(request)
        self._delivery = b""
        self._cipher: AESGCM | None = None
        self._next = 0

    def open(self, fields: Mapping[bytes, bytes]) -> list[Event]:
        """Return the events in one entry of the stream, at least one.

        Raises:
            Forged: it does not come from a worker that holds the request, or is not the next one.
        """
        if b"bounce" in fields:
            return [self._bounced(fields[b"bounce"])]
        try:
            delivery, number = fields[b"by"], int(fields[b"n"])
            cipher = self._cipher_of(delivery)
            body = cipher.decrypt(_nonce(number), fields[b"event"], self._context)
            events = decode_events(body)
        except Forged:
            raise
        except Exception as error:
            # One process reads the replies to all of its requests: whatever a worker that turned
            # against it seals, such as no object or JSON that is too deep, ends this request alone.
            raise Forged(f"It cannot be opened: {type(error).__name__}.") from error
        # A worker that lost some replies on their way says so with a failure, later in the order.
        if number != self._next and not (isinstance(events[0], Failed) and number > self._next):
            raise Forged(f"It is number {number}; number {self._next} is next.")
        self._delivery, self._cipher, self._next = delivery, cipher, number + 1
        return events

    @property
    def holders(self) -> frozenset[str]:
        """Public key of the worker process that answers; before it does, of all that could."""
        if self._cipher is None:
            return self._workers
        return frozenset({self._delivery[:KEY_BYTES].hex()})

    def _cipher_of(self, delivery: bytes) -> AESGCM:
        if self._cipher is not None:
            if delivery != self._delivery:
                raise Forged("Two workers answer the same request.")
            return self._cipher
        if delivery[:KEY_BYTES].hex() not in self._workers:
            raise Forged("It comes from a process that does not hold the deployment.")
        return AESGCM(_expanded(self._key, b"reply" + delivery))

    def _bounced(self, mac: bytes) -> Event:
        request = self._request
        expected = self._wire.bounce_mac(request.request_id, request.reply_stream)
        if self._cipher is not None or not hmac.compare_digest(mac, expected):
            raise Forged("It carries no valid MAC.")
        return NOT_ADDRESSED


def _expanded(key: bytes, info: bytes) -> bytes:
    """Return the first block of HKDF-Expand (RFC 5869), which is all of 32 bytes.

    It is made twice a request; `HKDFExpand`, which a test compares it with, takes much longer.
    """
    return hmac.digest(key, b"assay wire 1 " + info + b"\x01", "sha256")


def _context(request: InferenceRequest) -> bytes:
    return json.dumps(
        [request.request_id, request.deployment_id, request.digest, request.reply_stream]
    ).encode()


def _canonical(header: Mapping[str, Any]) -> bytes:
    return orjson.dumps(header, option=orjson.OPT_SORT_KEYS)


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
