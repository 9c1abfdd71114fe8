"""Departments, people, policy, usage and the audit log."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from assay.api.representations.common import PersonReference, slug
from governance.audit.selectors import event_text


class DepartmentAnswer(serializers.Serializer[Any]):
    """A department."""

    id = serializers.IntegerField()
    slug = serializers.CharField()
    name = serializers.CharField()
    jobs_at_once = serializers.IntegerField(
        allow_null=True, help_text="Jobs that run at the same time; null: the platform's default."
    )
    created_at = serializers.DateTimeField()


class RoleAnswer(serializers.Serializer[Any]):
    """One role of a person; `department` is null for a platform-wide one. `source` is manual, sso
    or scim; `group` is the group that it comes from."""

    id = serializers.IntegerField()
    role = serializers.CharField()
    department = slug(allow_null=True, default=None)
    specialty = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    group = serializers.CharField()
    created_at = serializers.DateTimeField()


class PersonAnswer(serializers.Serializer[Any]):
    """A person and their roles."""

    id = serializers.IntegerField()
    email = serializers.CharField()
    name = serializers.CharField()
    is_active = serializers.BooleanField()
    deactivated_at = serializers.DateTimeField(allow_null=True)
    erased_at = serializers.DateTimeField(allow_null=True)
    provisioned = serializers.SerializerMethodField()
    roles = RoleAnswer(many=True, source="role_assignments")
    created_at = serializers.DateTimeField()

    def get_provisioned(self, person: Any) -> bool:
        return bool(person.external_id or person.user_name)


class OneTimeLinkAnswer(serializers.Serializer[Any]):
    """A one-time link, which is shown only once."""

    purpose = serializers.CharField(help_text="`password` or `factor`.")
    link = serializers.CharField()
    expires_at = serializers.DateTimeField()
    mailed = serializers.BooleanField()


class RecoveryAnswer(serializers.Serializer[Any]):
    """A recovery of an account. `state` is pending, approved, opened, rejected or expired; its link
    works from `effective_at` on."""

    id = serializers.IntegerField()
    person = PersonReference()
    purpose = serializers.CharField(help_text="`password` or `factor`.")
    reason = serializers.CharField()
    state = serializers.CharField()
    requested_by = PersonReference(allow_null=True)
    requested_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    approved_by = PersonReference(allow_null=True)
    on_server = serializers.BooleanField(help_text="Approved by a command on the server.")
    approved_at = serializers.DateTimeField(allow_null=True)
    effective_at = serializers.DateTimeField(allow_null=True)
    opened_at = serializers.DateTimeField(allow_null=True)
    ended_by = PersonReference(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    end_reason = serializers.CharField()


class RecoveryRequestAnswer(serializers.Serializer[Any]):
    """A requested recovery with its code, which is shown only once."""

    recovery = RecoveryAnswer()
    code = serializers.CharField()


class RecoveryLinkAnswer(serializers.Serializer[Any]):
    """An approved recovery with its link, which is shown only once; null if the link was mailed."""

    recovery = RecoveryAnswer()
    link = serializers.CharField(allow_null=True)


class RoleRequestAnswer(serializers.Serializer[Any]):
    """A request to make a person, or everyone in a group, administrator or reviewer. `state` is
    pending, approved, rejected, withdrawn or expired."""

    id = serializers.IntegerField()
    person = PersonReference(allow_null=True)
    group = serializers.CharField()
    role = serializers.CharField()
    specialty = serializers.CharField()
    state = serializers.CharField()
    requested_by = PersonReference()
    requested_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    decided_by = PersonReference(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField()


class GroupAnswer(serializers.Serializer[Any]):
    """A group that an identity provider has provisioned."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    external_id = serializers.CharField()
    members = serializers.IntegerField(source="members_n")
    created_at = serializers.DateTimeField()


class GroupMappingAnswer(serializers.Serializer[Any]):
    """A role that members of a group get."""

    id = serializers.IntegerField()
    group = serializers.CharField()
    role = serializers.CharField()
    department = slug(allow_null=True, default=None)
    specialty = serializers.CharField()
    created_by = PersonReference(allow_null=True)
    created_at = serializers.DateTimeField()


class HeldRoleAnswer(serializers.Serializer[Any]):
    """A role of the caller."""

    role = serializers.CharField()
    department = serializers.CharField(allow_null=True)
    specialty = serializers.CharField()


class MeAnswer(serializers.Serializer[Any]):
    """The caller. `scopes` is null if the credential does not restrict them."""

    kind = serializers.CharField()
    id = serializers.CharField()
    name = serializers.CharField()
    department = serializers.CharField(allow_null=True)
    departments = serializers.SerializerMethodField()
    roles = serializers.SerializerMethodField()
    scopes = serializers.SerializerMethodField()

    def get_departments(self, principal: Any) -> list[str]:
        return sorted(principal.departments)

    @extend_schema_field(HeldRoleAnswer(many=True))
    def get_roles(self, principal: Any) -> list[dict[str, str | None]]:
        roles = sorted(principal.roles, key=lambda r: (r.role, r.department or "", r.specialty))
        return [
            {"role": str(r.role), "department": r.department, "specialty": r.specialty}
            for r in roles
        ]

    def get_scopes(self, principal: Any) -> list[str] | None:
        return None if principal.scopes is None else sorted(principal.scopes)


class TokenAnswer(serializers.Serializer[Any]):
    """A personal access token, which is shown only once."""

    token = serializers.CharField()
    expires_at = serializers.DateTimeField()


class PolicyAnswer(serializers.Serializer[Any]):
    """The policy in force."""

    version = serializers.IntegerField(source="number")
    digest = serializers.CharField()
    note = serializers.CharField()
    rules = serializers.JSONField()
    created_at = serializers.DateTimeField()


class UsageAnswer(serializers.Serializer[Any]):
    """One settled request or job. Times in milliseconds, money in micro-units of the currency.
    `units` is the amount of `unit` that was used; for tokens, the sum of both kinds.
    """

    id = serializers.IntegerField()
    request_id = serializers.CharField()
    occurred_at = serializers.DateTimeField()
    department = serializers.CharField()
    key = serializers.CharField(source="key_public_id")
    deployment = serializers.CharField()
    release = serializers.IntegerField(allow_null=True)
    version_digest = serializers.CharField()
    endpoint = serializers.CharField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    unit = serializers.CharField()
    units = serializers.IntegerField()
    admit_ms = serializers.IntegerField(
        allow_null=True, help_text="Time until the request was sent to workers, without `load_ms`."
    )
    retry_ms = serializers.IntegerField(
        allow_null=True, help_text="Time on targets that failed before another one answered."
    )
    connect_ms = serializers.IntegerField(
        allow_null=True, help_text="Time to connect to the provider of a hosted model."
    )
    settle_ms = serializers.IntegerField(
        allow_null=True, help_text="Time from `total_ms` until the settlement was accepted."
    )
    load_ms = serializers.IntegerField(help_text="Wait for a deployment that was scaled to zero.")
    queue_ms = serializers.IntegerField(help_text="Wait for a place in the engine.")
    first_token_ms = serializers.IntegerField(
        allow_null=True, help_text="Time to the first piece of a streamed answer; else null."
    )
    total_ms = serializers.IntegerField()
    device_ms = serializers.IntegerField()
    cost_micro = serializers.IntegerField()
    outcome = serializers.CharField()
    streamed = serializers.BooleanField()
    policy_version = serializers.IntegerField(allow_null=True)


class ActorAnswer(serializers.Serializer[Any]):
    """The actor, as recorded in the log."""

    kind = serializers.CharField(source="actor_kind")
    id = serializers.CharField(source="actor_id")
    name = serializers.CharField(source="actor_name")


class SubjectAnswer(serializers.Serializer[Any]):
    """The subject, as recorded in the log."""

    type = serializers.CharField(source="subject_type")
    id = serializers.CharField(source="subject_id")
    name = serializers.CharField(source="subject_name")


class AuditEventAnswer(serializers.Serializer[Any]):
    """One record of the audit log. `sequence` is null until it is sealed."""

    id = serializers.IntegerField()
    sequence = serializers.IntegerField(allow_null=True)
    occurred_at = serializers.DateTimeField()
    action = serializers.CharField()
    outcome = serializers.CharField()
    actor = ActorAnswer(source="*")
    subject = SubjectAnswer(source="*")
    department = serializers.CharField()
    reason = serializers.CharField()
    request_id = serializers.CharField()
    policy_version = serializers.IntegerField(allow_null=True)
    leaf_hash = serializers.SerializerMethodField()

    def get_leaf_hash(self, event: Any) -> str:
        return bytes(event.leaf_hash).hex()


class AuditEventDetail(AuditEventAnswer):
    """One record of the audit log, with the bytes that were hashed."""

    canonical = serializers.SerializerMethodField()

    def get_canonical(self, event: Any) -> str:
        return event_text(event)


class CosignatureAnswer(serializers.Serializer[Any]):
    """A witness's verified cosignature; append `line` to the note of the checkpoint."""

    witness = serializers.CharField()
    cosigned_at = serializers.DateTimeField()
    line = serializers.CharField()


class CheckpointAnswer(serializers.Serializer[Any]):
    """A signed tree head; `note` is the C2SP checkpoint. `published_at` is null before it is
    published."""

    tree_size = serializers.IntegerField()
    root_hash = serializers.SerializerMethodField()
    note = serializers.CharField()
    created_at = serializers.DateTimeField()
    published_at = serializers.DateTimeField(allow_null=True)
    cosignatures = CosignatureAnswer(many=True)

    def get_root_hash(self, checkpoint: Any) -> str:
        return bytes(checkpoint.root_hash).hex()


class InclusionProofAnswer(serializers.Serializer[Any]):
    """Proof that an event is in the log: the path of RFC 6962 section 2.1.1, in hexadecimal."""

    format = serializers.CharField()
    kind = serializers.CharField()
    public_keys = serializers.CharField()
    checkpoint = serializers.CharField()
    sequence = serializers.IntegerField()
    tree_size = serializers.IntegerField()
    canonical = serializers.CharField()
    leaf_hash = serializers.CharField()
    path = serializers.ListField(child=serializers.CharField())


class ConsistencyProofAnswer(serializers.Serializer[Any]):
    """Proof that the log only grew between two checkpoints: the path of RFC 6962 section 2.1.2."""

    format = serializers.CharField()
    kind = serializers.CharField()
    public_keys = serializers.CharField()
    old_checkpoint = serializers.CharField()
    new_checkpoint = serializers.CharField()
    path = serializers.ListField(child=serializers.CharField())
