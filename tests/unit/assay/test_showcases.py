"""The showcases of `./demo --all` agree with the tasks' declarations."""

from __future__ import annotations

import pytest

from assay_demo.families.showcase import Showcase
from assay_demo.features.prompt import SHOWCASE as PROMPT
from assay_demo.features.tools import SHOWCASE as TOOLS
from assay_demo.story.every_family import every_showcase
from registry.catalog import TASKS
from registry.catalog.prompt import PromptDocument

SHOWCASES = [*every_showcase(), PROMPT]


@pytest.mark.parametrize("showcase", [*SHOWCASES, TOOLS], ids=lambda each: str(each.name))
def test_a_showcase_fits_its_task(showcase: Showcase) -> None:
    task = TASKS[showcase.task]
    metric = task.metric(showcase.gate.metric)
    assert showcase.gate.comparator == (">=" if metric.higher_is_better else "<=")
    if showcase.prompt is not None:
        # Rows of test data give no variables.
        document = PromptDocument.read(showcase.prompt)
        assert not any(variable.required for variable in document.variables)
        assert showcase.base.task == showcase.task
        return
    if showcase.training is None:
        # The base itself is measured and released.
        assert (showcase.model, showcase.task) == (showcase.base.name, showcase.base.task)
        return
    recipe = task.recipe(showcase.training.method)
    recipe.hyperparameters(**showcase.training.settings)
    assert showcase.base.task in (recipe.bases or {task.name})
    assert showcase.training.data.name != showcase.test.name


# Tasks whose models the chapters of the demo deploy, and tasks of which it has no model.
IN_CHAPTERS = {"embeddings", "text-classification", "text-generation"}
WITHOUT_MODEL = {"summarization", "text-to-video"}


def test_the_demo_deploys_a_model_for_every_endpoint_of_its_tasks() -> None:
    deployed = IN_CHAPTERS | {each.task for each in SHOWCASES}
    assert set(TASKS) - deployed == WITHOUT_MODEL
    served = {endpoint.path for name in deployed for endpoint in TASKS[name].endpoints}
    others = {endpoint.path for name in WITHOUT_MODEL for endpoint in TASKS[name].endpoints}
    assert {path.split("/")[3] for path in others - served} == WITHOUT_MODEL


def test_no_two_showcases_share_a_model_or_a_dataset() -> None:
    models = [name for each in SHOWCASES for name in {each.model, each.base.name}]
    tests = [each.test.name for each in SHOWCASES]
    assert len(models) == len(set(models))
    assert len(tests) == len(set(tests))
