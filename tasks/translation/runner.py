"""Serve translation: one text for each text."""

from __future__ import annotations

from assay.plugins import run
from tasks.translation.schema import TranslationInputs, TranslationOptions


class TranslationRunner(run.SequenceRunner):
    """The translation of each text."""

    def prepare(
        self, request_id: str, inputs: TranslationInputs, options: TranslationOptions
    ) -> run.Prepared:
        return self.written(
            request_id,
            inputs.text,
            truncate=options.truncate,
            beams=options.num_beams,
            new_tokens=options.max_new_tokens,
        )
