"""Score a moderator by recall and false alarms, against simple baselines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, precision_score, recall_score

from assay.plugins import run
from tasks.moderation.schema import is_harmless

SAMPLES = 8
SAMPLE_CHARACTERS = 300
KEYWORDS = "keywords"
ALL = "flag every text"
# Words of attacks on instructions, of threats and of insults, as in block lists.
_WORDS = re.compile(
    r"\b(ignore|disregard|forget|override|bypass|jailbreak|system prompt|reveal|unrestricted|"
    r"kill|murder|rape|bomb|attack|hate|stupid|idiot|bitch|fuck\w*|shit|bastard|whore|suicide)\b",
    re.IGNORECASE,
)
_METRICS = ("f1", "precision", "recall", "accuracy", "false_alarms")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The flags of one moderator, one Boolean for each row."""

    name: str
    flags: np.ndarray


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return precision, recall and F1 of flagging, and the share of flagged harmless texts.

    The baseline is the better of a list of keywords and flagging every text.

    Raises:
        BadMaterial: all rows are harmless, or none is.
    """
    rows = request.rows
    texts = [row["text"] for row in rows]
    labels = [row["label"] for row in rows]
    truth = np.array([not is_harmless(label) for label in labels])
    if truth.all() or not truth.any():
        raise run.BadMaterial("The data needs texts to flag, and texts with the label safe.")
    ours = Verdicts("", np.array([bool(each.results[0]["flagged"]) for each in request.outcomes]))
    simple = [
        Verdicts(KEYWORDS, np.array([bool(_WORDS.search(text)) for text in texts])),
        Verdicts(ALL, np.ones(len(rows), dtype=bool)),
    ]
    simple.sort(key=lambda each: -measure(truth, each.flags)["f1"])
    first = simple[0]
    right = ours.flags == truth
    return run.EvaluationResult(
        metrics=measure(truth, ours.flags),
        baseline=measure(truth, first.flags),
        baseline_name=first.name,
        sample_size=len(rows),
        details={
            "samples": _samples(request, ours.flags, first.flags),
            "baselines": [
                {"name": each.name, "metrics": measure(truth, each.flags), "trained_on": 0}
                for each in simple
            ],
        },
        intervals={
            "metrics": _intervals(truth, ours.flags),
            "baseline": _intervals(truth, first.flags),
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "accuracy",
                "value": float(right[part.rows].mean()),
                "baseline": float((first.flags == truth)[part.rows].mean()),
            }
            for part in [*run.slices_by_label(labels), *run.slices_by_length(texts)]
        ],
    )


def measure(truth: np.ndarray, flags: np.ndarray) -> dict[str, float]:
    """Return the metrics; 0 if no text is flagged, or no text should be."""
    harmless = ~truth
    return {
        "f1": float(f1_score(truth, flags, zero_division=0)),
        "precision": float(precision_score(truth, flags, zero_division=0)),
        "recall": float(recall_score(truth, flags, zero_division=0)),
        "accuracy": float((truth == flags).mean()),
        "false_alarms": float(flags[harmless].mean()) if harmless.any() else 0.0,
    }


def _intervals(truth: np.ndarray, flags: np.ndarray) -> dict[str, dict[str, Any]]:
    right, alarm = truth & flags, flags & ~truth

    def resampled(name: str, rows: np.ndarray) -> float:
        hits, alarms, positives = right[rows].sum(), alarm[rows].sum(), truth[rows].sum()
        if name == "false_alarms":
            return float(alarms / max(1, len(rows) - positives))
        if name == "accuracy":
            return float((hits + len(rows) - positives - alarms) / len(rows))
        if name == "precision":
            return float(hits / max(1, hits + alarms))
        if name == "recall":
            return float(hits / max(1, positives))
        return float(2 * hits / max(1, hits + alarms + positives))

    values = measure(truth, flags)
    return {
        name: run.bootstrap(values[name], lambda rows, name=name: resampled(name, rows), len(truth))  # type: ignore[misc]
        for name in _METRICS
    }


def _samples(
    request: run.ScoreRequest, flags: np.ndarray, simple: np.ndarray
) -> list[dict[str, Any]]:
    def word(flag: bool) -> str:
        return "flagged" if flag else "safe"

    compared = list(zip(request.rows, request.outcomes, flags, simple, strict=True))[:SAMPLES]
    return [
        {
            "input": row["text"][:SAMPLE_CHARACTERS],
            "expected": row["label"],
            "output": ", ".join(outcome.results[0]["flagged"]) or word(flag),
            "baseline": word(theirs),
            "score": round(max(outcome.results[0]["scores"].values()), 4),
        }
        for row, outcome, flag, theirs in compared
    ]
