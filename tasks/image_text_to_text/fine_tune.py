"""Train a vision-language model on questions about images; its vision tower stays frozen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from assay.plugins import run
from tasks.image_text_to_text import TASK
from tasks.image_text_to_text.schema import VisionHyperparameters, question_inputs

MIN_ROWS = 16
MAX_VALIDATION_ROWS = 500
CHECKPOINT_STEPS = 50


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train projector and language model on the answers (Liu et al. 2023, arXiv:2304.08485).

    Raises:
        BadMaterial: rows, images, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(VisionHyperparameters, request.hyperparameters)
    transformers.set_seed(settings.seed)
    rows = read_questions(request.train_file, request.media)
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} questions; at least {MIN_ROWS} are needed.")
    try:
        model = run.load_model(request.base, TASK.architectures, dtype=torch.float32)
        reader = run.ImageReader(request.base, model)
        processor = run.load_image_processor(request.base)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    tokenizer = run.load_tokenizer(request.base)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "vision_tower" not in name
    tokens = _tokens(tokenizer, reader, rows, settings.max_length)
    random.Random(settings.seed).shuffle(rows)
    size = min(max(1, round(len(rows) * settings.validation_fraction)), MAX_VALIDATION_ROWS)
    validation = _Questions(rows[:size], tokens, processor)
    training = _Questions(rows[size:], tokens, processor)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    progress.log(
        f"{len(training)} questions to train on and {len(validation)} to validate on; "
        f"{trained:,} of {model.num_parameters():,} parameters are trained."
    )
    trainer = _Trainer(
        progress=progress,
        model=model,
        args=run.step_arguments(
            request,
            settings,
            save_steps=CHECKPOINT_STEPS,
            bf16=run.fast_bfloat16(),
            # These columns tell the Trainer that an example has a loss.
            label_names=["labels"],
        ),
        train_dataset=training,
        eval_dataset=validation,
        data_collator=lambda examples: _collated(examples, tokenizer.pad_token_id),
    )

    def save(folder: Path) -> None:
        for part in (model, processor, tokenizer):
            part.save_pretrained(folder)
        run.finish_config(folder)

    metrics, notes = run.run_trainer(trainer, None, request, progress, save=save, compare=True)
    return run.TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_loss_before": metrics["before_loss"],
        },
        parameters={
            **settings.model_dump(),
            "rows": len(rows),
            "train_rows": len(training),
            "validation_rows": len(validation),
            "parameters_trained": trained,
        },
        notes=notes,
    )


def read_questions(path: Path, media: Path | None) -> list[dict[str, Any]]:
    """Return rows {"image", "question", "answer"}, the image as a path. Raises BadMaterial."""
    if media is None:
        raise run.BadMaterial("The dataset's media files are missing.")
    rows = run.read_rows(
        path,
        lambda row: all(
            isinstance(row.get(key), str) and row[key] for key in ("image", "question", "answer")
        ),
        '{"image": "…", "question": "…", "answer": "…"}',
    )
    return [{**row, "image": media / row["image"]} for row in rows]


class _Tokens:
    """Prompts by question and answers by text, each read once."""

    def __init__(self, prompts: dict[str, list[int]], answers: dict[str, list[int]]) -> None:
        self.prompts, self.answers = prompts, answers


def _tokens(
    tokenizer: Any, reader: run.ImageReader, rows: Sequence[dict[str, Any]], max_length: int
) -> _Tokens:
    processes = run.PromptProcesses(tokenizer)
    try:
        prompts = {
            question: reader.expand(processes.encode("row", question_inputs(question, image)), 1)
            for question, image in {row["question"]: row["image"] for row in rows}.items()
        }
        texts = list(dict.fromkeys(row["answer"] for row in rows))
        answers = [
            [*row, tokenizer.eos_token_id]
            for at in range(0, len(texts), 1_000)
            for row in processes.encode_texts(
                "answers", texts[at : at + 1_000], special_tokens=False
            )
        ]
    except run.RequestRefused as error:
        raise run.BadMaterial(f"A question cannot be tokenized. {error}") from error
    finally:
        processes.close()
    result = _Tokens(prompts, dict(zip(texts, answers, strict=True)))
    longest = max(
        len(result.prompts[row["question"]]) + len(result.answers[row["answer"]]) for row in rows
    )
    if longest > max_length:
        raise run.BadMaterial(
            f"The longest question with its image and answer has {longest} tokens, and max_length "
            f"is {max_length}. Raise it, or shorten the row."
        )
    return result


def _collated(examples: Sequence[dict[str, Any]], padding: int) -> dict[str, Tensor]:
    """Return a batch padded on the right; only the answers' tokens are labels."""
    shape = (len(examples), max(len(example["tokens"]) for example in examples))
    tokens = torch.full(shape, padding)
    labels = torch.full(shape, run.IGNORED_TOKEN)
    mask = torch.zeros(shape, dtype=torch.long)
    for number, example in enumerate(examples):
        length = len(example["tokens"])
        row_tokens = torch.tensor(example["tokens"])
        tokens[number, :length] = row_tokens
        labels[number, example["start"] : length] = row_tokens[example["start"] :]
        mask[number, :length] = 1
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "labels": labels,
        "pixel_values": torch.stack([example["pixels"] for example in examples]),
    }


class _Questions(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """One question about an image, with its answer."""

    def __init__(self, rows: Sequence[dict[str, Any]], tokens: _Tokens, processor: Any) -> None:
        self._rows, self._tokens = rows, tokens
        self._images = run.kept_images([row["image"] for row in rows], processor)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        prompt = self._tokens.prompts[row["question"]]
        return {
            "tokens": [*prompt, *self._tokens.answers[row["answer"]]],
            "start": len(prompt),
            "pixels": self._images[index],
        }


class _Trainer(run.MonitoredTrainer):
    """Loads checkpoints by the model's class.

    Vision-language models save their tensors under older names than their names in memory. The
    Trainer would find no tensor, warn, and continue with the weights of the base.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = type(self.model).from_pretrained(
            resume_from_checkpoint, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        self.model.load_state_dict(saved.state_dict())
