"""Silero VAD for the demonstration of voice activity (MIT license, ONNX), and its test data.

The recordings are LibriVox sentences with noise, a hum and tones before, between and after them, so
the position of speech is known; pauses inside a sentence count as speech.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from assay_demo.data.librivox import recordings
from assay_demo.data.materials import DEFAULT_FOLDER, Say, fetch
from assay_demo.data.spoken_words import noise

RATE = 16_000
RECORDINGS = 40


def silero_vad(target: Path, folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Write the detector's files for intake into `target`, and return it."""
    source = fetch(folder, ["silero_vad"], progress)["silero_vad"]
    target.mkdir(parents=True, exist_ok=True)
    for name in ("model.onnx", "LICENSE"):
        (target / name).write_bytes((source / name).read_bytes())
    config = {"architectures": ["SileroVad"], "sampling_rate": RATE}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return target


def noisy_speech(folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> bytes:
    """Return a zip archive of recordings and their segments of speech. Deterministic."""
    import numpy
    import soundfile

    with tempfile.TemporaryDirectory() as scratch:
        rows = recordings(Path(scratch), folder, progress)
        sentences = [_trimmed(soundfile.read(Path(scratch) / row["audio"])[0]) for row in rows]
    generator = numpy.random.default_rng(17)
    stream, lines = io.BytesIO(), []
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(RECORDINGS):
            samples, segments = _mixed(generator, sentences)
            file = io.BytesIO()
            soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
            name = f"{number:02}.flac"
            archive.writestr(zipfile.ZipInfo(name), file.getvalue())
            lines.append(json.dumps({"file_name": name, "segments": segments}) + "\n")
        archive.writestr(zipfile.ZipInfo("metadata.jsonl"), "".join(lines))
    return stream.getvalue()


def _trimmed(samples: Any) -> Any:
    """Trim silence at both ends."""
    import numpy

    level = numpy.convolve(samples**2, numpy.ones(320) / 320, "same")
    loud = numpy.flatnonzero(level > level.max() * 1e-3)
    return samples[loud[0] : loud[-1] + 1]


def _mixed(generator: Any, sentences: list[Any]) -> tuple[Any, list[dict[str, float]]]:
    """Return a recording of up to two sentences among other sounds, and its segments of speech."""
    import numpy

    parts: list[Any] = [_background_sound(generator)]
    segments: list[dict[str, float]] = []
    for _ in range(int(generator.integers(0, 3))):
        sentence = sentences[int(generator.integers(len(sentences)))]
        start = sum(map(len, parts)) / RATE
        segments.append({"start": round(start, 3), "end": round(start + len(sentence) / RATE, 3)})
        parts += [sentence, _background_sound(generator)]
    recording = numpy.concatenate(parts)
    speech = float(numpy.mean(sentences[0] ** 2))
    power = speech / 10 ** (generator.uniform(5, 20) / 10)
    return numpy.clip(recording + noise(generator, len(recording), power), -1, 1), segments


def _background_sound(generator: Any) -> Any:
    """Return one to three seconds of silence, a hum or tones, as loud as speech."""
    import numpy

    time = numpy.arange(int(generator.uniform(1, 3) * RATE)) / RATE
    kind = int(generator.integers(3))
    if kind == 0:
        return numpy.zeros(len(time))
    if kind == 1:
        return 0.1 * numpy.sin(2 * numpy.pi * 50 * time) + 0.05 * numpy.sin(
            2 * numpy.pi * 150 * time
        )
    return 0.1 * numpy.sin(2 * numpy.pi * 440 * time) * (time % 1 < 0.4)
