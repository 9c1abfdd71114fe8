"""Rerank with Cohere's client, by both of its APIs: URL and key in, the answers out as JSON."""

from __future__ import annotations

import json
import sys

import cohere

URL, KEY = sys.argv[1:]
DOCUMENTS = ["Porto lies in Portugal.", "A list is sorted in place.", "Copy a list by list.copy()."]
QUERY = "How do I copy a list?"

older = cohere.Client(KEY, base_url=URL).rerank(
    model="ranker", query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=True
)
newer = cohere.ClientV2(KEY, base_url=URL).rerank(
    model="ranker", query=QUERY, documents=DOCUMENTS, top_n=2
)
try:
    cohere.ClientV2("as_none", base_url=URL).rerank(model="ranker", query=QUERY, documents=["a"])
except cohere.errors.UnauthorizedError as error:
    refused = error.status_code
json.dump(
    {
        "older": [[each.index, each.relevance_score] for each in older.results],
        "newer": [[each.index, each.relevance_score] for each in newer.results],
        "text": older.results[0].document.text,
        "tokens": newer.meta.tokens.input_tokens,
        "refused": refused,
    },
    sys.stdout,
)
