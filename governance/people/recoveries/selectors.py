"""Recoveries that a person may see, and the administrators who can take part in one."""

from __future__ import annotations

from datetime import timedelta

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from governance.errors import NotFound
from governance.people.credentials import STRONG, has_factor
from governance.people.models import Person, Role
from governance.people.recoveries.models import LIVE, AccountRecovery
from governance.people.selectors import sees_everyone
from governance.principals import Principal
from governance.reviews.policies.selectors import review_policies_in_force

# Wait while no review policy is in force.
_WAIT = timedelta(hours=24)
ADMINISTRATORS_MIN = 2


def recoveries_visible_to(actor: Principal) -> QuerySet[AccountRecovery]:
    """Return all recoveries if the actor sees everyone; else those of their own account."""
    rows = AccountRecovery.objects.select_related(
        "person", "requested_by", "approved_by", "ended_by"
    )
    if sees_everyone(actor):
        return rows
    return rows.none() if actor.person_id is None else rows.filter(person_id=actor.person_id)


def recovery_get(*, actor: Principal, recovery_id: int) -> AccountRecovery:
    """Return the recovery. Raises NotFound if it does not exist, or the actor may not see it."""
    recovery = recoveries_visible_to(actor).filter(pk=recovery_id).first()
    if recovery is None:
        raise NotFound(f"There is no recovery {recovery_id}.")
    return recovery


def recoveries_live(actor: Principal) -> QuerySet[AccountRecovery]:
    """Return visible recoveries that are pending or approved, and not expired."""
    return recoveries_visible_to(actor).filter(_live())


def recoveries_announced(actor: Principal) -> QuerySet[AccountRecovery]:
    """Return live recoveries that every page of `actor` announces: of their own account; and for
    who sees everyone, those that a command on the server approved.

    If there is none, nearly always the case, this costs one small query instead of one with the
    columns of four people.
    """
    announced = _live() & (Q(on_server=True) | Q(person_id=actor.person_id))
    if not AccountRecovery.objects.filter(announced).exists():
        return AccountRecovery.objects.none()
    return recoveries_visible_to(actor).filter(announced).order_by("pk")


def _live() -> Q:
    return Q(state__in=LIVE, expires_at__gt=timezone.now())


def administrators_able(*, other_than: Person) -> QuerySet[Person]:
    """Return administrators who can request or approve a recovery of this person: active, with a
    second factor, and confirmed.
    """
    factors = Authenticator.objects.filter(user=OuterRef("pk"), type__in=STRONG)
    admins = Person.objects.filter(
        Exists(factors),
        is_active=True,
        unconfirmed_at=None,
        role_assignments__role=Role.ADMIN,
    )
    return admins.exclude(pk=other_than.pk).distinct()


def never_set_up(person: Person) -> bool:
    """Return whether the account has never had a password, second factor, sign-in or SSO link."""
    return not (
        person.has_usable_password()
        or person.last_login is not None
        or has_factor(person.pk)
        or SocialAccount.objects.filter(user=person).exists()
    )


def recovery_wait(person: Person) -> timedelta:
    """Return the wait before a recovery that the server approved takes effect.

    It is the longest time for which any review policy in force makes new reviewers wait, so that
    others can object. It is zero for an account that was never set up.
    """
    if never_set_up(person):
        return timedelta(0)
    policies = review_policies_in_force()
    if not policies:
        return _WAIT
    return timedelta(hours=max(each.document.vote_after_hours for each in policies))
