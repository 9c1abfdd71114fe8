"""`manage.py bootstrap`: install the first policies and, with `--admin`, an administrator."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from governance.errors import DomainError
from governance.people.credentials import has_factor
from governance.people.models import Person, Role, RoleAssignment
from governance.people.recoveries.approving import recovery_on_server
from governance.people.services import first_admin_create
from governance.policy.services import policy_bootstrap
from governance.reviews.policies.shipping import review_policies_bootstrap


class Command(BaseCommand):
    """Create what is missing; existing rows stay unchanged."""

    help = (
        "Install the default policy and the review policies as version 1. With --admin and --name, "
        "create the first administrator, and print a one-time link for setting their password and "
        "second factor."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--admin", metavar="EMAIL", help="e-mail of the first administrator")
        parser.add_argument("--name", help="name of the first administrator")

    def handle(self, *args: Any, **options: Any) -> None:
        version = policy_bootstrap()
        self.stdout.write(f"{version} is installed, digest {version.digest}.")
        for policy in review_policies_bootstrap():
            self.stdout.write(f"Review policy {policy} is installed, digest {policy.digest}.")
        if email := options["admin"]:
            self._admin(email, options["name"] or email.partition("@")[0])

    def _admin(self, email: str, name: str) -> None:
        admins = RoleAssignment.objects.filter(role=Role.ADMIN, person__is_active=True)
        admin = admins.filter(person__email=email.strip().lower()).select_related("person").first()
        person: Person | None = None if admin is None else admin.person
        if person is not None and (person.has_usable_password() or has_factor(person.pk)):
            self.stdout.write(f"{email} is an administrator already.")
            return
        try:
            if person is None:
                person = first_admin_create(email=email, name=name)
            recovery, address = recovery_on_server(
                person_id=person.pk, reason="The first administrator sets up the account."
            )
        except DomainError as error:
            faults = [fault for faults in error.fields.values() for fault in faults]
            raise CommandError(" ".join([error.message, *faults, error.hint]).strip()) from error
        self.stdout.write(
            f"{person.email} is the first administrator. Set the password and a second factor with "
            f"this link; it works once, until {recovery.expires_at:%Y-%m-%d %H:%M} UTC:"
        )
        self.stdout.write(address or f"It is mailed to {person.email}.")
