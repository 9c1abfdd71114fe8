"""Authenticate callers against the snapshot, by `Authorization: Bearer assay_…` or `x-api-key:
assay_…` and never by a query string.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time

from django.conf import settings

from assay.cookies import read_cookies
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.snapshot import Snapshot
from governance.errors import NotAuthenticated
from governance.keys.networks import address_allowed
from governance.keys.playground import session_digest
from governance.keys.tokens import ParsedToken, parse_token, secret_hmac

_BEARER = re.compile(r"bearer +(\S+)\Z", re.IGNORECASE)
_NO_KEY = bytes(32)
# Key of the digests in memory; a digest is useless in another process.
_PROOF_KEY = secrets.token_bytes(32)
_UNKNOWN = "Incorrect API key provided."


class ProvedToken(ParsedToken):
    """A key whose secret was proved when a batch was created with it.

    Only the batch runner creates one, from the public ID in the batch's row; a credential that a
    caller sends never becomes one.
    """

    __slots__ = ()


class KeyRefused(NotAuthenticated):
    """The credential is missing or not valid. `key` is set once its secret has been proved."""

    code = "invalid_api_key"

    def __init__(
        self, message: str, *, hint: str = "", key: KeyEntry | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.key = key


def presented_token(authorization: bytes | None, api_key: bytes | None = None) -> ParsedToken:
    """Return the token from `Authorization` or `x-api-key`. `authenticate` checks it.

    Raises:
        KeyRefused: there is no token, or it is malformed.
    """
    if authorization is None and api_key is not None:
        # Anthropic's clients send this header. If both are present, a proxy may have added it.
        authorization = b"Bearer " + api_key
    if authorization is None:
        raise KeyRefused(
            "You didn't provide an API key.",
            hint="Send your department's key as `Authorization: Bearer assay_…`.",
        )
    match = _BEARER.match(authorization.decode("latin-1"))
    if match is None:
        raise KeyRefused("The Authorization header does not read `Bearer assay_…`.")
    try:
        return parse_token(match[1])
    except ValueError as error:
        raise KeyRefused(f"This is not a valid API key: {error}.") from None


def presented_session(cookies: bytes | None) -> bytes:
    """Return the digest of the session that the browser's cookies carry; empty without one."""
    if cookies is None:
        return b""
    key = read_cookies(cookies.decode("latin-1")).get(settings.SESSION_COOKIE_NAME, "")
    return session_digest(key) if key else b""


def authenticate(
    snapshot: Snapshot, token: ParsedToken, address: str, session: bytes = b""
) -> KeyEntry:
    """Return the department's key or playground token for `token`, sent from `address` in the
    browser session with the digest `session`.

    Raises:
        KeyRefused: it is unknown, wrong, revoked, expired or a personal token, or may not be used
            from this address or in this session.
    """
    key = snapshot.keys.get(token.public_id)
    proved = isinstance(token, ProvedToken) or _proves(token.secret, key)
    if key is None or not proved:
        raise KeyRefused(_UNKNOWN)
    refuse_dead(key)
    if not address_allowed(address, key.networks):
        raise KeyRefused(
            f"{key.title} is not accepted from {address or 'an unknown address'}.",
            hint="It is restricted to networks; call from one of them.",
            key=key,
            code="address_not_allowed",
        )
    if key.person is not None and not hmac.compare_digest(session, key.session):
        raise KeyRefused(
            "A playground token works only in the browser session that it was made for.",
            hint="Applications use a key of their department.",
            key=key,
            code="session_required",
        )
    return key


def _proves(secret: str, key: KeyEntry | None) -> bool:
    """Return true if `secret` belongs to `key`. An unknown key takes as long as a wrong secret.

    The HMAC under the pepper is computed once after each reading of the key. Later requests compare
    a digest, which costs a quarter of that.
    """
    digest = hashlib.blake2b(secret.encode(), key=_PROOF_KEY, digest_size=32).digest()
    if key is not None and key.proved and hmac.compare_digest(digest, key.proved[0]):
        return True
    pepper = settings.KEY_PEPPERS.get(1 if key is None else key.pepper_version)
    computed = secret_hmac(secret, pepper or _NO_KEY)
    matches = hmac.compare_digest(computed, _NO_KEY if key is None else key.secret_hmac)
    if key is None or pepper is None or not matches:
        return False
    key.proved[:] = [digest]
    return True


def refuse_dead(key: KeyEntry) -> None:
    """Raise KeyRefused if the key is revoked, expired or a personal token."""
    # The time of revocation does not matter: clocks differ, and revocations are not scheduled.
    if key.revoked_at is not None:
        raise KeyRefused(f"{key.title} is revoked; it cannot be used any more.", key=key)
    if key.expires_at <= time.time():
        raise KeyRefused(f"{key.title} is expired.", hint="Ask for a new one.", key=key)
    if key.department is None:
        raise KeyRefused(
            "A personal access token cannot be used on /v1.",
            hint="Use a key of your department.",
            key=key,
        )
