"""Sessions of the portal: list and end them.

A session's row (allauth's `UserSession`) has its person, device, address and time of last use. The
session itself is Django's, in the database, so it ends in every web process at the commit.
"""

from __future__ import annotations

import threading

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import close_old_connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import NotFound
from governance.keys.playground import playground_tokens_purge, sessions_forget
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.policy.services import authorize
from governance.principals import Principal

PURGE_S = 10 * 60


def session_resource(session: UserSession) -> Resource:
    """Return the session as a resource of the policy."""
    return Resource(
        "session",
        id=str(session.pk),
        name=f"session {session.pk}",
        attributes={"owner": session.user_id},
    )


def sessions_visible_to(actor: Principal, *, person_id: int | None = None) -> QuerySet[UserSession]:
    """Return the live sessions that the actor may see, the latest used first."""
    live = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    sessions = UserSession.objects.filter(session_key__in=live).select_related("user")
    if person_id is not None:
        sessions = sessions.filter(user_id=person_id)
    visible = visible_to(actor, Action.SESSION_VIEW, sessions, resource_type="session")
    return visible.order_by("-last_seen_at", "-pk")


def session_revoke(*, actor: Principal, session_id: int) -> None:
    """End one session, at once.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
        NotPermitted: the actor may see it but not end it.
    """
    with transaction.atomic():
        session = sessions_visible_to(actor).filter(pk=session_id).first()
        if session is None:
            raise NotFound(f"There is no session {session_id}.")
        decision = authorize(
            actor=actor, action=Action.SESSION_REVOKE, resource=session_resource(session)
        )
        _end(UserSession.objects.filter(pk=session.pk))
        audit_record(
            actor=actor,
            action=Action.SESSION_REVOKE,
            subject=Subject(
                "session",
                str(session.pk),
                f"session of {session.user.name}",
                person=session.user_id,
            ),
            data=_facts(session),
            decision=decision,
        )


def sessions_revoke(*, actor: Principal, person_id: int, keep: str | None = None) -> int:
    """End a person's sessions, except the one with the key `keep`; returns their number.

    Raises:
        NotFound, NotPermitted: as `session_revoke`.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.SESSION_REVOKE,
            resource=Resource(
                "session", name=f"sessions of person {person_id}", attributes={"owner": person_id}
            ),
        )
        ended = sessions_end(person_id=person_id, keep=keep)
        names = Person.objects.filter(pk=person_id).values_list("name", flat=True)
        audit_record(
            actor=actor,
            action=Action.SESSION_REVOKE,
            subject=Subject("person", str(person_id), names.first() or ""),
            data={"sessions": ended},
            decision=decision,
        )
    return ended


def sessions_end(*, person_id: int, keep: str | None = None) -> int:
    """End a person's sessions, except that with the key `keep`; the caller audits the reason."""
    return _end(UserSession.objects.filter(user_id=person_id).exclude(session_key=keep or ""))


def sign_out(*, actor: Principal, key: str | None) -> None:
    """Delete the row of a session that the caller flushes, and record that its owner signed out."""
    with transaction.atomic():
        sessions_forget(UserSession.objects.filter(session_key=key or ""))
        audit_record(
            actor=actor,
            action="person:sign_out",
            subject=Subject("person", actor.id, actor.name),
        )


def session_renamed(*, old: str | None, new: str | None) -> None:
    """Move the row of a session whose key changed to its new key."""
    UserSession.objects.filter(session_key=old or "").update(session_key=new or "")


def sessions_purge() -> int:
    """Delete expired sessions and tokens; returns the number of sessions."""
    deleted, _ = Session.objects.filter(expire_date__lte=timezone.now()).delete()
    live = Session.objects.values("session_key")
    sessions_forget(UserSession.objects.exclude(session_key__in=live))
    playground_tokens_purge()
    return deleted


def run(stop: threading.Event) -> None:
    """Purge every `PURGE_S` seconds until `stop` is set; a loop of the controller."""
    while not stop.is_set():
        close_old_connections()
        sessions_purge()
        stop.wait(PURGE_S)


def _end(sessions: QuerySet[UserSession]) -> int:
    keys = list(sessions.values_list("session_key", flat=True))
    Session.objects.filter(session_key__in=keys).delete()
    sessions_forget(UserSession.objects.filter(session_key__in=keys))
    return len(keys)


def _facts(session: UserSession) -> dict[str, str | int]:
    return {
        "person": session.user_id,
        "address": str(session.ip),
        "device": session.user_agent[:200],
        "begun": session.created_at.isoformat(timespec="seconds"),
    }
