"""A release that is approved with a waiver: how long, and what is taken along of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from governance.errors import WrongState
from governance.people.models import Person
from governance.reviews.models import Review
from governance.reviews.waivers.models import Waiver
from governance.reviews.waivers.services import waiver_decide, waiver_request, waiver_revoke
from registry.evaluations.services import gate_set
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.serving import release_servable
from registry.releases.waivers import release_waiver_revoke
from tests.proofs import proven
from tests.unit.registry.evidence_world import faults, files_of, forged, office, packed
from tests.unit.registry.office import Office

__all__ = ["office"]

pytestmark = pytest.mark.django_db


def unmet(office: Office) -> Release:
    """Submitted with a gate that it does not pass."""
    gate_set(
        actor=proven(office.trainer),
        model=office.tuned.model,
        dataset=office.test.dataset,
        metric="macro_f1",
        comparator=">=",
        threshold=0.999,
    )
    return office.submit()


def review_of(release: Release) -> Review:
    review = release_review(release)
    assert review is not None
    return review


def waived(office: Office, release: Release, by: Person | None = None, days: float = 20) -> Waiver:
    """Asked for by the submitter, granted by model risk."""
    waiver = waiver_request(
        actor=proven(by or office.submitter),
        review_id=review_of(release).pk,
        code="gates",
        reason="The next test set comes in a week.",
        expires_at=timezone.now() + timedelta(days=days),
    )
    return waiver_decide(
        actor=proven(office.risk), waiver_id=waiver.pk, verdict="granted", reason="For now."
    )


def approved(office: Office, release: Release) -> Release:
    office.approve(release)
    return Release.objects.get(pk=release.pk)


def test_an_unmet_gate_keeps_a_release_from_approval_until_it_is_waived(office: Office) -> None:
    release = unmet(office)
    assert office.checklist(release)["gates"][0] == "failed"
    with pytest.raises(WrongState, match="passed"):
        office.approve(release)
    waiver = waived(office, release)
    assert office.checklist(release)["gates"][0] == "waived"
    office.decide(release, office.compliance)
    office.decide(release, office.risk)
    done = Release.objects.get(pk=release.pk)
    assert (done.expires_at, done.grace_days) == (waiver.expires_at, 0)
    release_servable(done)


def test_an_approval_ends_when_it_would_have_without_a_longer_waiver(office: Office) -> None:
    release = unmet(office)
    waiver = waived(office, release, days=365)
    done = approved(office, release)
    assert done.expires_at is not None
    assert done.expires_at < waiver.expires_at
    assert done.grace_days > 0


def test_a_revoked_waiver_ends_serving(office: Office) -> None:
    release = unmet(office)
    waiver = waived(office, release)
    done = approved(office, release)
    release_servable(done)
    release_waiver_revoke(
        actor=proven(office.compliance),
        release_id=release.pk,
        waiver_id=waiver.pk,
        reason="It got worse.",
    )
    done.refresh_from_db()
    assert done.state == ReleaseState.WITHDRAWN
    with pytest.raises(WrongState, match="is withdrawn; it may not serve"):
        release_servable(done)


def test_a_waiver_that_has_ended_in_any_way_keeps_an_approved_release_from_serving(
    office: Office,
) -> None:
    release = unmet(office)
    waiver = waived(office, release)
    done = approved(office, release)
    waiver_revoke(actor=proven(office.compliance), waiver_id=waiver.pk, reason="Past its release.")
    with pytest.raises(WrongState, match="waived, and the waiver has ended; it may not serve"):
        release_servable(done)


@pytest.mark.sweep
def test_a_pack_tells_of_waivers_and_verifies(office: Office) -> None:
    release = unmet(office)
    waiver = waived(office, release)
    approved(office, release)
    files = files_of(packed(office, release))
    assert faults(files) == {}
    (told,) = json.loads(files["decisions.json"])["reviews"][0]["waivers"]
    assert (told["item"], told["state"]) == ("gates", "granted")
    assert [(step["state"], step["person"]["name"]) for step in told["history"]] == [
        ("requested", "Devi"),
        ("granted", "Milo"),
    ]
    assert told["history"][0]["reason"] == "The next test set comes in a week."
    page = files["dossier.html"].decode()
    assert "Waivers" in page
    assert "The next test set comes in a week." in page
    # Anything else than the log says is found, as is a waiver that was granted to oneself.
    for name, value in (
        ("item", "digest"),
        ("state", "revoked"),
        ("expires_at", "2099-01-01T00:00:00+00:00"),
        ("id", waiver.pk + 1),
    ):
        assert "Waivers" in faults(forged(files, decisions=in_waiver(name, value)))
    assert "Waivers" in faults(forged(files, decisions=left_out))
    assert "Waivers" in faults(forged(files, decisions=another_asker))


def in_waiver(name: str, value: Any) -> Callable[[Any], None]:
    return lambda told: told["reviews"][0]["waivers"][0].update({name: value})


def left_out(told: Any) -> None:
    told["reviews"][0]["waivers"].clear()


def another_asker(told: Any) -> None:
    steps = told["reviews"][0]["waivers"][0]["history"]
    steps[0]["person"] = steps[1]["person"]


@pytest.mark.sweep
def test_a_pack_of_rows_that_say_something_else_than_the_log_is_refused(office: Office) -> None:
    release = unmet(office)
    waiver = waived(office, release)
    packed(office, release)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        Waiver.objects.filter(pk=waiver.pk).update(decided_by=office.compliance)
        cursor.execute("SET LOCAL session_replication_role = origin")
    with pytest.raises(WrongState, match="not those in the audit log"):
        packed(office, release)
