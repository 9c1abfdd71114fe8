"""A Wan pipeline of random weights that makes 32 × 32 pixels in a second. It shows nothing."""

from __future__ import annotations

import json
from pathlib import Path


def save_pipeline(folder: Path) -> Path:
    """Write the pipeline; its tokenizer knows the letters alone."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.T5TokenizerFast(
        vocab=[
            ("<pad>", 0.0),
            ("</s>", 0.0),
            ("<unk>", 0.0),
            ("▁", -2.0),
            *((letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"),
        ],
        extra_ids=0,
        model_max_length=16,
    )
    diffusers.WanPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.UMT5EncoderModel(
            transformers.UMT5Config(
                vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4
            )
        ),
        transformer=diffusers.WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=16,
            freq_dim=32,
            ffn_dim=16,
            num_layers=1,
            rope_max_seq_len=32,
        ),
        vae=diffusers.AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    # As published pipelines name it.
    index["tokenizer"] = ["transformers", "T5TokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
