"""The policy in force, and the authorization that every service calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import NotFound, NotPermitted
from governance.notify import notify
from governance.people.proof import require_proof
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.decisions import Authorization, Inputs, note_latest
from governance.policy.document import Document, document_from_yaml
from governance.policy.engine import (
    NO_POLICY,
    PolicySnapshot,
    Resource,
    decide,
    may_know_of,
)
from governance.policy.models import PolicyState, PolicyVersion
from governance.principals import Principal, PrincipalKind, background, service_principal

DEFAULT_POLICY = Path(__file__).with_name("default.yaml")
SNAPSHOT_CHANNEL = "assay:snapshot"


def policy_digest(rules: list[dict[str, Any]]) -> str:
    """Return the SHA-256 of the rules as canonical JSON, in hexadecimal."""
    text = json.dumps(rules, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=8)
def _snapshot(number: int, digest: str) -> PolicySnapshot:
    version = PolicyVersion.objects.get(number=number, digest=digest)
    return PolicySnapshot.from_rules(number, version.rules)


def active_policy() -> PolicySnapshot:
    """Return the rules in force, or `NO_POLICY`, which denies everything.

    This takes one small query, or none within `policy_read_once`. The process caches parsed rules
    by number and digest.
    """
    pinned: PolicySnapshot | None = getattr(connection, "assay_policy", None)
    if pinned is not None:
        return pinned
    rows = PolicyVersion.objects.filter(state=PolicyState.ACTIVE)
    active = rows.values_list("number", "digest").first()
    return NO_POLICY if active is None else _snapshot(*active)


@contextmanager
def policy_read_once() -> Iterator[None]:
    """Make all decisions in the block under the policy that is in force now.

    For requests that only read: it saves a query for each decision (a page makes dozens), and keeps
    a page from mixing two policies. Decide on changes outside, under the policy of that moment.
    """
    outer = getattr(connection, "assay_policy", None)
    connection.assay_policy = active_policy()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.assay_policy = outer  # type: ignore[attr-defined]


def authorize(
    *,
    actor: Principal,
    action: Action,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
) -> Authorization:
    """Return the decision that permits the action, or raise.

    `context` extends `governance.policy.context.base_context`.

    Raises:
        NotFound: the actor may not know that the resource exists.
        NotPermitted: the actor may see it but not do this. Both errors have an `.attempt`.
    """
    snapshot, context = active_policy(), with_base(context)
    decision = decide(snapshot, actor, action, resource, context)
    authorization = Authorization(decision, Inputs(actor, action.value, resource, context))
    if decision.allowed:
        note_latest(authorization)
        return authorization
    attempt = Attempt(
        actor=actor,
        action=action.value,
        subject=resource_subject(resource),
        department=resource.department or "",
        decision=authorization,
    )
    verb = action.value.partition(":")[2]
    named = bool(resource.id or resource.name)
    hides = named and verb == "view" and snapshot.version
    if hides or (snapshot.version and not may_know_of(snapshot, actor, action, resource, context)):
        # Do not name it: the answer to a guessed number would reveal the name.
        raise NotFound(
            f"There is no such {resource.type.replace('_', ' ') if named else 'department'}.",
            attempt=attempt,
        )
    raise NotPermitted(decision.reason, hint=_hint(snapshot), attempt=attempt)


def authorize_binding(
    *,
    actor: Principal,
    action: Action,
    resource: Resource,
    doing: str,
    context: Mapping[str, Any] | None = None,
) -> Authorization:
    """Authorize an action that binds others; `doing` names it, such as "recalling version 7".

    A person must have given a second factor within the last ten minutes. The platform's own
    processes and the identity provider need none; API keys never pass.

    Raises:
        NotFound, NotPermitted: as `authorize` and `require_proof`.
    """
    decision = authorize(actor=actor, action=action, resource=resource, context=context)
    if actor.kind is not PrincipalKind.SERVICE:
        attempt = Attempt(
            actor=actor,
            action=action.value,
            subject=resource_subject(resource),
            department=resource.department or "",
            decision=decision,
        )
        require_proof(actor, doing, attempt=attempt)
    return decision


def resource_subject(resource: Resource) -> Subject:
    """Return the resource as an audit subject. The subject's person is the owner of a session or
    personal token.
    """
    owner = resource.attributes.get("owner")
    personal = resource.type == "session" or (resource.type == "key" and not resource.department)
    return Subject(
        resource.type,
        resource.id,
        resource.name or resource.id,
        person=owner if personal and isinstance(owner, int) else None,
    )


def _hint(snapshot: PolicySnapshot) -> str:
    if snapshot.version == 0:
        return "An administrator installs the first policy with `manage.py bootstrap`."
    return "The policy and its rules are at /api/v1/policy; an administrator grants roles."


@cache
def _default_document() -> Document:
    return document_from_yaml(DEFAULT_POLICY.read_text(encoding="utf-8"))


def policy_bootstrap() -> PolicyVersion:
    """Install the default policy as version 1, in force, unless version 1 exists."""
    document = _default_document()
    with transaction.atomic():
        version, created = PolicyVersion.objects.get_or_create(
            number=1,
            defaults={
                "rules": document.rules,
                "tests": document.tests,
                "digest": policy_digest(document.rules),
                "note": document.note,
                "state": PolicyState.ACTIVE,
            },
        )
        if created:
            bootstrap = service_principal("bootstrap")
            with background("bootstrap", bootstrap):
                audit_record(
                    actor=bootstrap,
                    action="policy:activate",
                    subject=Subject("policy", "1", "policy 1"),
                    data={"digest": version.digest},
                    policy_version=1,
                )
            transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return version
