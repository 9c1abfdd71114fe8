"""The process that runs SGLang: `python -I sglang_process.py SOCKET KEY_FILE SETTING…`.

SGLang listens on TCP alone, leaves some paths open without its key, and has others that load
weights or code. So uvicorn, which serves it, gets a Unix socket here, and a gate before SGLang's
application. Runs in SGLang's environment; loads it, uvicorn and the standard library alone.
"""

from __future__ import annotations

import hmac
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Any, Send], Awaitable[None]]

PATHS = frozenset({"/health", "/generate", "/load_lora_adapter", "/unload_lora_adapter"})


class Gate:
    """Passes on what an engine asks, with the server's key, and nothing else."""

    def __init__(self, application: Application, key: str) -> None:
        self._application = application
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not hmac.compare_digest(
            dict(scope["headers"]).get(b"authorization", b""), self._expected
        ):
            await _refuse(send, 401)
        elif scope["path"] not in PATHS:
            await _refuse(send, 404)
        else:
            await self._application(scope, receive, send)


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b'{"error": "refused"}'})


def serve(socket: str, key: str, settings: list[str]) -> None:
    """Run SGLang until it ends."""
    import uvicorn

    class Config(uvicorn.Config):  # type: ignore[misc]
        def __init__(self, app: Application, **given: Any) -> None:
            super().__init__(Gate(app, key), **{**given, "uds": socket})

    uvicorn.Config = Config
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import prepare_server_args

    # Its processes send each other pickles over sockets here, where no other server reaches them.
    tempfile.tempdir = "/dev/shm"  # noqa: S108
    launch_server(prepare_server_args(settings))


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(Path(sys.argv[2]).read_bytes())["api-key"], sys.argv[3:])
