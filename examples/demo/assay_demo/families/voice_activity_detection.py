"""Voice activity: Silero's detector, real weights as ONNX, on speech between noise and tones."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import httpx

from assay_demo.data import silero
from assay_demo.families.showcase import Gate, Showcase
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage


def _base(stage: Stage) -> Path:
    return silero.silero_vad(stage.folder / "bases" / "silero-vad")


def _test(stage: Stage) -> bytes:
    return silero.noisy_speech()


def _call(stage: Stage, model: str) -> str:
    """Send the bytes of one recording with two sentences, as any HTTP client can."""
    archive = zipfile.ZipFile(io.BytesIO(silero.noisy_speech()))
    found = httpx.post(
        f"{stage.stack.url}/v1/tasks/voice-activity-detection/{model}",
        headers={"authorization": f"Bearer {stage.facts['key']}", "content-type": "audio/flac"},
        content=archive.read("04.flac"),
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} answers: {found.text[:200]}")
    spans = ", ".join(f"{each['start']:.1f}–{each['end']:.1f} s" for each in found.json())
    return f"{model} finds speech in a recording: {spans or 'none'}."


SHOWCASE = Showcase(
    task="voice-activity-detection",
    model="silero-vad",
    description="Finds the stretches of a recording that hold speech.",
    base=Base(
        "silero-vad",
        "voice-activity-detection",
        "Silero VAD 6, a small network that tells speech from everything else.",
        "PyPI silero-vad 6.2.3 (ONNX, opset 15)",
        "MIT",
        _base,
    ),
    test=Data("noisy-speech", "Public domain", _test),
    gate=Gate("f1", ">=", 0.85, "A loudness threshold must be beaten clearly, or it would do."),
    call=_call,
)
