"""Readiness of a version for release."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, StrictSerializer
from assay.api.representations.registry import GateAnswer, VersionReference
from governance.bounds import TIER_MAX
from registry.evaluations.standing import GateState
from registry.releases.readiness import Blocks, ReadinessState, version_readiness
from registry.versions.selectors import version_get


class FixAnswer(serializers.Serializer[Any]):
    """Page of the portal where a missing requirement is met, and the id or name of its subject."""

    page = serializers.CharField()
    id = serializers.CharField()


class RequirementAnswer(serializers.Serializer[Any]):
    """One thing that the release needs. `blocks` is `submission`, `approval` or empty."""

    code = serializers.CharField()
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=[each.value for each in ReadinessState])
    note = serializers.CharField()
    blocks = serializers.ChoiceField(choices=[each.value for each in Blocks])
    waivable = serializers.BooleanField()
    fix = FixAnswer(allow_null=True)


class GateStandingAnswer(serializers.Serializer[Any]):
    """A gate and the version's newest result against it."""

    gate = GateAnswer()
    state = serializers.ChoiceField(choices=[each.value for each in GateState])
    value = serializers.FloatField(allow_null=True)
    evaluation = serializers.IntegerField(source="evaluation.pk", default=None, allow_null=True)
    on_training_data = serializers.BooleanField(
        help_text="The result was measured on data that the version was trained on."
    )


class ReviewerCountAnswer(serializers.Serializer[Any]):
    """Reviewers of one specialty. `able` can decide now; `had_part`, `new` and `away` are the
    others. `short`: these approvals cannot all be given."""

    specialty = serializers.CharField()
    needed = serializers.IntegerField()
    able = serializers.IntegerField()
    had_part = serializers.IntegerField()
    new = serializers.IntegerField()
    away = serializers.IntegerField()
    short = serializers.BooleanField()


class ReadinessAnswer(serializers.Serializer[Any]):
    """Everything that a release of the version needs under the tier. `attested` are the items that
    reviewers judge; `can_submit` is false while something blocks the submission."""

    version = VersionReference()
    tier = serializers.CharField()
    tiers = serializers.DictField(child=serializers.CharField())
    can_submit = serializers.BooleanField()
    requirements = RequirementAnswer(many=True)
    gates = GateStandingAnswer(many=True)
    reviewers = ReviewerCountAnswer(many=True)
    attested = serializers.ListField(child=serializers.CharField())


class ReadinessQuery(StrictSerializer):
    """Without a tier, the lowest one that the training data allows."""

    tier = Line(max_length=TIER_MAX, required=False)


class ReadinessView(Endpoint):
    """The needs of a release of one version."""

    @operation(
        "Models",
        "What a release of this version needs, and what is missing now",
        query=ReadinessQuery,
        answer=ReadinessAnswer,
    )
    def get(self, request: Request, version_id: int) -> Response:
        given = self.query(ReadinessQuery)
        version = version_get(actor=self.actor, id=version_id)
        found = version_readiness(actor=self.actor, version=version, **given)
        return self.answer(found, ReadinessAnswer)
