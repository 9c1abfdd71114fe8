"""Score translations, against the text itself and the most similar training text."""

from __future__ import annotations

from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import Canceled, EvaluationResult
from workers.trainers.text_scores import Simple, from_memory, score_texts

COPY = "copy of the text"


def score(request: ScoreRequest) -> EvaluationResult:
    """Return chrF and exact match, with intervals, and chrF by length of the text.

    With training rows, the translation of the most similar training text is a second baseline.

    Raises:
        Canceled: `request.progress` said so.
    """

    def check() -> None:
        if request.progress.should_stop():
            raise Canceled

    sources = [row["source"] for row in request.rows]
    baselines = [Simple(COPY, sources)]
    known = [(row["source"], row["target"]) for row in request.train_rows or []]
    memory = from_memory(sources, known)
    baselines += [memory] if memory is not None else []
    return score_texts(
        sources=sources,
        references=[row["target"] for row in request.rows],
        outputs=[str(outcome.results[0]) for outcome in request.outcomes],
        baselines=baselines,
        should_stop=check,
    )
