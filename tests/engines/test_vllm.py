"""vLLM as a supervised server: greedy answers, adapters mixed in one batch, and its limits.

`./test --engines` runs these with vLLM in an environment of its own.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import VLLM_PYTHON
from tests.unit.workers.confinement import accesses
from tests.unit.workers.recording import Answer, ask, prompted
from workers.engines.servers.channel import ServerRefused, call

pytestmark = [pytest.mark.engines, pytest.mark.torch]
LLAMA = ("LlamaForCausalLM",)
PROMPTS = ("The capital of France is", "def add(a, b):", "漢字 and 🙂")


@pytest.fixture(scope="module")
def vllm(base: Path) -> Iterator[Any]:
    from workers.engines.servers.vllm import VllmEngine

    engine = VllmEngine(
        base,
        architectures=LLAMA,
        threads=1,
        python=VLLM_PYTHON,
        dtype="float32",
        max_adapters=4,
        cache_gib=1,
    )
    yield engine
    engine.close()


def test_greedy_answers_are_those_of_generate_in_float32(vllm: Any, base: Path) -> None:
    from tests.unit.workers.tiny import greedy
    from workers.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(base)
    answers = ask(vllm, PROMPTS, max_tokens=24, temperature=0.0)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = greedy(base, prompt, 24)
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.done().completion_tokens == len(expected)
        assert sum(delta.tokens for delta in answer.deltas) == len(expected)


def test_adapters_mixed_in_one_batch_answer_as_those_of_our_own_engine(
    vllm: Any, base: Path, adapters: dict[str, Path]
) -> None:
    from workers.engines.generation import GenerationEngine

    own = GenerationEngine(base, architectures=LLAMA, threads=1, dtype="float32", device="cpu")
    names = [None, "a", "b", "a"]
    answers = []
    for engine in (own, vllm):
        for name in "ab":
            engine.add_adapter(name, adapters[name])
        answers.append(
            ask(engine, [PROMPTS[0]] * 4, adapters=names, max_tokens=16, temperature=0.0)
        )
    own.close()
    ours, theirs = ([each.text for each in found] for found in answers)
    assert theirs == ours
    assert len(set(theirs)) == 3


def test_an_adapter_that_is_taken_out_ends_its_requests_and_makes_room(
    vllm: Any, adapters: dict[str, Path], tmp_path: Path
) -> None:
    from workers.engines.protocol import RequestRefused

    answer = Answer(lambda: vllm.remove_adapter("a"))
    request = prompted("r", {"prompt": "Once"}, {"max_tokens": 400, "seed": 1}, "a")
    vllm.submit(request, answer)
    assert answer.wait().code == "adapter_unloaded"  # type: ignore[union-attr]
    with pytest.raises(RequestRefused, match="No adapter named 'a'"):
        vllm.submit(prompted("s", {"prompt": "Once"}, {}, "a"), Answer())
    vllm.add_adapter("c", adapters["c"])
    vllm.remove_adapter("c")
    # An adapter that changes nothing cannot be told from the base.
    still = tmp_path / "still"
    shutil.copytree(adapters["c"], still)
    _silence(still)
    with pytest.raises(ValueError, match="answers exactly as the base alone"):
        vllm.add_adapter("still", still)
    (after,) = ask(vllm, ["Once"], adapters=["b"], max_tokens=2)
    assert after.done().completion_tokens == 2


def _silence(folder: Path) -> None:
    """Set the half of a LoRA to zero that is zero before training."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: each * (".lora_B." not in name) for name, each in weights.items()}, file)


def test_an_answer_fits_its_schema_with_probabilities_and_the_likelihood_of_another(
    vllm: Any, base: Path
) -> None:
    from workers.engines.generation import GenerationEngine

    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "漢字"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    (answer,) = ask(vllm, [PROMPTS[0]], max_tokens=60, temperature=1.0, json_schema=schema)
    assert answer.text in ('{"city": "Rome"}', '{"city": "漢字"}')
    asked = {"max_tokens": 3, "temperature": 0.0, "logprobs": 2, "reference": " a city of light"}
    own = GenerationEngine(base, architectures=LLAMA, threads=1, dtype="float32", device="cpu")
    (theirs,), (ours,) = ask(vllm, ["Paris is"], **asked), ask(own, ["Paris is"], **asked)
    own.close()
    assert [d.text for d in theirs.deltas] == [d.text for d in ours.deltas]
    for one, other in zip(theirs.deltas, ours.deltas, strict=True):
        for (_, log, tops), (_, expected, _) in zip(
            one.scores or [], other.scores or [], strict=True
        ):
            assert log == pytest.approx(expected, abs=1e-3)
            assert len(tops) == 2
    found, expected_result = theirs.done().results, ours.done().results
    assert found is not None
    assert expected_result is not None
    assert math.isclose(found[0]["nats"], expected_result[0]["nats"], rel_tol=1e-3)


def test_a_canceled_answer_ends_and_32_at_once_are_answered(vllm: Any) -> None:
    answer = Answer(lambda: vllm.cancel("long"))
    vllm.submit(prompted("long", {"prompt": "Once"}, {"max_tokens": 400, "seed": 1}), answer)
    assert answer.done().finish_reason == "canceled"
    answers = ask(vllm, ["Once"] * 32, max_tokens=8, temperature=0.0)
    assert {each.text for each in answers} == {answers[0].text}


def test_the_server_has_a_network_of_its_own(vllm: Any) -> None:
    if not vllm._server.isolated:
        pytest.skip("this kernel allows no new network namespace")
    ours = os.readlink("/proc/self/ns/net")
    assert os.readlink(f"/proc/{vllm._server.pid}/ns/net") != ours


def test_the_server_reaches_neither_files_of_its_worker_nor_another_server(
    vllm: Any, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").touch(mode=0o600)
    server = vllm._server
    tried = [
        ("read", tmp_path / "secret"),
        ("write", base / "model.safetensors"),
        ("truncate", base / "model.safetensors"),
        ("read", f"/proc/{os.getpid()}/environ"),
    ]
    assert accesses(server.confinement, tried) == ["Permission denied"] * len(tried)
    # A socket that is a file can be connected to by its path, so each request needs the key.
    for target in ("/v1/completions", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        with pytest.raises(ServerRefused) as refused:
            call(replace(server.address, key="guessed"), target, {"lora_name": "a"})
        assert refused.value.status == 401
    # Its processes talk over abstract sockets, which Landlock closes to other servers.
    listed = Path(f"/proc/{server.pid}/net/unix").read_text()
    assert "@@assay" not in listed
    assert "@assay/" in listed


def test_a_server_whose_places_for_adapters_were_all_used_ends_to_start_again(
    vllm: Any, adapters: dict[str, Path]
) -> None:
    server = vllm._server
    answer = Answer()
    vllm.submit(prompted("last", {"prompt": "Once"}, {"max_tokens": 400, "seed": 1}), answer)
    with pytest.raises(ValueError, match="the server starts again"):
        vllm.add_adapter("again", adapters["a"])
    assert answer.wait().code == "engine_error"  # type: ignore[union-attr]
    assert vllm.fault == "Each of its places for adapters was used once."
    assert not Path(f"/proc/{server.pid}").exists()
