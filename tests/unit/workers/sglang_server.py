"""A stand-in for SGLang 0.5.23, which needs a GPU: the parts that `sglang_process.py` imports.

It follows SGLang's source: arguments, paths, bodies, the shape of events, errors and refusals. Its
model is arithmetic over what it was given, so that each adapter answers differently. An adapter's
file `fault` makes it go wrong: "base" answers as the base, "first" as the first adapter, "leak"
makes the base answer as the adapter, and "crash" ends the server at a long answer.

`install` copies this file into a folder as SGLang's modules, next to a Python that finds them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
SAMPLING = {
    "max_new_tokens", "stop", "stop_token_ids", "stop_regex", "temperature", "top_p", "top_k",
    "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "min_new_tokens", "n",
    "json_schema", "regex", "ebnf", "structural_tag", "ignore_eos", "skip_special_tokens",
    "spaces_between_special_tokens", "no_stop_trim", "stream_interval", "logit_bias",
    "sampling_seed", "custom_params", "beam_width", "watermark", "choice",
}  # fmt: skip
PYTHON = """#!/bin/sh
shift  # -I, which would hide the stand-in
case "$2" in *sys.prefix*) echo {folder} ;; esac
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={folder} exec {python} "$@"
"""


def install(folder: Path, version: str = "0.5.23") -> str:
    """Install the stand-in into a folder; returns the path of its Python."""
    modules = folder / "sglang" / "srt" / "entrypoints"
    modules.mkdir(parents=True)
    shutil.copy(__file__, modules / "http_server.py")
    for each in (modules, modules.parent, modules.parent.parent):
        (each / "__init__.py").touch()
    (modules.parent / "server_args.py").write_text(
        "from sglang.srt.entrypoints.http_server import prepare_server_args\n"
    )
    about = folder / f"sglang-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: sglang\nVersion: {version}\n")
    python = folder / "python"
    python.write_text(PYTHON.format(folder=folder, python=sys.executable))
    python.chmod(0o700)
    return str(python)


def prepare_server_args(settings: list[str]) -> argparse.Namespace:
    """Parse SGLang's arguments, as far as an engine sets them."""
    parser = argparse.ArgumentParser(prog="sglang serve")
    parser.add_argument("--model-path", "--model", required=True, type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument(
        "--dtype", default="auto", choices=["auto", "float16", "bfloat16", "float32"]
    )
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--max-running-requests", type=int)
    parser.add_argument("--max-loras-per-batch", type=int, default=8)
    parser.add_argument("--max-lora-rank", type=int)
    parser.add_argument("--lora-target-modules", nargs="*", choices=[*MODULES, "all"])
    parser.add_argument("--grammar-backend", choices=["xgrammar", "outlines", "llguidance", "none"])
    parser.add_argument("--sampling-defaults", default="model", choices=["openai", "model"])
    parser.add_argument("--chat-template")
    parser.add_argument("--log-level", default="info")
    for flag in ("enable-lora", "incremental-streaming-output", "skip-server-warmup"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--lora-strict-loading", action=argparse.BooleanOptionalAction)
    args = parser.parse_args(settings)
    assert args.max_lora_rank
    assert args.lora_target_modules, "needed where no adapter is given at the start"
    return args


def launch_server(args: argparse.Namespace) -> None:
    """Serve until the process ends."""
    import uvicorn

    note(f"ipc {tempfile.mkstemp()[1]}")
    assert (args.model_path / "config.json").is_file()
    config = uvicorn.Config(
        Server(args), host=args.host, port=args.port, log_level=args.log_level, loop="uvloop"
    )
    uvicorn.Server(config).run()


class Refused(ValueError):
    """A request that SGLang refuses by ValueError: status 400, or an error in a stream."""


class Server:
    """SGLang's application."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.loaded: dict[str, str] = {}  # adapters by name: what they answer as
        self.crashes: set[str] = set()
        self.base = "base"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        data = b""
        while (message := await receive())["type"] == "http.request":
            data += message["body"]
            if not message.get("more_body"):
                break
        body = json.loads(data) if data else {}
        try:
            if scope["path"] == "/generate":
                await self.generate(body, receive, send)
            elif scope["path"] == "/load_lora_adapter":
                await answer(send, self.load(body["lora_name"], Path(body["lora_path"])))
            elif scope["path"] == "/unload_lora_adapter":
                if self.loaded.pop(body["lora_name"], None) is None:
                    raise Refused(f"LoRA with name {body['lora_name']} does not exist.")
                await answer(send, {"success": True, "error_message": ""})
            else:  # Its other paths, such as those that load weights.
                await answer(send, {})
        except Refused as error:
            told = {"success": False, "error_message": str(error), "error": {"message": str(error)}}
            await answer(send, told, 400)

    def load(self, name: str, path: Path) -> dict[str, Any]:
        if name in self.loaded:
            raise Refused(f"Failed to load LoRA adapter {name} because it is already loaded")
        config = json.loads((path / "adapter_config.json").read_bytes())
        targets = {each.rpartition(".")[2] for each in config["target_modules"]}
        if config["r"] > self.args.max_lora_rank or targets - set(self.args.lora_target_modules):
            raise Refused(f"LoRA adapter {name} with rank {config['r']} is incompatible")
        weights = (path / "adapter_model.safetensors").read_bytes()
        fault = (path / "fault").read_text() if (path / "fault").is_file() else ""
        known = [*self.loaded.values(), str(zlib.crc32(weights))]
        self.loaded[name] = {"base": self.base, "first": known[0]}.get(fault, known[-1])
        if fault == "leak":
            self.base = self.loaded[name]
        if fault == "crash":
            self.crashes.add(name)
        return {"success": True, "error_message": "", "loaded_adapters": {}}

    async def generate(self, body: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            model = self.checked(body)
        except Refused as error:
            if not body.get("stream"):
                raise
            await begin(send)
            await event(send, {"error": {"message": str(error), "code": 400, "retryable": False}})
            await event(send, None)
            return
        sampling, made = body["sampling_params"], []
        gone = asyncio.ensure_future(receive())
        if body.get("stream"):
            await begin(send)
        logs, tops, reason = [], [], None
        while reason is None:
            token, log = following(model, [*body["input_ids"], *made], sampling)
            made.append(token)
            logs.append([log, token, None])
            tops.append([[log, token, None], [log - 1, token + 1, None]])
            if token in sampling.get("stop_token_ids", []) and not sampling.get("ignore_eos"):
                reason = {"type": "stop", "matched": token}
            elif len(made) == sampling["max_new_tokens"]:
                reason = {"type": "length", "length": len(made)}
            if body.get("stream"):
                told = self.told(body, logs[-1:], tops[-1:], reason, len(made))
                await event(send, {"text": "", "output_ids": made[-1:], "meta_info": told})
                await asyncio.sleep(0.005)
                if gone.done():
                    note("aborted")
                    return
        gone.cancel()
        if body.get("stream"):
            await event(send, None)
        else:
            told = self.told(body, logs, tops, reason, len(made))
            await answer(send, {"text": "", "output_ids": made, "meta_info": told})

    def checked(self, body: dict[str, Any]) -> str:
        """Return what answers a request. Raises Refused."""
        sampling = body["sampling_params"]
        if unknown := set(sampling) - SAMPLING:
            raise Refused(f"unknown field: {unknown}")
        if len(body["input_ids"]) + sampling["max_new_tokens"] > self.args.context_length:
            raise Refused("Requested token count exceeds the model's maximum context length")
        if (name := body.get("lora_path")) is None:
            return self.base
        if name not in self.loaded:
            raise Refused(f"Got LoRA adapter that has never been loaded: {name}")
        if name in self.crashes and sampling["max_new_tokens"] > 8:
            os._exit(1)
        return self.loaded[name]

    def told(
        self, body: dict[str, Any], logs: list[Any], tops: list[Any], reason: Any, count: int
    ) -> dict[str, Any]:
        """Return the `meta_info` of an answer's part."""
        prompt = body["input_ids"]
        about: dict[str, Any] = {
            "id": "r", "finish_reason": reason, "prompt_tokens": len(prompt),
            "completion_tokens": count, "cached_tokens": 0,
        }  # fmt: skip
        if body.get("return_logprob"):
            about["output_token_logprobs"] = logs
            if number := body.get("top_logprobs_num"):
                about["output_top_logprobs"] = [each[:number] for each in tops]
            if (start := body.get("logprob_start_len", -1)) >= 0:
                stated = [[-0.5, token, None] for token in prompt[start + 1 :]]
                about["input_token_logprobs"] = [[None, prompt[start], None], *stated]
        return about


def following(model: str, tokens: list[int], sampling: dict[str, Any]) -> tuple[int, float]:
    """Return the next token with its log probability."""
    number = zlib.crc32(f"{model} {tokens}".encode())
    for token, bias in sampling.get("logit_bias", {}).items():
        if bias > 50:
            return int(token), -1.0
    return 300 + number % 1_000, -1.0 - number % 97 / 100


def note(line: str) -> None:
    """Tell the test something by the server's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def begin(send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def event(send: Any, told: dict[str, Any] | None) -> None:
    """Send an event, or the end of the stream."""
    line = b"[DONE]" if told is None else json.dumps(told).encode()
    body = {"type": "http.response.body", "body": b"data: " + line + b"\n\n"}
    await send({**body, "more_body": told is not None})


async def answer(send: Any, told: dict[str, Any], status: int = 200) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
