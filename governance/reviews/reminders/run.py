"""The controller's loop of reminders, apart from all others: a mail server that hangs holds up no
one but itself.
"""

from __future__ import annotations

import threading

from django.db import close_old_connections

from governance.reviews.reminders.schedule import reminders_record_due
from governance.reviews.reminders.sending import notices_send_due

EVERY_S = 20.0


def run(stop: threading.Event) -> None:
    """Look and send now and then until `stop`."""
    while not stop.is_set():
        close_old_connections()
        reminders_record_due()
        notices_send_due()
        stop.wait(EVERY_S)
