"""`assay keys`: rotation, details, and reports of leaked keys."""

from __future__ import annotations

import pytest

from governance.keys.models import ApiKey
from tests.unit.assay.test_cli import Run, ada, run, signed_in

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def made(signed_in: Run, *options: str) -> tuple[ApiKey, str]:
    _, out, _ = signed_in("keys", "create", "clinical", "batch", *options, code=0)
    return ApiKey.objects.get(name="batch"), out.strip()


def test_a_key_is_shown_with_what_narrows_it_and_what_limits_it(signed_in: Run) -> None:
    key, token = made(
        signed_in,
        *("--purpose", "Sorting letters.", "--network", "10.0.0.0/8", "--deployment", "writer"),
        *("--quota", "tokens_per_day=10"),
    )
    _, out, _ = signed_in("keys", "show", str(key.pk), code=0)
    for words in ("Sorting letters.", "10.0.0.0/8", "writer", "active", "10 tokens per day"):
        assert words in out, words
    assert token.split("_")[2] not in out


def test_a_rotated_keys_successor_is_printed_alone_and_both_are_listed(signed_in: Run) -> None:
    key, _ = made(signed_in)
    _, out, err = signed_in("keys", "rotate", str(key.pk), "--overlap", "2", code=0)
    assert out.startswith("assay_")
    assert len(out.split()) == 1
    assert "works for 2 h more" in err
    _, out, _ = signed_in("keys", "list", code=0)
    assert "retiring" in out
    _, _, err = signed_in("keys", "rotate", str(key.pk), code=4)
    assert "has been rotated already" in err


def test_a_leaked_key_is_reported_without_signing_in(signed_in: Run) -> None:
    key, token = made(signed_in)
    _, out, _ = signed_in("keys", "report-leak", token, code=0)
    assert "Thank you" in out
    key.refresh_from_db()
    assert key.revoked_reason == "Reported as leaked"
    _, out, _ = signed_in("keys", "show", str(key.pk), code=0)
    assert "Reported as leaked" in out
