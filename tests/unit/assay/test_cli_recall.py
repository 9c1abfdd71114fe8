"""`assay versions recall`, `assay versions readiness` and `assay deployments rollback`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.versions.models import ModelVersion
from registry.versions.recall import recall_radius
from tests.proofs import fresh_proof
from tests.unit.assay.test_cli import Run, run
from tests.unit.workers import company
from tests.unit.workers.test_deployments_rollback import served, versions_of_one
from workers.deployments.models import Deployment

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]

__all__ = ["run"]
As = Callable[[str], Run]


@pytest.fixture
def signed_in(redis: object, live_server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> As:
    """The command line of whoever has this address."""

    def of(email: str) -> Run:
        _, token = access_token_create(
            person=Person.objects.get(email=email), name="cli", proof=fresh_proof()
        )
        monkeypatch.setenv("ASSAY_SERVER", live_server.url)
        monkeypatch.setenv("ASSAY_TOKEN", token)
        return run

    return of


def test_a_recall_shows_the_list_and_asks_before_it_acts(signed_in: As) -> None:
    (release,) = versions_of_one(1)
    served(release)
    base = release.version.base
    assert base is not None
    ada = company.person("ada", "admin")
    assay = signed_in("ada@example.org")

    _, out, _ = assay("versions", "recall", str(base.pk), code=0)
    for told in (str(base), str(release.version), "docs", "2 versions, 1 releases, 1 deployments"):
        assert told in out

    # No terminal: nobody could confirm it.
    _, _, err = assay("versions", "recall", str(base.pk), "--reason", "It leaks.", code=1)
    assert "nothing was recalled" in err
    recall = ("versions", "recall", str(base.pk), "--reason", "It leaks.", "--confirm")
    _, _, err = assay(*recall, "0" * 64, code=4)
    assert "no longer the list that was confirmed" in err
    assert not ModelVersion.objects.filter(state="recalled").exists()

    digest = recall_radius(actor=ada, version_id=base.pk).digest
    _, out, _ = assay(*recall, digest, code=0)
    assert "is recalled; this ended 2 versions, 1 releases and 0 open reviews." in out
    _, _, err = assay(*recall, digest, code=4)
    assert "is already recalled" in err


def test_a_rollback_lists_and_goes_back(signed_in: As) -> None:
    old, new = versions_of_one(2)
    served(old)
    last = served(new)
    company.developer()
    assay = signed_in("dev-clinical@example.org")

    _, out, _ = assay("deployments", "rollback", str(last.pk), code=0)
    assert str(old.version) in out
    assert "yes" in out
    _, _, err = assay("deployments", "rollback", str(last.pk), "--to", str(old.pk), code=1)
    assert "A rollback needs a reason" in err
    go = ("deployments", "rollback", str(last.pk), "--reason", "Nonsense.", "--to")
    _, _, err = assay(*go, str(new.pk), code=4)
    assert "nothing was rolled back" in " ".join(err.split())
    _, out, _ = assay(*go, str(old.pk), code=0)
    assert f"docs rolls back to {old.version}" in out
    assert Deployment.objects.get(release=old, state="pending").name == "docs"


def test_readiness_lists_what_is_missing_first(signed_in: As) -> None:
    (release,) = versions_of_one(1)
    company.person("ada", "admin")
    assay = signed_in("ada@example.org")
    _, out, _ = assay("versions", "readiness", str(release.version.pk), "--tier", "limited", code=0)
    assert out.index("missing") < out.index("The version is trusted")
    assert "submission" in out
    _, _, err = assay("versions", "readiness", str(release.version.pk), "--tier", "no", code=4)
    assert "There is no tier 'no'" in err


def test_a_prompt_is_created_from_a_file(signed_in: As, tmp_path: Path) -> None:
    writer = company.model("letters", "text-generation")
    base = company.version(company.model("smol", "text-generation"))
    company.developer()
    assay = signed_in("dev-clinical@example.org")
    file = tmp_path / "prompt.json"
    create = ("versions", "prompt", writer.name, str(file), "--base", str(base.pk))

    file.write_text('{"system": "Be brief."}')
    _, out, _ = assay(*create, code=0)
    assert "finishing" in out
    file.write_text('{"system": "{{team}}"}')
    _, _, err = assay(*create, code=4)
    assert "not declared" in err
    file.write_text("{")
    _, _, err = assay(*create, code=1)
    assert "cannot be read as JSON" in err
