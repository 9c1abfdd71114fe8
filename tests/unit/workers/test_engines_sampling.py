"""Drawing tokens: by the stated distribution, within the nucleus, by the seed."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.torch


def draw(weights: list[float], count: int, **wish: Any) -> list[float]:
    """Frequencies of each token when all rows share one distribution."""
    import torch

    from registry.catalog.generation import SamplingOptions
    from workers.engines.sampling import Sampling, choose

    samplings = [Sampling.of(SamplingOptions(seed=seed, **wish)) for seed in range(count)]
    logits = torch.tensor(weights).log().repeat(count, 1)
    chosen = choose(logits, samplings, [each.generator() for each in samplings])
    return [chosen.count(token) / count for token in range(len(weights))]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    assert draw([0.1, 0.2, 0.7], 4000) == pytest.approx([0.1, 0.2, 0.7], abs=0.03)


def test_temperature_sharpens_and_zero_is_greedy() -> None:
    assert draw([0.3, 0.7], 4000, temperature=0.5)[1] == pytest.approx(0.49 / 0.58, abs=0.03)
    assert draw([0.3, 0.7], 50, temperature=0) == [0, 1]


def test_only_the_smallest_set_that_reaches_top_p_is_drawn_from() -> None:
    shares = draw([0.5, 0.3, 0.15, 0.05], 4000, top_p=0.7)
    assert shares == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert draw([0.4, 0.6], 50, top_p=0) == [0, 1]


def test_a_nucleus_wider_than_the_guess_uses_the_whole_vocabulary() -> None:
    from workers.engines.sampling import NUCLEUS_GUESS

    size = NUCLEUS_GUESS * 4
    shares = draw([1 / size] * size, 3000, top_p=0.999)
    assert sum(1 for share in shares if share) > NUCLEUS_GUESS


def test_penalties_lower_the_tokens_that_came_before_by_their_number() -> None:
    import torch

    from registry.catalog.generation import SamplingOptions
    from workers.engines.shaping import Shaper

    options = SamplingOptions(
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={"1": 2.0, "3": -1.0}
    )
    shaper = Shaper.of(options, None)
    assert shaper is not None
    for token in (0, 1, 1):
        assert shaper.take(token, 9) == token
    assert not shaper.complete
    logits = torch.zeros(4)
    shaper.apply(logits)
    assert logits.tolist() == [-0.75, 1.0, 0.0, -1.0]
    assert Shaper.of(SamplingOptions(), None) is None
