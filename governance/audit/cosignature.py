"""Cosignatures of witnesses in C2SP's format tlog-cosignature: timestamped Ed25519.

A witness signs a checkpoint after it has seen that the log only grew since the last one it signed.
Whoever asks for cosignatures of witnesses that they trust cannot be shown a history of their own.
https://c2sp.org/tlog-cosignature. Pure: knows no Django, so that an export can be checked anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from governance.audit.checkpoint import MAX_NOTE_BYTES, BadCheckpoint, decode, key_id

ED25519_COSIGNATURE = b"\x04"
ID_BYTES = 4
TIME_BYTES = 8
SIGNATURE_BYTES = 64
MAX_NAME = 150


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One witness's, verified: `line` is the line in the note, without its end."""

    witness: str
    cosigned_at: datetime
    line: str


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness by its name and public key."""

    name: str
    id: bytes
    key: Ed25519PublicKey

    @classmethod
    def from_text(cls, vkey: str) -> Witness:
        """Read `name+hash+base64`.

        Raises:
            BadCheckpoint: it is not the verifier key of an Ed25519 cosigner.
        """
        try:
            name, hash_hex, encoded = vkey.strip().split("+", 2)
            data = decode(encoded)
            claimed = bytes.fromhex(hash_hex)
        except ValueError as error:
            raise BadCheckpoint(
                f"The witness's key {vkey[:100]!r} is not of the form name+hash+base64."
            ) from error
        public = data[1:]
        if (
            not 0 < len(name) <= MAX_NAME
            or data[:1] != ED25519_COSIGNATURE
            or len(public) != 32
            or key_id(name, public, ED25519_COSIGNATURE) != claimed
        ):
            raise BadCheckpoint(
                f"The key of the witness {name} is not one for timestamped Ed25519 cosignatures "
                "(type 0x04), or is damaged."
            )
        return cls(name, claimed, Ed25519PublicKey.from_public_bytes(public))

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}"

    def find(self, note: str) -> Cosignature | None:
        """This witness's valid cosignature in a note; None when there is none."""
        text, separator, signatures = note.partition("\n\n")
        if not separator or len(note) > MAX_NOTE_BYTES:
            return None
        prefix = f"— {self.name} "
        for line in signatures.split("\n"):
            if line.startswith(prefix):
                at = self._time(f"{text}\n", line.removeprefix(prefix))
                if at is not None:
                    return Cosignature(str(self), at, line)
        return None

    def _time(self, text: str, encoded: str) -> datetime | None:
        """When a cosignature of `text` was made; None when it is none of this key."""
        try:
            data = decode(encoded)
            if data[:ID_BYTES] != self.id or len(data) != ID_BYTES + TIME_BYTES + SIGNATURE_BYTES:
                return None
            seconds = int.from_bytes(data[ID_BYTES : ID_BYTES + TIME_BYTES], "big")
            self.key.verify(data[ID_BYTES + TIME_BYTES :], signed_message(text, seconds))
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError, InvalidSignature):
            return None


def signed_message(text: str, seconds: int) -> bytes:
    """What a witness signs of a note's text at a time, in seconds since the epoch."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def cosignatures(note: str, witnesses: Sequence[Witness]) -> list[Cosignature]:
    """The valid ones of these witnesses in a note, one of each key; other lines are ignored."""
    by_key = {witness.id + witness.key.public_bytes_raw(): witness for witness in witnesses}
    found = (witness.find(note) for witness in by_key.values())
    return [cosignature for cosignature in found if cosignature is not None]
