"""Continuous batching: the same tokens alone and together, and nobody pays for another's fault."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import get_task
from tests.thoroughness import first_and_last
from tests.unit.workers.recording import Answer, ask, prompted
from tests.waiting import PATIENCE_S
from workers.engines.protocol import RequestRefused
from workers.wire import Done, Failed

pytestmark = pytest.mark.torch

CAUSAL = get_task("text-generation").architectures

PROMPTS = [
    "The capital of France is",
    "def add(a, b):\n    return",
    "Once upon a time, in a land that nobody had seen for a hundred years, there lived",
    "1, 2, 3,",
]


def test_a_real_model_says_what_generate_says_alone_and_in_a_batch(smollm2: Path) -> None:
    from tests.unit.workers.tiny import greedy
    from workers.engines.generation import GenerationEngine
    from workers.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(smollm2)
    engine = GenerationEngine(smollm2, architectures=CAUSAL, threads=1, dtype="float32")
    try:
        together = ask(engine, PROMPTS, max_tokens=8, temperature=0)
        alone = [ask(engine, [prompt], max_tokens=8, temperature=0)[0] for prompt in PROMPTS]
    finally:
        engine.close()
    expected = [
        tokenizer.decode(greedy(smollm2, prompt, 8), skip_special_tokens=True) for prompt in PROMPTS
    ]
    assert [answer.text for answer in together] == expected
    assert [answer.text for answer in alone] == expected


def test_a_request_that_joins_a_running_batch_changes_nobodys_tokens(engine: Any) -> None:
    alone = [ask(engine, [prompt], max_tokens=40, temperature=0)[0].text for prompt in PROMPTS]
    late = [Answer() for _ in PROMPTS[1:]]

    def join() -> None:
        for index, answer in enumerate(late):
            request = prompted(
                f"late{index}",
                {"prompt": PROMPTS[index + 1]},
                {"max_tokens": 40, "temperature": 0},
            )
            engine.submit(request, answer)
        first._on_delta = None

    first = Answer(on_delta=join)
    engine.submit(
        prompted("first", {"prompt": PROMPTS[0]}, {"max_tokens": 40, "temperature": 0}),
        first,
    )
    for answer in [first, *late]:
        answer.wait()
    assert [answer.text for answer in [first, *late]] == alone


def test_a_seed_gives_the_same_text_whoever_shares_the_batch(engine: Any) -> None:
    # Few tokens: rounding differs with the width of a batch, and a flat random model shows it.
    wish: dict[str, Any] = {"max_tokens": 6, "temperature": 0.8, "top_p": 0.9, "seed": 7}
    alone = ask(engine, PROMPTS[:1], **wish)[0].text
    assert ask(engine, PROMPTS[:1], **wish)[0].text == alone
    assert ask(engine, PROMPTS, **wish)[0].text == alone
    assert ask(engine, PROMPTS[:1], **{**wish, "seed": 8})[0].text != alone


def test_usage_and_the_reason_of_the_end_are_stated(engine: Any) -> None:
    (answer,) = ask(engine, ["one two three"], max_tokens=5, temperature=0)
    done = answer.done()
    assert (done.finish_reason, done.completion_tokens) == ("length", 5)
    assert done.prompt_tokens == 3
    assert sum(delta.tokens for delta in answer.deltas) <= 5


def test_an_answer_says_how_long_its_prompt_and_its_tokens_took(engine: Any) -> None:
    began = time.monotonic()
    (answer,) = ask(engine, ["one two three"], max_tokens=40, temperature=0)
    took_ms = (time.monotonic() - began) * 1000
    done = answer.done()
    assert done.decode_ms > 0
    # Rounded three times.
    assert done.queue_ms + done.prefill_ms + done.decode_ms <= took_ms + 2


def test_the_load_of_the_engine_counts_rows_steps_and_the_cache(engine: Any) -> None:
    before = engine.current_load()
    loads = []
    watching = Answer(on_delta=lambda: loads.append(engine.current_load()))
    inputs = {"prompt": PROMPTS[0]}
    engine.submit(prompted("watching", inputs, {"max_tokens": 10, "temperature": 0}), watching)
    watching.wait()
    after = engine.current_load()
    assert max(load.running for load in loads) == 1
    assert 0 < max(load.cache for load in loads) < 1
    assert (after.running, after.waiting, after.cache) == (0, 0, 0)
    # The first token comes with the prompt.
    assert after.steps - before.steps == after.rows - before.rows == 9


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(engine: Any) -> None:
    (whole,) = ask(engine, PROMPTS[:1], max_tokens=40, temperature=0)
    stop = whole.text[20:26]
    (cut,) = ask(engine, PROMPTS[:1], max_tokens=40, temperature=0, stop=[stop])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.done().finish_reason == "stop"


@pytest.mark.parametrize(
    ("inputs", "sampling", "code"),
    [
        ({"prompt": "a " * 300}, {}, "context_length_exceeded"),
        ({"prompt": "a"}, {"max_tokens": 256}, "context_length_exceeded"),
        ({"prompt": ""}, {}, "invalid_request"),
        ({"prompt": "a", "messages": []}, {}, "invalid_request"),
        ({"messages": [{"role": "user"}]}, {}, "invalid_request"),
        ({"prompt": "a"}, {"temperature": float("nan")}, "invalid_request"),
        ({"prompt": "a"}, {"top_p": 1.5}, "invalid_request"),
        ({"prompt": "a"}, {"max_tokens": True}, "invalid_request"),
        ({"prompt": "a"}, {"stop": [""]}, "invalid_request"),
        ({"prompt": "a"}, {"logit_biases": {}}, "invalid_request"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_runs(
    engine: Any, inputs: dict[str, Any], sampling: dict[str, Any], code: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        engine.submit(prompted("r", inputs, sampling), Answer())
    assert refused.value.code == code
    assert ask(engine, ["still here"], max_tokens=2)[0].done().completion_tokens == 2


def test_too_many_waiting_requests_are_refused_with_429(engine: Any) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(PATIENCE_S)

    first = Answer(on_delta=hold)
    engine.submit(prompted("first", {"prompt": "a"}, {"max_tokens": 2}), first)
    assert held.wait(PATIENCE_S)
    waiting = [Answer() for _ in range(4)]
    for index, answer in enumerate(waiting):
        engine.submit(prompted(f"w{index}", {"prompt": "a"}, {"max_tokens": 2}), answer)
    with pytest.raises(RequestRefused) as refused:
        engine.submit(prompted("one too many", {"prompt": "a"}), Answer())
    go.set()
    assert (refused.value.code, refused.value.status) == ("engine_overloaded", 429)
    assert all(answer.done() for answer in [first, *waiting])


def test_a_canceled_request_leaves_at_the_next_step(engine: Any) -> None:
    answer = Answer(on_delta=lambda: engine.cancel("r"))
    engine.submit(prompted("r", {"prompt": "a b c"}, {"max_tokens": 200, "seed": 1}), answer)
    done = answer.done()
    assert done.finish_reason == "canceled"
    assert done.completion_tokens < 10
    engine.cancel("r")
    assert ask(engine, ["again"], max_tokens=2)[0].done()


def test_a_failing_step_fails_its_rows_and_the_engine_goes_on(engine: Any) -> None:
    model = engine._model._model

    def fault(module: Any, inputs: Any) -> None:
        handle.remove()
        raise RuntimeError("the device was lost")

    handle = model.lm_head.register_forward_pre_hook(fault)
    (answer,) = ask(engine, ["a"], max_tokens=4)
    failed = answer.wait()
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == ("engine_error", 500)
    assert "device" not in failed.message
    assert ask(engine, ["a"], max_tokens=4)[0].done().completion_tokens == 4


def test_a_sink_that_raises_ends_its_own_request_only(engine: Any) -> None:
    (alone,) = ask(engine, PROMPTS[:1], max_tokens=20, temperature=0)

    def broken(event: Any) -> None:
        raise ConnectionError("nobody listens")

    engine.submit(prompted("broken", {"prompt": "a"}, {"max_tokens": 20}), broken)
    assert ask(engine, PROMPTS[:1], max_tokens=20, temperature=0)[0].text == alone.text


@pytest.mark.parametrize("options", [{}, {"choices": 2}, {"best_of": 2}])
def test_an_answer_of_which_an_event_was_lost_is_not_reported_as_complete(
    engine: Any, options: dict[str, Any]
) -> None:
    failures = 0

    def fail_once() -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise ConnectionError("the broker did not answer")

    answer = Answer(fail_once)
    engine.submit(prompted("r", {"prompt": "a"}, {"max_tokens": 20, **options}), answer)
    end = answer.wait()
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("engine_error", 500)


def test_closing_fails_what_runs(tiny: Path) -> None:
    from workers.engines.generation import GenerationEngine

    engine = GenerationEngine(tiny, architectures=CAUSAL, threads=1, dtype="float32")
    started = threading.Event()
    answer = Answer(on_delta=started.set)
    engine.submit(prompted("r", {"prompt": "a"}, {"max_tokens": 250, "seed": 3}), answer)
    assert started.wait(PATIENCE_S)
    engine.close()
    end = answer.wait()
    assert isinstance(end, Done) or end.code == "engine_stopped"
    with pytest.raises(RequestRefused) as refused:
        engine.submit(prompted("r2", {"prompt": "a"}), Answer())
    assert refused.value.status == 503


@pytest.mark.parametrize("architecture", first_and_last(CAUSAL))
def test_every_allowed_architecture_says_what_generate_says(
    architecture: str, smollm2: Path, tmp_path: Path
) -> None:
    from tests.unit.workers.tiny import greedy, save_tiny
    from workers.engines.generation import GenerationEngine
    from workers.engines.loading import load_tokenizer

    folder = save_tiny(architecture, tmp_path, smollm2)
    engine = GenerationEngine(folder, architectures=CAUSAL, threads=1, dtype="float32")
    try:
        answers = ask(engine, PROMPTS, max_tokens=12, temperature=0)
    finally:
        engine.close()
    tokenizer = load_tokenizer(folder)
    assert [answer.text for answer in answers] == [
        tokenizer.decode(greedy(folder, prompt, 12), skip_special_tokens=True) for prompt in PROMPTS
    ]
