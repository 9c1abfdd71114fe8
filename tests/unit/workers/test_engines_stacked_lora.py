"""Stacked adapters compute what PEFT computes with each alone, and are in memory once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
# Different ranks, scalings and layers; the last one has no adapter in most layers.
SETTINGS: dict[str, dict[str, Any]] = {
    "small": {"r": 2, "target_modules": "all-linear"},
    "scaled": {"r": 8, "lora_alpha": 64, "use_rslora": True, "target_modules": "all-linear"},
    "few": {"r": 4, "target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
}
NAMES = (None, "small", "scaled", "few", "small", None)


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("stacked")
    more = {"embedding": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]}}
    for seed, (name, settings) in enumerate({**SETTINGS, **more}.items()):
        _save(tiny, made / name, seed, settings)
    return {name: made / name for name in (*SETTINGS, *more)}


@pytest.fixture
def model(tiny: Path) -> Iterator[Any]:
    import torch

    from workers.engines.adapters import AdaptedModel

    with torch.inference_mode():
        yield AdaptedModel(_base(tiny))


def test_each_row_has_the_losses_of_its_adapter_alone(
    tiny: Path, folders: dict[str, Path], model: Any
) -> None:
    expected = [_alone(tiny, folders.get(name or ""), row) for row, name in enumerate(NAMES)]
    for name in SETTINGS:
        model.add(name, folders[name])
    assert _losses(model, NAMES) == pytest.approx(expected, rel=1e-5)
    assert model._stack().take(set(model._inner.values()))
    assert len({round(each, 3) for each in expected}) == len(NAMES)
    # In turn with batches of other adapters, of one alone and of none.
    assert _losses(model, [None] * 6)[0] == pytest.approx(expected[0], rel=1e-5)
    alike = _losses(model, ["scaled"] * 6)
    assert alike[2] == pytest.approx(expected[2], rel=1e-5)
    model.remove("small")
    assert _losses(model, ["few", None, "scaled", "few"])[2:] == pytest.approx(
        expected[2:4], rel=1e-5
    )
    model.add("small", folders["small"])
    assert _losses(model, NAMES) == pytest.approx(expected, rel=1e-5)


def test_an_adapter_of_an_embedding_is_run_by_peft(
    tiny: Path, folders: dict[str, Path], model: Any
) -> None:
    names = ("embedding", None, "small")
    expected = [_alone(tiny, folders.get(name or ""), row) for row, name in enumerate(names)]
    for name in ("embedding", "small"):
        model.add(name, folders[name])
    assert not model._stack().take(set(model._inner.values()))
    assert _losses(model, names) == pytest.approx(expected, rel=1e-5)


def test_the_longest_unused_adapter_makes_room_and_too_many_ranks_are_run_by_peft(
    tiny: Path, folders: dict[str, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines import stacked_lora

    monkeypatch.setattr(stacked_lora, "STACKED_RANKS", 16)
    monkeypatch.setattr(stacked_lora, "MAX_RANKS", 16)
    expected = {name: _alone(tiny, folders[name], row) for row, name in enumerate(SETTINGS)}
    for name in SETTINGS:
        model.add(name, folders[name])
    small, scaled, few = (model._inner[name] for name in SETTINGS)
    stack = model._stack()
    # Each place is 8 ranks wide: that of the largest.
    assert stack.take({small, scaled})
    assert stack.take({small, few})
    assert set(stack._places) == {small, few}
    assert not stack.take({small, scaled, few})
    assert _losses(model, [*SETTINGS]) == pytest.approx([*expected.values()], rel=1e-5)
    assert _losses(model, ["small", "scaled"]) == pytest.approx(
        [expected["small"], expected["scaled"]], rel=1e-5
    )


def test_stacks_that_find_no_memory_leave_the_adapters_to_peft(
    tiny: Path, folders: dict[str, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    expected = {name: _alone(tiny, folders[name], row) for row, name in enumerate(SETTINGS)}
    for name in SETTINGS:
        model.add(name, folders[name])
    assert _losses(model, ["small"]) == pytest.approx([expected["small"]], rel=1e-5)
    zeros, calls = torch.Tensor.new_zeros, iter(range(10**6))

    def out_of_memory(self: torch.Tensor, *size: Any) -> torch.Tensor:
        if next(calls) > 2:
            raise torch.OutOfMemoryError
        return zeros(self, *size)

    with monkeypatch.context() as broken:
        broken.setattr(torch.Tensor, "new_zeros", out_of_memory)
        assert not model._stack().take(set(model._inner.values()))
    for names in ([*SETTINGS], ["small"]):
        assert _losses(model, names) == pytest.approx([expected[name] for name in names], rel=1e-5)


def test_wide_stacks_are_given_up_after_some_steps_that_fit_the_kept_ranks(
    folders: dict[str, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines import stacked_lora

    monkeypatch.setattr(stacked_lora, "STACKED_RANKS", 16)
    monkeypatch.setattr(stacked_lora, "FITTING_STEPS", 2)
    for name in SETTINGS:
        model.add(name, folders[name])
    names = set(model._inner.values())
    stack = model._stack()
    assert stack.take(names)
    assert stack._count == 3
    before = _losses(model, ["few"])
    # Nothing is forgotten as long as the stacks are wide.
    assert stack._places.keys() == names
    assert _losses(model, ["few"]) == pytest.approx(before, rel=1e-5)
    assert stack._count == 2
    assert _losses(model, ["few"]) == pytest.approx(before, rel=1e-5)


def _save(base: Path, folder: Path, seed: int, settings: dict[str, Any]) -> None:
    import peft
    import torch

    torch.manual_seed(seed)
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    # Without the base's embeddings, which PEFT saves next to an adapter of them.
    peft.get_peft_model(_base(base), config).save_pretrained(folder, save_embedding_layers=False)


def _base(folder: Path) -> Any:
    import torch
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _rows(count: int) -> tuple[Any, Any]:
    import torch

    ids = torch.arange(10 * count).reshape(count, 10) * 7 + 11
    return ids, torch.ones_like(ids)


def _losses(model: Any, names: Sequence[str | None]) -> list[float]:
    ids, mask = _rows(len(names))
    return model.losses(ids, mask, ids, names).tolist()


def _alone(base: Path, adapter: Path | None, row: int) -> float:
    """The loss of one row with PEFT alone."""
    import peft
    import torch

    model: Any = _base(base)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    ids, mask = (each[row : row + 1] for each in _rows(row + 1))
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
    return float(loss)
