"""7. Use: applications with keys, through the official `openai` client; and who is refused."""

from __future__ import annotations

from typing import Any

import httpx
from openai import OpenAI, PermissionDeniedError, RateLimitError

from assay.demo.client import Refused
from assay.demo.stage import Stage
from assay.demo.story.adapt import DOCSTRINGS, SENTIMENT
from assay.demo.story.release import EMBEDDINGS

FUNCTION = "def add(a, b):\n    return a + b"
PROMPT = "Write the one-line docstring of this Python function.\n\n```python\n" + FUNCTION + "\n```"


def new_key(stage: Stage, owner: str, department: str, name: str, **fields: Any) -> dict[str, Any]:
    """A fresh key; the secret is in the answer, once."""
    key: dict[str, Any] = stage[owner].post(
        "keys",
        department=department,
        name=name,
        scopes=["deployment:invoke", "deployment:view"],
        expires_in_days=30,
        **fields,
    )
    return key


def _client(stage: Stage, key: str) -> OpenAI:
    return OpenAI(
        base_url=f"{stage.stack.url}/v1",
        api_key=key,
        timeout=120,
        max_retries=0,
        _strict_response_validation=True,
    )


def run(stage: Stage) -> None:
    with stage.chapter("7. Use: an application asks, and gets a governed answer"):
        engineering = new_key(stage, "enzo", "engineering", "editor plugin")
        clinical = new_key(stage, "clara", "clinical", "review triage")
        finance = new_key(stage, "fay", "finance", "spreadsheet add-in")
        stage.facts["key"] = engineering["key"]
        stage.prove("ada")
        stage["ada"].post(
            "quotas", deployment=DOCSTRINGS, kind="requests_per_minute", limit=60, shadow=True
        )
        _chat(stage, _client(stage, engineering["key"]))
        _embeddings(stage, _client(stage, engineering["key"]))
        _classify(stage, clinical["key"])
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
    spent = stage.found(answer.usage, "a chat completion says what it cost")
    stage.say(f"chat: {text.strip()!r} ({spent.completion_tokens} tokens)")
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
    stage.expect("".join(pieces) == text, "the stream says the same as the whole answer")
    stage.expect(usage is not None, "the stream ends with its usage")
    stage.say(f"the same, streamed in {len(pieces)} pieces")


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
    stage.expect(near > far, "cats are nearer to kittens than to revenue")
    stage.say(
        f"embeddings: {len(vectors[0].embedding)} numbers; cosine {near:.2f} against {far:.2f}"
    )


def _classify(stage: Stage, key: str) -> None:
    response = httpx.post(
        f"{stage.stack.url}/v1/classify",
        headers={"authorization": f"Bearer {key}"},
        json={"model": SENTIMENT, "input": ["This medicine changed my life, no side effects."]},
        timeout=120,
    )
    stage.expect(response.status_code == 200, f"classify answers: {response.text[:200]}")
    best = response.json()["data"][0]
    stage.say(f"classify: {best['label']} ({best['scores'][0]['score']:.2f})")


def _policy_refuses(stage: Stage, key: str) -> None:
    try:
        _client(stage, key).chat.completions.create(
            model=DOCSTRINGS, messages=[{"role": "user", "content": PROMPT}]
        )
    except PermissionDeniedError as error:
        body = error.body if isinstance(error.body, dict) else {}
        stage.refused(
            "Finance's key is refused by policy",
            Refused(error.status_code, {"detail": body.get("message", str(error))}),
        )
    else:
        stage.expect(False, "finance's key is refused by policy")


def _quota_refuses(stage: Stage) -> None:
    stage.prove("ada")
    key = new_key(stage, "ada", "engineering", "batch script", quotas={"requests_per_minute": 2})
    client = _client(stage, key["key"])
    for _ in range(2):
        client.embeddings.create(
            model=EMBEDDINGS, input="within the quota", encoding_format="float"
        )
    try:
        client.embeddings.create(model=EMBEDDINGS, input="one too many", encoding_format="float")
    except RateLimitError as error:
        body = error.body if isinstance(error.body, dict) else {}
        stage.refused(
            "A key over its quota waits",
            Refused(error.status_code, {"detail": body.get("message", str(error))}),
        )
    else:
        stage.expect(False, "the third request in a minute is over a quota of two")
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

    response = stage.wait_for("a revoked key is dead", dead, timeout_s=5)
    stage.refused(
        "A revoked key is dead",
        Refused(401, {"detail": response.json()["error"]["message"]}),
    )
