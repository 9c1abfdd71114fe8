"""Video classification: one label out of a fixed set for a short video."""

from __future__ import annotations

from operator import itemgetter

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

# A gray square that moves to the right, 4 frames of 32 × 32 pixels, as GIF in base64.
SAMPLE_VIDEO = (
    "R0lGODlhIAAgAIEAAAAAAMjIyAAAAAAAACH/C05FVFNDQVBFMi4wAwEAAAAh+QQADAAAACwAAAAAIAAgAAAITQABCBxI"
    "sKDBgwgTKlzIsKHDhxAjSpxIsaLFixgtBtjIkePFjiA/gvSoceRGkSZRjlQZsmRKlythtqxo8mTGmzhz6tzJs6fPn0CD"
    "GgwIACH5BAEMAAIALAIACgAPAAsAgQAAAMjIyAAAAAAAAAg0AAEIHCigYICDCAcSNIjwoEKBBQU0dPgw4sQADwFYnJhx"
    "Y8OODD9WDJlwpESOJi+CPNkwIAAh+QQBDAACACwIAAoADwALAIEAAADIyMgAAAAAAAAINAABCBwooGCAgwgHEjSI8KBC"
    "gQUFNHT4MOLEAA8BWJyYcWPDjgw/VgyZcKREjiYvgjzZMCAAIfkEAQwAAgAsDgAKAA8ACwCBAAAAyMjIAAAAAAAACDQA"
    "AQgcKKBggIMIBxI0iPCgQoEFBTR0+DDixAAPAVicmHFjw44MP1YMmXCkRI4mL4I82TAgADs="
)


class LabeledVideo(BaseModel):
    """One video and its label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    video: declare.VideoFile
    label: str = Field(min_length=1, max_length=100)


class TrainingHyperparameters(declare.ClassifierSettings):
    """Settings of training. The new head learns `head_factor` times as fast as the rest."""

    epochs: int = Field(default=8, ge=1, le=100)
    learning_rate: declare.LearningRate = 1e-3
    batch_size: int = Field(default=32, ge=1, le=256)
    head_factor: float = Field(default=1.0, ge=0.1, le=100)


TASK = declare.Task(
    interface=1,
    name="video-classification",
    title="Video classification",
    description="Assigns a short video one of the labels in its training data.",
    modality="video",
    family=declare.Family.VIDEO,
    inputs=(declare.Modality.VIDEO,),
    outputs=(declare.Modality.LABEL,),
    architectures=("VideoMAEForVideoClassification",),
    engine=declare.BATCH,
    runner="tasks.video_classification.runner:VideoClassifierRunner",
    unit=declare.Unit.MEGAPIXELS,
    input_schema=declare.OneVideo,
    option_schema=declare.LabelOptions,
    result_type=list[declare.Label],
    endpoints=(
        declare.label_endpoint("video-classification", "video", declare.OneVideo, noun="video"),
    ),
    sample={"inputs": SAMPLE_VIDEO, "parameters": {"top_k": 3}},
    playground=declare.Playground(body=None, path="/v1/tasks/video-classification/{model}"),
    row=LabeledVideo,
    row_input=itemgetter("video"),
    examples=(
        {"video": "0" * 64, "label": "left"},
        {"video": "1" * 64, "label": "right"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.video_classification.fine_tune:train",
            hyperparameters=TrainingHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=declare.label_requests("video", declare.OneVideo),
        score="tasks.video_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
        ),
        primary_metric="macro_f1",
        uses_training_rows=True,
    ),
)
