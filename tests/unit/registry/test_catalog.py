"""Tasks are found by entry point, and a broken plug-in harms only its own task."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput
from registry import catalog
from registry.catalog import TASKS, discovered, get_task, load_tasks
from registry.catalog.columns import ImageFile, media_columns
from registry.catalog.declaration import Task
from registry.catalog.formats import row_fields

ROOT = Path(__file__).resolve().parents[3]
TEXT = EntryPoint("text-generation", "tasks.text_generation:TASK", catalog.GROUP)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module outside of the tree; returns its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(module: str, code: str, name: str = "mine") -> EntryPoint:
        (tmp_path / f"{module}.py").write_text(code)
        return EntryPoint(name, f"{module}:TASK", catalog.GROUP)

    return write


def test_a_plug_in_that_raises_at_import_makes_its_task_unavailable_with_the_reason(
    plug_in: Any,
) -> None:
    broken = plug_in("broken_plug_in", "raise RuntimeError('needs a license file')")
    tasks, unavailable = load_tasks([broken, TEXT])
    assert list(tasks) == ["text-generation"]
    assert unavailable == {"mine": "RuntimeError: needs a license file"}


@pytest.mark.parametrize(
    ("code", "name", "reason"),
    [
        ("TASK = 3", "mine", "is not a registry.catalog.declaration.Task"),
        ("from tasks.text_generation import TASK", "mine", "its entry point is 'mine'"),
        ("import nothing_like_it", "mine", "No module named 'nothing_like_it'"),
        ("", "mine", "has no attribute 'TASK'"),
    ],
)
def test_what_is_no_declaration_is_unavailable_with_the_reason(
    plug_in: Any, code: str, name: str, reason: str
) -> None:
    module = f"odd_plug_in_{abs(hash(code))}"
    _, unavailable = load_tasks([plug_in(module, code, name)])
    assert reason in unavailable[name]


def test_a_second_package_cannot_take_a_task_or_a_path_over(plug_in: Any) -> None:
    same = plug_in("same_plug_in", "from tasks.text_generation import TASK", "text-generation")
    other = plug_in(
        "other_plug_in",
        "import dataclasses\nfrom tasks.text_generation import TASK\n"
        "(path, *_) = TASK.endpoints\n"
        "named = dataclasses.replace(path, named=True)\n"
        "TASK = dataclasses.replace(TASK, name='other', endpoints=(named,))\n",
        "other",
    )
    tasks, unavailable = load_tasks([TEXT, same, other])
    assert list(tasks) == ["text-generation"]
    assert "already provides" in unavailable["text-generation"]
    assert "/v1/chat/completions already serves text-generation" in unavailable["other"]


def test_tasks_share_a_path_whose_bodies_name_the_model(plug_in: Any) -> None:
    other = plug_in(
        "sharing_plug_in",
        "import dataclasses\nfrom tasks.text_generation import TASK\n"
        "shared = tuple(each for each in TASK.endpoints if not each.named)\n"
        "TASK = dataclasses.replace(TASK, name='other', endpoints=shared)\n",
        "other",
    )
    tasks, unavailable = load_tasks([TEXT, other])
    assert (list(tasks), unavailable) == (["text-generation", "other"], {})


@pytest.mark.parametrize("schema", ["input_schema", "option_schema"])
def test_schemas_must_derive_from_those_of_the_catalog(plug_in: Any, schema: str) -> None:
    wrong = plug_in(
        f"wrong_{schema}_plug_in",
        "import dataclasses\nfrom tasks.text_generation import TASK\n"
        f"TASK = dataclasses.replace(TASK, name='other', endpoints=(), {schema}=dict)\n",
        "other",
    )
    _, unavailable = load_tasks([wrong])
    assert "does not derive from" in unavailable["other"]


def test_an_unavailable_task_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(discovered()[1], "mine", "RuntimeError: needs a license file")
    with pytest.raises(InvalidInput, match="needs a license file") as refused:
        get_task("mine")
    assert refused.value.code == "task_unavailable"
    with pytest.raises(InvalidInput, match="no task 'nothing'"):
        get_task("nothing")


def test_declarations_load_neither_django_nor_torch() -> None:
    code = (
        "import sys\nfrom registry.catalog import TASKS, unavailable_tasks\n"
        "assert len(TASKS) >= 3 and not unavailable_tasks(), unavailable_tasks()\n"
        "loaded = {'torch', 'transformers', 'django', 'diffusers'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_media_columns_are_read_from_the_row_schema() -> None:
    from pydantic import BaseModel

    class Row(BaseModel):
        image: ImageFile
        label: str

    assert media_columns(Row) == {"image": "image"}
    assert media_columns(get_task("text-classification").row) == {}


@pytest.mark.parametrize("task", list(TASKS.values()), ids=lambda task: task.name)
def test_every_declaration_is_consistent(task: Task) -> None:
    for example in task.examples:
        row = task.row.model_validate(example).model_dump()
        assert isinstance(task.row_input(row), str)
        if task.evaluation is not None:
            files = {name: Path(row[name]) for name in media_columns(task.row)}
            inputs, options = task.evaluation.request({**row, **files})
            assert isinstance(inputs, task.input_schema)
            assert isinstance(options, task.option_schema)
    if task.evaluation is not None:
        assert task.metric(task.primary_metric)
    for recipe in task.recipes:
        assert recipe.makes in {"full", "adapter"}
        recipe.hyperparameters()


@pytest.mark.parametrize("task", list(TASKS.values()), ids=lambda task: task.name)
def test_the_rows_of_every_task_can_be_put_in_words(task: Task) -> None:
    assert [field.name for field in row_fields(task)] == list(task.row.model_fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("name='Mine'", "lowercase letters"),
        ("name='m' * 41", "lowercase letters"),
        ("endpoints=()", "no endpoint"),
        ("endpoints=(Endpoint('/api/v1/people', print),)", "not below /v1/ or /v2/"),
        ("recipes=TASK.recipes * 2", "same method"),
        ("evaluation=dataclasses.replace(TASK.evaluation, primary_metric='f2')", "'f2'"),
        ("examples=({'text': 'no label'},)", "label"),
    ],
)
def test_a_declaration_that_the_platform_cannot_work_with_is_unavailable_with_the_reason(
    plug_in: Any, change: str, reason: str
) -> None:
    code = (
        "import dataclasses\n"
        "from registry.catalog.endpoints import Endpoint\n"
        "from tasks.text_classification import TASK\n"
        "TASK = dataclasses.replace(TASK, name='mine', endpoints=(Endpoint('/v1/mine', print),))\n"
        f"TASK = dataclasses.replace(TASK, {change})\n"
    )
    point = plug_in(f"unfit_plug_in_{abs(hash(change))}", code)
    name = {"name='Mine'": "Mine", "name='m' * 41": "m" * 41}.get(change, "mine")
    tasks, unavailable = load_tasks([EntryPoint(name, point.value, catalog.GROUP)])
    assert tasks == {}
    assert reason in unavailable[name]


def test_no_other_package_can_take_the_name_or_the_path_of_a_task_of_assay() -> None:
    class Theirs:
        name = "aardvark"

    mine = [point for point in entry_points(group=catalog.GROUP) if point.name == "embeddings"]
    theirs = EntryPoint("embeddings", "theirs:TASK", catalog.GROUP)._for(Theirs())  # type: ignore[attr-defined]
    first = EntryPoint("a", "theirs:TASK", catalog.GROUP)._for(Theirs())  # type: ignore[attr-defined]
    assert sorted([theirs, first, *mine], key=catalog._order)[0] == mine[0]


def test_tasks_are_listed_by_name_with_those_that_are_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(discovered()[1], "about-nothing", "ImportError: it is broken")
    listed = catalog.listed_tasks()
    assert [task.name for task in listed] == sorted(["about-nothing", *TASKS])
    assert isinstance(listed[0], catalog.UnavailableTask)
    assert catalog.unavailable_reason("about-nothing") == "ImportError: it is broken"
    assert catalog.unavailable_reason("embeddings") == ""
    assert "No installed package" in catalog.unavailable_reason("never-there")


def test_the_package_of_a_task_is_known_with_its_version() -> None:
    assert catalog.package_of("embeddings").startswith("assay ")
    assert catalog.package_of("never-there") == ""
