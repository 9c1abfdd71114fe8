"""Text generation by llama.cpp, from the approved GGUF without conversion.

It runs on the CPU, or on a GPU if the installed build of llama.cpp uses one.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.catalog.generation import SamplingOptions
from workers.engines.architectures import UnsupportedModel, architecture_of, read_json
from workers.engines.batch import Row
from workers.engines.grammars import Vocabulary
from workers.engines.loading import load_tokenizer
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.servers import llama_cpp_process
from workers.engines.servers.channel import ServerFailed, call
from workers.engines.servers.engine import End, ServedEngine, Token, token_score
from workers.engines.servers.installed import LLAMA_CPP, llama_cpp_version
from workers.engines.servers.process import KEY_FILE, ServerLimits, ServerProcess

MAX_ROWS = 16
# Positions of all rows together; their keys and values are allocated at the start.
MAX_POSITIONS = 32_768
_FORCED = 1_000.0  # more than any logit
_SEEDS = 2**32 - 1  # the last one stands for a random seed


def gguf_in(folder: Path) -> Path:
    """Return the only GGUF of a folder. Raises UnsupportedModel."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise UnsupportedModel(f"llama.cpp serves one GGUF; the version holds {len(files)}.")
    return files[0]


class LlamaCppEngine(ServedEngine):
    """One GGUF in llama.cpp's server.

    Args:
        folder: Verified files: the GGUF, and the config and tokenizer extracted from it.
        architectures: Names of the architectures that may be loaded.
        threads: CPU threads that llama.cpp may use.
        runner: Not used.
        dtype: Not used: the file specifies the types of its weights.
        limits: Bounds on the server.

    Raises:
        UnsupportedModel: llama.cpp is not installed, or cannot load a GGUF of the folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        threads: int,
        runner: str = "",
        dtype: str | None = None,
        max_rows: int = MAX_ROWS,
        max_positions: int = MAX_POSITIONS,
        limits: ServerLimits | None = None,
    ) -> None:
        if not llama_cpp_version():
            raise UnsupportedModel(f"llama.cpp is not installed; install {LLAMA_CPP}.")
        architecture_of(folder, architectures)
        config = read_json(folder / "config.json")
        tokenizer = load_tokenizer(folder)
        eos = end_tokens(folder, tokenizer)
        vocabulary = Vocabulary(tokenizer, int(config["vocab_size"]), eos)
        max_context = min(int(config["max_position_embeddings"]), max_positions)
        super().__init__(
            dialect=_LlamaCpp(vocabulary),
            tokenizer=tokenizer,
            eos=eos,
            vocabulary=vocabulary,
            max_context=max_context,
            max_rows=max_rows,
            max_positions=max_positions,
        )
        settings: dict[str, Any] = {
            "model": str(gguf_in(folder).resolve()),
            "positions": min(max_positions, max_context * max_rows),
            "rows": max_rows,
            "threads": threads,
            "gpu_layers": -1,
        }
        try:
            self._server = ServerProcess(
                functools.partial(_command, settings),
                paths={
                    "run": [sys.prefix, sys.base_prefix],
                    "read": [llama_cpp_process.__file__, settings["model"]],
                },
                limits=limits or ServerLimits(),
                on_end=self._server_ended,
            )
        except BaseException:
            self.close()
            raise


def _command(settings: Mapping[str, Any], socket: Path) -> list[str]:
    text = json.dumps({**settings, "socket": str(socket), "key": str(socket.with_name(KEY_FILE))})
    return [sys.executable, "-I", str(Path(llama_cpp_process.__file__)), text]


def end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer, from the generation config and the tokenizer.

    Raises:
        UnsupportedModel: neither names such a token.
    """
    configured: Any = None
    if (folder / "generation_config.json").is_file():
        configured = read_json(folder / "generation_config.json").get("eos_token_id")
    tokens = configured if isinstance(configured, list) else [configured]
    ends = frozenset(each for each in [*tokens, tokenizer.eos_token_id] if type(each) is int)
    if not ends:
        raise UnsupportedModel("The model names no token that ends an answer.")
    return ends


class _LlamaCpp:
    """The `/completion` of llama.cpp's server."""

    target = "/completion"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def check(self, request: EngineRequest, options: SamplingOptions) -> None:
        if options.presence_penalty or options.frequency_penalty:
            raise RequestRefused(
                "This deployment runs on llama.cpp, whose penalties count the prompt too; leave "
                "presence_penalty and frequency_penalty out.",
                code="unsupported_parameter",
            )
        if options.echo and options.logprobs is not None:
            raise RequestRefused(
                "This deployment runs on llama.cpp, which does not report the probabilities of a "
                "prompt; leave echo or logprobs out.",
                code="unsupported_parameter",
            )

    def body(self, row: Row, scope: str) -> dict[str, Any]:
        sampling = row.sampling
        body: dict[str, Any] = {
            "prompt": row.prompt,
            "n_predict": row.limit,
            "stream": True,
            "return_tokens": True,
            # Prompts are not reused, because an answer's time would reveal other requests' prompts.
            "cache_prompt": False,
            # Only the samplers that a request can set, in the order of our own engine.
            "samplers": ["temperature", "top_p"],
            "temperature": 0.0 if sampling.greedy else sampling.temperature,
            "top_p": sampling.top_p,
            "n_probs": max(1, sampling.logprobs or 0) if sampling.scored else 0,
            "repeat_penalty": 1.0,
        }
        if sampling.seed is not None:
            body["seed"] = (sampling.seed + row.index) % _SEEDS
        if row.options.logit_bias:
            body["logit_bias"] = [
                [int(token), bias] for token, bias in row.options.logit_bias.items()
            ]
        if row.grammar is not None:
            body["grammar"] = f"%llguidance {{}}\n{row.grammar}"
        return body

    def tokens(self, row: Row, event: Mapping[str, Any]) -> Iterator[Token]:
        if "error" in event:
            raise ServerFailed(str(event["error"])[:300])
        numbers = event.get("tokens") or []
        if event.get("stop") or not numbers:
            return
        if len(numbers) != 1:
            raise ServerFailed(f"an event has {len(numbers)} tokens")
        (number,) = numbers
        # Tokens of one character arrive in one event, which names only the last of them.
        count = int(event["tokens_predicted"]) - row.produced
        if type(number) is not int or count < 1:
            raise ServerFailed("an event has a wrong count of tokens")
        spoken = None if count == 1 else str(event["content"])
        yield Token(number, self._score(row, event), spoken, count)

    def end(self, row: Row, event: Mapping[str, Any]) -> End | None:
        if not event.get("stop"):
            return None
        finish = {"eos": "stop", "limit": "length"}.get(str(event.get("stop_type")))
        if finish is None:
            raise ServerFailed(f"an answer ended by {str(event.get('stop_type'))[:40]!r}")
        # Earlier events do not include the tokens of an unfinished character.
        return End(finish, int(event["tokens_predicted"]) - row.produced)

    def _score(self, row: Row, event: Mapping[str, Any]) -> Any:
        if not row.sampling.scored or not event.get("completion_probabilities"):
            return None
        (entry,) = event["completion_probabilities"]
        likeliest = [(int(each["id"]), float(each["logprob"])) for each in entry["top_logprobs"]]
        text = bytes(entry["bytes"]) or self._vocabulary.bytes_of(int(entry["id"]))
        tops = likeliest[: row.sampling.logprobs or 0]
        return token_score(self._vocabulary, text, float(entry["logprob"]), tops)

    def measure(self, row: Row, server: ServerProcess, scope: str) -> float:
        """Implement `Dialect.measure`: force one token of the reference at a time.

        The server reports the model's own probability of each token, without the forcing bias.
        """
        nats, prompt = 0.0, list(row.prompt)
        for token in row.reference:
            if row.choices.over:
                break
            body = {
                "prompt": prompt,
                "n_predict": 1,
                "cache_prompt": True,
                "temperature": 0.0,
                "samplers": ["temperature"],
                "n_probs": 1,
                "logit_bias": [[token, _FORCED]],
                "return_tokens": True,
            }
            answer = call(server.address, self.target, body, timeout=server.limits.silent_s)
            (entry,) = answer["completion_probabilities"]
            if entry["id"] != token:
                raise ServerFailed("the server chose another token than it was given")
            nats -= float(entry["logprob"])
            prompt.append(token)
        return nats
