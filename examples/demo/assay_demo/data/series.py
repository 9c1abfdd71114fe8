"""Series of statsmodels for the forecasting demonstration, and an untrained TimesFM.

Each comes with statsmodels itself: CO2 at Mauna Loa, sunspots, the Pacific's temperature (El Niño),
the Nile and quarterly figures of the US economy, all in the public domain.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

# Evaluations measure the last forecasts of each series; training data ends before the first one.
ORIGINS = 6
CONTEXT, HORIZON = 128, 24
_QUARTERLY = (
    "realgdp", "realcons", "realinv", "realgovt", "realdpi",
    "cpi", "m1", "tbilrate", "unemp", "pop",
)  # fmt: skip
_SEED = 17


def all_series() -> list[dict[str, Any]]:
    """Return the rows {"name", "series", "horizon"} of all complete series."""
    with warnings.catch_warnings():
        # statsmodels parses dates with formats that pandas deprecates.
        warnings.simplefilter("ignore")
        import statsmodels.api as statsmodels

        data = statsmodels.datasets
        carbon = data.co2.load_pandas().data["co2"]
        ocean = data.elnino.load_pandas().data.iloc[:, 1:].to_numpy().reshape(-1)
        economy = data.macrodata.load_pandas().data
        monthly = carbon.resample("MS").mean().interpolate()
        weekly = carbon.interpolate()
        rows = [
            _row("co2-monthly", "1958-03-01", "MS", monthly, 12),
            _row("co2-weekly", "1958-03-29", "W", weekly, HORIZON),
            _row(
                "sunspots",
                "1700-01-01",
                "YS",
                data.sunspots.load_pandas().data["SUNACTIVITY"],
                11,
                season=11,
            ),
            _row("el-nino", "1950-01-01", "MS", ocean[ocean == ocean], 12),
            _row("nile", "1871-01-01", "YS", data.nile.load_pandas().data["volume"], 8),
        ]
    return rows + [_row(name, "1959-01-01", "QS", economy[name], 8) for name in _QUARTERLY]


def training_series() -> list[dict[str, Any]]:
    """Return the same rows, without the measured end of each series."""
    rows = []
    for row in all_series():
        values = row["series"]["values"]
        end = len(values) - ORIGINS * row["horizon"]
        rows.append({**row, "series": {**row["series"], "values": values[:end]}})
    return rows


def _row(
    name: str, start: str, frequency: str, values: Any, horizon: int, season: int | None = None
) -> dict[str, Any]:
    series: dict[str, Any] = {
        "start": start,
        "frequency": frequency,
        "values": [round(float(value), 4) for value in values],
    }
    return {
        "name": name,
        "series": series if season is None else {**series, "season": season},
        "horizon": horizon,
    }


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as a dataset file."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def untrained_forecaster(folder: Path) -> Path:
    """Write a small TimesFM with random weights, ready for intake; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    config = transformers.TimesFmConfig(
        patch_length=8,
        context_length=CONTEXT,
        horizon_length=HORIZON,
        hidden_size=64,
        intermediate_size=64,
        head_dim=16,
        num_attention_heads=4,
        num_hidden_layers=3,
    )
    transformers.TimesFmModelForPrediction(config).save_pretrained(folder)
    (folder / "README.md").write_text(
        "# Small TimesFM, untrained\n\n"
        "Random weights (seed 17) in the architecture of Google's TimesFM 2.0, made for a "
        "demonstration.\nIt knows nothing until it is trained.\n"
    )
    return folder
