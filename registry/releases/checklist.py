"""Preconditions of an approval: the items of the release's review policy, with the results of
automatic checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from governance.english import counted
from governance.reviews.checklist import ChecklistEntry, CheckOutcome
from governance.reviews.policies.document import Item, ReviewPolicyDocument
from governance.rowsecurity import lifted
from registry.catalog import TASKS, task_code
from registry.datasets.models import Classification
from registry.evaluations.drift import drift_in_words
from registry.evaluations.models import Gate
from registry.evaluations.standing import GateStanding, gate_standing
from registry.intake.models import IntakeState
from registry.manifests import FilesUnreadable, Manifest, ManifestMismatch
from registry.releases.dossier import version_evaluations
from registry.releases.dossier_fields import missing_sections
from registry.releases.engines import engine_in_words
from registry.releases.software import code_named, evaluated_with
from registry.releases.tiers import risk_facts
from registry.storage import store
from registry.storage.backend import StoreUnavailable
from registry.versions.hosted import can_be_evaluated
from registry.versions.models import ModelVersion
from registry.versions.selectors import base_chain

# A test set may share at most this part of its rows with the training data.
LEAK_TOLERANCE = 0.01
# Minimum length of a card, title included.
CARD_MIN = 80
# Bytes and origin must always be those approved; neither a policy nor a second person can waive
# that.
NEVER_WAIVED = frozenset({"files", "intake"})
_LEVELS = list(Classification.values)


@dataclass(frozen=True)
class Case:
    """The object of a check, and the policy that requires it."""

    version: ModelVersion
    dossier: dict[str, Any]
    policy: ReviewPolicyDocument

    @cached_property
    def chain(self) -> list[ModelVersion]:
        """The version and its bases."""
        return [self.version, *base_chain(self.version)]

    @cached_property
    def code(self) -> str:
        """Digest of the task's packages: as in the dossier, or installed here before submission."""
        if "software" in self.dossier:
            return str(code_named(self.dossier)["digest"])
        code = task_code(self.version.model.task)
        return "" if code is None else code.digest


Result = tuple[CheckOutcome, str]


@lifted()
def checklist_build(
    version: ModelVersion, dossier: dict[str, Any], policy: ReviewPolicyDocument
) -> list[ChecklistEntry]:
    """Return every item that the policy requires, with automatic checks decided. Hashes the
    version's stored files if the policy requires that.
    """
    case = Case(version, dossier, policy)
    facts = risk_facts(version, dossier["risk"]["answers"])
    return [_entry(item, case) for item in policy.items_for(facts)]


def _entry(item: Item, case: Case) -> ChecklistEntry:
    # An older policy may name a check that no longer exists.
    check = CHECKS.get(item.check, _removed_check) if item.check else None
    outcome, note = check(case) if check else (None, "")
    return ChecklistEntry(
        code=item.code,
        title=item.title,
        why=item.why,
        outcome=outcome,
        note=note,
        waivable=item.waivable and item.check not in NEVER_WAIVED,
    )


def _decided(passed: bool, note: str) -> Result:
    return CheckOutcome.PASSED if passed else CheckOutcome.FAILED, note


def _removed_check(case: Case) -> Result:
    return (
        CheckOutcome.FAILED,
        "This check no longer exists; the review policy needs a new version.",
    )


def files_match(chain: Sequence[ModelVersion]) -> Result:
    """Hash the stored files of each version and compare them with its digest."""
    notes, passed = [], True
    for version in chain:
        manifest = Manifest.from_json(version.manifest)
        try:
            if manifest.digest != version.digest:
                raise ManifestMismatch("The recorded manifest is not that of the digest.", path="")
            store.verify_version(manifest)
            notes.append(f"{version}: {counted(len(manifest.files), 'file')} checked.")
        except (ManifestMismatch, FilesUnreadable, StoreUnavailable) as error:
            passed = False
            notes.append(f"{version}: {error.message}")
    return _decided(passed, " ".join(notes))


def _license(case: Case) -> Result:
    unlicensed = [str(version) for version in case.chain if not version.license]
    licenses = ", ".join(sorted({version.license for version in case.chain if version.license}))
    note = f"None is recorded for {', '.join(unlicensed)}." if unlicensed else licenses
    return _decided(not unlicensed, note)


def _evaluated(case: Case) -> Result:
    task, tier = case.version.model.task, case.policy.name
    evaluations = case.dossier["evaluations"]
    apart = [each for each in evaluations if not each.get("on_training_data")]
    held_out = [each for each in apart if evaluated_with(each) == case.code]
    if apart and not held_out:
        return CheckOutcome.FAILED, (
            "It was measured on held-out data, but with other code of the task than the release "
            "names. Evaluate it again."
        )
    if held_out:
        sizes = ", ".join(
            f"{each['dataset']}: {counted(each['sample_size'], 'row')}" for each in held_out
        )
        note = f"Measured on {sizes}."
        if cut := [each for each in held_out if each.get("rows_cut")]:
            counts = ", ".join(f"{each['rows_cut']} of {each['dataset']}" for each in cut)
            return CheckOutcome.NEEDS_JUDGMENT, (
                f"{note} The model read only a part of some rows: {counts}. Judge whether the "
                "results hold."
            )
        drifts = (drift_in_words(each.get("drift", {})) for each in held_out)
        if drifted := " ".join(filter(None, drifts)):
            return CheckOutcome.NEEDS_JUDGMENT, (
                f"{note} {drifted} Judge whether the earlier results still describe the model."
            )
        return CheckOutcome.PASSED, note
    entry = TASKS.get(task)
    if entry is not None and entry.evaluation is None:
        return CheckOutcome.NOT_APPLICABLE, f"The task {task} has no evaluation."
    if entry is not None and not can_be_evaluated(case.version, entry):
        note = f"The answers of a provider cannot be measured for the task {task}."
        if not case.policy.gates.held_out:
            return CheckOutcome.NOT_APPLICABLE, f"{note} The tier {tier} does not require it."
        return CheckOutcome.FAILED, f"{note} A second person can waive this for a limited time."
    finding, other = "It was not evaluated", "it"
    if evaluations:
        names = {f"{each['dataset']} v{each['dataset_version']}" for each in evaluations}
        finding = f"Only evaluated on training data ({', '.join(sorted(names))})"
        other = "other data"
    if not case.policy.gates.held_out:
        note = f"{finding}, and the tier {tier} does not require {other}."
        return CheckOutcome.NOT_APPLICABLE, note
    return CheckOutcome.FAILED, f"{finding}. Evaluate it on data that it was not trained on."


def version_gates(version: ModelVersion, code: str) -> list[GateStanding]:
    """Return every gate of the version's model, with the version's latest result measured with
    those packages of the task whose digest is `code`."""
    evaluations = [
        each for each in version_evaluations(version) if evaluated_with(each.details) == code
    ]
    gates = Gate.objects.filter(model=version.model).select_related(
        "dataset", "model", "created_by"
    )
    return [gate_standing(gate, evaluations) for gate in gates]


def _gates(case: Case) -> Result:
    gates = version_gates(case.version, case.code)
    unmet = [
        f"{each.gate} on {each.gate.dataset.name}: {each.why}" for each in gates if not each.passed
    ]
    required = case.policy.gates.at_least
    if not gates and not required:
        return CheckOutcome.NOT_APPLICABLE, (
            f"No gate is set on this model, and the tier {case.policy.name} requires none."
        )
    note = " ".join(f"{each}." for each in unmet)
    if not gates:
        note = "No gate is set on this model."
    elif not unmet:
        note = "The gate passed." if len(gates) == 1 else f"All {len(gates)} gates passed."
    if len(gates) < required:
        note += f" The tier {case.policy.name} requires {required}."
    if unmet or len(gates) < required:
        return CheckOutcome.FAILED, note
    if learned := [each for each in gates if each.on_training_data]:
        names = ", ".join(f"{each.gate} on {each.gate.dataset.name}" for each in learned)
        return CheckOutcome.NEEDS_JUDGMENT, f"{note} Measured on training data: {names}."
    return CheckOutcome.PASSED, note


def _as_served(check: Callable[[Case], Result]) -> Callable[[Case], Result]:
    """Leave a passed check to a reviewer if the engine or precision measured is not the one that
    serves.
    """

    def checked(case: Case) -> Result:
        outcome, note = check(case)
        # Before submission, no engine is chosen.
        if outcome is not CheckOutcome.PASSED or "serving" not in case.dossier:
            return outcome, note
        serves = engine_in_words(case.dossier["serving"])
        measured = sorted({*map(engine_in_words, case.dossier["evaluations"])} - {serves})
        if not measured:
            return outcome, note
        return CheckOutcome.NEEDS_JUDGMENT, (
            f"{note} Measured with {' and '.join(measured)}, serves with {serves}. Judge whether "
            "the results hold."
        )

    return checked


def _leak(case: Case) -> Result:
    notes, passed, judged = [], True, False
    for each in case.dossier["evaluations"]:
        shared, rows = each["rows_in_training_data"], each["rows"]
        passed = passed and shared <= rows * LEAK_TOLERANCE
        verb = "is" if shared == 1 else "are"
        notes.append(
            f"{each['dataset']}: {shared} of {counted(rows, 'row')} {verb} in the training data."
        )
        # Small or plain images can look alike by accident, so reviewers judge these.
        if alike := each.get("rows_alike_in_training_data"):
            notes.append(f"{alike} more hold an image that looks like one of the training data.")
            judged = judged or shared + alike > rows * LEAK_TOLERANCE
    if not notes:
        return CheckOutcome.NOT_APPLICABLE, "It was not evaluated; there are no rows to compare."
    if not trained_levels(case.chain):
        return CheckOutcome.NOT_APPLICABLE, (
            "No training data is registered for this version or its bases; there are no rows to "
            "compare."
        )
    note = f"{' '.join(notes)} At most {LEAK_TOLERANCE:.0%} may."
    return (CheckOutcome.NEEDS_JUDGMENT, note) if passed and judged else _decided(passed, note)


def origin_signed(chain: Sequence[ModelVersion]) -> Result:
    """Check that the intake of the last version in the chain was signed off."""
    root = chain[-1]
    intake = getattr(root, "intake", None)
    signed = intake is not None and intake.state == IntakeState.TRUSTED
    signer = intake.signed_by if intake is not None else None
    return _decided(
        signed,
        f"{root} was signed off by person {signer.pk}." if signer else f"{root} has no intake.",
    )


def _card(case: Case) -> Result:
    length = len(str(case.dossier["card"]).strip())
    if length < CARD_MIN:
        return CheckOutcome.FAILED, f"It has {length:,} characters; {CARD_MIN} are the minimum."
    # A machine can measure a card, but not judge whether it states the excluded uses.
    return CheckOutcome.NEEDS_JUDGMENT, f"The card has {length:,} characters. Read it and judge."


def trained_levels(chain: Sequence[ModelVersion]) -> dict[str, str]:
    """Return the classification of each dataset that the versions were trained on, by name."""
    return {
        each.dataset_version.dataset.name: each.dataset_version.dataset.classification
        for each in chain
        if each.dataset_version is not None
    }


def _classification(case: Case) -> Result:
    trained = trained_levels(case.chain)
    stated = case.dossier["risk"]["answers"].get("data_classification", _LEVELS[0])
    above = {
        name: level
        for name, level in trained.items()
        if _LEVELS.index(level) > _LEVELS.index(stated)
    }
    if above:
        named = ", ".join(f"{name} is {level}" for name, level in sorted(above.items()))
        return CheckOutcome.FAILED, f"The release states {stated}, but {named}."
    if not trained:
        return CheckOutcome.NOT_APPLICABLE, (
            f"The release states {stated}. No training data is registered here to compare it with."
        )
    levels = ", ".join(f"{name}: {level}" for name, level in sorted(trained.items()))
    return CheckOutcome.PASSED, f"The release states {stated}. Trained on {levels}."


def _complete(case: Case) -> Result:
    missing = missing_sections(case.policy.name, case.dossier)
    if missing:
        return CheckOutcome.FAILED, f"Missing: {', '.join(missing)}."
    return CheckOutcome.PASSED, "Every required section is filled in."


# Decided only at submission: the form states the first two, and hashing every file takes long.
AT_SUBMISSION = frozenset({"classification", "dossier", "files"})


def early_results(case: Case) -> dict[str, Result]:
    """Results of every check that can be made before the release form is filled in."""
    return {name: check(case) for name, check in CHECKS.items() if name not in AT_SUBMISSION}


# By the names in `registry.releases.vocabulary`.
CHECKS: dict[str, Callable[[Case], Result]] = {
    "card": _card,
    "classification": _classification,
    "dossier": _complete,
    "evaluated": _as_served(_evaluated),
    "files": lambda case: files_match(case.chain),
    "gates": _as_served(_gates),
    "intake": lambda case: origin_signed(case.chain),
    "leak": _leak,
    "license": _license,
}
