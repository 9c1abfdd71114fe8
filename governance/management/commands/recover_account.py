"""`manage.py recover_account WHO`: approve an account's recovery on the server (ADR 41)."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from governance.errors import DomainError
from governance.people.models import LinkPurpose, Person
from governance.people.recoveries.approving import recovery_on_server


class Command(BaseCommand):
    """Print the link unless it is mailed; the audit log records that the server approved it."""

    help = (
        "Approve the recovery of an account on the server, where fewer than two other "
        "administrators have a second factor. If none has, no request is needed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("who", help="the person's id or whole e-mail address")
        parser.add_argument("--factor", action="store_true", help="replace only the second factor")
        parser.add_argument("--reason", default="", help="for the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        who = options["who"].strip().lower()
        lookup = {"pk": int(who)} if who.isascii() and who.isdigit() else {"email": who}
        person = Person.objects.filter(**lookup).first()
        if person is None:
            raise CommandError("There is no such person.")
        purpose = LinkPurpose.FACTOR if options["factor"] else LinkPurpose.PASSWORD
        try:
            recovery, address = recovery_on_server(
                person_id=person.pk, purpose=purpose, reason=options["reason"]
            )
        except DomainError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from error
        self.stdout.write(f"Recovery {recovery.pk} of the account of {person.email} is approved.")
        if recovery.requested_by is not None:
            self.stdout.write(f"They also need the code that {recovery.requested_by.name} has.")
        if recovery.effective_at is not None and recovery.effective_at > timezone.now():
            self.stdout.write(
                f"The link works from {recovery.effective_at:%Y-%m-%d %H:%M} UTC on; until then "
                "every administrator and the account's owner can reject the recovery."
            )
        if not address:
            self.stdout.write(f"The link is mailed to {person.email}.")
            return
        self.stdout.write(f"The link works once, until {recovery.expires_at:%Y-%m-%d %H:%M} UTC:")
        self.stdout.write(address)
