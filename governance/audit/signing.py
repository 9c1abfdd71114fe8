"""The source of this installation's checkpoint key.

Only the controller signs. Others verify with the public key: of `settings.AUDIT_PUBLIC_KEY`, or in
development of a file that the controller keeps in the data folder.
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
    """Return whether this process holds the signing key.

    The controller does; in development also any process that was started as no particular one.
    """
    return settings.PROCESS in {"", "controller"}


def audit_signer() -> Signer:
    """The signer of `settings.AUDIT_LOG_NAME`.

    The seed is `settings.AUDIT_SIGNING_KEY` (64 hexadecimal digits); outside production, when it
    is unset, one made once in the data folder.

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
    _show(settings.DATA_DIR / PUBLIC_KEY_FILE, signer.public_key)
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
    """The verifier key of the present signer: `name+hash+base64`.

    Raises:
        ImproperlyConfigured: as `audit_signer`, where this process may sign.
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
    """The verifier keys that open this log's checkpoints: the signer's, then the retired ones.

    Raises:
        ImproperlyConfigured, Unavailable: as `audit_public_key`; or a key is malformed.
    """
    keys = audit_keys_by_log()
    return keys[settings.AUDIT_LOG_NAME]


def audit_keys_by_log() -> dict[str, str]:
    """The verifier keys by the log's name: the present one's, and those that it had before events
    were lost, under which it signed its first checkpoints.

    Raises:
        ImproperlyConfigured, Unavailable: as `audit_public_keys`.
    """
    found: dict[str, list[str]] = {settings.AUDIT_LOG_NAME: []}
    for text in (audit_public_key(), *settings.AUDIT_RETIRED_KEYS):
        found.setdefault(text.partition("+")[0], []).append(text)
    keys = {name: ",".join(texts) for name, texts in found.items()}
    try:
        for text in keys.values():
            Verifier.from_text(text)
    except BadCheckpoint as error:
        raise ImproperlyConfigured(
            "ASSAY_AUDIT_PUBLIC_KEY or ASSAY_AUDIT_RETIRED_KEYS holds what is no key, or the first "
            f"none of {settings.AUDIT_LOG_NAME}: {error}"
        ) from error
    return keys


def _local_seed(path: Path) -> str:
    if settings.PRODUCTION:
        raise ImproperlyConfigured("ASSAY_AUDIT_SIGNING_KEY is missing; production needs it.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = _draft(path, secrets.token_hex(SEED_BYTES), OWNERS_FILE)
        try:
            # Linked to its name, so that the first of several wins and no reader sees half a key.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip()


def _show(path: Path, public_key: str) -> None:
    """Keep the public key where processes that may not sign find it."""
    if path.exists() and path.read_text(encoding="ascii").strip() == public_key:
        return
    _draft(path, public_key, EVERYONES_FILE).replace(path)


def _draft(path: Path, text: str, mode: int) -> Path:
    """Write a whole file in the folder of `path`, flushed to disk."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
