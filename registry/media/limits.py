"""Bounds on one image, recording or video, which Django's settings fill in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Largest image, recording or video that is accepted.

    `pixels` bounds width times height, `side` each of the two; `seconds` bounds audio and video,
    `channels` audio; `frames` bounds a video, and `video_pixels` those of all its frames.
    """

    bytes: int = 25 * 1024**2
    pixels: int = 40_000_000
    side: int = 16_384
    seconds: int = 1800
    channels: int = 2
    frames: int = 1_000
    video_pixels: int = 100_000_000
