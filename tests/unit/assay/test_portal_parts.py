"""The pieces that pages are made of."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from assay.accounts.personas import is_loopback
from assay.portal.evidence import confusion, per_class, samples
from assay.portal.markdown import render_markdown
from assay.portal.templatetags.assay import ago, bytes_size, initials, measured, tone


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "![x](https://tracker.example/p.png)",
        '<img src=x onerror="alert(1)">',
        '<a style="color:red">x</a>',
    ],
)
def test_markdown_never_runs_nor_fetches_anything(text: str) -> None:
    html = render_markdown(text)
    for forbidden in ("<script", "<img", 'href="javascript', "<a style"):
        assert forbidden not in html


def test_headings_of_a_card_stand_below_the_pages_own() -> None:
    assert "<h3>One</h3>" in render_markdown("# One")


def test_a_confusion_matrix_shows_the_share_of_each_row() -> None:
    drawn = confusion({"confusion_matrix": {"labels": ["a", "b"], "matrix": [[9, 1], [0, 0]]}})
    assert drawn is not None
    assert [cell.heat for cell in drawn["rows"][0]["cells"]] == [9, 1]
    assert [cell.heat for cell in drawn["rows"][1]["cells"]] == [0, 0]


def test_an_evaluation_without_details_draws_none() -> None:
    assert confusion({}) is None
    assert per_class({}) == []
    assert samples({}) == []


def test_numbers_show_the_digits_a_reader_can_use() -> None:
    assert [measured(v) for v in (0.871234, 12.5, 1200, 0.00002, None, "x")] == [
        "0.871",
        "12.50",
        "1,200",
        "2.00e-05",
        "–",
        "x",
    ]
    assert bytes_size(9_812_400) == "9.8 MB"
    assert initials("Carla van Compliance") == "CC"
    assert tone("approved") == "ok"


def test_times_are_told_in_words() -> None:
    now = timezone.now()
    assert "26 h" in ago(now + timedelta(hours=26, minutes=1))
    assert "3 days ago" in ago(now - timedelta(days=3, minutes=1))
    assert ago(None) == "never"


def test_loopback_is_recognised_in_every_spelling() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("", "10.0.0.1", "localhost.example", "192.0.2.1"))
