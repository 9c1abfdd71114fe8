"""Questions about colored garments with exact answers, and a small vision-language model.

The model is Assay's own demonstration: its vision tower comes from a trained CLIP; its projector
and its language model have random weights until the recipe of image-text-to-text trains them.
"""

from __future__ import annotations

import io
import json
import random
import string
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay_demo.data.garments import LABELS
from assay_demo.data.materials import Say
from assay_demo.data.tinted import (
    COLORS,
    SIDE,
    TintedGarment,
    name,
    trained_clip,
    with_article,
)

_ITEMS = [label.lower() for label in LABELS]
_IMAGE, _START, _END, _PAD = "<image>", "<s>", "</s>", "<pad>"
# Each turn starts with its role; an image token replaces each image.
_TEMPLATE = (
    "<s>{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
_SEED = 17
TOWER_STEPS = 250


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a photo."""

    png: bytes
    question: str
    answer: str


def garment_questions(photos: Sequence[TintedGarment], seed: int = _SEED) -> list[Question]:
    """Return one question about each photo: about its color, its garment, or both. Deterministic.

    The answer to "Is it …?" is as often yes as no.
    """
    draw = random.Random(seed)
    return [Question(photo.png, *_question(photo, draw)) for photo in photos]


def _question(photo: TintedGarment, draw: random.Random) -> tuple[str, str]:
    kind = draw.randrange(6)
    if kind == 0:
        return draw.choice(["What color is it?", "Which color does the garment have?"]), photo.color
    if kind == 1:
        return draw.choice(["What is this?", "Which garment is shown?"]), photo.item
    if kind == 2:
        guess = _same_or_other(photo.color, list(COLORS), draw)
        return f"Is it {guess}?", "yes" if guess == photo.color else "no"
    if kind == 3:
        guess = _same_or_other(photo.item, _ITEMS, draw)
        return f"Is this a photo of {with_article(guess)}?", "yes" if guess == photo.item else "no"
    if kind == 4:
        return "Describe the photo.", name(photo.color, photo.item)
    return f"Of which color is the {photo.item}?", photo.color


def _same_or_other(right: str, names: Sequence[str], draw: random.Random) -> str:
    return right if draw.random() < 0.5 else draw.choice([each for each in names if each != right])


def questions_folder(rows: Sequence[Question]) -> bytes:
    """Return a zip archive in the layout of Hugging Face's ImageFolder, with questions."""
    stream, lines = io.BytesIO(), []
    with zipfile.ZipFile(stream, "w") as archive:
        for number, row in enumerate(rows):
            file = f"images/{number:05}.png"
            archive.writestr(zipfile.ZipInfo(file), row.png)
            lines.append(
                json.dumps({"file_name": file, "question": row.question, "answer": row.answer})
            )
        archive.writestr(zipfile.ZipInfo("metadata.jsonl"), "\n".join(lines) + "\n")
    return stream.getvalue()


def small_llava(
    photos: Sequence[TintedGarment],
    folder: Path,
    say: Say = lambda line: None,
    *,
    steps: int = TOWER_STEPS,
) -> Path:
    """Write a small Llava whose vision tower is trained on the photos; return `folder`.

    A language model's loss alone does not train a tower in minutes, so it is first trained as part
    of a CLIP.

    Args:
        photos: Training data of the vision tower.
        folder: The folder to write; if the model exists, the function does nothing.
        say: Receives one line per step of the work.
        steps: Training steps of the vision tower.
    """
    if (folder / "config.json").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        clip = trained_clip(photos, Path(scratch), steps, say)
        return untrained_llava(clip, folder)


def untrained_llava(clip: Path, folder: Path) -> Path:
    """Write a small Llava with the vision tower of `clip` and random weights; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    tower = transformers.CLIPVisionModel.from_pretrained(clip, local_files_only=True)
    tokenizer = _tokenizer()
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=tower.config,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(_IMAGE),
            image_seq_length=(SIDE // tower.config.patch_size) ** 2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
        )
    )
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = (clip / "preprocessor_config.json").read_bytes()
    (folder / "preprocessor_config.json").write_bytes(processor)
    (folder / "README.md").write_text(
        "# Small Llava, untrained\n\n"
        "The vision tower of a CLIP trained by Assay; projector and language model have random\n"
        "weights (seed 17). Made for a demonstration on tinted Fashion-MNIST.\n"
    )
    return folder


def _tokenizer() -> Any:
    """Return a tokenizer with tokens for all bytes and for the words of questions and answers."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    corpus = [f"{role}: " for role in ("user", "assistant", "system")]
    draw = random.Random(_SEED)
    for color in COLORS:
        for item in _ITEMS:
            photo = TintedGarment(b"", color, item, "")
            corpus += [" ".join(_question(photo, draw)) for _ in range(20)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [*corpus, string.printable],
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=[_PAD, _START, _END, _IMAGE],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_START,
        eos_token=_END,
        pad_token=_PAD,
        chat_template=_TEMPLATE,
        model_max_length=256,
    )
