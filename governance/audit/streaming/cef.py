"""Records in ArcSight's Common Event Format, version 0.

The details of an event (`data`) are omitted: CEF has no structured fields.
"""

from __future__ import annotations

import ipaddress
import re

from governance.audit.streaming.ocsf import (
    PRODUCT,
    PRODUCT_VERSION,
    address_of,
    milliseconds,
    person_of,
    severity_of,
    summary,
)
from governance.audit.streaming.records import Record

# OCSF's severity → CEF's, from 0 to 10.
SEVERITIES = {1: 3, 2: 4, 3: 6, 4: 8, 5: 10}
# Line breaks, and other characters that a receiver may read as one.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def cef(record: Record, *, log: str) -> str:
    """Return the record as one line.

    Raises:
        KeyError, TypeError, ValueError: the record's body is not that of an event.
    """
    action = str(record.body["action"])
    noun, _, verb = action.partition(":")
    name = f"{noun} {verb}".replace("_", " ").strip()
    severity = SEVERITIES[severity_of(record)]
    fields = (PRODUCT, PRODUCT, PRODUCT_VERSION, action, name, str(severity))
    header = "|".join(header_text(text) for text in fields)
    extension = " ".join(
        f"{key}={extension_text(value)}" for key, value in _extension(record, log).items() if value
    )
    return f"CEF:0|{header}|{extension}"


def header_text(text: str) -> str:
    """Escape a field of the header: line breaks become spaces; backslash and pipe are escaped."""
    return _CONTROL.sub(" ", text).replace("\\", "\\\\").replace("|", "\\|")


def extension_text(text: str) -> str:
    """Escape a value of the extension: backslash, equals sign and line breaks."""
    escaped = text.replace("\\", "\\\\").replace("=", "\\=")
    escaped = escaped.replace("\r\n", "\n").replace("\r", "\\r").replace("\n", "\\n")
    return _CONTROL.sub(" ", escaped)


def _extension(record: Record, log: str) -> dict[str, str]:
    body = record.body
    subject = f"{body['subject_type']} {body['subject_id']}".strip()
    version = body["policy_version"]
    fields = {
        "rt": str(milliseconds(body["occurred_at"])),
        "externalId": str(record.sequence),
        "deviceExternalId": log,
        "act": str(body["action"]),
        "outcome": str(body["outcome"]),
        "reason": str(body["reason"]),
        "msg": summary(record),
        "suid": f"{body['actor_kind']}:{body['actor_id']}",
        "suser": str(body["actor_name"]),
        **_address(address_of(body)),
        **_labelled("cs1", "subject", subject),
        **_labelled("cs2", "subjectName", str(body["subject_name"])),
        **_labelled("cs3", "department", str(body["department"])),
        **_labelled("cs4", "requestId", str(body["request_id"])),
        **_labelled("cs5", "leafHash", record.leaf_hash),
        **_labelled("cn1", "policyVersion", "" if version is None else str(version)),
    }
    if person_of(body):
        fields |= {
            "duid": f"person:{body['subject_id']}",
            "duser": str(body["subject_name"]),
        }
    return fields


def _labelled(key: str, label: str, value: str) -> dict[str, str]:
    return {key: value, f"{key}Label": label} if value else {}


def _address(address: str) -> dict[str, str]:
    """Return the field of an address; `src` allows only IPv4 in this version."""
    if not address:
        return {}
    if ipaddress.ip_address(address).version == 4:
        return {"src": address}
    return _labelled("c6a2", "Source IPv6 Address", address)
