"""Recordings as models read them: one channel, at the model's rate.

The media check has decoded every file before, and bounds the length of a recording
(`registry/media/limits.py`); this module does not repeat that bound. An unreadable file is refused
and never crashes the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import soundfile
from scipy.signal import resample_poly

from registry.catalog.inputs import Media

FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "MPEG"})
RATES = (4_000, 192_000)
MAX_CHANNELS = 8
_BLOCK_FRAMES = 65_536
# `resample_poly` looks this many samples, of the lower rate, to either side.
_FILTER_REACH = 10
# Length of the windows in which the quietest moment is searched.
_QUIET_S = 0.1


class UnreadableAudio(ValueError):
    """The file is not a recording within bounds; the message is a sentence."""


def read_audio(source: Media, rate: int) -> np.ndarray:
    """Return the samples in float32, channels averaged, at `rate` a second.

    The recording is resampled while it is decoded, so that memory depends on its length in seconds
    and not on the rate that the file declares.

    Raises:
        UnreadableAudio: the recording cannot be decoded, or is empty.
    """
    try:
        with soundfile.SoundFile(source) as file:
            _check(file)
            blocks = list(_resampled(file, rate))
    except UnreadableAudio:
        raise
    # libsndfile's own error, and the errors of its Python wrapper for a damaged file.
    except Exception as error:
        raise UnreadableAudio(
            "The recording cannot be read; save it again as WAV, FLAC, OGG or MP3."
        ) from error
    samples = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    if not len(samples):
        raise UnreadableAudio("The recording holds no sound.")
    if not np.isfinite(samples).all():
        raise UnreadableAudio("The recording holds samples that are not finite numbers.")
    return samples


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


def _resampled(file: soundfile.SoundFile, rate: int) -> Iterator[np.ndarray]:
    """Yield the recording at `rate` in blocks, with the same samples as if resampled at once.

    Each block is resampled with the neighboring samples that the filter needs, then cut to size.
    """
    shared = math.gcd(file.samplerate, rate)
    up, down = rate // shared, file.samplerate // shared
    # A whole number of periods of both rates, so that each block begins on a sample of both.
    around = down * math.ceil(_FILTER_REACH * max(up, down) / (up * down) + 1)
    step = down * max(1, _BLOCK_FRAMES // down)
    before, pending = np.empty(0, np.float32), np.empty(0, np.float32)
    for block in _decoded(file):
        pending = np.concatenate([pending, block])
        while len(pending) >= step + around:
            yield _piece(before, pending[:step], pending[step : step + around], up, down)
            before, pending = np.concatenate([before, pending[:step]])[-around:], pending[step:]
    if len(pending):
        yield _piece(before, pending, pending[:0], up, down)


def _piece(
    before: np.ndarray, block: np.ndarray, after: np.ndarray, up: int, down: int
) -> np.ndarray:
    if up == down:
        return block
    resampled = resample_poly(np.concatenate([before, block, after]), up, down)
    start = len(before) * up // down
    length = math.ceil(len(block) * up / down)
    return np.ascontiguousarray(resampled[start : start + length], dtype=np.float32)


def _decoded(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield block.mean(axis=1, dtype=np.float32)


def windows(samples: np.ndarray, rate: int, longest_s: float, slack_s: float) -> list[slice]:
    """Cut a recording into windows of at most `longest_s` seconds.

    Each cut is at the quietest moment of the window's last `slack_s` seconds, to split few words.
    """
    longest, slack = int(longest_s * rate), int(slack_s * rate)
    slices: list[slice] = []
    start = 0
    while len(samples) - start > longest:
        stop = start + longest
        cut = stop - slack + _quietest(samples[stop - slack : stop], int(_QUIET_S * rate))
        slices.append(slice(start, cut))
        start = cut
    slices.append(slice(start, len(samples)))
    return slices


def _quietest(samples: np.ndarray, length: int) -> int:
    """Return the middle of the stretch of `length` samples with the least energy."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[length:] - energy[:-length])) + length // 2
