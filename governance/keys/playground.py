"""Short-lived tokens with which a signed-in person's browser can try one deployment on `/v1`.

A token works only together with the cookie of its session (ADR 14).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import timedelta

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import NotAuthenticated, NotPermitted, QuotaExceeded
from governance.keys.models import PlaygroundToken
from governance.keys.notices import key_notice
from governance.keys.tokens import format_token, mint, secret_hmac
from governance.notify import notify
from governance.people.models import Department, Person
from governance.policy.decisions import Authorization
from governance.policy.services import SNAPSHOT_CHANNEL
from governance.principals import Principal, PrincipalKind, request_context
from governance.rowsecurity import lifted

LIFETIME = timedelta(minutes=10)
# Maximum number of a person's unexpired tokens, over all sessions and deployments.
TOKENS_MAX = 20
# In the ledger, usage by playground tokens has this name instead of a key.
PLAYGROUND_SUBJECT = "playground"


def session_digest(session_key: str) -> bytes:
    """Return the digest with which gateways check a cookie; a random key needs no slow hash."""
    return hashlib.sha256(session_key.encode()).digest()


def playground_token_create(
    *,
    actor: Principal,
    session_key: str,
    department: Department,
    deployment: str,
    decision: Authorization,
) -> tuple[PlaygroundToken, str]:
    """Create a token for `actor`, who may use `deployment` by `decision`; return it with its text.

    `department` pays for its use.

    Raises:
        NotPermitted: the actor is not a person in a session of their own.
        NotAuthenticated: the session has ended.
        QuotaExceeded: the person has `TOKENS_MAX` unexpired tokens.
    """
    person_id = actor.person_id
    if person_id is None or actor.kind is not PrincipalKind.PERSON or actor.key_id is not None:
        raise NotPermitted("Only a person who is signed in can use the playground.")
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).get(pk=person_id)
        session = _alive(UserSession.objects.filter(session_key=session_key, user=person)).first()
        if session is None or not person.is_active:
            raise NotAuthenticated("The session has ended. Sign in again.")
        now = timezone.now()
        PlaygroundToken.objects.filter(person=person, expires_at__lte=now).delete()
        if PlaygroundToken.objects.filter(person=person).count() >= TOKENS_MAX:
            raise QuotaExceeded(
                f"{person.name} has opened the playground {TOKENS_MAX} times within "
                f"{LIFETIME.seconds // 60} minutes, the maximum.",
                hint="Try again in a few minutes.",
                retry_after=60,
            )
        pepper_version = max(settings.KEY_PEPPERS)
        public_id, secret = mint()
        token = PlaygroundToken.objects.create(
            public_id=public_id,
            secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[pepper_version]),
            pepper_version=pepper_version,
            person=person,
            session=session,
            session_epoch=person.session_epoch,
            department=department,
            deployment=deployment,
            address=request_context.get().client_address,
            expires_at=now + LIFETIME,
        )
        audit_record(
            actor=actor,
            action="playground_token:create",
            subject=Subject("deployment", deployment, deployment),
            department=department.slug,
            data={"token": public_id, "expires_at": token.expires_at.isoformat()},
            decision=decision,
        )
        # Gateways look up unknown keys at a limited rate, which strangers can use up.
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL, key_notice(public_id)))
    return token, format_token(public_id, secret)


def playground_tokens_alive(public_ids: Collection[str]) -> QuerySet[PlaygroundToken]:
    """Return those of these tokens, of all people, that are valid: not expired, of an active
    person, in a live session, which ends at `session_ends`.
    """
    sessions = _alive(UserSession.objects.all())
    ends = Session.objects.filter(session_key=OuterRef("session__session_key"))
    tokens = PlaygroundToken.objects.annotate(
        session_ends=Subquery(ends.values("expire_date")[:1])
    ).filter(
        public_id__in=public_ids,
        expires_at__gt=timezone.now(),
        person__is_active=True,
        session_epoch=F("person__session_epoch"),
        session__in=sessions,
    )
    return tokens.select_related("person", "session", "department").prefetch_related(
        "person__role_assignments__department"
    )


def sessions_forget(sessions: QuerySet[UserSession]) -> None:
    """Delete sessions' rows with their playground tokens, and notify the gateways on commit."""
    # Only its person sees a token, but others who may end the session must delete it too.
    with lifted():
        tokens = PlaygroundToken.objects.filter(session__in=sessions)
        public_ids = list(tokens.values_list("public_id", flat=True))
        sessions.delete()

    def notify_gateways() -> None:
        for public_id in public_ids:
            notify(SNAPSHOT_CHANNEL, key_notice(public_id))

    if public_ids:
        transaction.on_commit(notify_gateways)


def playground_tokens_purge() -> None:
    """Delete expired tokens."""
    PlaygroundToken.objects.filter(expires_at__lte=timezone.now()).delete()


def _alive(sessions: QuerySet[UserSession]) -> QuerySet[UserSession]:
    keys = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    return sessions.filter(session_key__in=keys)
