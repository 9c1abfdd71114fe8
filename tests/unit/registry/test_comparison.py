"""One thing beside another: numbers, cards, fields, files, rows, samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.people.models import Department, Person
from registry.evaluations.intervals import Interval, Paired, wilson
from registry.evaluations.models import Evaluation
from registry.releases.comparison import card, files
from registry.releases.comparison import data as changes
from registry.releases.comparison.build import evaluation_compare
from registry.releases.comparison.card import card_changes, sections
from registry.releases.comparison.data import RowChanges, data_change, is_too_large, row_changes
from registry.releases.comparison.fields import FIELDS_SHOWN, field_changes, flat
from registry.releases.comparison.files import file_changes
from registry.releases.comparison.measures import change_of, paired_rows
from registry.releases.comparison.samples import SamplePart, sample_pairs, sample_part
from registry.versions.models import ModelVersion
from tests.stored import stored_file
from tests.unit.registry.objects import data, evaluation, model, version

pytestmark = pytest.mark.sweep


def test_a_change_is_within_noise_when_its_interval_holds_nought() -> None:
    # 270 and 260 right of 379; then 300.
    few = change_of(270 / 379, wilson(270 / 379, 379), 260 / 379, wilson(260 / 379, 379), True)
    assert (few.better, few.verdict) == (True, "within_noise")
    assert few.low is not None
    assert few.high is not None
    assert few.low < 0 < few.size < few.high  # type: ignore[operator]
    more = change_of(300 / 379, wilson(300 / 379, 379), 260 / 379, wilson(260 / 379, 379), True)
    assert more.verdict == "better"
    less = change_of(260 / 379, wilson(260 / 379, 379), 300 / 379, wilson(300 / 379, 379), True)
    assert less.verdict == "worse"


def test_what_has_no_interval_or_no_other_is_not_judged() -> None:
    sure = Interval(8.0, 10.0, 48, "bootstrap")
    assert change_of(9.0, sure, None, None, False).verdict == "alone"
    unsure = change_of(9.0, sure, 12.0, None, False)
    assert (unsure.verdict, unsure.better, unsure.size) == ("unsure", True, -3.0)
    # The direction of a metric is unknown if the task does not declare the metric.
    unknown = change_of(9.0, sure, 20.0, Interval(19.0, 21.0, 48, "bootstrap"), None)
    assert (unknown.verdict, unknown.better) == ("unsure", None)
    assert change_of(9.0, sure, 9.0, sure, False).verdict == "within_noise"


def test_rows_that_both_answered_make_the_change_of_accuracy_surer() -> None:
    def of(bits: str, n: int = 8, **more: Any) -> Evaluation:
        return Evaluation(details={"right": {"n": n, "bits": bits}, **more})

    # 1110 1000 beside 1100 0100.
    assert paired_rows(of("e8"), of("c4")) == Paired(both=2, new_only=2, old_only=1, neither=3)
    assert paired_rows(of("e8"), of("c4", n=7)) is None
    assert paired_rows(of("e8"), of("zz")) is None
    assert paired_rows(of("ff", n=2), of("00", n=2)) is None
    assert paired_rows(of("e8"), Evaluation(details={})) is None
    apart = change_of(0.8, wilson(0.8, 379), 0.75, wilson(0.75, 379), True)
    pairs = Paired(both=273, new_only=30, old_only=11, neither=65)
    paired = change_of(303 / 379, wilson(0.8, 379), 284 / 379, wilson(0.75, 379), True, pairs)
    assert (apart.verdict, apart.paired) == ("within_noise", False)
    assert (paired.verdict, paired.paired) == ("better", True)


def test_a_version_stands_beside_each_baseline_row_by_row(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    maker = person("Maker")
    tuned = version(model(maker, department("clinical")), maker)
    held_out = data(maker, department("clinical"), "held-out", [{"text": "a", "label": "b"}])
    # 40 rows: the version is right on 34 of them, the linear model on 24 of these.
    baselines = [
        {"name": "TF-IDF", "metrics": {"accuracy": 0.6}, "trained_on": 900,
         "right": {"n": 40, "bits": "ffffff0000"}},
        {"name": "always", "metrics": {"accuracy": 0.5}, "trained_on": 0},
    ]  # fmt: skip
    done = evaluation(
        tuned,
        held_out,
        maker,
        metrics={"accuracy": 0.85},
        baseline={"accuracy": 0.6},
        baseline_name="TF-IDF",
        details={"right": {"n": 40, "bits": "ffffffffc0"}, "baselines": baselines},
        sample_size=40,
    )
    found = evaluation_compare(done, "text-classification")
    linear, constant = found.baselines
    assert (linear.name, linear.value, linear.trained_on) == ("TF-IDF", 0.6, 900)
    assert linear.change.size == pytest.approx(0.25)
    assert (linear.change.verdict, linear.change.paired) == ("better", True)
    assert (constant.change.verdict, constant.change.paired) == ("better", False)
    assert linear.interval.low < 0.6 < linear.interval.high
    assert found.metrics[0].change == linear.change
    assert evaluation_compare(done, "text-generation").baselines == []


CARD = """Made by hand.

# Docstring writer

One line.

## Limits

- Not async.

```
# no heading
```

## Limits

More.
"""


def test_a_card_falls_into_sections_by_its_headings() -> None:
    assert sections(CARD) == {
        "introduction": ("Introduction", "Made by hand."),
        "docstring-writer": ("Docstring writer", "One line."),
        "limits": ("Limits", "- Not async.\n\n```\n# no heading\n```"),
        "limits-2": ("Limits", "More."),
    }
    assert sections("") == {}
    assert list(sections("# Über uns ##\n#no heading\n")) == ["ber-uns"]


def test_a_card_is_compared_by_section() -> None:
    new = CARD.replace("- Not async.", "- Not async.\n- Not lambdas.").replace("Made by hand.", "")
    found = card_changes(new + "\n## Use\n\nIn the editor.\n", CARD)
    assert [(each.slug, each.change) for each in found.sections] == [
        ("limits", "changed"),
        ("use", "added"),
        ("introduction", "removed"),
    ]
    assert found.same == 2
    assert ("add", "+- Not lambdas.") in found.sections[0].lines
    assert found.sections[2].lines == [("del", "-Made by hand.")]
    assert card_changes(CARD, CARD).sections == []


def test_what_is_shown_of_a_card_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "SECTIONS_SHOWN", 2)
    monkeypatch.setattr(card, "LINES_SHOWN", 3)
    monkeypatch.setattr(card, "LINES_COMPARED", 50)
    text = "\n".join(f"line {n}" for n in range(9))
    found = card_changes(f"# A\n{text}\n# B\nb\n# C\nc\n# D\nd", "")
    assert (len(found.sections), found.left_out) == (2, 2)
    assert (len(found.sections[0].lines), found.sections[0].left_out) == (3, 6)
    long = card_changes("# A\n" + "x\n" * 60, "# A\ny\n").sections[0]
    assert long.lines == [("", "1 lines before, 60 now: too many to compare here.")]


def test_fields_are_the_same_changed_added_or_removed() -> None:
    found = field_changes({"a": 1, "b": [2], "c": None}, {"a": 1, "b": [3], "d": 4})
    assert [(row.name, row.change, row.old, row.new) for row in found.rows] == [
        ("b", "changed", [3], [2]),
        ("c", "added", None, None),
        ("d", "removed", 4, None),
        ("a", "same", 1, 1),
    ]
    assert [row.change for row in field_changes({"a": 1}, None).rows] == ["new"]
    many = field_changes({str(n): n for n in range(FIELDS_SHOWN + 5)}, {})
    assert (len(many.rows), many.left_out) == (FIELDS_SHOWN, 5)


def test_nested_values_are_named_by_the_way_to_them() -> None:
    risks = [{"hazard": "Wrong dose", "likelihood": "rare"}, {"hazard": "Slow"}]
    given = {"risks": risks, "operation": {"contact": "x", "tags": ["a", "b"], "none": ""}}
    assert flat(given) == {
        "risks · 1 · hazard": "Wrong dose",
        "risks · 1 · likelihood": "rare",
        "risks · 2 · hazard": "Slow",
        "operation · contact": "x",
        "operation · tags": ["a", "b"],
    }
    deep: dict[str, Any] = {}
    at = deep
    for _ in range(400):
        at["x"] = at = {}
    at["end"] = 1
    assert len(flat(deep)) == 1


def test_files_are_compared_by_path_and_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(**digests: str) -> ModelVersion:
        rows = [{"path": path, "size": 1, "sha256": sha} for path, sha in digests.items()]
        return ModelVersion(manifest={"files": rows, "base_digest": None})

    new, old = of(a="1", b="2", c="3"), of(b="2", c="4", d="5")
    found = file_changes(new, old)
    assert [(row.path, row.change, row.before) for row in found.rows] == [
        ("a", "added", ""),
        ("c", "changed", "4"),
        ("d", "removed", "5"),
        ("b", "same", "2"),
    ]
    assert found.changed == 3
    assert {row.change for row in file_changes(new, None).rows} == {"new"}
    monkeypatch.setattr(files, "FILES_SHOWN", 2)
    assert (file_changes(new, old).left_out, file_changes(new, old).changed) == (2, 3)


def test_samples_are_paired_by_what_was_asked_and_expected() -> None:
    def of(*samples: tuple[str, ...]) -> Evaluation:
        names = ("input", "expected", "output", "baseline")
        return Evaluation(
            details={"samples": [dict(zip(names, each, strict=False)) for each in samples]}
        )

    mine = of(("p", "e", "new 1"), ("p", "e", "new 2"), ("q", "e", "new 3"), ("r", "e", "new 4"))
    theirs = of(("q", "e", "old 3"), ("p", "e", "old 1"), ("p", "e", "old 2"), ("r", "f", "old 4"))
    assert [(pair.new.text, pair.old and pair.old.text) for pair in sample_pairs(mine, theirs)] == [
        ("new 1", "old 1"),
        ("new 2", "old 2"),
        ("new 3", "old 3"),
        ("new 4", None),
    ]
    alone = of(("p", "e", "new", "base"), ("q", "e", "new"))
    assert [pair.old for pair in sample_pairs(alone, None)] == [SamplePart("base"), None]
    assert sample_pairs(of(*[("p", "e", "new")] * 20), None)[8:] == []


def test_a_sample_shows_small_pictures_and_no_other_address() -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    assert sample_part({"input_image": picture}, "input") == SamplePart("", picture)
    assert sample_part({"output": "Shirt"}, "output") == SamplePart("Shirt")
    assert sample_part({"output": "Shirt"}, "expected") is None
    for forged in ("https://evil.example/p.png", "data:text/html,<b>", picture + "A" * 40_000, 7):
        assert sample_part({"input_image": forged}, "input") is None
        assert sample_part({"input": "x", "input_image": forged}, "input") == SamplePart("x")


ROWS = [{"text": f"text {n}", "label": "good"} for n in range(6)]


@pytest.mark.django_db
class TestRows:
    @pytest.fixture
    def where(
        self, person: Callable[..., Person], department: Callable[[str], Department]
    ) -> tuple[Person, Department]:
        return person("Maker"), department("clinical")

    def test_whole_rows_are_added_removed_and_kept(self, where: tuple[Person, Department]) -> None:
        old = data(*where, "old", [*ROWS[:4], ROWS[0]])
        new = data(*where, "new", [*ROWS[2:], {"text": "text 0", "label": "bad"}, ROWS[0]])
        assert row_changes(new, old) == RowChanges(added=3, removed=2, kept=3)
        assert row_changes(old, new) == RowChanges(added=2, removed=3, kept=3)
        assert row_changes(new, new) == RowChanges(added=0, removed=0, kept=6)

    def test_too_many_and_missing_rows_are_told_apart(
        self, where: tuple[Person, Department], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, new = data(*where, "before", ROWS[:5]), data(*where, "after", ROWS[1:])
        monkeypatch.setattr(changes, "MAX_ROWS", 9)
        assert is_too_large(new, old)
        assert data_change(new, old).why_not == "There are too many rows to compare them here."
        monkeypatch.setattr(changes, "MAX_ROWS", 10)
        stored_file(old.digest).unlink()
        assert "does not hold the rows" in data_change(new, old).why_not
        assert data_change(new, None).delta is None

    def test_facts_of_both_stand_beside_each_other(self, where: tuple[Person, Department]) -> None:
        old, new = data(*where, "first", ROWS[:3]), data(*where, "second", ROWS[:2])
        old.schema, new.schema = {"properties": {"text": {}}}, {"properties": {"label": {}}}
        found = data_change(new, old)
        assert (found.columns_added, found.columns_removed) == (["label"], ["text"])
        assert found.delta == RowChanges(added=0, removed=1, kept=2)
        assert found.new is not None
        assert found.new.personal == {"detector": 2, "rows": 2, "rows_left_out": 0, "columns": {}}
        assert not found.same
        assert data_change(new, new).same


@pytest.mark.django_db
def test_a_models_own_versions_are_compared_with_their_files(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    maker = person("Maker")
    of = model(maker, department("clinical"))
    found = file_changes(version(of, maker), version(of, maker))
    assert [row.change for row in found.rows] == ["changed"]
