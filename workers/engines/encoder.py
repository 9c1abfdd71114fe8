"""Embeddings and text classification by an encoder, with requests batched as they come.

One thread drives the model: it takes what waits, sorts it by length, and runs it in small padded
batches, so that many callers share a step and a long text does not pad all others.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workers.engines.architectures import (
    CLASSIFIERS,
    ENCODERS,
    UnsupportedModel,
    architecture_of,
    read_json,
)
from workers.engines.loading import DTYPES, load_model, load_tokenizer, pick_device
from workers.engines.prompts import PromptCancelled, PromptProcesses
from workers.engines.protocol import EngineRequest, RequestRefused, Sink, raise_exits
from workers.wire import Done, Failed

logger = logging.getLogger(__name__)

MAX_INPUTS = 2_048
MAX_INPUT_CHARS = 100_000
MAX_WAITING_TEXTS = 16_384
BATCH_TEXTS = 32
BATCH_POSITIONS = 8_192


@dataclass(slots=True, eq=False)
class _Work:
    """One request: its texts' tokens, and the results as they are filled in."""

    request_id: str
    tokens: list[list[int]]
    dimensions: int | None
    sink: Sink
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    results: list[Any] = field(default_factory=list)
    missing: int = 0
    cancelled: bool = False


class EncoderEngine:
    """One encoder and the thread that drives it; see `workers.engines.protocol.Engine`.

    A classifier answers {label, score} lists, best first; a plain encoder answers vectors, pooled
    and normalised as its sentence-transformers files say (mean and unit length when they are
    missing). Texts longer than the model reads are cut, as sentence-transformers cuts them; usage
    counts the tokens that were read.

    Args:
        folder: Verified files: safetensors, config, tokenizer.
        threads: CPU threads that torch may use.
        device: A torch device name; CUDA where there is one by default.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.

    Raises:
        UnsupportedModel: The folder holds no allowed encoder, or pools in a way not known here.
    """

    def __init__(
        self, folder: Path, *, threads: int, device: str | None = None, dtype: str | None = None
    ) -> None:
        torch.set_num_threads(threads)
        architecture = architecture_of(folder, ENCODERS + CLASSIFIERS)
        self.classifies = architecture in CLASSIFIERS
        self._model = load_model(
            folder,
            ENCODERS + CLASSIFIERS,
            dtype=DTYPES[dtype] if dtype else None,
            device=pick_device(device),
        )
        self._tokenizer = load_tokenizer(folder)
        self._pooling = "" if self.classifies else _pooling(folder)
        labels = self._model.config.id2label
        self._labels = [str(labels[index]) for index in range(len(labels))]
        self._prompts = PromptProcesses(
            self._tokenizer, max_length=_max_length(folder, self._model, self._tokenizer)
        )
        self._threads = threads
        self._changed = threading.Condition()
        self._waiting: deque[_Work] = deque()
        self._known: dict[str, _Work] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="encoder-engine", daemon=True)
        self._thread.start()

    def add_adapter(self, name: str, folder: Path) -> None:
        """Encoders take no adapters."""
        raise ValueError("This engine serves an encoder and takes no adapters.")

    def remove_adapter(self, name: str) -> None:
        """Encoders take no adapters."""
        raise ValueError("This engine serves an encoder and takes no adapters.")

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Queue a request; its one `Done` reaches `sink` from the engine's thread."""
        try:
            work = self._work(request, sink)
        except PromptCancelled:
            sink(Done("cancelled", 0, 0))
            return
        with self._changed:
            if self._closing:
                raise RequestRefused("The engine has stopped.", code="engine_stopped", status=503)
            if request.request_id in self._known:
                raise RequestRefused(f"Request {request.request_id} is running already.")
            waiting = sum(len(each.tokens) for each in self._waiting)
            if waiting + len(work.tokens) > MAX_WAITING_TEXTS:
                raise RequestRefused(
                    f"{waiting} texts are waiting already; try again shortly.",
                    code="engine_overloaded",
                    status=429,
                )
            self._known[work.request_id] = work
            self._waiting.append(work)
            self._changed.notify()

    def cancel(self, request_id: str) -> None:
        """End a request before its next batch; unknown and ended ones are ignored."""
        self._prompts.cancel(request_id)
        with self._changed:
            work = self._known.get(request_id)
            if work is not None:
                work.cancelled = True

    def close(self) -> None:
        """Fail what waits, stop the thread and let go of the model."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._prompts.close()
        self._thread.join()
        self.__dict__.pop("_model", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _work(self, request: EngineRequest, sink: Sink) -> _Work:
        """The validated, tokenised request. Raises RequestRefused."""
        if request.adapter is not None:
            raise RequestRefused("This model takes no adapters.", code="adapter_not_found")
        texts = _texts(request.inputs)
        dimensions = self._dimensions(request.sampling)
        tokens = self._prompts.encode_texts(request.request_id, texts)
        return _Work(
            request_id=request.request_id,
            tokens=tokens,
            dimensions=dimensions,
            sink=sink,
            results=[None] * len(texts),
            missing=len(texts),
        )

    def _dimensions(self, sampling: dict[str, Any]) -> int | None:
        unknown = sorted(set(sampling) - (set() if self.classifies else {"dimensions"}))
        unknown = [name for name in unknown if sampling[name] is not None]
        if unknown:
            raise RequestRefused(f"This model does not take {', '.join(unknown)}.")
        dimensions = sampling.get("dimensions")
        if dimensions is None:
            return None
        size = int(self._model.config.hidden_size)
        whole = isinstance(dimensions, int) and not isinstance(dimensions, bool)
        if not whole or not 1 <= dimensions <= size:
            raise RequestRefused(f"dimensions must be an integer from 1 to {size}.")
        return int(dimensions)

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP counts threads for each calling thread
        while works := self._take():
            try:
                with torch.inference_mode():
                    self._answer(works)
            except BaseException as error:
                logger.exception("a batch of %s requests failed", len(works))
                for work in works:
                    self._finish(work, Failed("engine_error", "The model failed; try again."))
                raise_exits(error)
        stopped = Failed("engine_stopped", "The engine was stopped.", 503)
        for work in list(self._known.values()):
            self._finish(work, stopped)

    def _take(self) -> list[_Work]:
        """Wait for work and take what fills some batches; empty when the engine closes."""
        with self._changed:
            while not (self._closing or self._waiting):
                self._changed.wait()
            if self._closing:
                return []
            works = [self._waiting.popleft()]
            texts = len(works[0].tokens)
            while self._waiting and texts + len(self._waiting[0].tokens) <= BATCH_TEXTS:
                works.append(self._waiting.popleft())
                texts += len(works[-1].tokens)
            return works

    def _answer(self, works: list[_Work]) -> None:
        now = time.monotonic()
        for work in works:
            work.started = now
        places = [(work, index) for work in works for index in range(len(work.tokens))]
        places.sort(key=lambda place: len(place[0].tokens[place[1]]), reverse=True)
        while places := [place for place in places if not place[0].cancelled]:
            if self._closing:
                return
            longest = len(places[0][0].tokens[places[0][1]])
            size = max(1, min(BATCH_TEXTS, BATCH_POSITIONS // longest))
            batch, places = places[:size], places[size:]
            self._answer_batch(batch, longest)
        for work in works:
            if work.cancelled:
                self._finish(work, _done(work, "cancelled"))

    def _answer_batch(self, batch: list[tuple[_Work, int]], longest: int) -> None:
        rows = [work.tokens[index] for work, index in batch]
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self._model.device
        output = self._model(input_ids=ids.to(device), attention_mask=mask.to(device))
        if self.classifies:
            results = self._ranked(output.logits)
        else:
            vectors = _pooled(output.last_hidden_state.float(), mask.to(device), self._pooling)
            results = [
                _cut(vector, work.dimensions)
                for vector, (work, _) in zip(vectors.cpu(), batch, strict=True)
            ]
        for result, (work, index) in zip(results, batch, strict=True):
            work.results[index] = result
            work.missing -= 1
            if not work.missing and not work.cancelled:
                self._finish(work, _done(work, "stop"))

    def _ranked(self, logits: Tensor) -> list[Any]:
        """[{label, score}, …] of each row, best first; scores sum to 1."""
        scores, order = logits.float().softmax(dim=-1).sort(dim=-1, descending=True)
        return [
            [
                {"label": self._labels[label], "score": score}
                for label, score in zip(*row, strict=True)
            ]
            for row in zip(order.tolist(), scores.tolist(), strict=True)
        ]

    def _finish(self, work: _Work, event: Done | Failed) -> None:
        with self._changed:
            if self._known.pop(work.request_id, None) is None:
                return
        try:
            work.sink(event)
        except Exception:
            logger.exception("the sink of request %s failed", work.request_id)


def _done(work: _Work, finish: str) -> Done:
    return Done(
        finish_reason=finish,
        prompt_tokens=sum(map(len, work.tokens)),
        completion_tokens=0,
        queue_ms=round((work.started - work.submitted) * 1000),
        results=work.results if finish == "stop" else None,
    )


def _texts(inputs: dict[str, Any]) -> list[str]:
    """The texts of {"input": [str, …]}. Raises RequestRefused."""
    texts = inputs.get("input")
    if set(inputs) != {"input"} or not isinstance(texts, list) or not texts:
        raise RequestRefused("A request needs input, a list of at least one text.")
    if len(texts) > MAX_INPUTS:
        raise RequestRefused(f"input holds {len(texts)} texts; at most {MAX_INPUTS} are taken.")
    for text in texts:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_INPUT_CHARS:
            raise RequestRefused(
                f"Every input must be a text of 1 to {MAX_INPUT_CHARS} characters."
            )
    return texts


def _max_length(folder: Path, model: Any, tokenizer: Any) -> int:
    """How many tokens of a text are read: the least of what the files state."""
    limits = [int(model.config.max_position_embeddings), int(tokenizer.model_max_length)]
    if (folder / "sentence_bert_config.json").is_file():
        stated = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        limits += [stated] if isinstance(stated, int) and stated > 0 else []
    return min(limits)


def _pooling(folder: Path) -> str:
    """`mean` or `cls`, by the sentence-transformers files; `mean` when there are none."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    modes = [
        name for name, on in read_json(path).items() if name.startswith("pooling_mode_") and on
    ]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise UnsupportedModel(f"1_Pooling/config.json pools by {modes}, which is not known here.")
    return known[modes[0]]


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Unit vectors [rows, size] from hidden states [rows, positions, size]."""
    if pooling == "cls":
        vectors = states[:, 0]
    else:
        weights = mask.unsqueeze(-1).to(states.dtype)
        vectors = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(vectors, dim=-1)


def _cut(vector: Tensor, dimensions: int | None) -> list[float]:
    """The first `dimensions` values at unit length again, as OpenAI's models do."""
    if dimensions is not None:
        vector = torch.nn.functional.normalize(vector[:dimensions], dim=0)
    values: list[float] = vector.tolist()
    return values
