"""Seal messages that cross the broker between gateways and engine workers.

The broker is not trusted with messages. Each web process and each engine worker process has its own
X25519 key pair. A worker's public key is in its replica's row, so that the gateway seals a request
for exactly the processes that have loaded the deployment; a gateway's public key is part of its
requests. The key of a pair derives from both, and from a wire key, which the broker never sees.
Nodes have their own wire keys, derived from that of the installation.

Each request has a random key, encrypted once for each recipient. It encrypts and authenticates the
request (AES-256-GCM); the keys of replies derive from it and from the key of the pair, one for each
delivery to a worker. The sequence number of a reply is its nonce; request, deployment, digest and
reply stream are its associated data. So no message can be read, forged, replayed, reordered, moved
to another request or omitted unnoticed, and no worker can answer as another one that received the
same request. Uses neither Django nor torch.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic_core import to_json

from workers.clock import CLOCK
from workers.wire import (
    Event,
    Failed,
    InferenceRequest,
    decode_events,
    encode_events,
    realm_of,
    reply_stream,
    worker_address,
)
from workers.wire_keys import KEY_BYTES, PAIRS_MAX, Forged, Pair, WireKey

logger = logging.getLogger(__name__)
_HEADER = ("request_id", "reply_stream", "gateway", "seals")
NONCE_BYTES = 12
_TAG_BYTES = 16
_FIRST_NONCE = bytes(NONCE_BYTES)
# Longest time that a request is remembered, so that it runs only once while its caller waits.
LONGEST_S = 3600.0
# Most remembered requests that were given back; their threads check long before this many come.
_GIVEN_BACK_MAX = 1_000
NOT_ADDRESSED = Failed("unavailable", "The deployment is moving between workers; try again.", 503)
# The gateway sends the request unchanged to other workers of the deployment.
GIVEN_BACK = Failed("unavailable", "The worker ended before it began the request; try again.", 503)


class NotAddressed(Exception):
    """A genuine request that is sealed for other processes. `fields` is the answer to send."""

    def __init__(self, request_id: str, stream: str, fields: dict[Any, Any]) -> None:
        super().__init__(f"Request {request_id} is sealed for other workers.")
        self.request_id = request_id
        self.stream = stream
        self.fields = fields


class GivenBack(Exception):
    """A request that this process has given back, for another process to answer."""


class GatewaySeals:
    """Seals the requests of one web process for the workers that have loaded the deployment."""

    def __init__(self, wire: WireKey) -> None:
        self._wire = wire
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes_raw()
        # None for a public key that is not usable for a key exchange.
        self._pairs: dict[str, Pair | None] = {}
        self._lock = threading.Lock()

    def seal(
        self, request: InferenceRequest, recipients: Iterable[str]
    ) -> tuple[dict[str, Any], ReplyReader]:
        """Return the message for the broker, and the reader of its replies.

        `recipients` are addresses of worker processes (`worker_address`). Those with an unusable
        key are skipped.
        """
        key = os.urandom(KEY_BYTES)
        pairs = {worker: pair for worker in recipients if (pair := self._pair(worker))}
        header = {
            "request_id": request.request_id,
            "reply_stream": request.reply_stream,
            "gateway": self._public.hex(),
            "seals": {worker: _wrapped(key, pair, request) for worker, pair in pairs.items()},
        }
        text = _canonical(header)
        body = AESGCM(_expanded(key, b"request")).encrypt(
            _FIRST_NONCE, to_json(request.to_message(), inf_nan_mode="constants"), text
        )
        # Include the realm "": a worker without a node may read the queue before it is known here.
        realms = {"", *map(realm_of, pairs)}
        macs = {realm: _text(self._wire.of(realm).header_mac(text)) for realm in realms}
        message = {**header, "macs": macs, "body": _text(body)}
        secrets = {worker: pair.replies for worker, pair in pairs.items()}
        return message, ReplyReader(self._wire, request, key, secrets)

    def _pair(self, worker: str) -> Pair | None:
        with self._lock:
            if worker not in self._pairs:
                if len(self._pairs) >= PAIRS_MAX:
                    self._pairs.clear()
                realm, _, public = worker.rpartition("/")
                try:
                    other, wire = bytes.fromhex(public), self._wire.of(realm)
                    self._pairs[worker] = wire.pair(self._private, other, self._public, other)
                except ValueError:
                    logger.error("Worker %s has an unusable key; it gets no requests", worker)
                    self._pairs[worker] = None
            return self._pairs[worker]


class WorkerSeals:
    """Opens requests that are sealed for one engine worker process, each once. On a node, `wire` is
    the node's key and `realm` its realm.
    """

    def __init__(self, wire: WireKey, realm: str = "") -> None:
        self._wire = wire
        self._realm = realm
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes_raw()
        self._pairs: dict[str, Pair] = {}
        self._opened: set[str] = set()
        # Times at which they are forgotten, the earliest first: limits of streams differ.
        self._expiries: list[tuple[float, str]] = []
        # Headers of messages that were given back. A request may come again with another header.
        self._given_back: set[bytes] = set()
        self._lock = threading.Lock()

    @property
    def public_key(self) -> str:
        """The public key in hexadecimal, as gateways read it from the replica's row."""
        return self._public.hex()

    @property
    def address(self) -> str:
        """Name of this process on the broker."""
        return worker_address(self._realm, self.public_key)

    def open(self, message: Mapping[str, Any]) -> tuple[InferenceRequest, ReplySeals]:
        """Return the request in `message`, and the sealer of its replies.

        Raises:
            Forged: the message is not from a gateway of this installation, was changed, or was
                delivered before.
            NotAddressed: the message is sealed for other processes.
            GivenBack: the message was given back.
        """
        try:
            header, text = self._header(message)
            sealed = header["seals"].get(self.address)
            if sealed is None:
                raise self._bounce(header["request_id"], header["reply_stream"])
            pair = self._pair(header["gateway"])
            key = _unwrapped(pair, _bytes(sealed), header["request_id"])
            body = AESGCM(_expanded(key, b"request")).decrypt(
                _FIRST_NONCE, _bytes(message["body"]), text
            )
            request = InferenceRequest.from_message(json.loads(body))
        except (KeyError, TypeError, ValueError, AttributeError, InvalidTag) as error:
            raise Forged(f"The request cannot be opened: {type(error).__name__}.") from error
        self._once(request)
        return request, ReplySeals(
            request,
            key,
            pair.replies,
            self._public,
            stream=reply_stream(request.reply_stream, self._realm),
            alone=len(header["seals"]) == 1,
        )

    def _header(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return the header of a message with a valid MAC, and the bytes that the MAC covers."""
        header = {name: message[name] for name in _HEADER}
        text = _canonical(header)
        mac = message["macs"].get(self._realm)
        # A gateway that does not know this node yet makes no MAC for it; the answer goes to the
        # node's own stream. Workers outside of nodes always get a MAC: without it, they would sign
        # for anyone, on any stream.
        if mac is None and self._realm:
            raise self._bounce(header["request_id"], header["reply_stream"])
        if not hmac.compare_digest(_bytes(mac), self._wire.header_mac(text)):
            raise Forged("The request carries no valid MAC.")
        if text in self._given_back:
            raise GivenBack
        return header, text

    def give_back(self, message: Mapping[str, Any]) -> NotAddressed:
        """Return the answer that gives an unopened request back to its gateway; `open` refuses the
        message from now on.

        Raises:
            Forged: see `open`, or the request was opened.
            GivenBack: the message was given back before.
        """
        try:
            header, text = self._header(message)
        except NotAddressed as unopened:
            return unopened
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Forged(f"The request cannot be given back: {type(error).__name__}.") from error
        with self._lock:
            if header["request_id"] in self._opened:
                raise Forged("The request has begun.")
            if len(self._given_back) >= _GIVEN_BACK_MAX:
                self._given_back.clear()
            self._given_back.add(text)
        return self._bounce(header["request_id"], header["reply_stream"], given_back=True)

    def keep(self, message: Mapping[str, Any]) -> None:
        """Allow `open` again for a request that could not be given back."""
        with self._lock:
            self._given_back.discard(_canonical({name: message[name] for name in _HEADER}))

    def canceled(self, message: str) -> str:
        """Return the request of a cancellation. See `WireKey.canceled`."""
        return self._wire.canceled(message)

    def _bounce(self, request_id: str, stream: str, *, given_back: bool = False) -> NotAddressed:
        mac = self._wire.bounce_mac(request_id, stream, given_back=given_back)
        own = reply_stream(stream, self._realm)
        return NotAddressed(request_id, own, {"id": request_id, "bounce": mac})

    def _pair(self, gateway: str) -> Pair:
        with self._lock:
            pair = self._pairs.get(gateway)
            if pair is None:
                if len(self._pairs) >= PAIRS_MAX:
                    self._pairs.clear()
                other = bytes.fromhex(gateway)
                pair = self._wire.pair(self._private, other, other, self._public)
                self._pairs[gateway] = pair
        return pair

    def _once(self, request: InferenceRequest) -> None:
        now = CLOCK.now()
        with self._lock:
            while self._expiries and self._expiries[0][0] <= now:
                self._opened.discard(heappop(self._expiries)[1])
            if request.request_id in self._opened:
                raise Forged("The request was delivered before.")
            self._opened.add(request.request_id)
            until = min(request.deadline or now + LONGEST_S, now + LONGEST_S)
            heappush(self._expiries, (until, request.request_id))


class ReplySeals:
    """Seals the replies of one worker to one delivery of a request, in order.

    Attributes:
        alone: The request was sealed only for this worker.
    """

    def __init__(
        self,
        request: InferenceRequest,
        key: bytes,
        secret: bytes,
        worker: bytes,
        *,
        stream: str,
        alone: bool,
    ) -> None:
        self.alone = alone
        self.request_id = request.request_id
        self.stream = stream
        self._delivery = worker + os.urandom(_TAG_BYTES)
        self._cipher = _reply_cipher(secret, key, self._delivery)
        self._context = _context(request)
        self._next = 0

    def seal(self, *events: Event) -> dict[Any, Any]:
        """Return the fields of the stream's next entry, which contains `events` in order.

        Not thread-safe.
        """
        number, self._next = self._next, self._next + 1
        body = self._cipher.encrypt(_nonce(number), encode_events(events), self._context)
        return {"id": self.request_id, "by": self._delivery, "n": number, "event": body}


class ReplyReader:
    """Checks and decrypts the replies to one request, which come from one worker in order.

    `secrets` are those that the gateway shares with each recipient of the request, by address.
    """

    def __init__(
        self, wire: WireKey, request: InferenceRequest, key: bytes, secrets: Mapping[str, bytes]
    ) -> None:
        self._wire = wire
        self._request = request
        self._key = key
        self._secrets = secrets
        self._context = _context(request)
        self._delivery = b""
        self._holder = ""
        self._cipher: AESGCM | None = None
        self._next = 0

    @property
    def deployment_id(self) -> int:
        """The deployment that the request is for."""
        return self._request.deployment_id

    def open(self, fields: Mapping[bytes, bytes], realm: str = "") -> list[Event]:
        """Return the events in one entry, at least one. `realm` is that of the stream.

        Raises:
            Forged: the entry is not from a recipient of the request, or is not the next one.
        """
        if b"bounce" in fields:
            return [self._bounced(fields[b"bounce"], realm)]
        try:
            delivery, number = fields[b"by"], int(fields[b"n"])
            cipher, holder = self._cipher_of(delivery, realm)
            body = cipher.decrypt(_nonce(number), fields[b"event"], self._context)
            events = decode_events(body)
        except Forged:
            raise
        except Exception as error:
            # One process reads the replies to all of its requests. Anything that a compromised
            # worker seals, such as JSON that is too deep, must end only this request.
            raise Forged(f"It cannot be opened: {type(error).__name__}.") from error
        # A worker whose replies were lost on the way sends a failure with a later number.
        if number != self._next and not (isinstance(events[0], Failed) and number > self._next):
            raise Forged(f"It is number {number}; number {self._next} is next.")
        self._delivery, self._cipher, self._next = delivery, cipher, number + 1
        self._holder = holder
        return events

    @property
    def holders(self) -> frozenset[str]:
        """Address of the answering worker process; before the first answer, of all recipients."""
        return frozenset({self._holder}) if self._holder else frozenset(self._secrets)

    def _cipher_of(self, delivery: bytes, realm: str) -> tuple[AESGCM, str]:
        holder = worker_address(realm, delivery[:KEY_BYTES].hex())
        if self._cipher is not None:
            if delivery != self._delivery or holder != self._holder:
                raise Forged("Two workers answer the same request.")
            return self._cipher, holder
        secret = self._secrets.get(holder)
        if secret is None:
            raise Forged("It comes from a process that is not a recipient of the request.")
        return _reply_cipher(secret, self._key, delivery), holder

    def _bounced(self, mac: bytes, realm: str) -> Event:
        request = self._request
        wire = self._wire.of(realm)
        for event, given_back in ((NOT_ADDRESSED, False), (GIVEN_BACK, True)):
            expected = wire.bounce_mac(
                request.request_id, request.reply_stream, given_back=given_back
            )
            if self._cipher is None and hmac.compare_digest(mac, expected):
                return event
        raise Forged("It carries no valid MAC.")


def _wrapped(key: bytes, pair: Pair, request: InferenceRequest) -> str:
    nonce = os.urandom(NONCE_BYTES)
    return _text(nonce + pair.cipher.encrypt(nonce, key, request.request_id.encode()))


def _unwrapped(pair: Pair, sealed: bytes, request_id: str) -> bytes:
    nonce, data = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    return pair.cipher.decrypt(nonce, data, request_id.encode())


def _reply_cipher(secret: bytes, key: bytes, delivery: bytes) -> AESGCM:
    """Return the cipher of the replies to one delivery. Other recipients of the request know `key`,
    but not the secret that gateway and worker share."""
    return AESGCM(_expanded(secret, b"reply" + key + delivery))


def _expanded(key: bytes, info: bytes) -> bytes:
    """Return the first block of HKDF-Expand (RFC 5869), which has all 32 bytes.

    It is computed twice per request, and is much faster than `HKDFExpand`; a test compares both.
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
