"""Commands of Django, which `assay` runs on the server."""

from __future__ import annotations

import os
import sys

from assay.cli.output import CliError, show_error


def manage(argv: list[str]) -> None:
    """Run a command of Django, such as `manage.py migrate`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        show_error(CliError(f"The settings are invalid: {error}"))
        sys.exit(1)
