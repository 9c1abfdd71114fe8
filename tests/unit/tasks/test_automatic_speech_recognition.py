"""Speech recognition: real recordings by Whisper base, mechanics by a tiny random Whisper."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from assay_demo.data.debian import fetch_debian
from assay_demo.data.librivox import recordings
from assay_demo.data.materials import MaterialsUnavailable
from assay_demo.data.whisper import whisper_base
from registry.catalog import get_task
from tasks.automatic_speech_recognition.schema import Recording, SpeechOptions
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import EvaluationRequest
from workers.wire import Done

pytestmark = pytest.mark.torch

TASK = get_task("automatic-speech-recognition")
RATE = 16_000


@pytest.fixture(scope="session")
def base() -> Path:
    return whisper_base()


@pytest.fixture(scope="session")
def tiny(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whisper base's tokenizer and settings with two small random layers."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("tiny-whisper")
    shutil.copytree(base, folder, dirs_exist_ok=True)
    torch.manual_seed(5)
    config = transformers.WhisperConfig.from_pretrained(base)
    for side in ("encoder", "decoder"):
        setattr(config, f"{side}_layers", 1)
        setattr(config, f"{side}_attention_heads", 2)
        setattr(config, f"{side}_ffn_dim", 32)
    config.d_model, config.max_target_positions, config.init_std = 16, 40, 0.5
    config.dtype = "float32"
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig.from_pretrained(base)
    model.generation_config.max_length = 40
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Any]:
    from workers.engines.batch_engine import BatchEngine

    engine = BatchEngine(tiny, runner=TASK.runner, architectures=TASK.architectures, threads=1)
    yield engine
    engine.close()


def recording(path: Path, seconds: float, rate: int = RATE, channels: int = 1) -> Path:
    """Bursts of noise of different loudness."""
    generator = np.random.default_rng(round(seconds * 1_000) + rate)
    samples = generator.normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, samples * np.abs(np.sin(np.arange(len(samples)) / 9_000))[:, None], rate)
    return path


def transcribe(engine: Any, path: Any, **options: Any) -> Done:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"audio": path}, options), answer)
    return answer.done()


def test_whisper_base_hears_real_speech_far_better_than_nothing(
    base: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    try:
        rows = recordings(tmp_path)
    except MaterialsUnavailable as error:
        pytest.skip(str(error))
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = evaluation_plan(TASK)
    found = evaluate(EvaluationRequest(plan, base, None, data, media=tmp_path), progress)
    assert found.sample_size == 5
    assert found.metrics["wer"] < 0.1
    assert found.metrics["cer"] < 0.1
    assert (found.baseline_name, found.baseline["wer"]) == ("empty transcript", 1.0)
    interval = found.intervals["metrics"]["wer"]
    assert interval["low"] <= found.metrics["wer"] <= interval["high"] < 0.5
    assert sum(part["n"] for part in found.slices) == 5
    assert all(part["value"] < part["baseline"] for part in found.slices)
    sample = found.details["samples"][0]
    assert sample["input"].startswith("Recording of ")
    assert sample["input_audio"] == rows[0]["audio"]
    assert "leisure to consider" in sample["output"]


def test_a_recording_has_the_same_transcript_alone_and_in_a_batch(
    engine: Any, tmp_path: Path
) -> None:
    paths = [recording(tmp_path / f"{n}.wav", n) for n in (1, 2.5, 4, 31)]
    answers = [Answer() for _ in paths]
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        engine.submit(asked(TASK.name, f"r{number}", {"audio": path}), answer)
    for path, answer in zip(paths, answers, strict=True):
        together, alone = answer.done().results or [], transcribe(engine, path).results or []
        assert [each["text"] for each in together] == [each["text"] for each in alone]
        assert [each["language"] for each in together] == [each["language"] for each in alone]


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_decoding_says_what_generate_of_transformers_says(
    engine: Any, tmp_path: Path, task: str
) -> None:
    import torch

    options = SpeechOptions(language="en", translate=task == "translate")
    runner = engine._runner
    items = [
        runner.prepare("r", Recording(audio=recording(tmp_path / f"{n}.wav", n)), options).items[0]
        for n in (1, 3, 5)
    ]
    with torch.inference_mode():
        batch = runner.collate(items)
        ours = runner.run(batch)
        theirs = runner._model.generate(
            batch[0],
            attention_mask=torch.ones(batch[0].shape[::2]),
            language="en",
            task=task,
            return_timestamps=True,
            max_new_tokens=17,
        ).tolist()
    # Random weights never end; `generate` then goes back to the last time that it heard.
    special = {50_257, 50_258, 50_259, 50_358, 50_359}
    for each, row in zip(ours, theirs, strict=True):
        tokens = [token for token in row if token not in special]
        assert each.tokens[:7] == tokens[:7]
    assert all(each.avg_logprob < 0 <= each.no_speech_prob <= 1 for each in ours)


def test_a_model_that_only_transcribes_says_so(tiny: Path, tmp_path: Path) -> None:
    from workers.engines.batch_engine import BatchEngine

    folder = shutil.copytree(tiny, tmp_path / "model")
    generation = json.loads((folder / "generation_config.json").read_text())
    del generation["task_to_id"]["translate"]
    (folder / "generation_config.json").write_text(json.dumps(generation))
    engine = BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)
    try:
        path = recording(tmp_path / "a.wav", 1)
        assert transcribe(engine, path).units == 1
        with pytest.raises(RequestRefused, match="cannot translate"):
            transcribe(engine, path, translate=True)
    finally:
        engine.close()


def test_long_recordings_are_cut_into_windows_and_metered_in_seconds(
    engine: Any, tmp_path: Path
) -> None:
    done = transcribe(engine, recording(tmp_path / "long.flac", 70.2, 8_000, 2), language="en")
    assert done.units == 71
    found = done.results or []
    assert [each["start"] for each in found[1:]] == [each["end"] for each in found[:-1]]
    assert (found[0]["start"], found[-1]["end"]) == (0, pytest.approx(70.2))
    assert all(20 <= each["end"] - each["start"] <= 30 for each in found[:-1])
    for window in found:
        for segment in window["segments"]:
            assert window["start"] <= segment["start"] <= segment["end"] <= window["end"] + 0.01


def test_windows_are_cut_where_it_is_quiet() -> None:
    from workers.engines.audio import windows

    samples = np.ones(70 * 100, np.float32)
    samples[25 * 100 : 26 * 100] = 0
    first, second, third = windows(samples, 100, 30, 10)
    assert 2_500 <= first.stop <= 2_600
    assert first.stop == second.start
    assert (second.stop, third.stop) == (third.start, 7_000)


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 44_100), ("flac", 8_000), ("ogg", 48_000)])
def test_recordings_of_every_format_are_read_at_the_models_rate(
    tmp_path: Path, suffix: str, rate: int
) -> None:
    from workers.engines.audio import read_audio

    time = np.arange(rate) / rate
    tone = np.stack([np.sin(time * 440 * 2 * np.pi) * 0.5] * 2, axis=1)
    soundfile.write(tmp_path / f"a.{suffix}", tone, rate)
    samples = read_audio(tmp_path / f"a.{suffix}", RATE)
    stream = io.BytesIO((tmp_path / f"a.{suffix}").read_bytes())
    assert np.array_equal(read_audio(stream, RATE), samples)
    assert len(samples) == pytest.approx(RATE, rel=0.01)
    assert np.argmax(np.abs(np.fft.rfft(samples[:RATE]))) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("rate", [4_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("seconds", [0.01, 20.37])
def test_resampling_block_by_block_gives_the_same_as_in_one_piece(
    tmp_path: Path, rate: int, seconds: float
) -> None:
    from scipy.signal import resample_poly

    from workers.engines.audio import read_audio

    noise = np.random.default_rng(7).uniform(-0.5, 0.5, int(seconds * rate))
    soundfile.write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
    whole = resample_poly(noise.astype(np.float32), RATE, rate)
    found = read_audio(tmp_path / "a.wav", RATE)
    assert len(found) == len(whole)
    assert np.allclose(found, whole, atol=1e-6)


def test_recordings_as_long_as_the_media_check_accepts_are_read(tmp_path: Path) -> None:
    from registry.media.limits import MediaLimits
    from workers.engines.audio import read_audio

    longest = MediaLimits().seconds
    soundfile.write(tmp_path / "long.flac", np.zeros(longest * 4_000), 4_000)
    assert len(read_audio(tmp_path / "long.flac", RATE)) == longest * RATE


def test_what_is_no_recording_is_refused_and_the_engine_goes_on(
    engine: Any, tmp_path: Path
) -> None:
    good = recording(tmp_path / "good.wav", 1)
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, np.full(1_000, np.nan), RATE, subtype="FLOAT")
    aiff = tmp_path / "a.aiff"
    soundfile.write(aiff, np.zeros(1_000), RATE)
    none = tmp_path / "none.wav"
    soundfile.write(none, np.zeros(0), RATE)
    (tmp_path / "text").write_bytes(b"not a recording")
    (tmp_path / "empty").write_bytes(b"")
    for path, reason in (
        (nan, "not finite numbers"),
        (aiff, "AIFF"),
        (none, "no sound"),
        (tmp_path / "text", "cannot be read"),
        (tmp_path / "empty", "cannot be read"),
    ):
        with pytest.raises(RequestRefused, match=reason):
            transcribe(engine, path)
    for inputs, options in (
        ({}, {}),
        ({"audio": str(good)}, {}),
        ({"audio": good}, {"language": "xx"}),
        ({"audio": good}, {"temperature": 2}),
        ({"audio": good}, {"temperature": "hot"}),
        ({"audio": good}, {"beams": 5}),
        ({"audio": good}, {"prompt": "Ann"}),
    ):
        with pytest.raises(RequestRefused):
            engine.submit(asked(TASK.name, "r", inputs, options), Answer())
    assert len(transcribe(engine, good, temperature=0.5).results or []) == 1


def test_a_model_whose_files_are_not_whispers_is_refused(tiny: Path, tmp_path: Path) -> None:
    import torch

    from tasks.automatic_speech_recognition.runner import SpeechRunner
    from workers.engines.architectures import UnsupportedModel

    for name, change in (
        ("preprocessor_config.json", {"sampling_rate": 8_000}),
        ("generation_config.json", {"no_timestamps_token_id": None}),
        ("generation_config.json", {"lang_to_id": {"<|en|>": 99_999}}),
    ):
        folder = tmp_path / f"{name}-{next(iter(change))}"
        shutil.copytree(tiny, folder)
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **change}))
        with pytest.raises(UnsupportedModel):
            SpeechRunner(
                folder,
                architectures=TASK.architectures,
                device=torch.device("cpu"),
                dtype=None,
            )


def test_segments_run_from_time_to_time() -> None:
    from tasks.automatic_speech_recognition.decoding import Decoded
    from tasks.automatic_speech_recognition.segments import segments

    # <0.00> 1 2 <1.00> <1.00> 3 <2.00> <2.50> 4
    tokens = [100, 1, 2, 150, 150, 3, 200, 225, 4]
    decoded = Decoded("en", 0.25, tokens, [-1.0] * len(tokens))
    found = segments(
        decoded,
        start_s=10,
        end_s=13,
        timestamp_begin=100,
        text_of=lambda given: " ".join(f"w{token}" for token in given),
    )
    assert [(each["start"], each["end"], each["text"]) for each in found] == [
        (10, 11, "w1 w2"),
        (11, 12, "w3"),
        (12.5, 13, "w4"),
    ]
    assert found[0]["tokens"] == [1, 2]
    assert (found[0]["avg_logprob"], found[0]["no_speech_prob"]) == (-1.0, 0.25)


def test_word_and_character_errors_are_those_counted_by_hand() -> None:
    from tasks.automatic_speech_recognition.score import score
    from workers.trainers.evaluation import Outcome, ScoreRequest

    def heard(text: str, end: float) -> Outcome:
        return Outcome("", [{"text": text, "end": end}])

    rows = [{"audio": Path(letter * 64), "text": text} for letter, text in
            (("a", "The cat sat."), ("b", "On a mat!"), ("c", "Ja, gut"))]  # fmt: skip
    outcomes = [heard("the CAT sat", 2), heard("on the mat now", 4), heard("", 9)]
    found = score(ScoreRequest(rows, outcomes, None, None, Recorder()))
    # 0 of 3 words wrong; one replaced and one too many of 3; both of 2 missing.
    assert found.metrics["wer"] == pytest.approx((0 + 2 + 2) / 8)
    # "on a mat" → "on the mat now": 3 for a → the, 4 for " now"; "ja gut" has 6 characters.
    assert found.metrics["cer"] == pytest.approx((0 + 7 + 6) / (11 + 8 + 6))
    assert found.baseline == {"wer": 1.0, "cer": 1.0}
    assert [part["value"] for part in found.slices] == [0, pytest.approx(2 / 3), 1]
    assert found.details["samples"][1] == {
        "input": "Recording of 4.0 s",
        "input_audio": "b" * 64,
        "expected": "On a mat!",
        "output": "on the mat now",
    }


def test_the_data_of_the_demonstration_is_read(tmp_path: Path) -> None:
    try:
        fetch_debian("librivox")
    except MaterialsUnavailable as error:
        pytest.skip(str(error))
    rows = recordings(tmp_path)
    assert rows[1]["text"] == "he was not an ill disposed young man"
    assert all((tmp_path / row["audio"]).is_file() for row in rows)
