"""An answer from a knowledge base falls back to a target that may have the same passages."""

from __future__ import annotations

import pytest

from registry.knowledge.models import DocumentVersion, KnowledgeBase
from tasks.text_generation.grounded import INSTRUCTION
from tests.unit.assay.gateway_support import Reply, Stage, stage
from tests.unit.assay.knowledge_stage import LEAVE, SCOPES, changed, embed
from tests.unit.assay.test_gateway_knowledge import QUESTION, cites, handbook, unshare
from tests.unit.assay.test_gateway_prompts import DOCUMENT, prompt_behind
from tests.unit.assay.test_gateway_routing import CHAT, failing, target
from workers.wire import Failed, InferenceRequest

__all__ = ["handbook", "stage"]

pytestmark = pytest.mark.sweep
BODY = {"model": "writer", "messages": QUESTION, "knowledge_base": "handbook"}


def test_the_fallback_gets_the_passages_in_its_own_prompt(
    stage: Stage, handbook: KnowledgeBase
) -> None:
    primary = stage.deployment(behavior=failing("engine_error", 500))
    prompt_behind(primary, {**DOCUMENT, "system": "You help.", "variables": []})
    spare = target(stage, primary, "fallback", cites)
    release = {"conditions": {"shadow_only": True}}
    target(stage, primary, "shadow", cites, weight=100, release=release)
    stage.notify()
    answer = stage.post(CHAT, stage.key(scopes=SCOPES), json=BODY)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-assay-release"] == str(spare.release_id)
    assert answer.json()["choices"][0]["message"]["content"] == "Thirty days [1]. Or not."
    _, failed, answered, copied = (each.requests for each in stage.responders)
    (first,) = failed[0].inputs["messages"]
    assert first["content"].startswith(f"{INSTRUCTION}\n\n<passage")
    system, message = answered[0].inputs["messages"]
    assert (system["role"], system["content"]) == ("system", INSTRUCTION)
    assert LEAVE in message["content"]
    assert copied == []
    sources = sorted(DocumentVersion.objects.values_list("pk", flat=True))
    (chat,) = (each for each in stage.entries(3) if each.endpoint == CHAT and each.outcome == "ok")
    assert sorted(chat.sources) == sources
    assert chat.decision["context"]["classification"] == "confidential"
    assert (chat.route["role"], chat.release) == ("fallback", spare.release_id)


def test_without_the_right_to_the_passages_no_fallback_gets_them(
    stage: Stage, handbook: KnowledgeBase
) -> None:
    def lose_the_right(request: InferenceRequest, reply: Reply) -> None:
        unshare(handbook)
        stage.notify()
        reply(Failed("engine_error", "It failed.", 500))

    handbook.departments.add(stage.department("finance"))
    changed(handbook)
    stage.deployment("theirs", task="embeddings", departments=("finance",), behavior=embed)
    primary = stage.deployment(departments=("finance",), behavior=lose_the_right)
    target(stage, primary, "fallback", cites, release={"departments": ("finance",)})
    answer = stage.post(CHAT, stage.key("finance", scopes=SCOPES), json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
    assert stage.responders[-1].requests == []
