"""A task may learn from several kinds of rows; a dataset says which one it holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from registry.catalog import TASKS
from registry.catalog.checks.declaration import declaration_faults
from registry.catalog.declaration import Task
from registry.datasets.leaks import overlap
from registry.datasets.models import Dataset
from registry.datasets.preview import rows_preview
from registry.datasets.services import dataset_create
from registry.evaluations.services import gate_set
from tests.unit.registry import objects
from tests.unit.registry.test_dataset_preview import added

pytestmark = pytest.mark.django_db

GENERATE = "text-generation"
PAIR = {"prompt": "Who are you?", "chosen": "A program.", "rejected": "A person."}


@pytest.fixture
def dev(policy: object, person: Callable[..., Person]) -> Person:
    return person("Devi", "developer@engineering")


def create(dev: Person, row_kind: str) -> Dataset:
    return dataset_create(
        actor=principal_for_person(dev),
        name="choices",
        department=Department.objects.get(slug="engineering"),
        task=GENERATE,
        classification="internal",
        license="CC0-1.0",
        row_kind=row_kind,
    )


def test_a_dataset_is_created_for_one_kind_of_rows_and_the_event_names_it(dev: Person) -> None:
    assert create(dev, "preferences").row_kind == "preferences"
    event = AuditEvent.objects.filter(action="dataset:create").latest("id")
    assert json.loads(bytes(event.canonical))["data"]["row_kind"] == "preferences"


def test_a_kind_of_rows_that_the_task_does_not_have_is_refused_with_those_there_are(
    dev: Person,
) -> None:
    with pytest.raises(InvalidInput, match="no rows called 'series'") as refused:
        create(dev, "series")
    assert "preferences" in str(refused.value.hint)
    assert not Dataset.objects.exists()


def test_rows_are_checked_shown_and_counted_by_their_own_schema(dev: Person) -> None:
    version = added(dev, [PAIR, {**PAIR, "chosen": "Software."}], GENERATE, "preferences")
    assert "chosen" in version.schema["properties"]
    assert version.profile["duplicates"] == 1
    preview = rows_preview(version)
    assert preview.columns == ["prompt", "messages", "chosen", "rejected"]
    assert [text.text for cell in preview.rows[0] for text in cell if text.text] == [  # type: ignore[union-attr]
        "Who are you?",
        "A program.",
        "A person.",
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, "chosen"),
        ({**PAIR, "rejected": "A program."}, "chosen and rejected must differ"),
        ({**PAIR, "messages": [{"role": "user", "content": "Hi"}]}, "either prompt or messages"),
        ({"chosen": "a", "rejected": "b"}, "either prompt or messages"),
        (
            {**PAIR, "prompt": None, "messages": [{"role": "assistant", "content": "Hi"}]},
            "must not be the assistant's",
        ),
    ],
)
def test_a_pair_that_cannot_be_learned_is_refused_by_its_line(
    dev: Person, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=f"(?s)Line 2.*{reason}"):
        added(dev, [PAIR, row], GENERATE, "preferences")


def test_a_prompt_in_preferences_and_in_test_conversations_is_a_leak(dev: Person) -> None:
    pairs = added(dev, [PAIR], GENERATE, "preferences")
    messages = [
        {"role": "user", "content": "who are  you?"},
        {"role": "assistant", "content": "A program."},
    ]
    held_out = added(dev, [{"messages": messages}], GENERATE)
    assert overlap([pairs], held_out).same == 1


def test_a_gate_needs_rows_that_the_task_is_measured_on(dev: Person) -> None:
    pairs = added(dev, [PAIR], GENERATE, "preferences")
    model = objects.model(dev, pairs.dataset.department, "chat", GENERATE)
    with pytest.raises(InvalidInput, match="holds preference pairs; Text generation is not"):
        gate_set(
            actor=principal_for_person(dev),
            model=model,
            dataset=pairs.dataset,
            metric="perplexity",
            comparator="<=",
            threshold=10.0,
        )


def test_a_declaration_whose_recipe_learns_from_unknown_rows_is_refused() -> None:
    task = TASKS[GENERATE]
    assert "'preferences' is not a kind of its rows" in _faults(
        dataclasses.replace(task, other_rows=())
    )
    twice = dataclasses.replace(task, other_rows=task.other_rows * 2)
    assert "'preferences' occurs twice" in _faults(twice)
    (kind,) = task.other_rows
    wrong = dataclasses.replace(kind, examples=({"prompt": "?"},))
    assert "chosen" in _faults(dataclasses.replace(task, other_rows=(wrong,)))


def _faults(task: Task) -> str:
    return " ".join(map(str, declaration_faults(task)))
