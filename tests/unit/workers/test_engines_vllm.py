"""The engine of vLLM, driven against a stand-in. `tests/engines` runs it with vLLM itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers import vllm_server
from tests.unit.workers.recording import Answer, ask, prompted
from tests.waiting import wait_until
from workers.wire import Failed

pytestmark = pytest.mark.torch
LLAMA = ("LlamaForCausalLM",)


def started(tiny: Path, python: str, max_adapters: int = 16) -> Any:
    from workers.engines.servers.vllm import VllmEngine

    return VllmEngine(
        tiny, architectures=LLAMA, threads=1, python=python, max_adapters=max_adapters
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return vllm_server.install(tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def vllm(tiny: Path, python: str) -> Iterator[Any]:
    engine = started(tiny, python)
    yield engine
    engine.close()


@pytest.fixture
def load(vllm: Any, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Load adapters, and unload them after the test."""

    def load(name: str, fault: str = "", r: int = 4) -> None:
        vllm.add_adapter(name, adapter(tmp_path / name, fault, r))

    yield load
    for name in list(vllm._dialect.served):
        vllm.remove_adapter(name)


def adapter(folder: Path, fault: str = "", r: int = 4, module: str = "q_proj") -> Path:
    """Write LoRA as far as the stand-in reads it."""
    from numpy import frombuffer, uint8
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "r": r, "target_modules": [f"model.layers.0.self_attn.{module}"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = {"model.layers.0.lora_A.weight": frombuffer(folder.name.encode(), uint8)}
    save_file(weights, folder / "adapter_model.safetensors")
    if fault:
        (folder / "fault").write_text(fault)
    return folder


def test_the_load_of_the_engine_has_the_use_of_the_cache_that_vllm_reports(vllm: Any) -> None:
    load = vllm.current_load()
    assert (load.running, load.waiting, load.cache) == (0, 0, 0.375)


@pytest.mark.parametrize(
    "report", ["", "vllm:kv_cache_usage_perc 1.5\n", "vllm:kv_cache_usage_perc NaN\n", "vllm:kv"]
)
def test_a_report_without_a_valid_share_has_none(report: str) -> None:
    from workers.engines.servers.vllm import cache_in

    assert cache_in(report) is None


def test_base_and_adapters_answer_as_themselves_with_the_tokens_that_were_counted(
    vllm: Any, load: Callable[..., None]
) -> None:
    load("a")
    load("b")
    answers = ask(vllm, ["Hi"] * 4, adapters=[None, "a", "b", "a"], max_tokens=5)
    texts = [answer.text for answer in answers]
    assert texts[1] == texts[3]
    assert len(set(texts)) == 3
    for answer in answers:
        assert answer.done().finish_reason == "length"
        assert answer.done().completion_tokens == 5
        assert sum(delta.tokens for delta in answer.deltas) == 5
    # The end of an answer is a token that counts.
    (ended,) = ask(vllm, ["Hi"], max_tokens=5, logit_bias={"2": 100})
    assert (ended.done().finish_reason, ended.done().completion_tokens) == ("stop", 1)


def test_an_adapter_that_does_not_answer_as_itself_is_not_loaded(
    vllm: Any, load: Callable[..., None]
) -> None:
    load("good")
    for fault, whose in (("base", "the base alone"), ("first", "lora-")):
        with pytest.raises(ValueError, match=f"did not load .*answers exactly as {whose}"):
            load(fault, fault)
    assert [copy.name for copy in vllm._folder.iterdir()] == [vllm._dialect.served["good"]]


def test_a_load_that_the_server_refuses_can_be_tried_again(
    vllm: Any, load: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="rank is 128; at most 64"):
        load("wide", r=128)
    folder = adapter(tmp_path / "other", module="router")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"did not load the adapter: .*incompatible"):
            vllm.add_adapter("other", folder)
    assert not list(vllm._folder.iterdir())
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace("router", "q_proj"))
    vllm.add_adapter("other", folder)


def test_a_canceled_answer_closes_its_stream_and_an_unloaded_adapter_ends_its_requests(
    vllm: Any, load: Callable[..., None]
) -> None:
    load("a")
    answer = Answer(lambda: vllm.cancel("long"))
    vllm.submit(prompted("long", {"prompt": "Once"}, {"max_tokens": 200}), answer)
    assert answer.done().finish_reason == "canceled"
    assert 0 < answer.done().completion_tokens < 200
    wait_until(lambda: "aborted" in vllm._server.log)
    running = Answer(lambda: vllm.remove_adapter("a"))
    vllm.submit(prompted("r", {"prompt": "Once"}, {"max_tokens": 200}, "a"), running)
    assert running.wait().code == "adapter_unloaded"  # type: ignore[union-attr]


def test_a_base_that_answers_as_an_adapter_is_found_and_a_crash_fails_its_requests(
    tiny: Path, python: str, tmp_path: Path
) -> None:
    engine = started(tiny, python)
    try:
        engine.add_adapter("a", adapter(tmp_path / "a", "crash"))
        with pytest.raises(ValueError, match="the base alone differs since it was loaded"):
            engine.add_adapter("b", adapter(tmp_path / "b", "leak"))
        (answer,) = ask(engine, ["Hi"], adapters=["a"], max_tokens=20)
        end = answer.wait()
        assert isinstance(end, Failed)
        assert (end.code, end.status) == ("engine_error", 503)
        wait_until(lambda: bool(engine.fault))
    finally:
        engine.close()


def test_a_server_whose_places_were_all_used_ends_so_that_it_is_started_again(
    tiny: Path, python: str, tmp_path: Path
) -> None:
    engine = started(tiny, python, max_adapters=1)
    try:
        engine.add_adapter("a", adapter(tmp_path / "a"))
        with pytest.raises(ValueError, match="1 adapters are loaded"):
            engine.add_adapter("b", adapter(tmp_path / "b"))
        engine.remove_adapter("a")
        with pytest.raises(ValueError, match="the server starts again"):
            engine.add_adapter("b", tmp_path / "b")
        assert "was used once" in engine.fault
    finally:
        engine.close()


def test_the_server_has_its_key_in_no_argument_and_answers_nobody_without_it(vllm: Any) -> None:
    from workers.engines.servers.channel import ServerRefused, call

    address = vllm._server.address
    with pytest.raises(ServerRefused) as refused:
        call(replace(address, key="guessed"), "/v1/load_lora_adapter", {})
    assert refused.value.status == 401
    arguments = Path(f"/proc/{vllm._server.pid}/cmdline").read_text().split("\0")
    assert address.key not in arguments
    assert arguments[arguments.index("--dtype") + 1] == "float32"  # "auto" would be float16
