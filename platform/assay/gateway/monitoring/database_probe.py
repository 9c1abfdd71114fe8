"""Probe of the database with a time limit."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django.db import Error, connection

from governance.errors import Unavailable

PATIENCE_S = 2.0


class DatabaseProbe:
    """Opens a connection like a request, and runs one statement on it.

    Concurrent probes share one answer, so that at most one thread and one connection are used,
    however long the database hangs.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assay-database-probe")
        self._probe: asyncio.Future[None] | None = None

    async def ask(self) -> None:
        """Return once the database has answered.

        Raises:
            Unavailable: it refused, no connection was free, or two seconds passed.
        """
        if self._probe is None or self._probe.done():
            loop = asyncio.get_running_loop()
            self._probe = loop.run_in_executor(self._thread, _ask)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(self._probe)
        except (TimeoutError, Error) as error:
            raise Unavailable("The database does not answer.", retry_after=5) from error

    async def stop(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)


def _ask() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()
