"""A dossier's exports through the API, the command line and the portal."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import Client

from assay.cli.evidence import SUFFIXES
from governance.people.models import Department, Person
from registry.releases.exports.services import FORMATS
from registry.releases.models import Release
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_cli import Run, ada, run, signed_in
from tests.unit.registry.office import Office

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

BEGINNINGS = {"pdf": b"%PDF-1.", "html": b"<!doctype html>"}


@pytest.fixture
def release(
    policy: None,
    redis: None,
    person: Callable[..., Person],
    department: Callable[[str], Department],
) -> Release:
    return Office(person, department).submit()


def test_every_format_is_a_file_with_its_type_and_digest(
    release: Release, person: Callable[..., Person]
) -> None:
    token = Api(person("Rita", "reviewer:compliance")).token
    for file_format, chosen in FORMATS.items():
        accepted = chosen.content_type.partition(";")[0]
        client = Client(headers={"authorization": f"Bearer {token}", "accept": accepted})
        answer = client.get(f"/api/v1/releases/{release.pk}/export/{file_format}")
        assert answer.status_code == 200, file_format
        assert answer["Content-Type"] == chosen.content_type
        name = f"assay-release-{release.pk}-{release.dossier_digest[:12]}.{chosen.suffix}"
        assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
        digest = hashlib.sha256(answer.content).digest()
        assert answer["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
        assert answer.content.startswith(BEGINNINGS.get(file_format, b"{"))
        if file_format == "json":
            assert digest.hex() == release.dossier_digest


def test_another_department_finds_no_release_to_export(
    release: Release, person: Callable[..., Person]
) -> None:
    fay = Api(person("Fay", "lead@finance"))
    for file_format in FORMATS:
        problem_of(fay.get(f"releases/{release.pk}/export/{file_format}"), 404)


def test_another_format_is_refused_in_words(
    release: Release, person: Callable[..., Person]
) -> None:
    rita = Api(person("Rita", "reviewer:compliance"))
    problem = problem_of(rita.get(f"releases/{release.pk}/export/docx"), 400)
    assert "pdf, html, json, cyclonedx, spdx" in problem["hint"]


@pytest.mark.django_db(transaction=True)
def test_the_command_line_keeps_the_file_and_says_its_digest(
    signed_in: Run, release: Release, tmp_path: Path
) -> None:
    assert {name: each.suffix for name, each in FORMATS.items()} == SUFFIXES
    export = ("releases", "export", str(release.pk))
    kept = tmp_path / "dossier.json"
    _, out, _ = signed_in(*export, "--format", "json", "-o", str(kept), code=0)
    assert f"{release.dossier_digest}, which the approvals name" in out
    assert json.loads(kept.read_bytes()) == release.dossier
    _, out, _ = signed_in(*export, "-o", str(tmp_path / "dossier.pdf"), code=0)
    assert (tmp_path / "dossier.pdf").read_bytes().startswith(b"%PDF-1.")
    _, _, err = signed_in(*export, "--format", "docx", code=1)
    assert "Unknown format docx" in err
    _, _, err = signed_in(*export, "-o", str(tmp_path / "gone" / "x.pdf"), code=1)
    assert "is not a folder" in err
    _, _, err = signed_in("releases", "export", "999", "-o", str(kept), code=4)
    assert "Release 999 does not exist" in err
    assert json.loads(kept.read_bytes()) == release.dossier
