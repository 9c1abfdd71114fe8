"""`assay api` against a real server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.datasets.models import DatasetVersion
from registry.versions.models import Model
from tests.unit.assay.test_cli import Run, ada, run, signed_in

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def test_fields_are_the_query_of_a_list_and_the_body_of_a_change(
    signed_in: Run, ada: Person
) -> None:
    _, out, _ = signed_in(
        *("api", "post", "models", "-f", "name=7", "-f", "department=clinical"),
        *("-f", "task=embeddings", "-F", "shared=true", "-f", "description=Notes."),
        code=0,
    )
    assert json.loads(out)["name"] == "7"
    assert Model.objects.get(name="7").shared
    for number in range(3):
        signed_in(
            *("api", "POST", "/api/v1/models/", "-F", f"name=m-{number}"),
            *("-F", "department=clinical", "-F", "task=rerank"),
            code=0,
        )
    query = ("api", "get", "models?task=rerank", "-F", "page_size=2")
    _, out, _ = signed_in(*query, code=0)
    page = json.loads(out)
    assert [each["name"] for each in page["results"]] == ["m-2", "m-1"]
    assert page["next"]
    _, out, _ = signed_in(*query, "--paginate", code=0)
    assert [each["name"] for each in json.loads(out)] == ["m-2", "m-1", "m-0"]


def test_a_body_is_read_from_a_file_or_from_standard_input(
    signed_in: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.json"
    body = {"name": "by-file", "department": "clinical", "task": "embeddings"}
    file.write_text(json.dumps(body))
    request = ("api", "post", "models", "--input")
    _, out, _ = signed_in(*request, str(file), code=0)
    assert json.loads(out)["name"] == "by-file"

    file.write_text(json.dumps({**body, "name": "by-stdin"}))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    signed_in(*request, "-", code=0)
    assert Model.objects.filter(name="by-stdin").exists()
    _, _, err = signed_in(*request, str(tmp_path / "none"), code=1)
    assert "cannot be read" in err


def test_a_form_carries_a_file_and_a_repeated_key_changes_nothing(
    signed_in: Run,
    person: Callable[..., Person],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dev = person("Dev", "developer@clinical")
    monkeypatch.setenv("ASSAY_TOKEN", access_token_create(person=dev, name="cli")[1])
    signed_in(
        *("api", "post", "datasets", "-f", "name=reviews", "-f", "department=clinical"),
        *("-f", "task=text-classification", "-f", "classification=internal"),
        *("-f", "license=CC0-1.0"),
        code=0,
    )
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\nGood.\tpositive\nBad.\tnegative\n")

    request = ("api", "post", "datasets/reviews/versions", "-H", "Idempotency-Key: one", "--file")
    _, out, _ = signed_in(*request, f"file={file}", code=0)
    _, again, _ = signed_in(*request, f"file={file}", code=0)

    assert json.loads(out) == json.loads(again)
    assert json.loads(out)["rows"] == 2
    assert DatasetVersion.objects.get().dataset.name == "reviews"


def test_the_exit_status_tells_a_refusal_from_a_failure_to_ask(
    signed_in: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, err = signed_in("api", "post", "models", "-f", "name=x", code=4)
    assert (out, "department: " in err) == ("", True)
    _, _, err = signed_in("api", "get", "models/none", code=4)
    assert "does not exist, or you may not see it" in err
    monkeypatch.setenv("ASSAY_SERVER", "http://127.0.0.1:9")
    _, _, err = signed_in("api", "get", "models", code=1)
    assert "cannot be reached" in err


def test_the_token_is_not_sent_to_another_address(signed_in: Run) -> None:
    for other in ("http://127.0.0.1:9/jobs", "//127.0.0.1:9/jobs"):
        _, _, err = signed_in("api", "get", other, code=1)
        assert "is a URL" in err
    for wrong in (("-F", "name"), ("-f", "=x"), ("--file", "x"), ("-H", "name")):
        _, _, err = signed_in("api", "post", "models", *wrong, code=1)
        assert "VALUE" in err


def test_a_file_is_written_as_it_is(signed_in: Run) -> None:
    _, out, _ = signed_in("api", "get", "audit/export", code=0)
    assert "assay" in out.splitlines()[0]
