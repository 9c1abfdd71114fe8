"""Synthesize music: each note is a sum of harmonics that fades in and out, like a small organ."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile

from assay_tasks_extra.text_to_audio.notation import HOLD, STEPS_PER_BEAT, VOICES, Piece

RATE = 22_050
# Amplitudes of the fundamental and its overtones.
HARMONICS = (1.0, 0.5, 0.28, 0.14, 0.08, 0.04)
ATTACK_S, RELEASE_S = 0.02, 0.08
LOUDNESS = 0.8


def rendered(piece: Piece) -> np.ndarray:
    """Return the samples of a piece, float32 from -1 to 1."""
    step = 60 / piece.tempo / STEPS_PER_BEAT
    samples = np.zeros(round(len(piece.steps) * step * RATE) + round(RELEASE_S * RATE) + 1)
    for number, start, length in _notes(piece):
        sound = _tone(number, length * step)
        at = round(start * step * RATE)
        samples[at : at + len(sound)] += sound[: len(samples) - at]
    loudest = np.abs(samples).max()
    result: np.ndarray = (samples * (LOUDNESS / loudest if loudest else 0)).astype(np.float32)
    return result


def _notes(piece: Piece) -> Iterator[tuple[int, int, int]]:
    """Yield the MIDI number of each note with its first step and its number of steps."""
    for voice in range(VOICES):
        number, start = -1, 0
        for at, step in enumerate((*piece.steps, (-2,) * VOICES)):
            if step[voice] == HOLD:
                continue
            if number >= 0:
                yield number, start, at - start
            number, start = step[voice], at


def _tone(number: int, seconds: float) -> np.ndarray:
    pitch = 440 * 2 ** ((number - 69) / 12)
    time = np.arange(round((seconds + RELEASE_S) * RATE)) / RATE
    tone = np.zeros(len(time))
    for harmonic, amplitude in enumerate(HARMONICS, start=1):
        if pitch * harmonic < RATE / 2:
            tone += amplitude * np.sin(2 * np.pi * pitch * harmonic * time)
    envelope = np.minimum(time / ATTACK_S, 1) * np.minimum((time[-1] - time) / RELEASE_S, 1)
    result: np.ndarray = tone * envelope
    return result


def wav(piece: Piece) -> bytes:
    """Return a piece as a WAV file of 16 bits."""
    stream = io.BytesIO()
    soundfile.write(stream, rendered(piece), RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()
