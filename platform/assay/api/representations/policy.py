"""Policies, and what is asked of them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference
from governance.policy.decisions import inputs
from governance.policy.lifecycle import content_digest


class PolicyVersionAnswer(serializers.Serializer[Any]):
    """A policy without what it says. `based_on` is the policy in force when it was drafted."""

    number = serializers.IntegerField()
    state = serializers.CharField()
    note = serializers.CharField()
    digest = serializers.CharField()
    based_on = serializers.IntegerField(allow_null=True)
    rule_count = serializers.IntegerField()
    test_count = serializers.IntegerField()
    created_by = PersonReference(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    proposed_by = PersonReference(allow_null=True)
    proposed_at = serializers.DateTimeField(allow_null=True)
    decided_by = PersonReference(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    decision_note = serializers.CharField()


class PolicyVersionDetail(PolicyVersionAnswer):
    """A policy with what it says. `content_digest` changes with rules, tests and note; `authors`
    are the ids of the people who wrote on it, none of whom decides.
    """

    rules = serializers.JSONField()
    tests = serializers.JSONField()
    content_digest = serializers.SerializerMethodField()
    authors = serializers.ListField(child=serializers.IntegerField())

    def get_content_digest(self, version: Any) -> str:
        return content_digest(version)


class PolicyDocumentAnswer(serializers.Serializer[Any]):
    """A policy as code: what is imported again is the same."""

    yaml = serializers.CharField()


class CaseResultAnswer(serializers.Serializer[Any]):
    """Result of one of a policy's own tests."""

    name = serializers.CharField()
    expected = serializers.CharField()
    allowed = serializers.BooleanField()
    rules = serializers.ListField(child=serializers.CharField())
    reason = serializers.CharField()
    passed = serializers.BooleanField()


class ChangedRuleAnswer(serializers.Serializer[Any]):
    """A rule before and after; `members` names what differs."""

    id = serializers.CharField()
    before = serializers.JSONField()
    after = serializers.JSONField()
    members = serializers.ListField(child=serializers.CharField())


class PolicyDifferenceAnswer(serializers.Serializer[Any]):
    """Differences between policies `before` and `after`: added, removed, changed."""

    before = serializers.IntegerField()
    after = serializers.IntegerField()
    added = serializers.JSONField()
    removed = serializers.JSONField()
    changed = ChangedRuleAnswer(many=True)
    reordered = serializers.BooleanField()
    tests_added = serializers.ListField(child=serializers.CharField())
    tests_removed = serializers.ListField(child=serializers.CharField())
    tests_changed = serializers.ListField(child=serializers.CharField())


class FlipAnswer(serializers.Serializer[Any]):
    """One recorded decision that would differ; `event` is its audit event."""

    event = serializers.IntegerField()
    occurred_at = serializers.DateTimeField()
    sentence = serializers.CharField()
    recorded = serializers.BooleanField()
    allowed = serializers.BooleanField()
    reason = serializers.CharField()


class FlipGroupAnswer(serializers.Serializer[Any]):
    """Flips of one kind, with a few examples."""

    action = serializers.CharField()
    resource_type = serializers.CharField()
    allowed = serializers.BooleanField()
    rules_before = serializers.ListField(child=serializers.CharField())
    rules_after = serializers.ListField(child=serializers.CharField())
    count = serializers.IntegerField()
    examples = FlipAnswer(many=True)


class ReplayAnswer(serializers.Serializer[Any]):
    """A dry run: decisions made again under the policy in force, `before`, and another, `after`."""

    before = serializers.IntegerField()
    after = serializers.IntegerField()
    asked = serializers.IntegerField()
    replayed = serializers.IntegerField()
    unreadable = serializers.IntegerField()
    drifted = serializers.IntegerField()
    flips = serializers.IntegerField()
    now_denied = serializers.IntegerField()
    now_allowed = serializers.IntegerField()
    oldest = serializers.DateTimeField(allow_null=True)
    newest = serializers.DateTimeField(allow_null=True)
    took_ms = serializers.IntegerField()
    groups = FlipGroupAnswer(many=True)


class HolderAnswer(serializers.Serializer[Any]):
    """A person or key that may, and by which rules."""

    kind = serializers.CharField(source="principal.kind")
    id = serializers.CharField(source="principal.id")
    name = serializers.CharField(source="principal.name")
    department = serializers.CharField(source="principal.department", allow_null=True)
    rules = serializers.ListField(child=serializers.CharField(), source="decision.rules")
    reason = serializers.CharField(source="decision.reason")


class HoldersAnswer(serializers.Serializer[Any]):
    """Principals who can: the first 500 of each kind, by name; their number, and the number
    checked.
    """

    people = HolderAnswer(many=True)
    keys = HolderAnswer(many=True)
    people_total = serializers.IntegerField()
    keys_total = serializers.IntegerField()
    people_asked = serializers.IntegerField()
    keys_asked = serializers.IntegerField()


class ConditionTraceAnswer(serializers.Serializer[Any]):
    """One condition: what it wanted, what it found. `holds` is null when it could not be told."""

    attribute = serializers.CharField()
    operator = serializers.CharField()
    value = serializers.JSONField(allow_null=True)
    actual = serializers.JSONField(allow_null=True)
    holds = serializers.BooleanField(allow_null=True)
    words = serializers.CharField()
    why = serializers.CharField()


class RuleTraceAnswer(serializers.Serializer[Any]):
    """Result of one rule: `holds`, `fails`, `errs`, `other_actors` or `other_resources`."""

    rule = serializers.CharField()
    effect = serializers.CharField()
    description = serializers.CharField()
    verdict = serializers.CharField()
    why = serializers.CharField()
    conditions = ConditionTraceAnswer(many=True)


class ExplanationAnswer(serializers.Serializer[Any]):
    """A decision, and every rule about the action: those that made it first."""

    allowed = serializers.BooleanField(source="decision.allowed")
    policy = serializers.IntegerField(source="decision.policy_version")
    reason = serializers.CharField(source="decision.reason")
    decisive = serializers.ListField(child=serializers.CharField(), source="decision.rules")
    asked = serializers.SerializerMethodField()
    rules = RuleTraceAnswer(many=True)

    def get_asked(self, explanation: Any) -> dict[str, Any]:
        asked = explanation.asked
        return inputs(asked.actor, asked.action, asked.resource, asked.context)


class EventExplanationAnswer(serializers.Serializer[Any]):
    """A recorded decision, and how it comes about under the policy of then and of now. `then` is
    null when that is the one in force.
    """

    event = serializers.IntegerField(source="event.pk")
    recorded = serializers.BooleanField()
    rules = serializers.ListField(child=serializers.CharField())
    then = ExplanationAnswer(allow_null=True)
    now = ExplanationAnswer()
