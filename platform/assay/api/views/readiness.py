"""Readiness of a version for release."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.registry import GateAnswer, VersionReference
from assay.api.routes import Routes
from governance.principals import Principal
from registry.evaluations.standing import GateState
from registry.releases.readiness import Blocks, Readiness, ReadinessState, version_readiness
from registry.releases.schemas import ReadinessFilter
from registry.versions.selectors import version_get


class FixAnswer(serializers.Serializer[Any]):
    """Portal page on which to meet a missing requirement, and the ID or name of its subject."""

    page = serializers.CharField()
    id = serializers.CharField()


class RequirementAnswer(serializers.Serializer[Any]):
    """One requirement of the release. `blocks` is `submission`, `approval` or empty."""

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
    """Numbers of reviewers of one specialty: `able` can decide now; `had_part`, `new` and `away`
    cannot. `short`: there are too few for the required approvals."""

    specialty = serializers.CharField()
    needed = serializers.IntegerField()
    able = serializers.IntegerField()
    had_part = serializers.IntegerField()
    new = serializers.IntegerField()
    away = serializers.IntegerField()
    short = serializers.BooleanField()


class ReadinessAnswer(serializers.Serializer[Any]):
    """All requirements for a release of the version in the tier. `attested` are the items that
    reviewers attest; `can_submit` is false while a requirement blocks the submission."""

    version = VersionReference()
    tier = serializers.CharField()
    tiers = serializers.DictField(child=serializers.CharField())
    can_submit = serializers.BooleanField()
    requirements = RequirementAnswer(many=True)
    gates = GateStandingAnswer(many=True)
    reviewers = ReviewerCountAnswer(many=True)
    attested = serializers.ListField(child=serializers.CharField())


routes = Routes("Models", ReadinessAnswer)


@routes.get(
    "versions/<id:version_id>/readiness",
    "List the requirements for a release of this version, and those that are missing",
    name="readiness_get",
)
def show(actor: Principal, version_id: int, query: ReadinessFilter) -> Readiness:
    version = version_get(actor=actor, id=version_id)
    return version_readiness(actor=actor, version=version, tier=query.tier or "")
