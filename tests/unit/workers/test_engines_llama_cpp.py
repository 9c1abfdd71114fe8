"""llama.cpp as a supervised server: a GGUF that is served as it was delivered."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assay_demo.data.materials import fetch
from tests.unit.workers.confinement import accesses
from tests.unit.workers.recording import Answer, Recorder, ask, prompted
from tests.waiting import wait_until
from workers.trainers.delivered_gguf import keep_gguf
from workers.trainers.protocol import BadMaterial
from workers.wire import Failed

pytestmark = pytest.mark.torch
LLAMA = ("LlamaForCausalLM",)


@pytest.fixture(scope="module")
def kept(tiny_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.unit.workers.tiny_gguf import save_gguf

    folder = tmp_path_factory.mktemp("gguf") / "kept"
    shutil.copytree(tiny_whole, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_gguf(tiny_whole, fetch(names=["smollm2"])["smollm2"], folder / "model.gguf")
    return folder


def started(kept: Path, **settings: Any) -> Any:
    from workers.engines.servers.llama_cpp import LlamaCppEngine

    return LlamaCppEngine(kept, architectures=LLAMA, threads=1, **settings)


@pytest.fixture(scope="module")
def llama(kept: Path) -> Iterator[Any]:
    engine = started(kept)
    yield engine
    engine.close()


def test_a_gguf_is_kept_byte_for_byte_with_its_tokenizer_and_template(
    kept: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(kept / "model.gguf", source / "tiny.gguf")
    told = keep_gguf(source, tmp_path / "out", LLAMA, Recorder())
    assert (told["quantization"], told["architecture"]) == ("F32", "LlamaForCausalLM")
    assert (tmp_path / "out" / "model.gguf").read_bytes() == (kept / "model.gguf").read_bytes()
    assert "<|im_start|>" in (tmp_path / "out" / "chat_template.jinja").read_text()
    made = json.loads((tmp_path / "out" / "config.json").read_text())
    assert made["architectures"] == ["LlamaForCausalLM"]
    ours, theirs = (
        json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        for folder in (kept, tmp_path / "out")
    )
    assert ours == theirs


def test_greedy_answers_are_those_of_generate_in_float32(llama: Any, tiny_whole: Path) -> None:
    from tests.unit.workers.tiny import greedy
    from workers.engines.loading import load_tokenizer

    prompts = ["The capital of France is", "def add(a, b):", "漢字 and 🙂"]
    answers = ask(llama, prompts, max_tokens=24, temperature=0.0)
    tokenizer = load_tokenizer(tiny_whole)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = greedy(tiny_whole, prompt, 24)
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.done().completion_tokens == len(expected)
        assert sum(delta.tokens for delta in answer.deltas) == len(expected)


def test_the_likelihood_of_an_answer_is_that_of_our_own_engine(
    llama: Any, tiny_whole: Path
) -> None:
    from workers.engines.generation import GenerationEngine

    asked = {"max_tokens": 1, "temperature": 0.0, "reference": " a city of light"}
    (theirs,) = ask(llama, ["Paris is"], **asked)
    with closing(
        GenerationEngine(tiny_whole, architectures=LLAMA, threads=1, dtype="float32")
    ) as engine:
        (ours,) = ask(engine, ["Paris is"], **asked)
    found, expected = theirs.done().results, ours.done().results
    assert found is not None
    assert expected is not None
    assert found[0]["tokens"] == expected[0]["tokens"]
    assert math.isclose(found[0]["nats"], expected[0]["nats"], rel_tol=1e-3)


def test_an_answer_fits_the_schema_and_choices_are_drawn_by_their_seeds(llama: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "漢字"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    (answer,) = ask(llama, ["Name a city."], max_tokens=40, temperature=1.0, json_schema=schema)
    assert answer.text in ('{"city": "Rome"}', '{"city": "漢字"}')
    assert answer.done().finish_reason == "stop"
    # One at a time: how many rows share a batch changes the last digits of a probability.
    texts = [
        ask(llama, ["Once"], max_tokens=8, temperature=1.5, seed=seed)[0].text for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]
    (both,) = ask(llama, ["Once"], max_tokens=8, temperature=1.5, seed=7, choices=2)
    assert {delta.index for delta in both.deltas} == {0, 1}
    assert both.done().completion_tokens == 16


def test_probabilities_biases_and_stop_texts_are_those_of_the_request(llama: Any) -> None:
    (answer,) = ask(llama, ["Paris"], max_tokens=3, temperature=0.0, logprobs=2)
    scores = [score for delta in answer.deltas for score in delta.scores or []]
    assert len(scores) == 3
    assert all(len(likeliest) == 2 and log <= 0 for _, log, likeliest in scores)
    (forced,) = ask(llama, ["Paris"], max_tokens=3, temperature=0.0, logit_bias={"330": 100.0})
    assert forced.text == " A A A"
    (stopped,) = ask(
        llama, ["Paris"], max_tokens=9, temperature=0.0, logit_bias={"330": 100.0}, stop=["A A"]
    )
    assert (stopped.text, stopped.done().finish_reason) == (" ", "stop")
    assert stopped.done().completion_tokens == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"presence_penalty": 1.0}, "penalties count the prompt"),
        ({"echo": True, "logprobs": 1}, "not report the probabilities of a prompt"),
        ({"logit_bias": {"999999": 1.0}}, "logit_bias names token"),
        ({"max_tokens": 30_000}, "must not exceed"),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused(
    llama: Any, options: dict[str, Any], reason: str
) -> None:
    from workers.engines.protocol import RequestRefused

    with pytest.raises(RequestRefused, match=reason):
        llama.submit(prompted("r", {"prompt": "Hi"}, options), Answer())
    with pytest.raises(ValueError, match="take no adapters"):
        llama.add_adapter("a", Path())


def test_a_canceled_answer_ends_and_the_next_one_runs(llama: Any) -> None:
    answer = Answer(lambda: llama.cancel("long"))
    llama.submit(prompted("long", {"prompt": "Once"}, {"max_tokens": 200, "seed": 1}), answer)
    done = answer.done()
    assert done.finish_reason == "canceled"
    assert done.completion_tokens < 200
    (after,) = ask(llama, ["Once"], max_tokens=2)
    assert after.done().completion_tokens == 2


def test_more_requests_than_places_are_all_answered(llama: Any) -> None:
    answers = ask(llama, ["Once"] * 40, max_tokens=4, temperature=0.0)
    assert {answer.text for answer in answers} == {answers[0].text}


def test_the_server_has_a_network_of_its_own(llama: Any) -> None:
    if not llama._server.isolated:
        pytest.skip("this kernel allows no new network namespace")
    ours = os.readlink("/proc/self/ns/net")
    assert os.readlink(f"/proc/{llama._server.pid}/ns/net") != ours


def test_the_server_reaches_neither_files_of_its_worker_nor_another_server(
    llama: Any, kept: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    from workers.engines.servers.channel import ServerRefused, call

    (tmp_path / "secret").touch(mode=0o600)
    server = llama._server
    tried = [
        ("read", tmp_path / "secret"),
        ("write", kept / "model.gguf"),
        ("truncate", kept / "model.gguf"),
        ("read", kept / "tokenizer.json"),
        ("read", f"/proc/{os.getpid()}/environ"),
    ]
    assert accesses(server.confinement, tried) == ["Permission denied"] * len(tried)
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    other = {**server.confinement, "own": [str(tmp_path)]}
    assert accesses(other, [("read", server.socket.with_name("key.yaml"))]) == ["Permission denied"]
    # A socket that is a file can be connected to by its path, so each request needs the key.
    for key in ("", "guessed"):
        with pytest.raises(ServerRefused, match="API Key"):
            call(replace(server.address, key=key), "/completion", {"prompt": [5]})


def test_the_server_has_no_secret_and_ends_with_its_engine(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_SECRET", "a password")
    engine = started(kept)
    server = engine._server
    environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"password" not in environment
    assert server.address.key.encode() not in environment
    assert server.address.key.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert server.socket.parent.stat().st_mode & 0o077 == 0
    os.kill(server._process.pid, signal.SIGTERM)  # As to every process of a worker that stops.
    assert ask(engine, ["Once"], max_tokens=2)[0].done().completion_tokens == 2
    engine.close()
    assert not Path(f"/proc/{server.pid}").exists()
    assert not server.socket.parent.exists()


def test_a_server_that_dies_ends_its_requests_and_names_the_fault(kept: Path) -> None:
    from workers.engines.protocol import RequestRefused

    engine = started(kept)
    killed = threading.Event()

    def kill() -> None:
        """Kill the server at the first token, and read on once it is gone."""
        if not killed.is_set():
            killed.set()
            os.kill(engine._server.pid, signal.SIGKILL)
            wait_until(lambda: bool(engine.fault))

    answer = Answer(kill)
    # Each event is some kilobytes, so that the socket cannot hold the whole answer.
    asked = {"max_tokens": 200, "seed": 1, "logprobs": 20}
    engine.submit(prompted("r", {"prompt": "Once"}, asked), answer)
    end = answer.wait()
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("engine_error", 503)
    assert "ended with status" in engine.fault
    with pytest.raises(RequestRefused, match="server ended"):
        engine.submit(prompted("s", {"prompt": "Once"}), Answer())
    engine.close()


def test_a_server_that_takes_too_much_memory_does_not_start(kept: Path) -> None:
    from workers.engines.servers.process import ServerLimits

    with pytest.raises(MemoryError, match="GiB are allowed"):
        started(kept, limits=ServerLimits(memory=1024))


def test_a_file_that_is_no_model_is_not_loaded(kept: Path, tmp_path: Path) -> None:
    from workers.engines.architectures import UnsupportedModel

    broken = tmp_path / "broken"
    with pytest.raises(BadMaterial, match="0 GGUF files"):
        keep_gguf(tmp_path, tmp_path / "out", LLAMA, Recorder())
    shutil.copytree(kept, broken)
    (broken / "model.gguf").write_bytes((kept / "model.gguf").read_bytes()[:5000])
    with pytest.raises(UnsupportedModel, match="ended while it started"):
        started(broken)
    with pytest.raises(BadMaterial, match="not a GGUF file that can be read"):
        keep_gguf(broken, tmp_path / "out", LLAMA, Recorder())
