"""8. Images and speech: train, review, deploy and call three tasks that are not about text."""

from __future__ import annotations

from assay_demo.families import images, sounds
from assay_demo.families.showcase import begin, finish
from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRING_TEST, queue_evaluation
from assay_demo.story.lives import BASE

SHOWCASES = (images.CLASSIFICATION, images.DRAWING, sounds.SPEECH_RECOGNITION)


def queue(stage: Stage) -> None:
    """Queue the jobs of chapters 8 and 10, which run during the earlier chapters."""
    with stage.chapter("Meanwhile: prepare chapter 8 and queue its trainings"):
        stage.facts["images and speech"] = begin(stage, SHOWCASES)
        queue_evaluation(stage, stage["enzo"], stage.facts[BASE], DOCSTRING_TEST)


def run(stage: Stage) -> None:
    with stage.chapter("8. Images and speech: sort photos, draw, transcribe"):
        stage.facts["outcomes"] = finish(stage, stage.facts["images and speech"])
