"""Verbs and plurals of the policy's actions and resource types. Imports no Django."""

from __future__ import annotations

import json
import re

# Verbs of actions whose name is not their verb; the object follows.
_VERBS = {
    "dataset:unmask": "read masked rows of",
    "deployment:invoke": "use",
    "deployment:place": "change the replicas of",
    "deployment:route": "change the targets of",
    "feedback:create": "send",
    "file:create": "upload",
    "incident:lift": "lift suspensions by",
    "incident:open": "report",
    "job:retain": "set the retention of",
    "policy:decide": "decide on",
    "policy:explain": "explain decisions of",
    "release:decide": "decide on",
    "release:emergency_access": "request emergency access to",
    "release:emergency_access_confirm": "confirm emergency access to",
    "release:evidence": "download the evidence of",
    "request_log:erase": "erase content of",
    "request_log:read_content": "read content of",
    "response:create": "store",
    "response:retain": "set the retention of",
    "review:comment": "comment on",
    "session:revoke": "end",
    "usage:retain": "set the retention of",
    "waiver:decide": "decide on",
}
# Resource types whose plural is not the type with an `s`.
_PLURALS = {
    "audit": "the audit log",
    "batch": "batches",
    "feedback": "feedback",
    "key": "API keys",
    "knowledge": "knowledge bases",
    "person": "people",
    "policy": "policies",
    "request_log": "request logs",
    "review_policy": "review policies",
    "usage": "usage",
}
_NOUNS = {"audit": "the audit log", "knowledge": "knowledge base"}
_PREPOSITION = re.compile(r" (?:of|on|to|by)$")
_PLAIN = re.compile(r"(?!-?[0-9]+$|(?:yes|no|empty)$)[\w.:/@+-]+")


def verb_of(action: str) -> str:
    """Return the verb of an action, before its object: `use`, `decide on`."""
    return _VERBS.get(action) or action.partition(":")[2].replace("_", " ")


def verb_alone(action: str) -> str:
    """Return the verb of an action without an object: `decide`."""
    return _PREPOSITION.sub("", verb_of(action))


def noun(kind: str) -> str:
    """Return a resource type in the singular: `review policy`."""
    return _NOUNS.get(kind) or kind.replace("_", " ")


def plural(kind: str) -> str:
    """Return a resource type in the plural: `batches`."""
    return _PLURALS.get(kind) or text_words(f"{kind}s")


def text_words(text: str) -> str:
    """Return the text, in quotes unless it is one plain word, which readers cannot mistake for
    several values or for part of the sentence.
    """
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
