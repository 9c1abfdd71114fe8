"""Recordings as models hear them: decoded within bounds, one channel, at the model's rate.

Files were checked by content before they come here; what slips through is refused, never a crash.
"""

from __future__ import annotations

import math

import numpy as np
import soundfile
from scipy.signal import resample_poly

from registry.catalog.inputs import Media

FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "MPEG"})
RATES = (4_000, 192_000)
MAX_CHANNELS = 8
_BLOCK_FRAMES = 65_536
# The quietest moment is looked for in windows of this length.
_QUIET_S = 0.1


class UnreadableAudio(ValueError):
    """The file is no recording within bounds; the message is a sentence."""


def read_audio(source: Media, rate: int, max_seconds: float) -> np.ndarray:
    """Return the samples in float32, channels averaged, at `rate` a second.

    Raises:
        UnreadableAudio: it cannot be decoded, is empty, or is longer than `max_seconds`.
    """
    try:
        with soundfile.SoundFile(source) as file:
            found_rate = int(file.samplerate)
            _check(file)
            samples = _decoded(file, max_seconds)
    except UnreadableAudio:
        raise
    # libsndfile's own error, and what its Python side raises for a damaged file.
    except Exception as error:
        raise UnreadableAudio(
            "The recording cannot be read; save it again as WAV, FLAC, OGG or MP3."
        ) from error
    if not len(samples):
        raise UnreadableAudio("The recording holds no sound.")
    if not np.isfinite(samples).all():
        raise UnreadableAudio("The recording holds samples that are not numbers.")
    if found_rate != rate:
        shared = math.gcd(found_rate, rate)
        samples = resample_poly(samples, rate // shared, found_rate // shared)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _check(file: soundfile.SoundFile) -> None:
    if file.format not in FORMATS:
        raise UnreadableAudio(f"The recording is {file.format}; send WAV, FLAC, OGG or MP3.")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise UnreadableAudio(
            f"The recording has {file.samplerate:,} samples a second; "
            f"between {RATES[0]:,} and {RATES[1]:,} are read."
        )
    if file.channels > MAX_CHANNELS:
        raise UnreadableAudio(
            f"The recording has {file.channels} channels; at most {MAX_CHANNELS} are read."
        )


def _decoded(file: soundfile.SoundFile, max_seconds: float) -> np.ndarray:
    """Return all samples. The header may state any length, so what is decoded counts."""
    limit = int(max_seconds * file.samplerate)
    blocks: list[np.ndarray] = []
    frames = 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames > limit:
            raise UnreadableAudio(
                f"The recording is longer than {max_seconds:,.0f} s. Send it in parts."
            )
        blocks.append(block.mean(axis=1))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def windows(samples: np.ndarray, rate: int, longest_s: float, slack_s: float) -> list[slice]:
    """Cut a recording into windows of at most `longest_s` seconds.

    Each cut is at the quietest moment of the window's last `slack_s` seconds, so that few words are
    cut in two.
    """
    longest, slack = int(longest_s * rate), int(slack_s * rate)
    found: list[slice] = []
    start = 0
    while len(samples) - start > longest:
        stop = start + longest
        cut = stop - slack + _quietest(samples[stop - slack : stop], int(_QUIET_S * rate))
        found.append(slice(start, cut))
        start = cut
    found.append(slice(start, len(samples)))
    return found


def _quietest(samples: np.ndarray, length: int) -> int:
    """Return the middle of the stretch of `length` samples with the least energy."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[length:] - energy[:-length])) + length // 2
