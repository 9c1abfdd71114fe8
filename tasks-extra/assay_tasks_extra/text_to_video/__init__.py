"""Text to video: a short video from a prompt. This task only loads and serves: Assay has no weights
and no score for it."""

from __future__ import annotations

from operator import itemgetter

from assay.plugins import declare
from assay_tasks_extra.text_to_video.endpoints import TextToVideoRequest, read_text_to_video
from assay_tasks_extra.text_to_video.schema import CaptionedVideo, VideoInputs, VideoOptions

PROMPT = "a shirt that moves to the right"
_SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 4}

TASK = declare.Task(
    interface=1,
    name="text-to-video",
    title="Text to video",
    description="Makes a short video from a prompt: an animated WebP.",
    modality="text",
    family=declare.Family.VIDEO,
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.VIDEO,),
    architectures=("WanPipeline",),
    components=(
        "diffusers.AutoencoderKLWan",
        "diffusers.FlowMatchEulerDiscreteScheduler",
        "diffusers.UniPCMultistepScheduler",
        "diffusers.WanTransformer3DModel",
        "transformers.T5Tokenizer",
        "transformers.T5TokenizerFast",
        "transformers.UMT5EncoderModel",
    ),
    engine=declare.BATCH,
    runner="assay_tasks_extra.text_to_video.runner:TextToVideoRunner",
    unit=declare.Unit.MEGAPIXELS,
    input_schema=VideoInputs,
    option_schema=VideoOptions,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/text-to-video",
            read_text_to_video,
            named=True,
            request=TextToVideoRequest,
            summary="Hugging Face's shape: a prompt; the answer is an animated WebP.",
        ),
    ),
    sample={"inputs": PROMPT, "parameters": _SMALL},
    playground=declare.Playground(body={"inputs": "$text", "parameters": _SMALL}, text=PROMPT),
    row=CaptionedVideo,
    row_input=itemgetter("video"),
    examples=(
        {"video": "0" * 64, "text": PROMPT},
        {"video": "1" * 64, "text": "a bag that grows"},
    ),
)
