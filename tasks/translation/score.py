"""Score translations, against the text itself and the most similar training text."""

from __future__ import annotations

from assay.plugins import run

COPY = "copy of the text"


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return chrF and exact match, with intervals, and chrF by length of the text.

    With training rows, the translation of the most similar training text is a second baseline.

    Raises:
        Cancelled: `request.progress` said so.
    """

    def check() -> None:
        if request.progress.should_stop():
            raise run.Cancelled

    sources = [row["source"] for row in request.rows]
    baselines = [run.SimpleTexts(COPY, sources)]
    known = [(row["source"], row["target"]) for row in request.train_rows or []]
    memory = run.texts_from_memory(sources, known)
    baselines += [memory] if memory is not None else []
    return run.score_texts(
        sources=sources,
        references=[row["target"] for row in request.rows],
        outputs=[str(outcome.results[0]) for outcome in request.outcomes],
        baselines=baselines,
        should_stop=check,
    )
