"""`manage.py write_broker_users FILE`: the broker's access control file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from assay.broker_users import ADMIN, NAMES, access_control_file

LEAST_CHARACTERS = 24


class Command(BaseCommand):
    """Idempotent; Valkey reads the file at its start, and on ACL LOAD."""

    help = (
        "Write the access control file of Valkey (aclfile): a user for each kind of process. "
        "Passwords come from ASSAY_BROKER_PASSWORD_WEB, _CONTROLLER, _COMPUTE, _ENGINE and _ADMIN, "
        "or files named by …_FILE."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="path of the file")

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        passwords = settings.BROKER_PASSWORDS
        for name in NAMES:
            if len(passwords[name]) < LEAST_CHARACTERS:
                raise CommandError(
                    f"The password of {name} is missing or too short. Set "
                    f"ASSAY_BROKER_PASSWORD_{name.upper()}, or …_FILE, to at least "
                    f"{LEAST_CHARACTERS} characters."
                )
        if len({passwords[name] for name in NAMES}) < len(NAMES):
            raise CommandError(f"Each user, including {ADMIN}, needs its own password.")
        new = file.with_name(f"{file.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        # Valkey runs as another user and must read it, whatever the umask.
        os.fchmod(descriptor, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(access_control_file(passwords))
        new.replace(file)
        self.stdout.write(f"{file}: {', '.join(NAMES)}.")
