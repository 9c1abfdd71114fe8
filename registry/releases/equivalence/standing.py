"""Standing of a release in an environment: may it serve there, or must it be compared first?

A release may serve with the software that its answers were measured with; with any other once it
gave the same answers. What is decided otherwise is up to its review policy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from registry.canonical import json_digest
from registry.catalog import TASKS
from registry.catalog.answers import tolerance_of, tolerance_to_json
from registry.evaluations.models import Evaluation
from registry.releases.equivalence.models import EQUIVALENT, EquivalenceOutcome

SUSPEND, ALARM = "suspend", "alarm"
# Dossiers that were frozen before they named software promised nothing.
BEFORE = ALARM


class Standing(StrEnum):
    """`ACCEPTED`: it may serve. `DUE`: it is to be compared first. `REFUSED`: it may not serve."""

    ACCEPTED = "accepted"
    DUE = "due"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Named:
    """Terms in a dossier: the policy, the digest of the answers to compare with, empty without
    any, the evaluation that has them, and fingerprints of the environments that need no comparison.
    """

    policy: str = BEFORE
    reference: str = ""
    evaluation: int = 0
    environments: frozenset[str] = frozenset()


def fingerprint_of(versions: Mapping[str, str]) -> str:
    """Return the SHA-256 of an environment's versions."""
    return json_digest(dict(versions))


def standing_in(named: Named, fingerprint: str, outcomes: Collection[str]) -> Standing:
    """Return the standing of a release in an environment, from what was found there.

    It was approved for the environments that its dossier names: nothing that a worker records about
    one of these counts, so that there is always a way back.
    """
    if fingerprint in named.environments:
        return Standing.ACCEPTED
    found = {EquivalenceOutcome(each) for each in outcomes}
    if found - set(EQUIVALENT):
        return Standing.ACCEPTED if named.policy == ALARM else Standing.REFUSED
    return Standing.ACCEPTED if found else Standing.DUE


def equivalence_section(
    task: str,
    evaluations: Collection[Evaluation],
    *,
    engine: str,
    precision: str,
    code: str,
    policy: str,
) -> dict[str, Any]:
    """Return what a dossier states about upgrades: the answers that they are compared with, the
    software that gave these, the tolerance, and what follows from a difference.

    The answers are those of the newest of `evaluations`, which come oldest first, that was made
    with this engine, precision and code.
    """
    stated: dict[str, Any] = {"policy": policy, "rows": 0}
    known = TASKS.get(task)
    if known is None or known.evaluation is None:
        return {**stated, "because": f"The task {task} has no evaluation."}
    alike = [
        each
        for each in evaluations
        if each.details.get("engine") == engine
        and each.details.get("precision") == precision
        and each.details.get("code") == code
        and each.details.get("environment")
    ]
    kept = [each for each in alike if each.details.get("reference", {}).get("rows")]
    if not alike:
        return {
            **stated,
            "because": "It was not evaluated with the engine, precision and code that it serves "
            "with.",
        }
    if not kept:
        return {**stated, "because": "It answers the same requests differently each time."}
    newest = kept[-1]
    return {
        **stated,
        "rows": newest.details["reference"]["rows"],
        "evaluation": newest.pk,
        "reference": newest.details["reference"]["digest"],
        "environment": newest.details["environment"],
        "tolerance": tolerance_to_json(tolerance_of(known.outputs)),
    }


def named_in(dossier: Mapping[str, Any]) -> Named:
    """Return what a dossier of any format names. Raises KeyError, TypeError and ValueError."""
    software = dossier.get("software") or {}
    stated = software.get("equivalence")
    if not stated:
        return Named()
    if stated["rows"]:
        return Named(
            policy=str(stated["policy"]),
            reference=str(stated["reference"]),
            evaluation=int(stated["evaluation"]),
            environments=frozenset({fingerprint_of(stated["environment"])}),
        )
    served = frozenset(fingerprint_of(each) for each in software.get("serves_with", ()))
    return Named(policy=str(stated["policy"]), environments=served)
