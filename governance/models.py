"""Every model of this context, gathered where Django looks for them."""

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.keys.models import ApiKey
from governance.people.models import Department, Person, RoleAssignment
from governance.policy.models import PolicyVersion
from governance.quotas.models import QuotaLimit
from governance.reviews.models import ChecklistItem, Decision, Review
from governance.usage.models import UsageRecord

__all__ = [
    "ApiKey",
    "AuditCheckpoint",
    "AuditEvent",
    "ChecklistItem",
    "Decision",
    "Department",
    "Person",
    "PolicyVersion",
    "QuotaLimit",
    "Review",
    "RoleAssignment",
    "UsageRecord",
]
