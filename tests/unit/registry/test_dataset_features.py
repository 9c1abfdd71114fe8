"""Records as data: CSV, TSV, Parquet and JSON lines give the same typed rows, with statistics of
each feature."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput
from registry.catalog import get_row_kind
from registry.catalog.formats import is_tabular, row_fields
from registry.datasets.cells import _features
from registry.datasets.parsing import ParsedDataset, parse_dataset, read_rows

KIND = get_row_kind("tabular-classification", "")
ROWS = [
    {"features": {"age": 52.0, "smoker": "no", "depth": 0.0031}, "label": "benign"},
    {"features": {"age": None, "smoker": "yes", "depth": 0.25}, "label": "malignant"},
    {"features": {"age": 61.0, "smoker": None, "depth": 0.5}, "label": "benign"},
]
CSV = "age,smoker,label,depth\n52,no,benign,0.0031\n,yes,malignant,0.25\n61, ,benign,5e-1\n"


def parsed(tmp_path: Path, content: bytes | str, name: str, **given: Any) -> ParsedDataset:
    source = tmp_path / "source"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    return parse_dataset(
        source=source,
        name=name,
        target=tmp_path / "rows",
        row_kind=KIND,
        **{"columns": None, **given},
    )


def rows_of(tmp_path: Path) -> list[Any]:
    return list(read_rows((tmp_path / "rows").open("rb")))


def parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "structs.parquet"])
def test_every_format_gives_one_typed_row_for_each_record(name: str, tmp_path: Path) -> None:
    content: bytes | str = CSV
    if name == "a.tsv":
        content = CSV.replace(",", "\t")
    elif name == "a.jsonl":
        content = "".join(json.dumps(row) + "\n" for row in ROWS)
    elif name == "a.parquet":
        features = {key: [row["features"][key] for row in ROWS] for key in ROWS[0]["features"]}
        content = parquet({**features, "label": [row["label"] for row in ROWS]})
    elif name == "structs.parquet":
        content = parquet({key: [row[key] for row in ROWS] for key in ("features", "label")})
    found = parsed(tmp_path, content, name)
    assert rows_of(tmp_path) == ROWS
    assert found.profile["labels"] == {"benign": 2, "malignant": 1}
    assert "characters" not in found.profile


def test_another_column_can_be_the_label(tmp_path: Path) -> None:
    table = "age,diagnosis\n52,benign\n"
    parsed(tmp_path, table, "a.csv", columns={"label": "diagnosis"})
    assert rows_of(tmp_path) == [{"features": {"age": 52.0}, "label": "benign"}]
    flat = '{"age": 52, "well": true, "diagnosis": "benign"}\n'
    parsed(tmp_path, flat, "a.jsonl", columns={"label": "diagnosis"})
    assert rows_of(tmp_path) == [{"features": {"age": 52.0, "well": "true"}, "label": "benign"}]
    with pytest.raises(InvalidInput, match="its rows have label"):
        parsed(tmp_path, table, "a.csv", columns={"features": "age", "label": "diagnosis"})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("age,label\n5,a\nnan,b\n", "Line 3: features.age: .*finite"),
        ("age,label\n5,a\n-inf,b\n", "Line 3: features.age: .*finite"),
        ("age,label\n1e999,a\n", "Line 2: features.age: .*finite"),
        ("age,label\n5,a\nN/A,b\n", "Line 3: age is a text here, and a number in the rows before"),
        ("age,label\nold,a\n5,b\n", "Line 3: age is a number here, and a text"),
        (",age,label\n0,5,a\n", "Line 1: column 1 has no name"),
        ("age\n5\n", "Line 1: there is no column 'label'"),
        ("label\na\n", "Line 2: features is empty"),
        ("age,label\n" + "x" * 201 + ",a\n", "Line 2: features.age: .*1 to 200 characters"),
        (
            ",".join(map(str, range(201))) + ",label\n" + "1," * 201 + "a\n",
            "Line 1: there are 201 features",
        ),
    ],
)
def test_what_is_no_table_is_refused_by_its_line(table: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=said):
        parsed(tmp_path, table, "a.csv")


def test_records_of_other_features_and_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    def lines(*features: str) -> str:
        return "".join(f'{{"features": {each}, "label": "a"}}\n' for each in features)

    for given, said in [
        (('{"a": 1}', '{"b": 1}'), "Line 2: it lacks the feature 'a'"),
        (('{"a": 1}', '{"a": 1, "b": 1}'), "Line 2: it has the feature 'b', which the first row"),
        (('{"a": 1}', '{"a": NaN}'), "Line 2: features.a: .*finite"),
        (('{"a": [1]}',), "Line 1: features.a: .*a value is a number"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            parsed(tmp_path, lines(*given), "a.jsonl")
    with pytest.raises(InvalidInput, match=r"Row 2: features.a: .*finite"):
        parsed(tmp_path, parquet({"a": [1.0, float("nan")], "label": ["x", "y"]}), "a.parquet")


def test_statistics_tell_of_each_feature_how_it_is_spread_and_what_is_missing(
    tmp_path: Path,
) -> None:
    columns = parsed(tmp_path, CSV, "a.csv").profile["columns"]
    age, depth = columns["features.age"], columns["features.depth"]
    assert (age["kind"], age["min"], age["max"], age["missing"]) == ("number", 52, 61, 1)
    assert (depth["min"], depth["mean"], depth["missing"]) == (0.0031, 0.251, 0)
    smoker = columns["features.smoker"]
    assert (smoker["kind"], smoker["distinct"], smoker["missing"]) == ("category", 2, 1)
    assert "yes" not in json.dumps(smoker)


def test_categories_are_searched_for_personal_data(tmp_path: Path) -> None:
    table = "who,label\nana@example.org,a\n"
    found = parsed(tmp_path, table, "a.csv").profile["personal"]["columns"]
    assert found == {"features of the who": {"e-mail": 1}}


def test_the_preview_shows_each_feature_with_its_name_and_masks_its_value() -> None:
    shown = _features({"age": 52.0, "smoker": "no", "depth": None}, hide=True)
    assert [(each.label, each.text) for each in shown if hasattr(each, "label")] == [
        ("age", "••"),
        ("smoker", "••"),
        ("depth", "•"),
    ]
    many = _features({str(number): 1.5 for number in range(50)}, hide=False)
    assert (len(many), getattr(many[-1], "text", "")) == (41, "10 more")


def test_the_form_says_that_tables_can_hold_records() -> None:
    assert is_tabular(KIND)
    assert "every other column" in row_fields(KIND)[0].value
