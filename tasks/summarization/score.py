"""Score summaries, against the beginning of the text and the most similar training text."""

from __future__ import annotations

import re

from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import Canceled, EvaluationResult
from workers.trainers.text_scores import Simple, from_memory, score_texts

LEAD = "first sentence of the text"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def score(request: ScoreRequest) -> EvaluationResult:
    """Return chrF and exact match, with intervals, and chrF by length of the text.

    With training rows, the summary of the most similar training text is a second baseline.

    Raises:
        Canceled: `request.progress` said so.
    """

    def check() -> None:
        if request.progress.should_stop():
            raise Canceled

    sources = [row["text"] for row in request.rows]
    baselines = [Simple(LEAD, [_SENTENCE_END.split(text.strip())[0] for text in sources])]
    known = [(row["text"], row["summary"]) for row in request.train_rows or []]
    memory = from_memory(sources, known)
    baselines += [memory] if memory is not None else []
    return score_texts(
        sources=sources,
        references=[row["summary"] for row in request.rows],
        outputs=[str(outcome.results[0]) for outcome in request.outcomes],
        baselines=baselines,
        should_stop=check,
    )
