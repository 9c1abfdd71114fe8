"""Segments of speech from a probability for each chunk, with hysteresis as in Silero's own code."""

from __future__ import annotations

import numpy as np

from assay_tasks_extra.voice_activity_detection.schema import DetectionOptions, SpeechSegment

# Speech ends below the threshold minus this margin.
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
    long_enough = [
        (begin, end)
        for begin, end in joined
        if (end - begin) * chunk_s * 1_000 >= options.min_speech_ms
    ]
    pad = options.speech_pad_ms / 1_000
    result: list[SpeechSegment] = []
    for begin, end in long_enough:
        start_s, end_s = max(0.0, begin * chunk_s - pad), min(duration, end * chunk_s + pad)
        if result and start_s < result[-1]["end"]:
            start_s = result[-1]["end"] = (start_s + result[-1]["end"]) / 2
        score = float(probabilities[begin:end].mean())
        result.append({"start": start_s, "end": end_s, "score": round(score, 4)})
    for segment in result:
        segment["start"], segment["end"] = round(segment["start"], 3), round(segment["end"], 3)
    return result


def _runs(probabilities: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Return the start and end of each run of speech, in chunks."""
    least = max(threshold - HYSTERESIS, 0.01)
    runs: list[tuple[int, int]] = []
    begin: int | None = None
    for number, probability in enumerate(probabilities):
        if begin is None and probability >= threshold:
            begin = number
        elif begin is not None and probability < least:
            runs.append((begin, number))
            begin = None
    if begin is not None:
        runs.append((begin, len(probabilities)))
    return runs
