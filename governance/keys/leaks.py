"""Reports of leaked keys. Anyone who has the text of a key can have it revoked.

A report needs no credential: it contains one. A wrong checksum does not cost a database query. A
key is revoked only by its whole secret, never by its public ID. The answer is always the same, so
the reporter learns no more than by using the key.
"""

from __future__ import annotations

import functools
import hashlib
import hmac

import redis
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.errors import QuotaExceeded, Unavailable
from governance.keys.models import ApiKey
from governance.keys.services import revoke_locked
from governance.keys.tokens import ParsedToken, parse_token, secret_hmac
from governance.people.attempts import network_of
from governance.principals import ANONYMOUS, request_context

TEXT_MAX = 256
PER_ADDRESS = 30
FOR_ALL = 600
WINDOW_S = 60
REASON = "Reported as leaked"


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def key_report_leaked(*, token: str) -> None:
    """Revoke the key with the text `token` at once, if it is live, and audit it.

    Raises:
        QuotaExceeded: too many well-formed reports from this address (or the /64 around it), or
            from all addresses together.
        Unavailable: reports cannot be counted now.
    """
    try:
        parsed = parse_token(token.strip())
    except ValueError:
        return
    _count()
    with transaction.atomic():
        key = (
            ApiKey.objects.select_for_update(of=("self",))
            .select_related("department")
            .filter(public_id=parsed.public_id)
            .first()
        )
        if key is not None and _proves(parsed, key) and _alive(key):
            revoke_locked(ANONYMOUS, key, reason=REASON)


def _proves(parsed: ParsedToken, key: ApiKey) -> bool:
    pepper = settings.KEY_PEPPERS.get(key.pepper_version)
    return pepper is not None and hmac.compare_digest(
        secret_hmac(parsed.secret, pepper), bytes(key.secret_hmac)
    )


def _alive(key: ApiKey) -> bool:
    return key.revoked_at is None and key.expires_at > timezone.now()


def _count() -> None:
    limits = {"all": FOR_ALL}
    if network := network_of(request_context.get().client_address):
        limits = {hashlib.sha256(network.encode()).hexdigest()[:32]: PER_ADDRESS, **limits}
    # The address first: reports over its limit do not use up the limit for all.
    for name, most in limits.items():
        if _counted(f"assay:leak-reports:{name}") > most:
            raise QuotaExceeded(
                "Too many reports of leaked keys; this one was not processed.",
                code="too_many_reports",
                retry_after=WINDOW_S,
            )


def _counted(name: str) -> int:
    try:
        with _client(settings.REDIS_URL).pipeline() as pipe:
            pipe.incr(name)
            pipe.expire(name, WINDOW_S, nx=True)
            count: int = pipe.execute()[0]
    except redis.RedisError as error:
        raise Unavailable(
            "Reports of leaked keys cannot be counted just now; this one was not processed.",
            hint="Send it again, or ask the key's department to revoke it.",
            retry_after=5,
        ) from error
    return count
