"""Text generation by SGLang: one base and its LoRA adapters in a supervised server.

SGLang needs a GPU, and an environment of its own. Its `/generate` names tokens by their numbers,
which its OpenAI-compatible paths do not do for the likeliest ones.

Nothing here has run against SGLang itself: it follows the source of SGLang 0.5.23.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.catalog.generation import SamplingOptions
from workers.engines.adapters import lora_config, weight_names
from workers.engines.architectures import UnsupportedModel
from workers.engines.batch import Row
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.sampling import Sampling
from workers.engines.servers import sglang_process
from workers.engines.servers.channel import ServerFailed, ServerRefused, call
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
from workers.engines.servers.offered import SGLANG_LEAST, prefixes, sglang_version
from workers.engines.servers.process import KEY_FILE, ServerLimits, ServerProcess

# SGLang has implementations of its own of these; it computes others by transformers.
ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
# The modules that LoRA may change in every architecture that is served.
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class SglangEngine(LoraServerEngine):
    """One base model in SGLang's server, with any adapters on it.

    Args:
        folder: Verified files: safetensors, config, tokenizer.
        architectures: Names of the architectures that may be loaded; those in `ARCHITECTURES` are.
        threads: CPU threads that it may use.
        python: The Python of SGLang's environment.
        runner: Not used.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.
        limits: Bounds on the server.

    Raises:
        UnsupportedModel: SGLang is missing, too old, or cannot load the folder.
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
    ) -> None:
        if not sglang_version(python):
            least = ".".join(map(str, SGLANG_LEAST))
            raise UnsupportedModel(
                f"There is no SGLang {least} or newer. Older ones may run code that they are sent."
            )
        super().__init__(
            _Sglang,
            folder,
            architectures=[name for name in architectures if name in ARCHITECTURES],
            dtype=dtype,
            max_rows=max_rows,
            max_adapters=max_adapters,
            max_context=max_context,
        )
        settings = [
            "--model-path", str(self._model),
            "--dtype", self._dtype,
            "--context-length", str(self.max_context + 1),
            "--max-running-requests", str(max_rows),
            "--enable-lora",
            # Rows without an adapter take a place too.
            "--max-loras-per-batch", str(max_adapters + 1),
            "--max-lora-rank", str(MAX_RANK),
            "--lora-target-modules", *MODULES,
            "--lora-strict-loading",
            "--grammar-backend", "llguidance",
            # Settings of sampling come with each request.
            "--sampling-defaults", "openai",
            # Prompts come as tokens. The model's own template is code, so it is not read.
            "--chat-template", "chatml",
            "--incremental-streaming-output",
            # The fingerprint is the first request.
            "--skip-server-warmup",
            "--log-level", "error",
        ]  # fmt: skip
        self._start(
            functools.partial(_command, python, settings),
            run=prefixes(python),
            read=[sglang_process.__file__],
            environment={
                "OMP_NUM_THREADS": str(threads),
                # Dumps of a crash would hold prompts.
                "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "false",
                "SGLANG_PYSPY_DUMP_BEFORE_CRASH": "false",
                # A question about its health must not wait for a batch. SGLang ends by itself
                # when a batch hangs.
                "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
                # Probabilities are the model's own, before the temperature.
                "SGLANG_RETURN_ORIGINAL_LOGPROB": "true",
            },
            limits=limits,
            alone=True,
        )

    def add_adapter(self, name: str, folder: Path) -> None:
        """As `LoraServerEngine.add_adapter`; also raises ValueError for weights of other modules,
        with which SGLang would end.
        """
        lora_config(folder)
        changed = {each.rpartition(".lora_")[0].rpartition(".")[2] for each in weight_names(folder)}
        if other := sorted(changed - set(MODULES)):
            raise ValueError(
                f"The adapter changes {', '.join(other)[:200]}; SGLang serves LoRA of "
                f"{', '.join(MODULES)}."
            )
        super().add_adapter(name, folder)


def _command(python: str, settings: Sequence[str], socket: Path) -> list[str]:
    key = str(socket.with_name(KEY_FILE))
    return [python, "-I", sglang_process.__file__, str(socket), key, *settings]


class _Sglang(LoraDialect):
    """The `/generate` of SGLang's server."""

    title = "SGLang"
    target = "/generate"
    load_target = "/load_lora_adapter"
    unload_target = "/unload_lora_adapter"

    def check(self, request: EngineRequest, options: SamplingOptions) -> None:
        super().check(request, options)
        if options.seed is not None and not Sampling.of(options).greedy:
            raise RequestRefused(
                "This deployment runs on SGLang, which does not draw by a seed; leave seed out, or "
                "set temperature to 0.",
                code="unsupported_parameter",
            )

    def body(self, row: Row, scope: str) -> dict[str, Any]:
        sampling, options = row.sampling, row.options
        drawn: dict[str, Any] = {
            "max_new_tokens": row.limit,
            "temperature": 0.0 if sampling.greedy else sampling.temperature,
            "top_p": max(sampling.top_p, 1e-6),
            "stop_token_ids": self._eos,
            "presence_penalty": options.presence_penalty,
            "frequency_penalty": options.frequency_penalty,
        }
        if options.logit_bias:
            drawn["logit_bias"] = options.logit_bias
        if row.grammar is not None:
            drawn["ebnf"] = row.grammar
        return {
            **self._common(row, scope, row.prompt),
            "stream": True,
            "sampling_params": drawn,
            "return_logprob": sampling.scored,
            "top_logprobs_num": (sampling.logprobs or 0) if sampling.scored else 0,
        }

    def _common(self, row: Row, scope: str, tokens: Sequence[int]) -> dict[str, Any]:
        return {
            "input_ids": tokens,
            "lora_path": self.adapter(row),
            "cache_salt": self.salt(row, scope),
        }

    def fingerprint_body(self, prompt: Sequence[int], adapter: str | None) -> dict[str, Any]:
        """As `LoraDialect.fingerprint_body`."""
        drawn = {"max_new_tokens": FINGERPRINT_TOKENS, "temperature": 0.0, "ignore_eos": True}
        return {
            "input_ids": prompt,
            "lora_path": adapter,
            "sampling_params": drawn,
            "return_logprob": True,
        }

    def fingerprint(self, answer: Mapping[str, Any]) -> Fingerprint:
        """As `LoraDialect.fingerprint`."""
        stated = answer["meta_info"]["output_token_logprobs"]
        return [(int(token), float(log)) for log, token, _ in stated]

    def tokens(self, row: Row, event: Mapping[str, Any]) -> Iterator[Token]:
        if "error" in event:
            raise _failure(event["error"])
        about = event["meta_info"]
        finish = about.get("finish_reason") or {}
        if finish.get("type") == "abort":
            raise _failure(finish)
        made = event.get("output_ids") or []
        if about["completion_tokens"] != row.produced + len(made):
            raise ServerFailed("an event counts its tokens wrongly")
        logs = about.get("output_token_logprobs") if row.sampling.scored else None
        tops = about.get("output_top_logprobs") or [None] * len(made)
        for place, number in enumerate(made):
            if type(number) is not int:
                raise ServerFailed("an event holds a token that is not a number")
            if finish.get("type") == "stop" and place == len(made) - 1:
                # SGLang may know more tokens that end an answer; none of them is text.
                yield Token(number if number in self._eos else self._eos[0])
                return
            if logs is None:
                yield Token(number)
                continue
            log, scored, _ = logs[place]
            if scored != number:
                raise ServerFailed("an event states the probability of another token")
            likeliest = [(int(token), float(value)) for value, token, _ in tops[place] or ()]
            score = token_score(
                self._vocabulary, self._vocabulary.bytes_of(number), float(log), likeliest
            )
            yield Token(number, score)

    def end(self, row: Row, event: Mapping[str, Any]) -> End | None:
        finish = event["meta_info"].get("finish_reason")
        if not finish:
            return None
        if finish["type"] not in ("stop", "length"):
            raise ServerFailed(f"an answer ended by {str(finish['type'])[:40]!r}")
        return End(finish["type"], 0)

    def measure(self, row: Row, server: ServerProcess, scope: str) -> float:
        """As `Dialect.measure`: SGLang states the probabilities of a prompt."""
        body = {
            **self._common(row, scope, [*row.prompt, *row.reference]),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            # The first that it states is of no token.
            "logprob_start_len": max(0, len(row.prompt) - 1),
        }
        answer = call(server.address, self.target, body, timeout=server.limits.silent_s)
        stated = answer["meta_info"]["input_token_logprobs"][-len(row.reference) :]
        if [token for _, token, _ in stated] != list(row.reference):
            raise ServerFailed("the server measured other tokens than it was given")
        return -sum(float(log) for log, _, _ in stated)


def _failure(error: Mapping[str, Any]) -> ServerFailed | ServerRefused:
    """Return the exception for an error in a stream, or the reason of an abort."""
    message = str(error.get("message"))[:300]
    status = error.get("code") or error.get("status_code")
    if status in (400, 422):
        return ServerRefused(message, status)
    return ServerFailed(message)
