"""Text generation by continuous batching: requests join and leave a running batch at every step.

One thread drives the model. transformers' own continuous batching is paged for GPUs and was half as
fast as padded `generate` on a CPU. This engine therefore pads: it runs new prompts together, joins
their rows to the running batch, and makes one token for every row at each step.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from workers.engines.adapters import AdaptedModel
from workers.engines.batch import Batch, Row, fits
from workers.engines.grammars import Vocabulary
from workers.engines.likelihood import measure_references, score_prompt
from workers.engines.loading import DTYPES, load_model, load_tokenizer, pick_device
from workers.engines.prompts import PromptCanceled, PromptProcesses
from workers.engines.protocol import (
    EngineRequest,
    EngineStopped,
    RequestRefused,
    Sink,
    raise_exits,
)
from workers.engines.rows import RowMaker
from workers.engines.soft_prompts import is_soft_prompt
from workers.engines.vision import image_reader
from workers.request_logs import about
from workers.wire import Done, EngineLoad

logger = logging.getLogger(__name__)

MAX_BATCH = 32
MAX_WAITING = 256
# Positions of all rows together, padding included: 1.5 GB of cache for SmolLM2 in bfloat16.
MAX_BATCH_POSITIONS = 65_536
MAX_PREFILL_POSITIONS = 8_192
_FAILED = "The model failed on this request; it can be sent again."


class GenerationEngine:
    """One causal model and the thread that drives it; see `workers.engines.protocol.Engine`.

    Args:
        folder: Verified files: safetensors, config, tokenizer, chat template.
        architectures: Names of the causal architectures that may be loaded.
        runner: Not used, because only one task uses this engine.
        threads: CPU threads that torch may use; pass the number of cores less one.
        device: A torch device name; by default CUDA if available.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.
        max_batch: Answers that are generated together; one request gets at most half of them.
        max_waiting: Answers that may wait for a place; requests beyond it are refused with 429.
        max_context: Prompt and answer together, in tokens; capped at the model's own limit.
        max_batch_positions: Bounds the memory of the cache; a request that does not fit with
            others runs alone.

    Raises:
        UnsupportedModel: The folder has no model of an allowed causal architecture.
    """

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        threads: int,
        runner: str = "",
        device: str | None = None,
        dtype: str | None = None,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        max_context: int | None = None,
        max_batch_positions: int = MAX_BATCH_POSITIONS,
    ) -> None:
        torch.set_num_threads(threads)
        place = pick_device(device)
        model = load_model(
            folder, architectures, dtype=DTYPES[dtype] if dtype else None, device=place
        )
        self._tokenizer = load_tokenizer(folder)
        self._model = AdaptedModel(model)
        own = int(model.config.get_text_config().max_position_embeddings)
        self.max_context = min(own, max_context or own)
        self._eos = _end_tokens(model, self._tokenizer)
        self._prompts = PromptProcesses(self._tokenizer)
        logits = int(model.get_output_embeddings().weight.shape[0])
        self._vocabulary = Vocabulary(self._tokenizer, logits, self._eos)
        images = image_reader(folder, model)
        self._maker = RowMaker(
            self._tokenizer,
            self._prompts,
            self._vocabulary,
            images,
            self.max_context,
            self._model.virtual_tokens,
        )
        self._text_alone = images is None
        self._threads = threads
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._budget = max_batch_positions

        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._canceled: set[str] = set()
        self._known: Counter[str] = Counter()  # rows of requests that have not ended
        self._adapters: set[str] = set()
        self._closing = False
        self._began: float | None = None
        self._batch: Batch | None = None
        self._steps = self._stepped_rows = 0
        self._thread = threading.Thread(target=self._run, name="generation-engine", daemon=True)
        self._thread.start()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self._model.device

    @property
    def fault(self) -> str:
        """Return an empty string: this engine ends only with its process."""
        return ""

    @property
    def working_s(self) -> float:
        """Seconds since the current turn began; 0 between turns."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def current_load(self) -> EngineLoad:
        """Return the rows in the batch and in the queue, and the share of positions in use."""
        batch, waiting = self._batch, len(self._waiting)
        running = 0 if batch is None else len(batch.rows)
        # Every row is padded to the longest.
        used = 0 if batch is None else running * batch.length / self._budget
        return EngineLoad(running, waiting, self._steps, self._stepped_rows, min(1.0, used))

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter between two steps; returns when it can be used. Raises ValueError."""
        if not self._text_alone and is_soft_prompt(folder):
            raise ValueError("This model also reads images; soft prompts need a text-only model.")

        def add() -> None:
            self._model.add(name, folder)
            self._adapters.add(name)

        self._command(add)

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; running and waiting requests for it fail with `adapter_unloaded`."""

        def remove() -> None:
            self._adapters.discard(name)
            for row in self._remove(lambda row: row.adapter == name):
                row.fail("adapter_unloaded", f"{name} was taken out of service.", 503)
            self._model.remove(name)

        self._command(remove)

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Queue a request; its events reach `sink` from the engine's thread."""
        try:
            rows = self._maker.rows(request, sink)
        except PromptCanceled:
            sink(Done("canceled", 0, 0))
            return
        with self._changed:
            if self._closing:
                raise EngineStopped
            if request.request_id in self._known:
                raise RequestRefused(f"Request {request.request_id} is running already.")
            if request.adapter is not None and request.adapter not in self._adapters:
                raise RequestRefused(
                    f"No adapter named {request.adapter!r} is loaded.", code="adapter_not_found"
                )
            if len(self._waiting) + len(rows) > self._max_waiting:
                requests = len({row.request_id for row in self._waiting})
                raise RequestRefused(
                    f"{requests} requests wait for {len(self._waiting)} answers already; "
                    "try again shortly.",
                    code="engine_overloaded",
                    status=429,
                )
            counted = all(row.limit == 0 and row.echo is None and not row.reference for row in rows)
            if not counted:
                self._known[request.request_id] = len(rows)
                self._waiting += rows
                self._changed.notify()
        if counted:
            # The request asks only for the number of prompt tokens; the model need not run.
            for row in rows:
                row.end("length")

    def cancel(self, request_id: str) -> None:
        """End a request at the next step; unknown and ended requests are ignored."""
        self._prompts.cancel(request_id)
        with self._changed:
            if request_id in self._known:
                self._canceled.add(request_id)
                self._changed.notify()

    def close(self) -> None:
        """Fail running and waiting requests, stop the thread and release the model."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._prompts.close()
        self._thread.join()
        self.__dict__.pop("_model", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _command(self, action: Callable[[], None]) -> None:
        """Run `action` in the engine's thread between two steps; its exception is raised here."""
        done: Future[None] = Future()
        with self._changed:
            if self._closing:
                raise ValueError("The engine has stopped.")
            self._commands.append((action, done))
            self._changed.notify()
        done.result()

    # The methods below run in the engine's thread.

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP counts threads for each calling thread
        while self._work_arrives():
            self._began = time.monotonic()
            try:
                self._do_commands()
                with torch.inference_mode():
                    self._turn()
            except BaseException as error:
                logger.exception("a turn of the engine failed", extra=about(*self._known))
                self._fail_all("engine_error", "The engine failed; the request can be sent again.")
                raise_exits(error)
            finally:
                self._began = None
        self._fail_all("engine_stopped", "The engine was stopped.", 503)
        self._batch = None

    def _work_arrives(self) -> bool:
        """Wait for work; returns False when the engine closes."""
        with self._changed:
            while not (self._closing or self._waiting or self._commands or self._batch):
                self._canceled.clear()
                self._changed.wait()
            return not self._closing

    def _do_commands(self) -> None:
        while True:
            with self._changed:
                if not self._commands:
                    return
                action, done = self._commands.popleft()
            try:
                action()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _turn(self) -> None:
        """Remove canceled rows, add waiting rows, make one token for each row."""
        with self._changed:
            canceled, self._canceled = self._canceled, set()
        for row in self._remove(lambda row: row.request_id in canceled):
            row.end("canceled")
        self._start(self._admitted())
        if self._batch is None:
            return
        self._steps += 1
        self._stepped_rows += len(self._batch.rows)
        try:
            self._batch.step()
        except BaseException as error:
            logger.exception(
                "a step with %s rows failed", len(self._batch.rows), extra=_of(self._batch.rows)
            )
            self._fail(self._batch.rows)
            self._batch = None
            raise_exits(error)
            return
        self._end_finished()

    def _admitted(self) -> list[Row]:
        """Take the rows that fit now from the queue, in order.

        A row is overtaken only while its request already fills its share of the batch.
        """
        running = self._batch.rows if self._batch else []
        counts = Counter(row.request_id for row in running)
        admitted: list[Row] = []
        gone: list[Row] = []
        with self._changed:
            for row in self._waiting:
                if len(running) + len(admitted) == self._max_batch:
                    break
                if row.choices.over:
                    gone.append(row)
                    continue
                if counts[row.request_id] == max(1, self._max_batch // 2):
                    continue
                if (running or admitted) and not fits(running, [*admitted, row], self._budget):
                    break
                longest = max(len(each.prompt) for each in [*admitted, row])
                if admitted and longest * (len(admitted) + 1) > MAX_PREFILL_POSITIONS:
                    break
                admitted.append(row)
                counts[row.request_id] += 1
            if admitted or gone:
                taken = {*admitted, *gone}
                self._waiting = deque(row for row in self._waiting if row not in taken)
        self._forget(gone)
        return admitted

    def _start(self, rows: list[Row]) -> None:
        rows = self._scored(rows)
        if not rows:
            return
        try:
            measure_references(self._model, rows, self._tokenizer.pad_token_id)
            for row in rows:
                row.begin()
            fresh = Batch(
                self._model,
                rows,
                self._eos,
                self._tokenizer.pad_token_id,
                self._vocabulary.bytes_of,
            )
        except BaseException as error:
            logger.exception("running %s prompts failed", len(rows), extra=_of(rows))
            self._fail(rows)
            raise_exits(error)
            return
        running, self._batch = self._batch, fresh
        self._end_finished()
        if running is None:
            return
        joining, self._batch = self._batch, running
        if joining is not None:
            try:
                running.join(joining)
            except BaseException as error:
                logger.exception(
                    "joining %s rows failed",
                    len(joining.rows),
                    extra=_of(running.rows + joining.rows),
                )
                self._fail(running.rows + joining.rows)
                self._batch = None
                raise_exits(error)

    def _scored(self, rows: list[Row]) -> list[Row]:
        """Score echoed prompts; if scoring fails, only that request ends. Returns the others."""
        for row in rows:
            try:
                if not row.choices.over:
                    score_prompt(self._model, row, self._vocabulary.bytes_of)
            except BaseException as error:
                logger.exception(
                    "scoring the prompt of request %s failed", row.request_id, extra=_of([row])
                )
                row.fail("engine_error", _FAILED, 500)
                if not isinstance(error, Exception):
                    self._fail(rows)
                raise_exits(error)
        self._forget(row for row in rows if row.choices.over)
        return [row for row in rows if not row.choices.over]

    def _end_finished(self) -> None:
        """End the rows that are finished."""
        for row in self._out_of_batch(lambda row: row.finish is not None):
            row.end()
            self._forget([row])

    def _remove(self, leaves: Callable[[Row], bool]) -> list[Row]:
        """Remove the rows for which `leaves` is true from the queue and from the batch."""
        with self._changed:
            gone = [row for row in self._waiting if leaves(row)]
            if gone:
                self._waiting = deque(row for row in self._waiting if not leaves(row))
        gone += self._out_of_batch(leaves)
        self._forget(gone)
        return gone

    def _forget(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._known[row.request_id] -= 1
            if self._known[row.request_id] <= 0:
                del self._known[row.request_id]

    def _out_of_batch(self, leaves: Callable[[Row], bool]) -> list[Row]:
        if self._batch is None:
            return []
        with torch.inference_mode():
            gone = self._batch.take_out(leaves)
        if not self._batch.rows:
            self._batch = None
        return gone

    def _fail(self, rows: list[Row]) -> None:
        for row in rows:
            row.fail("engine_error", _FAILED, 500)
        self._forget(rows)

    def _fail_all(self, code: str, message: str, status: int = 500) -> None:
        with self._changed:
            rows, self._waiting = list(self._waiting), deque()
            commands, self._commands = list(self._commands), deque()
        rows += self._batch.rows if self._batch else []
        self._batch = None
        for row in rows:
            row.fail(code, message, status)
        self._forget(rows)
        for _, done in commands:
            done.set_exception(ValueError(message))


def _of(rows: Iterable[Row]) -> dict[str, str]:
    return about(*(row.request_id for row in rows))


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer, from the generation config and the tokenizer."""
    configured = model.generation_config.eos_token_id
    tokens = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*tokens, tokenizer.eos_token_id] if token is not None)
