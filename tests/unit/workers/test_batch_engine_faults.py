"""The batch engine outlives whatever a runner returns or raises."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.inputs import TextInputs
from tests.unit.workers.recording import Answer
from tests.waiting import PATIENCE_S, wait_until
from workers.engines.batch_engine import BatchEngine
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.runner import BatchLimits, Item, Prepared
from workers.wire import Done, Failed

pytestmark = pytest.mark.torch
# A batch with the text `slow` ends once this is set.
GO = threading.Event()


class Odd(BaseException):
    """As a panic of a library in Rust, which is no Exception."""


class Hostile:
    """Does what the text of a request says."""

    limits = BatchLimits(items=8)

    def __init__(self, folder: Path, **given: Any) -> None:
        pass

    def prepare(self, request_id: str, inputs: TextInputs, options: Any) -> Any:
        (text,) = inputs.input
        if text == "bucket":
            return Prepared([Item(text, bucket=[])])  # type: ignore[arg-type]
        if text == "size":
            return Prepared([Item(text, size="long")])  # type: ignore[arg-type]
        if text == "none":
            return None
        # Each is a batch of its own.
        return Prepared([Item(text, bucket=request_id)], units=1)

    def collate(self, items: Any) -> Any:
        return [item.payload for item in items]

    def run(self, batch: Any) -> Any:
        match batch[0]:
            case "exit":
                raise SystemExit(1)
            case "interrupt":
                raise KeyboardInterrupt
            case "odd":
                raise Odd
            case "slow":
                GO.wait(PATIENCE_S)
        return batch

    def split(self, output: Any, items: Any) -> Any:
        return {"short": [], "nothing": None, "many": [1, 2, 3]}.get(output[0], output)

    def cancel(self, request_id: str) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchEngine]:
    runner = f"{__name__}:Hostile"
    made = BatchEngine(tmp_path_factory.mktemp("model"), runner=runner, architectures=(), threads=1)
    yield made
    made.close()


def ask(engine: BatchEngine, text: str) -> Answer:
    answer = Answer()
    engine.submit(EngineRequest(f"r-{text}", TextInputs(input=[text])), answer)
    return answer


@pytest.mark.parametrize("text", ["exit", "interrupt", "odd", "short", "nothing", "many"])
def test_a_batch_that_fails_in_any_way_fails_alone(engine: BatchEngine, text: str) -> None:
    end = ask(engine, text).wait()
    assert isinstance(end, Failed)
    assert end.code == "engine_error"
    assert ask(engine, "fine").done().results == ["fine"]


@pytest.mark.parametrize("text", ["bucket", "size", "none"])
def test_items_that_cannot_be_sorted_never_reach_the_thread_of_the_model(
    engine: BatchEngine, text: str
) -> None:
    with pytest.raises((TypeError, AttributeError)):
        ask(engine, text)
    assert ask(engine, "fine").done().results == ["fine"]


def test_the_engine_says_how_long_its_batch_has_taken(engine: BatchEngine) -> None:
    assert engine.working_s == 0.0
    GO.clear()
    answer = ask(engine, "slow")
    wait_until(lambda: engine.working_s > 0.3)
    waiting = ask(engine, "fine too")
    before = engine.current_load()
    assert (before.running, before.waiting) == (1, 1)
    GO.set()
    assert answer.done()
    assert waiting.done()
    after = engine.current_load()
    assert (after.running, after.waiting) == (0, 0)
    assert after.steps - before.steps == after.rows - before.rows == 1
    assert ask(engine, "fine").done()
    assert engine.working_s == 0.0


class Adaptable(Hostile):
    """Answers with the name of the adapter's folder."""

    name = "base"

    def adapted(self, adapter: Path) -> Adaptable:
        runner = copy.copy(self)
        runner.name = adapter.name
        return runner

    def prepare(self, request_id: str, inputs: TextInputs, options: Any) -> Any:
        return Prepared([Item(text) for text in inputs.input], units=1)

    def run(self, batch: Any) -> Any:
        if "slow" in batch:
            GO.wait(PATIENCE_S)
        return [self.name for _ in batch]

    def split(self, output: Any, items: Any) -> Any:
        return output


def test_each_adapter_answers_alone_and_requests_for_one_that_is_unloaded_fail(
    tmp_path: Path,
) -> None:
    runner = f"{__name__}:Adaptable"
    engine = BatchEngine(tmp_path, runner=runner, architectures=(), threads=1)

    def submit(request_id: str, adapter: str | None, text: str = "a") -> Answer:
        answer = Answer()
        engine.submit(EngineRequest(request_id, TextInputs(input=[text]), adapter=adapter), answer)
        return answer

    try:
        for name in ("one", "two"):
            engine.add_adapter(name, tmp_path / name)
        GO.clear()
        first = submit("first", None, "slow")
        names = [None, "one", "two"] * 3
        waiting = [submit(f"r{number}", name) for number, name in enumerate(names)]
        engine.remove_adapter("two")
        GO.set()
        assert first.done().results == ["base"]
        for name, answer in zip(names, waiting, strict=True):
            end = answer.wait()
            if name == "two":
                assert isinstance(end, Failed)
                assert (end.code, end.status) == ("adapter_unloaded", 503)
            else:
                assert isinstance(end, Done)
                assert end.results == [name or "base"]
        with pytest.raises(RequestRefused) as refused:
            submit("late", "two")
        assert refused.value.code == "adapter_not_found"
        engine.add_adapter("two", tmp_path / "another")
        assert submit("again", "two").done().results == ["another"]
    finally:
        engine.close()
