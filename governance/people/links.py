"""One-time links: set a first or lost password, or add a first second factor.

One administrator alone can make a link that sets a password. If it adds the first second factor of
an account that decides for others, it belongs to a recovery, which takes two parties (ADR 41).

The secret is in the link's fragment, after the `#`. Browsers do not send fragments, so it reaches
no access log, proxy log or Referer header. The page posts it. The database keeps an HMAC.
"""

from __future__ import annotations

import hmac
import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from governance.audit.services import Attempt, Subject, audit_record
from governance.audit.streaming.sending import SendFailed
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    WrongState,
)
from governance.keys.tokens import ALPHABET, ID_LENGTH, SECRET_LENGTH, mint, secret_hmac
from governance.mail import mail_send
from governance.people.attempts import forget_address_failure, refuse_address_when_locked
from governance.people.credentials import has_factor, is_privileged
from governance.people.models import LinkPurpose, OneTimeLink, Person
from governance.people.proof import require_proof
from governance.people.recoveries.models import AccountRecovery, RecoveryState
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
USE = "person:use_link"
_OPEN = Q(used_at=None, revoked_at=None)


def password_link_create(*, actor: Principal, person_id: int) -> tuple[OneTimeLink, str]:
    """Make a link with which a person sets their password; returns its address, shown only once.

    It invites a person without a password, or resets a lost one. It replaces an earlier link, and
    is mailed if a mail server is set.

    Raises:
        NotFound, NotPermitted: the actor may not see or change the person, it is their own account,
            or they have no fresh second factor; or the account decides for others and would get
            its first second factor through the link (code `recovery_needed`).
        WrongState: the account is inactive.
    """
    with transaction.atomic():
        person, decision = _authorized(actor, person_id)
        if is_privileged(person) and not has_factor(person.pk):
            raise recovery_needed(person, "a link that adds its first second factor")
        if person.recoveries.filter(state=RecoveryState.APPROVED).exists():
            raise WrongState(
                f"A recovery of the account of {person.name} is approved; it gets no other link.",
                hint="Wait until it is over, or reject the recovery.",
            )
        action = RESET if person.has_usable_password() else INVITE
        link, address = link_make(
            actor=actor,
            person=person,
            purpose=LinkPurpose.PASSWORD,
            action=action,
            decision=decision,
        )
        if (server := settings.MAIL_SERVER) is not None:
            transaction.on_commit(lambda: _mail_too(server, link, address))
    return link, address


def recovery_needed(person: Person, what: str) -> NotPermitted:
    """Return the error for an action that needs a recovery instead."""
    return NotPermitted(
        f"The account of {person.name} has a role that decides for others; {what} takes two "
        "parties.",
        code="recovery_needed",
        hint="Request a recovery: People → the person → Sign-in → Recover the account. "
        "Another administrator approves it.",
    )


def _authorized(actor: Principal, person_id: int) -> tuple[Person, Authorization | None]:
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
        # A manager of one department's people must not take over an administrator's account there.
        everywhere = decide(
            active_policy(), actor, Action.PERSON_UPDATE, PEOPLE_AT_LARGE, base_context()
        )
        if is_privileged(person) and not everywhere.allowed:
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


def link_make(
    *,
    actor: Principal,
    person: Person,
    purpose: LinkPurpose,
    action: str,
    decision: Authorization | None,
    recovery: AccountRecovery | None = None,
) -> tuple[OneTimeLink, str]:
    """Make a link in the transaction of a caller that authorized the actor, and record `action`.

    Open links of the person are revoked. Returns the link and its address.
    """
    links_revoke(person_id=person.pk)
    public_id, secret = mint()
    newest = max(settings.KEY_PEPPERS)
    starts_at = timezone.now() if recovery is None else recovery.effective_at or timezone.now()
    link = OneTimeLink.objects.create(
        person=person,
        purpose=purpose,
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[newest]),
        pepper_version=newest,
        created_by_id=actor.person_id,
        expires_at=starts_at + LIFETIMES[purpose],
        recovery=recovery,
    )
    with background("bootstrap", actor):
        audit_record(
            actor=actor,
            action=action,
            subject=_subject(person),
            data={
                "link": public_id,
                "expires_at": link.expires_at.isoformat(timespec="seconds"),
                "mailed": is_mailed(),
                **({} if recovery is None else {"recovery": recovery.pk}),
            },
            decision=decision,
        )
    return link, f"{settings.PORTAL_URL}{PATH}#{public_id}_{secret}"


def is_mailed() -> bool:
    """Return whether one-time links are mailed too."""
    return settings.MAIL_SERVER is not None


def _mail_too(server: MailServer, link: OneTimeLink, address: str) -> None:
    """Mail the link. Its maker has its address too, so a failure is only logged."""
    try:
        link_mail(server, link, address)
    except SendFailed as error:
        logger.warning("The one-time link %s was not mailed: %s", link.public_id, error.words)


def link_mail(server: MailServer, link: OneTimeLink, address: str) -> None:
    """Mail the link to its person. Raises SendFailed."""
    subject = {
        LinkPurpose.PASSWORD: "Set your password for Assay",
        LinkPurpose.FACTOR: "Add a second factor for Assay",
    }[LinkPurpose(link.purpose)]
    lines = [f"{subject} with this link. It works once, until {_moment(link.expires_at)}."]
    if (recovery := link.recovery) is not None:
        if recovery.effective_at is not None and recovery.effective_at > timezone.now():
            lines.append(f"It does not work before {_moment(recovery.effective_at)}.")
        if recovery.requested_by is not None:
            requester = " ".join(recovery.requested_by.name.split())
            lines.append(f"You also need a code: ask {requester} for it, in person or by phone.")
    lines += ["", address, "", "If you did not expect this mail, tell your administrator."]
    mail_send(
        server,
        to=link.person.email,
        subject=subject,
        text="\n".join(lines) + "\n",
        message_id=f"assay-link-{link.pk}",
    )


def _moment(at: datetime) -> str:
    return f"{at:%-d %B %Y, %H:%M} UTC"


def link_open(*, text: str, code: str = "") -> OneTimeLink:
    """Return the open link with this text (its address, or from the `#` on), without using it.

    The error is the same for wrong, used, replaced and expired links, and for inactive accounts.
    `code` is the code that the recovery's requester got, if any. Failures count like failed
    sign-ins.

    Raises:
        NotFound: the link is not valid (code `link_not_valid`).
        InvalidInput, NotAuthenticated: the recovery's code is missing, or wrong.
        WrongState: the recovery's wait is not over.
        QuotaExceeded, Unavailable: too many failures, or they cannot be counted.
    """
    public_id, _, secret = text.strip()[:TEXT_MAX].rpartition("#")[2].partition("_")
    if not (_is_text(public_id, ID_LENGTH) and _is_text(secret, SECRET_LENGTH)):
        public_id, secret = "", ""
    address = request_context.get().client_address
    rows = OneTimeLink.objects.select_related("person", "recovery")
    link = rows.filter(public_id=public_id).first()
    try:
        refuse_address_when_locked(address)
    except DomainError as error:
        error.attempt = _attempt(link)
        raise
    version = max(settings.KEY_PEPPERS) if link is None else link.pepper_version
    link_hmac = b"" if link is None else bytes(link.secret_hmac)
    # Compare for an unknown link too: the response time must not tell whether it exists.
    matches = secret_matches(secret, link_hmac, version)
    if link is None or not matches or not _is_open(link):
        raise not_valid(link)
    if (recovery := link.recovery) is not None:
        _require_code(link, recovery, code, address)
        if recovery.effective_at is not None and recovery.effective_at > timezone.now():
            raise WrongState(
                f"The recovery of this account waits until {_moment(recovery.effective_at)}.",
                hint="Open the link again after that time.",
                attempt=_attempt(link),
            )
    forget_address_failure(address)
    return link


def _require_code(link: OneTimeLink, recovery: AccountRecovery, code: str, address: str) -> None:
    """Raise unless `code` is the recovery's code, or the recovery has none."""
    code_hmac = bytes(recovery.code_hmac)
    if not code_hmac:
        return
    typed = "".join(each for each in code.upper() if each.isalnum())
    if not typed:
        forget_address_failure(address)
        raise InvalidInput(
            "This link also needs the recovery's code.",
            code="recovery_code_needed",
            hint="The administrator who requested the recovery has it.",
            fields={"code": ["is needed"]},
        )
    if not secret_matches(typed, code_hmac, recovery.pepper_version):
        raise NotAuthenticated(
            "The recovery's code is wrong.",
            code="wrong_recovery_code",
            hint="The administrator who requested the recovery has it.",
            attempt=_attempt(link),
        )


def secret_matches(secret: str, expected_hmac: bytes, pepper_version: int) -> bool:
    """Return whether `expected_hmac` is the secret's HMAC under this version of the pepper."""
    pepper = settings.KEY_PEPPERS.get(pepper_version)
    matches = hmac.compare_digest(secret_hmac(secret, pepper or b""), expected_hmac)
    return matches and pepper is not None


def link_claim(*, link_id: int | None, purpose: LinkPurpose) -> OneTimeLink:
    """Mark an opened link as used, in the caller's transaction, and lock the person's row.

    Raises:
        NotFound: the link was used or replaced, or expired, meanwhile (code `link_not_valid`).
    """
    rows = OneTimeLink.objects.select_for_update(of=("self",)).select_related("recovery")
    link = rows.filter(pk=link_id or 0, purpose=purpose).first()
    if link is None:
        raise not_valid(None)
    link.person = Person.objects.select_for_update(no_key=True).get(pk=link.person_id)
    if link.recovery is None:
        # An earlier version of Assay let one administrator permit a first second factor.
        allowed = purpose != LinkPurpose.FACTOR
    else:
        allowed = link.recovery.state == RecoveryState.OPENED
    if not _is_open(link) or not allowed:
        raise not_valid(link)
    link.used_at = timezone.now()
    link.save(update_fields=["used_at"])
    return link


def links_revoke(*, person_id: int) -> int:
    """Revoke a person's open links; the caller audits the reason."""
    links = OneTimeLink.objects.filter(_OPEN, person_id=person_id)
    return links.update(revoked_at=timezone.now())


def not_valid(link: OneTimeLink | None) -> NotFound:
    """Return the error for every link that does not work, whatever the reason."""
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
