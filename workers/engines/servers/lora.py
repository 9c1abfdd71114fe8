"""A server that holds one base and its LoRA adapters, such as vLLM's and SGLang's.

An adapter is served under the SHA-256 of its files, which is never loaded again in place, and must
prove after each load that it, and every other one, answers as itself.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import shutil
import tempfile
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from registry.catalog.generation import SamplingOptions
from workers.engines.adapters import lora_config
from workers.engines.architectures import architecture_of, read_json
from workers.engines.batch import Row
from workers.engines.grammars import Vocabulary
from workers.engines.loading import check_shards, checkpoint_dtype, load_tokenizer
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.servers.channel import ServerFailed, ServerRefused, call
from workers.engines.servers.engine import Dialect, ServedEngine
from workers.engines.servers.llama_cpp import end_tokens
from workers.engines.servers.process import ServerLimits, ServerProcess

logger = logging.getLogger(__name__)

MAX_ROWS = 32
MAX_ADAPTERS = 16
MAX_RANK = 64
# Its answer tells adapters apart; what it says does not matter.
FINGERPRINT = "Once upon a time, the answer to every question was"
FINGERPRINT_TOKENS = 8
_LEAST_DIFFERENCE = 1e-4

Fingerprint = list[tuple[int, float]]


class LoraDialect(Dialect):
    """The requests and answers of a server that holds a base and adapters."""

    title: str
    load_target: str
    unload_target: str

    def __init__(self, vocabulary: Vocabulary, eos: frozenset[int]) -> None:
        self.served: dict[str, str] = {}  # our name of an adapter → the server's
        self._vocabulary = vocabulary
        self._eos = sorted(eos)
        self._key = secrets.token_bytes(32)

    @abstractmethod
    def fingerprint_body(self, prompt: Sequence[int], adapter: str | None) -> dict[str, Any]:
        """Return the request for a greedy answer of `FINGERPRINT_TOKENS` tokens, by an adapter of
        the server or the base."""

    @abstractmethod
    def fingerprint(self, answer: Mapping[str, Any]) -> Fingerprint:
        """Return the tokens of that answer with their log probabilities."""

    def check(self, request: EngineRequest, options: SamplingOptions) -> None:
        """As `Dialect.check`: probabilities of a prompt are refused."""
        if options.echo and options.logprobs is not None:
            raise RequestRefused(
                f"This deployment runs on {self.title}, where the probabilities of a prompt are "
                "not stated; leave echo or logprobs out.",
                code="unsupported_parameter",
            )

    def adapter(self, row: Row) -> str | None:
        """Return the server's name of a row's adapter. Raises ServerFailed: it was unloaded."""
        if row.adapter is None:
            return None
        if (served := self.served.get(row.adapter)) is None:
            raise ServerFailed("the adapter was unloaded")
        return served

    def salt(self, row: Row, scope: str) -> str:
        """Return the namespace of a row's prompt in the server's cache of prefixes.

        Prompts that begin alike share work within one department alone: its time would tell.
        """
        whose = (scope or f"request {row.request_id}").encode()
        return hmac.digest(self._key, whose, "sha256").hex()


class LoraServerEngine(ServedEngine):
    """One base model in a server, with any adapters on it.

    Args:
        dialect: Makes the requests and answers of the server, from vocabulary and end tokens.
        folder: Verified files: safetensors, config, tokenizer.
        architectures: Names of the causal architectures that may be loaded.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.

    Raises:
        UnsupportedModel: The folder holds no such model.
    """

    _dialect: LoraDialect

    def __init__(
        self,
        dialect: Callable[[Vocabulary, frozenset[int]], LoraDialect],
        folder: Path,
        *,
        architectures: Sequence[str],
        dtype: str | None,
        max_rows: int,
        max_adapters: int,
        max_context: int | None,
    ) -> None:
        architecture_of(folder, architectures)
        check_shards(folder)
        config = read_json(folder / "config.json")
        tokenizer = load_tokenizer(folder)
        eos = end_tokens(folder, tokenizer)
        vocabulary = Vocabulary(tokenizer, int(config["vocab_size"]), eos)
        own = int(config["max_position_embeddings"]) - 1  # one position measures references
        context = min(own, max_context or own)
        super().__init__(
            dialect=dialect(vocabulary, eos),
            tokenizer=tokenizer,
            eos=eos,
            vocabulary=vocabulary,
            max_context=context,
            max_rows=max_rows,
            max_positions=max_rows * context,  # the server puts off by itself what has no room
        )
        self._max_adapters = max_adapters
        self._model = folder.resolve()
        # A server may take float32 for float16 unless it is told.
        self._dtype = dtype or str(checkpoint_dtype(folder)).removeprefix("torch.")
        self._folder = Path(tempfile.mkdtemp(prefix="assay-adapters-"))
        self._uses: Counter[str] = Counter()
        self._fingerprints: dict[str | None, Fingerprint] = {}
        self._changing = threading.Lock()

    def _start(
        self,
        command: Callable[[Path], Sequence[str]],
        *,
        run: Sequence[str],
        read: Sequence[str] = (),
        environment: Mapping[str, str],
        limits: ServerLimits | None,
        alone: bool = False,
    ) -> None:
        """Start the server; arguments as of `ServerProcess`. Closes this engine if that fails."""
        passed = ("CUDA_VISIBLE_DEVICES", "CUDA_HOME")
        try:
            self._server = ServerProcess(
                command,
                paths={
                    "run": [*run, *filter(None, [os.environ.get("CUDA_HOME")])],
                    "read": [str(self._model), str(self._folder), *read],
                    # Its processes share semaphores and memory there.
                    "own": ["/dev/shm"],  # noqa: S108
                },
                environment={
                    "DO_NOT_TRACK": "1",
                    "HF_HUB_OFFLINE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                    "TRANSFORMERS_OFFLINE": "1",
                    **{name: os.environ[name] for name in passed if name in os.environ},
                    **environment,
                },
                limits=limits or ServerLimits(),
                on_end=self._server_ended,
                alone=alone,
            )
            self._prompt = self._prompts.encode_texts("fingerprint", [FINGERPRINT])[0]
            first = self._fingerprint(None)
            self._fingerprints[None] = first
            # Half precision rounds, and a row among others otherwise than alone. Answers that
            # differ by more come from another model.
            again = [self._fingerprint(None), *self._together([None] * 4)]
            noise = max(difference(first, each) for each in again)
            self._noise = max(_LEAST_DIFFERENCE, 10 * noise)
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
        """Unload an adapter; requests that run or wait on it fail with `adapter_unloaded`."""
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

    def _take_place(self) -> None:
        """Called before each load. Raises ValueError: the server cannot load one more."""

    def _load(self, served: str, folder: Path) -> None:
        copy = self._folder / served
        try:
            shutil.rmtree(copy, ignore_errors=True)  # of a load that broke off
            shutil.copytree(folder, copy)
            self._ask(self._dialect.load_target, {"lora_name": served, "lora_path": str(copy)})
            self._check_fingerprints(served)
        except Exception as error:
            self._unload(served)
            title = self._dialect.title
            raise ValueError(f"{title} did not load the adapter: {error}") from error

    def _unload(self, served: str) -> None:
        self._fingerprints.pop(served, None)
        try:
            self._ask(self._dialect.unload_target, {"lora_name": served})
        except (ServerFailed, ServerRefused) as error:
            logger.warning("%s did not unload %s: %s", self._dialect.title, served, error)
        shutil.rmtree(self._folder / served, ignore_errors=True)

    def _check_fingerprints(self, added: str) -> None:
        """Raise ValueError unless the added adapter answers unlike all others, and they as before.

        All answer at the same time, since rows of one batch may take each other's adapter.
        """
        names = [*self._fingerprints, added]
        found = dict(zip(names, self._together(names), strict=True))
        for name, known in self._fingerprints.items():
            whose = "the base alone" if name is None else f"{name[:17]}…"
            if difference(found[name], known) > self._noise:
                raise ValueError(f"{whose} differs since it was loaded")
            if difference(found[added], known) <= self._noise:
                raise ValueError(f"it answers exactly as {whose} does")
        alone = self._fingerprint(added)
        if difference(alone, found[added]) > self._noise:
            raise ValueError("its answer next to others differs from its answer alone")
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
