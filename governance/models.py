"""All models of this context, imported where Django looks for them."""

from governance.audit.exports.models import AuditExport
from governance.audit.models import (
    AuditAlarm,
    AuditCheckpoint,
    AuditCosignature,
    AuditEvent,
    AuditKeeper,
    AuditOffload,
    AuditPersonKey,
    AuditSubtree,
)
from governance.audit.search.models import AuditFilter, AuditName, AuditSpan
from governance.audit.streaming.models import AuditStream
from governance.changes.models import Change, ChangeHorizon
from governance.credentials.models import Credential, CredentialUse
from governance.database.models import NamedLock
from governance.keys.models import ApiKey, PlaygroundToken
from governance.looks.models import Look
from governance.people.models import (
    AccessRequest,
    Department,
    DirectoryGroup,
    GroupMapping,
    OneTimeLink,
    Person,
    RoleAssignment,
    RoleRequest,
)
from governance.people.recoveries.models import AccountNotice, AccountRecovery
from governance.policy.models import PolicyVersion
from governance.quotas.models import BudgetHold, Price, QuotaAlert, QuotaLimit
from governance.request_log.models import (
    ForgottenUser,
    LoggedRequest,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)
from governance.retention.models import ArchivedMonth, RetentionRule
from governance.reviews.absences.models import Absence
from governance.reviews.assignments.models import ReviewAssignment
from governance.reviews.models import ChecklistItem, Decision, Review
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.reminders.models import ReviewNotice, ReviewReminder
from governance.reviews.threads.models import CommentDraft, Mention, ReviewThread, ThreadComment
from governance.reviews.waivers.models import Waiver
from governance.usage.models import (
    BilledRequest,
    ShadowTotal,
    UsageRecord,
    UsageTimes,
    UsageTimesProgress,
    UsageTotal,
)

__all__ = [
    "Absence",
    "AccessRequest",
    "AccountNotice",
    "AccountRecovery",
    "ApiKey",
    "ArchivedMonth",
    "AuditAlarm",
    "AuditCheckpoint",
    "AuditCosignature",
    "AuditEvent",
    "AuditExport",
    "AuditFilter",
    "AuditKeeper",
    "AuditName",
    "AuditOffload",
    "AuditPersonKey",
    "AuditSpan",
    "AuditStream",
    "AuditSubtree",
    "BilledRequest",
    "BudgetHold",
    "Change",
    "ChangeHorizon",
    "ChecklistItem",
    "CommentDraft",
    "Credential",
    "CredentialUse",
    "Decision",
    "Department",
    "DirectoryGroup",
    "ForgottenUser",
    "GroupMapping",
    "LoggedRequest",
    "Look",
    "Mention",
    "NamedLock",
    "OneTimeLink",
    "Person",
    "PlaygroundToken",
    "PolicyVersion",
    "Price",
    "QuotaAlert",
    "QuotaLimit",
    "RequestLogDay",
    "RequestLogKey",
    "RequestLogPolicy",
    "RetentionRule",
    "Review",
    "ReviewAssignment",
    "ReviewNotice",
    "ReviewPolicy",
    "ReviewReminder",
    "ReviewThread",
    "RoleAssignment",
    "RoleRequest",
    "ShadowTotal",
    "ThreadComment",
    "UsageRecord",
    "UsageTimes",
    "UsageTimesProgress",
    "UsageTotal",
    "Waiver",
]
