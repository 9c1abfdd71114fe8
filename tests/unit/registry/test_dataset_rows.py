"""Pages of all rows of a dataset version: searched and sorted within bounds, by visible columns."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from governance.audit.models import AuditEvent
from governance.errors import DomainError, Unavailable
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from registry.datasets import personal
from registry.datasets import rows as reading
from registry.datasets.models import DatasetVersion
from registry.datasets.preview import RowsPreview, dataset_unmask, rows_preview
from registry.datasets.schemas import RowsQuery
from registry.sandbox.places import FairPlaces
from tests.unit.registry.objects import stored
from tests.unit.registry.test_dataset_preview import added
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def dev(policy: object, person: Callable[..., Person]) -> Person:
    return person("Devi", "developer@engineering")


@pytest.fixture
def fifty(dev: Person) -> DatasetVersion:
    """Create a version of fifty rows; every fifth row is labeled `rare`."""
    return added(
        dev, [{"text": f"Text {n}", "label": "rare" if n % 5 == 0 else "often"} for n in range(50)]
    )


def page(version: DatasetVersion, **query: Any) -> RowsPreview:
    return rows_preview(version, RowsQuery(**query))


def first_texts(preview: RowsPreview) -> list[str]:
    return [row[0][0].text for row in preview.rows]  # type: ignore[union-attr]


def test_pages_reach_every_row(fifty: DatasetVersion) -> None:
    numbers: list[int] = []
    row: int | None = 1
    while row:
        preview = page(fifty, row=row)
        assert (preview.query.row, preview.total) == (row, 50)
        numbers += preview.numbers
        row = preview.next
    assert numbers == list(range(1, 51))
    assert preview.previous == 21
    assert first_texts(page(fifty, row=50)) == ["Text 49"]
    beyond = page(fifty, row=1_000_000)
    assert (beyond.rows, beyond.next) == ([], None)


def test_a_search_counts_all_matches_and_keeps_the_numbers_of_rows(fifty: DatasetVersion) -> None:
    preview = page(fifty, q="RARE")
    assert (preview.matches, preview.numbers[:3], preview.next) == (10, [1, 6, 11], None)
    often = page(fifty, q="often", row=21)
    assert (often.matches, often.numbers[0], often.last, often.next) == (40, 27, 40, None)
    assert page(fifty, q="nowhere").rows == []


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "two\nlines", "Größe", "naïve ẞ"])
def test_a_search_finds_what_json_escapes_and_other_scripts(dev: Person, text: str) -> None:
    version = added(dev, [{"text": f"x {text} y", "label": "a"}, {"text": "z", "label": "b"}])
    found = page(version, q=text.replace("\n", " ").upper() if "\n" not in text else "LINES")
    assert found.numbers == [1]


def test_a_conversation_is_searched_by_what_was_said(dev: Person) -> None:
    said = [("user", "Where is Ulm?"), ("assistant", "On the Danube.")]
    row = {"messages": [{"role": role, "content": content} for role, content in said]}
    version = added(dev, [row, row | {"messages": row["messages"] * 2}], "text-generation")
    assert page(version, q="danube").matches == 2
    assert page(version, q="assistant").matches == 0
    # Sorted by length.
    assert page(version, sort="messages", order="desc").numbers == [2, 1]


def test_rows_are_sorted_by_a_column_in_both_directions(fifty: DatasetVersion) -> None:
    ascending = page(fifty, sort="label", row=41)
    assert ascending.numbers == [1, 6, 11, 16, 21, 26, 31, 36, 41, 46]
    descending = page(fifty, sort="label", order="desc")
    assert descending.numbers[:10] == ascending.numbers
    found = page(fifty, q="rare", sort="text", order="desc")
    assert (found.matches, first_texts(found)[:2]) == (10, ["Text 5", "Text 45"])
    # An unknown column keeps the order of the file.
    assert page(fifty, sort="no-column").query.sort == ""


def test_features_are_sorted_with_missing_values_last(dev: Person) -> None:
    ages = [41.0, None, 7.0, 99.5]
    rows = [{"features": {"age": age, "city": "Ulm"}, "label": "a"} for age in ages]
    version = added(dev, rows, "tabular-classification")
    assert {"features.age", "features.city"} <= set(page(version).sorts)
    assert page(version, sort="features.age").numbers == [3, 1, 4, 2]
    assert page(version, sort="features.age", order="desc").numbers == [4, 1, 3, 2]
    assert page(version, q="99.5").numbers == [4]


def test_masked_columns_are_neither_searched_nor_sorted(dev: Person) -> None:
    """Otherwise, matches would reveal the masked text."""
    rows = [{"text": f"{name}@example.org", "label": "x"} for name in ("zoe", "ann", "mia")]
    version = added(dev, rows)
    masked = page(version, q="ann@", sort="text")
    assert (masked.masked, masked.searched, masked.sorts) == (["text"], ["label"], ["label"])
    assert (masked.matches, masked.numbers) == (0, [])
    assert page(version, sort="text").numbers == [1, 2, 3]
    version.profile.pop("personal")
    everything = page(version, q="ann@")
    assert (everything.searched, everything.query.q, everything.numbers) == ([], "", [1, 2, 3])


def test_unmasked_rows_are_searched_and_the_event_names_them(
    dev: Person, person: Callable[..., Person]
) -> None:
    rows = [{"text": f"{name}@example.org", "label": "x"} for name in ("zoe", "ann", "mia")]
    version = added(dev, rows)
    lead = principal_for_person(person("Lena", "lead@engineering"))
    query = RowsQuery(q="ann@", sort="text")
    preview = dataset_unmask(actor=lead, id=version.pk, query=query)
    assert (preview.numbers, preview.unmasked, preview.masked) == ([2], True, [])
    event = AuditEvent.objects.get(action="dataset:unmask")
    data = json.loads(bytes(event.canonical))["data"]
    assert (data["digest"], data["rows"], data["numbers"]) == (version.digest, 1, [2])
    assert b"ann@" not in bytes(event.canonical)


def test_rows_in_which_nothing_looked_for_personal_data_are_masked_and_not_searched(
    dev: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal, "MAX_ROWS", 30)
    rows = [
        {"text": f"ann{n}@example.org" if n > 40 else f"row {n}", "label": "a"} for n in range(50)
    ]
    version = added(dev, rows)
    assert (page(version).masked, page(version).unchecked) == ([], 20)
    # Numbers 21 to 30 are readable, 31 to 40 are not.
    mixed = first_texts(page(version, row=21))
    assert (mixed[9], mixed[10]) == ("row 29", "••• ••")
    assert page(version, q="ann").matches == 0
    assert page(version, q="row").matches == page(version, sort="text").matches == 30
    unmasked = dataset_unmask(
        actor=principal_for_person(dev), id=version.pk, query=RowsQuery(q="ann")
    )
    assert (unmasked.matches, unmasked.unchecked) == (9, 0)


def test_the_end_of_a_long_text_is_searched_only_unmasked(dev: Person) -> None:
    text = "x " * personal.MAX_CHARACTERS + "ann@example.org"
    version = added(dev, [{"text": text, "label": "a"}])
    assert (page(version).masked, page(version, q="ann@").matches) == ([], 0)
    unmasked = dataset_unmask(
        actor=principal_for_person(dev), id=version.pk, query=RowsQuery(q="ann@")
    )
    assert unmasked.matches == 1


def test_spans_of_a_masked_text_are_not_searched(dev: Person) -> None:
    row = {"text": "Ask ann@example.org.", "spans": [{"start": 4, "end": 19, "label": "E"}]}
    assert page(added(dev, [row], "token-classification")).searched == []


def test_a_page_of_large_rows_ends_early_and_the_next_goes_on(dev: Person) -> None:
    row = {"messages": [{"role": r, "content": "x" * 100_000} for r in ("user", "assistant")] * 4}
    version = added(dev, [row] * 7, "text-generation")
    assert page(version, row=4).numbers == [4, 5, 6]
    assert page(version, row=4).next == 7
    assert page(version, sort="messages").numbers == [1, 2, 3]


def test_rows_that_no_time_was_left_for_are_told(
    dev: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SEARCH_S", 0.0)
    rows = [{"text": f"{n} " + "x" * 90_000, "label": "a"} for n in range(30)]
    version = added(dev, rows)
    preview = page(version, q="x")
    assert preview.cut
    assert 0 < preview.matches == preview.read < 30
    assert page(version, sort="text").cut


def test_sorted_pages_reach_a_bounded_number_of_rows(
    fifty: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SORTED_MAX", 30)
    monkeypatch.setattr("registry.datasets.preview.SORTED_MAX", 30)
    preview = page(fifty, sort="text", row=21)
    assert (len(preview.rows), preview.next, preview.listed, preview.matches) == (10, None, 30, 50)
    assert page(fifty, sort="text", row=31).rows == []
    assert len(page(fifty, row=21).rows) == 20


def test_a_department_does_not_hold_all_searches(
    fifty: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = FairPlaces(2, wait_s=0.1, refusal="Too many searches.")
    monkeypatch.setattr(reading, "_places", places)
    # Small files need no place.
    assert fifty.size_bytes <= reading.SMALL_BYTES
    with places.place(str(fifty.dataset.department_id)):
        assert page(fifty, q="rare").matches == 10
    monkeypatch.setattr(reading, "SMALL_BYTES", 0)
    with places.place(str(fifty.dataset.department_id)):
        with pytest.raises(Unavailable, match="Too many searches"):
            page(fifty, q="rare")
        # The first page needs no place.
        assert len(page(fifty).rows) == 20
    with places.place("another department"):
        assert page(fifty, q="rare").matches == 10


def test_searches_leave_half_of_the_web_threads_to_other_requests() -> None:
    ended, refused = threading.Event(), []

    def search(department: str) -> None:
        try:
            with reading._places.place(department):
                ended.wait(PATIENCE_S)
        except DomainError as error:
            refused.append(error)

    names = [f"department-{number % 2}" for number in range(settings.WEB_THREADS)]
    threads = [threading.Thread(target=search, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(refused) >= settings.WEB_THREADS // 2)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("small_bytes", [0, reading.SMALL_BYTES])
def test_a_damaged_line_is_told(
    fifty: DatasetVersion, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr(reading, "SMALL_BYTES", small_bytes)
    (file,) = stored({"rows.jsonl": b'{"text":"a","label":"b"}\nnot JSON b\n'}).files
    fifty.digest = file.sha256
    with pytest.raises(Unavailable, match="are damaged"):
        page(fifty, q="b")
