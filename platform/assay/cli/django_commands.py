"""Django's own commands, run by `assay` on the server."""

from __future__ import annotations

import os
import sys

from assay.cli.output import CliError, show_error


def manage(argv: list[str]) -> None:
    """Run Django's own commands (`manage.py migrate`, …)."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        show_error(CliError(f"The settings are not right: {error}"))
        sys.exit(1)
