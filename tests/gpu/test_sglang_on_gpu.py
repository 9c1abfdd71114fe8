"""SGLang itself on a GPU. Skips where ASSAY_SGLANG_PYTHON names no environment that has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.recording import Answer, ask, prompted

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.torch,
    pytest.mark.skipif(
        "ASSAY_SGLANG_PYTHON" not in os.environ,
        reason="ASSAY_SGLANG_PYTHON names no Python with SGLang",
    ),
]
LLAMA = ("LlamaForCausalLM",)
PROMPTS = ["The capital of France is", "def add(a, b):\n    return", "1, 2, 3," * 12]


@pytest.fixture(scope="module")
def sglang(smollm2: Path) -> Iterator[Any]:
    from workers.engines.servers.process import ServerLimits
    from workers.engines.servers.sglang import SglangEngine

    engine = SglangEngine(
        smollm2,
        architectures=LLAMA,
        threads=4,
        python=os.environ["ASSAY_SGLANG_PYTHON"],
        dtype="float32",
        max_adapters=4,
        limits=ServerLimits(start_s=900),
    )
    yield engine
    engine.close()


def test_base_and_adapters_in_one_batch_answer_as_those_of_our_own_engine(
    sglang: Any, smollm2: Path, tmp_path: Path
) -> None:
    from tests.unit.workers.tiny import save_adapter
    from workers.engines.generation import GenerationEngine

    own = GenerationEngine(smollm2, architectures=LLAMA, threads=1, dtype="float32")
    found = []
    try:
        for seed, name in enumerate("ab"):
            save_adapter(smollm2, tmp_path / name, seed)
        for engine in (own, sglang):
            for name in "ab":
                engine.add_adapter(name, tmp_path / name)
            answers = ask(engine, PROMPTS, max_tokens=16, temperature=0.0)
            adapted = [None, "a", "b", "a"]
            answers += ask(
                engine, PROMPTS[:1] * 4, adapters=adapted, max_tokens=16, temperature=0.0
            )
            found.append([answer.text for answer in answers])
    finally:
        own.close()
    assert found[0] == found[1]
    assert len(set(found[1][-4:])) == 3


def test_schemas_hold_and_a_canceled_answer_ends(sglang: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "漢字"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    (answer,) = ask(sglang, PROMPTS[:1], max_tokens=60, json_schema=schema, logprobs=2)
    assert answer.text in ('{"city": "Rome"}', '{"city": "漢字"}')
    canceled = Answer(lambda: sglang.cancel("long"))
    sglang.submit(prompted("long", {"prompt": "Once"}, {"max_tokens": 400}), canceled)
    assert canceled.done().finish_reason == "canceled"


def test_only_four_paths_answer_with_the_key_and_none_without(sglang: Any) -> None:
    from workers.engines.servers.channel import ServerRefused, call

    address = sglang._server.address
    for path, key, status in (
        ("/generate", "guessed", 401),
        ("/load_lora_adapter_from_tensors", address.key, 404),
    ):
        with pytest.raises(ServerRefused) as refused:
            call(replace(address, key=key), path, {})
        assert refused.value.status == status
