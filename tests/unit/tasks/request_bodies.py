"""Bodies that together give every field of every endpoint, with values that are not the usual."""

from __future__ import annotations

from typing import Any

Bodies = dict[tuple[str, str], list[dict[str, Any]]]

BOUNDARY = "edge"
FILE = "aGVsbG8="
IMAGE = "data:image/png;base64,aGVsbG8="
HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CACHED = {"type": "ephemeral", "ttl": "1h"}

# Parameters that chats and completions share.
SAMPLED = {
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["."],
    "seed": 4,
    "n": 2,
    "user": "ada",
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"7": 3},
}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
LIMITED = {name: value for name, value in SAMPLED.items() if name != "max_tokens"}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": SCHEMA, "description": "An A.", "strict": True},
}
FUNCTION = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": SCHEMA,
    "strict": True,
}
TOOL = {"type": "function", "function": FUNCTION}
CALLED = {
    "role": "assistant",
    "content": "Let me see.",
    "name": "Bo",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"a": "x"}'},
        }
    ],
}
ANSWERED = {"role": "tool", "content": "Sun", "tool_call_id": "call_1"}
NAMED = {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ada"}
GROUNDED = {"knowledge_base": "handbook", "max_passages": 2, "service_tier": "auto"}
CHATS = [
    {"model": "m", "messages": [NAMED], **SAMPLED, **STREAMED},
    {
        "model": "m",
        "messages": [NAMED, CALLED, ANSWERED, *HI],
        "prompt_variables": {"tone": "kind"},
        "max_completion_tokens": 9,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "service_tier": "auto",
        "safety_identifier": "ada",
        "prompt_cache_key": "ada",
    },
    {"model": "m", "messages": HI, "logprobs": True, "top_logprobs": 3, "response_format": FORMAT},
    {"model": "m", "messages": HI, "store": True, "metadata": {"a": "b"}},
    {"model": "m", "messages": HI, **GROUNDED},
]
SEEN = {
    "role": "user",
    "name": "Ada",
    "content": [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}},
    ],
}
SEEN_CHATS = [
    {"model": "m", "messages": [SEEN], **LIMITED, **STREAMED, "max_completion_tokens": 9},
    {"model": "m", "messages": [SEEN], "max_tokens": 9, "logprobs": True, "top_logprobs": 3},
    {
        "model": "m",
        "messages": [SEEN],
        "response_format": FORMAT,
        "service_tier": "auto",
        "safety_identifier": "ada",
        "prompt_cache_key": "ada",
    },
]
COMPLETIONS = [
    {"model": "m", "prompt": "Hi", **SAMPLED, **STREAMED, "echo": True, "logprobs": 2},
    {"model": "m", "prompt": ["Hi", "Ho"], "best_of": 3},
    {"model": "m", "prompt": "Hi", "suffix": "Ho"},
]
ITEMS = [
    {
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi"}],
        "type": "message",
        "id": "msg_1",
        "status": "completed",
    },
    {
        "type": "function_call",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"a": "x"}',
        "id": "fc_1",
        "status": "completed",
    },
    {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "Sun",
        "id": "fco_1",
        "status": "completed",
    },
]
READ = [
    {
        "model": "m",
        "input": ITEMS,
        "instructions": "Be kind.",
        "parallel_tool_calls": False,
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "weather"},
        "previous_response_id": "resp_1",
        "prompt": {"id": "m", "variables": {"tone": "kind"}},
    },
    {
        "model": "m",
        "input": "Hi",
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": "required",
    },
    {
        "model": "m",
        "input": "Hi",
        "text": {
            "format": {
                "type": "json_schema",
                "name": "a",
                "schema": SCHEMA,
                "description": "An A.",
                "strict": True,
            }
        },
    },
]
RESPONSES = [
    {
        **READ[0],
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "user": "ada",
        "metadata": {"a": "b"},
        "store": False,
        "prompt_cache_key": "ada",
        "safety_identifier": "ada",
        "service_tier": "auto",
    },
    *READ[1:],
]
TEXT = {"type": "text", "text": "Hi", "cache_control": CACHED}
RESULT = {
    "type": "tool_result",
    "tool_use_id": "toolu_1",
    "content": "Sun",
    "is_error": True,
    "cache_control": CACHED,
}
USE = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "weather",
    "input": {"a": "x"},
    "cache_control": CACHED,
}
COUNTED = [
    {
        "model": "m",
        "messages": [
            {"role": "user", "content": [TEXT]},
            {"role": "assistant", "content": [USE]},
            {"role": "user", "content": [RESULT]},
        ],
        "system": "Be kind.",
        "tools": [
            {
                "name": "weather",
                "input_schema": SCHEMA,
                "description": "Tells the weather.",
                "strict": True,
                "cache_control": CACHED,
            }
        ],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "cache_control": CACHED,
    },
    {
        "model": "m",
        "messages": HI,
        "thinking": {"type": "disabled"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
]
WRITTEN = {
    "max_tokens": 9,
    "stream": True,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop_sequences": ["."],
    "metadata": {"user_id": "ada"},
    "service_tier": "standard_only",
}
LOOKED_AT = {
    "role": "user",
    "content": [
        TEXT,
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": FILE},
            "cache_control": CACHED,
        },
    ],
}
VECTORS = {"encoding_format": "base64", "dimensions": 4, "user": "ada"}
CUT = {"truncate": True, "truncation_direction": "Left"}
BEST = [{"inputs": FILE, "parameters": {"top_k": 3}}]
WRITING = {
    "truncation": "only_first",
    "generate_parameters": {"max_new_tokens": 9, "num_beams": 2},
}
RANKED = [
    {
        "model": "m",
        "query": "q",
        "documents": ["a", {"text": "b"}],
        "top_n": 1,
        "return_documents": True,
        "truncate": "END",
        "user": "ada",
    }
]
MIXED = [
    {"model": "m", "input": [{"type": "image", "image": IMAGE}], **VECTORS},
    {"model": "m", "input": {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}}},
]
TEXTS_TOO = {"model": "m", "input": [{"type": "text", "text": "Hi"}]}
LABELS = {"candidate_labels": ["a", "b"], "hypothesis_template": "It is {}."}
DRAWN = {
    "negative_prompt": "rain",
    "height": 64,
    "width": 64,
    "num_inference_steps": 3,
    "guidance_scale": 2,
    "seed": 4,
}
FORMS = {
    "model": "m",
    "response_format": "verbose_json",
    "temperature": "0.5",
    "prompt": "Names: Ann",
    "user": "ada",
}
TASKS = "/v1/tasks"

BODIES: Bodies = {
    ("audio-classification", f"{TASKS}/audio-classification"): BEST,
    ("automatic-speech-recognition", "/v1/audio/transcriptions"): [
        {**FORMS, "language": "pt", "timestamp_granularities": "segment", "stream": "false"}
    ],
    ("automatic-speech-recognition", "/v1/audio/translations"): [FORMS],
    ("automatic-speech-recognition", f"{TASKS}/automatic-speech-recognition"): [
        {"inputs": FILE, "parameters": {"return_timestamps": True}}
    ],
    ("embeddings", "/v1/embeddings"): [
        {"model": "m", "input": "Hi", **VECTORS},
        {"model": "m", "input": [[7, 8], [9]], "tokenizer": "0" * 64, **VECTORS},
    ],
    ("embeddings", f"{TASKS}/feature-extraction"): [{"inputs": "Hi", "dimensions": 4, **CUT}],
    ("embeddings", f"{TASKS}/sentence-similarity"): [
        {"inputs": {"source_sentence": "Hi", "sentences": ["Ho"]}, "parameters": CUT}
    ],
    ("image-classification", f"{TASKS}/image-classification"): BEST,
    ("image-feature-extraction", "/v1/embeddings"): MIXED,
    ("image-feature-extraction", f"{TASKS}/image-feature-extraction"): [{"inputs": FILE}],
    ("image-segmentation", f"{TASKS}/image-segmentation"): [
        {"inputs": FILE, "parameters": {"threshold": 0.7}}
    ],
    ("image-text-to-text", "/v1/chat/completions"): SEEN_CHATS,
    ("image-text-to-text", "/v1/messages"): [
        {"model": "m", "messages": [LOOKED_AT], "system": "Be kind.", **WRITTEN},
        {**COUNTED[1], "max_tokens": 9, "cache_control": CACHED},
    ],
    ("image-text-to-text", f"{TASKS}/visual-question-answering"): [
        {"inputs": FILE, "question": "What?", "image": FILE}
    ],
    ("moderation", "/v1/moderations"): [{"model": "m", "input": [{"type": "text", "text": "Hi"}]}],
    ("object-detection", f"{TASKS}/object-detection"): [
        {"inputs": FILE, "parameters": {"threshold": 0.7}}
    ],
    ("question-answering", f"{TASKS}/question-answering"): [
        {
            "inputs": {"question": "Who?", "context": "Ada."},
            "parameters": {
                "top_k": 3,
                "max_answer_len": 4,
                "handle_impossible_answer": True,
                "align_to_words": False,
            },
        }
    ],
    ("rerank", "/v1/rerank"): RANKED,
    ("rerank", "/v2/rerank"): RANKED,
    ("summarization", f"{TASKS}/summarization"): [{"inputs": "Hi", "parameters": WRITING}],
    ("tabular-classification", f"{TASKS}/tabular-classification"): [
        {"table": {"a": [1]}, "parameters": {"top_k": 3}},
        {"inputs": {"data": {"a": [1]}}},
    ],
    ("text-classification", "/v1/classify"): [
        {"model": "m", "input": "Hi", "truncate": "START", "user": "ada"}
    ],
    ("text-classification", f"{TASKS}/text-classification"): [
        {"inputs": "Hi", "parameters": {"top_k": 3}, **CUT}
    ],
    ("text-completion", "/v1/completions"): COMPLETIONS,
    ("text-generation", "/v1/chat/completions"): CHATS,
    ("text-generation", "/v1/completions"): COMPLETIONS,
    ("text-generation", "/v1/responses"): RESPONSES,
    ("text-generation", "/v1/responses/input_tokens"): READ,
    ("text-generation", "/v1/messages"): [
        {**COUNTED[0], **WRITTEN},
        {**COUNTED[1], "max_tokens": 9},
    ],
    ("text-generation", "/v1/messages/count_tokens"): COUNTED,
    ("text-generation", f"{TASKS}/text-generation"): [
        {
            "inputs": "Hi",
            "stream": True,
            "parameters": {
                "max_new_tokens": 9,
                "temperature": 0.5,
                "top_p": 0.9,
                "seed": 4,
                "stop": ["."],
            },
        },
        {"inputs": "Hi", "parameters": {"do_sample": True}},
        {"inputs": "Hi", "parameters": {"do_sample": False, "seed": 4}},
    ],
    ("text-to-audio", f"{TASKS}/text-to-audio"): [
        {
            "inputs": "A minor",
            "parameters": {"temperature": 0.5, "top_p": 0.5, "seconds": 3, "seed": 4},
        },
        {
            "inputs": "A minor",
            "parameters": {"generation_parameters": {"temperature": 0.5, "top_p": 0.5}},
        },
    ],
    ("text-to-image", "/v1/images/generations"): [
        {
            "model": "m",
            "prompt": "A house",
            "n": 2,
            "size": "64x64",
            "response_format": "b64_json",
            "seed": 4,
            "user": "ada",
        }
    ],
    ("text-to-image", f"{TASKS}/text-to-image"): [{"inputs": "A house", "parameters": DRAWN}],
    ("text-to-speech", "/v1/audio/speech"): [
        {
            "model": "m",
            "input": "Hi",
            "voice": "ada",
            "response_format": "wav",
            "speed": 2,
            "stream_format": "audio",
            "instructions": "Whisper.",
        }
    ],
    ("text-to-speech", f"{TASKS}/text-to-speech"): [
        {"inputs": "Hi", "parameters": {"voice": "ada", "speed": 2}}
    ],
    ("text-to-video", f"{TASKS}/text-to-video"): [
        {
            "inputs": "A house",
            "parameters": {**DRAWN, "negative_prompt": ["rain"], "num_frames": 5},
        }
    ],
    ("time-series-forecasting", f"{TASKS}/time-series-forecasting"): [
        {
            "inputs": [
                {"target": [1, 2, 3], "start": "2026-01-01T00:00:00", "item_id": "a"},
            ],
            "parameters": {
                "prediction_length": 3,
                "quantile_levels": [0.3],
                "freq": "D",
                "truncate": "START",
            },
        }
    ],
    ("token-classification", f"{TASKS}/token-classification"): [
        {
            "inputs": "Ada",
            "parameters": {"aggregation_strategy": "max", "ignore_labels": ["CITY"]},
        }
    ],
    ("translation", f"{TASKS}/translation"): [{"inputs": "Hi", "parameters": WRITING}],
    ("video-classification", f"{TASKS}/video-classification"): BEST,
    ("voice-activity-detection", f"{TASKS}/voice-activity-detection"): [
        {
            "inputs": FILE,
            "parameters": {
                "threshold": 0.7,
                "min_speech_ms": 99,
                "min_silence_ms": 99,
                "speech_pad_ms": 99,
            },
        }
    ],
    ("zero-shot-classification", f"{TASKS}/zero-shot-classification"): [
        {
            "inputs": "Hi",
            "parameters": {**LABELS, "multi_label": True, "truncation": "only_first"},
        }
    ],
    ("zero-shot-image-classification", f"{TASKS}/zero-shot-image-classification"): [
        {"inputs": FILE, "parameters": LABELS}
    ],
    ("zero-shot-image-classification", "/v1/embeddings"): [*MIXED, TEXTS_TOO],
}
