"""Standing of a release in an environment: it may serve there, or must be compared first.

A release may serve with the software that its answers were measured with, and with other software
once it gave the same answers there. For other results, its review policy decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from registry.canonical import json_digest
from registry.catalog import TASKS
from registry.catalog.answers import tolerance_of, tolerance_to_json
from registry.catalog.engines import EngineName
from registry.evaluations.models import Evaluation
from registry.releases.equivalence.models import EQUIVALENT, EquivalenceOutcome

SUSPEND, ALARM = "suspend", "alarm"


class Standing(StrEnum):
    """`ACCEPTED`: it may serve. `DUE`: it must be compared first. `REFUSED`: it may not serve."""

    ACCEPTED = "accepted"
    DUE = "due"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Named:
    """Terms in a dossier: the policy, the digest of the answers to compare with (empty if none),
    their evaluation, and fingerprints of the environments that need no comparison.
    """

    policy: str = SUSPEND
    reference: str = ""
    evaluation: int = 0
    environments: frozenset[str] = frozenset()


def fingerprint_of(versions: Mapping[str, str]) -> str:
    """Return the SHA-256 of an environment's versions."""
    return json_digest(dict(versions))


def standing_in(named: Named, fingerprint: str, outcomes: Collection[str]) -> Standing:
    """Return the standing of a release in an environment, from the outcomes there.

    It was approved for the environments that its dossier names: records of workers about these do
    not count, so that going back to one always works.
    """
    if fingerprint in named.environments:
        return Standing.ACCEPTED
    results = {EquivalenceOutcome(each) for each in outcomes}
    if results - set(EQUIVALENT):
        return Standing.ACCEPTED if named.policy == ALARM else Standing.REFUSED
    return Standing.ACCEPTED if results else Standing.DUE


def equivalence_section(
    task: str,
    evaluations: Collection[Evaluation],
    *,
    engine: str,
    precision: str,
    code: str,
    policy: str,
) -> dict[str, Any]:
    """Return a dossier's section about upgrades: the answers to compare with, the software that
    gave them, the tolerance, and the consequence of a difference.

    The answers come from the newest of `evaluations`, which come oldest first, with this engine,
    precision and code. Software of workers does not suspend a hosted model, whatever the `policy`.
    """
    if engine == EngineName.HOSTED:
        # An upgrade of Assay changes the path to the provider, not the model.
        because = "The provider computes the answers; workers pass them on."
        return {"policy": ALARM, "rows": 0, "because": because}
    section: dict[str, Any] = {"policy": policy, "rows": 0}
    entry = TASKS.get(task)
    if entry is None or entry.evaluation is None:
        return {**section, "because": f"The task {task} has no evaluation."}
    matching = [
        each
        for each in evaluations
        if each.details.get("engine") == engine
        and each.details.get("precision") == precision
        and each.details.get("code") == code
        and each.details.get("environment")
    ]
    repeatable = [each for each in matching if each.details.get("reference", {}).get("rows")]
    if not matching:
        return {
            **section,
            "because": "It was not evaluated with the engine, precision and code that it serves "
            "with.",
        }
    if not repeatable:
        return {**section, "because": "It answers the same requests differently each time."}
    newest = repeatable[-1]
    return {
        **section,
        "rows": newest.details["reference"]["rows"],
        "evaluation": newest.pk,
        "reference": newest.details["reference"]["digest"],
        "environment": newest.details["environment"],
        "tolerance": tolerance_to_json(tolerance_of(entry.outputs)),
    }


def named_in(dossier: Mapping[str, Any]) -> Named:
    """Return what a dossier names. Raises KeyError, TypeError and ValueError."""
    software = dossier["software"]
    stated = software["equivalence"]
    if stated["rows"]:
        return Named(
            policy=str(stated["policy"]),
            reference=str(stated["reference"]),
            evaluation=int(stated["evaluation"]),
            environments=frozenset({fingerprint_of(stated["environment"])}),
        )
    served = frozenset(fingerprint_of(each) for each in software["serves_with"])
    return Named(policy=str(stated["policy"]), environments=served)
