"""This installation's signing key for checkpoints, and its public keys.

Only the controller signs. Others verify with the public key in `settings.AUDIT_PUBLIC_KEY`, or in
development with the one that the controller writes to the data folder.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from governance.audit.checkpoint import BadCheckpoint, Signer, Verifier
from governance.errors import Unavailable

KEY_FILE = "audit-signing-key"
PUBLIC_KEY_FILE = "audit-public-key"
OWNERS_FILE, EVERYONES_FILE = 0o600, 0o644
SEED_BYTES = 32


def may_sign() -> bool:
    """Return whether this process has the signing key.

    The controller has it; in development, so does any process without a `PROCESS` setting.
    """
    return settings.PROCESS in {"", "controller"}


def audit_signer() -> Signer:
    """Return the signer of `settings.AUDIT_LOG_NAME`.

    The seed is `settings.AUDIT_SIGNING_KEY` (64 hexadecimal digits). If unset outside production,
    a seed is created once in the data folder.

    Raises:
        ImproperlyConfigured: this process is not the controller; or the key or the log's name is
            malformed, or is missing in production.
    """
    if not may_sign():
        raise ImproperlyConfigured(
            f"Only the controller holds the audit signing key; this process is {settings.PROCESS}."
        )
    if settings.AUDIT_SIGNING_KEY:
        return _signer(settings.AUDIT_SIGNING_KEY)
    signer = _signer(_local_seed(settings.DATA_DIR / KEY_FILE))
    _store_public_key(settings.DATA_DIR / PUBLIC_KEY_FILE, signer.public_key)
    return signer


def _signer(text: str) -> Signer:
    try:
        seed = bytes.fromhex(text)
        if len(seed) != SEED_BYTES:
            raise ValueError(f"it has {len(seed)} bytes")
        return Signer(settings.AUDIT_LOG_NAME, seed)
    except ValueError as error:
        raise ImproperlyConfigured(
            "ASSAY_AUDIT_SIGNING_KEY must be 64 hexadecimal digits (`openssl rand -hex 32`) and "
            f"ASSAY_AUDIT_LOG_NAME a name without spaces: {error}."
        ) from error


def audit_public_key() -> str:
    """Return the verifier key of the current signer: `name+hash+base64`.

    Raises:
        ImproperlyConfigured: as `audit_signer`, if this process may sign.
        Unavailable: in development, the controller has not started yet.
    """
    if may_sign():
        return audit_signer().public_key
    if settings.AUDIT_PUBLIC_KEY:
        return str(settings.AUDIT_PUBLIC_KEY)
    try:
        return (settings.DATA_DIR / PUBLIC_KEY_FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise Unavailable(
            "The audit log's public key is not known yet.",
            hint="Start the controller: `assay manage run_controller`.",
            retry_after=2,
        ) from error


def audit_public_keys() -> str:
    """Return the verifier keys of this log's checkpoints: the current one, then the retired ones.

    Raises:
        ImproperlyConfigured, Unavailable: as `audit_public_key`; or a key is malformed.
    """
    keys = audit_keys_by_log()
    return keys[settings.AUDIT_LOG_NAME]


def audit_keys_by_log() -> dict[str, str]:
    """Return the verifier keys by log name. After a loss of events the log gets a new name; its
    first checkpoints are signed under the old one.

    Raises:
        ImproperlyConfigured, Unavailable: as `audit_public_keys`.
    """
    texts_by_log: dict[str, list[str]] = {settings.AUDIT_LOG_NAME: []}
    for text in (audit_public_key(), *settings.AUDIT_RETIRED_KEYS):
        texts_by_log.setdefault(text.partition("+")[0], []).append(text)
    keys = {name: ",".join(texts) for name, texts in texts_by_log.items()}
    try:
        for text in keys.values():
            Verifier.from_text(text)
    except BadCheckpoint as error:
        raise ImproperlyConfigured(
            "ASSAY_AUDIT_PUBLIC_KEY or ASSAY_AUDIT_RETIRED_KEYS contains an invalid key, or the "
            f"first belongs to another log than {settings.AUDIT_LOG_NAME}: {error}"
        ) from error
    return keys


def _local_seed(path: Path) -> str:
    if settings.PRODUCTION:
        raise ImproperlyConfigured("ASSAY_AUDIT_SIGNING_KEY is missing; production needs it.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = _draft(path, secrets.token_hex(SEED_BYTES), OWNERS_FILE)
        try:
            # A link to the final name: the first of several processes wins, and readers never see
            # half a key.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip()


def _store_public_key(path: Path, public_key: str) -> None:
    """Write the public key for processes that may not sign."""
    if path.exists() and path.read_text(encoding="ascii").strip() == public_key:
        return
    _draft(path, public_key, EVERYONES_FILE).replace(path)


def _draft(path: Path, text: str, mode: int) -> Path:
    """Write a temporary file next to `path`, flushed to disk; return its path."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
