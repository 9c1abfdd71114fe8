"""`manage.py apply_database_roles`: create the roles of the processes, after every `migrate`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from assay.database_roles.apply import RolesNotApplied, apply_roles
from assay.database_roles.hardening import STATEMENTS, functions_left
from assay.database_roles.privileges import ROLES


class Command(BaseCommand):
    """Idempotent; run as the tables' owner."""

    help = (
        "Create the database roles of the web process, the controller and the workers, and give "
        "each only the privileges that it needs. Passwords come from "
        "ASSAY_DATABASE_PASSWORD_WEB, _CONTROLLER and _WORKER, or files named by …_FILE."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--connections",
            metavar="PROCESS=NUMBER",
            action="append",
            default=[],
            help="connection limit of a process's role, such as worker=80",
        )

        parser.add_argument(
            "--show-hardening",
            action="store_true",
            help="print the statements with which a superuser can revoke more, and change nothing",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["show_hardening"]:
            self.stdout.write(STATEMENTS)
            return
        limits: dict[str, int] = {}
        for text in options["connections"]:
            process, _, number = text.partition("=")
            if process not in ROLES or not number.isdecimal():
                raise CommandError(
                    f"--connections {text!r}: use {', '.join(ROLES)} and a whole number, "
                    "as in worker=80."
                )
            limits[process] = int(number)
        connection.ensure_connection()
        try:
            apply_roles(
                connection.connection,
                passwords=settings.DATABASE_ROLE_PASSWORDS,
                connections=limits,
            )
        except RolesNotApplied as error:
            raise CommandError(f"{error.message} {error.hint}") from error
        for process, role in ROLES.items():
            limit = limits.get(process, role.connections)
            self.stdout.write(f"{role.name}: at most {limit} connections.")
        if names := functions_left(connection.connection):
            self.stdout.write(
                f"Workers may still call {len(names)} functions that block others. As a superuser "
                "of PostgreSQL, run what `apply_database_roles --show-hardening` prints."
            )
