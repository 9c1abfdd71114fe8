"""Detectors and segmenters with random weights, and scenes of bright squares, for tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

LABELS = ("light", "red")
SIDE = 64


def _rtdetr_parts() -> dict[str, Any]:
    import transformers

    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return {
        "backbone_config": backbone,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 24, 32],
        "feat_strides": [8, 16, 32],
        "encoder_layers": 1,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "d_model": 32,
        "num_queries": 10,
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "num_denoising": 4,
        "hidden_expansion": 0.5,
        "freeze_backbone_batch_norms": False,
    }


def _detr_parts() -> dict[str, Any]:
    import transformers

    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    return {
        "backbone_config": backbone,
        "use_timm_backbone": False,
        "d_model": 32,
        "num_queries": 10,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }


def _config(architecture: str) -> Any:
    import transformers

    kinds = {
        "RTDetrForObjectDetection": ("RTDetrConfig", _rtdetr_parts),
        "RTDetrV2ForObjectDetection": ("RTDetrV2Config", _rtdetr_parts),
        "DetrForObjectDetection": ("DetrConfig", _detr_parts),
        "ConditionalDetrForObjectDetection": ("ConditionalDetrConfig", _detr_parts),
        "DeformableDetrForObjectDetection": (
            "DeformableDetrConfig",
            lambda: {**_detr_parts(), "num_feature_levels": 2, "decoder_layers": 2},
        ),
        "YolosForObjectDetection": (
            "YolosConfig",
            lambda: {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "image_size": [SIDE, SIDE],
                "patch_size": 16,
                "num_detection_tokens": 10,
            },
        ),
    }
    name, parts = kinds[architecture]
    names = dict(enumerate(LABELS))
    return getattr(transformers, name)(
        **parts(), id2label=names, label2id={label: number for number, label in names.items()}
    )


def processor_of(architecture: str) -> dict[str, Any]:
    family = architecture.removesuffix("ForObjectDetection")
    family = "RTDetr" if family == "RTDetrV2" else family
    return {
        "image_processor_type": f"{family}ImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "do_pad": False,
    }


def save_detector(architecture: str, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, architecture)(_config(architecture))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_of(architecture)))
    return folder


def save_scenes(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write scenes of one or two bright squares; return their rows."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(5)
    rows = []
    for _ in range(count):
        pixels = generator.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
        boxes: list[list[float]] = []
        labels = []
        for half in range(int(generator.integers(1, 3))):
            side = int(generator.integers(12, 26))
            x = half * 32 + int(generator.integers(0, 32 - side + 1))
            y = int(generator.integers(0, SIDE - side + 1))
            red = bool(generator.integers(2))
            pixels[y : y + side, x : x + side] = (230, 20, 20) if red else (230, 230, 230)
            boxes.append([float(x), float(y), float(side), float(side)])
            labels.append("red" if red else "light")
        path = folder / "scene.png"
        Image.fromarray(pixels).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(folder / digest)
        rows.append({"image": digest, "objects": {"bbox": boxes, "categories": labels}})
    return rows


def _segmenter_config(architecture: str) -> Any:
    import transformers

    names = dict(enumerate(["background", *LABELS]))
    numbers = {label: number for number, label in names.items()}
    match architecture:
        case "SegformerForSemanticSegmentation":
            return transformers.SegformerConfig(
                hidden_sizes=[16, 16, 32, 32],
                depths=[1, 1, 1, 1],
                num_attention_heads=[1, 1, 2, 2],
                sr_ratios=[4, 2, 1, 1],
                strides=[4, 2, 2, 1],
                mlp_ratios=[2, 2, 2, 2],
                decoder_hidden_size=32,
                classifier_dropout_prob=0.0,
                id2label=names,
                label2id=numbers,
            )
        case "BeitForSemanticSegmentation":
            return transformers.BeitConfig(
                hidden_size=32,
                num_hidden_layers=4,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=SIDE,
                patch_size=16,
                out_indices=[1, 2, 3, 4],
                use_relative_position_bias=True,
                id2label=names,
                label2id=numbers,
            )
        case "MobileNetV2ForSemanticSegmentation":
            return transformers.MobileNetV2Config(
                depth_multiplier=0.35, id2label=names, label2id=numbers
            )
        case _:
            backbone = transformers.SwinConfig(
                image_size=SIDE,
                embed_dim=8,
                depths=[1, 1, 1, 1],
                num_heads=[1, 1, 2, 2],
                window_size=4,
                out_features=["stage1", "stage2", "stage3", "stage4"],
            )
            decoder = transformers.DetrConfig(
                d_model=32,
                num_queries=6,
                encoder_layers=1,
                decoder_layers=1,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
            )
            return transformers.MaskFormerConfig(
                backbone_config=backbone,
                decoder_config=decoder,
                fpn_feature_size=32,
                mask_feature_size=32,
                id2label=names,
                label2id=numbers,
            )


def save_segmenter(architecture: str, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, architecture)(_segmenter_config(architecture))
    model.save_pretrained(folder)
    family = architecture.rpartition("For")[0]
    processor = {
        "image_processor_type": f"{family}ImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def save_masks(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write the same scenes with masks; return their rows."""
    import numpy as np
    from PIL import Image

    rows = []
    for row in save_scenes(folder, count):
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        objects = row["objects"]
        for box, label in zip(objects["bbox"], objects["categories"], strict=True):
            x, y, width, height = (int(side) for side in box)
            mask[y : y + height, x : x + width] = 1 + LABELS.index(label)
        path = folder / "mask.png"
        Image.fromarray(mask).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(folder / digest)
        rows.append({"image": row["image"], "mask": digest, "categories": ["background", *LABELS]})
    return rows
