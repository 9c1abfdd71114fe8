"""Chat and stream with LlamaIndex: URL and key in, the answers out as JSON."""

from __future__ import annotations

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL, KEY = sys.argv[1:]
model = OpenAILike(
    model="writer",
    api_base=f"{URL}/v1",
    api_key=KEY,
    is_chat_model=True,
    temperature=0,
    max_tokens=6,
    max_retries=0,
)
messages = [
    ChatMessage(role="system", content="Answer briefly."),
    ChatMessage(role="user", content="Say hello."),
]
whole = model.chat(messages)
chunks = [each.delta for each in model.stream_chat(messages)]
json.dump(
    {
        "whole": whole.message.content,
        "tokens": whole.additional_kwargs["completion_tokens"],
        "chunks": chunks,
    },
    sys.stdout,
)
