"""What must hold before a release may be approved: checked by machine, or attested."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from governance.reviews.services import ChecklistEntry
from governance.rowsecurity import lifted
from registry import store
from registry.catalogue import get_task
from registry.evaluations.models import Evaluation, Gate
from registry.intake.models import IntakeState
from registry.manifests import Manifest, ManifestMismatch, verify_folder
from registry.releases.dossier import version_evaluations
from registry.versions.models import ModelVersion
from registry.versions.selectors import base_chain

# A test set may share at most this part of its rows with the training data.
LEAK_TOLERANCE = 0.01
# Nothing serves whose bytes or origin are not what was approved; no second person changes that.
NEVER_WAIVED = frozenset({"digest", "intake"})
ATTESTED = (
    ChecklistEntry(
        code="purpose",
        title="The purpose is stated and acceptable",
        why="Approval is for this purpose alone.",
    ),
    ChecklistEntry(
        code="oversight",
        title="Human oversight is named",
        why="Someone must be able to notice a wrong answer and to stop it.",
    ),
    ChecklistEntry(
        code="classification",
        title="The data's classification fits the departments and the purpose",
        why="What a model learnt, it may repeat to whoever uses it.",
    ),
)


@lifted()
def checklist_build(version: ModelVersion, dossier: dict[str, Any]) -> list[ChecklistEntry]:
    """Every item, with the automatic ones decided. Hashes the version's stored files."""
    tier = str(dossier["risk"]["tier"])
    chain = [version, *base_chain(version)]
    return [
        _bytes(chain),
        _licence(chain),
        _evaluated(version, dossier, tier),
        _gates(version, tier),
        _leak(dossier),
        _intake(chain[-1]),
        *ATTESTED,
    ]


def _automatic(code: str, title: str, why: str, passed: bool, note: str) -> ChecklistEntry:
    return ChecklistEntry(
        code=code,
        title=title,
        why=why,
        automatic=True,
        passed=passed,
        note=note,
        waivable=code not in NEVER_WAIVED,
    )


def _bytes(chain: Iterable[ModelVersion]) -> ChecklistEntry:
    notes, passed = [], True
    for version in chain:
        manifest = Manifest.from_json(version.manifest)
        try:
            if manifest.digest != version.digest:
                raise ManifestMismatch("The recorded manifest is not that of the digest.", path="")
            verify_folder(store.version_folder(version.digest), manifest)
            notes.append(f"{version}: {len(manifest.files)} files match.")
        except ManifestMismatch as error:
            passed = False
            notes.append(f"{version}: {error.message}")
    return _automatic(
        "digest",
        "Every stored file has the digest that the dossier names",
        "What is approved must be what is there.",
        passed,
        " ".join(notes),
    )


def _licence(chain: Iterable[ModelVersion]) -> ChecklistEntry:
    without = [str(version) for version in chain if not version.licence]
    named = ", ".join(sorted({version.licence for version in chain if version.licence}))
    return _automatic(
        "licence",
        "The licence is recorded, of the version and of what it stands on",
        "Use must be within its terms.",
        not without,
        f"None is recorded for {', '.join(without)}." if without else named,
    )


def _evaluated(version: ModelVersion, dossier: dict[str, Any], tier: str) -> ChecklistEntry:
    trained_on = dossier["data"]["digest"] if dossier["data"] else None
    held_out = [each for each in dossier["evaluations"] if each["dataset_digest"] != trained_on]
    if held_out:
        sizes = ", ".join(f"{each['dataset']}: {each['sample_size']} rows" for each in held_out)
        passed, note = True, f"Measured on {sizes}."
    elif not get_task(version.model.task).evaluator:
        passed, note = True, f"Not applicable: {version.model.task} has no evaluation."
    elif tier == "minimal":
        passed, note = True, "Not evaluated; the tier minimal does not ask for it."
    else:
        passed, note = False, "There is no evaluation on data that it was not trained on."
    return _automatic(
        "evaluated",
        "It was evaluated on held-out data",
        "What was measured on training data says nothing about use.",
        passed,
        note,
    )


def _gates(version: ModelVersion, tier: str) -> ChecklistEntry:
    gates = list(Gate.objects.filter(model=version.model).select_related("dataset"))
    evaluations = version_evaluations(version)
    unmet = [
        f"{gate} on {gate.dataset.name}: {why}"
        for gate in gates
        if (why := _why_unmet(gate, evaluations))
    ]
    if not gates:
        note = "No gate is set on this model."
    else:
        note = " ".join(f"{each}." for each in unmet) or f"All {len(gates)} gates passed."
    return _automatic(
        "gates",
        "Every gate that was set beforehand is passed",
        "A threshold chosen after the result is no threshold.",
        not unmet and (bool(gates) or tier != "high"),
        note,
    )


def _why_unmet(gate: Gate, evaluations: list[Evaluation]) -> str:
    """Why the newest evaluation on the gate's data does not meet it; empty when it does."""
    measured = [each for each in evaluations if each.dataset_version.dataset_id == gate.dataset_id]
    if not measured:
        return "not measured"
    for result in measured[-1].gate_results.all():
        if result.gate_id == gate.pk and result.threshold == gate.threshold:
            value = "not measured" if result.value is None else f"{result.value:.4g}"
            return "" if result.passed else f"failed with {value}"
    return "set after the newest evaluation started"


def _leak(dossier: dict[str, Any]) -> ChecklistEntry:
    notes, passed = [], True
    for each in dossier["evaluations"]:
        shared, rows = each["rows_in_training_data"], each["rows"]
        passed = passed and shared <= rows * LEAK_TOLERANCE
        notes.append(f"{each['dataset']}: {shared} of {rows} rows stand in the training data.")
    return _automatic(
        "leak",
        "Training and test data are apart",
        f"At most {LEAK_TOLERANCE:.0%} of the test rows may stand in the training data.",
        passed,
        " ".join(notes) or "Nothing to compare.",
    )


def _intake(root: ModelVersion) -> ChecklistEntry:
    intake = getattr(root, "intake", None)
    signed = intake is not None and intake.state == IntakeState.TRUSTED
    signer = intake.signed_by if intake is not None else None
    note = f"{root} was signed off by person {signer.pk}." if signer else f"{root} has no intake."
    return _automatic(
        "intake",
        "What it stands on came in through a signed intake",
        "Nothing is trusted whose origin nobody vouched for.",
        signed,
        note,
    )
