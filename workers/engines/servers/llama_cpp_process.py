"""Process that runs llama.cpp: `python -I llama_cpp_process.py SETTINGS`, a JSON object.

It serves one GGUF on a Unix socket. Loads only xllamacpp and the standard library.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any


def serve(settings: dict[str, Any]) -> Any:
    """Start the server; it runs as long as the returned object lives."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.port = 0
    params.api_keys = [json.loads(Path(settings["key"]).read_bytes())["api-key"]]
    params.n_ctx = settings["positions"]
    params.n_parallel = settings["rows"]
    # The rows share the positions; each may use as many as the model allows.
    params.kv_unified = True
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.n_gpu_layers = settings["gpu_layers"]
    params.n_threads_http = settings["rows"] + 2
    # Do not cache a request's state for other requests, and do not report it.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.ui = False
    params.offline = True
    params.verbosity = 1
    # Prompts arrive as tokens. The template in the file is code, so it is not used.
    params.chat_template = "chatml"
    params.use_jinja = False
    return xllamacpp.Server(params)


if __name__ == "__main__":
    server = serve(json.loads(sys.argv[1]))
    threading.Event().wait()
