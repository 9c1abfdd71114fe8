"""Tasks by name, and refusals of those that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from governance.errors import InvalidInput
from registry import catalog
from registry.catalog import TASKS, get_task
from registry.catalog.columns import ImageFile, media_columns
from registry.catalog.declaration import Task
from registry.catalog.discovery import RejectedEntry
from registry.catalog.formats import row_fields
from tests.plug_ins import left_out, refused

ROOT = Path(__file__).resolve().parents[3]


__all__ = ["refused"]


def test_an_unavailable_task_is_refused_with_its_reason(refused: list[RejectedEntry]) -> None:
    refused.append(left_out("mine", "RuntimeError: needs a license file"))
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
def test_the_rows_of_every_task_can_be_put_in_words(task: Task) -> None:
    assert [field.name for field in row_fields(task)] == list(task.row.model_fields)


def test_tasks_are_listed_by_name_with_those_that_are_unavailable(
    refused: list[RejectedEntry],
) -> None:
    refused.append(left_out("about-nothing", "ImportError"))
    # A package that claims a name of Assay's is left out, and the name has its task.
    refused.append(left_out("embeddings", "it is another's"))
    listed = catalog.listed_tasks()
    assert [task.name for task in listed] == sorted(["about-nothing", *TASKS])
    assert isinstance(listed[0], catalog.UnavailableTask)
    assert "ImportError" in catalog.unavailable_reason("about-nothing")
    assert catalog.unavailable_reason("embeddings") == ""
    assert "No installed package" in catalog.unavailable_reason("never-there")


def test_the_package_of_a_task_is_known_with_its_version() -> None:
    assert catalog.package_of("embeddings").startswith("assay ")
    assert catalog.package_of("never-there") == ""
