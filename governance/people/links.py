"""One-time links: set a password as an invited person or after losing one, or add a first factor.

The link carries its secret behind a `#`, which no browser sends: it stands in no access log, in no
proxy's and in no Referer. The page posts it. The database keeps an HMAC.
"""

from __future__ import annotations

import hmac
import logging
from datetime import timedelta

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from governance.audit.services import Attempt, Subject, audit_record
from governance.audit.streaming.sending import SendFailed
from governance.errors import DomainError, NotFound, NotPermitted, WrongState
from governance.keys.tokens import ALPHABET, ID_LENGTH, SECRET_LENGTH, mint, secret_hmac
from governance.mail import mail_send
from governance.people.attempts import forget_address_failure, refuse_address_when_locked
from governance.people.models import PLATFORM_ROLES, LinkPurpose, OneTimeLink, Person
from governance.people.proof import require_proof
from governance.people.selectors import PEOPLE_AT_LARGE, person_get, person_resource
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.decisions import Authorization
from governance.policy.engine import decide
from governance.policy.services import active_policy, authorize
from governance.principals import (
    ANONYMOUS,
    Principal,
    background,
    request_context,
    service_principal,
)
from governance.reviews.reminders.channels import MailServer

logger = logging.getLogger(__name__)

# The installation itself, on its command line.
BOOTSTRAP = service_principal("bootstrap")
LIFETIMES = {
    LinkPurpose.PASSWORD: timedelta(days=3),
    LinkPurpose.FACTOR: timedelta(days=1),
}
PATH = "/sign-in/link"
TEXT_MAX = 300
INVITE = "person:invite"
RESET = "person:reset_password"
PERMIT = "person:permit_factor"
USE = "person:use_link"
_OPEN = Q(used_at=None, revoked_at=None)


def is_privileged(person: Person) -> bool:
    """Return whether a first second factor of theirs needs a one-time link.

    True for platform-wide roles and for roles that `ASSAY_SECOND_FACTOR_ROLES` names: with a
    factor, these decide for others, so a leaked password alone must not be able to add one.
    """
    roles = {*PLATFORM_ROLES, *settings.SECOND_FACTOR_ROLES}
    return person.role_assignments.filter(role__in=roles).exists()


def has_factor(person_id: int) -> bool:
    """Return whether the account has an authenticator app or a passkey."""
    strong = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    return bool(Authenticator.objects.filter(user_id=person_id, type__in=strong).exists())


def password_link_create(*, actor: Principal, person_id: int) -> tuple[OneTimeLink, str]:
    """Make a link with which a person sets their password; returns its address, shown this once.

    It invites whoever has no password yet, and resets one that was lost. It replaces an earlier
    link, and it is mailed when a mail server is set.

    Raises:
        NotFound, NotPermitted: the actor may not see or change that person, it is their own
            account, or they gave no second factor lately.
        WrongState: the account is inactive.
    """
    with transaction.atomic():
        person, decision = _authorized(actor, person_id, "sends links to set a password")
        action = RESET if person.has_usable_password() else INVITE
        return _made(actor, person, LinkPurpose.PASSWORD, action, decision)


def factor_permit_create(*, actor: Principal, person_id: int) -> tuple[OneTimeLink, str]:
    """Make a link with which a person adds a first second factor; returns its address.

    Raises:
        NotFound, NotPermitted: as `password_link_create`.
        WrongState: the account is inactive, or has a second factor.
    """
    with transaction.atomic():
        person, decision = _authorized(actor, person_id, "permits second factors")
        if has_factor(person.pk):
            raise WrongState(
                f"{person.name} has a second factor; no first one can be permitted.",
                hint="Reset the second factors first when they are lost.",
            )
        return _made(actor, person, LinkPurpose.FACTOR, PERMIT, decision)


def _authorized(
    actor: Principal, person_id: int, doing: str
) -> tuple[Person, Authorization | None]:
    """Lock the person and return them with the decision that allows the link."""
    if actor == BOOTSTRAP:
        # A person with a shell on the server needs no account for this.
        person = Person.objects.select_for_update(no_key=True).filter(pk=person_id).first()
        if person is None:
            raise NotFound(f"There is no person {person_id}.")
        decision = None
    else:
        person = person_get(actor=actor, person_id=person_id)
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        resource = person_resource(person)
        decision = authorize(actor=actor, action=Action.PERSON_UPDATE, resource=resource)
        attempt = Attempt(
            actor=actor,
            action=Action.PERSON_UPDATE,
            subject=_subject(person),
            decision=decision,
        )
        if actor.person_id == person.pk:
            raise NotPermitted(
                f"{person.name} may not make a one-time link for their own account.",
                hint="Another administrator can.",
                attempt=attempt,
            )
        # Someone who manages one department's people must not take over an administrator there.
        at_large = decide(
            active_policy(), actor, Action.PERSON_UPDATE, PEOPLE_AT_LARGE, base_context()
        )
        if is_privileged(person) and not at_large.allowed:
            raise NotPermitted(
                f"{person.name} holds a role beyond your departments; {actor.name} may not make "
                "one-time links for them.",
                hint="A platform administrator can.",
                attempt=attempt,
            )
        require_proof(actor, f"making a one-time link for {person.name}", attempt=attempt)
    if not person.is_active:
        raise WrongState(
            f"The account of {person.name} is inactive; it cannot get a one-time link.",
            hint="Reactivate the account first.",
        )
    return person, decision


def _made(
    actor: Principal,
    person: Person,
    purpose: LinkPurpose,
    action: str,
    decision: Authorization | None,
) -> tuple[OneTimeLink, str]:
    links_revoke(person_id=person.pk, purpose=purpose)
    public_id, secret = mint()
    newest = max(settings.KEY_PEPPERS)
    link = OneTimeLink.objects.create(
        person=person,
        purpose=purpose,
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[newest]),
        pepper_version=newest,
        created_by_id=actor.person_id,
        expires_at=timezone.now() + LIFETIMES[purpose],
    )
    address = f"{settings.PORTAL_URL}{PATH}#{public_id}_{secret}"
    with background("bootstrap", actor):
        audit_record(
            actor=actor,
            action=action,
            subject=_subject(person),
            data={
                "link": public_id,
                "expires_at": link.expires_at.isoformat(timespec="seconds"),
                "mailed": is_mailed(),
            },
            decision=decision,
        )
    if (server := settings.MAIL_SERVER) is not None:
        transaction.on_commit(lambda: _mail(server, link, address))
    return link, address


def is_mailed() -> bool:
    """Return whether one-time links are mailed too."""
    return settings.MAIL_SERVER is not None


def _mail(server: MailServer, link: OneTimeLink, address: str) -> None:
    """Mail the link; whoever made it has it as well, so a failure is only logged."""
    subject = {
        LinkPurpose.PASSWORD: "Set your password for Assay",
        LinkPurpose.FACTOR: "Add a second factor for Assay",
    }[LinkPurpose(link.purpose)]
    text = (
        f"{subject} with this link. It works once, until "
        f"{link.expires_at:%-d %B %Y, %H:%M} UTC.\n\n{address}\n\n"
        "If you did not expect this mail, tell your administrator.\n"
    )
    try:
        mail_send(
            server,
            to=link.person.email,
            subject=subject,
            text=text,
            message_id=f"assay-link-{link.pk}",
        )
    except SendFailed as error:
        logger.warning("The one-time link %s was not mailed: %s", link.public_id, error.words)


def link_open(*, text: str) -> OneTimeLink:
    """Find the open link of this text (`#…` of its address, or the whole address); not used yet.

    The answer is the same for a wrong, used, replaced and expired link, and for one of an inactive
    account. Failures are counted as those of signing in.

    Raises:
        NotFound: there is no such link (code `link_not_valid`).
        QuotaExceeded, Unavailable: too many failures, or they cannot be counted.
    """
    public_id, _, secret = text.strip()[:TEXT_MAX].rpartition("#")[2].partition("_")
    if not (_is_text(public_id, ID_LENGTH) and _is_text(secret, SECRET_LENGTH)):
        public_id, secret = "", ""
    address = request_context.get().client_address
    link = OneTimeLink.objects.select_related("person").filter(public_id=public_id).first()
    try:
        refuse_address_when_locked(address)
    except DomainError as error:
        error.attempt = _attempt(link)
        raise
    version = max(settings.KEY_PEPPERS) if link is None else link.pepper_version
    # Computed for an unknown link too, so that time tells nothing.
    given = secret_hmac(secret, settings.KEY_PEPPERS.get(version, b""))
    kept = b"" if link is None else bytes(link.secret_hmac)
    right = hmac.compare_digest(given, kept) and version in settings.KEY_PEPPERS
    if link is None or not right or not _is_open(link):
        raise not_valid(link)
    forget_address_failure(address)
    return link


def link_claim(*, link_id: int | None, purpose: LinkPurpose) -> OneTimeLink:
    """Use an opened link up, in the caller's transaction, with which it stands or falls.

    The person's row is locked with it.

    Raises:
        NotFound: it was used, replaced or expired meanwhile (code `link_not_valid`).
    """
    rows = OneTimeLink.objects.select_for_update(of=("self",))
    link = rows.filter(pk=link_id or 0, purpose=purpose).first()
    if link is None:
        raise not_valid(None)
    link.person = Person.objects.select_for_update(no_key=True).get(pk=link.person_id)
    if not _is_open(link):
        raise not_valid(link)
    link.used_at = timezone.now()
    link.save(update_fields=["used_at"])
    return link


def links_revoke(*, person_id: int, purpose: LinkPurpose | None = None) -> int:
    """Revoke a person's open links; the caller audits why."""
    links = OneTimeLink.objects.filter(_OPEN, person_id=person_id)
    if purpose is not None:
        links = links.filter(purpose=purpose)
    return links.update(revoked_at=timezone.now())


def not_valid(link: OneTimeLink | None) -> NotFound:
    """Return the one refusal of a link that does not work, to be raised."""
    return NotFound(
        "This link is not valid: it is wrong, was used or replaced, or has expired.",
        code="link_not_valid",
        hint="Ask an administrator for a new one.",
        attempt=_attempt(link),
    )


def _is_open(link: OneTimeLink) -> bool:
    return (
        link.used_at is None
        and link.revoked_at is None
        and link.expires_at > timezone.now()
        and link.person.is_active
    )


def _is_text(part: str, length: int) -> bool:
    return len(part) == length and all(each in ALPHABET for each in part)


def _attempt(link: OneTimeLink | None) -> Attempt:
    subject = Subject("person", "", "unknown link") if link is None else _subject(link.person)
    return Attempt(actor=ANONYMOUS, action=USE, subject=subject)


def _subject(person: Person) -> Subject:
    return Subject("person", str(person.pk), person.name)
