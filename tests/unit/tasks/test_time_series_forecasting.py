"""Forecasts: trained on a cycle, served from any allowed architecture, measured from rolling
origins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assay_tasks_extra.time_series_forecasting import evaluation_request, origins
from assay_tasks_extra.time_series_forecasting.schema import ForecastInputs, ForecastOptions
from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.requests import Body, RequestInvalid
from registry.catalog.series import moment_after
from tests.thoroughness import first_and_last
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    EvaluationResult,
    TrainingRequest,
    TrainingResult,
)

TASK = get_task("time-series-forecasting")
CONTEXT, HORIZON = 32, 8
CYCLE = [10 + math.sin(number * math.pi / 4) for number in range(80)]


def read(body: Any) -> Plan:
    return TASK.endpoints[0].read(
        Body("application/json", json.dumps(body).encode()), "req_1", "seer"
    )


def row(values: list[float], name: str = "cycle", horizon: int = HORIZON, **series: Any) -> Any:
    return {
        "name": name,
        "series": {"start": "2026-01-01", "frequency": "D", "values": values, **series},
        "horizon": horizon,
    }


def test_a_request_names_histories_and_what_is_wanted_of_them() -> None:
    plan = read(
        {
            "inputs": [{"target": [1, 2.5, 3]}, {"target": [4, 5, 6, 7]}],
            "parameters": {"prediction_length": 5, "quantile_levels": [0.2, 0.8], "freq": "h"},
        }
    )
    assert plan.model == "seer"
    assert plan.inputs == ForecastInputs(histories=[[1, 2.5, 3], [4, 5, 6, 7]], frequency="h")
    assert plan.options == ForecastOptions(prediction_length=5, quantile_levels=[0.2, 0.8])
    assert plan.units == 3 + 4 + 2 * 5


def test_an_answer_has_the_shape_of_chronos_and_the_time_of_its_first_step() -> None:
    plan = read(
        {
            "inputs": [{"target": [1, 2, 3], "start": "2025-11-01", "item_id": "a"}],
            "parameters": {"prediction_length": 2, "quantile_levels": [0.1, 0.5], "freq": "MS"},
        }
    )
    found = {"mean": [4.0, 5.0], "quantiles": [[3.0, 3.5], [4.0, 5.0]]}
    assert plan.renderer.whole(EngineAnswer("stop", 0, 0, results=[found])) == {
        "predictions": [
            {
                "mean": [4.0, 5.0],
                "0.1": [3.0, 3.5],
                "0.5": [4.0, 5.0],
                "item_id": "a",
                "start": "2026-02-01",
            }
        ]
    }


@pytest.mark.parametrize(
    ("start", "frequency", "steps", "expected"),
    [
        ("2026-01-31", "MS", 1, "2026-02-28"),
        ("2025-10-01", "QS", 3, "2026-07-01"),
        ("1700-01-01", "YS", 309, "2009-01-01"),
        ("2026-02-27", "D", 2, "2026-03-01"),
        ("2026-02-27", "h", 25, "2026-02-28T01:00:00"),
        ("2026-02-27T10:00", "W", 1, "2026-03-06T10:00:00"),
    ],
)
def test_steps_are_dated_by_the_calendar(
    start: str, frequency: str, steps: int, expected: str
) -> None:
    assert moment_after(start, frequency, steps) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": [{"target": [1, 2]}]}, "at least 3 entries"),
        ({"inputs": [{"target": [1, 2, "3"]}]}, r"inputs\[0\].target\[2\]"),
        ({"inputs": [{"target": [1, 2, None]}]}, r"inputs\[0\].target\[2\]"),
        ({"inputs": [{"target": [1, 2, 1e300]}]}, "must be at most"),
        ({"inputs": [{"target": [1, 2, True]}]}, r"inputs\[0\].target\[2\]"),
        ({"inputs": [{"target": [1.0] * 20_001}]}, "at most 20,000 entries"),
        ({"inputs": [{"target": [1.0] * 20_000}] * 6}, "at most 100,000 are accepted"),
        ({"inputs": [{"target": [1, 2, 3], "start": "yesterday!"}]}, r"inputs\[0\].start"),
        ({"inputs": [{"target": [1, 2, 3], "start": "2026-01-01T00:00:00+01:00"}]}, "time zone"),
        ({"inputs": [{"target": [1, 2, 3], "past_covariates": {}}]}, "not supported"),
        ({"parameters": {"prediction_length": 0}}, "prediction_length"),
        ({"parameters": {"prediction_length": 2_000}}, "prediction_length"),
        ({"parameters": {"quantile_levels": [0.5, 0.5]}}, "ascending order"),
        ({"parameters": {"quantile_levels": [1.5]}}, "quantile_levels"),
        ({"parameters": {"freq": "fortnight"}}, "freq"),
        ({"model": "x"}, "Unrecognized"),
    ],
)
def test_a_request_that_cannot_be_forecast_is_refused_in_words(change: Any, said: str) -> None:
    with pytest.raises(RequestInvalid, match=said):
        read({"inputs": [{"target": [1, 2, 3]}], **change})


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(word: str) -> None:
    body = Body("application/json", f'{{"inputs": [{{"target": [1, 2, {word}]}}]}}'.encode())
    with pytest.raises(RequestInvalid):
        TASK.endpoints[0].read(body, "req_1", "seer")


def test_a_forecast_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="beyond the year 9999"):
        read(
            {
                "inputs": [{"target": [1, 2, 3], "start": "9999-12-30"}],
                "parameters": {"freq": "D"},
            }
        )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "target", "start", "item_id", "parameters", "freq", "prediction_length"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused_in_words(data: bytes) -> None:
    try:
        plan = TASK.endpoints[0].read(Body("application/json", data), "req_1", "seer")
    except RequestInvalid:
        return
    assert plan.units > 0


@pytest.mark.parametrize(
    "change",
    [
        {"values": [1.0, float("nan"), 2.0]},
        {"values": [1.0, float("inf"), 2.0]},
        {"values": [1.0, 2.0, 3.0]},
        {"values": [1.0, None, 2.0]},
        {"frequency": "fortnight"},
        {"start": "2026"},
        {"season": 0},
    ],
)
def test_a_row_with_gaps_or_without_a_calendar_is_refused(change: dict[str, Any]) -> None:
    given = row([1.0, 2.0, 3.0, 4.0])
    TASK.row.model_validate(given)
    with pytest.raises(ValidationError):
        TASK.row.model_validate({**given, "series": {**given["series"], **change}})


def test_a_series_is_forecast_from_six_origins_that_end_with_it() -> None:
    assert origins(100, 10) == [40, 50, 60, 70, 80, 90]
    inputs, options = evaluation_request(row(list(range(100)), horizon=10))
    assert [len(each) for each in inputs.histories] == [40, 50, 60, 70, 80, 90]
    assert options.prediction_length == 10
    # A short one from as many as leave a history of two horizons.
    assert origins(35, 10) == [25]


# ---- with models ----


def save_tiny(architecture: str, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(5)
    if architecture == "TimesFmModelForPrediction":
        config: Any = transformers.TimesFmConfig(
            patch_length=4,
            context_length=CONTEXT,
            horizon_length=HORIZON,
            hidden_size=16,
            intermediate_size=16,
            head_dim=8,
            num_attention_heads=2,
            num_hidden_layers=1,
        )
    else:
        config = transformers.PatchTSTConfig(
            num_input_channels=1,
            context_length=CONTEXT,
            prediction_length=HORIZON,
            patch_length=4,
            patch_stride=4,
            d_model=16,
            num_attention_heads=2,
            num_hidden_layers=1,
            ffn_dim=32,
            loss="nll",
            distribution_output="student_t",
            scaling=None,
            do_mask_input=False,
        )
    getattr(transformers, architecture)(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def forecast(engine: Any, *histories: list[float], **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    inputs = ForecastInputs(histories=list(histories))
    engine.submit(EngineRequest("r", inputs, ForecastOptions(truncate="start", **options)), answer)
    return list(answer.done().results or [])


@pytest.mark.torch
@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_every_allowed_architecture_forecasts_alone_as_in_a_batch(
    architecture: str, tmp_path: Path
) -> None:
    engine = load(save_tiny(architecture, tmp_path))
    options = {"prediction_length": 5, "quantile_levels": [0.05, 0.5, 0.9]}
    try:
        together = forecast(engine, CYCLE[:20], CYCLE, [3.0, 3.0, 3.0], **options)
        alone = [forecast(engine, each, **options)[0] for each in (CYCLE[:20], CYCLE)]
    finally:
        engine.close()
    assert [len(each["mean"]) for each in together] == [5, 5, 5]
    for one, many in zip(alone, together, strict=False):
        np.testing.assert_allclose(one["quantiles"], many["quantiles"], rtol=1e-4)
    for each in together:
        low, middle, high = each["quantiles"]
        assert all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))


@pytest.mark.torch
@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_a_forecast_moves_and_stretches_with_its_history(architecture: str, tmp_path: Path) -> None:
    engine = load(save_tiny(architecture, tmp_path))
    try:
        (plain,) = forecast(engine, CYCLE, prediction_length=5)
        (large,) = forecast(engine, [1e12 * value - 4e12 for value in CYCLE], prediction_length=5)
    finally:
        engine.close()
    expected = [1e12 * value - 4e12 for value in plain["mean"]]
    np.testing.assert_allclose(large["mean"], expected, rtol=1e-3)


@pytest.mark.torch
def test_more_steps_than_the_model_looks_ahead_are_refused(tmp_path: Path) -> None:
    engine = load(save_tiny("TimesFmModelForPrediction", tmp_path))
    try:
        with pytest.raises(RequestRefused, match="at most 8 steps; 9 were"):
            forecast(engine, CYCLE, prediction_length=9)
        assert len(forecast(engine, CYCLE, prediction_length=8)[0]["mean"]) == 8
    finally:
        engine.close()


@pytest.mark.torch
@pytest.mark.parametrize(
    "change",
    [
        {"context_length": 10**7},
        {"horizon_length": 5_000},
        {"quantiles": [0.9, 0.1]},
        {"quantiles": [0.5]},
    ],
)
def test_a_configuration_that_cannot_forecast_is_unsupported(
    change: dict[str, Any], tmp_path: Path
) -> None:
    from workers.engines.architectures import UnsupportedModel

    folder = save_tiny("TimesFmModelForPrediction", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UnsupportedModel):
        load(folder)


def trained(base: Path, rows: list[Any], folder: Path, recorder: Any, **given: Any) -> Any:
    from assay_tasks_extra.time_series_forecasting.fine_tune import train

    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in rows))
    request = TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=data,
        output=folder / "out",
        checkpoints=folder / "checkpoints",
        hyperparameters={"batch_size": 16, **given},
    )
    return train(request, recorder)


def measured(version: Path, rows: list[Any], folder: Path, recorder: Any) -> EvaluationResult:
    from workers.trainers.evaluation import evaluate

    data = folder / "test.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return evaluate(
        EvaluationRequest(
            plan=evaluation_plan(TASK),
            version=version,
            base=None,
            data_file=data,
            train_file=folder / "train.jsonl",
        ),
        recorder,
    )


@pytest.mark.torch
def test_training_learns_a_cycle_and_measuring_compares_it_with_the_naive(tmp_path: Path) -> None:
    recorder = Recorder()
    noise = np.random.default_rng(3).normal(size=160) * 0.05
    values = [10 + math.sin(n * math.pi / 4) + float(noise[n]) for n in range(160)]
    train_rows = [row(values[:112])]
    base = save_tiny("TimesFmModelForPrediction", tmp_path / "base")
    result: TrainingResult = trained(
        base, train_rows, tmp_path, recorder, steps=160, made_share=0.0, learning_rate=5e-3
    )
    assert result.parameters["series"] == 1
    before = measured(base, [row(values, season=8)], tmp_path, recorder)
    after = measured(tmp_path / "out", [row(values, season=8)], tmp_path, recorder)
    assert after.metrics["mase"] < before.metrics["mase"]
    assert after.baseline == pytest.approx({"mase": after.baseline["mase"], "relative_error": 1})
    assert [each["name"] for each in after.details["baselines"]] == [
        "Seasonal naive",
        "ETS (exponential smoothing)",
        "Last value",
    ]
    assert after.details["forecasts"] == 6
    assert not any("reaches into" in line for line in recorder.warnings)


@pytest.mark.torch
def test_training_data_that_reaches_into_the_forecasts_is_said(tmp_path: Path) -> None:
    recorder = Recorder()
    base = save_tiny("TimesFmModelForPrediction", tmp_path / "base")
    (tmp_path / "train.jsonl").write_text(json.dumps(row(CYCLE)) + "\n")
    measured(base, [row(CYCLE)], tmp_path, recorder)
    assert any("reaches into the forecasts of 1 series" in line for line in recorder.warnings)


@pytest.mark.torch
def test_series_that_are_constant_or_too_short_are_refused(tmp_path: Path) -> None:
    base = save_tiny("TimesFmModelForPrediction", tmp_path / "base")
    with pytest.raises(BadMaterial, match="too short"):
        trained(base, [row([1.0, 2.0, 3.0, 4.0])], tmp_path, Recorder(), steps=8)
    with pytest.raises(BadMaterial, match="constant"):
        measured(base, [row([2.0] * 80)], tmp_path, Recorder())


@pytest.mark.torch
def test_a_canceled_training_stops(tmp_path: Path) -> None:
    recorder = Recorder(stop_at=0)
    base = save_tiny("TimesFmModelForPrediction", tmp_path / "base")
    with pytest.raises(Canceled):
        trained(base, [row(CYCLE)], tmp_path, recorder, steps=8)
