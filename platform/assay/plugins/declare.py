"""Declarations of plug-ins: tasks with their endpoints, inputs, rows and settings.

It loads neither Django nor torch, since every process imports declarations. The meaning of names
does not change while `INTERFACE` keeps its value.
"""

from __future__ import annotations

# isort: off
# fmt: off
from registry.catalog.columns import AudioFile, ImageFile, VideoFile
from registry.catalog.conversations import Conversation
from registry.catalog.data_urls import decoded as decode_base64, read_image_text, read_image_url
from registry.catalog.declaration import (
    BATCH, GENERATION, INTERFACE, Evaluation, Family, Metric, Modality, Playground, Recipe, RowKind,
    Task, Unit,
)
from registry.catalog.endpoints import (
    Answer, Choice, Endpoint, MediaResult, Piece, Plan, Rendered, TokenScore, dumps,
)
from registry.catalog.features import (
    MAX_CATEGORIES, LARGEST as MAX_CELL_NUMBER, MAX_FEATURES, Value as CellValue, Feature,
    FeatureName, FeatureValue, Features, cell_value, kind_of as feature_kind, features_of,
)
from registry.catalog.file_endpoints import (
    LabelOptions, file_endpoint, label_endpoint, label_requests,
)
from registry.catalog.generation import (
    MAX_BIASES, MAX_CALLS, MAX_CHOICES, MAX_IMAGES, MAX_N, MAX_PARTS, MAX_PROMPTS, MAX_STOPS,
    MAX_TOKEN, MAX_TOKENS, MAX_TOOLS, MAX_TOP_LOGPROBS, ChatMessage, FunctionName, GenerationInputs,
    ImagePart, JsonObject, Part as MessagePart, SamplingOptions, StopText, TextPart, Tool, ToolCall,
    Variables,
)
from registry.catalog.grounding import DEFAULT_PASSAGES, MAX_PASSAGES, Grounding, Passage
from registry.catalog.inference import MediaRequest, content_types, read_file
from registry.catalog.inputs import (
    MAX_TEXTS, AudioInput, ImageInput, Inputs, MediaInput, NoOptions, OneImage, OneRecording,
    OneVideo, Options, TextInput, TextInputs, TextOptions, Truncate, VideoInput,
)
from registry.catalog.json_bounds import MAX_BYTES as MAX_JSON_BYTES
from registry.catalog.multipart import parse_form
from registry.catalog.passages import ContextPassages, Spans, check_passages
from registry.catalog.regions import IGNORED as IGNORED_PIXEL, Boxes, Categories, MaskFile
from registry.catalog.requests import (
    MAX_INPUTS, Body, Metadata, Name, RequestInvalid, Strict, Text, Texts, User, as_list,
    estimate_tokens, idle as idle_field, one_or_many, parse, printable, invalid as request_invalid,
)
from registry.catalog.results import Label
from registry.catalog.sequences import (
    SequenceInputs, SequenceOptions, SequenceParameters, SequenceRequest, SequenceText,
    read_sequence,
)
from registry.catalog.series import (
    FREQUENCY_WORDS, MAX_VALUES as MAX_SERIES_VALUES, MIN_VALUES as MIN_SERIES_VALUES, Frequency,
    Moment, Observation, Series, moment_after, season_of,
)
from registry.catalog.truncation import (
    CohereTruncate, TruncatedRequest, Truncation, cohere_side, cohere_warnings, cut_counts,
    pipeline_side,
)
from workers.hyperparameters import (
    ClassifierSettings, LearningRate, LoraSettings, SequenceSettings,
)
# fmt: on
# isort: on

__all__ = [
    "BATCH", "DEFAULT_PASSAGES", "FREQUENCY_WORDS", "GENERATION", "IGNORED_PIXEL", "INTERFACE",
    "MAX_BIASES", "MAX_CALLS", "MAX_CATEGORIES", "MAX_CELL_NUMBER", "MAX_CHOICES", "MAX_FEATURES",
    "MAX_IMAGES", "MAX_INPUTS", "MAX_JSON_BYTES", "MAX_N", "MAX_PARTS", "MAX_PASSAGES",
    "MAX_PROMPTS", "MAX_SERIES_VALUES", "MAX_STOPS", "MAX_TEXTS", "MAX_TOKEN", "MAX_TOKENS",
    "MAX_TOOLS", "MAX_TOP_LOGPROBS", "MIN_SERIES_VALUES", "Answer", "AudioFile", "AudioInput",
    "Body", "Boxes", "Categories", "CellValue", "ChatMessage", "Choice", "ClassifierSettings",
    "CohereTruncate", "ContextPassages", "Conversation", "Endpoint", "Evaluation", "Family",
    "Feature", "FeatureName", "FeatureValue", "Features", "Frequency", "FunctionName",
    "GenerationInputs", "Grounding", "ImageFile", "ImageInput", "ImagePart", "Inputs", "JsonObject",
    "Label", "LabelOptions", "LearningRate", "LoraSettings", "MaskFile", "MediaInput",
    "MediaRequest", "MediaResult", "MessagePart", "Metadata", "Metric", "Modality", "Moment",
    "Name", "NoOptions", "Observation", "OneImage", "OneRecording", "OneVideo", "Options",
    "Passage", "Piece", "Plan", "Playground", "Recipe", "Rendered", "RequestInvalid", "RowKind",
    "SamplingOptions", "SequenceInputs", "SequenceOptions", "SequenceParameters", "SequenceRequest",
    "SequenceSettings", "SequenceText", "Series", "Spans", "StopText", "Strict", "Task", "Text",
    "TextInput", "TextInputs", "TextOptions", "TextPart", "Texts", "TokenScore", "Tool", "ToolCall",
    "Truncate", "TruncatedRequest", "Truncation", "Unit", "User", "Variables", "VideoFile",
    "VideoInput", "as_list", "cell_value", "check_passages", "cohere_side", "cohere_warnings",
    "content_types", "cut_counts", "decode_base64", "dumps", "estimate_tokens", "feature_kind",
    "features_of", "file_endpoint", "idle_field", "label_endpoint", "label_requests",
    "moment_after", "one_or_many", "parse", "parse_form", "pipeline_side", "printable", "read_file",
    "read_image_text", "read_image_url", "read_sequence", "request_invalid", "season_of",
]  # fmt: skip
