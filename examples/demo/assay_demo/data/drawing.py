"""Captioned photos of garments, and a small diffusion pipeline to train on them.

The pipeline is Assay's own demonstration: this module trains its image encoder in seconds, its text
encoder stays random, and its denoiser is untrained until the recipe of text-to-image trains it.
"""

from __future__ import annotations

import io
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from assay_demo.data.garments import LABELS, Garment
from assay_demo.data.materials import Say

SIDE = 32
PROMPT_TOKENS = 16
_START, _END = "<|startoftext|>", "<|endoftext|>"
_SEED = 17


def caption(label: str) -> str:
    """Return the caption of a photo."""
    name = label.lower()
    return f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}"


def build_pipeline(
    photos: list[Garment], target: Path, *, steps: int = 200, say: Say = lambda line: None
) -> Path:
    """Write a Stable Diffusion pipeline for images of 32 × 32 pixels to `target`.

    Args:
        photos: Training data of the image encoder; a few thousand are enough.
        target: A folder to create; if it exists, the function does nothing.
        steps: Training steps of the image encoder.
        say: Receives one line per step of the work.
    """
    import diffusers
    import torch
    import transformers

    if (target / "model_index.json").is_file():
        return target
    torch.manual_seed(_SEED)
    tokenizer = clip_tokenizer([caption(label) for label in LABELS], PROMPT_TOKENS)
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        prediction_type="v_prediction",
        steps_offset=1,
    )
    vae = _trained_vae(photos, steps, say)
    target.parent.mkdir(parents=True, exist_ok=True)
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    return target


def clip_tokenizer(captions: list[str], length: int) -> Any:
    """Return a CLIP tokenizer with tokens for all characters and for the words of the captions.

    Args:
        captions: Texts with the words.
        length: Context length of the model, in tokens.
    """
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True
    )
    learner.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=letters,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    model = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for token in (*letters, *(f"{letter}</w>" for letter in letters), _START, _END):
        vocabulary.setdefault(token, len(vocabulary))
    return transformers.CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in model["merges"]],
        model_max_length=length,
    )


def _trained_vae(photos: list[Garment], steps: int, say: Say) -> Any:
    """Return an autoencoder of the photos, its latents scaled to a deviation of 1."""
    import diffusers
    import torch
    from torch.nn import functional

    images = np.stack([_square(photo.png) for photo in photos])
    pixels = torch.from_numpy(images).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    draw = torch.Generator().manual_seed(_SEED)
    for step in range(steps):
        batch = pixels[torch.randint(len(pixels), (16,), generator=draw)]
        latents = vae.encode(batch).latent_dist
        decoded = vae.decode(latents.sample(generator=draw)).sample
        loss = (
            functional.mse_loss(decoded, batch)
            + 0.3 * functional.l1_loss(decoded, batch)
            + 1e-6 * latents.kl().mean()
        )
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            say(f"image encoder: step {step + 1} of {steps}, loss {loss.item():.4f}")
    vae.eval()
    with torch.no_grad():
        sample = vae.encode(pixels[:500]).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1 / sample.std()))
    return vae


def _square(png: bytes) -> np.ndarray:
    """Return a photo as numbers [32, 32] from 0 to 255, scaled like in the recipe."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
