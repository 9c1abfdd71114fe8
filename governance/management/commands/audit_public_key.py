"""`manage.py audit_public_key`: print the key that verifies the audit log."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from governance.audit.signing import audit_public_key


class Command(BaseCommand):
    """Derive the public key from the signing key, without a database."""

    help = "Print the public key of ASSAY_AUDIT_SIGNING_KEY, for ASSAY_AUDIT_PUBLIC_KEY."
    requires_system_checks: list[str] = []  # noqa: RUF012 (Django's own attribute)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(audit_public_key())
