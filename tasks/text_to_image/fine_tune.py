"""Train the denoiser of a latent diffusion pipeline on captioned images; freeze the other parts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.training_utils import EMAModel
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from assay.plugins import run
from tasks.text_to_image import TASK, DenoiserHyperparameters
from tasks.text_to_image.pipeline import (
    load_pipeline,
    load_prompt_tokenizer,
    native_size,
    padded,
    text_states,
)

MIN_ROWS = 16
MAX_VALIDATION_ROWS = 256
CHECKPOINT_STEPS = 100
AVERAGE = "average.safetensors"
_CHUNK = 64


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train the denoiser to remove noise (Ho et al. 2020, arXiv:2006.11239) in the latent space of
    the base, with the base's own kind of prediction; save the whole pipeline.

    Raises:
        BadMaterial: rows, images, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(DenoiserHyperparameters, request.hyperparameters)
    transformers.set_seed(settings.seed)
    rows = read_captioned(request.train_file, request.media)
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} images; at least {MIN_ROWS} are needed.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        pipe = load_pipeline(
            request.base, architectures=TASK.architectures, device=device, dtype=torch.float32
        )
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    examples, states, cut = _encoded(pipe, request.base, rows, progress)
    run.warn_of_cut(progress, cut, len(rows), "the beginning of each caption")
    train_set, validation_set = run.hold_out(
        examples, settings.validation_fraction, settings.seed, MAX_VALIDATION_ROWS
    )
    progress.log(
        f"{len(train_set)} images to train on and {len(validation_set)} to validate on, with "
        f"{len(states) - 1} different captions."
    )
    model = _Denoiser(pipe, states, settings.caption_dropout)
    trainer = run.MonitoredTrainer(
        progress=progress,
        model=model,
        args=run.step_arguments(
            request,
            settings,
            save_steps=CHECKPOINT_STEPS,
            per_device_eval_batch_size=64,
            # These columns tell the Trainer that an example has a loss.
            label_names=["latents"],
        ),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=_collated,
        callbacks=[_Average(model.unet, settings.ema_decay, request.resume_from)]
        if settings.ema_decay
        else [],
    )
    metrics, notes = run.run_trainer(
        trainer,
        None,
        request,
        progress,
        save=lambda folder: _save(pipe, request.base, folder),
        compare=True,
    )
    return run.TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_loss_before": metrics["before_loss"],
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_set),
            "validation_rows": len(validation_set),
            "captions": len(states) - 1,
            "rows": len(rows),
            "parameters_trained": sum(each.numel() for each in model.unet.parameters()),
        },
        notes=notes,
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


def pixels(path: Path, width: int, height: int) -> torch.Tensor:
    """Return an image [3, height, width] of numbers from -1 to 1, resized and center-cropped.

    Raises:
        BadMaterial: the file is not an image.
    """
    try:
        fitted = ImageOps.fit(run.read_image(path), (width, height), Image.Resampling.BICUBIC)
    except run.UnreadableImage as error:
        raise run.BadMaterial(f"The image {path.name[:12]}…: {error}") from error
    values = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return values.reshape(height, width, 3).permute(2, 0, 1).float() / 127.5 - 1


def _encoded(
    pipe: Any, base: Path, rows: Sequence[dict[str, Any]], progress: run.Progress
) -> tuple[list[dict[str, Any]], torch.Tensor, int]:
    """Return each image's latents with its caption's number, the captions' states (the last state
    is of the empty caption), and the number of rows with a cut caption."""
    captions = sorted({row["text"] for row in rows})
    number = {caption: index for index, caption in enumerate(captions)}
    states, cut = _caption_states(pipe, base, [*captions, ""])
    width, height = native_size(pipe)
    examples: list[dict[str, Any]] = []
    with torch.inference_mode():
        for start in range(0, len(rows), _CHUNK):
            if progress.should_stop():
                raise run.Canceled
            chunk = rows[start : start + _CHUNK]
            images = torch.stack([pixels(row["image"], width, height) for row in chunk])
            latents = pipe.vae.encode(images.to(pipe.vae.device)).latent_dist.mean
            latents = (latents * pipe.vae.config.scaling_factor).cpu()
            examples += [
                {"latents": each.clone(), "caption": number[row["text"]]}
                for each, row in zip(latents, chunk, strict=True)
            ]
    return examples, states.clone(), sum(row["text"] in cut for row in rows)


def _caption_states(pipe: Any, base: Path, captions: list[str]) -> tuple[torch.Tensor, set[str]]:
    """Return the state of each caption, and the captions that were cut."""
    tokenizer = load_prompt_tokenizer(base)
    length = min(
        int(tokenizer.model_max_length), int(pipe.text_encoder.config.max_position_embeddings)
    )
    tokens, cut = run.read_captions(tokenizer, length, captions)
    rows = [padded(row, length, tokenizer.pad_token_id) for row in tokens]
    with torch.no_grad():
        states = torch.cat(
            [
                text_states(pipe, torch.tensor(rows[at : at + _CHUNK])).cpu()
                for at in range(0, len(rows), _CHUNK)
            ]
        )
    return states, cut


def _collated(examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "latents": torch.stack([each["latents"] for each in examples]),
        "captions": torch.tensor([each["caption"] for each in examples]),
    }


def _save(pipe: Any, base: Path, output: Path) -> None:
    """Copy the base and replace its denoiser with the trained one."""
    shutil.copytree(base, output, dirs_exist_ok=True)
    shutil.rmtree(output / "unet")
    pipe.unet.register_to_config(_name_or_path="")
    pipe.unet.save_pretrained(output / "unet")


class _Denoiser(torch.nn.Module):  # type: ignore[misc]
    """The UNet and its loss: the distance between its prediction and the true noise, or velocity
    (Salimans and Ho 2022, arXiv:2202.00512)."""

    def __init__(self, pipe: Any, states: torch.Tensor, dropout: float) -> None:
        super().__init__()
        self.unet = pipe.unet
        self._noise = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
        self._kind = self._noise.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction"):
            raise run.BadMaterial(f"The base predicts {self._kind}, which cannot be trained here.")
        self._dropout = dropout
        self.register_buffer("_states", states, persistent=False)

    def forward(self, latents: torch.Tensor, captions: torch.Tensor) -> dict[str, torch.Tensor]:
        # The same noise at each validation makes losses comparable.
        generator = None if self.training else torch.Generator().manual_seed(0)
        kind = {"generator": generator, "device": "cpu"}
        noise = torch.randn(latents.shape, **kind).to(latents)
        steps = self._noise.config.num_train_timesteps
        at = torch.randint(0, steps, (len(latents),), **kind).to(latents.device)
        if self.training:
            dropped = torch.rand(len(captions)).to(captions.device) < self._dropout
            captions = captions.masked_fill(dropped, len(self._states) - 1)
        noisy = self._noise.add_noise(latents, noise, at)
        target = noise
        if self._kind == "v_prediction":
            target = self._noise.get_velocity(latents, noise, at)
        predicted = self.unet(noisy, at, encoder_hidden_states=self._states[captions]).sample
        return {"loss": torch.nn.functional.mse_loss(predicted.float(), target.float())}


class _Average(transformers.TrainerCallback):  # type: ignore[misc]
    """Maintains the moving average of the denoiser's weights, also in checkpoints, and replaces the
    last weights with it at the end."""

    def __init__(self, unet: Any, decay: float, resume_from: Path | None) -> None:
        self._unet = unet
        self._average = EMAModel(unet.parameters(), decay=decay, use_ema_warmup=False)
        if resume_from is not None:
            self._load(resume_from)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._average.step(self._unet.parameters())

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        tensors = {
            f"{number:05}": each.contiguous()
            for number, each in enumerate(self._average.shadow_params)
        }
        tensors["step"] = torch.tensor(self._average.optimization_step)
        save_file(tensors, folder / AVERAGE)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._average.copy_to(self._unet.parameters())

    def _load(self, folder: Path) -> None:
        tensors = load_file(folder / AVERAGE)
        self._average.optimization_step = int(tensors.pop("step"))
        device = self._average.shadow_params[0].device
        self._average.shadow_params = [tensors[name].to(device) for name in sorted(tensors)]
