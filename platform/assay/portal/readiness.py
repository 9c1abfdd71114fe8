"""The readiness panel: requirements in words, each with the page that meets it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from assay.portal.access import may
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog import TASKS
from registry.evaluations.standing import GateStanding, GateState
from registry.releases.readiness import (
    Blocks,
    Fix,
    Readiness,
    ReadinessState,
    Requirement,
    version_readiness,
)
from registry.versions.models import ModelVersion

# State: its words, tone and icon, in the order in which the panel lists them.
_SHOWN = {
    ReadinessState.MISSING: ("Missing", "bad", "circle-x"),
    ReadinessState.NEEDS_JUDGMENT: ("Needs judgment", "warn", "eye"),
    ReadinessState.AT_SUBMISSION: ("At submission", "info", "clock"),
    ReadinessState.READY: ("Ready", "ok", "circle-check"),
    ReadinessState.NOT_APPLICABLE: ("Not applicable", "", "circle-minus"),
}
_GATES = {
    GateState.PASSED: ("Passed", "ok", "check"),
    GateState.FAILED: ("Failed", "bad", "x"),
    GateState.NOT_MEASURED: ("Not measured", "bad", "x"),
    GateState.NOT_EVALUATED: ("Not evaluated", "warn", "circle"),
    GateState.SET_LATER: ("Set after the evaluation", "warn", "clock"),
}
_BLOCKS = {
    Blocks.NOTHING: "",
    Blocks.SUBMISSION: "Blocks submission",
    Blocks.APPROVAL: "Blocks approval",
}
# Page of a fix: its address in the portal, and the words of the link.
_PAGES = {
    "incident": ("portal:incident", "Open the incident"),
    "intake": ("portal:intake", "Open the intake"),
    "intake_new": ("portal:intake_new", "Upload files"),
    "model": ("portal:model", "Compare versions"),
    "model_fine_tune": ("portal:model_fine_tune", "Fine-tune"),
    "model_gate": ("portal:model_gate", "Set a gate"),
    "people": ("portal:people", "Appoint a reviewer"),
    "release": ("portal:release", "Open the release"),
    "version": ("portal:version", "Open the version"),
    "version_evaluate": ("portal:version_evaluate", "Evaluate"),
}


@dataclass(frozen=True, slots=True)
class Link:
    """A link to the page that meets a requirement."""

    url: str
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """A requirement as the panel shows it."""

    requirement: Requirement
    words: str
    tone: str
    icon: str
    blocks: str
    link: Link | None

    @property
    def needs_action(self) -> bool:
        """True if the requirement is missing or needs judgment."""
        return self.tone in ("bad", "warn")


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate with its latest result in words."""

    standing: GateStanding
    metric: str
    words: str
    tone: str
    icon: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Readiness of a version, with the missing requirements first."""

    readiness: Readiness
    lines: list[Line]
    gates: list[GateLine]
    missing: int
    ready: int


def readiness_panel(actor: Principal, version: ModelVersion, tier: str = "") -> Panel:
    """Return the panel of a version; raises as `version_readiness`."""
    readiness = version_readiness(actor=actor, version=version, tier=tier)
    appoints = may(actor, Action.ROLE_GRANT, kind="person")
    order = list(_SHOWN)
    counts = Counter(each.state for each in readiness.requirements)
    return Panel(
        readiness=readiness,
        lines=[
            _line(each, appoints=appoints)
            for each in sorted(readiness.requirements, key=lambda each: order.index(each.state))
        ],
        gates=[gate_line(each, version.model.task) for each in readiness.gates],
        missing=counts[ReadinessState.MISSING],
        ready=counts[ReadinessState.READY],
    )


def may_see_readiness(actor: Principal, version: ModelVersion) -> bool:
    """Return true if the actor may call `version_readiness`."""
    department = version.model.department.slug
    return may(actor, Action.RELEASE_VIEW, kind="release", department=department)


def gate_line(standing: GateStanding, task: str) -> GateLine:
    """A gate's latest result in words, with a tone and an icon."""
    words, tone, icon = _GATES[standing.state]
    entry = TASKS.get(task)
    titles = {each.name: each.title for each in entry.metrics} if entry else {}
    metric = standing.gate.metric
    return GateLine(standing, titles.get(metric, metric), words, tone, icon)


def _line(requirement: Requirement, *, appoints: bool) -> Line:
    words, tone, icon = _SHOWN[requirement.state]
    blocks = _BLOCKS[requirement.blocks]
    if blocks and requirement.waivable and requirement.blocks is Blocks.APPROVAL:
        blocks += " unless waived"
    return Line(requirement, words, tone, icon, blocks, _link(requirement.fix, appoints=appoints))


def _link(fix: Fix | None, *, appoints: bool) -> Link | None:
    if fix is None or (fix.page == "people" and not appoints):
        return None
    name, words = _PAGES[fix.page]
    if fix.page == "people":
        return Link(reverse(name), words)
    if fix.page == "intake_new":
        return Link(f"{reverse(name)}?model={fix.id}", words)
    arguments: list[Any] = [fix.id]
    return Link(reverse(name, args=arguments), words)
