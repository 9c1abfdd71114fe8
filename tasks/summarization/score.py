"""Score summaries, against the beginning of the text and the most similar training text."""

from __future__ import annotations

import re

from assay.plugins import run

LEAD = "first sentence of the text"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return chrF and exact match, with intervals, and chrF by length of the text.

    With training rows, the summary of the most similar training text is a second baseline.

    Raises:
        Cancelled: `request.progress` said so.
    """

    def check() -> None:
        if request.progress.should_stop():
            raise run.Cancelled

    sources = [row["text"] for row in request.rows]
    baselines = [run.SimpleTexts(LEAD, [_SENTENCE_END.split(text.strip())[0] for text in sources])]
    known = [(row["text"], row["summary"]) for row in request.train_rows or []]
    memory = run.texts_from_memory(sources, known)
    baselines += [memory] if memory is not None else []
    return run.score_texts(
        sources=sources,
        references=[row["summary"] for row in request.rows],
        outputs=[str(outcome.results[0]) for outcome in request.outcomes],
        baselines=baselines,
        should_stop=check,
    )
