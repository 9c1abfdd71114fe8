"""Answers of a version as a shadow are evidence in its next dossier."""

from __future__ import annotations

import json

import pytest
from django.utils import timezone

from governance.usage.models import ShadowTotal
from registry.releases.exports.sections import dossier_sections
from tests.unit.registry.office import Office

pytestmark = pytest.mark.django_db


def test_the_next_dossier_freezes_what_the_shadow_showed(office: Office) -> None:
    shadow, live = office.submit(), office.submit(deployment_name="other")
    assert "shadow" not in shadow.dossier
    row = ShadowTotal.objects.create(
        deployment="docs",
        department="clinical",
        release=shadow.pk,
        against=live.pk,
        unit="tokens",
        copies=40,
        failed=1,
        answered=38,
        total_ms=3800,
        against_ms=7600,
        units=380,
        against_units=760,
        measure="exact match",
        compared=38,
        agreement=19.0,
        first_at=timezone.now(),
        last_at=timezone.now(),
    )
    following = office.submit(version=shadow.version, deployment_name="third")
    (frozen,) = following.dossier["shadow"]
    assert (frozen["copies"], frozen["failed"], frozen["agreement"]) == (40, 1, 0.5)
    assert (frozen["mean_ms"], frozen["against_mean_ms"]) == (100, 200)
    assert frozen["against_version"] == str(live.version)
    (section,) = [each for each in dossier_sections(following.dossier) if each.code == "shadow"]
    text = json.dumps([[block.title, block.facts] for block in section.blocks])
    for part in ("50.0% (exact match, 38 answers)", "1 (2.5%)", "100 ms, the other release 200 ms"):
        assert part in text
    ShadowTotal.objects.filter(pk=row.pk).update(copies=99)
    following.refresh_from_db()
    assert following.dossier["shadow"] == [frozen]
