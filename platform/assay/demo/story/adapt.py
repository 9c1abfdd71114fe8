"""2 to 4. Adapt the BERT way and the GPT way, and measure both on data they never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay.demo.client import Api
from assay.demo.stage import Stage
from assay.local import materials

SENTIMENT = "review-sentiment"
DOCSTRINGS = "docstring-writer"


def prepare(stage: Stage) -> None:
    """Upload the data, set the gates, and queue both fine-tunes."""
    with stage.chapter("2. Adapt: data, gates, and two fine-tunes in the queue"):
        clara, enzo = stage["clara"], stage["enzo"]
        folder = stage.folder / "uploads"
        test = materials.drug_reviews(stage.materials["drug_reviews_test"])
        train = _without_leaks(
            stage, materials.drug_reviews(stage.materials["drug_reviews_train"]), test
        )
        for name, rows, what in (
            ("drug-reviews-train", train, "Patients' reviews of drugs, for training."),
            ("drug-reviews-test", test, "Held-out reviews; never seen in training."),
        ):
            _dataset(stage, clara, "clinical", name, "text-classification", rows, folder, what)
        pairs, heldout = materials.docstring_pairs()
        for name, rows, what in (
            ("stdlib-docstrings-train", pairs, "Functions of the standard library."),
            ("stdlib-docstrings-heldout", heldout, "Functions of modules never trained on."),
        ):
            _dataset(stage, enzo, "engineering", name, "text-generation", rows, folder, what)
        _model(clara, SENTIMENT, "clinical", "text-classification", "Sentiment of drug reviews.")
        _model(enzo, DOCSTRINGS, "engineering", "text-generation", "One-line docstrings.")
        _gates(stage, clara, SENTIMENT, "drug-reviews-test", SENTIMENT_GATES)
        _gates(stage, enzo, DOCSTRINGS, "stdlib-docstrings-heldout", DOCSTRING_GATES)
        _budgets(stage)
        stage.facts["jobs"] = {
            SENTIMENT: _fine_tune(
                stage, clara, SENTIMENT, "all-minilm-l6-v2", "full", SENTIMENT_SETTINGS
            ),
            DOCSTRINGS: _fine_tune(
                stage, enzo, DOCSTRINGS, "smollm2-135m-instruct", "lora", DOCSTRING_SETTINGS
            ),
        }


def _budgets(stage: Stage) -> None:
    """What use costs (in millionths of the currency), and how much of it there is this month."""
    stage.prove("ada")
    ada = stage["ada"]
    ada.post(
        "prices", deployment=None, prompt=2_000_000, completion=6_000_000, device_second=10_000
    )
    ada.post("quotas", organisation=True, kind="gpu_seconds_per_month", limit=36_000)
    for department, money in (("clinical", 40_000_000), ("engineering", 25_000_000)):
        ada.post("quotas", department=department, kind="money_per_month", limit=money)
    ada.post("quotas", department="engineering", kind="tokens_per_day", limit=20_000)
    stage.say("use has a price; the organisation and its departments have budgets")


TRAINED_ON = {SENTIMENT: "drug-reviews-train", DOCSTRINGS: "stdlib-docstrings-train"}
# Chosen on a validation split of the training rows, for two cores and a few minutes.
SENTIMENT_SETTINGS = {"epochs": 4, "max_length": 96}
DOCSTRING_SETTINGS = {
    "max_steps": 36,
    "batch_size": 4,
    "max_length": 192,
    "learning_rate": 5e-4,
    "lora_dropout": 0.0,
}
# Set before anything is measured, from what the validation split showed, with a margin. Always
# answering the majority label has a macro-F1 of about 0.26.
SENTIMENT_GATES = (
    (
        "accuracy",
        ">=",
        0.62,
        "A few points under always saying positive (0.654), which finds no complaint.",
    ),
    ("macro_f1", ">=", 0.38, "Negative reviews must be found too, not the majority alone."),
)
DOCSTRING_GATES = (
    ("perplexity", "<=", 30.0, "Held-out docstrings are expected text."),
    ("chrf", ">=", 15.0, "What it writes resembles what the authors wrote."),
)


def train_and_evaluate(stage: Stage) -> None:
    """Follow both fine-tunes, then evaluate each on held-out data."""
    for model, owner, data, title in (
        (SENTIMENT, "clara", "drug-reviews-test", "3. The BERT way: a sentiment classifier"),
        (DOCSTRINGS, "enzo", "stdlib-docstrings-heldout", "4. The GPT way: a docstring writer"),
    ):
        with stage.chapter(title):
            api = stage[owner]
            job = stage.facts["jobs"][model]
            if job is not None:
                stage.watch(api, job, f"fine-tuning {model}")
            version = stage.found(_tuned(api, model), f"{model} has a tuned version")
            stage.expect(bool(version["mlflow_run_id"]), f"{model} has its run in MLflow")
            stage.say(
                f"{model} v{version['number']} ({version['kind']}), digest "
                f"{version['digest'][:12]}, trained on {version['dataset_version']['name']}"
            )
            evaluation = evaluate(stage, api, version, data)
            _report(stage, evaluation)
            stage.facts[model] = api.get(f"versions/{version['id']}")


def _without_leaks(
    stage: Stage, train: list[dict[str, Any]], test: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The training rows whose text is not in the test file, as the leak check wants them."""
    seen = {row["text"] for row in test}
    kept = [row for row in train if row["text"] not in seen]
    stage.say(f"{len(train) - len(kept)} review stands in both files; left out of training")
    return kept


def _model(api: Api, name: str, department: str, task: str, description: str) -> None:
    if api.find("models", name=name) is None:
        api.post("models", name=name, department=department, task=task, description=description)


def _dataset(
    stage: Stage,
    api: Api,
    department: str,
    name: str,
    task: str,
    rows: list[dict[str, Any]],
    folder: Path,
    description: str,
) -> None:
    found = api.find("datasets", name=name)
    if found is None:
        api.post(
            "datasets",
            name=name,
            department=department,
            task=task,
            classification="public",
            licence="PSF-2.0" if "stdlib" in name else "CC-BY-4.0 (UCI drug reviews)",
            description=description,
        )
    if not list(api.all(f"datasets/{name}/versions")):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        api.upload(f"datasets/{name}/versions", fields={}, files=[("file", file)])
    version = next(iter(api.all(f"datasets/{name}/versions")))
    stage.facts[name] = version
    duplicates = version["profile"].get("duplicates", 0)
    stage.say(f"{name}: {version['rows']} rows, {duplicates} duplicates")


def _gates(stage: Stage, api: Api, model: str, dataset: str, gates: Any) -> None:
    existing = {(gate["metric"], gate["comparator"]) for gate in api.all("gates", model=model)}
    for metric, comparator, threshold, why in gates:
        if (metric, comparator) not in existing:
            api.post(
                "gates",
                model=model,
                dataset=dataset,
                metric=metric,
                comparator=comparator,
                threshold=threshold,
                why=why,
            )
        stage.say(f"gate set beforehand on {model}: {metric} {comparator} {threshold:g}")


def _tuned(api: Api, model: str) -> dict[str, Any] | None:
    for version in api.all(f"models/{model}/versions"):
        detail: dict[str, Any] = api.get(f"versions/{version['id']}")
        return detail
    return None


def _fine_tune(
    stage: Stage, api: Api, model: str, base: str, method: str, settings: dict[str, Any]
) -> dict[str, Any] | None:
    if _tuned(api, model) is not None:
        return None
    dataset = TRAINED_ON[model]
    job: dict[str, Any] = api.post(
        "fine-tunes",
        idempotency_key=f"demo-{model}-{stage.facts[dataset]['digest'][:16]}",
        model=model,
        base_version=stage.facts[base]["id"],
        method=method,
        dataset_version=stage.facts[dataset]["id"],
        hyperparameters=settings,
    )
    stage.say(f"queued: {job['title']}")
    return job


def evaluate(stage: Stage, api: Api, version: dict[str, Any], dataset: str) -> dict[str, Any]:
    """What the version was measured to do on the dataset; measures it when it never was."""
    found = next(api.all("evaluations", version=version["id"]), None)
    if found is None:
        job = api.post(
            "evaluations",
            idempotency_key=f"demo-evaluate-{version['digest'][:16]}",
            version=version["id"],
            dataset_version=stage.facts[dataset]["id"],
        )
        stage.watch(api, job, f"evaluating on {dataset}")
        found = next(api.all("evaluations", version=version["id"]), None)
    found = stage.found(found, f"{dataset} has been evaluated")
    detail: dict[str, Any] = api.get(f"evaluations/{found['id']}")
    return detail


def _report(stage: Stage, evaluation: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), show_header=True)
    for heading in ("metric", "this version", evaluation["baseline_name"]):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, value in evaluation["metrics"].items():
        baseline = evaluation["baseline"].get(name)
        table.add_row(
            f"  {name}", f"{value:.3f}", f"{baseline:.3f}" if baseline is not None else "–"
        )
    stage.console.print(table)
    matrix = evaluation["details"].get("confusion_matrix")
    if matrix:
        grid = Table(box=None, padding=(0, 2), title="confusion matrix", title_justify="left")
        grid.add_column("  is \\ said")
        for label in matrix["labels"]:
            grid.add_column(label, justify="right")
        for label, row in zip(matrix["labels"], matrix["matrix"], strict=True):
            grid.add_row(f"  {label}", *(str(count) for count in row))
        stage.console.print(grid)
    gates = evaluation["gates"]
    stage.expect(len(gates) > 0, "gates set beforehand decide the evaluation")
    for gate in gates:
        mark = "[green]pass[/]" if gate["passed"] else "[red]fail[/]"
        stage.say(
            f"gate {gate['metric']} {gate['comparator']} {gate['threshold']:g}: "
            f"{gate['value']:.3f} {mark} (n={evaluation['sample_size']})"
        )
    stage.expect(all(gate["passed"] for gate in gates), "every gate passes")
