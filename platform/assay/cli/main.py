"""The `assay` command and Django's `manage.py`."""

from __future__ import annotations

import os


def manage(argv: list[str]) -> None:
    """Run Django's own commands (`manage.py migrate`, …)."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(argv)
