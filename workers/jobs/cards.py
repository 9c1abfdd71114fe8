"""The model card that an adaptation starts with: what it stands on, and what was measured."""

from __future__ import annotations

from registry.datasets.models import DatasetVersion
from registry.versions.models import Model, ModelVersion
from workers.jobs.models import Job


def adaptation_card(
    *, job: Job, model: Model, base: ModelVersion, data: DatasetVersion, kind: str
) -> str:
    """Markdown. Numbers are those that training measured on its own validation split."""
    result = job.result or {}
    lines = [
        f"# {model.name}",
        "",
        model.description or "No description was given.",
        "",
        f"- Task: {model.task}",
        f"- Kind: {kind}, by method `{job.spec['method']}`",
        f"- Base: {base.model.name} v{base.number} (`{base.digest[:12]}`)",
        f"- License of the base: {base.licence or 'not recorded'}",
        f"- Trained on: {data.dataset.name} v{data.number}, {data.rows} rows, "
        f"{data.dataset.classification}, license {data.dataset.licence}",
        f"- Started by: person {job.created_by_id}",
        "",
        "## Measured on the validation split",
        "",
        *(f"- {name}: {value:.4g}" for name, value in sorted(result["metrics"].items())),
        "",
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in sorted(result["parameters"].items())),
    ]
    if notes := result.get("notes"):
        lines += ["", "## Notes", "", notes]
    return "\n".join(lines) + "\n"


def prompt_card(*, job: Job, model: Model, base: ModelVersion) -> str:
    """Markdown: what the prompt stands on, what it sets, and what its author says is new."""
    result = job.result or {}
    document = result["parameters"]
    variables = [
        f"- `{each['name']}`: {each['description'] or 'no description'}"
        for each in document["variables"]
    ]
    lines = [
        f"# {model.name}",
        "",
        model.description or "No description was given.",
        "",
        f"- Task: {model.task}",
        "- Kind: prompt",
        f"- Base: {base.model.name} v{base.number} (`{base.digest[:12]}`)",
        f"- License of the base: {base.licence or 'not recorded'}",
        f"- Examples: {len(document['examples'])}",
        f"- Written by: person {job.created_by_id}",
        "",
        "## Variables",
        "",
        *(variables or ["The prompt has no variables."]),
    ]
    if note := result.get("note"):
        lines += ["", "## Notes", "", note]
    return "\n".join(lines) + "\n"
