"""Serve summarization: one text for each text."""

from __future__ import annotations

from assay.plugins import run
from tasks.summarization.schema import SummaryInputs, SummaryOptions


class SummaryRunner(run.SequenceRunner):
    """The summary of each text."""

    def prepare(
        self, request_id: str, inputs: SummaryInputs, options: SummaryOptions
    ) -> run.Prepared:
        return self.written(
            request_id,
            inputs.text,
            truncate=options.truncate,
            beams=options.num_beams,
            new_tokens=options.max_new_tokens,
        )
