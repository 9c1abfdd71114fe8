"""Bounds on one image or recording, which Django's settings fill in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Largest image or recording that is accepted.

    `pixels` bounds width times height, `side` each of the two; `seconds` and `channels` bound
    audio.
    """

    bytes: int = 25 * 1024**2
    pixels: int = 40_000_000
    side: int = 16_384
    seconds: int = 1800
    channels: int = 2
