"""Tools for runners, recipes and scores of plug-ins: code that workers load, with torch if needed.

The meaning of names does not change while `declare.INTERFACE` keeps its value.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # isort: off
    # fmt: off
    from workers.engines.adapters import IGNORED as IGNORED_TOKEN
    from workers.engines.architectures import (
        TIMM, UnsupportedModel, architecture_of, is_timm, pipeline_parts, read_json,
    )
    from workers.engines.audio import UnreadableAudio, windows as audio_windows, read_audio
    from workers.engines.audio_features import AudioFeatures
    from workers.engines.images import (
        FORMATS as IMAGE_FORMATS, MAX_PIXELS as MAX_IMAGE_PIXELS, UnreadableImage,
        load_image_processor, pixels, read_image,
    )
    from workers.engines.label_adapters import LabelAdapters
    from workers.engines.loading import check_shards, checkpoint_dtype, load_model, load_tokenizer
    from workers.engines.onnx_session import load_session
    from workers.engines.prompts import (
        FILL_TOKENS, PromptCanceled, PromptProcesses, Reading as TextReading, Window as TextWindow,
        fill_tokens,
    )
    from workers.engines.protocol import RequestRefused
    from workers.engines.runner import (
        BaseRunner, BatchLimits, Item, MediaOutput, Prepared, Canceled as RequestCanceled, Runner,
    )
    from workers.engines.sequence_runner import SequenceRunner
    from workers.engines.text_runner import TextRunner, label_names, ranked_labels
    from workers.engines.videos import (
        UnreadableVideo, VideosBusy, frame_values, load_video_processor, read_clip,
    )
    from workers.engines.vision import ImageReader
    from workers.engines.window_runner import WindowRunner, owned_positions as owned_tokens
    from workers.trainers.adapter_training import load_adaptable, save_adapter, with_lora
    from workers.trainers.bases import check_length, load_base
    from workers.trainers.classification import SAMPLES as MAX_SAMPLES, Baseline, score_classifier
    from workers.trainers.classifier_training import Head, fit_classifier, split_by_label
    from workers.trainers.overlays import with_boxes as draw_boxes, with_mask as draw_mask
    from workers.trainers.evaluation import AskModel as AskJudge, Outcome, ScoreRequest
    from workers.trainers.head_training import HeadTrainer, load_with_head, saved_labels
    from workers.trainers.file_cache import kept_images, read_pixels
    from workers.trainers.lengths import read_captions, token_lengths, warn_of_cut
    from workers.trainers.rows import (
        distinct as distinct_rows, hold_out, parse_settings, read_rows, read_valid_rows,
    )
    from workers.trainers.media_classifier import MediaModel, stacked_pixels, train_media_classifier
    from workers.trainers.otsu import otsu_threshold
    from workers.trainers.protocol import (
        BadMaterial, Canceled, EvaluationResult, Progress, TrainingRequest, TrainingResult,
    )
    from workers.trainers.region_training import (
        RegionImages, examples_of, load_for_regions, train_on_regions,
    )
    from workers.trainers.sequence_training import fit_sequences
    from workers.trainers.slices import (
        MAX_LABELS as MAX_LABEL_SLICES, Part as Slice, by_label as slices_by_label, by_length as
        slices_by_length, thirds as slices_by_size, by_turns as slices_by_turns,
    )
    from workers.trainers.text_scores import (
        TextBaseline as SimpleTexts, chrf, chrf_interval, score_texts,
    )
    from workers.trainers.thumbnails import thumbnail
    from workers.trainers.tokenized import AnswerTrainer, PreferenceTrainer
    from workers.trainers.training import (
        MonitoredTrainer, epoch_arguments, fast_bfloat16, finish_config, run_trainer,
        step_arguments, step_count, arguments as training_arguments, world_size,
    )
    from workers.trainers.uncertainty import (
        RESAMPLES as INTERVAL_RESAMPLES, bootstrap, perplexity_interval,
    )
    # fmt: on
    # isort: on

__all__ = [
    "FILL_TOKENS", "IGNORED_TOKEN", "IMAGE_FORMATS", "INTERVAL_RESAMPLES",
    "MAX_IMAGE_PIXELS", "MAX_LABEL_SLICES", "MAX_SAMPLES", "TIMM", "AnswerTrainer", "AskJudge",
    "AudioFeatures", "BadMaterial", "BaseRunner", "Baseline", "BatchLimits", "Canceled",
    "EvaluationResult", "Head", "HeadTrainer", "ImageReader", "Item", "LabelAdapters", "MediaModel",
    "MediaOutput", "MonitoredTrainer", "Outcome", "PreferenceTrainer", "Prepared", "Progress",
    "PromptCanceled", "PromptProcesses", "RegionImages", "RequestCanceled", "RequestRefused",
    "Runner", "ScoreRequest", "SequenceRunner", "SimpleTexts", "Slice", "TextReading", "TextRunner",
    "TextWindow", "TrainingRequest", "TrainingResult", "UnreadableAudio", "UnreadableImage",
    "UnreadableVideo", "UnsupportedModel", "VideosBusy", "WindowRunner", "architecture_of",
    "audio_windows", "bootstrap", "check_length", "check_shards", "checkpoint_dtype", "chrf",
    "chrf_interval", "distinct_rows", "draw_boxes", "draw_mask", "epoch_arguments", "examples_of",
    "fast_bfloat16", "fill_tokens", "finish_config", "fit_classifier", "fit_sequences",
    "frame_values", "hold_out", "is_timm", "kept_images", "label_names", "load_adaptable",
    "load_base", "load_for_regions", "load_image_processor", "load_model", "load_session",
    "load_tokenizer", "load_video_processor", "load_with_head", "otsu_threshold", "owned_tokens",
    "parse_settings", "perplexity_interval", "pipeline_parts", "pixels", "ranked_labels",
    "read_audio", "read_captions", "read_clip", "read_image", "read_json", "read_pixels",
    "read_rows", "read_valid_rows", "run_trainer", "save_adapter", "saved_labels",
    "score_classifier", "score_texts", "slices_by_label", "slices_by_length", "slices_by_size",
    "slices_by_turns", "split_by_label", "stacked_pixels", "step_arguments", "step_count",
    "thumbnail", "token_lengths", "train_media_classifier", "train_on_regions",
    "training_arguments", "warn_of_cut", "with_lora", "world_size",
]  # fmt: skip


# A runner that only needs NumPy must not wait for torch or use memory for it. So each name is
# imported at its first use, from the module in the block above. Type checkers only read that block,
# and so detect names that do not exist.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _modules():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        module, inside = _modules()[name]
        value = globals()[name] = getattr(import_module(module), inside)
        return value


def __dir__() -> list[str]:
    return sorted(_modules())


@cache
def _modules() -> dict[str, tuple[str, str]]:
    """Return, by public name, its module and its name in that module."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        each.asname or each.name: (str(node.module), each.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    }
