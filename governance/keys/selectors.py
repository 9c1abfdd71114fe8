"""Reads of credentials and their owners."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from django.conf import settings
from django.db.models import Case, Q, QuerySet, Value, When
from django.utils import timezone

from governance.errors import NotAuthenticated, NotFound
from governance.keys.models import ApiKey
from governance.keys.networks import address_allowed
from governance.keys.tokens import parse_token, secret_hmac
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal, PrincipalKind, Proof, request_context

# `last_used_at` is written at most once in this time, so that most requests do not write.
LAST_USED_GRAIN = timedelta(minutes=1)


class KeyState(StrEnum):
    """State of a key. `retiring`: it has a successor and works until it expires."""

    ACTIVE = "active"
    RETIRING = "retiring"
    EXPIRED = "expired"
    REVOKED = "revoked"


def key_state(key: ApiKey, now: datetime) -> KeyState:
    """Return the state of a key from `keys_visible_to`."""
    if key.revoked_at is not None:
        return KeyState.REVOKED
    if key.expires_at <= now:
        return KeyState.EXPIRED
    return KeyState.RETIRING if hasattr(key, "successor") else KeyState.ACTIVE


def keys_visible_to(actor: Principal) -> QuerySet[ApiKey]:
    """Return the keys and access tokens that `actor` may see; they do not contain secrets."""
    keys = ApiKey.objects.select_related(
        "department", "person", "owner", "created_by", "rotated_from", "successor", "root"
    )
    return visible_to(actor, Action.KEY_VIEW, keys, resource_type="key")


def key_get(*, actor: Principal, key_id: int) -> ApiKey:
    """Return a key. Raise NotFound if it does not exist, or the actor may not see it."""
    key = keys_visible_to(actor).filter(pk=key_id).first()
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    return key


def principal_for_token(text: str) -> Principal:
    """Return the principal of a token: its department's application, or its person.

    Raises:
        NotAuthenticated: mistyped, unknown, revoked, expired, or its person's account is inactive.
            The message never contains the secret.
    """
    try:
        parsed = parse_token(text)
    except ValueError as error:
        raise NotAuthenticated(
            f"This is not an Assay key: {error}.", hint=_HINT, code="invalid_key"
        ) from error
    key = (
        ApiKey.objects.filter(public_id=parsed.public_id)
        .select_related("department", "person")
        .first()
    )
    pepper = settings.KEY_PEPPERS.get(key.pepper_version) if key else None
    # An unknown ID takes the same time as a wrong secret.
    actual = secret_hmac(parsed.secret, pepper or b"no such key")
    if key is None or pepper is None or not hmac.compare_digest(actual, bytes(key.secret_hmac)):
        raise NotAuthenticated("The key is not known.", hint=_HINT, code="invalid_key")
    _refuse_dead(key)
    _refuse_elsewhere(key)
    _touch(key)
    if key.person is not None:
        scopes = frozenset(key.scopes) if key.scopes else None
        proof = Proof(key.proof_method, key.proved_at) if key.proved_at is not None else None
        return principal_for_person(key.person, scopes=scopes, key_id=key.pk, proof=proof)
    return Principal(
        kind=PrincipalKind.KEY,
        id=str(key.pk),
        name=key.name,
        department=key.department.slug if key.department else None,
        scopes=frozenset(key.scopes),
        key_id=key.pk,
    )


_HINT = "Ask the lead of your department for a key, or create an access token under your account."


def _refuse_dead(key: ApiKey) -> None:
    label = f"Key {key.name} ({key.public_id})"
    if key.revoked_at is not None:
        raise NotAuthenticated(
            f"{label} was revoked on {key.revoked_at:%Y-%m-%d}"
            f"{f' ({key.revoked_reason})' if key.revoked_reason else ''}.",
            hint=_HINT,
            code="invalid_key",
        )
    if key.expires_at <= timezone.now():
        raise NotAuthenticated(
            f"{label} expired on {key.expires_at:%Y-%m-%d}.", hint=_HINT, code="invalid_key"
        )
    if key.person is not None and not key.person.is_active:
        raise NotAuthenticated(
            f"{label} does not work: the account of its owner is inactive.", code="invalid_key"
        )


def _refuse_elsewhere(key: ApiKey) -> None:
    address = request_context.get().client_address
    if not address_allowed(address, key.networks):
        raise NotAuthenticated(
            f"Key {key.name} ({key.public_id}) is not accepted from "
            f"{address or 'an unknown address'}.",
            hint="It is restricted to networks; call from one of them.",
            code="address_not_allowed",
        )


def keys_used(moments: Mapping[str, datetime]) -> None:
    """Save the last use of keys, by public ID, in one statement; keep a stored later use."""
    if not moments:
        return
    # Rows are locked in one order, so that two collectors cannot deadlock.
    rows = ApiKey.objects.filter(public_id__in=moments).order_by("pk").select_for_update()
    stored = dict(rows.values_list("public_id", "last_used_at"))
    newer = {
        public_id: moment
        for public_id, moment in moments.items()
        if public_id in stored and ((last := stored[public_id]) is None or last < moment)
    }
    if newer:
        cases = [When(public_id=public_id, then=Value(at)) for public_id, at in newer.items()]
        ApiKey.objects.filter(public_id__in=newer).update(last_used_at=Case(*cases))


def _touch(key: ApiKey) -> None:
    now = timezone.now()
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - LAST_USED_GRAIN)
    if key.last_used_at is None or key.last_used_at < now - LAST_USED_GRAIN:
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
