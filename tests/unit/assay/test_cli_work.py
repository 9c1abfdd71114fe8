"""Daily work on the command line: models, data, gates, jobs, deployments and decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.releases.models import Release
from tests.unit.assay.api_support import Api
from tests.unit.assay.test_api_releases import people, release
from tests.unit.assay.test_cli import Run, run
from tests.unit.assay.test_cli_recall import As, signed_in
from tests.unit.assay.test_conditions_surfaces import attested
from tests.unit.registry.hosted_world import file_of
from tests.unit.workers import company
from tests.unit.workers.test_deployments_rollback import served, versions_of_one
from workers.jobs.models import Job

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sweep,
    pytest.mark.usefixtures("policy"),
]

__all__ = ["attested", "people", "release", "run", "signed_in"]
TASK = ("--task", "text-classification")


def answer(assay: Run, *arguments: str) -> Any:
    return json.loads(assay(*arguments, "--json", code=0)[1])


@pytest.fixture
def developer(signed_in: As) -> Run:
    company.developer()
    return signed_in("dev-clinical@example.org")


def test_a_hosted_model_is_connected_by_a_file_with_its_description(
    developer: Run, tmp_path: Path
) -> None:
    where = ("--department", "clinical", "--task", "text-generation")
    developer("models", "create", "gpt", *where, code=0)
    file = tmp_path / "description.json"
    file.write_bytes(file_of())
    intake = answer(developer, "intakes", "hosted", "gpt", str(file))
    assert (intake["model"], intake["state"]) == ("gpt", "checking")
    assert [each["name"] for each in intake["files"]] == ["hosted.json"]
    file.write_bytes(file_of(base_url="ftp://x"))
    _, _, err = developer("intakes", "hosted", "gpt", str(file), code=4)
    assert "base_url" in err


def test_a_model_its_data_and_a_gate_are_created_and_shown(developer: Run, tmp_path: Path) -> None:
    where = ("--department", "clinical")
    _, out, _ = developer("models", "create", "sorter", *where, *TASK, "--shared", code=0)
    assert "Model sorter of clinical is created." in out
    (model,) = answer(developer, "models", "list", *TASK)
    assert (model["name"], model["shared"]) == ("sorter", True)
    about = ("--classification", "internal", "--license", "CC0-1.0")
    dataset = answer(developer, "datasets", "create", "rows", *where, *TASK, *about)
    assert dataset["classification"] == "internal"
    _, out, _ = developer("datasets", "show", "rows", code=0)
    assert "`assay upload dataset rows FILE` adds one." in out
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Where?", "label": "a"}\n{"text": "Here.", "label": "b"}\n')
    version = answer(developer, "upload", "dataset", "rows", str(rows))
    (row,) = answer(developer, "datasets", "show", "rows")["versions"]
    assert (row["id"], row["rows"]) == (version["id"], 2)
    assert "rows" in developer("datasets", "list", code=0)[1]
    query = ("rows:1", "--search", "here", "--sort", "text", "--desc")
    page = answer(developer, "datasets", "rows", *query)
    assert [each["number"] for each in page["rows"]] == [1, 2]
    _, out, err = developer("datasets", "rows", "rows", "--row", "2", "--unmask", code=0)
    assert "Here." in out
    assert "Where?" not in out
    assert "2 of 2 rows match." in err

    gate = ("gates", "create", "sorter", "rows", "accuracy")
    _, out, _ = developer(*gate, "--at-least", "0.8", code=0)
    assert "sorter must have accuracy >= 0.8 on rows" in out
    (row,) = answer(developer, "gates", "list", "--model", "sorter")
    assert (row["metric"], row["comparator"], row["threshold"]) == ("accuracy", ">=", 0.8)
    for wrong in ((), ("--at-least", "1", "--at-most", "2")):
        _, _, err = developer(*gate, *wrong, code=1)
        assert "either --at-least or --at-most" in err
    _, _, err = developer("models", "create", "Not a slug", *where, *TASK, code=4)
    assert "name" in err


def test_a_fine_tune_is_queued_canceled_and_cloned_with_changes(developer: Run) -> None:
    encoder = company.version(company.model("encoder", "embeddings"))
    company.model("sorter", "text-classification")
    data = company.data("letters", "text-classification")
    create = ("fine-tunes", "create", "sorter", "--base", "encoder", "--data")
    job = answer(developer, *create, "letters:1", "--set", "epochs=2", "--priority", "low")
    assert (job["spec"]["base"], job["spec"]["dataset_version"]) == (encoder.pk, data.pk)
    assert (job["spec"]["hyperparameters"]["epochs"], job["priority"]) == (2, "low")
    _, out, _ = developer("fine-tunes", "list", code=0)
    assert job["id"] in out
    _, out, _ = developer("jobs", "show", job["id"], code=0)
    assert "queued" in out

    clone = ("jobs", "clone", job["id"], "--set", "epochs=1", "--priority", "normal")
    copy = answer(developer, *clone)
    assert copy["spec"]["hyperparameters"]["epochs"] == 1
    assert copy["id"] != job["id"]
    _, out, _ = developer("jobs", "cancel", job["id"], code=0)
    assert "is canceled" in out
    _, _, err = developer("jobs", "watch", job["id"], code=1)
    assert "canceled" in err
    _, _, err = developer("jobs", "retry", job["id"], code=4)
    assert f"assay jobs clone {job['id']}" in " ".join(err.split())
    Job.objects.filter(pk=copy["id"]).update(state="succeeded", progress={"step": 1, "total": 1})
    done = answer(developer, "jobs", "watch", copy["id"])
    assert done["state"] == "succeeded"

    for wrong, message in (("letters:7", "has no version 7"), ("nothing", "does not exist")):
        _, _, err = developer(*create, wrong, code=1 if ":" in wrong else 4)
        assert message in err


def test_an_evaluation_is_queued_by_the_names_of_version_and_data(developer: Run) -> None:
    base = company.version(company.model("encoder", "embeddings"))
    version = company.version(company.model("sorter", "text-classification"), "full", base=base)
    data = company.data("letters", "text-classification")
    job = answer(developer, "evaluations", "create", "sorter", "letters", "--max-rows", "5")
    assert (job["spec"]["version"], job["spec"]["dataset_version"]) == (version.pk, data.pk)
    assert answer(developer, "evaluations", "list", "--version", "sorter:1") == []
    row = answer(developer, "versions", "show", "sorter")
    assert (row["id"], row["digest"]) == (version.pk, version.digest)
    _, out, _ = developer("versions", "show", "sorter:1", code=0)
    assert version.digest in out
    assert "Not evaluated yet." in out

    comparison = answer(developer, "versions", "compare", "sorter", "encoder:1")
    assert [each["title"] for each in comparison["runs"]] == ["sorter v1", "encoder v1"]
    _, out, _ = developer("versions", "compare", "sorter", "encoder:1", code=0)
    assert "Settings that differ" in out
    other = answer(developer, "evaluations", "create", "sorter", "letters", "--max-rows", "7")
    _, out, _ = developer("jobs", "compare", job["id"], other["id"], code=0)
    assert job["id"] in out
    assert other["id"] in out
    _, _, err = developer("jobs", "compare", job["id"], code=4)
    assert "at least 2 entries" in err


def test_a_deployment_is_listed_shown_and_stopped(signed_in: As) -> None:
    company.person("lara", "lead", "clinical")
    lead = signed_in("lara@example.org")
    (release,) = versions_of_one(1)
    deployment = served(release)
    deployment.refresh_from_db()
    (row,) = answer(lead, "deployments", "list", "--state", deployment.state)
    assert (row["id"], row["release"]) == (deployment.pk, release.pk)
    _, out, _ = lead("deployments", "show", str(deployment.pk), code=0)
    assert release.version.digest in out
    _, _, err = lead("deployments", "create", str(release.pk + 1), code=4)
    assert "does not exist" in err
    stop = ("deployments", "stop", str(deployment.pk), "--reason", "Too slow.")
    _, out, _ = lead(*stop, code=0)
    assert "is stopped" in out


def test_a_reviewer_decides_on_the_digest_that_they_read(
    people: dict[str, Api], attested: dict[str, Any], signed_in: As
) -> None:
    number, digest = str(attested["id"]), attested["dossier_digest"]
    assay = signed_in("carla@example.org")
    (review,) = answer(assay, "reviews", "list", "--mine")
    assert review["subject_id"] == number
    _, out, _ = assay("reviews", "list", code=0)
    assert out.splitlines()[1].split()[0] == number

    decide = ("releases", "decide", number, "approve", "--reason", "The evidence fits.")
    # Without a terminal, the person cannot confirm the dossier.
    _, _, err = assay(*decide, code=1)
    assert "nothing was decided" in err
    assert f"--digest {digest}" in " ".join(err.split())
    _, _, err = assay(*decide, "--digest", "0" * 64, code=4)
    assert Release.objects.get().state == "in_review"
    _, out, _ = assay(*decide, "--specialty", "compliance", "--digest", digest, code=0)
    assert f"Release {number} is in review; approvals missing: 1 × model-risk." in out
    assert answer(assay, "reviews", "list", "--mine") == []

    assay = signed_in("milo@example.org")
    approved = answer(assay, *decide, "--digest", digest)
    assert approved["state"] == "approved"
    (row,) = answer(assay, "releases", "list", "--state", "approved")
    assert row["id"] == attested["id"]


def test_requested_changes_are_answered_and_a_release_is_withdrawn(
    people: dict[str, Api], release: dict[str, Any], signed_in: As
) -> None:
    number = str(release["id"])
    assay = signed_in("carla@example.org")
    _, out, _ = assay("releases", "attest", number, "purpose", "--note", "It is clear.", code=0)
    assert f"purpose of release {number} is attested; still open: " in out
    changes = ("releases", "decide", number, "request-changes", "--reason", "Name the overseers.")
    assay(*changes, "--digest", release["dossier_digest"], code=0)
    assay = signed_in("devi@example.org")
    _, out, _ = assay("releases", "answer", number, "--message", "The ward's lead.", code=0)
    assert "is in review again" in out
    _, out, _ = assay("releases", "withdraw", number, "--reason", "Later.", code=0)
    assert "is withdrawn" in out
