"""Text to audio: a small language model learns Bach's chorales and composes in four voices."""

from __future__ import annotations

from pathlib import Path

from assay_demo.clients import hugging_face_client
from assay_demo.data import chorales
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

PROMPT = "A minor, 96 bpm, notes A4 B4 C5 B4"
LICENSE = "Public domain; encodings of music21"


def _base(stage: Stage) -> Path:
    return chorales.untrained_composer(stage.folder / "bases" / "small-composer")


def _train(stage: Stage) -> bytes:
    return chorales.json_lines(chorales.chorales()[0])


def _test(stage: Stage) -> bytes:
    return chorales.json_lines(chorales.chorales()[1])


def _call(stage: Stage, model: str) -> str:
    """Compose with Hugging Face's client, whose text-to-speech call has the same shape."""
    sound = hugging_face_client(stage, "text-to-audio", model).text_to_speech(PROMPT)
    stage.expect(sound[:4] == b"RIFF" and len(sound) > 100_000, f"{model} plays music")
    return f"{model} plays {PROMPT!r}: {len(sound):,} bytes of WAV."


SHOWCASE = Showcase(
    task="text-to-audio",
    model="chorale-composer",
    description="Composes short pieces in four voices, in the manner of chorales.",
    base=Base(
        "small-composer",
        "text-to-audio",
        "A small Llama with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/chorales.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training("full", {"steps": 600}, Data("chorales-train", LICENSE, _train, ".jsonl")),
    test=Data("chorales-test", LICENSE, _test, ".jsonl"),
    gate=Gate("bits_per_note", "<=", 3.4, "5-grams of notes in all keys need 3.68."),
    call=_call,
    demonstration=True,
    generates=True,
)
