"""Adapters: mixed in one batch, each row says what it says alone; a bad one leaves no trace."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.recording import Answer, ask, prompted
from tests.waiting import PATIENCE_S, wait_until
from workers.engines.protocol import RequestRefused
from workers.wire import Failed

pytestmark = pytest.mark.torch

PROMPT = "The price of gold"


@pytest.fixture(scope="session")
def adapters(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.unit.workers.tiny import save_adapter

    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: save_adapter(tiny, folder / name, seed) for seed, name in enumerate(("a.1", "b.2"))
    }


def say(engine: Any, *names: str | None) -> list[str]:
    prompts = [PROMPT + " today" * index for index, _ in enumerate(names)]
    return [
        answer.text for answer in ask(engine, prompts, adapters=names, max_tokens=10, temperature=0)
    ]


def test_adapters_and_base_mixed_in_one_batch_say_what_they_say_alone(
    engine: Any, adapters: dict[str, Path]
) -> None:
    before = say(engine, None)
    for name, folder in adapters.items():
        engine.add_adapter(name, folder)
    prompts = [PROMPT + " today" * index for index in range(4)]
    names = [None, "a.1", "b.2", "a.1"]
    alone = [
        ask(engine, [prompt], adapters=[name], max_tokens=10, temperature=0)[0].text
        for prompt, name in zip(prompts, names, strict=True)
    ]
    assert say(engine, *names) == alone
    assert len({say(engine, name)[0] for name in (None, "a.1", "b.2")}) == 3
    assert say(engine, None) == before


def test_a_removed_adapter_is_unknown_and_the_others_stay(
    engine: Any, adapters: dict[str, Path]
) -> None:
    for name, folder in adapters.items():
        engine.add_adapter(name, folder)
    base, other = say(engine, None), say(engine, "b.2")
    engine.remove_adapter("a.1")
    with pytest.raises(RequestRefused) as refused:
        say(engine, "a.1")
    assert refused.value.code == "adapter_not_found"
    assert say(engine, "b.2") == other
    engine.remove_adapter("b.2")
    assert say(engine, None) == base
    engine.add_adapter("b.2", adapters["b.2"])
    assert say(engine, "b.2") == other


def test_requests_on_an_adapter_fail_when_it_is_unloaded(
    engine: Any, adapters: dict[str, Path]
) -> None:
    engine.add_adapter("a.1", adapters["a.1"])
    removal = threading.Thread(target=engine.remove_adapter, args=("a.1",))

    def remove() -> None:
        """Begin the removal at the first token; the engine goes on once it has the command."""
        if not removal.ident:
            removal.start()
            wait_until(lambda: engine._commands)

    answer = Answer(on_delta=remove)
    engine.submit(prompted("r", {"prompt": "a"}, {"max_tokens": 250}, "a.1"), answer)
    end = answer.wait()
    removal.join(PATIENCE_S)
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("adapter_unloaded", 503)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model"),
        (lambda folder: _set(folder, peft_type="IA3"), "not LORA"),
        (lambda folder: _set(folder, modules_to_save=["lm_head"]), "modules_to_save"),
        # These change the base for all others while they are loaded.
        (lambda folder: _set(folder, init_lora_weights="pissa"), "init_lora_weights"),
        (lambda folder: _set(folder, layer_replication=[[0, 2], [0, 2]]), "layer_replication"),
        (lambda folder: _set(folder, bias="all"), "bias"),
        (lambda folder: _add(folder, "base_model.model.lm_head.weight"), "not a weight of LoRA"),
        # These take the memory or the time of all others.
        (lambda folder: _set(folder, r=10**6), "rank of 1 to 256"),
        (lambda folder: _set(folder, target_modules="(.+)+x"), "not list the modules"),
        (lambda folder: _set(folder, rank_pattern={"(.+)+x": 2}), "rank_pattern"),
        (lambda folder: _set(folder, r=8), "not an adapter for this base"),
        (lambda folder: _set(folder, target_modules=["nothing"]), "not an adapter for this base"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_no_trace(
    engine: Any, adapters: dict[str, Path], tmp_path: Path, change: Any, reason: str
) -> None:
    base = say(engine, None)
    folder = Path(shutil.copytree(adapters["a.1"], tmp_path / "bad"))
    change(folder)
    with pytest.raises(ValueError, match=reason):
        engine.add_adapter("bad", folder)
    assert say(engine, None) == base
    engine.add_adapter("a.1", adapters["a.1"])
    with pytest.raises(ValueError, match="loaded already"):
        engine.add_adapter("a.1", adapters["a.1"])
    tuned = say(engine, "a.1")
    with pytest.raises(ValueError, match=reason):
        engine.add_adapter("bad", folder)
    assert say(engine, "a.1") == tuned
    assert say(engine, None) == base


def _set(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _add(folder: Path, name: str) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({**weights, name: next(iter(weights.values()))}, path)
