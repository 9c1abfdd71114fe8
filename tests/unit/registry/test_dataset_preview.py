"""The first rows of a dataset: bounded, masked where there are signs of personal data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.errors import NotFound, NotPermitted, Unavailable
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.principals import Principal
from registry.catalog import TASKS
from registry.catalog.columns import media_columns
from registry.catalog.features import features_column
from registry.catalog.formats import is_tabular, row_fields, sample_lines
from registry.datasets.cells import FIELD_CHARACTERS, Chart, Text
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.preview import dataset_unmask, rows_preview
from registry.datasets.rows import ROWS
from registry.datasets.services import dataset_version_add
from tests.stored import stored_file
from tests.unit.registry.objects import Upload

pytestmark = pytest.mark.django_db


def added(
    person: Person,
    rows: list[dict[str, Any]],
    task: str = "text-classification",
    row_kind: str = "",
) -> Any:
    """A version of a dataset of engineering with these rows."""
    dataset = Dataset.objects.create(
        name=f"data-{Dataset.objects.count()}",
        department=Department.objects.get(slug="engineering"),
        task=task,
        row_kind=row_kind,
        classification="internal",
        license="CC0-1.0",
        created_by=person,
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return dataset_version_add(
        actor=principal_for_person(person), dataset=dataset, file=Upload("rows.jsonl", lines)
    )


@pytest.fixture
def dev(policy: object, person: Callable[..., Person]) -> Person:
    return person("Devi", "developer@engineering")


def cells(version: DatasetVersion) -> list[list[str]]:
    rows = rows_preview(version).rows
    return [[text.text for cell in row for text in cell] for row in rows]


def test_the_first_rows_are_shown_by_the_fields_of_the_task(dev: Person) -> None:
    version = added(dev, [{"label": f"l{n % 2}", "text": f"text {n}"} for n in range(50)])
    preview = rows_preview(version)
    assert (preview.columns, preview.masked, preview.total) == (["text", "label"], [], 50)
    assert len(preview.rows) == ROWS
    assert cells(version)[3] == ["text 3", "l1"]


def test_long_fields_are_cut_and_say_by_how_much(dev: Person) -> None:
    version = added(dev, [{"text": "x" * 90_000, "label": "a"}] * 30)
    (text,) = rows_preview(version).rows[0][0]
    assert (len(text.text), text.left_out) == (FIELD_CHARACTERS, 90_000 - FIELD_CHARACTERS)


def test_no_more_than_two_mebibytes_are_read_of_the_file(dev: Person) -> None:
    row = {"messages": [{"role": r, "content": "x" * 100_000} for r in ("user", "assistant")] * 4}
    assert len(rows_preview(added(dev, [row] * 10, "text-generation")).rows) == 3


def test_a_column_with_signs_of_personal_data_is_masked_in_every_row(dev: Person) -> None:
    version = added(
        dev, [{"text": "Ask Ann.", "label": "ok"}, {"text": "ann@example.org", "label": "ok"}]
    )
    assert rows_preview(version).masked == ["text"]
    assert cells(version) == [["••• •••.", "ok"], ["•••@•••••••.•••", "ok"]]


def test_a_conversation_is_masked_whoever_said_it(dev: Person) -> None:
    said = [("user", "Call +49 30 901820"), ("assistant", "Ann answers.")]
    row = {"messages": [{"role": role, "content": text} for role, text in said]}
    version = added(dev, [row], "text-generation")
    assert cells(version) == [["•••• +•• •• ••••••", "••• •••••••."]]
    assert [text.role for text in rows_preview(version).rows[0][0]] == ["user", "assistant"]


def test_every_column_is_masked_where_nobody_looked_for_personal_data(dev: Person) -> None:
    version = added(dev, [{"text": "Ask Ann.", "label": "ok"}])
    version.profile.pop("personal")
    assert rows_preview(version).masked == ["text", "label"]


def test_a_lead_reads_the_text_and_that_is_an_event(
    dev: Person, person: Callable[..., Person]
) -> None:
    version = added(dev, [{"text": "ann@example.org", "label": "ok"}])
    lead = principal_for_person(person("Lena", "lead@engineering"))
    preview = dataset_unmask(actor=lead, id=version.pk)
    assert (preview.masked, preview.rows[0][0][0].text) == ([], "ann@example.org")
    event = AuditEvent.objects.get(action="dataset:unmask")
    assert (event.actor_id, event.department) == (lead.id, "engineering")
    assert (event.subject_type, event.subject_id) == ("dataset_version", str(version.pk))
    assert b"ann@" not in bytes(event.canonical)


def test_a_developer_reads_it_too_unless_it_is_restricted(dev: Person) -> None:
    version = added(dev, [{"text": "ann@example.org", "label": "ok"}])
    actor = principal_for_person(dev)
    assert dataset_unmask(actor=actor, id=version.pk).masked == []
    Dataset.objects.update(classification="restricted")
    with pytest.raises(NotPermitted):
        dataset_unmask(actor=actor, id=version.pk)


@pytest.mark.parametrize(
    ("role", "refusal"),
    [
        ("viewer@engineering", NotPermitted),
        ("auditor", NotPermitted),
        ("admin", NotPermitted),
        ("lead@finance", NotFound),
    ],
)
def test_nobody_else_reads_it(
    dev: Person, person: Callable[..., Person], role: str, refusal: type[Exception]
) -> None:
    version = added(dev, [{"text": "ann@example.org", "label": "ok"}])
    actor: Principal = principal_for_person(person("Otto", role))
    with pytest.raises(refusal):
        dataset_unmask(actor=actor, id=version.pk)
    assert not AuditEvent.objects.filter(action="dataset:unmask", outcome="allowed").exists()


def test_rows_that_the_store_lost_are_told(dev: Person) -> None:
    version = added(dev, [{"text": "a", "label": "b"}])
    stored_file(version.digest).unlink()
    with pytest.raises(Unavailable, match="not in the artifact store"):
        rows_preview(version)


# Rows that name files come in archives: test_dataset_media_versions.py.
WITHOUT_MEDIA = [task for task in TASKS.values() if not media_columns(task.row)]


KINDS = [(task, kind) for task in WITHOUT_MEDIA for kind in task.row_kinds]


@pytest.mark.parametrize(("task", "kind"), KINDS, ids=lambda each: each.name or "own")
def test_the_examples_of_a_task_are_rows_of_it(task: Any, kind: Any, dev: Person) -> None:
    assert len(kind.examples) >= 2
    rows = [json.loads(line) for line in sample_lines(kind).splitlines()]
    version = added(dev, rows, task.name, kind.name)
    assert version.rows == len(kind.examples)
    assert [field.name for field in row_fields(kind)] == list(kind.row.model_fields)
    texts = all(isinstance(each, str) for row in kind.examples for each in row.values())
    assert is_tabular(kind) == (texts or bool(features_column(kind.row)))


def test_the_format_is_told_from_the_schema() -> None:
    (field,) = row_fields(TASKS["text-generation"])
    assert field.value == (
        "2 to 100 objects, each with role: one of system, user, assistant; "
        "content: text of 1 to 100,000 characters"
    )
    assert row_fields(TASKS["text-classification"])[1].value == "text of 1 to 100 characters"


def test_a_masked_column_shows_no_sign_of_any_script(dev: Person) -> None:
    """Vowel signs, accents and emoji are no word characters, and are read all the same."""
    told = "नमस्ते कि ทำไม e\u0301 \U0001f469\u200d\U0001f9b0 a@b.example"
    version = added(dev, [{"text": told, "label": "x"}] * 2 + [{"text": "other", "label": "y"}])
    assert rows_preview(version).masked == ["text"]
    assert set(cells(version)[0][0]) <= set("• @.")


def series(values: list[float], **given: Any) -> dict[str, Any]:
    found = {"start": "2026-01-01", "frequency": "D", "values": values, **given}
    return {"name": "visits", "series": found, "horizon": 2}


def test_a_series_is_drawn_between_its_least_and_largest_value(dev: Person) -> None:
    version = added(dev, [series([1.0, 3.0, 2.0, 2.0])], task="time-series-forecasting")
    (row,) = rows_preview(version).rows
    assert row[1] == [
        Chart("0.0,58.0 100.0,2.0 200.0,30.0 300.0,30.0", 4, "2026-01-01", "2026-01-04", 1, 3)
    ]


def test_a_long_series_is_drawn_with_few_points_and_keeps_its_peak(dev: Person) -> None:
    values = [float(n % 7) for n in range(19_999)]
    values[12_345] = 1_000.0
    version = added(dev, [series(values, frequency="MS")], task="time-series-forecasting")
    (row,) = rows_preview(version).rows
    chart = row[1][0]
    assert isinstance(chart, Chart)
    assert len(chart.points.split()) <= 300
    assert ",2.0" in chart.points
    assert (chart.most, chart.end) == (1_000.0, "3692-07-01")


def test_a_series_of_a_masked_column_is_not_drawn(dev: Person) -> None:
    version = added(dev, [series([1.0, 3.0, 2.0, 2.0])], task="time-series-forecasting")
    DatasetVersion.objects.filter(pk=version.pk).update(profile={})
    version.refresh_from_db()
    (row,) = rows_preview(version).rows
    assert row[1] == [Text("4 values")]


def test_each_column_has_statistics_of_its_kind(dev: Person) -> None:
    rows = [series([1.0, 3.0, 2.0, 2.0]), series([5.0] * 9, frequency="MS") | {"horizon": 4}]
    version = added(dev, rows, task="time-series-forecasting")
    columns = version.profile["columns"]
    assert "characters" not in version.profile
    assert columns["series"] == {
        "kind": "series",
        "unit": "steps",
        "rows": 2,
        "min": 4,
        "mean": 6.5,
        "max": 9,
        "histogram": {"from": 4, "to": 9, "counts": [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]},
        "range": {"from": 1.0, "to": 5.0},
        "frequencies": {"D": 1, "MS": 1},
    }
    assert (columns["name"]["unit"], columns["name"]["distinct"]) == ("characters", 1)
    assert (columns["horizon"]["unit"], columns["horizon"]["max"]) == ("value", 4)


def test_statistics_of_lists_count_their_items(dev: Person) -> None:
    given = {"query": "Which?", "documents": ["a", "b", "c"], "relevant": [1]}
    columns = added(dev, [given], task="rerank").profile["columns"]
    assert {name: found["unit"] for name, found in columns.items()} == {
        "query": "characters",
        "documents": "items",
        "relevant": "items",
    }
    assert columns["documents"]["max"] == 3


def test_passages_are_marked_in_their_text_and_masked_with_it(dev: Person) -> None:
    spans = [{"start": 4, "end": 7, "label": "NAME"}, {"start": 15, "end": 18, "label": "CITY"}]
    rows = [{"text": "Ask Ann who is Ulm.", "spans": spans}, {"text": "Nothing.", "spans": []}]
    version = added(dev, rows, "token-classification")
    first, second = (row[1][0] for row in rows_preview(version).rows)
    assert isinstance(first, Text)
    assert isinstance(second, Text)
    assert [(piece.text, piece.marked, piece.label) for piece in first.pieces] == [
        ("Ask ", False, ""),
        ("Ann", True, "NAME"),
        (" who is ", False, ""),
        ("Ulm", True, "CITY"),
        (".", False, ""),
    ]
    assert [piece.text for piece in second.pieces] == ["Nothing."]
    assert version.profile["labels"] == {"NAME": 1, "CITY": 1}
    assert version.profile["passages"] == {"number": 2, "shortest": 3, "longest": 3}
    personal = {"text": "Ask ann@example.org.", "spans": [{"start": 4, "end": 19, "label": "E"}]}
    masked = rows_preview(added(dev, [personal], "token-classification")).rows[0][1][0]
    assert isinstance(masked, Text)
    assert [piece.text for piece in masked.pieces] == ["••• ", "•••@•••••••.•••", "."]


def test_passages_beyond_what_is_shown_are_left_out(dev: Person) -> None:
    text = "x" * (FIELD_CHARACTERS + 100)
    spans = [
        {"start": FIELD_CHARACTERS - 2, "end": FIELD_CHARACTERS + 5, "label": "A"},
        {"start": FIELD_CHARACTERS + 50, "end": FIELD_CHARACTERS + 60, "label": "B"},
    ]
    shown = rows_preview(added(dev, [{"text": text, "spans": spans}], "token-classification"))
    cell = shown.rows[0][1][0]
    assert isinstance(cell, Text)
    assert [(len(piece.text), piece.label) for piece in cell.pieces] == [
        (FIELD_CHARACTERS - 2, ""),
        (2, "A"),
    ]
    assert cell.left_out == 100


def test_answers_are_marked_in_their_context(dev: Person) -> None:
    row = {
        "question": "Who?",
        "context": "Ann did.",
        "answers": [{"start": 0, "end": 3}, {"start": 0, "end": 7}],
    }
    cell = rows_preview(added(dev, [row], "question-answering")).rows[0][2][0]
    assert isinstance(cell, Text)
    assert [(piece.text, piece.marked) for piece in cell.pieces] == [
        ("Ann", True),
        (" did", True),
        (".", False),
    ]
