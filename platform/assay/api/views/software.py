"""Software of the installation: packages of tasks, and answers that upgrades changed."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.routes import Routes
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from registry.catalog import codes_here
from registry.releases.equivalence.selectors import changed_in_words
from workers.deployments.software import code_differences, live_checks_changed


class CodeAnswer(serializers.Serializer[Any]):
    """The packages of a task that Assay itself does not provide."""

    digest = serializers.CharField()
    packages = serializers.CharField()


class CodeDifferenceAnswer(serializers.Serializer[Any]):
    """A process whose packages of a task differ from the web process's; empty if one has none."""

    task = serializers.CharField()
    process = serializers.CharField()
    there = serializers.CharField()
    here = serializers.CharField()


class ChangedAnswer(serializers.Serializer[Any]):
    """A live release whose answers differ, or cannot be compared, with the current software of a
    worker."""

    release = serializers.IntegerField(source="release_id")
    deployment = serializers.CharField(source="release.deployment_name")
    worker = serializers.CharField()
    outcome = serializers.CharField()
    words = serializers.SerializerMethodField()

    def get_words(self, check: Any) -> str:
        return changed_in_words(check)


class SoftwareAnswer(serializers.Serializer[Any]):
    """Packages of tasks in the web process, processes with different ones, and changed answers."""

    tasks = serializers.DictField(child=CodeAnswer())
    differences = CodeDifferenceAnswer(many=True)
    changed = ChangedAnswer(many=True)


routes = Routes("Nodes", SoftwareAnswer)


@routes.get(
    "software",
    "List packages of tasks that differ between processes, and answers that upgrades changed",
)
def show(actor: Principal) -> dict[str, Any]:
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    return {
        "tasks": codes_here(),
        "differences": code_differences(),
        "changed": live_checks_changed(),
    }
