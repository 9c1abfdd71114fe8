"""The web process: the gateway and the probes on raw ASGI, everything else through Django."""

from __future__ import annotations

import asyncio
import gc
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")

import django
from django.conf import settings

django.setup(set_prefix=False)

# The gateway reads models, and those exist only once Django is set up.
from assay.gateway.app import Gateway  # noqa: E402
from assay.gateway.http.asgi import Receive, Scope, Send  # noqa: E402
from assay.gateway.monitoring.probes import PROBES  # noqa: E402
from assay.gateway.paths import keep_paths  # noqa: E402
from assay.server.django_application import DjangoApplication  # noqa: E402
from assay.server.heads import check_head  # noqa: E402
from assay.server.refusals import refuse  # noqa: E402
from governance.errors import DomainError  # noqa: E402
from registry.catalog import task_catalog  # noqa: E402
from registry.catalog.endpoints import INFERENCE_PATHS  # noqa: E402

keep_paths()


class Application:
    """Dispatches by path. Each instance has its own gateway and Django application."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self.django = DjangoApplication()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            check_head(scope)
        except DomainError as error:
            await refuse(scope, send, error)
            return
        path = scope["path"]
        if path == "/v1" or path.startswith(INFERENCE_PATHS):
            await self.gateway(scope, receive, send)
        elif probe := PROBES.get(path):
            await probe(self.gateway, scope, send)
        else:
            await self.django(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                # Task packages are tested in separate processes, which takes a while.
                await asyncio.to_thread(task_catalog)
                self.gateway.start()
                self.django.warm()
                if settings.WEB:
                    # Otherwise a body with many small values makes the collector scan all modules
                    # repeatedly, while every other request waits.
                    gc.collect()
                    gc.freeze()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.gateway.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = Application()
