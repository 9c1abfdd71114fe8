"""The pieces that pages are made of."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from assay.accounts.personas import is_loopback
from assay.portal.context import MENU
from assay.portal.evidence import confusion, per_class, samples
from assay.portal.markdown import render_markdown
from assay.portal.series import curve_points, curves
from assay.portal.templatetags.assay import (
    about,
    ago,
    bytes_size,
    initials,
    measured,
    metric_title,
    subject,
    tone,
)
from assay.portal.words import described
from governance.audit.models import AuditEvent
from registry.catalog import TASKS
from registry.evaluations.models import Evaluation
from workers.jobs.models import JobEvent


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
    assert samples(Evaluation(details={})) == []


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
    assert "in 30 days" in ago(now + timedelta(days=29, hours=23))
    assert ago(None) == "never"


def test_an_amount_is_told_at_a_glance() -> None:
    assert about(1_700_750, "money_per_month") == "1.70 EUR"
    assert about(31_249, "money_per_month") == "0.0312 EUR"
    assert about(12, "money_per_month") == "0.000012 EUR"
    assert about(1, "requests_per_minute") == "1 request"
    assert about(861, "tokens_per_day") == "861 tokens"


def test_a_metric_is_called_what_its_task_calls_it() -> None:
    task = TASKS["text-classification"]
    assert metric_title("macro_f1", task) == "Macro-F1"
    assert metric_title("validation_macro_f1", task) == "Validation macro-F1"
    assert metric_title("validation_loss", task) == "Validation loss"


def test_what_is_measured_twice_at_one_step_is_one_point_of_the_curve() -> None:
    events = [
        JobEvent(step=step, data={"validation_loss": value})
        for step, value in ((32, 1.0), (64, 1.5), (64, 1.2))
    ]
    (series,) = curves(events)["series"]
    assert series["data"] == [{"x": 32, "y": 1.0}, {"x": 64, "y": 1.5}]


def test_an_event_never_calls_its_subject_by_a_bare_number() -> None:
    event = AuditEvent(
        action="intake:sign_off",
        outcome="denied",
        actor_name="Enzo",
        subject_type="intake",
        subject_id="2",
        subject_name="2",
    )
    assert described(event).what == "tried to sign off intake 2 and was refused"


def test_an_event_about_a_limit_names_its_kind_in_words() -> None:
    event = AuditEvent(
        action="quota:set", outcome="allowed", subject_name="tokens_per_day of my_team"
    )
    assert described(event).what == "set the quota tokens per day of my_team"


@pytest.mark.parametrize(
    ("kind", "name", "number", "said"),
    [
        ("release", "release 1", "1", "release 1"),
        ("intake", "2", "2", "intake 2"),
        ("key", "editor plugin", "TPqp", "key editor plugin (TPqp)"),
        ("audit", "", "log", "audit (log)"),
    ],
)
def test_what_an_event_is_about_is_said_once(kind: str, name: str, number: str, said: str) -> None:
    event = AuditEvent(subject_type=kind, subject_name=name, subject_id=number)
    assert subject(event) == said


def test_loopback_is_recognised_in_every_spelling() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("", "10.0.0.1", "localhost.example", "192.0.2.1"))


def test_curves_draw_losses_and_whatever_was_measured_on_the_validation_split() -> None:
    event = {"loss": 1.2, "validation_wer": 0.3, "learning_rate": 0.1, "note": "x", "n": 4}
    assert curve_points(event) == {"loss": 1.2, "validation_wer": 0.3}
    assert curve_points({"loss": float("nan")}) == {}


def test_every_entry_of_the_menu_is_marked_on_its_own_page() -> None:
    for _, entries in MENU:
        for entry in entries:
            section = entry.url.removeprefix("portal:").split("_")[0].rstrip("s")
            assert section in {name.rstrip("s") for name in entry.sections}, entry.title
