"""Keys of the request log: one for each department, wrapped by a key that only web processes have.

A department's key is random. It is stored encrypted (ChaCha20-Poly1305) under a key derived from
`ASSAY_REQUEST_LOG_KEY`, bound to its department and number. Two keys are derived from it: one
encrypts content, the other makes pseudonyms of end users.
"""

from __future__ import annotations

import functools
import hmac
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from governance.errors import WrongState
from governance.people.models import Department
from governance.request_log.models import TAG_BYTES, RequestLogKey

logger = logging.getLogger(__name__)
_KEY_BYTES, _NONCE_BYTES = 32, 12


class ContentUnreadable(WrongState):
    """The content cannot be decrypted (409)."""

    code = "content_unreadable"
    title = "Content unreadable"


@dataclass(frozen=True, slots=True)
class DepartmentKey:
    """A key of a department that was not erased."""

    id: int
    department_id: int
    created_at: datetime
    content: bytes
    users: bytes

    def sealed(self, request_id: str, plain: bytes) -> bytes:
        """Return the content of a request, encrypted for this department and request."""
        return _sealed(self.content, plain, self._bound_to(request_id))

    def opened(self, request_id: str, content: bytes) -> bytes:
        """Return decrypted content. Raises ContentUnreadable if it was changed or moved."""
        return _opened(self.content, content, self._bound_to(request_id))

    def tag(self, user: str) -> bytes:
        """Return the pseudonym of an end user."""
        text = user.encode("utf-8", "surrogatepass")
        return hmac.digest(self.users, text, sha256)[:TAG_BYTES]

    def _bound_to(self, request_id: str) -> bytes:
        return f"assay request log|{self.department_id}|{self.id}|{request_id}".encode()


def has_wrapping_key() -> bool:
    """Return whether this process can read and write content."""
    return bool(settings.REQUEST_LOG_KEYS)


def require_wrapping_key() -> None:
    """Raise WrongState without `ASSAY_REQUEST_LOG_KEY`."""
    if not has_wrapping_key():
        raise WrongState(
            "ASSAY_REQUEST_LOG_KEY is not set, so content cannot be encrypted.",
            code="request_log_key_missing",
            hint="An operator sets it for the web processes and restarts them.",
        )


def key_add(department: Department) -> RequestLogKey:
    """Create the department's next key. The caller holds the lock of its request log."""
    require_wrapping_key()
    last = RequestLogKey.objects.filter(department=department).order_by("-number").first()
    number = 1 if last is None else last.number + 1
    secret, version = os.urandom(_KEY_BYTES), max(settings.REQUEST_LOG_KEYS)
    return RequestLogKey.objects.create(
        department=department,
        number=number,
        wrapped=_sealed(_wrapping(version), secret, _place(department.pk, number)),
        wrapped_by=version,
    )


def keys_rewrap(department: Department) -> int:
    """Encrypt the department's keys under the newest wrapping key; return the number of changed
    keys."""
    newest, changed = max(settings.REQUEST_LOG_KEYS), 0
    rows = RequestLogKey.objects.filter(department=department, erased_at__isnull=True)
    for row in rows.exclude(wrapped_by=newest):
        place = _place(row.department_id, row.number)
        row.wrapped, row.wrapped_by = _sealed(_wrapping(newest), _secret(row), place), newest
        row.save(update_fields=["wrapped", "wrapped_by"])
        changed += 1
    return changed


def department_keys(departments: Iterable[int]) -> dict[int, DepartmentKey]:
    """Return the newest key of each department; those without one that this process can read are
    missing."""
    rows = RequestLogKey.objects.filter(department__in=departments, erased_at__isnull=True)
    newest = {row.department_id: row for row in rows.order_by("number")}
    keys = {}
    for department_id, row in newest.items():
        try:
            keys[department_id] = _derived(row)
        except ContentUnreadable as error:
            logger.error("%s cannot be read: %s", str(row).capitalize(), error.message)
    return keys


def keys_of(departments: Iterable[int]) -> list[DepartmentKey]:
    """Return all keys of these departments that were not erased."""
    rows = RequestLogKey.objects.filter(department__in=departments, erased_at__isnull=True)
    return [_derived(row) for row in rows]


def key_of(row: RequestLogKey) -> DepartmentKey:
    """Return a key to read with. Raises ContentUnreadable if it was erased."""
    if row.erased_at is not None:
        raise ContentUnreadable(
            "The key of this content was erased; nothing can read the content again."
        )
    return _derived(row)


def _derived(row: RequestLogKey) -> DepartmentKey:
    secret = _secret(row)
    content, users = (_hkdf(secret, purpose) for purpose in (b"content", b"users"))
    return DepartmentKey(row.pk, row.department_id, row.created_at, content, users)


def _secret(row: RequestLogKey) -> bytes:
    if row.wrapped_by not in settings.REQUEST_LOG_KEYS:
        raise ContentUnreadable(
            f"This process lacks version {row.wrapped_by} of ASSAY_REQUEST_LOG_KEY, which encrypts "
            "this department's key.",
            hint="An operator adds it to the web processes.",
        )
    place = _place(row.department_id, row.number)
    return _opened(_wrapping(row.wrapped_by), bytes(row.wrapped or b""), place)


def _place(department_id: int, number: int) -> bytes:
    return f"assay request log key|{department_id}|{number}".encode()


def _wrapping(version: int) -> bytes:
    return _hkdf(settings.REQUEST_LOG_KEYS[version], b"wrapping")


@functools.lru_cache(maxsize=1024)
def _hkdf(secret: bytes, purpose: bytes) -> bytes:
    info = b"assay request log " + purpose
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(secret)


def _sealed(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, bound_to)


def _opened(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, rest, bound_to)
    except (InvalidTag, ValueError):
        raise ContentUnreadable(
            "The content cannot be decrypted: it or its ASSAY_REQUEST_LOG_KEY was changed."
        ) from None
