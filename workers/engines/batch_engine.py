"""Engine of every task that does not generate token by token: requests share batches.

One thread drives the model. It sorts the items of waiting requests by size within each bucket, and
runs them in small batches, so that many callers share a step and a long input does not pad all
others. The task's runner does the rest: load, collate, run, split (`workers.engines.runner`).
"""

from __future__ import annotations

import gc
import logging
import operator
import threading
import time
from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from workers.engines.devices import DTYPES, pick_device
from workers.engines.names import load_name
from workers.engines.protocol import (
    EngineRequest,
    EngineStopped,
    RequestRefused,
    Sink,
)
from workers.engines.runner import AdaptableRunner, BatchLimits, Canceled, Item, Prepared, Runner
from workers.request_logs import about
from workers.wire import Done, EngineLoad, Failed

logger = logging.getLogger(__name__)

MAX_WAITING_ITEMS = 16_384


@dataclass(slots=True, eq=False)
class _Work:
    """One request: its items, and the results received so far."""

    request_id: str
    runner: Runner
    prepared: Prepared
    sink: Sink
    adapter: str | None = None
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    results: list[Any] = field(default_factory=list)
    missing: int = 0
    canceled: bool = False

    @property
    def items(self) -> list[Item]:
        return self.prepared.items


_Place = tuple[_Work, int]


class BatchEngine:
    """One runner and the thread that drives it; see `workers.engines.protocol.Engine`.

    Adapters of a runner with the method `adapted` have runners that share the base's weights;
    requests for different ones never share a batch.

    Args:
        folder: Verified files of one version.
        runner: Dotted name of the task's runner.
        architectures: Names of the architectures that may be loaded.
        threads: CPU threads that torch may use.
        device: A torch device name; by default CUDA if available.
        dtype: "bfloat16", "float16" or "float32"; the checkpoint's own by default.

    Raises:
        UnsupportedModel: The runner does not serve the model in the folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        runner: str,
        architectures: Sequence[str],
        threads: int,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._runner: Runner = load_name(runner)(
            folder,
            architectures=architectures,
            device=pick_device(device),
            dtype=DTYPES[dtype] if dtype else None,
        )
        self._adapted: dict[str, Runner] = {}
        self._limits: BatchLimits = self._runner.limits
        self._threads = threads
        self._changed = threading.Condition()
        self._waiting: deque[_Work] = deque()
        self._known: dict[str, _Work] = {}
        self._closing = False
        self._began: float | None = None
        self._running = self._steps = self._stepped_items = 0
        self._thread = threading.Thread(target=self._run, name="batch-engine", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str:
        """Return an empty string: this engine ends only with its process."""
        return ""

    @property
    def working_s(self) -> float:
        """Seconds since the current batch began; 0 between batches."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def current_load(self) -> EngineLoad:
        """Return the inputs in the current batch and in the queue."""
        with self._changed:
            waiting = sum(len(work.items) for work in self._waiting)
        return EngineLoad(self._running, waiting, self._steps, self._stepped_items)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter; returns when it can be used. Raises ValueError."""
        if not isinstance(self._runner, AdaptableRunner):
            raise ValueError("This task's models take no adapters.")
        if name in self._adapted:
            raise ValueError(f"An adapter named {name!r} is loaded already.")
        self._adapted[name] = self._runner.adapted(folder)

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; running and waiting requests for it fail with `adapter_unloaded`."""
        with self._changed:
            if self._adapted.pop(name, None) is None:
                raise ValueError(f"No adapter named {name!r} is loaded.")
            works = [work for work in self._known.values() if work.adapter == name]
        for work in works:
            message = f"{name} was taken out of service."
            self._finish(work, Failed("adapter_unloaded", message, 503))

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Queue a request; the engine's thread sends its single event to `sink`."""
        try:
            work = self._work(request, sink)
        except Canceled:
            sink(Done("canceled", 0, 0))
            return
        with self._changed:
            if self._closing:
                raise EngineStopped
            if request.request_id in self._known:
                raise RequestRefused(f"Request {request.request_id} is running already.")
            if self._runner_of(request) is not work.runner:
                raise RequestRefused(
                    "The adapter was loaded again; try again.", code="adapter_unloaded", status=503
                )
            waiting = sum(len(each.items) for each in self._waiting)
            if waiting + len(work.items) > MAX_WAITING_ITEMS:
                raise RequestRefused(
                    f"{waiting} inputs are waiting already; try again shortly.",
                    code="engine_overloaded",
                    status=429,
                )
            self._known[work.request_id] = work
            self._waiting.append(work)
            self._changed.notify()

    def cancel(self, request_id: str) -> None:
        """End a request before its next batch; unknown and ended requests are ignored."""
        self._runner.cancel(request_id)
        with self._changed:
            work = self._known.get(request_id)
            if work is not None:
                work.canceled = True

    def close(self) -> None:
        """Fail waiting requests, stop the thread and release the model."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._runner.close()
        self._thread.join()
        self.__dict__.pop("_runner", None)
        self._adapted.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _work(self, request: EngineRequest, sink: Sink) -> _Work:
        """Return the validated request. Raises RequestRefused and Canceled."""
        runner = self._runner_of(request)
        prepared = runner.prepare(request.request_id, request.inputs, request.options)
        if not prepared.items:
            raise RequestRefused("The request holds no input.")
        for item in prepared.items:
            # An item that cannot be sorted into batches would break the engine's thread.
            hash(item.bucket)
            operator.index(item.size)
        return _Work(
            request_id=request.request_id,
            runner=runner,
            prepared=prepared,
            sink=sink,
            adapter=request.adapter,
            results=[None] * len(prepared.items),
            missing=len(prepared.items),
        )

    def _runner_of(self, request: EngineRequest) -> Runner:
        """Return the runner of a request's adapter. Raises RequestRefused if it is not loaded."""
        if request.adapter is None:
            return self._runner
        if runner := self._adapted.get(request.adapter):
            return runner
        raise RequestRefused(
            f"No adapter named {request.adapter!r} is loaded.", code="adapter_not_found"
        )

    # The methods below run in the engine's thread.

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP counts threads for each calling thread
        while works := self._take():
            try:
                with torch.inference_mode():
                    self._answer(works)
            except BaseException:
                logger.exception("%s requests failed", len(works), extra=_of(works))
                for work in works:
                    self._finish(work, Failed("engine_error", "The model failed; try again."))
        stopped = Failed("engine_stopped", "The engine was stopped.", 503)
        for work in list(self._known.values()):
            self._finish(work, stopped)

    def _take(self) -> list[_Work]:
        """Wait for work and take enough requests for a batch; empty when the engine closes."""
        with self._changed:
            while not (self._closing or self._waiting):
                self._changed.wait()
            if self._limits.wait_s and not self._closing and not self._fills_a_batch():
                self._changed.wait_for(
                    lambda: self._closing or self._fills_a_batch(), self._limits.wait_s
                )
            if self._closing:
                return []
            works = [self._waiting.popleft()]
            items = len(works[0].items)
            while self._waiting and items + len(self._waiting[0].items) <= self._limits.items:
                works.append(self._waiting.popleft())
                items += len(works[-1].items)
            return works

    def _fills_a_batch(self) -> bool:
        items = sum(len(work.items) for work in self._waiting)
        return items >= self._limits.items

    def _answer(self, works: list[_Work]) -> None:
        now = time.monotonic()
        buckets: defaultdict[Hashable, list[_Place]] = defaultdict(list)
        for work in works:
            work.started = now
            for index, item in enumerate(work.items):
                buckets[(id(work.runner), item.bucket)].append((work, index))
        for places in buckets.values():
            self._answer_bucket(places)
            if self._closing:
                return
        for work in works:
            if work.canceled:
                self._finish(work, _done(work, "canceled"))

    def _answer_bucket(self, places: list[_Place]) -> None:
        places.sort(key=lambda place: _item(place).size, reverse=True)
        while places := [place for place in places if self._is_active(place[0])]:
            if self._closing:
                return
            longest = max(1, _item(places[0]).size)
            count = max(1, min(self._limits.items, self._limits.size // longest))
            batch, places = places[:count], places[count:]
            try:
                self._answer_batch(batch)
            except Canceled:
                # The runner may notice the cancellation before `cancel` marks the request.
                for work, _ in batch:
                    work.canceled = True
            except BaseException:
                # A runner that raises SystemExit would end this thread, which answers all requests.
                works = [work for work, _ in batch]
                logger.exception("a batch of %s inputs failed", len(batch), extra=_of(works))
                for work, _ in batch:
                    self._finish(work, Failed("engine_error", "The model failed; try again."))

    def _is_active(self, work: _Work) -> bool:
        """Return whether the request has neither been canceled nor ended."""
        return not work.canceled and work.request_id in self._known

    def _answer_batch(self, batch: Sequence[_Place]) -> None:
        items = [_item(place) for place in batch]
        runner = batch[0][0].runner
        self._began, self._running = time.monotonic(), len(items)
        self._steps += 1
        self._stepped_items += len(items)
        try:
            output = runner.run(runner.collate(items))
            results = runner.split(output, items)
        finally:
            self._began, self._running = None, 0
        if len(results) != len(items):
            # Check before assigning: a result must not go to the request of another item.
            raise ValueError(f"`split` returned {len(results)} results for {len(items)} items.")
        for result, (work, index) in zip(results, batch, strict=True):
            work.results[index] = result
            work.missing -= 1
            if not work.missing and not work.canceled:
                self._finish(work, _done(work, "stop"))

    def _finish(self, work: _Work, event: Done | Failed) -> None:
        with self._changed:
            if self._known.pop(work.request_id, None) is None:
                return
        try:
            work.sink(event)
        except Exception:
            logger.exception("the sink of request %s failed", work.request_id, extra=_of([work]))


def _of(works: Sequence[_Work]) -> dict[str, str]:
    return about(*(work.request_id for work in works))


def _item(place: _Place) -> Item:
    work, index = place
    return work.items[index]


def _done(work: _Work, finish: str) -> Done:
    return Done(
        finish_reason=finish,
        prompt_tokens=work.prepared.prompt_tokens,
        completion_tokens=0,
        queue_ms=round((work.started - work.submitted) * 1000),
        results=work.results if finish == "stop" else None,
        units=work.prepared.units,
        cut_inputs=work.prepared.cut_inputs,
        cut_tokens=work.prepared.cut_tokens,
    )
