"""Django commands that `assay` runs on the server."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from assay.cli.local import manage_locally, runs_locally
from assay.cli.output import CliError, show_error


def init(
    admin: Annotated[
        str | None, typer.Option(help="E-mail address of the first administrator.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the first administrator.")] = None,
) -> None:
    """Set up an installation: check settings, migrate, and invite the first administrator.

    Without DATABASE_URL, it is the installation of `assay up` in this folder.
    """
    values = {"--admin": admin, "--name": name}
    options = [part for flag, value in values.items() if value for part in (flag, value)]
    manage(["assay", "init", *options], begins=True)


def manage_command(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Django command and its arguments.")
    ] = None,
) -> None:
    """Run a Django command, such as `assay manage migrate`."""
    manage(["assay manage", *(arguments or [])])


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
