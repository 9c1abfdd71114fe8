"""Knowledge bases: index, search and cite Python's FAQ, then recall one of its pages."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from openai import OpenAI

from assay_demo.clients import openai_client
from assay_demo.data.debian import fetch_debian
from assay_demo.data.faq_retrieval import Page, bm25, pages, recall_at_5, relevant
from assay_demo.families.showcase import Outcome
from assay_demo.families.steps import Base, delivered, made_by_prompt, release_and_deploy
from assay_demo.stage import Stage
from assay_demo.story.lives import BASE, ENCODER
from assay_demo.story.release import EMBEDDINGS, wait_serving
from assay_demo.story.use import INVOKE, new_key
from registry.knowledge.chunks import CHUNK_DEFAULT, OVERLAP_DEFAULT, chunk_spans

NAME, ASSISTANT = "python-faq", "faq-assistant"
# This page is recalled, so the measurement leaves it out.
RECALLED, QUESTION = "installed", "Why is Python installed on my machine?"
QUESTIONS = 60
INDEX_S = 300
# `./bench knowledge` measures 0.84 on all questions; minus three standard errors of sixty.
RECALL_MIN = 0.7
# An instruction alone does not make a model of this size cite; these examples do.
PROMPT: dict[str, Any] = {
    "template": "{{input}}\n\nAnswer in one sentence. Begin with the number of the passage in "
    "brackets.",
    "examples": [
        {
            "user": '<passage number="1">\nAnnual leave is 30 days a year.\n</passage>\n\n'
            '<passage number="2">\nThe canteen opens at noon.\n</passage>\n\n'
            "Question: How many days of leave do I have?",
            "assistant": "[1] You have 30 days of leave a year.",
        },
        {
            "user": '<passage number="1">\nThe office in Porto has 40 desks.\n</passage>\n\n'
            '<passage number="2">\nVisitors sign in at the desk.\n</passage>\n\n'
            "Question: How many desks are in Porto?",
            "assistant": "[1] The office in Porto has 40 desks.",
        },
    ],
    "decoding": {"temperature": 0.0, "max_tokens": 60, "stop": ["\n"]},
}


@dataclass(frozen=True, slots=True)
class KnowledgeShowcase:
    """A knowledge base, from uploading its documents to recalling one."""

    name: str = "knowledge-base"
    model: str = NAME
    after: tuple[str, ...] = ()

    def begin(self, stage: Stage) -> None:
        """Do nothing, because each job needs the result of the previous one."""

    def finish(self, stage: Stage, begun: None) -> Outcome:
        """Index, search, answer, recall and measure, continuing an earlier run."""
        started = time.monotonic()
        faq = pages(fetch_debian("python_faq"))
        _serve(stage)
        versions = _documents(stage, faq)
        client = openai_client(stage, _key(stage))
        if versions[RECALLED]["state"] != "recalled":
            _answer_and_recall(stage, client, versions[RECALLED])
        return _measured(stage, client, faq, started)


SHOWCASE = KnowledgeShowcase()


def _serve(stage: Stage) -> None:
    """Release the embedding version, and the base with a prompt that shows how to cite."""
    encoder = stage.facts[ENCODER] = delivered(stage, Base.of_chapter_1(ENCODER))
    release_and_deploy(
        stage,
        encoder,
        EMBEDDINGS,
        tier="minimal",
        purpose="Sentence embeddings for search within the departments.",
    )
    base = delivered(stage, Base.of_chapter_1(BASE))
    description = "Answers questions from passages, and cites them."
    release_and_deploy(
        stage,
        made_by_prompt(stage, ASSISTANT, base, PROMPT, description),
        ASSISTANT,
        tier="minimal",
        generates=True,
        purpose=f"{description} Engineers open the passage.",
    )
    for deployment in (EMBEDDINGS, ASSISTANT):
        wait_serving(stage, "enzo", deployment)


def _key(stage: Stage) -> str:
    scopes = [*INVOKE, "knowledge:search"]
    stage.prove("enzo")
    key: str = new_key(stage, "enzo", "engineering", "FAQ search", scopes=scopes)["key"]
    return key


def _documents(stage: Stage, faq: list[Page]) -> dict[str, dict[str, Any]]:
    """Return the document versions by page, when the index contains all that are in force."""
    enzo = stage["enzo"]
    if enzo.find("knowledge-bases", name=NAME) is None:
        enzo.post(
            "knowledge-bases",
            name=NAME,
            department="engineering",
            title="Python's FAQ",
            embedding_version=stage.facts[ENCODER]["id"],
        )
    folder = stage.folder / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    path = f"knowledge-bases/{NAME}/documents"
    uploaded = {version["filename"]: version for version in enzo.all(path)}
    documents: dict[str, dict[str, Any]] = {}
    for page in faq:
        file = folder / f"faq-{page.name}.md"
        file.write_text(page.text, encoding="utf-8")
        version = uploaded.get(file.name)
        if version is None:
            fields = {"classification": "public", "title": f"Python FAQ: {page.name}"}
            version = enzo.upload(path, fields=fields, files=[("file", file)])
        if version["state"] == "draft":
            version = enzo.post(f"documents/{version['id']}/publish")
        digest = hashlib.sha256(page.text.strip().encode()).hexdigest()
        stage.expect(version["text_sha256"] == digest, f"the text of {file.name} is as uploaded")
        documents[page.name] = version
    current = {version["id"] for version in documents.values() if version["state"] == "current"}

    def indexed() -> dict[str, Any] | None:
        index: dict[str, Any] | None = enzo.get(f"knowledge-bases/{NAME}")["index"]
        return index if index and current <= set(index["documents"]) else None

    index = stage.wait_for(f"{NAME} is indexed", indexed, timeout_s=INDEX_S)
    stage.expect(
        index["embedding_digest"] == stage.facts[ENCODER]["digest"],
        "the index was built with the trusted embedding version",
    )
    stage.say(
        f"{NAME}: {len(documents)} documents in {index['chunks']} passages, embedded by {ENCODER}. "
        f"The digest of the index starts with {index['digest'][:12]}."
    )
    return documents


def _answer_and_recall(stage: Stage, client: OpenAI, version: dict[str, Any]) -> None:
    """Answer from the page, recall it, and check that searches no longer find it."""
    stage.expect(_finds(client, version), f"a search finds {version['title']}")
    answer = client.chat.completions.create(
        model=ASSISTANT,
        messages=[{"role": "user", "content": QUESTION}],
        extra_body={"knowledge_base": NAME, "max_passages": 2},
    )
    message = answer.choices[0].message
    passages = (answer.model_extra or {})["knowledge"]["passages"]
    stage.expect(
        (version["id"], version["sha256"])
        in [(each["document_version_id"], each["sha256"]) for each in passages],
        f"{ASSISTANT} gets a passage of {version['title']}",
    )
    cited = (message.model_extra or {})["citations"]
    stage.expect(bool(cited), f"the answer cites a passage: {message.content}")
    stage.expect(all(each in passages for each in cited), "it cites only passages from its prompt")
    stage.say(
        f"{ASSISTANT} answers “{QUESTION}” with “{message.content}”; [{cited[0]['index']}] is "
        f"{cited[0]['document']} v{cited[0]['document_version']}, {cited[0]['sha256'][:12]}."
    )
    enzo = stage["enzo"]
    uses = stage.wait_for(
        "the answer is recorded with the document version",
        lambda: [
            each
            for each in enzo.all(f"documents/{version['id']}/answers")
            if each["deployment"] == ASSISTANT
        ],
    )
    stage.prove("enzo")
    enzo.post(f"documents/{version['id']}/recall", reason="It names sellers that have merged.")
    stage.wait_for(
        "the next search does not find it", lambda: not _finds(client, version), timeout_s=5
    )
    stage.say(
        f"Enzo recalls {version['title']}, which {len(uses)} answer used. The next search finds "
        "none of its passages."
    )


def _finds(client: OpenAI, version: dict[str, Any]) -> bool:
    results = client.vector_stores.search(NAME, query=QUESTION, max_num_results=10)
    return any(each.file_id == f"file-{version['id']}" for each in results.data)


def _measured(stage: Stage, client: OpenAI, faq: list[Page], started: float) -> Outcome:
    """Return recall@5 of the search, with BM25 on the same passages as the baseline."""
    passages: dict[tuple[str, int], int] = {}
    texts: list[str] = []
    queries: list[tuple[str, set[int]]] = []
    for page in faq:
        if page.name == RECALLED:
            continue
        text, first = page.text.strip(), len(texts)
        spans = chunk_spans(text, CHUNK_DEFAULT, OVERLAP_DEFAULT)
        for start, stop in spans:
            passages[f"faq-{page.name}.md", start] = len(texts)
            texts.append(text[start:stop])
        for question, place in page.places.items():
            if relevant_passages := {first + number for number in relevant(spans, place)}:
                queries.append((question, relevant_passages))
    queries.sort(key=lambda each: hashlib.sha256(each[0].encode()).digest())
    queries = queries[:QUESTIONS]
    dense, lexical = [], []
    ranked = bm25(texts, [question for question, _ in queries])
    for (question, relevant_passages), words in zip(queries, ranked, strict=True):
        results = client.vector_stores.search(NAME, query=question, max_num_results=5)
        order = [passages[each.filename, _start(each)] for each in results.data]
        dense.append(recall_at_5(order, relevant_passages))
        lexical.append(recall_at_5(words, relevant_passages))
    recall, baseline = (sum(each) / len(each) for each in (dense, lexical))
    stage.say(f"recall@5 of {len(queries)} questions: {recall:.3f}; BM25: {baseline:.3f}.")
    stage.expect(recall >= RECALL_MIN, f"recall@5 is at least {RECALL_MIN}")
    return Outcome(
        task=SHOWCASE.name,
        model=NAME,
        data="Python's FAQ",
        rows=len(queries),
        metric="recall@5",
        baseline_name="BM25",
        baseline=baseline,
        value=recall,
        gate=f">= {RECALL_MIN:g}",
        seconds=round(time.monotonic() - started),
        kind="real weights",
    )


def _start(result: Any) -> int:
    return int(result.attributes["start"])
