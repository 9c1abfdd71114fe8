"""The engine of SGLang, driven against a stand-in that follows SGLang's source."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers import sglang_server
from tests.unit.workers.confinement import accesses
from tests.unit.workers.recording import Answer, ask, prompted
from workers.wire import Failed

pytestmark = pytest.mark.torch
LLAMA = ("LlamaForCausalLM",)
ADAPTERS = 2
A = 330


def started(tiny: Path, python: str, **settings: Any) -> Any:
    from workers.engines.servers.sglang import SglangEngine

    given = {"architectures": LLAMA, "max_adapters": ADAPTERS, **settings}
    return SglangEngine(tiny, threads=1, python=python, **given)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sglang_server.install(tmp_path_factory.mktemp("sglang"))


@pytest.fixture(scope="module")
def sglang(tiny: Path, python: str) -> Iterator[Any]:
    engine = started(tiny, python)
    yield engine
    engine.close()


@pytest.fixture
def load(sglang: Any, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Load adapters, and unload them after the test."""

    def load(name: str, fault: str = "", r: int = 4) -> None:
        sglang.add_adapter(name, adapter(tmp_path / name, fault, r))

    yield load
    for name in list(sglang._dialect.served):
        sglang.remove_adapter(name)


def adapter(folder: Path, fault: str = "", r: int = 4, module: str = "q_proj") -> Path:
    """LoRA as far as the stand-in reads it."""
    from numpy import frombuffer, uint8
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "r": r, "target_modules": ["model.layers.0.self_attn.q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = {f"model.layers.0.{module}.lora_A.weight": frombuffer(folder.name.encode(), uint8)}
    save_file(weights, folder / "adapter_model.safetensors")
    if fault:
        (folder / "fault").write_text(fault)
    return folder


def test_base_and_adapters_answer_as_themselves_with_the_tokens_that_were_counted(
    sglang: Any, load: Callable[..., None]
) -> None:
    load("a")
    load("b")
    answers = ask(sglang, ["Hi"] * 4, adapters=[None, "a", "b", "a"], max_tokens=5)
    texts = [answer.text for answer in answers]
    assert texts[1] == texts[3]
    assert len(set(texts)) == 3
    for answer in answers:
        assert answer.done().finish_reason == "length"
        assert answer.done().completion_tokens == 5
        assert sum(delta.tokens for delta in answer.deltas) == 5
    with pytest.raises(ValueError, match="2 adapters are loaded"):
        load("c")
    # The end of an answer is a token that counts.
    (ended,) = ask(sglang, ["Hi"], max_tokens=5, logit_bias={"2": 100})
    assert (ended.done().finish_reason, ended.done().completion_tokens) == ("stop", 1)


def test_probabilities_name_the_likeliest_tokens_and_a_reference_is_measured(sglang: Any) -> None:
    asked = {"max_tokens": 2, "logprobs": 2, "temperature": 0.0, "reference": " a city"}
    (answer,) = ask(sglang, ["Paris is"], **asked)
    for delta in answer.deltas:
        for _, log, tops in delta.scores or []:
            assert len(tops) == 2
            assert tops[0][1] == log
            assert tops[1][1] == pytest.approx(log - 1)
    (result,) = answer.done().results or [{}]
    assert result["nats"] == 0.5 * result["tokens"]


def test_an_adapter_that_does_not_answer_as_itself_is_not_loaded(
    sglang: Any, load: Callable[..., None]
) -> None:
    load("good")
    for fault, whose in (("base", "the base alone"), ("first", "lora-")):
        with pytest.raises(ValueError, match=f"did not load .*answers exactly as {whose}"):
            load(fault, fault)
    assert [copy.name for copy in sglang._folder.iterdir()] == [sglang._dialect.served["good"]]


def test_a_load_that_the_server_refuses_can_be_tried_again(
    sglang: Any, load: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="rank is 128; at most 64"):
        load("wide", r=128)
    with pytest.raises(ValueError, match="The adapter changes router; SGLang serves LoRA of"):
        sglang.add_adapter("more", adapter(tmp_path / "more", module="router"))
    folder = adapter(tmp_path / "other")
    config = folder / "adapter_config.json"
    stated = config.read_text()
    config.write_text(stated.replace("q_proj", "router"))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"did not load the adapter: .*incompatible"):
            sglang.add_adapter("other", folder)
    assert not list(sglang._folder.iterdir())
    config.write_text(stated)
    sglang.add_adapter("other", folder)


def test_a_canceled_answer_closes_its_stream_and_an_unloaded_adapter_ends_its_requests(
    sglang: Any, load: Callable[..., None]
) -> None:
    load("a")
    answer = Answer(lambda: sglang.cancel("long"))
    sglang.submit(prompted("long", {"prompt": "Once"}, {"max_tokens": 200}), answer)
    assert answer.done().finish_reason == "canceled"
    assert 0 < answer.done().completion_tokens < 200
    until = time.monotonic() + 10
    while "aborted" not in sglang._server.log:
        assert time.monotonic() < until
        time.sleep(0.02)
    running = Answer(lambda: sglang.remove_adapter("a"))
    sglang.submit(prompted("r", {"prompt": "Once"}, {"max_tokens": 200}, "a"), running)
    assert running.wait().code == "adapter_unloaded"  # type: ignore[union-attr]


def test_what_sglang_cannot_do_is_refused(sglang: Any) -> None:
    from workers.engines.protocol import RequestRefused

    for options in ({"seed": 1}, {"echo": True, "logprobs": 1}):
        with pytest.raises(RequestRefused, match="This deployment runs on SGLang"):
            sglang.submit(prompted("r", {"prompt": "Hi"}, options), Answer())
    (answer,) = ask(sglang, ["Hi"], seed=1, temperature=0.0, max_tokens=1)
    assert answer.done().completion_tokens == 1


def test_a_request_has_the_salt_and_grammar_in_the_form_that_sglang_reads(sglang: Any) -> None:
    from llguidance import LLMatcher, grammar_from

    request = prompted("r", {"prompt": "Hi"}, {"json_schema": {"enum": ["x"]}, "logprobs": 3})
    (row,) = sglang._maker.rows(request, Answer())
    body = sglang._dialect.body(row, "a")
    assert (body["return_logprob"], body["top_logprobs_num"]) == (True, 3)
    assert LLMatcher.validate_grammar(grammar_from("ebnf", body["sampling_params"]["ebnf"])) == ""
    salts = [sglang._dialect.body(row, scope)["cache_salt"] for scope in ("a", "a", "b", "")]
    assert salts[0] == salts[1]
    assert len(set(salts)) == 3


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
        until = time.monotonic() + 10
        while not engine.fault:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        engine.close()


def test_no_path_is_open_without_the_key_and_none_that_loads_weights_or_code(sglang: Any) -> None:
    from workers.engines.servers.channel import ServerRefused, call

    address = sglang._server.address
    for path in ("/health", "/generate", "/metrics", "/load_lora_adapter"):
        with pytest.raises(ServerRefused) as refused:
            call(replace(address, key="guessed"), path, {})
        assert refused.value.status == 401
    for path in (
        "/update_weights_from_tensor",
        "/load_lora_adapter_from_tensors",
        "/v1/rerank",
        "/v1/completions",
        "/server_info",
        "/health_generate",
    ):
        with pytest.raises(ServerRefused) as refused:
            call(address, path, {})
        assert refused.value.status == 404
    assert call(address, "/health") == {}


def test_its_processes_exchange_pickles_where_no_other_server_reaches_them(
    sglang: Any, tiny: Path, tmp_path: Path
) -> None:
    server = sglang._server
    assert server.isolated
    assert os.readlink(f"/proc/{server.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    ipc = next(line for line in server.log.splitlines() if line.startswith("ipc "))[4:]
    assert ipc.startswith("/dev/shm/")
    assert not Path(ipc).exists()
    (tmp_path / "secret").touch()
    tried = [("read", tmp_path / "secret"), ("write", tiny / "config.json")]
    assert accesses(server.confinement, tried) == ["Permission denied"] * 2


def test_the_server_gets_the_numbers_of_the_weights_and_no_key_in_its_arguments(
    sglang: Any,
) -> None:
    told = Path(f"/proc/{sglang._server.pid}/cmdline").read_text().split("\0")
    assert told[told.index("--dtype") + 1] == "float32"  # "auto" would be float16
    assert sglang._server.address.key not in told


def test_it_needs_a_network_of_its_own_an_architecture_of_sglang_and_a_new_version(
    tiny: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines.architectures import UnsupportedModel
    from workers.engines.servers import launch, process

    older = sglang_server.install(tmp_path / "older", "0.5.22")
    with pytest.raises(UnsupportedModel, match=r"no SGLang 0\.5\.23 or newer"):
        started(tiny, older)
    with pytest.raises(UnsupportedModel, match="'LlamaForCausalLM' is not one of"):
        started(tiny, python, architectures=("SmolLM3ForCausalLM",))
    # A launcher that could not isolate it says so.
    script = tmp_path / "launch.py"
    source = Path(launch.__file__).read_text()
    assert "isolated = isolate()" in source
    script.write_text(source.replace("isolated = isolate()", "isolated = False"))
    monkeypatch.setattr(process, "LAUNCH", ("-I", str(script)))
    with pytest.raises(OSError, match="no network of its own"):
        started(tiny, python)
    assert not process.isolates.__wrapped__()
