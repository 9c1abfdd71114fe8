"""8. Images and speech: train, review, deploy and call three tasks that are not about text."""

from __future__ import annotations

from assay.demo.families import automatic_speech_recognition, image_classification, text_to_image
from assay.demo.families.showcase import show
from assay.demo.stage import Stage


def run(stage: Stage) -> None:
    with stage.chapter("8. Images and speech: sort photos, draw, transcribe"):
        outcomes = show(
            stage,
            [
                image_classification.SHOWCASE,
                text_to_image.SHOWCASE,
                automatic_speech_recognition.SHOWCASE,
            ],
        )
        stage.facts["outcomes"] = outcomes
