"""Records in the Open Cybersecurity Schema Framework, version 1.8.0 (https://schema.ocsf.io).

Signing in is Authentication (3002), changes of accounts are Account Change (3001), roles are User
Access Management (3005), everything else is API Activity (6003). OCSF 1.9 deprecates 3001 and 3005,
but keeps them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from governance.audit.streaming.records import REFUSED, Record

SCHEMA_VERSION = "1.8.0"
PRODUCT = "Assay"
try:
    PRODUCT_VERSION = version("assay")
except PackageNotFoundError:
    PRODUCT_VERSION = "unknown"

OTHER = 99
ALARM = "audit:alarm_raise"
IAM = (3, "Identity & Access Management")
APPLICATION = (6, "Application Activity")


@dataclass(frozen=True, slots=True)
class EventClass:
    """A class of the schema, and its activities by number."""

    uid: int
    name: str
    category: tuple[int, str]
    activities: dict[int, str]


AUTHENTICATION = EventClass(3002, "Authentication", IAM, {1: "Logon", 2: "Logoff"})
ACCOUNT_CHANGE = EventClass(
    3001,
    "Account Change",
    IAM,
    {
        1: "Create",
        2: "Enable",
        3: "Password Change",
        5: "Disable",
        6: "Delete",
        10: "MFA Factor Enable",
        11: "MFA Factor Disable",
    },
)
USER_ACCESS = EventClass(
    3005, "User Access Management", IAM, {1: "Assign Privileges", 2: "Revoke Privileges"}
)
API_ACTIVITY = EventClass(
    6003, "API Activity", APPLICATION, {1: "Create", 2: "Read", 3: "Update", 4: "Delete"}
)
ACCOUNT_ACTIVITIES = {
    "create": 1,
    "reactivate": 2,
    "change_password": 3,
    "deactivate": 5,
    "deprovision": 6,
    "erase": 6,
    "add_factor": 10,
    "remove_factor": 11,
    "reset_factors": 11,
}
API_ACTIVITIES = {
    **dict.fromkeys(("create", "submit", "draft", "register", "record", "opened", "grant"), 1),
    **dict.fromkeys(("view", "export", "verify", "explain", "compare", "check"), 2),
    **dict.fromkeys(("select", "download", "evidence"), 2),
    **dict.fromkeys(("update", "set", "rotate", "revise", "activate", "propose"), 3),
    **dict.fromkeys(("approve", "reject", "decide", "request_changes", "sign_off"), 3),
    **dict.fromkeys(("approved", "rejected", "changes_requested", "withdrawn", "expired"), 3),
    **dict.fromkeys(("recalled", "voided", "supersede", "in_review", "members"), 3),
    **dict.fromkeys(("delete", "revoke", "withdraw", "stop", "cancel", "expire"), 4),
}
SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
# OCSF's types of accounts.
USER_TYPES = {"person": (1, "User"), "service": (3, "System"), "key": (4, "Service")}


def ocsf(record: Record, *, log: str) -> dict[str, Any]:
    """Return the record as an event of the schema; `log` is the log's name.

    Raises:
        KeyError, TypeError, ValueError: the record's body is not that of an event.
    """
    body = record.body
    kind, activity = classify(str(body["action"]))
    verb = str(body["action"]).partition(":")[2]
    activity_name = kind.activities.get(activity, verb)
    severity = severity_of(record)
    succeeded = body["outcome"] == "allowed"
    event: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": kind.category[0],
        "category_name": kind.category[1],
        "class_uid": kind.uid,
        "class_name": kind.name,
        "type_uid": kind.uid * 100 + activity,
        "type_name": f"{kind.name}: {'Other' if activity == OTHER else activity_name}",
        "time": milliseconds(body["occurred_at"]),
        "timezone_offset": 0,
        "severity_id": severity,
        "severity": SEVERITIES[severity],
        "status_id": 1 if succeeded else 2,
        "status": "Success" if succeeded else "Failure",
        "message": summary(record),
        "metadata": _metadata(record, log),
        "actor": _actor(body),
        "src_endpoint": _source(body),
        "unmapped": _unmapped(record),
    }
    if reason := str(body["reason"]):
        event["status_detail"] = reason
    if code := _data(body).get("code"):
        event["status_code"] = str(code)
    return event | _of_class(kind, record)


def classify(action: str) -> tuple[EventClass, int]:
    """Return the class and activity of an action."""
    noun, _, verb = action.partition(":")
    if action in {"person:sign_in", "person:sign_out"}:
        return AUTHENTICATION, 1 if action == "person:sign_in" else 2
    if noun == "role" and verb in {"grant", "revoke"}:
        return USER_ACCESS, 1 if verb == "grant" else 2
    if noun == "person" and verb != "view":
        return ACCOUNT_CHANGE, ACCOUNT_ACTIVITIES.get(verb, OTHER)
    return API_ACTIVITY, API_ACTIVITIES.get(verb, OTHER)


def severity_of(record: Record) -> int:
    """Return OCSF's severity: informational if allowed, low if failed, medium if denied; high for
    an alarm; critical for a critical alarm or a change of the log itself.
    """
    if record.is_replacement:
        return 3 if record.body["action"] == REFUSED else 5
    if record.body["action"] == ALARM:
        return 5 if _data(record.body).get("critical") is True else 4
    return {"allowed": 1, "failed": 2}.get(str(record.body["outcome"]), 3)


def summary(record: Record) -> str:
    """Return a sentence without names, which have fields of their own."""
    body = record.body
    actor = f"{body['actor_kind']} {body['actor_id']}"
    action = f"{body['action']} on {body['subject_type']} {body['subject_id']}"
    return f"{actor}: {action}, {body['outcome']}"


def milliseconds(moment: Any) -> int:
    """Convert ISO 8601 text to milliseconds since the epoch."""
    return round(datetime.fromisoformat(str(moment)).timestamp() * 1000)


def address_of(body: dict[str, Any]) -> str:
    """Return the client's IP address; empty if unknown or invalid."""
    try:
        return str(ipaddress.ip_address(str(body.get("client_address", ""))))
    except ValueError:
        return ""


def person_of(body: dict[str, Any]) -> bool:
    """Return whether the event is about a person."""
    return bool(body["subject_type"] == "person")


def _metadata(record: Record, log: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "version": SCHEMA_VERSION,
        "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": PRODUCT_VERSION},
        "log_name": log,
        "log_provider": PRODUCT,
        "event_code": str(record.body["action"]),
        "sequence": record.sequence,
        "original_time": str(record.body["occurred_at"]),
    }
    if record.leaf_hash:
        # Lets receivers drop duplicates: an event that is sent twice has the same UID.
        metadata["uid"] = record.leaf_hash
    if request_id := str(record.body["request_id"]):
        metadata["correlation_uid"] = request_id
    if record.shortened:
        metadata["is_truncated"] = True
    return metadata


def _actor(body: dict[str, Any]) -> dict[str, Any]:
    actor: dict[str, Any] = {
        "user": _user(str(body["actor_kind"]), str(body["actor_id"]), str(body["actor_name"])),
        "app_name": PRODUCT,
    }
    if body["policy_version"] is not None:
        policy = {"uid": "assay-policy", "name": "Policy", "version": str(body["policy_version"])}
        actor["authorizations"] = [{"decision": str(body["outcome"]), "policy": policy}]
    return actor


def _user(kind: str, number: str, name: str) -> dict[str, Any]:
    type_id, type_name = USER_TYPES.get(kind, (0, "Unknown"))
    user: dict[str, Any] = {"uid": f"{kind}:{number}", "type_id": type_id, "type": type_name}
    return user | ({"name": name} if name else {})


def _source(body: dict[str, Any]) -> dict[str, Any]:
    if address := address_of(body):
        return {"ip": address}
    if body["actor_kind"] == "service":
        return {"svc_name": str(body["actor_id"])}
    return {"name": "not disclosed"}


def _of_class(kind: EventClass, record: Record) -> dict[str, Any]:
    """Fields of one class, in addition to those that all classes share."""
    body = record.body
    subject = (str(body["subject_type"]), str(body["subject_id"]), str(body["subject_name"]))
    if kind is API_ACTIVITY:
        return {"api": _api(body), "resources": [_resource(*subject)]}
    parts: dict[str, Any] = {"user": _user(*subject)}
    if kind is AUTHENTICATION:
        methods = _data(body).get("methods")
        parts |= {"service": {"name": PRODUCT, "version": PRODUCT_VERSION}, "is_remote": True}
        if isinstance(methods, list):
            parts["is_mfa"] = len(methods) > 1
    elif kind is USER_ACCESS:
        parts["privileges"] = [_privilege(body)]
    return parts


def _api(body: dict[str, Any]) -> dict[str, Any]:
    api: dict[str, Any] = {"operation": str(body["action"]), "service": {"name": PRODUCT}}
    if request_id := str(body["request_id"]):
        api["request"] = {"uid": request_id}
    status = _data(body).get("status")
    if isinstance(status, int):
        api["response"] = {"code": status, "error": str(_data(body).get("code", ""))}
    return api


def _resource(kind: str, number: str, name: str) -> dict[str, Any]:
    return {"type": kind, "uid": number or "-"} | ({"name": name} if name else {})


def _privilege(body: dict[str, Any]) -> str:
    """Return the role as people write it: `reviewer:security`, `lead@finance`."""
    data = _data(body)
    role = str(data.get("role") or "not disclosed")
    specialty = f":{data['specialty']}" if data.get("specialty") else ""
    department = f"@{body['department']}" if body["department"] else ""
    return f"{role}{specialty}{department}"


def _unmapped(record: Record) -> dict[str, Any]:
    body = record.body
    fields = {
        "leaf_hash": record.leaf_hash,
        "outcome": str(body["outcome"]),
        "department": str(body["department"]),
        "data": _data(body),
    }
    return {name: value for name, value in fields.items() if value}


def _data(body: dict[str, Any]) -> dict[str, Any]:
    data = body.get("data")
    return data if isinstance(data, dict) else {}
