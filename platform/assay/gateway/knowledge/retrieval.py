"""Search for passages in a knowledge base, with the rights of the caller.

A serving deployment of exactly the version that embedded the chunks embeds the question. That is a
request of its own, with its policy decision, quota and usage record.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import numpy as np

from assay.gateway.access.admission import Admitted, Caller, ModelRequest
from assay.gateway.access.call import Call
from assay.gateway.access.decisions import InvocationDenied, ModelUnknown, NotReady, require_ready
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.knowledge_entries import KnowledgeEntry
from assay.gateway.access.prompts import NO_PROMPT, add_prompt_tokens
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.errors import EngineFailed
from assay.gateway.knowledge.index_cache import IndexCache
from assay.gateway.knowledge.rights import searchable
from assay.gateway.run.cold_start import ColdStarts
from assay.gateway.run.execution import Execution
from assay.gateway.run.media import MediaDesk
from assay.gateway.run.parts import Parts
from assay.server.permits import holder_of
from governance.errors import DomainError, NotPermitted, Unavailable, WrongState
from governance.policy.context import CLASSIFICATIONS
from registry.catalog.endpoints import Answer, Plan
from registry.catalog.grounding import Grounding, Passage
from registry.catalog.inputs import TextInputs
from registry.catalog.requests import RequestInvalid, estimate_tokens
from registry.knowledge.index_format import Vectors
from registry.knowledge.services import EMBEDDINGS

_EMBEDDINGS_PATH = "/v1/embeddings"
_TOO_LONG = "context_length_exceeded"
# Same limit as for one text of an embedding request.
MAX_QUERY_CHARACTERS = 100_000


class NotIndexed(WrongState):
    """The knowledge base has no index yet (409)."""

    code = "knowledge_not_indexed"


class NotEmbedded(WrongState):
    """No deployment serves the version that embedded the documents to this key (409)."""

    code = "embedding_not_served"


@dataclass(frozen=True, slots=True)
class Grounded:
    """Passages that were found for a caller."""

    caller: Caller
    grounding: Grounding[Plan]
    passages: tuple[Passage, ...]

    def plan_for(self, snapshot: Snapshot, deployment: DeploymentEntry) -> Plan:
        """Return the plan with the passages for another deployment.

        Raises:
            DomainError: the caller may not read each of them any more.
        """
        base, rights = searchable(snapshot, self.caller, self.grounding.knowledge_base)
        if not {each.version for each in self.passages} <= rights.allowed(base):
            raise NotPermitted(
                f"You may not read each of the passages from {base.name} any more.",
                code="policy_denied",
                hint="Send the request again.",
            )
        return self.grounding.plan_with(self.passages, deployment.own_prompt.has_system)


class Retrieval:
    """Searches of knowledge bases for the callers of one gateway process."""

    def __init__(
        self, parts: Parts, media: MediaDesk, indexes: IndexCache, cold_starts: ColdStarts
    ) -> None:
        self._parts = parts
        self._media = media
        self._indexes = indexes
        self._cold_starts = cold_starts

    async def search(
        self, call: Call, caller: Caller, name: str, query: str, most: int
    ) -> tuple[list[Passage], Snapshot]:
        """Return up to `most` passages of the knowledge base for the query, best first, and the
        snapshot under which the caller may read them. Records the search on `call`.

        Raises:
            KnowledgeUnknown: the caller may not know of the base.
            NotPermitted: the caller may not search any of its documents.
            NotIndexed, NotEmbedded, NotReady, IndexRefused: it cannot be searched now.
            DomainError: the request to the embedding deployment failed.
        """
        refresher, public_id = self._parts.refresher, caller.token.public_id
        snapshot = await refresher.knowing(public_id)
        base, _ = searchable(snapshot, caller, name)
        if base.manifest is None:
            raise NotIndexed(
                f"Knowledge base {base.name} has no index yet.",
                hint="Publish a document; the index is built by a job.",
            )
        vector = await self._embed(call, caller, snapshot, base, query)
        # Meanwhile documents may have been recalled, and rights may have ended.
        base, rights = searchable(await refresher.knowing(public_id), caller, name)
        call.knowledge_base, call.searched = base.name, rights.decision
        if base.manifest is None:
            raise NotIndexed(f"Knowledge base {base.name} no longer has an index.")
        rows = await self._indexes.search(base.manifest, vector, rights.allowed(base), most)
        # The search takes seconds, so check again.
        snapshot = await refresher.knowing(public_id)
        current, rights = searchable(snapshot, caller, name)
        allowed = rights.allowed(current)
        passages: list[Passage] = []
        for version, text_sha256, (start, end), text, score in rows:
            document = base.documents[version]
            # Do not quote a passage from an index that was built from a different text.
            if version not in allowed or document.text_sha256 != text_sha256:
                continue
            place = f"/knowledge/{quote(base.name)}/documents/{version}?start={start}&end={end}"
            passages.append(
                Passage(
                    number=len(passages) + 1,
                    title=document.title,
                    filename=document.filename,
                    document=document.document,
                    version=version,
                    version_number=document.number,
                    sha256=document.sha256,
                    classification=document.classification,
                    start=start,
                    end=end,
                    text=text,
                    score=score,
                    url=f"{place}#passage",
                )
            )
        return passages, snapshot

    async def ground(
        self, call: Call, plan: Plan, model_request: ModelRequest, grounding: Grounding[Plan]
    ) -> tuple[Plan, ModelRequest, Admitted, Grounded]:
        """Return the plan with the passages of its grounding, the new admission of the request, and
        the passages, by which another target can answer.

        The request is at least as sensitive as the most sensitive passage. Do not await anything
        between this call and the execution.

        Raises:
            DomainError: as `search` and `ModelRequest.admit`.
        """
        caller, name = model_request.caller, grounding.knowledge_base
        passages, snapshot = await self.search(call, caller, name, grounding.query, grounding.most)
        deployment = model_request.entry(snapshot)
        own = NO_PROMPT if deployment is None else deployment.own_prompt
        plan = add_prompt_tokens(grounding.plan_with(passages, own.has_system), own)
        circumstances = caller.circumstances
        declared = [circumstances.classification, *(each.classification for each in passages)]
        sensitive = max(declared, key=CLASSIFICATIONS.index)
        if circumstances.answer_classification and sensitive != circumstances.answer_classification:
            raise NotPermitted(
                f"The passages are {sensitive}, and the file of the answer is "
                f"{circumstances.answer_classification}.",
                code="classification_too_low",
                hint="Upload the input of the batch with "
                f"`Assay-Data-Classification: {sensitive}`.",
            )
        sources = frozenset(each.version for each in passages)
        caller = caller.under(tokens=plan.tokens, classification=sensitive)
        model_request = replace(model_request, caller=caller, sources=sources)
        call.policy = snapshot.policy.version
        admitted = model_request.admit(snapshot)
        require_ready(admitted.deployment)
        call.sources = tuple(sorted(sources))
        return plan, model_request, admitted, Grounded(caller, grounding, tuple(passages))

    async def _embed(
        self, call: Call, caller: Caller, snapshot: Snapshot, base: KnowledgeEntry, query: str
    ) -> Vectors:
        if len(query) > MAX_QUERY_CHARACTERS:
            raise RequestInvalid(
                f"The question has {len(query):,} characters; the limit is "
                f"{MAX_QUERY_CHARACTERS:,}. Shorten it.",
                code=_TOO_LONG,
            )
        tokens = estimate_tokens([query])
        renderer = _Vector()
        try:
            model_request, admitted = _embedder(snapshot, caller.under(tokens=tokens), base)
        except NotReady:
            for entry in _embedders(snapshot, base):
                if entry.may_sleep:
                    await self._cold_starts.ask(entry.id)
            raise
        plan = Plan(
            model=model_request.model,
            inputs=TextInputs(input=[query]),
            renderer=renderer,
            tokens=tokens,
            prompt_tokens=tokens,
        )
        part = Call(
            endpoint=_EMBEDDINGS_PATH,
            client_address=call.client_address,
            requested_model=model_request.model,
            policy=snapshot.policy.version,
            part_of=call.request_id,
        )
        self._parts.ledger.require_open()
        media = self._media.answering(admitted.key.owner, holder_of(admitted.key.principal))
        execution = Execution(self._parts, part, plan, model_request, admitted, media)
        try:
            await execution.run(_hear_nothing, _send)
        except EngineFailed as error:
            if error.code != _TOO_LONG:
                raise
            raise RequestInvalid(
                f"The question is too long for {base.embedding_name}, which embeds {base.name}. "
                f"{error.message}",
                code=_TOO_LONG,
            ) from error
        vector = np.array(renderer.results[0] if renderer.results else [], dtype=np.float32)
        length = float(np.linalg.norm(vector))
        if vector.ndim != 1 or not np.isfinite(length) or length == 0.0:
            raise Unavailable(f"Deployment {model_request.model} returned no usable vector.")
        unit: Vectors = vector / np.float32(length)
        return unit


class _Vector:
    """Renderer that keeps the vector of the answer."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def whole(self, answer: Answer) -> dict[str, Any]:
        self.results = answer.results
        return {}


def _embedder(
    snapshot: Snapshot, caller: Caller, base: KnowledgeEntry
) -> tuple[ModelRequest, Admitted]:
    """Return a ready deployment of the version that embedded the documents.

    Raises:
        NotEmbedded: no deployment serves that version to this key.
        InvocationDenied, NotReady, NotConfirmed: deployments exist, but may not or cannot answer
        now.
    """
    refusal: DomainError | None = None
    for entry in _embedders(snapshot, base):
        model_request = ModelRequest(caller, entry.name, named=False)
        try:
            admitted = model_request.admit(snapshot)
            require_ready(admitted.deployment)
        except ModelUnknown:
            continue
        except (InvocationDenied, Unavailable) as error:
            # Prefer the error of a deployment that is starting over one that may never be used.
            refusal = error if refusal is None or isinstance(error, NotReady) else refusal
            continue
        return model_request, admitted
    raise refusal or NotEmbedded(
        f"No deployment that you may use serves {base.embedding_name}, which embeds {base.name}.",
        hint="Release and deploy that version for your department.",
    )


def _embedders(snapshot: Snapshot, base: KnowledgeEntry) -> list[DeploymentEntry]:
    """Return the deployments of the version that embedded the documents, by name."""
    return [
        entry
        for _, entry in sorted(snapshot.deployments.items())
        if entry.task == EMBEDDINGS and entry.digest == base.embedding_digest
    ]


async def _hear_nothing() -> dict[str, Any]:
    """Receive nothing: the request itself watches the client's connection."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


async def _send(message: Any) -> None:
    """Send nothing: the answer is used here."""
