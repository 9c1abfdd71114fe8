"""Key pair of this machine, and the session that its workers share.

The key file, with mode 0600, contains the node's name and its Ed25519 key. The current session is
next to it, so that all worker processes of the machine use the same one.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governance.errors import InvalidInput

# Longer than signing in takes, which is two requests at most.
LOCK_PATIENCE_S = 35.0
_LOCK_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's name and its private key."""

    node: str
    key: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        """The public key in hexadecimal."""
        return self.key.public_key().public_bytes_raw().hex()

    def sign(self, text: bytes) -> str:
        """Return the signature in hexadecimal."""
        return self.key.sign(text).hex()


def identity_read(path: Path) -> Identity:
    """Read the key file.

    Raises:
        InvalidInput: the file is missing or damaged, or other users of the machine may read it.
    """
    try:
        mode = path.stat().st_mode
        body = json.loads(path.read_text(encoding="utf-8"))
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(body["private_key"]))
        name = body["node"]
    except OSError as error:
        raise InvalidInput(
            f"The key file {path} cannot be read: {error.strerror or error}.",
            hint="Run `assay node join URL` on this machine, or correct ASSAY_NODE_KEY_FILE.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"The key file {path} is damaged.",
            hint="Revoke the node, enroll it again, and run `assay node join URL`.",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInput(
            f"Other users may read the key file {path}; it was not used.",
            hint=f"Run `chmod 600 {path}`.",
        )
    return Identity(str(name), key)


def identity_write(path: Path, identity: Identity) -> None:
    """Write the key file, readable only for this user. Raises OSError."""
    secret = identity.key.private_bytes_raw().hex()
    _write(path, json.dumps({"node": identity.node, "private_key": secret}))


@dataclass(frozen=True, slots=True)
class Session:
    """The machine's session, as returned by `POST /node/v1/session`.

    `renew_at` is in seconds since the epoch, by the clock of this machine, which alone reads it.
    """

    token: str
    renew_at: float
    broker_user: str
    broker_password: str
    realm: str
    wire_key: str


class SessionFile:
    """The machine's session, next to the key file."""

    def __init__(self, key_file: Path) -> None:
        self._path = key_file.with_name(f"{key_file.name}.session")
        self._lock = key_file.with_name(f"{key_file.name}.lock")

    def read(self) -> Session | None:
        """Return the session; None if the file is missing or damaged."""
        try:
            return Session(**json.loads(self._path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, session: Session) -> None:
        _write(self._path, json.dumps(asdict(session)))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the session, so that one process of the machine signs in at a time.

        Raises:
            BlockingIOError: another process has the lock for longer than signing in takes.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._lock, flags, 0o600), "r+b") as file:
            _lock(file.fileno())
            yield


def _lock(file: int) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # `mkstemp` makes files of mode 0600.
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
