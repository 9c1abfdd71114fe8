"""7. Use: call the models with API keys, through the official `openai` client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
from openai import OpenAI, PermissionDeniedError, RateLimitError
from rich.markup import escape

from assay_demo.client import RequestRejected
from assay_demo.clients import openai_client
from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRINGS, SENTIMENT
from assay_demo.story.release import EMBEDDINGS

INVOKE = ("deployment:invoke", "deployment:view")
FUNCTION = "def add(a, b):\n    return a + b"
REVIEWS = {
    "positive": "A warm and funny film with wonderful performances.",
    "negative": "A dull, lifeless mess that wastes its cast.",
}
PROMPT = "Write the one-line docstring of this Python function.\n\n```python\n" + FUNCTION + "\n```"


def new_key(
    stage: Stage,
    owner: str,
    department: str,
    name: str,
    *,
    scopes: Sequence[str] = INVOKE,
    **fields: Any,
) -> dict[str, Any]:
    """Create a key; only this answer contains the secret."""
    key: dict[str, Any] = stage[owner].post(
        "keys",
        department=department,
        name=name,
        scopes=scopes,
        expires_in_days=30,
        **fields,
    )
    return key


def give_key(stage: Stage) -> str:
    """Return Engineering's key, which the clients of the families use."""
    key: str = new_key(stage, "enzo", "engineering", "editor plugin")["key"]
    stage.facts["key"] = key
    return key


def run(stage: Stage) -> None:
    with stage.chapter("7. Use: call the models with API keys"):
        engineering = give_key(stage)
        media = new_key(stage, "mia", "media", "review triage")
        finance = new_key(stage, "fay", "finance", "spreadsheet add-in")
        stage.prove("ada")
        stage["ada"].post(
            "quotas", deployment=DOCSTRINGS, kind="requests_per_minute", limit=60, shadow=True
        )
        _chat(stage, openai_client(stage, engineering))
        _embeddings(stage, openai_client(stage, engineering))
        _classify(stage, media["key"])
        _policy_refuses(stage, finance["key"])
        _quota_refuses(stage)
        _revoked_key_is_dead(stage)


def _chat(stage: Stage, client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=DOCSTRINGS,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=40,
        temperature=0,
    )
    text = answer.choices[0].message.content or ""
    stage.expect(len(text.strip()) > 0, "a chat completion has text")
    spent = stage.require(answer.usage, "a chat completion reports its token usage")
    stage.say(
        f"{DOCSTRINGS} answers a chat request: {escape(repr(text.strip()))} "
        f"({spent.completion_tokens} tokens)."
    )
    stream = client.chat.completions.create(
        model=DOCSTRINGS,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=40,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces: list[str] = []
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
    stage.expect("".join(pieces) == text, "the streamed answer equals the complete one")
    stage.expect(usage is not None, "the stream ends with its token usage")
    stage.say(f"The same answer, streamed, arrives in {len(pieces)} chunks.")


def _embeddings(stage: Stage, client: OpenAI) -> None:
    vectors = client.embeddings.create(
        model=EMBEDDINGS,
        input=["a cat sits on the mat", "a kitten rests on a rug", "quarterly revenue rose"],
        encoding_format="float",
    ).data

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    near = cosine(vectors[0].embedding, vectors[1].embedding)
    far = cosine(vectors[0].embedding, vectors[2].embedding)
    stage.expect(near > far, "sentences about cats are more similar than cats and revenue")
    stage.say(
        f"{EMBEDDINGS} returns {len(vectors[0].embedding)} numbers per sentence. Similarity of "
        f"“cat” and “kitten”: {near:.2f}; of “cat” and “revenue”: {far:.2f}."
    )


def _classify(stage: Stage, key: str) -> None:
    response = httpx.post(
        f"{stage.stack.url}/v1/classify",
        headers={"authorization": f"Bearer {key}"},
        json={"model": SENTIMENT, "input": list(REVIEWS.values())},
        timeout=120,
    )
    stage.expect(response.status_code == 200, f"classify answers: {response.text[:200]}")
    for (label, text), result in zip(REVIEWS.items(), response.json()["data"], strict=True):
        stage.expect(result["label"] == label, f"“{text}” is classified as {label}")
        stage.say(
            f"{SENTIMENT} labels “{text}” as {result['label']} "
            f"(probability {result['scores'][0]['score']:.2f})."
        )


def _policy_refuses(stage: Stage, key: str) -> None:
    try:
        openai_client(stage, key).chat.completions.create(
            model=DOCSTRINGS, messages=[{"role": "user", "content": PROMPT}]
        )
    except PermissionDeniedError as error:
        body = error.body if isinstance(error.body, dict) else {}
        stage.refused(
            "The policy refuses finance's key",
            RequestRejected(error.status_code, {"detail": body.get("message", str(error))}),
        )
    else:
        stage.expect(False, "the policy refuses finance's key")


def _quota_refuses(stage: Stage) -> None:
    stage.prove("ada")
    key = new_key(stage, "ada", "engineering", "batch script", quotas={"requests_per_minute": 2})
    client = openai_client(stage, key["key"]).with_options(max_retries=0)
    for _ in range(2):
        client.embeddings.create(
            model=EMBEDDINGS, input="within the quota", encoding_format="float"
        )
    try:
        client.embeddings.create(model=EMBEDDINGS, input="one too many", encoding_format="float")
    except RateLimitError as error:
        body = error.body if isinstance(error.body, dict) else {}
        stage.refused(
            "A key that exceeds its quota is refused until the minute is over",
            RequestRejected(error.status_code, {"detail": body.get("message", str(error))}),
        )
    else:
        stage.expect(False, "the third request in a minute exceeds a quota of two")
    stage["enzo"].post(f"keys/{key['id']}/revoke")


def _revoked_key_is_dead(stage: Stage) -> None:
    key = new_key(stage, "enzo", "engineering", "leaked key")
    headers = {"authorization": f"Bearer {key['key']}"}
    alive = httpx.get(f"{stage.stack.url}/v1/models", headers=headers, timeout=30)
    stage.expect(alive.status_code == 200, "the key works before it is revoked")
    stage["enzo"].post(f"keys/{key['id']}/revoke")

    def dead() -> httpx.Response | None:
        response = httpx.get(f"{stage.stack.url}/v1/models", headers=headers, timeout=30)
        return response if response.status_code == 401 else None

    response = stage.wait_for("the revoked key is refused", dead, timeout_s=5)
    stage.refused(
        "A revoked key is refused",
        RequestRejected(401, {"detail": response.json()["error"]["message"]}),
    )
