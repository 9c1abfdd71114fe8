"""Greedy or sampled decoding of Whisper, with timestamps and the probabilities of its tokens.

transformers' own `generate` gives no probabilities without keeping the scores of every token of the
vocabulary (0.7 GB for 16 windows), and detects the language with a second run of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import EncoderDecoderCache
from transformers.cache_utils import DynamicCache
from transformers.generation.logits_process import (
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from assay.plugins import run


@dataclass(frozen=True, slots=True)
class Decoded:
    """Transcript of one window: tokens of text and timestamps, with their log probabilities."""

    language: str
    no_speech_prob: float
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def avg_logprob(self) -> float:
        """Average over the tokens; 0 without tokens."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0


class WhisperDecoder:
    """Decodes features with one model.

    Raises:
        UnsupportedModel: `generation_config.json` lacks a setting that decoding needs.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.generation_config
        try:
            no_timestamps = int(config.no_timestamps_token_id)
            self._start = int(config.decoder_start_token_id)
            self._end = int(config.eos_token_id)
            multilingual = bool(getattr(config, "is_multilingual", False))
            languages = dict(config.lang_to_id) if multilingual else {}
            tasks = dict(config.task_to_id) if multilingual else {}
            self._task = [int(tasks["transcribe"])] if multilingual else []
            self._translate = [int(tasks["translate"])] if "translate" in tasks else []
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise run.UnsupportedModel(
                "generation_config.json lacks Whisper's decoding settings: no_timestamps_token_id"
                ", decoder_start_token_id, eos_token_id and, when multilingual, lang_to_id and "
                "task_to_id."
            ) from error
        self._codes = {int(number): name.strip("<|>") for name, number in languages.items()}
        self._numbers = {code: number for number, code in self._codes.items()}
        self._no_speech = no_timestamps - 1
        self.timestamp_begin = no_timestamps + 1
        vocabulary = int(model.config.vocab_size)
        ids = [self._start, self._end, *self._codes, *self._task, *self._translate]
        ids.append(self.timestamp_begin)
        if not all(0 <= number < vocabulary for number in ids):
            raise run.UnsupportedModel(
                "generation_config.json names tokens outside the vocabulary."
            )
        begin = 1 + len(self._task) * 2
        self._processors = LogitsProcessorList()
        if config.suppress_tokens:
            self._processors.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
        if config.begin_suppress_tokens:
            self._processors.append(
                SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, begin)
            )
        self._processors.append(WhisperTimeStampLogitsProcessor(config, begin_index=begin))
        self._longest = int(model.config.max_target_positions) // 2 - begin

    @property
    def languages(self) -> set[str]:
        """Codes of the languages that the model knows."""
        return set(self._numbers) or {"en"}

    @property
    def translates(self) -> bool:
        """Return whether the model can translate speech into English."""
        return bool(self._translate)

    def decode(
        self,
        features: Tensor,
        language: str | None,
        temperature: float,
        *,
        translate: bool = False,
    ) -> list[Decoded]:
        """Return the transcript of each window, or its translation into English. Detect the
        language if `language` is None."""
        encoded = self._model.model.encoder(features).last_hidden_state
        start = torch.full((len(features), 1), self._start, device=features.device)
        first = self._logits(start, encoded, None)
        no_speech = first.softmax(dim=-1)[:, self._no_speech].tolist()
        ids = start
        codes = ["en"] * len(features)
        if self._numbers:
            numbers = self._languages(first, language)
            codes = [self._codes[number] for number in numbers]
            task_token = self._translate if translate else self._task
            task = torch.tensor([[number, *task_token] for number in numbers])
            ids = torch.cat([start, task.to(start.device)], dim=1)
        tokens, logprobs = self._generate(ids, encoded, temperature)
        return [
            self._decoded(code, silence, *transcript)
            for code, silence, transcript in zip(
                codes, no_speech, zip(tokens, logprobs, strict=True), strict=True
            )
        ]

    def _decoded(
        self, language: str, no_speech: float, tokens: list[int], logprobs: list[float]
    ) -> Decoded:
        count = tokens.index(self._end) if self._end in tokens else len(tokens)
        return Decoded(language, no_speech, tokens[:count], logprobs[:count])

    def _languages(self, first: Tensor, language: str | None) -> list[int]:
        if language is not None:
            return [self._numbers[language]] * len(first)
        numbers = torch.tensor(sorted(self._codes), device=first.device)
        return [int(number) for number in numbers[first[:, numbers].argmax(dim=-1)]]

    def _generate(
        self, ids: Tensor, encoded: Tensor, temperature: float
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return the new tokens of each window and their log probabilities."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        begin, step = ids.shape[1], ids
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        logprobs: list[Tensor] = []
        for _ in range(self._longest):
            scores = self._processors(ids, self._logits(step, encoded, cache)).log_softmax(dim=-1)
            if temperature > 0:
                chances = (scores / temperature).softmax(dim=-1)
                step = torch.multinomial(chances, 1)
            else:
                step = scores.argmax(dim=-1, keepdim=True)
            step = torch.where(ended[:, None], self._end, step)
            logprobs.append(scores.gather(1, step)[:, 0])
            ids = torch.cat([ids, step], dim=1)
            ended |= step[:, 0] == self._end
            if bool(ended.all()):
                break
        return ids[:, begin:].tolist(), torch.stack(logprobs, dim=1).tolist()

    def _logits(self, ids: Tensor, encoded: Tensor, cache: Any) -> Tensor:
        """Return the scores of the next token, in float32."""
        states = self._model.model.decoder(
            input_ids=ids,
            encoder_hidden_states=encoded,
            cache=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        logits: Tensor = self._model.proj_out(states[:, -1]).float()
        return logits
