"""Train image and text towers: move an image close to its caption and away from others."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.data import Dataset

from assay.plugins import run
from tasks.zero_shot_image_classification import TASK
from tasks.zero_shot_image_classification.schema import ContrastiveHyperparameters
from tasks.zero_shot_image_classification.towers import Towers

MIN_ROWS = 16
MAX_VALIDATION_ROWS = 1_000
CHECKPOINT_STEPS = 50
TOP = 5
# Bound of CLIP's temperature, which keeps training stable (Radford et al. 2021).
_MAX_SCALE = math.log(100)
_CHUNK = 64


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train all weights with the loss of CLIP (Radford et al. 2021, arXiv:2103.00020), or of SigLIP
    (Zhai et al. 2023, arXiv:2303.15343). Equal captions in a batch all count as right answers.

    Raises:
        BadMaterial: rows, images, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(ContrastiveHyperparameters, request.hyperparameters)
    transformers.set_seed(settings.seed)
    rows = read_captioned(request.train_file, request.media)
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} images; at least {MIN_ROWS} are needed.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        towers = Towers(request.base, TASK.architectures, device=device, dtype=torch.float32)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    captions, tokens, cut = _tokens(towers, rows)
    limit = f"the first {towers.max_tokens} tokens of each caption"
    run.warn_of_cut(progress, cut, len(rows), limit)
    random.Random(settings.seed).shuffle(rows)
    size = min(max(2, round(len(rows) * settings.validation_fraction)), MAX_VALIDATION_ROWS)
    validation = _Pairs(rows[:size], captions, towers.processor)
    training = _Pairs(rows[size:], captions, towers.processor, mirror=settings.mirror)
    progress.log(
        f"{len(training)} images to train on and {len(validation)} to validate on, with "
        f"{len(captions)} different captions."
    )
    model = _Contrastive(towers, tokens)
    trainer = run.MonitoredTrainer(
        progress=progress,
        model=model,
        args=run.step_arguments(
            request,
            settings,
            save_steps=CHECKPOINT_STEPS,
            bf16=run.fast_bfloat16(),
            # These columns tell the Trainer that an example has a loss.
            label_names=["captions"],
        ),
        train_dataset=training,
        eval_dataset=validation,
        data_collator=_stacked,
    )

    def save(folder: Path) -> None:
        for part in (towers.model, towers.processor, towers.tokenizer):
            part.save_pretrained(folder)
        run.finish_config(folder)

    metrics, _ = run.run_trainer(trainer, None, request, progress, save=save)
    share = _top_share(model, validation)
    return run.TrainingResult(
        metrics={"validation_loss": metrics["eval_loss"], "validation_top_5": share},
        parameters={
            **settings.model_dump(),
            "rows": len(rows),
            "train_rows": len(training),
            "validation_rows": len(validation),
            "captions": len(captions),
            "parameters_trained": sum(each.numel() for each in towers.model.parameters()),
        },
        notes=(
            f"For {share:.1%} of the validation images, their own caption is among the {TOP} that "
            f"fit best, of {len(captions)}."
        ),
        rows_cut=cut,
    )


def read_captioned(path: Path, media: Path | None) -> list[dict[str, Any]]:
    """Return rows {"image", "text"}, the image as a path. Raises BadMaterial."""
    if media is None:
        raise run.BadMaterial("The dataset's media files are missing.")
    rows = run.read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("image", "text")),
        '{"image": "…", "text": "…"}',
    )
    return [{**row, "image": media / row["image"]} for row in rows]


def _tokens(
    towers: Towers, rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, int], list[list[int]], int]:
    """Return the number of each caption, the captions' tokens by number, and the number of rows
    with a cut caption."""
    captions = sorted({row["text"] for row in rows})
    if len(captions) < 2:
        raise run.BadMaterial("All images have the same caption; at least two are needed.")
    tokens, cut = run.read_captions(towers.tokenizer, towers.max_tokens, captions)
    numbers = {caption: number for number, caption in enumerate(captions)}
    return numbers, tokens, sum(row["text"] in cut for row in rows)


def _top_share(model: _Contrastive, validation: _Pairs) -> float:
    """Return the share of images whose own caption is among the `TOP` best. Only the best would be
    too strict: captions with equal meaning compete with each other."""
    model.eval()
    right = 0
    with torch.inference_mode():
        texts = model.towers.text_vectors(model.tokens)
        for at in range(0, len(validation), _CHUNK):
            part = [validation[n] for n in range(at, min(at + _CHUNK, len(validation)))]
            images = model.towers.image_vectors(torch.stack([each["pixels"] for each in part]))
            best = model.towers.logits(images, texts).topk(min(TOP, len(texts))).indices.tolist()
            right += sum(each["caption"] in top for each, top in zip(part, best, strict=True))
    return right / len(validation)


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    shapes = {tuple(each["pixels"].shape) for each in examples}
    if len(shapes) > 1:
        raise run.BadMaterial(
            "The base's processor makes images of different sizes; use one that crops or resizes "
            "to a fixed size."
        )
    return {
        "pixels": torch.stack([each["pixels"] for each in examples]),
        "captions": torch.tensor([each["caption"] for each in examples]),
    }


class _Pairs(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Processed images, each with the number of its caption."""

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        captions: dict[str, int],
        processor: Any,
        *,
        mirror: bool = False,
    ) -> None:
        self._images = run.kept_images([row["image"] for row in rows], processor)
        self._captions = [captions[row["text"]] for row in rows]
        self._mirror = mirror

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = self._images[index]
        if self._mirror and torch.rand(()) < 0.5:
            values = values.flip(-1)
        return {"pixels": values, "caption": self._captions[index]}


class _Contrastive(torch.nn.Module):  # type: ignore[misc]
    """The model and its loss on a batch; each distinct caption of the batch is encoded once."""

    def __init__(self, towers: Towers, tokens: list[list[int]]) -> None:
        super().__init__()
        self.model = towers.model
        self.towers, self.tokens = towers, tokens

    def forward(self, pixels: Tensor, captions: Tensor) -> dict[str, Tensor]:
        if not self.towers.sigmoid:
            self.model.logit_scale.data.clamp_(0, _MAX_SCALE)
        numbers, places = captions.unique(return_inverse=True)
        texts = self.towers.text_vectors([self.tokens[number] for number in numbers.tolist()])
        logits = self.towers.logits(self.towers.image_vectors(pixels), texts[places])
        same = captions[:, None] == captions[None]
        if self.towers.sigmoid:
            signs = same.float() * 2 - 1
            return {"loss": -logsigmoid(signs * logits).sum() / len(captions)}
        target = same.float() / same.sum(dim=1, keepdim=True)
        by_image = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
        by_text = -(target * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
        return {"loss": (by_image + by_text) / 2}
