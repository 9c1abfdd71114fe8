"""Metrics and state of the controllers, read from the database."""

from __future__ import annotations

import asyncio

from assay.gateway.access.reading import close_connection
from assay.gateway.monitoring.exposition import Reading
from workers.leadership.selectors import Controllers, controllers_read

CONTROLLERS = Reading("assay_controllers", "Controllers that reported in the last 8 seconds.")
EXPECTED = Reading("assay_controllers_expected", "Controllers that should run.")
LEADS = Reading("assay_controller_leads", "1 while a controller holds the leader's lease.")


async def measure_controllers() -> Controllers:
    """Update the gauges of controllers with two queries, and return what was read.

    Raises:
        django.db.Error: the database does not answer; the gauges keep their values.
    """
    controllers = await asyncio.to_thread(_read)
    CONTROLLERS.set(len(controllers.reporting))
    EXPECTED.set(controllers.expected)
    LEADS.set(bool(controllers.leader))
    return controllers


def _read() -> Controllers:
    try:
        return controllers_read()
    finally:
        close_connection()
