"""Measure calls of tools that the model was not trained on: SmolLM2-135M with the demo's adapter.

The recipe that jobs run trains the adapter. With `auto` the model chooses whether to call; with
`required` it must. Each test request offers two tools, whose names have no word in common with the
training data. `--quick` measures 40 of the 144 test tools.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
os.environ.setdefault("ASSAY_ENV", "test")

import django

django.setup()

from assay_demo.data import materials  # noqa: E402
from assay_demo.data.tool_requests import ToolRequest, tool_requests  # noqa: E402
from assay_demo.features.tools import SETTINGS, TRAIN_ROWS  # noqa: E402
from benchmarks.ideas.films import written  # noqa: E402
from benchmarks.progress import Quiet  # noqa: E402
from registry.catalog.generation import GenerationInputs, SamplingOptions  # noqa: E402
from registry.evaluations.intervals import wilson  # noqa: E402
from tasks.text_generation.lora import train  # noqa: E402
from workers.engines.generation import GenerationEngine  # noqa: E402
from workers.engines.protocol import EngineRequest  # noqa: E402
from workers.trainers.convert import convert  # noqa: E402
from workers.trainers.protocol import TrainingRequest  # noqa: E402
from workers.wire import Delta, Done, Event  # noqa: E402

LLAMA = ("LlamaForCausalLM",)
TEST_TOOLS = 144
# No tool can answer this.
SMALL_TALK = "What a lovely evening we had!"
ADAPTER = "tools"


def main() -> None:
    """Train the adapter, then print shares of the test requests with their 95% intervals."""
    most = 40 if "--quick" in sys.argv else TEST_TOOLS
    training, testing = tool_requests(TRAIN_ROWS, most)
    with tempfile.TemporaryDirectory(prefix="assay-tools-") as scratch:
        folder = Path(scratch)
        base, output = folder / "base", folder / "version"
        convert(materials.fetch(names=["smollm2"])["smollm2"].parent, base, LLAMA, Quiet())
        output.mkdir()
        data = written([each.row for each in training], folder / "requests.jsonl")
        order = TrainingRequest(
            "text-generation", "lora", base, data, output, folder / "checkpoints", SETTINGS
        )
        train(order, Quiet())
        threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
        engine = GenerationEngine(base, architectures=LLAMA, threads=threads)
        try:
            engine.add_adapter(ADAPTER, output)
            for adapter in (None, ADAPTER):
                for choice in ("auto", "required"):
                    _show(adapter, choice, _counts(engine, testing, adapter, choice), most)
                idle = [replace(each, text=SMALL_TALK, name=None) for each in testing]
                counts = _counts(engine, idle, adapter, "auto")
                _line(adapter, "auto", "a call for small talk", counts["a call"], most)
        finally:
            engine.close()


def _counts(
    engine: GenerationEngine, requests: list[ToolRequest], adapter: str | None, choice: str
) -> Counter[str]:
    """Return the number of requests with a call, with the right tool, and with the right call."""
    counts: Counter[str] = Counter()
    for number, request in enumerate(requests):
        calls = _calls(engine, f"{adapter}-{choice}-{number}", request, adapter, choice)
        if calls:
            name, arguments = calls[0]
            counts["a call"] += 1
            counts["the right tool"] += name == request.name
            counts["the right call"] += (name, arguments) == (request.name, request.arguments)
    return counts


def _calls(
    engine: GenerationEngine,
    request_id: str,
    request: ToolRequest,
    adapter: str | None,
    choice: str,
) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of a greedy answer."""
    calls: list[tuple[str, dict[str, Any]]] = []
    ended: list[Event] = []
    done = threading.Event()

    def sink(event: Event) -> None:
        if not isinstance(event, Delta):
            ended.append(event)
            done.set()
        elif event.call is not None:
            calls.append((event.call[1], json.loads(event.call[2])))

    messages = [{"role": "user", "content": request.text}]
    inputs = GenerationInputs.model_validate({"messages": messages, "tools": request.tools})
    options = SamplingOptions.model_validate(
        {
            "temperature": 0.0,
            "max_tokens": 100,
            "tool_choice": choice,
            "parallel_tool_calls": False,
        }
    )
    engine.submit(EngineRequest(request_id, inputs, options, adapter), sink)
    done.wait()
    if not isinstance(ended[0], Done):
        raise RuntimeError(ended[0])
    return calls


def _show(adapter: str | None, choice: str, counts: Counter[str], n: int) -> None:
    for outcome in ("a call", "the right tool", "the right call"):
        _line(adapter, choice, outcome, counts[outcome], n)


def _line(adapter: str | None, choice: str, outcome: str, count: int, n: int) -> None:
    name = "the base" if adapter is None else "the adapter"
    bounds = wilson(count / n, n)
    print(  # noqa: T201
        f"{name}, {choice:>8}: {outcome:<21} {count / n:6.1%} of {n} "
        f"(95%: {bounds.low:.1%} to {bounds.high:.1%})",
        flush=True,
    )


if __name__ == "__main__":
    main()
