"""All actions that a policy may permit or forbid. Does not import Django."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Action(StrEnum):
    """`resource:action`, in alphabetical order."""

    AUDIT_EXPORT = "audit:export"
    AUDIT_VIEW = "audit:view"
    BATCH_CANCEL = "batch:cancel"
    BATCH_CREATE = "batch:create"
    BATCH_VIEW = "batch:view"
    CHECKLIST_ATTEST = "checklist:attest"
    CREDENTIAL_CREATE = "credential:create"
    CREDENTIAL_REVOKE = "credential:revoke"
    CREDENTIAL_ROTATE = "credential:rotate"
    CREDENTIAL_VIEW = "credential:view"
    DATASET_CREATE = "dataset:create"
    DATASET_UNMASK = "dataset:unmask"
    DATASET_VIEW = "dataset:view"
    DEPARTMENT_CREATE = "department:create"
    DEPARTMENT_VIEW = "department:view"
    DEPLOYMENT_CREATE = "deployment:create"
    DEPLOYMENT_INVOKE = "deployment:invoke"
    DEPLOYMENT_PLACE = "deployment:place"
    DEPLOYMENT_ROUTE = "deployment:route"
    DEPLOYMENT_STOP = "deployment:stop"
    DEPLOYMENT_VIEW = "deployment:view"
    EVALUATION_VIEW = "evaluation:view"
    FEEDBACK_CREATE = "feedback:create"
    FEEDBACK_ERASE = "feedback:erase"
    FEEDBACK_REVIEW = "feedback:review"
    FEEDBACK_VIEW = "feedback:view"
    FILE_CREATE = "file:create"
    FILE_DELETE = "file:delete"
    FILE_VIEW = "file:view"
    GATE_SET = "gate:set"
    INCIDENT_LIFT = "incident:lift"
    INCIDENT_OPEN = "incident:open"
    INCIDENT_UPDATE = "incident:update"
    INCIDENT_VIEW = "incident:view"
    INTAKE_CREATE = "intake:create"
    INTAKE_SIGN_OFF = "intake:sign_off"
    INTAKE_VIEW = "intake:view"
    JOB_CANCEL = "job:cancel"
    JOB_CREATE = "job:create"
    JOB_PRIORITIZE = "job:prioritize"
    JOB_RETAIN = "job:retain"
    JOB_VIEW = "job:view"
    KEY_CREATE = "key:create"
    KEY_REVOKE = "key:revoke"
    KEY_ROTATE = "key:rotate"
    KEY_VIEW = "key:view"
    KNOWLEDGE_CREATE = "knowledge:create"
    KNOWLEDGE_RECALL = "knowledge:recall"
    KNOWLEDGE_SEARCH = "knowledge:search"
    KNOWLEDGE_VIEW = "knowledge:view"
    MODEL_CREATE = "model:create"
    MODEL_VIEW = "model:view"
    NODE_CORDON = "node:cordon"
    NODE_DRAIN = "node:drain"
    NODE_ENROLL = "node:enroll"
    NODE_REVOKE = "node:revoke"
    NODE_UNCORDON = "node:uncordon"
    NODE_VIEW = "node:view"
    PERSON_CREATE = "person:create"
    PERSON_DEACTIVATE = "person:deactivate"
    PERSON_ERASE = "person:erase"
    PERSON_UPDATE = "person:update"
    PERSON_VIEW = "person:view"
    POLICY_DECIDE = "policy:decide"
    POLICY_DRAFT = "policy:draft"
    POLICY_EXPLAIN = "policy:explain"
    POLICY_VIEW = "policy:view"
    QUOTA_SET = "quota:set"
    QUOTA_VIEW = "quota:view"
    RELEASE_DECIDE = "release:decide"
    RELEASE_EMERGENCY_ACCESS = "release:emergency_access"
    RELEASE_EMERGENCY_ACCESS_CONFIRM = "release:emergency_access_confirm"
    RELEASE_EVIDENCE = "release:evidence"
    RELEASE_SUBMIT = "release:submit"
    RELEASE_VIEW = "release:view"
    RELEASE_WITHDRAW = "release:withdraw"
    REQUEST_LOG_CHANGE = "request_log:change"
    REQUEST_LOG_ERASE = "request_log:erase"
    REQUEST_LOG_READ_CONTENT = "request_log:read_content"
    REQUEST_LOG_VIEW = "request_log:view"
    RESPONSE_CREATE = "response:create"
    RESPONSE_DELETE = "response:delete"
    RESPONSE_RETAIN = "response:retain"
    RESPONSE_UPDATE = "response:update"
    RESPONSE_VIEW = "response:view"
    REVIEW_ASSIGN = "review:assign"
    REVIEW_COMMENT = "review:comment"
    ROLE_GRANT = "role:grant"
    SESSION_REVOKE = "session:revoke"
    SESSION_VIEW = "session:view"
    USAGE_RETAIN = "usage:retain"
    USAGE_VIEW = "usage:view"
    VERSION_EXPORT = "version:export"
    VERSION_RECALL = "version:recall"
    WAIVER_DECIDE = "waiver:decide"
    WAIVER_REQUEST = "waiver:request"


# The action that an actor needs to learn that a resource of this type exists.
VIEW_ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "audit": Action.AUDIT_VIEW,
        "batch": Action.BATCH_VIEW,
        "credential": Action.CREDENTIAL_VIEW,
        "dataset": Action.DATASET_VIEW,
        "department": Action.DEPARTMENT_VIEW,
        "deployment": Action.DEPLOYMENT_VIEW,
        "document": Action.KNOWLEDGE_VIEW,
        "evaluation": Action.EVALUATION_VIEW,
        "feedback": Action.FEEDBACK_VIEW,
        "file": Action.FILE_VIEW,
        "gate": Action.EVALUATION_VIEW,
        "incident": Action.INCIDENT_VIEW,
        "intake": Action.INTAKE_VIEW,
        "job": Action.JOB_VIEW,
        "key": Action.KEY_VIEW,
        "knowledge": Action.KNOWLEDGE_VIEW,
        "model": Action.MODEL_VIEW,
        "node": Action.NODE_VIEW,
        "person": Action.PERSON_VIEW,
        "policy": Action.POLICY_VIEW,
        "quota": Action.QUOTA_VIEW,
        "release": Action.RELEASE_VIEW,
        "request_log": Action.REQUEST_LOG_VIEW,
        "response": Action.RESPONSE_VIEW,
        "review": Action.RELEASE_VIEW,
        "review_policy": Action.POLICY_VIEW,
        "session": Action.SESSION_VIEW,
        "usage": Action.USAGE_VIEW,
        "version": Action.MODEL_VIEW,
    }
)

# Verbs that create something in a department; a denial may hide only the department.
CREATING_VERBS = frozenset({"create", "submit"})
