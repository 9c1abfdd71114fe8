"""Rights to see and search knowledge bases, decided by the policy in the snapshot."""

from __future__ import annotations

from dataclasses import dataclass, replace

from assay.gateway.access.admission import Caller
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.knowledge_entries import KnowledgeEntry
from assay.gateway.access.snapshot import Snapshot
from governance.errors import NotFound, NotPermitted
from governance.permissions import Action
from governance.policy.context import CLASSIFICATIONS, base_context
from governance.policy.decisions import Authorization, Inputs
from governance.policy.engine import PolicyDecision, Resource, decide
from registry.catalog.requests import printable


class KnowledgeUnknown(NotFound):
    """The knowledge base does not exist, or the key may not know of it."""

    code = "knowledge_base_not_found"


@dataclass(frozen=True, slots=True)
class Rights:
    """Classifications that may be searched, and the decision about the most sensitive of them."""

    classifications: frozenset[str]
    decision: Authorization | None

    def allowed(self, base: KnowledgeEntry) -> frozenset[int]:
        """Return the document versions in force that may be searched."""
        documents = base.documents.values()
        return frozenset(e.id for e in documents if e.classification in self.classifications)


def visible_knowledge(snapshot: Snapshot, key: KeyEntry, address: str) -> list[KnowledgeEntry]:
    """Return the knowledge bases that `key` may see, by name."""
    return [
        entry
        for _, entry in sorted(snapshot.knowledge.items())
        if _sees(snapshot, key, entry, address).allowed
    ]


def find_knowledge(snapshot: Snapshot, key: KeyEntry, name: str, address: str) -> KnowledgeEntry:
    """Return the knowledge base called `name`.

    Raises:
        KnowledgeUnknown: it does not exist, or the key may not know of it.
        NotPermitted: the key's scopes exclude it.
    """
    entry = snapshot.knowledge.get(name)
    owner = replace(key, principal=replace(key.principal, scopes=None))
    if entry is None or not _sees(snapshot, owner, entry, address).allowed:
        raise KnowledgeUnknown(
            f"The knowledge base `{printable(name)}` does not exist or you do not have access to "
            "it."
        )
    decision = _sees(snapshot, key, entry, address)
    if not decision.allowed:
        raise NotPermitted(decision.reason, code="policy_denied")
    return entry


def searchable(snapshot: Snapshot, caller: Caller, name: str) -> tuple[KnowledgeEntry, Rights]:
    """Return the knowledge base called `name`, and the caller's rights to search it.

    Raises:
        KeyRefused: the key is no longer valid.
        KnowledgeUnknown: it does not exist, or the key may not know of it.
        NotPermitted: it has documents, but the key may not search any of them.
    """
    key, address = caller.authenticate(snapshot), caller.client_address
    base = find_knowledge(snapshot, key, name, address)
    present = {each.classification for each in base.documents.values()}
    allowed: dict[str, Authorization] = {}
    refusal = ""
    for classification in sorted(present, key=CLASSIFICATIONS.index):
        resource = base.document_resource(classification)
        authorization = _decided(snapshot, key, Action.KNOWLEDGE_SEARCH, resource, address)
        if authorization.decision.allowed:
            allowed[classification] = authorization
        else:
            refusal = authorization.decision.reason
    if present and not allowed:
        raise NotPermitted(refusal, code="policy_denied")
    return base, Rights(frozenset(allowed), list(allowed.values())[-1] if allowed else None)


def _sees(snapshot: Snapshot, key: KeyEntry, entry: KnowledgeEntry, address: str) -> PolicyDecision:
    return _decided(snapshot, key, Action.KNOWLEDGE_VIEW, entry.resource, address).decision


def _decided(
    snapshot: Snapshot, key: KeyEntry, action: Action, resource: Resource, address: str
) -> Authorization:
    context = base_context(address)
    decision = decide(snapshot.policy, key.principal, action, resource, context)
    return Authorization(decision, Inputs(key.principal, action.value, resource, context))
