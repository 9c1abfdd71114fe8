"""Signatures that a process without the audit signing key requests from the controller.

The web process packs evidence; only the controller can sign it. The request goes over the broker
and names the attested object, not a text to sign: the controller writes the text itself, in a form
that differs from checkpoints. The answer is a signed note. The requester verifies it with the
public key, so the broker cannot forge one.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
from dataclasses import asdict, dataclass

import redis
from django.conf import settings

from governance.audit.checkpoint import BadCheckpoint, Verifier
from governance.audit.signing import audit_public_key, audit_signer, may_sign
from governance.errors import Unavailable

logger = logging.getLogger(__name__)

REQUESTS = "assay:attest"
KINDS = frozenset({"evidence"})
ANSWER_S = 10
POLL_S = 1
RETRY_S = 1.0
MAX_REQUEST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement that the log's owner made `subject` (such as `release 7`) with this SHA-256.

    The note's origin is not the log's name and its second line is not a number, so that an
    attestation and a checkpoint can never be confused.

    Raises:
        ValueError: a part is malformed.
    """

    kind: str
    subject: str
    digest: str

    def __post_init__(self) -> None:
        if (
            self.kind not in KINDS
            or not re.fullmatch(r"[a-z]{1,20} [0-9]{1,20}", self.subject)
            or not re.fullmatch(r"[0-9a-f]{64}", self.digest)
        ):
            raise ValueError(f"{self} cannot be attested.")

    def text(self, log: str) -> str:
        """Return the text to sign for the log of that name."""
        return f"{log}/{self.kind}\n{self.subject}\n{self.digest}\n"


def attest(attestation: Attestation) -> str:
    """Return a signed note over the attestation; the controller signs if this process may not.

    Raises:
        Unavailable: the broker or the controller did not answer in time, or not with this log's
            signature.
    """
    text = attestation.text(settings.AUDIT_LOG_NAME)
    if may_sign():
        return audit_signer().sign_text(text)
    try:
        note = _request(attestation)
    except redis.RedisError as error:
        raise Unavailable(
            "The broker does not answer, so nothing was signed.", retry_after=2
        ) from error
    if note is None:
        raise Unavailable(
            f"The controller did not sign within {ANSWER_S} s.",
            hint="Start the controller: `assay manage run_controller`.",
            retry_after=2,
        )
    try:
        signed = Verifier.from_text(audit_public_key()).open_text(note, "attestation")
    except BadCheckpoint as error:
        raise Unavailable(f"The signature cannot be used: {error}", retry_after=2) from error
    if signed != text:
        raise Unavailable("The signature is for other content.", retry_after=2)
    return note


def _request(attestation: Attestation) -> str | None:
    reply = f"{REQUESTS}:{secrets.token_hex(16)}"
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=ANSWER_S + 2, socket_connect_timeout=2
    ) as client:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.rpush(REQUESTS, json.dumps({**asdict(attestation), "reply": reply}))
            # The caller stops waiting after this time, whether a controller took it or not.
            pipeline.expire(REQUESTS, ANSWER_S)
            pipeline.execute()
        answer = client.blpop([reply], timeout=ANSWER_S)
    return None if answer is None else _text(answer[1])


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def run(stop: threading.Event) -> None:
    """Sign requested attestations until `stop` is set; wait while the broker is unavailable."""
    while not stop.is_set():
        try:
            with redis.Redis.from_url(
                settings.REDIS_URL, socket_timeout=POLL_S + 5, socket_connect_timeout=5
            ) as client:
                while not stop.is_set():
                    _answer_next(client)
        except redis.RedisError as error:
            logger.warning("No attestations are signed: %s", error)
            stop.wait(RETRY_S)


def _answer_next(client: redis.Redis) -> None:
    """Wait a moment for a request and sign it; drop invalid ones."""
    item = client.blpop([REQUESTS], timeout=POLL_S)
    if item is None:
        return
    try:
        if len(item[1]) > MAX_REQUEST_BYTES:
            raise ValueError("it is too long")
        request = json.loads(_text(item[1]))
        reply = str(request.pop("reply"))
        if not re.fullmatch(rf"{REQUESTS}:[0-9a-f]{{32}}", reply):
            raise ValueError("it has no valid reply key")
        text = Attestation(**request).text(settings.AUDIT_LOG_NAME)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("A request for an attestation was dropped: %s", error)
        return
    with client.pipeline(transaction=True) as pipeline:
        pipeline.rpush(reply, audit_signer().sign_text(text))
        pipeline.expire(reply, ANSWER_S)
        pipeline.execute()
