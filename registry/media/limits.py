"""Bounds on one image, recording or video, set by Django's settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Largest accepted image, recording or video.

    `pixels` bounds width times height, `side` each of the two; `seconds` bounds audio and video,
    `channels` audio; `frames` bounds a video, and `video_pixels` the pixels of all its frames.
    """

    bytes: int = 25 * 1024**2
    pixels: int = 40_000_000
    side: int = 16_384
    seconds: int = 1800
    channels: int = 2
    frames: int = 1_000
    video_pixels: int = 100_000_000
