"""Objects and people of the attacks: engineering's objects, marked so that a leak shows, and people
who try to get them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import generate_totp_secret
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from governance.audit.exports.models import AuditExport
from governance.audit.search.models import AuditFilter
from governance.audit.services import Subject, audit_record
from governance.credentials.models import Credential
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.keys.tokens import format_token, mint, secret_hmac
from governance.people.models import (
    AccessRequest,
    DirectoryGroup,
    GroupMapping,
    Person,
    RoleAssignment,
    RoleRequest,
)
from governance.people.recoveries.models import AccountRecovery
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.policy.lifecycle import draft_create, policy_propose
from governance.policy.models import PolicyVersion
from governance.principals import service_principal
from governance.quotas.models import QuotaLimit
from governance.reviews.absences.models import Absence
from governance.reviews.assignments.models import ReviewAssignment
from governance.reviews.models import Decision, Review
from governance.reviews.policies.lifecycle import review_policy_draft, review_policy_propose
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.shipping import shipped_text
from governance.reviews.threads.models import CommentDraft, ReviewThread
from governance.reviews.waivers.models import Waiver
from governance.usage.models import UsageRecord
from registry.datasets.models import Dataset
from registry.feedback.models import Feedback
from registry.incidents.models import Incident, IncidentNote, IncidentVersion
from registry.knowledge.models import Document, DocumentVersion, KnowledgeBase
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.uploads.models import Upload
from registry.versions.models import Model, ModelVersion
from tests.approvals import software_of
from tests.proofs import fresh_proof, signed_in
from tests.stored import stored_file
from tests.unit.assay import portal_data
from tests.unit.assay.portal_data import Company
from tests.unit.registry.hosted_world import described
from tests.unit.registry.objects import stored
from workers.deployments.models import ServingPeriod
from workers.jobs.models import Job, JobEvent
from workers.nodes.models import Node
from workers.schedules.models import Schedule

# Stands in engineering's texts, and must never be told to anybody else.
SECRET = "quicksilver-7f3a"

# Belongs to no department; only admins change it.
COMMON = frozenset({"catalog", "policy", "policy/versions", "retention", "review-policies"})

# Only ask, though by a body.
INQUIRIES = ("/api/v1/policy/explain", "/api/v1/policy/who-can")

# Addresses whose objects viewers may create too, for their own use or as comments.
OWN = (
    "/api/v1/audit/exports",
    "/api/v1/audit/filters",
    "/api/v1/releases/{release_id}/drafts",
    "/api/v1/releases/{release_id}/threads",
)
OWN_TABLES = frozenset(
    {
        "governance_auditexport",
        "governance_auditfilter",
        "governance_commentdraft",
        "governance_mention",
        "governance_reviewthread",
        "governance_threadcomment",
    }
)

# Attackers by their roles: members of finance, who attack engineering.
OUTSIDERS: Mapping[str, tuple[str, ...]] = {
    "a lead of finance": ("lead@finance",),
    "a developer of finance": ("developer@finance",),
    "a viewer of finance": ("viewer@finance",),
    "somebody without a role": (),
    "a key of finance with every scope": ("key@finance",),
}
INSIDERS: Mapping[str, tuple[str, ...]] = {
    "an admin": ("admin",),
    "an operator": ("operator",),
    "an auditor": ("auditor",),
    "a compliance reviewer": ("reviewer:compliance",),
    "a security reviewer": ("reviewer:security",),
    "a lead of engineering": ("lead@engineering",),
    "a developer of engineering": ("developer@engineering",),
    "a viewer of engineering": ("viewer@engineering",),
    "a key of engineering with every scope": ("key@engineering",),
}
EVERYBODY = {**OUTSIDERS, **INSIDERS}


def in_turn(number: int) -> tuple[str, ...]:
    """Return who sends the operation of this number: those who may do most, and one of the others,
    in turn.
    """
    most = ("an admin", "a lead of engineering")
    others = [name for name in EVERYBODY if name not in most]
    return (*most, others[number % len(others)])


def outsiders_in_turn(number: int) -> tuple[str, ...]:
    """Return the outsiders who send the operation of this number: the two who may do most in their
    own department, and one of the others.
    """
    most = ("a lead of finance", "a key of finance with every scope")
    others = [name for name in OUTSIDERS if name not in most]
    return (*most, others[number % len(others)])


def attacked_company() -> Company:
    """The story that the portal tells, with `SECRET` in what engineering wrote."""
    company = portal_data.tell_story()
    things, engineering = company.things, company.departments["engineering"]
    things["evaluation"] = company.second.evaluations.get()
    things["role"] = RoleAssignment.objects.get(person=company.enzo)
    things["limit"] = QuotaLimit.objects.create(
        department=engineering, kind="tokens_per_day", limit=1_000_000
    )
    Model.objects.create(
        name="theirs",
        department=company.departments["finance"],
        task="text-generation",
        created_by=company.fay,
    )
    things["policy"] = proposed_policy(company)
    things["review_policy"] = proposed_review_policy(company)
    things["role_request"] = RoleRequest.objects.create(
        person=company.devi, role="reviewer", specialty="privacy", requested_by=company.ada,
        expires_at=timezone.now() + timedelta(days=7),
    )  # fmt: skip
    things["recovery"] = AccountRecovery.objects.create(
        person=company.devi, purpose="password", reason=SECRET, requested_by=company.ada,
        expires_at=timezone.now() + timedelta(days=3), code_hmac=b"x" * 32, pepper_version=1,
    )  # fmt: skip
    things["access_request"] = AccessRequest.objects.create(person=company.devi, text=SECRET)
    things["session"] = open_session(company.enzo)
    secret = get_adapter().encrypt(generate_totp_secret())
    things["factor"] = Authenticator.objects.create(
        user=company.enzo, type=Authenticator.Type.TOTP, data={"secret": secret}
    )
    things["group"] = DirectoryGroup.objects.create(name=f"{SECRET} engineers")
    things["mapping"] = GroupMapping.objects.create(
        group=f"{SECRET} engineers", role="developer", department=engineering
    )
    things["token"], _ = access_token_create(person=company.enzo, name=SECRET)
    things["credential"] = Credential.objects.create(
        department=engineering, name=SECRET, kind="header", hosts=["api.example.com"],
        sealed=b"sealed", sealed_to="0" * 16, created_by=company.enzo,
    )  # fmt: skip
    asker = person_of(company, "an auditor")
    things["export"] = AuditExport.objects.create(
        person=asker, filters={"query": SECRET}, format="jsonl"
    )
    things["filter"] = AuditFilter.objects.create(
        person=asker, name=SECRET, parameters={"query": SECRET}
    )
    things["absence"] = Absence.objects.create(
        person=company.carla, deputy=company.milo, specialty="compliance", set_by=company.carla,
        starts_at=timezone.now(), ends_at=timezone.now() + timedelta(days=7),
    )  # fmt: skip
    own = {"department": engineering}
    Model.objects.filter(**own, shared=False).update(description=SECRET)
    Dataset.objects.filter(**own).update(description=SECRET, license=SECRET)
    dossier = {"notes": SECRET, "software": software_of("text-generation")}
    Release.objects.filter(**own).update(purpose=SECRET, dossier=dossier)
    Review.objects.filter(**own).update(subject_name=SECRET)
    ApiKey.objects.filter(**own).update(name=SECRET)
    Job.objects.filter(**own).update(title=SECRET, spec={"notes": SECRET})
    JobEvent.objects.update(message=SECRET)
    Decision.objects.create(
        review=company.review_open, submitter=company.review_open.opened_by, person=company.milo,
        verdict="comment", reason=SECRET, digest=company.review_open.digest,
        round=company.review_open.round,
    )  # fmt: skip
    things["waiver"] = Waiver.objects.create(
        review=company.review_open, item=company.review_open.checklist.get(code="gates"),
        digest=company.review_open.digest, round=company.review_open.round, reason=SECRET,
        expires_at=timezone.now() + timedelta(days=30), asked_by=company.devi,
    )  # fmt: skip
    on: dict[str, Any] = {"digest": company.review_open.digest, "round": company.review_open.round}
    things["thread"] = ReviewThread.objects.create(
        review=company.review_open, anchor_kind="item", anchor_key="oversight",
        opened_by=company.enzo, **on,
    )  # fmt: skip
    things["thread"].comments.create(person=company.enzo, text=SECRET, **on)
    things["assignment"] = ReviewAssignment.objects.create(
        review=company.review_open, person=company.milo, assigned_by=company.enzo
    )
    things["draft"] = CommentDraft.objects.create(
        review=company.review_open, person=person_of(company, "a compliance reviewer"),
        text=SECRET, anchor_kind="general", **on,
    )  # fmt: skip
    things["upload"] = Upload.objects.create(
        owner=person_of(company, "a developer of engineering"), department=engineering,
        kind="intake", filename=SECRET, size=2, expires_at=timezone.now() + timedelta(days=1),
    )  # fmt: skip
    things["feedback"] = Feedback.objects.create(
        request_id=f"req_{7:032x}", department=engineering, deployment="docstring-writer",
        endpoint="/v1/chat/completions", task="text-generation", release=company.live,
        version=company.first, version_name=SECRET, rating="down", comment=SECRET,
        input={"messages": [{"role": "user", "content": SECRET}]}, correction=SECRET,
        sender="app", answered_at=timezone.now(),
    )  # fmt: skip
    # The request that addresses name: the newest of engineering.
    UsageRecord(
        request_id=f"req_{8:032x}", occurred_at=timezone.now(), department="engineering",
        key_public_id=company.key.public_id, deployment="docstring-writer", outcome="ok",
        release=company.waiting.pk, endpoint="/v1/chat/completions",
    ).save()  # fmt: skip
    add_emergencies(company)
    add_knowledge(company)
    add_rows(company)
    things["release_draft"] = ReleaseDraft.objects.create(
        version=company.second, department=engineering, created_by=company.enzo,
        content={
            "environment": "production", "deployment_name": "docstring-writer",
            "departments": ["engineering"], "purpose": SECRET,
            "risk_answers": values(company)["risk_answers"], "tier": "high",
        },
    )  # fmt: skip
    things["schedule"] = Schedule.objects.create(
        name=SECRET, department=engineering, owner=company.enzo, kind="evaluate", title=SECRET,
        request={"version": company.second.pk, "dataset": "docstrings-test"}, cron="0 2 * * *",
        next_due_at=timezone.now() + timedelta(hours=8),
    )  # fmt: skip
    began = audit_record(
        actor=service_principal("engine-worker"),
        action="deployment:serve",
        subject=Subject("deployment", str(company.deployment.pk), SECRET),
    )
    ServingPeriod.objects.create(
        deployment=company.deployment,
        digest=company.first.digest,
        serving_from=began.occurred_at,
        began_event=began,
    )
    things["event"] = audit_record(
        actor=principal_for_person(company.enzo),
        action="release:submit",
        subject=Subject("release", str(company.waiting.pk), SECRET),
        department="engineering",
        reason=SECRET,
    )
    return company


def add_knowledge(company: Company) -> None:
    """A knowledge base of engineering's with a document in force."""
    engineering = company.departments["engineering"]
    embedder = Model.objects.create(
        name="embedder", department=engineering, task="embeddings", created_by=company.enzo
    )
    version = ModelVersion.objects.create(
        model=embedder, number=1, kind="base", digest=portal_data.sha("embedder"), manifest={},
        size_bytes=1, created_by=company.enzo,
    )  # fmt: skip
    base = KnowledgeBase.objects.create(
        name="handbook", department=engineering, title=SECRET, description=SECRET,
        embedding_version=version, embedding_name="embedder v1", embedding_digest=version.digest,
        chunk_characters=800, overlap_characters=120, created_by=company.enzo,
    )  # fmt: skip
    sha256 = portal_data.sha(SECRET)
    file = stored_file(sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(SECRET)
    company.things["embedding"] = version
    company.things["document"] = DocumentVersion.objects.create(
        document=Document.objects.create(base=base, title=SECRET, owner=company.enzo),
        number=1, filename=f"{SECRET}.txt", sha256=sha256, text_sha256=sha256,
        size_bytes=len(SECRET), characters=len(SECRET), classification="internal",
        state="current", created_by=company.enzo,
    )  # fmt: skip


def add_rows(company: Company) -> None:
    """A row of engineering's training data, in the store."""
    row = {"messages": [{"role": role, "content": SECRET} for role in ("user", "assistant")]}
    (file,) = stored({"rows.jsonl": json.dumps(row).encode() + b"\n"}).files
    company.train.digest, company.train.rows = file.sha256, 1
    company.train.save()


def add_emergencies(company: Company) -> None:
    """An incident of engineering's adapter, and emergency access that somebody asks for."""
    engineering = company.departments["engineering"]
    incident = Incident.objects.create(
        title=SECRET, happened=SECRET, severity="medium", aware_at=timezone.now(),
        department=engineering, reporter=company.enzo,
    )  # fmt: skip
    incident.departments.add(engineering)
    IncidentVersion.objects.create(incident=incident, version=company.first, added_by=company.enzo)
    IncidentNote.objects.create(incident=incident, kind="note", text=SECRET, person=company.enzo)
    company.things["incident"] = incident
    company.things["node"] = Node.objects.create(
        name="gpu-1", state="enrolled", public_key="ab" * 32, created_by=company.ada
    )
    company.things["emergency_access"] = EmergencyAccess.objects.create(
        release=company.waiting, department=engineering, reason=SECRET, hours=2,
        dossier_digest=company.waiting.dossier_digest, excluded_people=[company.enzo.pk],
        asked_by=company.enzo, asked_at=timezone.now(),
    )  # fmt: skip


def proposed_policy(company: Company) -> PolicyVersion:
    """A policy that Ada drafted and proposed, and that a second admin may decide on."""
    deputy = Person.objects.create(name="Adam Deputy", email="adam@assay.example")
    RoleAssignment.objects.create(person=deputy, role="admin")
    company.people["adam"] = deputy
    ada = principal_for_person(company.ada)
    rules = PolicyVersion.objects.get(number=1).rules
    draft = draft_create(actor=ada, rules=rules, note="The same again.")
    return policy_propose(actor=ada, number=draft.number)


def proposed_review_policy(company: Company) -> ReviewPolicy:
    """A version of `limited` that Ada drafted and proposed."""
    ada = principal_for_person(company.ada)
    draft = review_policy_draft(actor=ada, text=shipped_text("limited"))
    return review_policy_propose(actor=ada, policy_id=draft.pk)


def open_session(person: Person) -> UserSession:
    """Session of the signed-in person."""
    client = Client()
    client.force_login(person)
    key = client.session.session_key
    return UserSession.objects.get_or_create(
        session_key=key,
        defaults={"user": person, "ip": "192.0.2.7", "user_agent": SECRET},
    )[0]


def address_book(company: Company) -> dict[str, Any]:
    """IDs of engineering's objects, by the collection that precedes them in an address."""
    return {
        "absences": company.absence.pk,
        "account/factors": company.factor.pk,
        "account/tokens": company.token.pk,
        "attempts": 1,
        "audit": company.event.pk,
        "audit/checkpoints": 1,
        "arrivals": "0" * 64,
        "assignees": company.assignment.person_id,
        "audit/events": company.event.pk,
        "audit/exports": company.export.pk,
        "audit/filters": company.filter.pk,
        "batches": company.batch.pk,
        "emergency-access": company.emergency_access.pk,
        "budgets/limits": company.limit.pk,
        "catalog": "text-generation",
        "checklist": "oversight",
        "dataset-versions": company.train.pk,
        "credentials": company.credential.pk,
        "datasets": "docstrings-train",
        "departments": "engineering",
        "deployments": company.deployment.pk,
        "documents": company.document.pk,
        "files": "0" * 64,
        "nodes": company.node.name,
        "drafts": company.draft.pk,
        "evaluations": company.evaluation.pk,
        "export": "json",
        "feedback": company.feedback.pk,
        "group-mappings": company.mapping.pk,
        "incidents": company.incident.pk,
        "intakes": company.signable.pk,
        "jobs": company.running.pk,
        "keys": company.key.pk,
        "knowledge": "handbook",
        "knowledge-bases": "handbook",
        "media": 1,
        "models": "docstring-writer",
        "people": company.enzo.pk,
        "people/groups": company.group.pk,
        "people/groups/mappings": company.mapping.pk,
        "policy": company.policy.number,
        "policy/events": company.event.pk,
        "policy/explain/events": company.event.pk,
        "policy/versions": company.policy.number,
        "quotas": company.limit.pk,
        "recordings": "0" * 64,
        "references": "0" * 64,
        "release-drafts": company.release_draft.pk,
        "releases": company.waiting.pk,
        "review-policies": company.review_policy.pk,
        "reviews": company.review_open.pk,
        "reviews/absences": company.absence.pk,
        "people/access-requests": company.access_request.pk,
        "people/recoveries": company.recovery.pk,
        "people/role-requests": company.role_request.pk,
        "recoveries": company.recovery.pk,
        "role-requests": company.role_request.pk,
        "roles": company.role.pk,
        "rows": 1,
        "requests": UsageRecord.objects.filter(department="engineering", endpoint__startswith="/v1")
        .values_list("request_id", flat=True)
        .first(),
        "retention": "usage",
        "rules": "audit-export",
        "schedules": company.schedule.pk,
        "sessions": company.session.pk,
        "tests": 1,
        "train": 1,
        "threads": company.thread.pk,
        "uploads": company.upload.pk,
        "versions": company.second.pk,
        "waivers": company.waiver.pk,
        "Groups": company.group.pk,
        "ResourceTypes": "User",
        "Schemas": "urn:ietf:params:scim:schemas:core:2.0:User",
        "Users": company.enzo.pk,
    }


def nowhere(company: Company) -> dict[str, Any]:
    """An address book of things that do not exist, or not there."""
    numbers = {name: 999_999_999 for name, value in address_book(company).items() if _id(value)}
    return {
        **dict.fromkeys(address_book(company), "no-such-thing"),
        **numbers,
        "checklist": "oversight",
        "export": "json",
        "files": "f" * 64,
        "rules": "audit-export",
        "tests": 1,
        "jobs": uuid.UUID(int=7),
        "requests": "req_dead",
        "uploads": uuid.UUID(int=7),
    }


def _id(value: Any) -> bool:
    return isinstance(value, int)


def values(company: Company) -> dict[str, Any]:
    """Return values for bodies and queries by the names of their members: engineering's objects.

    `operation:member` is for that operation alone; None leaves the member out.
    """
    return {
        "assignees_post:person": company.carla.pk,
        "aware_at": None,
        "base": None,
        "base_version": company.base.pk,
        "emergency_access_review_post:verdict": "justified",
        "incident_state_post:state": "investigating",
        "incidents_post:versions": [company.second.pk],
        "blocking": None,
        "columns": None,
        "cron": "0 2 * * *",
        "evaluation": {"version": company.second.pk, "dataset": "docstrings-test"},
        "fine_tune": None,
        "fine_tunes_post:release": None,
        "time_zone": "Europe/Berlin",
        "revision": None,
        "cursor": None,
        "credentials_post:kind": "header",
        "hosts": ["api.example.com"],
        "secret": "Bearer plausible",
        "credential_rotate_post:version": None,
        **dict.fromkeys(
            ("header", "token_url", "client_id", "scope", "access_key_id", "region", "service")
        ),
        "dataset": "docstrings-test",
        "datasets_post:row_kind": None,
        "dataset_version_rows_unmask_post:q": None,
        "dataset_version_rows_unmask_post:sort": None,
        "dataset_version": company.train.pk,
        "department": "engineering",
        "departments": ["engineering"],
        "deployment": "docstring-writer",
        "deployment_switch_post:target": company.deployment.pk,
        "deployment_switch_post:revision": 0,
        "deployment_targets_put:revision": 0,
        "deployment_targets_put:targets": [],
        "deployment_name": "mallory",
        "digest": company.waiting.dossier_digest,
        "email": "mallory@assay.example",
        "embedding_version": company.embedding.pk,
        "knowledge_documents_post:file": SimpleUploadedFile("leave.txt", b"Thirty days."),
        "knowledge_share_post:departments": ["finance"],
        "fine_tunes_post:then": [{"dataset_version": company.held_out.pk}],
        "replaces": company.document.pk,
        "request_log_post:mode": "metadata",
        "replicas": None,
        "expires_at": None,
        "expires_in_days": 7,
        "against": company.first.pk,
        "target": "docstring-writer",
        "upload": None,
        "uploads": None,
        "hosted_models_post:description": described(),
        "hosted_models_post:digest": None,
        "uploads_post:kind": "intake",
        "uploads_post:sha256": None,
        "feedback": [company.feedback.pk],
        "files": [SimpleUploadedFile("config.json", b"{}")],
        "file": SimpleUploadedFile("rows.jsonl", b'{"messages": []}\n'),
        "format": None,
        "key": company.key.pk,
        "kind": None,
        "limit": 5,
        "method": "lora",
        "metric": "perplexity",
        "mode": "repair",
        "model": "docstring-writer",
        "name": "mallory",
        "new": None,
        "old": 1,
        "parameters": {"action": "key:create"},
        "password": "correct horse battery staple",
        "person": company.enzo.pk,
        "query": "engineering",
        "release": company.live.pk,
        "risk_answers": {
            "intended_purpose": "Docstrings.",
            "affected_people": "Developers.",
            "vulnerable_groups": False,
            "eu_ai_act_role": "deployer",
            "annex_iii": "none",
            "data_classification": "internal",
            "personal_data": False,
            "special_categories": False,
            "autonomy": "suggests",
            "interacts_with_people": False,
            "generates_content": True,
            "general_purpose_model": False,
        },
        "role": "developer",
        "run": [company.first.pk, company.second.pk],
        "since": None,
        "slug": "mallory",
        "specialty": "security",
        "task": "text-generation",
        "thread": None,
        "until": None,
        "verdict": "approve",
        "waiver_decision_post:verdict": "granted",
        "waivers_post:expires_at": (timezone.now() + timedelta(days=30)).isoformat(),
        "version": company.second.pk,
        "deputy": company.milo.pk,
        "starts_at": timezone.now().isoformat(),
        "ends_at": (timezone.now() + timedelta(days=3)).isoformat(),
        "absences_post:person": None,
        "absences_post:specialty": "compliance",
        "evaluations_post:dataset_version": company.held_out.pk,
        "audit_exports_post:format": "jsonl",
        "keys_post:quotas": None,
        "keys_post:scopes": ["deployment:invoke"],
        "person_roles_post:specialty": None,
        "allowed_deployments": ["docstring-writer"],
        "anchor": {"kind": "item", "key": "oversight"},
        "at": None,
        "networks": ["192.0.2.0/24"],
        "owner": company.enzo.pk,
        "context": {},
        "policy": None,
        "principal": {"person": company.enzo.pk},
        "resource": {"type": "model", "reference": "docstring-writer"},
        "keys_patch:owner": company.enzo.pk,
        "prices_post:remove": None,
        "quotas_post:deployment": None,
        "quotas_post:organization": None,
        "quotas_post:key": None,
        "quotas_post:kind": "tokens_per_day",
        "based_on": None,
        "content_digest": None,
        "review_policies_post:text": shipped_text("minimal"),
        "review_policy_patch:text": shipped_text("limited"),
        "review_policy_patch:digest": None,
        "rules": PolicyVersion.objects.get(number=1).rules,
        "tests": [],
        "yaml": None,
    }


def token_of(company: Company, name: str) -> str:
    """A live credential of one of `EVERYBODY`."""
    roles = EVERYBODY[name]
    if roles and roles[0].startswith("key@"):
        return key_token(company, roles[0].partition("@")[2])
    _, token = access_token_create(
        person=person_of(company, name), name="attack", proof=fresh_proof()
    )
    return token


def person_of(company: Company, name: str) -> Person:
    """The person in those roles."""
    person, made = Person.objects.get_or_create(
        email=f"{name.replace(' ', '-')}@assay.example", defaults={"name": name.title()}
    )
    if not made:
        return person
    for text in EVERYBODY[name]:
        role, _, slug = text.partition("@")
        role, _, specialty = role.partition(":")
        RoleAssignment.objects.create(
            person=person,
            role=role,
            specialty=specialty,
            department=company.departments[slug] if slug else None,
        )
    return person


def key_token(company: Company, slug: str) -> str:
    """A department's key that has every scope there is."""
    public_id, secret = mint()
    version = max(settings.KEY_PEPPERS)
    ApiKey.objects.create(
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[version]),
        pepper_version=version,
        name=f"every scope of {slug}",
        department=company.departments[slug],
        scopes=[str(action) for action in Action],
        created_by=company.ada,
        expires_at=timezone.now() + timedelta(days=1),
    )
    return format_token(public_id, secret)


def caller(company: Company, name: str) -> Client:
    """One of `EVERYBODY` as a client of the API, whose token has been used before."""
    client = Client(
        headers={"authorization": f"Bearer {token_of(company, name)}"},
        raise_request_exception=False,
    )
    client.get("/api/v1/me")
    return client


def browser(company: Company, name: str, **more: Any) -> Client:
    """One of `EVERYBODY`, signed in to the portal."""
    client = Client(raise_request_exception=False, **more)
    signed_in(client, person_of(company, name))
    return client
