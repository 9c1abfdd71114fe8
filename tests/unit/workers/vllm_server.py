"""A stand-in for vLLM's server, which takes gigabytes: paths, bodies and events as the engine uses
them.

Its model is arithmetic over what it was given, so that each adapter answers differently. An
adapter's file `fault` makes it go wrong: "base" answers as the base, "first" as the first adapter,
"leak" makes the base answer as the adapter, and "crash" ends the server at a long answer.

`install` copies this file into a folder as vLLM's module, next to a Python that finds it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

# As vLLM 0.32 writes them, without most of the lines.
METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="base"} 0.375
"""
PYTHON = """#!/bin/sh
shift  # -I, which would hide the stand-in
case "$2" in *sys.prefix*) echo {folder} ;; esac
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={folder} exec {python} "$@"
"""


def install(folder: Path) -> str:
    """Install the stand-in into a folder; return the path of its Python."""
    modules = folder / "vllm" / "entrypoints" / "openai"
    modules.mkdir(parents=True)
    shutil.copy(__file__, modules / "api_server.py")
    for each in (modules, modules.parent, modules.parent.parent):
        (each / "__init__.py").touch()
    about = folder / "vllm-0.32.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.4\nName: vllm\nVersion: 0.32.0\n")
    python = folder / "python"
    python.write_text(PYTHON.format(folder=folder, python=sys.executable))
    python.chmod(0o700)
    return str(python)


class Refused(ValueError):
    """A request that the server refuses with status 400."""


class Server:
    """The server's application."""

    def __init__(self, key: str, rank: int) -> None:
        self.key, self.rank = key, rank
        self.loaded: dict[str, str] = {}  # adapters by name: what they answer as
        self.crashes: set[str] = set()
        self.base = "base"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        data = b""
        while (message := await receive())["type"] == "http.request":
            data += message["body"]
            if not message.get("more_body"):
                break
        body = json.loads(data) if data else {}
        path = scope["path"]
        try:
            if path.startswith("/v1/") and not self.allows(scope):
                await answer(send, {"error": "Unauthorized"}, 401)
            elif path == "/v1/completions":
                await self.complete(body, receive, send)
            elif path == "/v1/load_lora_adapter":
                self.load(body["lora_name"], Path(body["lora_path"]))
                await answer(send, {})
            elif path == "/v1/unload_lora_adapter":
                if self.loaded.pop(body["lora_name"], None) is None:
                    raise Refused(f"The adapter {body['lora_name']} is not loaded.")
                await answer(send, {})
            elif path == "/metrics":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": METRICS})
            else:
                await answer(send, {}, 200 if path == "/health" else 404)
        except Refused as error:
            await answer(send, {"error": {"message": str(error)}}, 400)

    def allows(self, scope: Any) -> bool:
        return (b"authorization", f"Bearer {self.key}".encode()) in scope["headers"]

    def load(self, name: str, path: Path) -> None:
        config = json.loads((path / "adapter_config.json").read_bytes())
        if config["r"] > self.rank or any("router" in each for each in config["target_modules"]):
            raise Refused(f"The adapter {name} is incompatible.")
        weights = (path / "adapter_model.safetensors").read_bytes()
        fault = (path / "fault").read_text() if (path / "fault").is_file() else ""
        known = [*self.loaded.values(), str(zlib.crc32(weights))]
        self.loaded[name] = {"base": self.base, "first": known[0]}.get(fault, known[-1])
        if fault == "leak":
            self.base = self.loaded[name]
        if fault == "crash":
            self.crashes.add(name)

    async def complete(self, body: dict[str, Any], receive: Any, send: Any) -> None:
        name = body["model"]
        if name in self.crashes and body["max_tokens"] > 8:
            os._exit(1)
        model = self.base if name == "base" else self.loaded.get(name)
        if model is None:
            raise Refused(f"The model {name} does not exist.")
        gone = asyncio.ensure_future(receive())
        if body.get("stream"):
            await begin(send)
        made: list[int] = []
        logs: list[float] = []
        reason = None
        while reason is None:
            token, log = following(model, [*body["prompt"], *made], body)
            made.append(token)
            logs.append(log)
            if token in body.get("stop_token_ids", []) and not body.get("ignore_eos"):
                reason = "stop"
            elif len(made) == body["max_tokens"]:
                reason = "length"
            if body.get("stream"):
                await event(send, {"choices": [{"token_ids": [token], "finish_reason": reason}]})
                # The answer must outlast its client, also on a busy machine.
                await asyncio.sleep(0.1 if body["max_tokens"] >= 200 else 0.005)
                if gone.done():
                    sys.stderr.write("aborted\n")
                    sys.stderr.flush()
                    return
        gone.cancel()
        if body.get("stream"):
            await event(send, None)
            return
        choice = {"token_ids": made, "finish_reason": reason, "logprobs": {"token_logprobs": logs}}
        await answer(send, {"choices": [choice]})


def following(model: str, tokens: list[int], body: dict[str, Any]) -> tuple[int, float]:
    """Return the next token with its log probability."""
    number = zlib.crc32(f"{model} {tokens}".encode())
    for token, bias in (body.get("logit_bias") or {}).items():
        if bias > 50:
            return int(token), -1.0
    return 300 + number % 1_000, -1.0 - number % 97 / 100


async def begin(send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def event(send: Any, data: dict[str, Any] | None) -> None:
    """Send an event, or the end of the stream."""
    line = b"[DONE]" if data is None else json.dumps(data).encode()
    body = {"type": "http.response.body", "body": b"data: " + line + b"\n\n"}
    await send({**body, "more_body": data is not None})


async def answer(send: Any, data: dict[str, Any], status: int = 200) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(data).encode()})


if __name__ == "__main__":
    import uvicorn

    parser = argparse.ArgumentParser()
    for flag in ("--config", "--uds", "--max-lora-rank"):
        parser.add_argument(flag, required=True)
    arguments, _ = parser.parse_known_args()
    key = json.loads(Path(arguments.config).read_bytes())["api-key"]
    server = Server(key, int(arguments.max_lora_rank))
    uvicorn.run(server, uds=arguments.uds, log_level="error", lifespan="off")
