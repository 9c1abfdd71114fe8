"""Chat, stream and embed with LangChain: URL and key in, the answers out as JSON."""

from __future__ import annotations

import json
import sys

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

URL, KEY = sys.argv[1:]
chat = ChatOpenAI(
    model="writer", base_url=f"{URL}/v1", api_key=KEY, temperature=0, max_tokens=6, max_retries=0
)
messages = [("system", "Answer briefly."), ("human", "Say hello.")]
whole = chat.invoke(messages)
chunks = list(chat.stream(messages, stream_usage=True))
# Otherwise the texts are sent as the tokens of a model of OpenAI.
embeddings = OpenAIEmbeddings(
    model="encoder",
    base_url=f"{URL}/v1",
    api_key=KEY,
    max_retries=0,
    check_embedding_ctx_length=False,
)
json.dump(
    {
        "whole": whole.content,
        "reason": whole.response_metadata["finish_reason"],
        "tokens": whole.usage_metadata["output_tokens"],
        "chunks": [each.content for each in chunks],
        "streamed_tokens": [
            each.usage_metadata["output_tokens"] for each in chunks if each.usage_metadata
        ],
        "dimensions": [len(each) for each in embeddings.embed_documents(["a", "b"])],
    },
    sys.stdout,
)
