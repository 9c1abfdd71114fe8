"""Any table in, canonical rows out; every error names the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, TooLarge, WrongState
from governance.people.models import Department
from governance.principals import Principal
from registry.datasets.leaks import Overlap, overlap
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.selectors import dataset_get, datasets_visible_to
from registry.datasets.services import dataset_create, dataset_version_add
from tests.stored import incoming, stored_file
from tests.unit.registry.objects import CLASSIFY, Upload, sha256

pytestmark = pytest.mark.django_db
REVIEWS = (
    "\tdrug\treview\trating\r\n"
    '1\tA\t"""It said\n""no"" twice."""\tnegative\r\n'
    "2\tB\tFine &amp; quick\tpositive\r\n"
    "3\tB\tfine  &amp; QUICK\tneutral\r\n"
)
COLUMNS = {"text": "review", "label": "rating"}


@pytest.fixture
def developer(actor: Callable[..., Principal]) -> Principal:
    return actor("Devi", "developer@clinical")


@pytest.fixture
def reviews(developer: Principal, department: Callable[[str], Department]) -> Dataset:
    return create(developer, department("clinical"))


def create(who: Principal, where: Department, **changes: Any) -> Dataset:
    return dataset_create(
        **{
            "actor": who,
            "name": "reviews",
            "department": where,
            "task": CLASSIFY,
            "classification": "internal",
            "license": "CC0",
            **changes,
        }
    )


def add(
    who: Principal, dataset: Dataset, name: str, text: str | bytes, columns: Any = None
) -> DatasetVersion:
    content = text.encode() if isinstance(text, str) else text
    return dataset_version_add(
        actor=who, dataset=dataset, file=Upload(name, content), columns=columns
    )


def test_a_table_with_quoted_newlines_becomes_canonical_rows(
    developer: Principal, reviews: Dataset
) -> None:
    version = add(developer, reviews, "train.tsv", REVIEWS, COLUMNS)
    content = stored_file(version.digest).read_bytes()
    assert content.splitlines()[0] == rb'{"label":"negative","text":"\"It said\n\"no\" twice.\""}'
    assert (version.number, version.rows, version.size_bytes) == (1, 3, len(content))
    assert version.digest == sha256(content)
    assert version.profile["duplicates"] == 1
    assert version.profile["personal"]["columns"] == {}
    assert version.profile["labels"] == {"negative": 1, "positive": 1, "neutral": 1}
    event = AuditEvent.objects.get(action="dataset_version:create")
    assert json.loads(bytes(event.canonical))["data"]["digest"] == version.digest


def test_the_same_rows_have_the_same_digest_from_every_format(
    developer: Principal, department: Callable[[str], Department]
) -> None:
    files = {
        "a": ("a.csv", "label,text\ngood,Works\n"),
        "b": ("b.jsonl", '{"text": "Works", "label": "good"}\n\n'),
        "c": ("c.TSV", "\ufefftext\tlabel\tmore\nWorks\tgood\t7\n"),
    }
    digests = set()
    for name, (file, text) in files.items():
        dataset = create(developer, department("clinical"), name=name)
        digests.add(add(developer, dataset, file, text).digest)
    assert len(digests) == 1


def test_the_same_rows_twice_are_no_new_version(developer: Principal, reviews: Dataset) -> None:
    add(developer, reviews, "train.tsv", REVIEWS, COLUMNS)
    with pytest.raises(WrongState, match="reviews v1 holds exactly these rows"):
        add(developer, reviews, "train.tsv", REVIEWS, COLUMNS)


@pytest.mark.parametrize(
    ("name", "text", "columns", "sentence"),
    [
        ("rows.xlsx", "x", None, "rows.xlsx is not a dataset file"),
        ("rows.parquet", "x", None, "The file cannot be read as Parquet"),
        ("rows.zip", "x", None, "a zip archive is not accepted"),
        ("rows.csv", "", None, "Line 1: there is no column 'text'"),
        ("rows.csv", "text,label\n", None, "The file holds no row"),
        ("rows.csv", "text,label\na,b\nc\n", None, "Line 3: it has 1 of the 2 columns."),
        ("rows.csv", "text,text\na,b\n", None, "Line 1: the column 'text' occurs twice"),
        ("rows.csv", "text,label\na,b\n,b\n", None, "Line 3: text is empty."),
        ("rows.csv", 'text,label\n"a,b\n', None, "Line 2: it cannot be read as a table"),
        ("rows.csv", b"text,label\n\xff,b\n", None, "is not UTF-8"),
        ("rows.csv", "text,label\na\0,b\n", None, "Line 2: it holds a NUL"),
        ("rows.csv", "text,label\na,b\n", {"text": "body", "label": "label"}, "no column 'body'"),
        ("rows.csv", "text,label\na,b\n", {"text": "text"}, "column names do not fit"),
        ("rows.csv", "text,label\na,b\n", {"text": "text", "label": 7}, "column names do not fit"),
        ("rows.jsonl", "{}\nnonsense\n", None, "Line 1: text is required."),
        ("rows.jsonl", "[1]\n", None, "Line 1: it is not a JSON object"),
        ("rows.jsonl", "[" * 100_000 + "\n", None, "Line 1: it is not JSON"),
        ("rows.jsonl", '{"text": "a", "label": 7}\n', None, "Line 1: label must be text."),
        ("rows.jsonl", '{"text": "a", "label": "b", "c": 1}\n', None, "Line 1: c is unknown."),
        ("rows.jsonl", '{"text": "\\ud800", "label": "b"}\n', None, "Line 1: "),
        ("rows.jsonl", '{"a": "x"}\n', {"text": "a", "label": "b"}, "Line 1: it has no key 'b'"),
    ],
)
def test_what_cannot_be_read_is_refused_by_line(
    developer: Principal, reviews: Dataset, name: str, text: str, columns: Any, sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        add(developer, reviews, name, text, columns)
    assert sentence in refused.value.message
    assert not reviews.versions.exists()
    assert incoming() == []


def test_bounds_on_file_and_row_hold(developer: Principal, reviews: Dataset, settings: Any) -> None:
    long = json.dumps({"text": "x" * (1024 * 1024), "label": "a"})
    with pytest.raises(TooLarge, match="Line 1"):
        add(developer, reviews, "rows.jsonl", long)
    settings.DATASET_MAX_BYTES = 50
    with pytest.raises(TooLarge, match="larger than 50 bytes"):
        add(developer, reviews, "train.tsv", REVIEWS, COLUMNS)


def test_a_conversation_must_end_with_the_answer(
    developer: Principal, department: Callable[[str], Department]
) -> None:
    dataset = create(developer, department("clinical"), name="chat", task="text-generation")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    version = add(developer, dataset, "a.jsonl", json.dumps({"messages": turns}))
    assert version.profile["characters"]["max"] == len("user: Hi")
    with pytest.raises(InvalidInput, match="the last message must be the assistant's"):
        add(developer, dataset, "b.jsonl", json.dumps({"messages": turns[:1] * 2}))


def test_a_leak_is_found_whatever_its_label_case_and_spaces(
    developer: Principal, reviews: Dataset, department: Callable[[str], Department]
) -> None:
    train = add(developer, reviews, "train.tsv", REVIEWS, COLUMNS)
    other = create(developer, department("clinical"), name="test")
    text = "text,label\nFINE &amp; quick,negative\nNew,positive\n"
    test = add(developer, other, "test.csv", text)
    assert overlap([train], test) == Overlap(1)
    assert overlap([test], train) == Overlap(2)


def test_only_a_departments_own_people_add_and_see_its_data(
    developer: Principal, reviews: Dataset, actor: Callable[..., Principal]
) -> None:
    stranger = actor("Fritz", "developer@finance")
    viewer = actor("Vera", "viewer@clinical")
    with pytest.raises(NotFound):
        add(stranger, reviews, "train.tsv", REVIEWS, COLUMNS)
    with pytest.raises(NotFound):
        dataset_get(actor=stranger, name="reviews")
    with pytest.raises(NotPermitted):
        add(viewer, reviews, "train.tsv", REVIEWS, COLUMNS)
    assert [each.name for each in datasets_visible_to(viewer)] == ["reviews"]


def test_a_second_dataset_of_a_name_and_a_malformed_one_are_refused(
    developer: Principal, reviews: Dataset, department: Callable[[str], Department]
) -> None:
    clinical = department("clinical")
    with pytest.raises(WrongState, match="already exists"):
        create(developer, clinical)
    for wrong in ({"name": "Reviews"}, {"classification": "secret"}, {"task": "x"},
                  {"license": " "}):  # fmt: skip
        with pytest.raises(InvalidInput):
            create(developer, clinical, **{"name": "other", **wrong})
