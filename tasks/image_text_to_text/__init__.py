"""Image-text-to-text: answers to questions about images, token by token."""

from __future__ import annotations

from typing import Any

from assay.plugins import declare
from tasks.image_text_to_text.endpoints import VisionChatRequest, read_vision_chat
from tasks.image_text_to_text.hugging_face import VisualQuestionRequest, read_visual_question
from tasks.image_text_to_text.messages import VisionMessagesRequest, read_vision_messages
from tasks.image_text_to_text.schema import (
    ANSWER_TOKENS,
    ImageQuestion,
    VisionHyperparameters,
    question_inputs,
)

# A red shirt on black, 32 × 32 pixels, as PNG in base64.
SAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQMAAABJtOi3AAAABlBMVEXhLS0AAAATdu2+AAAATUlEQVR42pXOsRFE"
    "UAAG4c8/DNkpQSfXgo60phQlCAU37wlERyTZbHe2qYgb1kr9HIvCN4XNTp+dXzZKJpKR9jIGhnTMCdOj9wLN/9AJ"
    "060PFOZlfusAAAAASUVORK5CYII="
)
SAMPLE_QUESTION = "What color is it?"


def row_input(row: dict[str, Any]) -> str:
    """Return image and question: the same question about the same image is a leak."""
    return f"{row['image']} {row['question']}"


def evaluation_request(
    row: dict[str, Any],
) -> tuple[declare.GenerationInputs, declare.SamplingOptions]:
    """Return the request for a greedy answer to the row's question."""
    return (
        question_inputs(row["question"], row["image"]),
        declare.SamplingOptions(max_tokens=ANSWER_TOKENS, temperature=0.0),
    )


TASK = declare.Task(
    interface=1,
    name="image-text-to-text",
    title="Image and text to text",
    description="Answers questions about images in a conversation, token by token.",
    modality="image",
    family=declare.Family.MULTIMODAL,
    inputs=(declare.Modality.MESSAGES, declare.Modality.IMAGE),
    outputs=(declare.Modality.TEXT,),
    architectures=("LlavaForConditionalGeneration",),
    engine=declare.GENERATION,
    unit=declare.Unit.TOKENS,
    input_schema=declare.GenerationInputs,
    option_schema=declare.SamplingOptions,
    endpoints=(
        declare.Endpoint(
            "/v1/chat/completions",
            read_vision_chat,
            takes_media=True,
            request=VisionChatRequest,
            summary="OpenAI's shape with `image_url` parts: an answer about images.",
        ),
        declare.Endpoint(
            "/v1/messages",
            read_vision_messages,
            takes_media=True,
            request=VisionMessagesRequest,
            summary="Anthropic's shape with `image` blocks: an answer about images.",
        ),
        declare.Endpoint(
            "/v1/tasks/visual-question-answering",
            read_visual_question,
            named=True,
            takes_media=True,
            request=VisualQuestionRequest,
            summary="Hugging Face's shape: one image and a question; `[{answer, score}]`.",
        ),
    ),
    sample={
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/png;base64,{SAMPLE_IMAGE}"},
                    },
                    {"type": "text", "text": SAMPLE_QUESTION},
                ],
            }
        ],
        "max_tokens": 32,
    },
    playground=declare.Playground(
        body={"model": "$model", "messages": "$messages"},
        text=SAMPLE_QUESTION,
    ),
    row=ImageQuestion,
    row_input=row_input,
    examples=(
        {"image": "0" * 64, "question": "What color is it?", "answer": "red"},
        {"image": "1" * 64, "question": "Which garment is shown?", "answer": "sneaker"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.image_text_to_text.fine_tune:train",
            hyperparameters=VisionHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.image_text_to_text.score:score",
        metrics=(declare.Metric("accuracy", "Accuracy", proportion=True),),
        primary_metric="accuracy",
        uses_training_rows=True,
    ),
)
