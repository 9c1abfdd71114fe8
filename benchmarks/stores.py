"""Separate stores for a benchmark, with Django set up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def own_stores(
    *, postgres_settings: Mapping[str, str] | None = None, **environment: str
) -> Iterator[None]:
    """Run migrated PostgreSQL and Valkey in a temporary folder. Django must not be set up yet.
    Child processes inherit the stores' addresses and `environment`.
    """
    import psycopg

    from assay.local.services import Postgres, Valkey

    with ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(prefix="assay-bench-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(scratch))
        folder.chmod(0o755)
        postgres = Postgres(folder / "postgres")
        if postgres_settings:
            with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
                for name, value in postgres_settings.items():
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            postgres.stop()
            postgres = Postgres(folder / "postgres")
        stack.callback(postgres.stop)
        valkey = Valkey()
        stack.callback(valkey.stop)
        static = folder / "static"
        static.mkdir()
        os.environ.update(
            DATABASE_URL=postgres.url("postgres"),
            REDIS_URL=valkey.url,
            ASSAY_DATA_DIR=str(folder / "data"),
            ASSAY_STATIC_ROOT=str(static),
            DJANGO_SETTINGS_MODULE="assay.settings",
            **environment,
        )
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        yield
