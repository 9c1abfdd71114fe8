"""Film reviews are divided so that no review and no quotation is in two parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_demo.data import film_reviews
from assay_demo.data.film_reviews import Parts, Rated, read_sentences, split


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_reviews, "TEST_ROWS", 200)
    monkeypatch.setattr(film_reviews, "VALIDATION_ROWS", 100)


def sentences(count: int = 1_000) -> list[Rated]:
    return [Rated(n, 1.5 if n % 2 else -1.5, f"Sentence number {n}.") for n in range(1, count + 1)]


def texts(parts: Parts) -> list[set[str]]:
    return [{row["text"] for row in part} for part in (parts.train, parts.validation, parts.test)]


def test_neighbors_in_the_source_stay_in_one_part() -> None:
    found = texts(split(sentences()))
    assert [len(part) for part in found][2] == 200
    for start in range(20, 1_000, 20):
        block = {f"Sentence number {n}." for n in range(start, start + 20)}
        assert sum(bool(block & part) for part in found) == 1


def test_sentences_that_share_eight_words_in_a_row_stay_in_one_part() -> None:
    quote = "this film is one of the ten best"
    quoting = {n: f"{n}: {quote} of year {n}" for n in range(7, 1_000, 70)}
    found = split([Rated(each.number, 2.0, quoting.get(each.number, each.text))
                   for each in sentences()])  # fmt: skip
    assert sum(any(quote in text for text in part) for part in texts(found)) == 1


def test_no_text_is_in_two_parts_or_twice_in_one() -> None:
    twice = [*sentences(), *(Rated(n + 1_000, 1.0, f"SENTENCE number {n}!") for n in range(1, 200))]
    parts = split(twice)
    rows = [row["text"].lower() for row in (*parts.train, *parts.validation, *parts.test)]
    assert len(rows) == len(set(rows)) == 1_000


def test_a_sentence_close_to_neutral_is_left_out_and_the_sign_gives_the_label() -> None:
    parts = split([Rated(1, 0.4, "so so"), Rated(2, -0.5, "meh"), Rated(3, -0.6, "weak")])
    assert (parts.train, parts.validation) == ([], [])
    assert parts.test == [{"text": "weak", "label": "negative"}]


def test_the_division_is_the_same_every_time_and_fewer_rows_are_a_part_of_more() -> None:
    whole, some = split(sentences()), split(sentences(), train_rows=50)
    assert split(reversed(sentences())).test == whole.test
    assert some.train == whole.train[:50]
    assert some.test == whole.test


def test_a_file_is_read_as_number_rating_and_text(tmp_path: Path) -> None:
    file = tmp_path / "truth.txt"
    file.write_bytes("1\t2.25\tFine \u2013 very  fine.\r\n2\t-3\tAwful.\r\n".encode())
    assert read_sentences(file) == [
        Rated(1, 2.25, "Fine \u2013 very fine."),
        Rated(2, -3.0, "Awful."),
    ]
