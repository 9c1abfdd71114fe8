"""`manage.py run_controller`: run the control plane's loops until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from workers.controller import Controller


class Command(BaseCommand):
    help = "Run the control plane: audit sealer, usage collector, job sweeper, release expiry."

    def handle(self, *_args: Any, **_options: Any) -> None:
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        controller = Controller()
        controller.start()
        ended.wait()
        controller.close()
