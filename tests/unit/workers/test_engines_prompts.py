"""Chat templates and tokenizers as code: what they do to others, to memory and to time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from registry.catalog.generation import GenerationInputs
from registry.sandbox.source import ProcessEnded
from tests.unit.workers.recording import Answer, ask, prompted
from tests.waiting import PATIENCE_S, wait_until
from workers.engines.bounded import Limits, prompt_source
from workers.engines.prompts import PROCESSES, PromptCanceled, PromptProcesses
from workers.engines.protocol import RequestRefused
from workers.wire import Done, Failed

pytestmark = pytest.mark.torch

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
FOREVER = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
# Ends when it is told to; a template sees nothing of the time.
ON_DEMAND = "{% if messages[0].content == 'loop' %}" + FOREVER + "{% endif %}fine"
SHORT = Limits(seconds=4.0)

Prompts = Callable[..., PromptProcesses]


@pytest.fixture
def prompts(smollm2: Path) -> Iterator[Prompts]:
    """Makes the processes of SmolLM2, with another template or pattern."""
    from workers.engines.loading import load_tokenizer

    made: list[PromptProcesses] = []

    def make(template: str | None = None, *, pattern: str = "", **settings: Any) -> PromptProcesses:
        tokenizer = load_tokenizer(smollm2)
        if template is not None:
            tokenizer.chat_template = template
        if pattern:
            from tokenizers import Regex, pre_tokenizers

            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(pattern), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            )
        made.append(PromptProcesses(tokenizer, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def says(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def conversation(inputs: dict[str, Any]) -> GenerationInputs:
    return GenerationInputs.model_validate(inputs)


TEXTS = ["Hello", "Ünï 漢字 🙂\n\n  x", "<|im_start|>system", "1 + 2 = 3\t!"]


def test_prompts_are_the_tokens_that_transformers_makes(prompts: Prompts, smollm2: Path) -> None:
    from workers.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(smollm2)
    ours = prompts()
    for text in TEXTS:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        theirs = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        assert ours.encode("r", conversation({"messages": messages})) == theirs
        assert ours.encode("r", GenerationInputs(prompt=text)) == tokenizer(text)["input_ids"]


def test_texts_are_cut_as_transformers_cuts_them(minilm: Path) -> None:
    from workers.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(minilm)
    ours = PromptProcesses(tokenizer, max_length=12)
    try:
        texts = [*TEXTS, "many words " * 40]
        whole = tokenizer(texts)["input_ids"]
        long = [at for at, row in enumerate(whole) if len(row) > 12]
        for side, direction in (("end", "right"), ("start", "left")):
            tokenizer.truncation_side = direction
            theirs = tokenizer(texts, truncation=True, max_length=12)["input_ids"]
            read = ours.read_texts("r", texts, side)
            assert (read.tokens, read.cut) == (theirs, long)
            assert read.cut_tokens == sum(len(whole[at]) - 12 for at in long)
            both = [("many words", text) for text in texts]
            theirs = tokenizer(*map(list, zip(*both, strict=True)), truncation=True, max_length=12)
            pairs = ours.read_pairs("r", both, side)
            assert (pairs.tokens, pairs.kinds) == (theirs["input_ids"], theirs["token_type_ids"])
        assert ours.read_texts("r", ["many words"]).tokens == tokenizer(["many words"])["input_ids"]
        with pytest.raises(RequestRefused, match=r"is 12 tokens; the input has 82\."):
            ours.read_texts("r", ["many words " * 40])
        with pytest.raises(RequestRefused, match=r"is 12 tokens; pair 2 has 8\d\."):
            ours.read_pairs("r", [("a", "b"), ("a", "many words " * 40)])
    finally:
        ours.close()


def test_a_template_that_does_not_end_is_stopped_and_its_neighbors_are_answered(
    prompts: Prompts,
) -> None:
    ours = prompts(ON_DEMAND, limits=SHORT)
    refused: list[RequestRefused] = []

    def loop() -> None:
        with pytest.raises(RequestRefused) as caught:
            ours.encode("loops", conversation(says("loop")))
        refused.append(caught.value)

    stuck = threading.Thread(target=loop)
    stuck.start()
    assert ours.encode("neighbor", conversation(HELLO))
    stuck.join()
    assert refused[0].code == "prompt_unreadable"
    assert "longer than 4 seconds" in str(refused[0])
    assert ours.encode("after", conversation(HELLO))


def test_a_cancel_ends_the_process_that_renders(prompts: Prompts) -> None:
    ours = prompts(ON_DEMAND, limits=Limits(seconds=100))
    ours.encode("before", conversation(HELLO))
    process = ours._idle[0]
    ended = threading.Event()

    def loop() -> None:
        with pytest.raises(PromptCanceled):
            ours.encode("loops", conversation(says("loop")))
        ended.set()

    threading.Thread(target=loop, daemon=True).start()
    wait_until(lambda: not ours._idle)
    ours.cancel("loops")
    assert ended.wait(PATIENCE_S)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert ours.encode("after", conversation(HELLO))


def test_closing_tells_rendering_and_waiting_requests_that_the_engine_has_stopped(
    prompts: Prompts,
) -> None:
    ours = prompts(ON_DEMAND, limits=Limits(seconds=100))
    refused: Queue[RequestRefused] = Queue()

    def loop(number: int) -> None:
        with pytest.raises(RequestRefused) as caught:
            ours.encode(f"loops {number}", conversation(says("loop")))
        refused.put(caught.value)

    for number in range(PROCESSES + 1):
        threading.Thread(target=loop, args=(number,), daemon=True).start()
    wait_until(lambda: len(ours._jobs) == PROCESSES + 1)
    wait_until(lambda: sum(job.process is not None for job in ours._jobs.values()) == PROCESSES)
    ours.close()
    codes = {refused.get(timeout=PATIENCE_S).code for _ in range(PROCESSES + 1)}
    assert codes == {"engine_stopped"}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'x' * 5000000 }}", "made 5000000 characters"),
        ("{{ 'x' * 2000000000 }}", "MemoryError"),
        ("{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}"
         "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}", "MemoryError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ],
    ids=["output", "memory", "doubling", "recursion", "escape", "its own words"],
)  # fmt: skip
def test_a_template_is_bounded_in_what_it_makes(
    prompts: Prompts, template: str, reason: str
) -> None:
    ours = prompts(template, limits=Limits(seconds=60))
    with pytest.raises(RequestRefused) as refused:
        ours.encode("r", conversation(HELLO))
    assert reason in str(refused.value)
    assert refused.value.status == 400


def test_a_template_that_marks_calls_but_omits_tools_or_calls_is_refused(prompts: Prompts) -> None:
    made = prompts(
        "{# <tool_call> #}{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    tools = [{"name": "now"}]
    with pytest.raises(RequestRefused, match="it leaves out the tools"):
        made.encode("r", conversation({**HELLO, "tools": tools}))
    call = {"id": "c", "name": "now", "arguments": {}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    with pytest.raises(RequestRefused, match="it leaves out earlier calls"):
        made.encode("r", conversation({"messages": [*HELLO["messages"], turn]}))


def test_a_pattern_that_the_library_gives_up_on_is_a_refusal(prompts: Prompts) -> None:
    ours = prompts(pattern=r"(a|aa)+$", limits=Limits(seconds=60))
    with pytest.raises(RequestRefused) as refused:
        ours.encode("r", GenerationInputs(prompt="a" * 60_000 + "!"))
    assert "PanicException" in str(refused.value)
    assert ours.encode("after", GenerationInputs(prompt="fine"))


def test_a_request_that_is_too_large_is_refused_before_it_is_sent(prompts: Prompts) -> None:
    ours = prompts(limits=Limits(max_input=1000))
    with pytest.raises(RequestRefused, match="at most 1000"):
        ours.encode("r", GenerationInputs(prompt="x" * 1000))
    assert ours.encode("after", conversation(HELLO))


def test_the_process_has_no_environment_and_no_open_file_of_ours(
    prompts: Prompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_DATABASE_URL", "postgresql://secret@db/assay")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ours = prompts()
        ours.encode("r", conversation(HELLO))
        process = ours._idle[0]
        proc = Path("/proc") / str(process.pid)
        assert b"secret" not in (proc / "environ").read_bytes()
        opened = {os.readlink(each) for each in (proc / "fd").iterdir()}
        assert str(tmp_path / "open") not in opened
    limits = (proc / "limits").read_text()
    assert "Max file size             0 " in limits
    assert "Max address space         unlimited" not in limits


def test_a_process_that_forges_tokens_is_refused(prompts: Prompts) -> None:
    ours = prompts()
    for forged in (b"", b"\x01\0\0\0\xff\xff\xff\xff", b"\x01\0\0\0\x01\0\0\0\xff\xff\xff\x7f"):
        with pytest.raises(RequestRefused):
            ours._rows(forged, 1)


def test_a_tokenizer_that_cannot_be_read_does_not_load() -> None:
    setup = {
        "tokenizer": "{}",
        "template": None,
        "special_tokens": {},
        "split_special_tokens": False,
        "max_length": None,
        "truncation_side": "right",
    }
    with pytest.raises(ProcessEnded, match="Exception"):
        prompt_source(setup, Limits())


def test_an_engine_answers_others_while_a_template_loops_and_ends_it_with_the_request(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines import generation

    monkeypatch.setattr(
        generation, "load_tokenizer", _with_template(generation.load_tokenizer, ON_DEMAND)
    )
    engine = generation.GenerationEngine(
        tiny, architectures=("LlamaForCausalLM",), threads=1, dtype="float32"
    )
    try:
        stuck = Answer()
        thread = threading.Thread(
            target=lambda: engine.submit(prompted("loops", says("loop")), stuck)
        )
        thread.start()
        wait_until(lambda: bool(engine._prompts._jobs))
        assert ask(engine, ["neighbor"], max_tokens=2)[0].done().completion_tokens == 2
        engine.cancel("loops")
        assert stuck.done() == Done("canceled", 0, 0)
        thread.join()
    finally:
        engine.close()


def _with_template(load: Callable[[Path], Any], template: str) -> Callable[[Path], Any]:
    def load_with_template(folder: Path) -> Any:
        tokenizer = load(folder)
        tokenizer.chat_template = template
        return tokenizer

    return load_with_template


def test_a_decoder_that_panics_ends_its_own_request_only(engine: Any) -> None:
    class Panic(BaseException):
        """As pyo3's `PanicException`, which is no Exception."""

    class Broken:
        def decode(self, *tokens: Any, **settings: Any) -> str:
            raise Panic("retry-limit-in-match over")

    started = threading.Event()

    def break_it() -> None:
        for row in engine._batch.rows if engine._batch else []:
            if row.request_id == "broken":
                row.text._tokenizer = Broken()
                started.set()

    broken, other = Answer(on_delta=break_it), Answer()
    engine.submit(prompted("other", {"prompt": "a"}, {"max_tokens": 100, "seed": 1}), other)
    engine.submit(prompted("broken", {"prompt": "a"}, {"max_tokens": 200, "seed": 1}), broken)
    end = broken.wait()
    assert started.is_set()
    assert isinstance(end, Failed)
    assert end.code == "engine_error"
    assert other.done().completion_tokens == 100
