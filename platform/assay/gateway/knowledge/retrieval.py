"""Finding passages in a knowledge base, under the rights of whoever asks.

The question is embedded by a serving deployment of exactly the version that embedded the chunks: a
request of its own, with its policy decision, its quota and its usage record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from assay.gateway.access.admission import Admitted, Application
from assay.gateway.access.authentication import authenticate
from assay.gateway.access.decisions import (
    Circumstances,
    ModelUnknown,
    NotReady,
    Refused,
    require_ready,
)
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.knowledge_entries import KnowledgeEntry
from assay.gateway.access.prompts import NO_PROMPT, with_prompt
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.errors import EngineFailed
from assay.gateway.run.call import Call
from assay.gateway.run.execution import Execution
from assay.server.permits import holder_of
from governance.errors import DomainError, NotFound, NotPermitted, Unavailable, WrongState
from governance.keys.tokens import ParsedToken
from governance.permissions import Action
from governance.policy.context import CLASSIFICATIONS, base_context
from governance.policy.decisions import Authorization, Inputs
from governance.policy.engine import decide
from registry.catalog.endpoints import Answer, Plan
from registry.catalog.grounding import Passage
from registry.catalog.inputs import TextInputs
from registry.catalog.requests import RequestInvalid, estimate_tokens, printable
from registry.knowledge.index_format import Vectors
from registry.knowledge.services import EMBEDDINGS

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

_EMBEDDINGS_PATH = "/v1/embeddings"
_TOO_LONG = "context_length_exceeded"
# As many as one text of a request may have.
MAX_QUERY_CHARACTERS = 100_000


class KnowledgeUnknown(NotFound):
    """No such knowledge base, or not one that the key may know of."""

    code = "knowledge_base_not_found"


class NotIndexed(WrongState):
    """The knowledge base has no index yet (409)."""

    code = "knowledge_not_indexed"


class NotEmbedded(WrongState):
    """No deployment serves the version that embedded the documents, to this key (409)."""

    code = "embedding_not_served"


@dataclass(frozen=True, slots=True)
class Asker:
    """The credential of a request, and its circumstances."""

    token: ParsedToken
    session: bytes
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class Rights:
    """Classifications that may be searched, and the decision about the most sensitive of them."""

    classifications: frozenset[str]
    decision: Authorization | None

    def allowed(self, base: KnowledgeEntry) -> frozenset[int]:
        """The document versions in force that may be found."""
        documents = base.documents.values()
        return frozenset(e.id for e in documents if e.classification in self.classifications)


def visible_knowledge(snapshot: Snapshot, key: KeyEntry, address: str) -> list[KnowledgeEntry]:
    """The knowledge bases that `key` may see, by name."""
    return [
        entry
        for _, entry in sorted(snapshot.knowledge.items())
        if _decided(snapshot, key, Action.KNOWLEDGE_VIEW, entry, address).decision.allowed
    ]


def find_knowledge(snapshot: Snapshot, key: KeyEntry, name: str, address: str) -> KnowledgeEntry:
    """The knowledge base called `name`.

    Raises:
        KnowledgeUnknown: there is none that the key may know of.
        NotPermitted: the key's scopes leave it out.
    """
    entry = snapshot.knowledge.get(name)
    owner = replace(key, principal=replace(key.principal, scopes=None))
    if entry is None or not (
        _decided(snapshot, owner, Action.KNOWLEDGE_VIEW, entry, address).decision.allowed
    ):
        raise KnowledgeUnknown(
            f"The knowledge base `{printable(name)}` does not exist or you do not have access to "
            "it."
        )
    seen = _decided(snapshot, key, Action.KNOWLEDGE_VIEW, entry, address).decision
    if not seen.allowed:
        raise NotPermitted(seen.reason, code="policy_denied")
    return entry


def search_rights(snapshot: Snapshot, key: KeyEntry, base: KnowledgeEntry, address: str) -> Rights:
    """Return the rights of `key` to search `base`.

    Raises:
        NotPermitted: there are documents, and the policy lets it search none of them.
    """
    present = {each.classification for each in base.documents.values()}
    allowed: dict[str, Authorization] = {}
    refusal = ""
    for classification in sorted(present, key=CLASSIFICATIONS.index):
        resource = base.document_resource(classification)
        context = base_context(address)
        action = Action.KNOWLEDGE_SEARCH
        decision = decide(snapshot.policy, key.principal, action, resource, context)
        if decision.allowed:
            asked = Inputs(key.principal, action.value, resource, context)
            allowed[classification] = Authorization(decision, asked)
        else:
            refusal = decision.reason
    if present and not allowed:
        raise NotPermitted(refusal, code="policy_denied")
    return Rights(frozenset(allowed), list(allowed.values())[-1] if allowed else None)


def _decided(
    snapshot: Snapshot, key: KeyEntry, action: Action, entry: KnowledgeEntry, address: str
) -> Authorization:
    context = base_context(address)
    decision = decide(snapshot.policy, key.principal, action, entry.resource, context)
    return Authorization(decision, Inputs(key.principal, action.value, entry.resource, context))


async def retrieve(
    runtime: Runtime, call: Call, asker: Asker, name: str, query: str, most: int
) -> list[Passage]:
    """Return up to `most` passages of the knowledge base for the query, best first; notes on `call`
    what was searched.

    Raises:
        KnowledgeUnknown, NotPermitted: the base may not be known, or nothing in it searched.
        NotIndexed, NotEmbedded, NotReady, IndexRefused: it cannot be searched now.
        DomainError: as a request to the embedding deployment.
    """
    address = asker.circumstances.client_address
    snapshot = await runtime.refresher.knowing(asker.token.public_id)
    key = authenticate(snapshot, asker.token, address, asker.session)
    base = find_knowledge(snapshot, key, name, address)
    search_rights(snapshot, key, base, address)
    if base.manifest is None:
        raise NotIndexed(
            f"Knowledge base {base.name} has no index yet.",
            hint="Publish a document; the index is built by a job.",
        )
    vector = await _embed(runtime, call, asker, snapshot, base, query)
    # Meanwhile documents may have been recalled and rights have ended.
    snapshot = await runtime.refresher.knowing(asker.token.public_id)
    key = authenticate(snapshot, asker.token, address, asker.session)
    base = find_knowledge(snapshot, key, name, address)
    rights = search_rights(snapshot, key, base, address)
    call.knowledge_base, call.searched = base.name, rights.decision
    if base.manifest is None:
        raise NotIndexed(f"Knowledge base {base.name} has no index any more.")
    rows = await runtime.indexes.search(base.manifest, vector, rights.allowed(base), most)
    passages: list[Passage] = []
    for version, text_sha256, (start, end), text, score in rows:
        document = base.documents[version]
        if document.text_sha256 != text_sha256:
            continue  # The index was made of another text; it is not to be quoted as this one.
        place = f"/knowledge/{quote(base.name)}/documents/{version}?start={start}&end={end}#passage"
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
                url=place,
            )
        )
    return passages


def still_allowed(
    snapshot: Snapshot, asker: Asker, name: str, passages: Sequence[Passage]
) -> list[Passage]:
    """Return the passages that `asker` may be given under `snapshot`, numbered anew.

    A search takes seconds, in which a document may be recalled and a right may end.

    Raises:
        KeyRefused: the key is not valid any more.
        KnowledgeUnknown, NotPermitted: as `retrieve`.
    """
    address = asker.circumstances.client_address
    key = authenticate(snapshot, asker.token, address, asker.session)
    base = find_knowledge(snapshot, key, name, address)
    allowed = search_rights(snapshot, key, base, address).allowed(base)
    kept = [each for each in passages if each.version in allowed]
    return [replace(each, number=number) for number, each in enumerate(kept, 1)]


async def ground(
    runtime: Runtime, call: Call, plan: Plan, application: Application
) -> tuple[Plan, Application, Admitted]:
    """Return the plan with the passages that it asks for, and what admits it with them.

    The request counts as at least as sensitive as the most sensitive passage. Nothing may be
    awaited between this and its execution.

    Raises:
        DomainError: as `retrieve`, `still_allowed` and `Application.admit`.
    """
    grounding = plan.grounding
    if grounding is None:
        raise ValueError("the plan asks for no passages")
    circumstances = application.circumstances
    asker = Asker(application.token, application.session, circumstances)
    found = await retrieve(
        runtime, call, asker, grounding.knowledge_base, grounding.query, grounding.most
    )
    snapshot = await runtime.refresher.knowing(application.token.public_id)
    passages = still_allowed(snapshot, asker, grounding.knowledge_base, found)
    named = snapshot.deployments.get(application.model)
    own = NO_PROMPT if named is None else named.own_prompt
    plan = with_prompt(grounding.plan_with(passages, own.has_system), own)
    declared = [circumstances.classification, *(each.classification for each in passages)]
    sensitive = max(declared, key=CLASSIFICATIONS.index)
    if circumstances.kept_as and sensitive != circumstances.kept_as:
        raise NotPermitted(
            f"The passages are {sensitive}, and the file of the answer is {circumstances.kept_as}.",
            code="classification_too_low",
            hint=f"Upload the input of the batch with `Assay-Data-Classification: {sensitive}`.",
        )
    sources = frozenset(each.version for each in passages)
    application = replace(
        application,
        circumstances=replace(circumstances, tokens=plan.tokens, classification=sensitive),
        sources=sources,
    )
    call.policy = snapshot.policy.version
    admitted = application.admit(snapshot)
    require_ready(admitted.deployment)
    call.sources = tuple(sorted(sources))
    return plan, application, admitted


class _Vector:
    """Takes the vector out of the answer."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def whole(self, answer: Answer) -> dict[str, Any]:
        self.results = answer.results
        return {}


async def _embed(
    runtime: Runtime, call: Call, asker: Asker, snapshot: Snapshot, base: KnowledgeEntry, query: str
) -> Vectors:
    if len(query) > MAX_QUERY_CHARACTERS:
        raise RequestInvalid(
            f"The question has {len(query):,} characters; at most {MAX_QUERY_CHARACTERS:,} are "
            "searched for. Shorten it.",
            code=_TOO_LONG,
        )
    tokens = estimate_tokens([query])
    circumstances = replace(asker.circumstances, tokens=tokens)
    renderer = _Vector()
    inputs = TextInputs(input=[query])
    try:
        application, admitted = _embedder(snapshot, asker, circumstances, base)
    except NotReady:
        await _ask_for_embedder(runtime, snapshot, base)
        raise
    plan = Plan(
        model=application.model,
        inputs=inputs,
        renderer=renderer,
        tokens=tokens,
        prompt_tokens=tokens,
    )
    part = Call(
        endpoint=_EMBEDDINGS_PATH,
        client_address=call.client_address,
        key=admitted.key,
        asked_for=application.model,
        deployment=admitted.deployment,
        decision=admitted.decision,
        context=admitted.context,
        policy=snapshot.policy.version,
        part_of=call.request_id,
    )
    if runtime.ledger.blocked:
        raise Unavailable("Usage cannot be recorded, so requests are refused.", retry_after=2)
    media = runtime.media.answering(admitted.key.owner, holder_of(admitted.key.principal))
    try:
        await Execution(runtime, part, plan, application, admitted, media).run(_hear_nothing, _send)
    except EngineFailed as error:
        if error.code != _TOO_LONG:
            raise
        raise RequestInvalid(
            f"The question is longer than {base.embedding_name}, which embeds {base.name}, reads. "
            f"{error.message}",
            code=_TOO_LONG,
        ) from error
    vector = np.array(renderer.results[0] if renderer.results else [], dtype=np.float32)
    length = float(np.linalg.norm(vector))
    if vector.ndim != 1 or not np.isfinite(length) or length == 0.0:
        raise Unavailable(f"Deployment {application.model} returned no usable vector.")
    unit: Vectors = vector / np.float32(length)
    return unit


def _embedder(
    snapshot: Snapshot, asker: Asker, circumstances: Circumstances, base: KnowledgeEntry
) -> tuple[Application, Admitted]:
    """A deployment of the version that embedded the documents, which may answer now.

    Raises:
        NotEmbedded: none serves that version to this key.
        Refused, NotReady, NotConfirmed: those that do may not or cannot.
    """
    refusal: DomainError | None = None
    for name, entry in sorted(snapshot.deployments.items()):
        if entry.task != EMBEDDINGS or entry.digest != base.embedding_digest:
            continue
        application = Application(asker.token, circumstances, name, asker.session, named=False)
        try:
            admitted = application.admit(snapshot)
            require_ready(admitted.deployment)
        except ModelUnknown:
            continue
        except (Refused, Unavailable) as error:
            # One that comes up soon says more than one that may never be used.
            refusal = error if refusal is None or isinstance(error, NotReady) else refusal
            continue
        return application, admitted
    raise refusal or NotEmbedded(
        f"No deployment that you may use serves {base.embedding_name}, which embeds {base.name}.",
        hint="Release and deploy that version, with your department among those that may use it.",
    )


async def _ask_for_embedder(runtime: Runtime, snapshot: Snapshot, base: KnowledgeEntry) -> None:
    """Have a deployment that embeds for the base loaded, if it is scaled to zero."""
    for entry in snapshot.deployments.values():
        embeds = entry.task == EMBEDDINGS and entry.digest == base.embedding_digest
        if embeds and entry.may_sleep:
            await runtime.cold_starts.ask(entry.id)


async def _hear_nothing() -> dict[str, Any]:
    """Receive no message: the client's connection is watched by the request itself."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


async def _send(message: Any) -> None:
    """Send nothing: the vector stays here."""
