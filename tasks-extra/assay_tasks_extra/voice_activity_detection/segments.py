"""Segments of speech from a probability for each chunk, with hysteresis as in Silero's own code."""

from __future__ import annotations

import numpy as np

from assay_tasks_extra.voice_activity_detection.schema import DetectionOptions, SpeechSegment

# Speech ends only below the threshold minus this.
HYSTERESIS = 0.15


def segments(
    probabilities: np.ndarray, chunk_s: float, duration: float, options: DetectionOptions
) -> list[SpeechSegment]:
    """Return the segments of one recording, in order; they do not overlap."""
    runs = _runs(probabilities, options.threshold)
    joined: list[tuple[int, int]] = []
    for begin, end in runs:
        pause_s = (begin - joined[-1][1]) * chunk_s if joined else 0.0
        if joined and pause_s * 1_000 < options.min_silence_ms:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    kept = [
        (begin, end)
        for begin, end in joined
        if (end - begin) * chunk_s * 1_000 >= options.min_speech_ms
    ]
    pad = options.speech_pad_ms / 1_000
    found: list[SpeechSegment] = []
    for begin, end in kept:
        start_s, end_s = max(0.0, begin * chunk_s - pad), min(duration, end * chunk_s + pad)
        if found and start_s < found[-1]["end"]:
            start_s = found[-1]["end"] = (start_s + found[-1]["end"]) / 2
        score = float(probabilities[begin:end].mean())
        found.append({"start": start_s, "end": end_s, "score": round(score, 4)})
    for each in found:
        each["start"], each["end"] = round(each["start"], 3), round(each["end"], 3)
    return found


def _runs(probabilities: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Return where speech begins and ends, in chunks."""
    least = max(threshold - HYSTERESIS, 0.01)
    found: list[tuple[int, int]] = []
    begin: int | None = None
    for number, probability in enumerate(probabilities):
        if begin is None and probability >= threshold:
            begin = number
        elif begin is not None and probability < least:
            found.append((begin, number))
            begin = None
    if begin is not None:
        found.append((begin, len(probabilities)))
    return found
