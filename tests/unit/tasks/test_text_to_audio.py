"""Music: a notation, a small model that learns it, a synthesizer, and n-grams to compare with."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from huggingface_hub import InferenceClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from assay_tasks_extra.text_to_audio.notation import (
    HEADER,
    HIGHEST,
    HOLD,
    LOWEST,
    REST,
    VOCABULARY,
    VOICES,
    Key,
    Piece,
    key_from,
    parse,
    tokens,
    value_of,
    written,
)
from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import MediaResult, Plan
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.tasks.fuzz import JSON
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest, TrainingRequest

TASK = get_task("text-to-audio")
PIECES = st.builds(
    Piece,
    st.builds(Key, st.integers(0, 11), st.booleans()),
    st.integers(30, 240),
    st.lists(
        st.tuples(*[st.sampled_from([HOLD, REST]) | st.integers(LOWEST, HIGHEST)] * VOICES),
        min_size=8,
        max_size=20,
    ).map(tuple),
)


def read(body: Any) -> Plan:
    return TASK.endpoints[0].plan(
        Body("application/json", json.dumps(body).encode()), "req_1", "bach"
    )


# ---- notation ----


@given(PIECES)
def test_a_piece_survives_text_and_tokens(piece: Piece) -> None:
    assert parse(written(piece)) == piece
    made = tokens(piece)
    assert max(made) < VOCABULARY
    values = [value_of(token, piece.key) for token in made[HEADER:]]
    assert values == [value for step in piece.steps for value in step]


@pytest.mark.parametrize(
    ("music", "said"),
    [
        ("H minor 96 " + "_,_,_,_ " * 8, "begins with its key"),
        ("A minor 500 " + "_,_,_,_ " * 8, "begins with its key"),
        ("A minor 96 " + "_,_,_,_ " * 7, "8 to 512 steps"),
        ("A minor 96 " + "_,_,_,_ " * 8 + "A4", "step 9 has 1 voices"),
        ("A minor 96 " + "_,_,_,_ " * 8 + "A9,_,_,_", "step 9: 'A9' is not a note"),
    ],
)
def test_a_row_that_is_no_music_is_refused_in_words(music: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TASK.row.model_validate({"name": "a", "music": music})


# ---- requests ----


def test_a_text_names_key_tempo_and_first_notes() -> None:
    plan = read(
        {
            "inputs": "72 bpm, notes: A4, B4 C#5, F# minor.",
            "parameters": {"seconds": 8, "seed": 1, "generation_parameters": {"top_p": 0.5}},
        }
    )
    assert plan.inputs.model_dump() == {
        "key": "F# minor",
        "tempo": 72,
        "opening": ["A4", "B4", "C#5"],
        "seed": 1,
        "music": None,
    }
    assert (plan.units, plan.options.top_p) == (8, 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": "something sad"}, "names no key, tempo or notes"),
        ({"inputs": "A minor, 999 bpm"}, "999 beats"),
        ({"inputs": "notes C9"}, "not a note from C1 to C7"),
        ({"inputs": "notes A4 H4 B4"}, "'H4' is not a note"),
        ({"inputs": "Notes a4 b4, A minor"}, "'a4' is not a note"),
        ({"inputs": "notes A44"}, "'A44' is not a note"),
        ({"inputs": "A minor, notes A4 B, C5"}, "'B' is not a note"),
        ({"inputs": "notes A4 and B4"}, "'B4' outside of its notes"),
        ({"inputs": "A minor from c#4"}, "'c#4' outside of its notes"),
        ({"inputs": "notes " + "C5 " * 17}, "17 notes"),
        ({"parameters": {"seconds": 100}}, "seconds"),
        ({"parameters": {"generation_parameters": {"num_beams": 2}}}, "Unrecognized"),
        ({"parameters": {"top_p": 1, "generation_parameters": {}}}, "sent twice"),
    ],
)
def test_a_text_that_names_no_music_is_refused_in_words(change: Any, said: str) -> None:
    with pytest.raises(RequestInvalid, match=said):
        read({"inputs": "A minor", **change})


@settings(max_examples=30)
@given(inputs=JSON | st.text(alphabet="ABCnotes#b 0123bpm,", max_size=60), parameters=JSON)
def test_any_body_is_read_or_refused_in_words(inputs: Any, parameters: Any) -> None:
    try:
        plan = read({"inputs": inputs, "parameters": parameters})
    except RequestInvalid:
        return
    assert plan.units > 0


def test_the_unmodified_client_gets_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answer = EngineAnswer("stop", 0, 0, results=[MediaResult(b"RIFF", "audio/wav")])
    with served(TASK.endpoints[0], answer) as (url, plans):
        found = InferenceClient(model=f"{url}/bach").text_to_speech("A minor", temperature=0.5)
    assert found == b"RIFF"
    assert plans[0].options.temperature == 0.5  # type: ignore[attr-defined]


def test_the_synthesizer_plays_each_note_for_its_length_and_rests_are_silent() -> None:
    from assay_tasks_extra.text_to_audio.synthesizer import RATE, rendered

    steps = ((69, REST, REST, REST), *[(HOLD,) * 4] * 3, *[(REST,) * 4] * 4)
    samples = rendered(Piece(Key(9, True), 60, steps))
    assert len(samples) / RATE == pytest.approx(4.08, abs=0.01)
    assert np.abs(samples[: 2 * RATE]).max() == pytest.approx(0.8, abs=0.01)
    assert not samples[int(2.2 * RATE) :].any()
    loudest = np.fft.rfft(samples[: 2 * RATE])
    assert np.abs(loudest).argmax() / 2 == pytest.approx(440, abs=1)


# ---- models ----


def rows(number: int) -> list[dict[str, str]]:
    """Pieces that repeat one cadence in several keys."""
    made = []
    for at in range(number):
        base = Piece(
            Key(0, False), 96, ((64, 60, 55, 48), (HOLD,) * 4, (62, 59, 55, 43), (HOLD,) * 4) * 6
        )
        moved = tuple(tuple(v + at % 5 if v >= 0 else v for v in step) for step in base.steps)
        made.append({"name": f"p{at}", "music": written(Piece(Key(at % 5, False), 96, moved))})
    return made


def save_base(folder: Path, *, rotary: bool = True, **changes: Any) -> Path:
    import torch
    import transformers

    torch.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, **changes}
    if rotary:
        model: Any = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                initializer_range=0.05,
                **sizes,
            )
        )
    else:
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, **sizes)
        )
    model.save_pretrained(folder)
    return folder


def trained(folder: Path, pieces: list[dict[str, str]], **settings: Any) -> Any:
    from assay_tasks_extra.text_to_audio.train import train

    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pieces))
    request = TrainingRequest(
        task=TASK.name,
        method="full",
        base=save_base(folder / "base"),
        train_file=data,
        output=folder / "out",
        checkpoints=folder / "checkpoints",
        hyperparameters={"steps": 40, "learning_rate": 0.01, **settings},
    )
    return train(request, Recorder())


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def composed(engine: Any, inputs: dict[str, Any], **options: Any) -> Any:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", inputs, options), answer)
    (result,) = answer.done().results or []
    return result


@pytest.mark.torch
def test_a_cadence_is_learned_measured_against_n_grams_and_played(tmp_path: Path) -> None:
    from workers.trainers.evaluation import evaluate

    result = trained(tmp_path, rows(12))
    assert result.metrics["validation_bits_per_note"] < 2
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows(5)))
    found = evaluate(
        EvaluationRequest(
            plan=evaluation_plan(TASK),
            version=tmp_path / "out",
            base=None,
            data_file=test,
            train_file=tmp_path / "train.jsonl",
        ),
        Recorder(),
    )
    assert found.metrics["perplexity"] == pytest.approx(2 ** found.metrics["bits_per_note"])
    assert found.baseline_name == "5-grams of notes"
    assert 0 < found.baseline["bits_per_note"] < 3
    assert found.intervals["metrics"].keys() == {"bits_per_note", "perplexity"}

    engine = load(tmp_path / "out")
    try:
        asked_for = {"key": "D major", "tempo": 120, "opening": ["F#4", "E4"], "seed": 4}
        sound = composed(engine, asked_for, seconds=10)
        again = composed(engine, asked_for, seconds=10)
        with pytest.raises(RequestRefused, match="16 beats"):
            composed(engine, {**asked_for, "tempo": 30, "opening": ["C5"] * 16}, seconds=2)
    finally:
        engine.close()
    assert sound.data == again.data
    samples, rate = soundfile.read(io.BytesIO(sound.data))
    # Forty steps, more than the sixty-four places of the model hold.
    assert len(samples) / rate == pytest.approx(10.08, abs=0.01)
    piece = parse(sound.details["music"])
    assert (piece.key, piece.tempo, len(piece.steps)) == (key_from("D major"), 120, 40)
    assert [step[0] for step in piece.steps[:4]] == [66, HOLD, 64, HOLD]


@pytest.mark.torch
@pytest.mark.parametrize("places", [64, 68])
def test_a_composition_may_be_longer_than_the_window_of_a_model(
    places: int, tmp_path: Path
) -> None:
    import torch

    from assay_tasks_extra.text_to_audio.composer import Composer

    # A model with learned positions fails at the first one that it does not have.
    base = save_base(tmp_path, rotary=False, max_position_embeddings=places)
    composer = Composer.load(base, TASK.architectures)
    made = composer.compose(
        Key(0, False),
        [],
        3 * composer.steps,
        temperature=0.9,
        top_p=0.95,
        generator=torch.Generator().manual_seed(1),
    )
    assert len(made) == 3 * composer.steps > places // VOICES


@pytest.mark.torch
@pytest.mark.parametrize("rotary", [True, False])
def test_likelihood_of_a_long_piece_counts_each_step_once(rotary: bool, tmp_path: Path) -> None:
    from assay_tasks_extra.text_to_audio.composer import Composer

    composer = Composer.load(save_base(tmp_path, rotary=rotary), TASK.architectures)
    composer._model.lm_head.weight.data.zero_()
    piece = parse("C major 96 " + "C5,E4,G3,C3 " * 50)
    assert composer.nats(piece) == pytest.approx(200 * math.log(VOCABULARY), rel=1e-4)


@pytest.mark.torch
def test_models_and_data_that_hold_no_music_are_refused(tmp_path: Path) -> None:
    from workers.engines.architectures import UnsupportedModel

    with pytest.raises(UnsupportedModel, match="music has 352 tokens"):
        load(save_base(tmp_path / "words", vocab_size=100))
    with pytest.raises(BadMaterial, match="2 pieces"):
        trained(tmp_path, rows(2))
