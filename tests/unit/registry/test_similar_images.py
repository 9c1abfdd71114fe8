"""Difference hashes are near for images that look alike, and searched in bounded work."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image, ImageEnhance

from registry.datasets import similar
from registry.datasets.similar import DISTANCE, ImageHashes, difference_hash
from tests.unit.registry.media_files import picture, saved


def image(seed: int) -> Image.Image:
    return Image.open(BytesIO(picture(seed, (200, 150)))).convert("RGB")


def distance(first: Image.Image, second: Image.Image) -> int:
    return (difference_hash(first) ^ difference_hash(second)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_scaled_recompressed_and_brighter_images_are_near(seed: int) -> None:
    given = image(seed)
    again = Image.open(BytesIO(saved(given, "JPEG", quality=40)))
    brighter = ImageEnhance.Brightness(given).enhance(1.1)
    for other in (given.resize((90, 70)), again, brighter, given.convert("L")):
        assert distance(given, other) <= DISTANCE
    assert distance(given, image(seed + 100)) > DISTANCE


def test_a_near_hash_is_found_wherever_the_bits_differ() -> None:
    base = 0x0123456789ABCDEF
    looks = ImageHashes([base])
    for start in range(61):
        assert looks.near(base ^ (0b1111 << start))
        assert not looks.near(base ^ (0b11111 << min(start, 59)))
    assert looks.near(base ^ (1 << 5 | 1 << 18 | 1 << 33 | 1 << 63))


def test_an_image_without_structure_is_near_to_none() -> None:
    assert difference_hash(Image.new("RGB", (50, 50), "blue")) == 0
    assert not ImageHashes([0]).near(0)
    assert not ImageHashes([0b1]).near(0)


def test_the_work_of_a_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "MAX_COMPARISONS", 1000)
    looks = ImageHashes(
        (number << 13) * 0x9E3779B97F4A7C15 % 2**64 << 13 & 2**64 - 1 for number in range(1, 500)
    )
    assert not looks.exhausted
    for number in range(10):
        looks.near((0xAAAA5555 + number) << 13)
    assert looks.exhausted
    assert looks.near(next(iter(looks._known)))
