"""Execution of each kind of job: verified private copies in, one call, a result out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings

from governance.errors import InvalidInput
from registry import store
from registry.catalog import get_task, package_of
from registry.catalog.columns import media_columns
from registry.catalog.declaration import Task
from registry.catalog.engines import EngineName, engine_class
from registry.catalog.prompt import PROMPT_FILE, PromptDocument
from registry.datasets.models import DatasetVersion
from registry.datasets.stored import media_records
from registry.intake.bounded import check_bounded
from registry.intake.checks import Limits
from registry.intake.models import Intake
from registry.manifests import (
    Manifest,
    ManifestFile,
    ManifestMismatch,
    build_manifest,
    copy_verified,
)
from registry.releases.engines import Precision
from registry.versions.model_code import known_code
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.weights import measuring_engine
from workers.engines.model_code import Code, Refused, model_code
from workers.engines.names import load_name
from workers.jobs import workspace
from workers.jobs.leases import Claim
from workers.jobs.models import JobKind
from workers.tasks.checkpoints import checkpoint_to_resume
from workers.tasks.progress import LeasedProgress
from workers.trainers.protocol import (
    BadMaterial,
    EvaluationPlan,
    EvaluationRequest,
    EvaluationResult,
    Judge,
    TrainingRequest,
    TrainingResult,
)

# Whose versions are kept with what was trained, by the name that both imports and registries know.
LIBRARIES = ("torch", "transformers", "diffusers", "peft", "trl", "accelerate", "safetensors")


def execute(claim: Claim, progress: LeasedProgress) -> dict[str, Any]:
    """Run the claimed job; the result is what `job_finish` registers.

    Raises:
        BadMaterial: what it was given cannot be used; trying again is of no use.
        Cancelled: it stopped because `progress.should_stop()` said so.
        DomainError: bytes differ from their manifest.
    """
    run = _RUNS[JobKind(claim.kind)]
    return {**run(claim, progress), "fence": claim.fence, "attempt": claim.attempt}


def set_threads() -> None:
    """Let torch use as many threads as the settings allow one job."""
    import torch

    torch.set_num_threads(settings.COMPUTE_THREADS)


def output_of(claim: Claim) -> Path:
    """Make the folder of what this attempt delivers."""
    folder = workspace.output_folder(claim.job_id, claim.fence)
    folder.mkdir(parents=True)
    return folder


def version_copy(claim: Claim, version: ModelVersion, name: str) -> Path:
    """Return a verified private copy of a version's files."""
    manifest = Manifest.from_json(version.manifest)
    if manifest.digest != version.digest:
        raise BadMaterial(f"The manifest of {version} does not have the digest {version.digest}.")
    target = workspace.inputs_folder(claim.job_id, claim.fence) / name
    store.copy_version(manifest, target)
    return target


def _data_copy(claim: Claim, data: DatasetVersion, folder: str = "data") -> Path:
    rows = ManifestFile("data.jsonl", data.size_bytes, data.digest)
    target = workspace.inputs_folder(claim.job_id, claim.fence) / folder
    store.copy_version(Manifest(files=(rows,)), target)
    return target / rows.path


def _media_copy(claim: Claim, task: Task, *data: DatasetVersion) -> Path | None:
    """Copy the media that the rows name into one folder, under their SHA-256, and verify them.

    Returns None for data whose rows name no media. Raises BadMaterial and Unavailable.
    """
    rows = [task.row_kind(version.dataset.row_kind).row for version in data]
    if not any(media_columns(row) for row in rows):
        return None
    target = workspace.inputs_folder(claim.job_id, claim.fence) / "media"
    target.mkdir(parents=True)
    for version in data:
        records = media_records(version)
        store.files_fetch(records)
        for sha256 in records:
            copy = target / sha256
            if copy.exists():
                continue
            try:
                content = store.file_bytes(sha256)
            except OSError as error:
                raise BadMaterial(f"The store lacks {sha256}, a file of {version}.") from error
            except ManifestMismatch as error:
                raise BadMaterial(
                    f"{sha256}, a file of {version}, has other bytes in the store."
                ) from error
            copy.write_bytes(content)
    return target


def _intake(claim: Claim, progress: LeasedProgress) -> dict[str, Any]:
    intake = Intake.objects.get(pk=claim.spec["intake"])
    progress.enter("checking")
    progress.log(f"Checking {len(intake.files)} files.")
    delivered = Manifest(
        files=tuple(ManifestFile(f["name"], f["size"], f["sha256"]) for f in intake.files)
    )
    folder = workspace.inputs_folder(claim.job_id, claim.fence) / "delivery"
    copy_verified(store.quarantine_folder(intake.pk), folder, delivered)
    checks = check_bounded(folder, Limits(max_bytes=settings.INTAKE_MAX_BYTES))
    findings = [asdict(finding) for finding in checks]
    for finding in findings:
        verdict = "passed" if finding["passed"] else "FAILED"
        progress.log(f"{verdict}: {finding['check']}: {finding['detail']}")
    if failed := [finding for finding in findings if not finding["passed"]]:
        return {"rejected": failed[0]["detail"], "findings": findings}
    progress.enter("converting")
    output = output_of(claim)
    task = get_task(claim.spec["task"])
    converted: dict[str, Any]
    if intake.keep_gguf:
        keep = load_name("workers.trainers.kept_gguf:keep_gguf")
        converted = keep(folder, output, task.architectures, progress)
        findings.append({"check": "quantization", "passed": True, "detail": converted["notes"]})
    else:
        convert = load_name("workers.trainers.convert:convert")
        converted = convert(
            folder, output, task.architectures, progress, components=task.components
        )
    progress.enter("trying its code")
    try:
        code = model_code(output, passes=known_code().__contains__)
    except Refused as refused:
        detail = f"{refused}."
        progress.log(f"FAILED: code: {detail}")
        return {
            "rejected": detail,
            "findings": [*findings, {"check": "code", "passed": False, "detail": detail}],
        }
    findings.append({"check": "code", "passed": True, "detail": code_summary(code)})
    progress.enter("hashing")
    return {
        "findings": findings,
        "code": [each.to_json() for each in code],
        "converted": converted,
        "manifest": build_manifest(output).to_json(),
    }


def code_summary(code: Sequence[Code]) -> str:
    """A sentence on the code that a delivery brings along."""
    if not code:
        return "It brings no chat template and no tokenizer pattern along."
    known = known_code()
    told = (
        f"{each.kind} in {each.path} ({known.get(each.sha256) or 'not a known one'})"
        for each in code
    )
    return f"Each ended within its limits, or is well known: {'; '.join(told)}."


def _fine_tune(claim: Claim, progress: LeasedProgress) -> dict[str, Any]:
    spec = claim.spec
    base = ModelVersion.objects.select_related("model").get(pk=spec["base"])
    task = get_task(spec["task"])
    recipe = task.recipe(spec["method"])
    progress.enter("verifying")
    progress.log(f"Verifying {base} and {spec['dataset_name']} against their digests.")
    data = DatasetVersion.objects.get(pk=spec["dataset_version"])
    request = TrainingRequest(
        task=task.name,
        method=spec["method"],
        base=version_copy(claim, base, "base"),
        train_file=_data_copy(claim, data),
        output=output_of(claim),
        checkpoints=workspace.checkpoints_folder(claim.job_id),
        hyperparameters=spec["hyperparameters"],
        resume_from=checkpoint_to_resume(claim, progress),
        media=_media_copy(claim, task, data),
    )
    request.checkpoints.mkdir(parents=True, exist_ok=True)
    progress.enter("training")
    set_threads()
    train: Callable[..., TrainingResult] = load_name(recipe.train)
    result = train(request, progress)
    progress.enter("hashing")
    # Fully tuned weights stand alone; anything else is meaningless without its base.
    stands_on = None if recipe.makes == VersionKind.FULL else base.digest
    return {
        "metrics": _finite(result.metrics),
        "parameters": {**result.parameters, **_made_with(task, recipe.train)},
        "notes": result.notes,
        "code": [each.to_json() for each in model_code(request.output)],
        "manifest": build_manifest(request.output, base_digest=stands_on).to_json(),
    }


def _made_with(task: Task, trainer: str) -> dict[str, str]:
    """Return the provenance of a version other than data and settings: the trainer, the package
    that provides it, and the code it ran on."""
    versions = {
        f"library_{name}": importlib.metadata.version(name)
        for name in ("assay", *LIBRARIES)
        if importlib.util.find_spec(name) is not None
    }
    return {
        "trainer": trainer,
        "package": package_of(task.name),
        "library_python": platform.python_version(),
        **versions,
    }


def evaluation_plan(task: Task, engine: str = EngineName.OWN) -> EvaluationPlan:
    """Return the parts of the declaration that measuring needs, with the engine of that name.

    Raises BadMaterial.
    """
    if task.evaluation is None:
        raise BadMaterial(f"{task.title} is not evaluated.")
    return EvaluationPlan(
        engine=engine_class(engine, task),
        runner=task.runner,
        architectures=task.architectures,
        request=task.evaluation.request,
        score=task.evaluation.score,
        result_type=task.result_type,
        media_columns=tuple(media_columns(task.row)),
    )


def _evaluate(claim: Claim, progress: LeasedProgress) -> dict[str, Any]:
    spec = claim.spec
    task = get_task(spec["task"])
    version = ModelVersion.objects.select_related("model", "base__model", "dataset_version").get(
        pk=spec["version"]
    )
    below, prompt = version, None
    if version.kind == VersionKind.PROMPT and version.base is not None:
        below, prompt = version.base, _prompt(claim, version)
    base = below.base if below.kind == VersionKind.ADAPTER else None
    progress.enter("verifying")
    progress.log(f"Verifying {version} and {spec['dataset_name']} against their digests.")
    data = DatasetVersion.objects.get(pk=spec["dataset_version"])
    trained_on = (
        version.dataset_version
        if task.evaluation is not None and task.evaluation.uses_training_rows
        else None
    )
    engine = measuring_engine(version)
    request = EvaluationRequest(
        plan=evaluation_plan(task, engine),
        version=version_copy(claim, below, "version"),
        base=version_copy(claim, base, "base") if base is not None else None,
        data_file=_data_copy(claim, data),
        train_file=_data_copy(claim, trained_on, "training data") if trained_on else None,
        media=_media_copy(claim, task, data, *([trained_on] if trained_on else [])),
        max_rows=spec.get("max_rows"),
        judge=_judge(claim),
        prompt=prompt,
    )
    progress.enter("evaluating")
    set_threads()
    evaluate: Callable[..., EvaluationResult] = load_name("workers.trainers.evaluation:evaluate")
    result = evaluate(request, progress)
    return {
        "metrics": _finite(result.metrics),
        "baseline": _finite(result.baseline),
        "baseline_name": result.baseline_name,
        "sample_size": result.sample_size,
        # Evaluators load weights in the precision that they are stored in.
        "details": {
            **result.details,
            "engine": str(engine),
            "precision": str(Precision.STORED),
        },
        "intervals": result.intervals,
        "slices": result.slices,
    }


def _prompt(claim: Claim, version: ModelVersion) -> PromptDocument:
    """Return the verified document of a prompt version. Raises BadMaterial."""
    try:
        file = version_copy(claim, version, "prompt") / PROMPT_FILE
        return PromptDocument.read(file.read_bytes())
    except InvalidInput as error:
        raise BadMaterial(f"{version} cannot be used: {error.message}") from error


def _judge(claim: Claim) -> Judge | None:
    """Return the judge that was chosen when the job was requested. Raises BadMaterial."""
    pk = claim.spec.get("judge")
    if pk is None:
        return None
    version = ModelVersion.objects.select_related("model").get(pk=pk)
    if version.state != VersionState.TRUSTED:
        raise BadMaterial(f"{version}, which was to judge, is {version.state}. Evaluate again.")
    task = get_task(version.model.task)
    return Judge(
        name=str(version),
        digest=version.digest,
        folder=version_copy(claim, version, "judge"),
        engine=engine_class(measuring_engine(version), task),
        runner=task.runner,
        architectures=task.architectures,
    )


def _index(claim: Claim, progress: LeasedProgress) -> dict[str, Any]:
    build: Callable[..., dict[str, Any]] = load_name("workers.tasks.indexing:build_index")
    return build(claim, progress)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise BadMaterial(
                f"{name} came out as {value}; the run diverged. Try a lower learning rate."
            )
    return {name: float(value) for name, value in metrics.items()}


_RUNS: dict[JobKind, Callable[[Claim, LeasedProgress], dict[str, Any]]] = {
    JobKind.INTAKE: _intake,
    JobKind.FINE_TUNE: _fine_tune,
    JobKind.EVALUATE: _evaluate,
    JobKind.INDEX: _index,
}
