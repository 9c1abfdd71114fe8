"""Score a voice by a round trip: a speech recognizer, the task's judge, transcribes the recordings.

Word and character error rates compare the text with the transcript, so the recognizer's own errors
count too. The baseline is the same round trip with espeak-ng's own voice, the plain choice for
decades, or with silence if the program is missing.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import soundfile

from assay.plugins import run
from tasks.automatic_speech_recognition.schema import Recording, SpeechOptions
from tasks.automatic_speech_recognition.score import count_errors, transcript
from tasks.text_to_speech.phonemes import espeak_speech

PLAIN_VOICE = "espeak-ng’s own voice"
SILENCE = "silence"
SAMPLES = 8
SHOWN_CHARACTERS = 300
# Maximum size of one recording in the evaluation, in base64.
SOUND_CHARACTERS = 120_000


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return WER and CER of the round trip, with intervals from resampling the texts.

    Raises:
        BadMaterial: the texts contain no words, or the judge fails.
        Canceled: `request.progress` requests a stop.
    """
    if request.judge is None:
        raise run.BadMaterial("The score needs a speech recognizer as its judge.")
    texts = [row["text"] for row in request.rows]
    recordings = [_output(outcome.results[0]) for outcome in request.outcomes]
    transcripts = _transcribed(request.judge, [output.data for output in recordings])
    words, characters = _errors(texts, transcripts)
    if not words.lengths.sum():
        raise run.BadMaterial("The texts of the test data contain no words.")
    plain = _plain(request, texts)
    name = SILENCE if plain is None else PLAIN_VOICE
    plain_words, plain_characters = _errors(texts, plain or [""] * len(texts))
    metrics = {"wer": words.rate(), "cer": characters.rate()}
    baseline = {"wer": plain_words.rate(), "cer": plain_characters.rate()}
    count = len(texts)
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=name,
        sample_size=count,
        details={
            "samples": [
                {
                    "input": text[:SHOWN_CHARACTERS],
                    "expected": text[:SHOWN_CHARACTERS],
                    "output": f"Heard: {transcript[:SHOWN_CHARACTERS]}",
                    **_sound(output),
                }
                for text, transcript, output in zip(
                    texts[:SAMPLES], transcripts[:SAMPLES], recordings[:SAMPLES], strict=True
                )
            ],
            "baselines": [{"name": name, "metrics": baseline, "trained_on": 0}],
        },
        intervals={
            "metrics": {
                "wer": run.bootstrap(metrics["wer"], words.rate, count),
                "cer": run.bootstrap(metrics["cer"], characters.rate, count),
            },
            "baseline": {
                "wer": run.bootstrap(baseline["wer"], plain_words.rate, count),
                "cer": run.bootstrap(baseline["cer"], plain_characters.rate, count),
            },
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "wer",
                "value": words.rate(part.rows),
                "baseline": plain_words.rate(part.rows),
            }
            for part in run.slices_by_length(texts)
        ],
    )


def _output(result: Any) -> run.MediaOutput:
    if not isinstance(result, run.MediaOutput):
        raise run.BadMaterial("The voice returned something other than a recording.")
    return result


def _transcribed(judge: run.AskJudge, recordings: list[bytes]) -> list[str]:
    requests = [(Recording(audio=io.BytesIO(data)), SpeechOptions()) for data in recordings]
    return [transcript(outcome) for outcome in judge(requests)]


def _plain(request: run.ScoreRequest, texts: list[str]) -> list[str] | None:
    """Return the transcripts of the texts in espeak-ng's voice; None without the program."""
    recordings = []
    for text in texts:
        if request.progress.should_stop():
            raise run.Canceled
        if (data := espeak_speech(text)) is None:
            request.progress.log("espeak-ng is not installed; the baseline is silence.")
            return None
        recordings.append(data)
    return _transcribed(request.judge, recordings) if request.judge is not None else None


def _errors(texts: list[str], transcripts: list[str]) -> tuple[Any, Any]:
    return (
        count_errors(texts, transcripts, characters=False),
        count_errors(texts, transcripts, characters=True),
    )


def _sound(output: run.MediaOutput) -> dict[str, str]:
    """Return the recording, compressed, for the player on the review page; empty if it is long."""
    samples, rate = soundfile.read(io.BytesIO(output.data), dtype="float32")
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="OGG", subtype="OPUS")
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    if len(encoded) > SOUND_CHARACTERS:
        return {}
    return {"output_audio": f"data:audio/ogg;base64,{encoded}"}
