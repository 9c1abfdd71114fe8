"""A provider: llama.cpp's own server with a key, on loopback, in a separate process."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from assay.local.programs import Program
from assay.local.services import free_port

MODEL = "smollm2-135m-instruct-q4"
HOST = "localhost"
START_S = 60
# Tokens of a prompt with its answer.
CONTEXT = 2048
# Loads only xllamacpp and the standard library. The environment has the key; arguments are public.
_SERVER = """
import os, sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.model_alias = {sys.argv[3]}
params.api_keys = [os.environ["PROVIDER_KEY"]]
params.n_ctx, params.n_parallel, params.n_gpu_layers = 2 * int(sys.argv[4]), 2, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.ui, params.offline, params.verbosity = False, True, 1
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@dataclass(frozen=True)
class Provider:
    """A running provider. `origin` is its address, and `key` the secret that it requires."""

    origin: str
    key: str


def start(folder: Path, gguf: Path, key: str) -> Provider:
    """Start the server; it ends with this process. A later start in `folder` has the same address.

    Raises:
        RuntimeError: it does not answer.
    """
    port = _port(folder / "provider.json")
    program = Program(
        [sys.executable, "-I", "-c", _SERVER, str(gguf), str(port), MODEL, str(CONTEXT)],
        environment={"PROVIDER_KEY": key},
        log=folder / "logs" / "provider.log",
        folder=folder,
    )
    origin = f"http://{HOST}:{port}"
    deadline = time.monotonic() + START_S
    while not _answers(origin):
        if program.ended() or time.monotonic() > deadline:
            raise RuntimeError(f"The provider did not start; its log is {program.log}.")
        time.sleep(0.1)
    return Provider(origin, key)


def _port(file: Path) -> int:
    if not file.exists():
        file.write_text(json.dumps({"port": free_port()}))
    port: int = json.loads(file.read_text())["port"]
    return port


def _answers(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
