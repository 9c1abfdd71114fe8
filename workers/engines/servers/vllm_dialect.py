"""Requests and answers of vLLM's server: `/v1/completions`, and loading of adapters."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.catalog.generation import SamplingOptions
from workers.engines.batch import Row
from workers.engines.grammars import Vocabulary
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.servers.channel import ServerFailed, call
from workers.engines.servers.engine import End, Token, token_score
from workers.engines.servers.process import ServerProcess

BASE = "base"
FINGERPRINT_TOKENS = 8

Fingerprint = list[tuple[int, float]]


class VllmDialect:
    """Implements `workers.engines.servers.engine.Dialect`."""

    target = "/v1/completions"
    load_target = "/v1/load_lora_adapter"
    unload_target = "/v1/unload_lora_adapter"

    def __init__(self, vocabulary: Vocabulary, eos: frozenset[int]) -> None:
        self.served: dict[str, str] = {}  # our name of an adapter → the server's
        self._vocabulary = vocabulary
        self._eos = sorted(eos)
        self._key = secrets.token_bytes(32)

    def check(self, request: EngineRequest, options: SamplingOptions) -> None:
        """Implement `Dialect.check`: refuse probabilities of a prompt."""
        if options.echo and options.logprobs is not None:
            raise RequestRefused(
                "This deployment runs on vLLM, which does not report the probabilities of a "
                "prompt; leave echo or logprobs out.",
                code="unsupported_parameter",
            )

    def adapter(self, row: Row) -> str | None:
        """Return the server's name of a row's adapter. Raises ServerFailed if it was unloaded."""
        if row.adapter is None:
            return None
        if (served := self.served.get(row.adapter)) is None:
            raise ServerFailed("the adapter was unloaded")
        return served

    def salt(self, row: Row, scope: str) -> str:
        """Return the namespace of a row's prompt in the server's cache of prefixes.

        Departments do not share cached prefixes: an answer's time would reveal others' prompts.
        """
        owner = (scope or f"request {row.request_id}").encode()
        return hmac.digest(self._key, owner, "sha256").hex()

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
        """Return the request for a greedy answer of `FINGERPRINT_TOKENS` tokens; `adapter` is the
        server's name, or None for the base."""
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
        """Return the tokens of a fingerprint answer with their log probabilities."""
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
        logprobs = choice.get("logprobs")
        if not row.sampling.scored or not logprobs:
            return []
        tops = logprobs.get("top_logprobs") or [{}] * len(logprobs["tokens"])
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
                logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True
            )
        ]

    def measure(self, row: Row, server: ServerProcess, scope: str) -> float:
        """Implement `Dialect.measure` with `prompt_logprobs` of vLLM."""
        tokens = [*row.prompt, *row.reference]
        body = {
            **self._common(row, scope),
            "prompt": tokens,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        answer = call(server.address, self.target, body, timeout=server.limits.silent_s)
        logprobs = answer["choices"][0]["prompt_logprobs"][len(row.prompt) :]
        return -sum(
            float(token_logprobs[str(token)]["logprob"])
            for token_logprobs, token in zip(logprobs, row.reference, strict=True)
        )


def _number(token: str) -> int:
    """Return the number in `token_id:5`."""
    return int(token.rpartition(":")[2])
