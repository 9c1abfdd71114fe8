"""Django commands that `assay` runs on the server."""

from __future__ import annotations

import os
import sys

from assay.cli.local import manage_locally, runs_locally
from assay.cli.output import CliError, show_error


def manage(argv: list[str], *, begins: bool = False) -> None:
    """Run a Django command, such as `manage.py migrate`.

    `assay` runs it in the installation of `assay up`, unless the settings name another. A command
    that `begins` an installation creates it.
    """
    if argv[0].startswith("assay") and runs_locally(begins=begins):
        sys.exit(manage_locally(argv[1:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        show_error(CliError(f"The settings are invalid: {error}"))
        sys.exit(1)
