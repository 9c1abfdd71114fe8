"""`assay incidents` against a real server."""

from __future__ import annotations

import pytest

from registry.incidents.models import Incident
from registry.releases.models import Release
from tests.unit.assay.test_cli import run
from tests.unit.assay.test_cli_recall import As, signed_in
from tests.unit.workers import company
from tests.unit.workers.test_deployments_rollback import served, versions_of_one
from tests.unit.workers.test_hosted_versions import deployed, gpt
from workers.deployments.stated_models import model_stated, stated_models_record

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]

__all__ = ["run", "signed_in"]


def test_an_incident_is_reported_listed_and_shown(signed_in: As) -> None:
    (release,) = versions_of_one(1)
    served(release)
    base = release.version.base
    assert base is not None
    company.person("ada", "admin")
    assay = signed_in("ada@example.org")

    _, out, _ = assay("incidents", "list", code=0)
    assert "No matching incidents" in out
    report = ("incidents", "open", "Wrong doses", "--version", str(base.pk))
    _, _, err = assay(*report, "--happened", "Ten times.", "--severity", "bad", code=4)
    assert "severity" in err
    asked = ("--happened", "Ten times.", "--severity", "high", "--serious", "general")
    _, out, _ = assay(*report, *asked, code=0)
    for told in ("Wrong doses", "Ten times.", "report to the authority by", "suspended", str(base)):
        assert told in out
    assert Release.objects.get(pk=release.pk).state == "suspended"
    number = str(Incident.objects.get().pk)
    _, out, _ = assay("incidents", "list", "--state", "open", code=0)
    assert "Wrong doses" in out
    _, out, _ = assay("incidents", "list", "--state", "closed", code=0)
    assert "No matching incidents" in out
    _, out, _ = assay("incidents", "show", number, code=0)
    assert "Ten times." in out


def test_stated_models_and_the_incident_that_assay_opens_are_shown(signed_in: As) -> None:
    deployment = deployed(gpt())
    version = deployment.release.version
    company.person("lea", "lead", "clinical")
    assay = signed_in("lea@example.org")
    _, out, _ = assay("versions", "stated", str(version.pk), code=0)
    assert "No answers yet." in out
    model_stated(worker="w", deployment_id=deployment.pk, model="gpt-5", fingerprint="fp_9")
    stated_models_record()
    _, out, _ = assay("versions", "stated", str(version.pk), code=0)
    assert all(part in out for part in ("gpt-5", "fp_9", "assistant", "no"))
    incident = Incident.objects.get()
    _, out, _ = assay("incidents", "show", str(incident.pk), code=0)
    assert "Assay" in out
    _, _, err = assay("versions", "watch", str(version.pk))
    assert "Create a small dataset" in err
