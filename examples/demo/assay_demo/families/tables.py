"""One model for each task on records and series."""

from __future__ import annotations

import csv
import io

from assay_demo.clients import hugging_face_client, posted
from assay_demo.data import records, series
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data, built
from assay_demo.stage import Stage


def _classify(stage: Stage, model: str) -> str:
    """Classify the first test records."""
    rows = list(csv.DictReader(io.StringIO(records.biopsies()[1].decode())))[:5]
    truth = [row.pop(records.LABEL) for row in rows]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    client = hugging_face_client(stage, "tabular-classification", model)
    labels = client.tabular_classification(table)
    right = sum(label == expected for label, expected in zip(labels, truth, strict=True))
    stage.expect(right >= 4, f"{model} classifies {right} of 5 biopsies correctly")
    return f"{model} labels five biopsies as {', '.join(labels)}; {right} of 5 are right."


def _forecast(stage: Stage, model: str) -> str:
    """Forecast the last year of CO2 from earlier years, in Chronos' shape."""
    carbon = series.all_series()[0]
    values = carbon["series"]["values"]
    body = {
        "inputs": [{"target": values[:-12], "start": carbon["series"]["start"]}],
        "parameters": {"prediction_length": 12, "freq": "MS"},
    }
    answer = posted(stage, f"tasks/time-series-forecasting/{model}", json=body)
    (forecast,) = answer.json()["predictions"]
    return (
        f"{model} forecasts {forecast['0.5'][-1]:.1f} ppm of CO2 a year after its data ends "
        f"(80 % range {forecast['0.1'][-1]:.1f} to {forecast['0.9'][-1]:.1f}); the true value "
        f"is {values[-1]:.1f}. Metered: {answer.headers['x-assay-units']}."
    )


SHOWCASES = (
    Showcase(
        task="tabular-classification", model="biopsy-classifier",
        description="Distinguishes benign from malignant biopsies by 30 measures of cell nuclei.",
        base=Base("empty-classifier", "tabular-classification",
                  "A classifier of records without features, to start training from.",
                  "Made by Assay (examples/demo/assay_demo/data/records.py)", "Apache-2.0",
                  built("empty-classifier", records.empty_classifier)),
        training=Training("linear", {},
                          Data("biopsies-train", "BSD-3-Clause",
                               lambda _: records.biopsies()[0], ".csv")),
        test=Data("biopsies-test", "BSD-3-Clause", lambda _: records.biopsies()[1], ".csv"),
        gate=Gate("macro_f1", ">=", 0.92,
                  "A threshold on the best single measure already reaches 0.893."),
        call=_classify, demonstration=True,
    ),
    Showcase(
        task="time-series-forecasting", model="series-forecaster",
        description="Forecasts monthly, weekly, quarterly and yearly series.",
        base=Base("small-timesfm", "time-series-forecasting",
                  "A small TimesFM with random weights, for a demonstration.",
                  "Made by Assay (examples/demo/assay_demo/data/series.py)", "Apache-2.0",
                  built("small-timesfm", series.untrained_forecaster)),
        training=Training("full", {"steps": 1_600},
                          Data("series-train", "Public domain",
                               lambda _: series.json_lines(series.training_series()), ".jsonl")),
        test=Data("series-test", "Public domain",
                  lambda _: series.json_lines(series.all_series()), ".jsonl"),
        gate=Gate("relative_error", "<=", 0.9,
                  "It must beat repeating the last cycle by at least a tenth."),
        call=_forecast, demonstration=True,
    ),
)  # fmt: skip
