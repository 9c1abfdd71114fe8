"""Where this installation's checkpoint key comes from."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from governance.audit.checkpoint import BadCheckpoint, Signer, Verifier

KEY_FILE = "audit-signing-key"
SEED_BYTES = 32


def audit_signer() -> Signer:
    """The signer of `settings.AUDIT_LOG_NAME`.

    The seed is `settings.AUDIT_SIGNING_KEY` (64 hexadecimal digits); outside production, when it
    is unset, one made once in the data folder.

    Raises:
        ImproperlyConfigured: the key or the log's name is malformed, or is missing in production.
    """
    text = settings.AUDIT_SIGNING_KEY or _local_seed(settings.DATA_DIR / KEY_FILE)
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


def audit_public_keys() -> str:
    """The verifier keys that open this log's checkpoints: the signer's, then the retired ones.

    Raises:
        ImproperlyConfigured: as `audit_signer`; or a retired key is malformed or of another log.
    """
    keys = ",".join((audit_signer().public_key, *settings.AUDIT_RETIRED_KEYS))
    try:
        Verifier.from_text(keys)
    except BadCheckpoint as error:
        raise ImproperlyConfigured(
            f"ASSAY_AUDIT_RETIRED_KEYS holds what is no key of {settings.AUDIT_LOG_NAME}: {error}"
        ) from error
    return keys


def _local_seed(path: Path) -> str:
    if settings.PRODUCTION:
        raise ImproperlyConfigured("ASSAY_AUDIT_SIGNING_KEY is missing; production needs it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create_once(path, secrets.token_hex(SEED_BYTES))
    return path.read_text(encoding="ascii").strip()


def _create_once(path: Path, text: str) -> None:
    """Write a whole file that only this user may read, unless another process was first.

    It is written beside, then linked to its name, so that nobody reads half a key.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
