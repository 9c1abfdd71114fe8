"""Open one-time links, and apply a recovery's link to the account."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from django.db import transaction
from django.utils import timezone

from governance.people.credentials import access_tokens_revoke
from governance.people.links import link_open
from governance.people.models import OneTimeLink, Person
from governance.people.recoveries.models import NoticeKind, RecoveryState
from governance.people.recoveries.notices import account_tell
from governance.people.recoveries.states import RECOVERY_STATES, recovery_save_state
from governance.people.selectors import principal_for_person
from governance.people.sessions import sessions_end


def one_time_link_open(*, text: str, code: str = "") -> OneTimeLink:
    """Open a one-time link. A recovery's link deletes the account's second factors, and with them
    its sessions and access tokens; the person who opened it then sets new ones.

    Raises:
        As `link_open`.
    """
    link = link_open(text=text, code=code)
    if link.recovery_id is None:
        return link
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).get(pk=link.person_id)
        recovery = RECOVERY_STATES.locked(link.recovery_id)
        if recovery.state == RecoveryState.OPENED:
            return link
        actor = principal_for_person(person)
        factors, _ = Authenticator.objects.filter(user=person).delete()
        recovery.opened_at = person.empowered_at = timezone.now()
        person.save(update_fields=["empowered_at", "changed_at"])
        ended = {"factors": factors, "sessions_ended": 0, "tokens_revoked": 0}
        if factors:
            # The holder of a lost device may have signed in with it.
            ended["sessions_ended"] = sessions_end(person_id=person.pk)
            ended["tokens_revoked"] = access_tokens_revoke(
                actor=actor, person=person, reason="The account was recovered."
            )
        recovery_save_state(
            actor=actor,
            recovery=recovery,
            state=RecoveryState.OPENED,
            fields=["opened_at"],
            data={"link": link.public_id, **ended},
        )
        account_tell(NoticeKind.OPENED, person, recovery=recovery)
    return link


def sign_in_confirmed(person: Person) -> None:
    """Confirm the account of a locked person after a recovery; the caller audits it. The wait
    before the person's votes count starts again now.
    """
    person.unconfirmed_at = None
    person.empowered_at = timezone.now()
    person.save(update_fields=["unconfirmed_at", "empowered_at", "changed_at"])
