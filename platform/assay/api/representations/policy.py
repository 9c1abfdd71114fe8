"""Policies, dry runs and explanations."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference
from governance.policy.decisions import inputs
from governance.policy.lifecycle import content_digest


class PolicyVersionAnswer(serializers.Serializer[Any]):
    """A policy without its content. `based_on` is the policy in force when it was drafted."""

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
    """A policy with its content. `content_digest` changes with rules, tests and note; `authors` are
    the IDs of the people who edited it, who cannot decide on it.
    """

    rules = serializers.JSONField()
    tests = serializers.JSONField()
    content_digest = serializers.SerializerMethodField()
    authors = serializers.ListField(child=serializers.IntegerField())

    def get_content_digest(self, version: Any) -> str:
        return content_digest(version)


class PolicyDocumentAnswer(serializers.Serializer[Any]):
    """A policy as YAML, which can be imported again without changes."""

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
    """A rule before and after; `members` are the names of changed members."""

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
    """One recorded decision that would change; `event` is its audit event."""

    event = serializers.IntegerField()
    occurred_at = serializers.DateTimeField()
    sentence = serializers.CharField()
    recorded = serializers.BooleanField()
    allowed = serializers.BooleanField()
    reason = serializers.CharField()


class FlipGroupAnswer(serializers.Serializer[Any]):
    """Changed decisions of one kind, with a few examples."""

    action = serializers.CharField()
    resource_type = serializers.CharField()
    allowed = serializers.BooleanField()
    rules_before = serializers.ListField(child=serializers.CharField())
    rules_after = serializers.ListField(child=serializers.CharField())
    count = serializers.IntegerField()
    examples = FlipAnswer(many=True)


class ReplayAnswer(serializers.Serializer[Any]):
    """A dry run: decisions repeated under the policy in force, `before`, and another, `after`."""

    before = serializers.IntegerField()
    after = serializers.IntegerField()
    asked = serializers.IntegerField(source="limit")
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
    """A person or key with permission, and the rules that grant it."""

    kind = serializers.CharField(source="principal.kind")
    id = serializers.CharField(source="principal.id")
    name = serializers.CharField(source="principal.name")
    department = serializers.CharField(source="principal.department", allow_null=True)
    rules = serializers.ListField(child=serializers.CharField(), source="decision.rules")
    reason = serializers.CharField(source="decision.reason")


class HoldersAnswer(serializers.Serializer[Any]):
    """Principals with permission: the first 500 of each kind by name, their total number, and the
    number checked.
    """

    people = HolderAnswer(many=True)
    keys = HolderAnswer(many=True)
    people_total = serializers.IntegerField()
    keys_total = serializers.IntegerField()
    people_asked = serializers.IntegerField(source="people_checked")
    keys_asked = serializers.IntegerField(source="keys_checked")


class ConditionTraceAnswer(serializers.Serializer[Any]):
    """One condition with its expected and actual value. `holds` is null if it is unknown."""

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
    """A decision with every rule about the action, decisive rules first."""

    allowed = serializers.BooleanField(source="decision.allowed")
    policy = serializers.IntegerField(source="decision.policy_version")
    reason = serializers.CharField(source="decision.reason")
    decisive = serializers.ListField(child=serializers.CharField(), source="decision.rules")
    asked = serializers.SerializerMethodField()
    rules = RuleTraceAnswer(many=True)

    def get_asked(self, explanation: Any) -> dict[str, Any]:
        query = explanation.inputs
        return inputs(query.actor, query.action, query.resource, query.context)


class EventExplanationAnswer(serializers.Serializer[Any]):
    """A recorded decision, explained under the policy of that time and the current one. `then` is
    null if both are the same.
    """

    event = serializers.IntegerField(source="event.pk")
    recorded = serializers.BooleanField()
    rules = serializers.ListField(child=serializers.CharField())
    then = ExplanationAnswer(allow_null=True)
    now = ExplanationAnswer()
