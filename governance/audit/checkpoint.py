"""Checkpoints: signed tree heads in C2SP's formats tlog-checkpoint and signed-note.

https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note. Does not import Django, so that an
export can be checked anywhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from governance.audit.tree.merkle import HASH_BYTES

ED25519 = b"\x01"
MAX_NOTE_BYTES = 64 * 1024


class BadCheckpoint(ValueError):
    """Text that is not a checkpoint, or that has no trusted signature."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of the tree of the log `origin` when it had `size` leaves."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text to sign: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def key_id(name: str, public: bytes, algorithm: bytes = ED25519) -> bytes:
    """Return the first 4 bytes of SHA-256(name || newline || algorithm || public key)."""
    return hashlib.sha256(name.encode() + b"\n" + algorithm + public).digest()[:4]


class Signer:
    """Signer of checkpoints as `name`, with the Ed25519 key of a 32-byte `seed`."""

    def __init__(self, name: str, seed: bytes) -> None:
        if not name or "+" in name or any(c.isspace() for c in name):
            raise ValueError(f"A log's name must be without spaces and '+'; it is {name!r}.")
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()

    @property
    def public_key(self) -> str:
        """The verifier key: `name+hash+base64`."""
        encoded = base64.b64encode(ED25519 + self._public).decode()
        return f"{self.name}+{key_id(self.name, self._public).hex()}+{encoded}"

    def sign(self, size: int, root: bytes) -> str:
        """Return a signed note over the tree head."""
        return self.sign_text(Checkpoint(self.name, size, root).text())

    def sign_text(self, text: str) -> str:
        """Return a signed note over `text`: whole lines that do not begin like a checkpoint."""
        signature = key_id(self.name, self._public) + self._key.sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifier of checkpoints of one log, signed with any of its keys.

    A log has several keys if its signing key was changed: the retired ones verify old checkpoints.
    `keys` are by ID.
    """

    name: str
    keys: Mapping[bytes, Ed25519PublicKey]

    @classmethod
    def from_text(cls, public_keys: str) -> Verifier:
        """Read verifier keys `name+hash+base64`, separated by commas.

        Raises:
            BadCheckpoint: one is not an Ed25519 verifier key, its hash is another key's, or they
                belong to different logs.
        """
        keys = [_public_key(text) for text in split_keys(public_keys) or [""]]
        name = keys[0][0]
        if any(other != name for other, *_ in keys):
            raise BadCheckpoint("The public keys are of different logs.")
        return cls(name, {claimed: key for _, claimed, key in keys})

    def open(self, note: str) -> Checkpoint:
        """Return the checkpoint in a note that one of the keys signed.

        Raises:
            BadCheckpoint: malformed, of another log, or without a valid signature.
        """
        checkpoint = parse(self.open_text(note))
        if checkpoint.origin != self.name:
            raise BadCheckpoint(f"The checkpoint is of {checkpoint.origin}, not of {self.name}.")
        return checkpoint

    def open_text(self, note: str, what: str = "checkpoint") -> str:
        """Return the text of a note that one of the keys signed; `what` names it in errors.

        Raises:
            BadCheckpoint: malformed, or without a valid signature.
        """
        text, separator, signatures = note.partition("\n\n")
        if not separator or len(note) > MAX_NOTE_BYTES:
            raise BadCheckpoint(f"The {what} is not a signed note.")
        text += "\n"
        if not any(self._signed(text, line) for line in signatures.split("\n")):
            raise BadCheckpoint(f"The {what} carries no valid signature by {self.name}.")
        return text

    def _signed(self, text: str, line: str) -> bool:
        prefix = f"— {self.name} "
        if not line.startswith(prefix):
            return False
        try:
            signature = decode(line[len(prefix) :])
            key = self.keys.get(signature[:4])
            if key is None:
                return False
            key.verify(signature[4:], text.encode())
        except (ValueError, InvalidSignature):
            return False
        return True


def split_keys(public_keys: str) -> list[str]:
    """Return the verifier keys in comma-separated text."""
    return [text.strip() for text in public_keys.split(",") if text.strip()]


def _public_key(text: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """Return name, key ID and key of a verifier key."""
    try:
        name, hash_hex, encoded = text.split("+", 2)
        data = decode(encoded)
        claimed = bytes.fromhex(hash_hex)
    except ValueError as error:
        raise BadCheckpoint("The public key is not of the form name+hash+base64.") from error
    if data[:1] != ED25519 or len(data) != 33 or key_id(name, data[1:]) != claimed:
        raise BadCheckpoint(f"The public key of {name} is not an Ed25519 key, or is damaged.")
    return name, claimed, Ed25519PublicKey.from_public_bytes(data[1:])


def decode(text: str) -> bytes:
    """Decode canonical Base64; raise ValueError for any other encoding of the same bytes."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def parse(text: str) -> Checkpoint:
    """Read the text or the whole note of a checkpoint, without checking signatures.

    Raises:
        BadCheckpoint: it has no origin, size and root.
    """
    lines = text.split("\n")
    try:
        origin, size, encoded = lines[:3]
        root = decode(encoded)
        number = int(size)
    except ValueError as error:
        raise BadCheckpoint("A checkpoint is three lines: origin, size, root hash.") from error
    if not origin or str(number) != size or number < 0 or len(root) != HASH_BYTES:
        raise BadCheckpoint("The checkpoint's origin, size or root hash is malformed.")
    return Checkpoint(origin, number, root)
