"""Cosignatures of witnesses in C2SP's format tlog-cosignature: timestamped Ed25519.

A witness signs a checkpoint if the log has only grown since the last one it signed. An auditor who
requires cosignatures of trusted witnesses sees the same history as everyone else.
https://c2sp.org/tlog-cosignature. Does not import Django: an export can be checked anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from governance.audit.checkpoint import MAX_NOTE_BYTES, BadCheckpoint, decode, key_id, parse

ED25519_COSIGNATURE = b"\x04"
ID_BYTES = 4
TIME_BYTES = 8
SIGNATURE_BYTES = 64
MAX_NAME = 150


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's verified signature. `line` is its line of the note, without a line break."""

    witness: str
    cosigned_at: datetime
    line: str


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: its name and public key."""

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
        """Return this witness's valid cosignature in a note, or None."""
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
        """Return the time of a cosignature of `text`; None if it is not by this key."""
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
    """Return the bytes that a witness signs for a note's text at a time, in seconds since the
    epoch.
    """
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class Quorum:
    """Trusted witnesses, and the number of them that must have cosigned a checkpoint."""

    witnesses: tuple[Witness, ...]
    needed: int

    @classmethod
    def of(cls, vkeys: Sequence[str], needed: int | None = None) -> Quorum:
        """Require cosignatures of `needed` of the witnesses; None means all of them.

        Raises:
            BadCheckpoint: a key is invalid or repeated, or there are fewer witnesses than needed.
        """
        witnesses = tuple(Witness.from_text(vkey) for vkey in vkeys)
        # A key under two names would count twice for one witness.
        if len({witness.key.public_bytes_raw() for witness in witnesses}) != len(witnesses):
            raise BadCheckpoint("A witness is named twice.")
        needed = len(witnesses) if needed is None else needed
        if not 1 <= needed <= len(witnesses):
            raise BadCheckpoint(f"{needed} of {len(witnesses)} witnesses cannot be required.")
        return cls(witnesses, needed)

    def require(self, notes: Sequence[str]) -> tuple[int, list[Cosignature]]:
        """Return the size of the largest tree that enough witnesses cosigned, and the cosignatures.

        Verify the log's own signature of the notes before.

        Raises:
            BadCheckpoint: none of the notes has enough cosignatures.
        """
        most = 0
        for note in sorted(notes, key=lambda note: parse(note).size, reverse=True):
            cosignatures = [c for witness in self.witnesses if (c := witness.find(note))]
            if len(cosignatures) >= self.needed:
                return parse(note).size, cosignatures
            most = max(most, len(cosignatures))
        raise BadCheckpoint(
            f"A checkpoint needs cosignatures of {self.needed} of the {len(self.witnesses)} "
            f"witnesses; the best one here has {most}."
        )
