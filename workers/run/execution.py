"""Run each kind of job: an attempt's folder in, a result out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any

from governance.errors import InvalidInput
from registry.catalog import package_of
from registry.catalog.code import CODE, CODES, TaskCode
from registry.catalog.columns import media_columns
from registry.catalog.declaration import BATCH, Task
from registry.catalog.engines import EngineName, engine_class, measured_metrics
from registry.catalog.hosted import HOSTED_FILE, HostedDescription
from registry.catalog.operations import operations_for
from registry.catalog.prompt import PROMPT_FILE, PromptDocument
from registry.intake.bounded import check_bounded
from registry.intake.checks import Limits
from registry.manifests import build_manifest
from registry.versions.model_code import known_code
from workers.engines.environment import environment_of
from workers.engines.model_code import Code, CodeRejected, model_code
from workers.engines.names import load_name
from workers.engines.servers.installed import engine_version
from workers.run.attempt import Attempt, run_task
from workers.run.failures import FaultyCode
from workers.run.order import EvaluateWork, FineTuneWork, IndexWork, IntakeWork
from workers.trainers.protocol import (
    BadMaterial,
    EvaluationPlan,
    EvaluationRequest,
    EvaluationResult,
    TrainingRequest,
    TrainingResult,
)

# The engine of a hosted model in a run, which has no network.
RELAY_ENGINE = "workers.engines.hosted.relay:RelayEngine"
# Libraries whose versions are recorded with trained versions; both import and package names.
LIBRARIES = ("torch", "transformers", "diffusers", "peft", "trl", "accelerate", "safetensors")


def execute(attempt: Attempt) -> dict[str, Any]:
    """Do the work that the order names; `job_finish` registers the result.

    Raises:
        BadMaterial: the inputs cannot be used; another attempt would fail too.
        Canceled: the work stopped because `progress.should_stop()` returned True.
        DomainError: a file cannot be used.
    """
    # Call this before a task is looked up, which imports its packages.
    CODE.copies_below(attempt.folder)
    match attempt.order.work:
        case IntakeWork() as work:
            return _intake(attempt, work)
        case FineTuneWork() as work:
            return _fine_tune(attempt, work)
        case EvaluateWork() as work:
            return _evaluate(attempt, work)
        case IndexWork() as work:
            build: Callable[..., dict[str, Any]] = load_name("workers.run.indexing:build_index")
            return build(attempt, work)


def _intake(attempt: Attempt, work: IntakeWork) -> dict[str, Any]:
    progress = attempt.progress
    folder = attempt.input("delivery")
    progress.enter("checking")
    checks = check_bounded(
        folder, Limits(max_bytes=work.max_bytes, adapter=work.base_digest is not None)
    )
    findings = [asdict(finding) for finding in checks]
    for finding in findings:
        verdict = "passed" if finding["passed"] else "FAILED"
        progress.log(f"{verdict}: {finding['check']}: {finding['detail']}")
    if failed := [finding for finding in findings if not finding["passed"]]:
        return {"rejected": failed[0]["detail"], "findings": findings}
    output = attempt.make_output()
    if (folder / HOSTED_FILE).is_file():
        return _hosted_intake(folder, output, findings, run_task(work.task))
    progress.enter("converting")
    task, task_code = _entered(work.task)
    if task_code.packages:
        findings.append(
            {
                "check": "task code",
                "passed": True,
                "detail": f"Converted by {task_code.title}, whose code is {task_code.digest}.",
            }
        )
    converted: dict[str, Any]
    if work.base_digest is not None:
        keep = load_name("workers.trainers.delivered_adapter:keep_adapter")
        converted = keep(folder, output, progress, has_head=task.engine == BATCH)
    elif work.keep_gguf:
        keep = load_name("workers.trainers.delivered_gguf:keep_gguf")
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
    except CodeRejected as refused:
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
        "manifest": build_manifest(output, base_digest=work.base_digest).to_json(),
    }


def _hosted_intake(
    folder: Path, output: Path, findings: list[dict[str, Any]], task: Task
) -> dict[str, Any]:
    """Write the canonical description of a hosted model; equal descriptions have one digest."""
    description = HostedDescription.read((folder / HOSTED_FILE).read_bytes())
    if description.operation not in operations_for(task):
        detail = f"The operation {description.operation} cannot serve the task {task.name}."
        finding = {"check": "operation", "passed": False, "detail": detail}
        return {"rejected": detail, "findings": [*findings, finding]}
    (output / HOSTED_FILE).write_bytes(description.canonical())
    return {
        "findings": findings,
        "code": [],
        "converted": {"hosted": description.model_dump(mode="json")},
        "manifest": build_manifest(output).to_json(),
    }


def code_summary(code: Sequence[Code]) -> str:
    """Return a sentence on the code in a delivery's files."""
    if not code:
        return "It brings no chat template and no tokenizer pattern along."
    titles = known_code()
    pieces = (
        f"{each.kind} in {each.path} ({titles.get(each.sha256) or 'not a known one'})"
        for each in code
    )
    return f"Each ended within its limits, or is well known: {'; '.join(pieces)}."


def _fine_tune(attempt: Attempt, work: FineTuneWork) -> dict[str, Any]:
    progress = attempt.progress
    task, code = _entered(work.task)
    recipe = task.recipe(work.method)
    request = TrainingRequest(
        task=task.name,
        method=work.method,
        base=attempt.input("base"),
        train_file=attempt.data,
        output=attempt.make_output(),
        checkpoints=attempt.checkpoints,
        hyperparameters=work.hyperparameters,
        resume_from=attempt.resume_from,
        media=attempt.media,
    )
    request.checkpoints.mkdir(parents=True, exist_ok=True)
    progress.enter("training")
    attempt.set_threads()
    train: Callable[..., TrainingResult] = load_name(recipe.train)
    result = train(request, progress)
    metrics = _finite(result.metrics, recipe.train, BadMaterial, _diverged(work))
    progress.enter("hashing")
    return {
        "metrics": metrics,
        "parameters": {
            **result.parameters,
            "rows_cut": result.rows_cut,
            **_made_with(task, code, recipe.train),
        },
        "notes": result.notes,
        "code": [each.to_json() for each in model_code(request.output)],
        "manifest": build_manifest(request.output, base_digest=work.base_digest).to_json(),
    }


def _entered(name: str) -> tuple[Task, TaskCode]:
    """Return a task and its code. From now on, this run can import only packages that the task's
    packages require. Raises InvalidInput.
    """
    task = run_task(name)
    code = CODES[name]
    if code.packages:
        CODE.confine()
    return task, code


def _made_with(task: Task, code: TaskCode, trainer: str) -> dict[str, str]:
    """Return a version's provenance except data and settings: the trainer, the package that
    provides it, and the versions of all code that it used."""
    versions = {
        f"library_{name}": importlib.metadata.version(name)
        for name in ("assay", *LIBRARIES)
        if importlib.util.find_spec(name) is not None
    }
    return {
        "trainer": trainer,
        "package": package_of(task.name),
        **({"package_code": code.digest} if code.packages else {}),
        "library_python": platform.python_version(),
        **versions,
    }


def evaluation_plan(task: Task, engine: str = EngineName.OWN) -> EvaluationPlan:
    """Return the parts of the declaration that an evaluation needs, with the named engine.

    Raises BadMaterial.
    """
    if task.evaluation is None:
        raise BadMaterial(f"{task.title} cannot be evaluated: the task declares no evaluation.")
    hosted = engine == EngineName.HOSTED
    return EvaluationPlan(
        engine=RELAY_ENGINE if hosted else engine_class(engine, task),
        runner=task.runner,
        architectures=task.architectures,
        request=task.evaluation.request,
        score=task.evaluation.score,
        base_architectures=task.base_architectures,
        result_type=task.result_type,
        media_columns=tuple(media_columns(task.row)),
        outputs=task.outputs,
        hosted=hosted,
    )


def _evaluate(attempt: Attempt, work: EvaluateWork) -> dict[str, Any]:
    progress = attempt.progress
    task, code = _entered(work.version.task)
    request = EvaluationRequest(
        plan=evaluation_plan(task, work.version.engine),
        version=attempt.input("version"),
        base=attempt.input("base") if attempt.has("base") else None,
        data_file=attempt.data,
        train_file=attempt.input("training-data") / "data.jsonl"
        if attempt.has("training-data")
        else None,
        media=attempt.media,
        max_rows=work.max_rows,
        judge=attempt.served(work.judge, "judge") if work.judge is not None else None,
        prompt=_prompt(attempt, work) if attempt.has("prompt") else None,
    )
    progress.enter("evaluating")
    attempt.set_threads()
    evaluate: Callable[..., EvaluationResult] = load_name("workers.trainers.evaluation:evaluate")
    result = evaluate(request, progress)
    score = request.plan.score
    fix = f"Correct {score} of {package_of(task.name) or 'its package'}."
    metrics = _finite(result.metrics, score, FaultyCode, fix)
    measured = measured_metrics(work.version.engine, task)
    if missing := [each.name for each in measured if each.name not in metrics]:
        raise FaultyCode(
            f"{score} returned no {', '.join(missing)}, which the task {task.name} declares as "
            f"metrics; it returned {', '.join(sorted(metrics)) or 'none'}. {fix}"
        )
    return {
        "metrics": metrics,
        "baseline": _finite(result.baseline, score, FaultyCode, fix),
        "baseline_name": result.baseline_name,
        "sample_size": result.sample_size,
        # Evaluators load weights in their stored precision.
        "details": {
            **result.details,
            "engine": str(work.version.engine),
            "precision": "stored",
            "code": code.digest,
            "environment": environment_of(work.version.engine, engine_version(work.version.engine)),
        },
        "reference": result.reference,
        "intervals": result.intervals,
        "slices": result.slices,
    }


def _prompt(attempt: Attempt, work: EvaluateWork) -> PromptDocument:
    """Return the verified document of a prompt version. Raises BadMaterial."""
    try:
        return PromptDocument.read((attempt.input("prompt") / PROMPT_FILE).read_bytes())
    except InvalidInput as error:
        raise BadMaterial(f"{work.version.name} cannot be used: {error.message}") from error


def _diverged(work: FineTuneWork) -> str:
    """Return advice for a training run whose metrics are not finite."""
    if "learning_rate" in work.hyperparameters:
        return "The run diverged. Try a lower learning rate."
    return "The run diverged. Check the data and the settings."


def _finite(
    metrics: dict[str, float], source: str, kind: type[Exception], advice: str
) -> dict[str, float]:
    """Return the metrics as floats. `source` names the function that returned them.

    Raises:
        FaultyCode: a metric is not a number.
        kind: a metric is not finite; the message ends with the advice.
    """
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
            raise FaultyCode(
                f"{source} returned a {type(value).__name__} as {name}. Return a float."
            )
        if not math.isfinite(value):
            raise kind(f"{source} returned {value} as {name}. {advice}")
    return {name: float(value) for name, value in metrics.items()}
