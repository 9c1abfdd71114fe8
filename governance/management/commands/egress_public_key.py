"""`manage.py egress_public_key`: print the key to which secrets of providers are sealed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from governance.credentials.sealing import key_from_text, public_key_of


class Command(BaseCommand):
    """Derive the public key from the private key, without a database."""

    help = "Print the public key of ASSAY_EGRESS_KEY, for ASSAY_EGRESS_PUBLIC_KEY."
    requires_system_checks: list[str] = []  # noqa: RUF012 (Django's own attribute)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.EGRESS_KEYS:
            raise CommandError("ASSAY_EGRESS_KEY is not set; `openssl rand -hex 32` makes one.")
        self.stdout.write(public_key_of(key_from_text(settings.EGRESS_KEYS[0])).hex())
