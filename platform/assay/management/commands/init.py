"""`assay init`: set up an installation in one command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from assay.cli.doctor import check_disk, check_postgresql, check_redis
from governance.people.models import Role, RoleAssignment

NEEDED: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("PostgreSQL", check_postgresql, "Start PostgreSQL, or correct DATABASE_URL."),
    ("Redis or Valkey", check_redis, "Start it, or correct REDIS_URL."),
    ("Data folder", check_disk, "Set ASSAY_DATA_DIR to a folder that can be written."),
)
FIRST_STEPS = """
First steps:
  1. Open the link above: set your password and add an authenticator app.
  2. Add a second administrator under People; `assay people recover` sets the account up with you
     (docs/how-to/recover-accounts.md).
  3. Create a department and give it a lead: Departments.
  4. Start the controller and the workers, then look at Health and Workers in the portal.
  5. Upload a base model: Models → Upload for checks.
The overview of the portal keeps this list. `assay doctor` checks every service.
"""


class Command(BaseCommand):
    """Idempotent: run it again after an upgrade, or if the first link was lost."""

    help = (
        "Check the settings, migrate the database, install the first policies, and print the "
        "one-time link of the first administrator."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--admin", metavar="EMAIL", help="e-mail of the first administrator")
        parser.add_argument("--name", help="name of the first administrator")

    def handle(self, *args: Any, **options: Any) -> None:
        for name, check, fix in NEEDED:
            # A process that only migrates has no data folder.
            if check is not check_disk or settings.PROCESS != "migrate":
                self._check(name, check, fix)
        call_command("migrate", interactive=False, verbosity=0, stdout=self.stdout)
        self.stdout.write("The database is migrated.")
        call_command("apply_database_roles", stdout=self.stdout)
        email = options["admin"] or self._admin_email()
        call_command("bootstrap", admin=email, name=options["name"], stdout=self.stdout)
        self.stdout.write(FIRST_STEPS)
        self.stdout.write(f"The portal's address is {settings.PORTAL_URL} (ASSAY_PORTAL_URL).")

    def _check(self, name: str, check: Callable[[], str], fix: str) -> None:
        try:
            result = check()
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CommandError(f"{name}: {first[:200]} {getattr(error, 'fix', fix)}") from error
        self.stdout.write(f"{name}: {result}.")

    def _admin_email(self) -> str | None:
        """Return the typed e-mail address; None if an administrator exists."""
        if RoleAssignment.objects.filter(role=Role.ADMIN).exists():
            return None
        if not sys.stdin.isatty():
            raise CommandError(
                "There is no administrator yet. Name the first one: --admin you@example.com"
            )
        return input("E-mail address of the first administrator: ").strip()
