"""Notices about an account: to its owner and to every administrator, by mail."""

from __future__ import annotations

from django.conf import settings
from django.utils import timezone

from governance.audit.streaming.sending import SendFailed
from governance.mail import mail_send
from governance.outgoing import outgoing_send_due
from governance.people.models import Person
from governance.people.recoveries.models import AccountNotice, AccountRecovery, NoticeKind
from governance.people.selectors import administrators

_SUBJECTS = {
    NoticeKind.REQUESTED: "Recovery requested: {}",
    NoticeKind.APPROVED: "Recovery approved: {}",
    NoticeKind.OPENED: "Account recovered: {}",
    NoticeKind.ENDED: "Recovery ended: {}",
    NoticeKind.ADDRESS: "E-mail address changed: {}",
}


def account_tell(
    kind: NoticeKind, about: Person, *, recovery: AccountRecovery | None = None, address: str = ""
) -> None:
    """Queue a notice to the account's owner, all administrators and `address` (the former e-mail
    address), in the caller's transaction.
    """
    if settings.MAIL_SERVER is None:
        return
    people = {person.pk: person for person in (about, *administrators())}
    now = timezone.now()
    notices = [
        AccountNotice(kind=kind, about=about, person=person, recovery=recovery, next_at=now)
        for person in people.values()
    ]
    if address:
        notices.append(
            AccountNotice(kind=kind, about=about, person=about, address=address, next_at=now)
        )
    AccountNotice.objects.bulk_create(notices)


def account_notices_send_due() -> int:
    """Send due notices about accounts; returns the number of accepted messages."""
    rows = AccountNotice.objects.select_related(
        "about", "person", "recovery__requested_by", "recovery__approved_by", "recovery__ended_by"
    )
    return outgoing_send_due(rows, send=_send, needless=_skip_reason)


def _skip_reason(notice: AccountNotice) -> str:
    # The owner of an account that was deactivated meanwhile still gets the notice.
    if notice.person.erased_at is not None or not notice.person.email:
        return "The person has left."
    return ""


def _send(notice: AccountNotice) -> None:
    server = settings.MAIL_SERVER
    if server is None:
        raise SendFailed("No mail server is set.")
    mail_send(
        server,
        to=notice.address or notice.person.email,
        subject=_SUBJECTS[NoticeKind(notice.kind)].format(_line(notice.about.name)),
        text=notice_text(notice),
        message_id=f"assay-account-notice-{notice.pk}",
    )


def notice_text(notice: AccountNotice) -> str:
    """Return the mail's text. Its link grants no access: it leads to a page behind sign-in."""
    name = _line(notice.about.name)
    lines = [_sentence(notice, name), ""]
    if notice.recovery is not None:
        lines += [f"Reason: {_line(notice.recovery.reason)}", ""]
        if notice.kind in (NoticeKind.REQUESTED, NoticeKind.APPROVED):
            lines += [
                "If this recovery should not happen, reject it:",
                f"{settings.PORTAL_URL}/people/recoveries",
            ]
        else:
            lines += [f"{settings.PORTAL_URL}/people/{notice.about_id}/sign-in"]
    own = notice.person_id == notice.about_id
    why = "it is your account" if own else "you are an administrator"
    lines += ["", f"You get this because {why}."]
    return "\n".join(lines) + "\n"


def _sentence(notice: AccountNotice, name: str) -> str:
    recovery = notice.recovery
    if recovery is None:
        return (
            f"The identity provider changed the e-mail address of {name}. If that is wrong, "
            "deactivate the account."
        )
    requester = "The server's command line"
    if recovery.requested_by is not None:
        requester = _line(recovery.requested_by.name)
    match notice.kind:
        case NoticeKind.REQUESTED:
            return f"{requester} requested a recovery of the account of {name}."
        case NoticeKind.APPROVED:
            approver = "A command on the server"
            if recovery.approved_by is not None:
                approver = _line(recovery.approved_by.name)
            return (
                f"{approver} approved the recovery of the account of {name}. From "
                f"{recovery.effective_at:%-d %B %Y, %H:%M} UTC on, a one-time link replaces its "
                "second factors."
            )
        case NoticeKind.OPENED:
            return (
                f"The link of the recovery was opened. The former second factors, sessions and "
                f"access tokens of {name} have ended."
            )
    return f"The recovery of the account of {name} ended. Nothing was changed."


def _line(text: str) -> str:
    """Return the text on one line, as a mail's header needs it."""
    return " ".join(text.split())
