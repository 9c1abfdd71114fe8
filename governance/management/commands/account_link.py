"""`manage.py account_link EMAIL`: make a one-time link from a shell on the server.

For accounts that decide for others, use `recover_account` instead.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from governance.errors import DomainError
from governance.people.links import BOOTSTRAP, password_link_create
from governance.people.models import Person


class Command(BaseCommand):
    """Print the link; the audit log records that the installation made it."""

    help = "Print a one-time link for setting a new password."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email", help="the person's e-mail address")

    def handle(self, *args: Any, **options: Any) -> None:
        person = Person.objects.filter(email=options["email"].strip().lower()).first()
        if person is None:
            raise CommandError("There is no person with this e-mail address.")
        try:
            link, address = password_link_create(actor=BOOTSTRAP, person_id=person.pk)
        except DomainError as error:
            raise CommandError(f"{error.message} {error.hint}".strip()) from error
        self.stdout.write(f"Works once, until {link.expires_at:%Y-%m-%d %H:%M} UTC:")
        self.stdout.write(address)
