"""Write the table of training methods, `docs/reference/training-methods.md`, from the tasks'
declarations.

.venv/bin/python tools/training_methods.py
"""

from __future__ import annotations

from pathlib import Path

from registry.catalog import TASKS, package_of
from registry.catalog.declaration import Task

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "training-methods.md"
HEAD = """# Training methods

Written by `tools/training_methods.py` from the tasks' declarations. A cell names the kind of
version that a method makes: `full` has all weights and serves alone; `adapter` has a few weights
and serves on its base, whose memory its adapters share.

"""
# Explanation of each method; tasks with a new method need a line here.
METHODS = {
    "full": "Trains all weights.",
    "lora": "Trains small matrices next to linear layers, and the head of a classifier. The base "
    "does not change.",
    "dpo": "Trains LoRA on pairs of a better and a worse answer (direct preference optimization).",
    "prompt-tuning": "Trains embeddings that precede each prompt.",
    "pretrain": "Trains all weights of a base, which can be random.",
    "boosting": "Fits boosted trees.",
    "linear": "Fits a logistic regression.",
}
FOOT = """
QLoRA, which trains LoRA on quantized weights, is not offered.

[Fine-tune a model](../how-to/adapt-a-model.md) shows how to choose a method. `assay api get tasks`
lists the settings of each, with bounds and defaults.
"""


def page() -> str:
    """Return the page: a row for each task of this repository, and one for each method."""
    tasks = [
        task
        for name, task in sorted(TASKS.items())
        if package_of(name).startswith(("assay ", "assay-tasks-extra "))
    ]
    titles = {each.method: each.title for task in tasks for each in task.recipes}
    methods = sorted(titles, key=list(METHODS).index)
    table = [
        _row(["task", *methods, "starts from models of"]),
        _row(["---"] * (len(methods) + 2)),
        *(_row(_cells(task, methods)) for task in tasks if task.recipes),
    ]
    untrained = [f"`{task.name}`" for task in tasks if not task.recipes]
    explained = [
        "\n## What each method does\n\n| method | title | description |\n|---|---|---|\n",
        *(_row([f"`{name}`", titles[name], METHODS[name]]) for name in methods),
    ]
    without = f"\nModels of these tasks are served, and not trained: {', '.join(untrained)}.\n"
    return HEAD + "".join(table) + without + "".join(explained) + FOOT


def _cells(task: Task, methods: list[str]) -> list[str]:
    makes = {each.method: each.makes for each in task.recipes}
    bases = frozenset[str]().union(*(each.bases or {task.name} for each in task.recipes))
    return [task.name, *(makes.get(name, "–") for name in methods), ", ".join(sorted(bases))]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
