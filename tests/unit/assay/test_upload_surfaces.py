"""Uploads in parts through the API, the portal and the command line."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from registry.intake.models import Intake
from registry.uploads import files
from registry.uploads.models import Upload
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words
from tests.unit.registry.objects import lora_files, model, safetensors, version

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = {"/intakes/new": 10, "/datasets/docstrings-train": 14, "/api/v1/uploads": 4}
OCTETS = "application/offset+octet-stream"
CONFIG, WEIGHTS = b'{"model_type": "llama"}', safetensors()
ROW = (
    b'{"messages": [{"role": "user", "content": "def add(a, b):"}, '
    b'{"role": "assistant", "content": "Return the sum."}]}\n'
)


@pytest.fixture(autouse=True)
def _no_files_stay() -> Any:
    yield
    for path in files.folder().iterdir() if files.folder().is_dir() else ():
        path.unlink()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def begin(client: Client, **changes: Any) -> dict[str, Any]:
    body = {
        "kind": "intake", "target": "docstring-writer", "filename": "config.json",
        "size": len(CONFIG), **changes,
    }  # fmt: skip
    answer = client.post("/api/v1/uploads", json.dumps(body), content_type="application/json")
    assert answer.status_code == 201, answer.content
    assert answer.headers["Location"] == f"/api/v1/uploads/{answer.json()['id']}"
    return dict(answer.json())


def part(client: Client, upload: str, data: bytes, offset: object, **headers: str) -> Any:
    return client.generic(
        "PATCH",
        f"/api/v1/uploads/{upload}",
        data,
        content_type=headers.pop("content_type", OCTETS),
        headers={"Upload-Offset": str(offset), **headers},
    )


def uploaded(client: Client, name: str, data: bytes, **changes: Any) -> str:
    made = begin(client, filename=name, size=len(data), **changes)
    assert part(client, made["id"], data, 0).status_code == 204
    return str(made["id"])


def test_a_tus_client_uploads_in_parts_and_resumes(company: Company) -> None:
    client = signed_in(company.devi)
    metadata = {"kind": "intake", "target": "docstring-writer", "filename": "config.json"}
    made = client.post(
        "/api/v1/uploads",
        headers={
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(len(CONFIG)),
            "Upload-Metadata": ",".join(
                f"{name} {base64_of(value.encode())}" for name, value in metadata.items()
            ),
        },
    )
    assert (made.status_code, made.headers["Tus-Resumable"]) == (201, "1.0.0")
    location = made.headers["Location"]
    upload = location.rpartition("/")[2]
    first = part(client, upload, CONFIG[:10], 0, **{"Tus-Resumable": "1.0.0"})
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, "10")
    head = client.head(location)
    assert head.headers["Upload-Offset"] == "10"
    assert head.headers["Upload-Length"] == str(len(CONFIG))
    assert head.headers["Cache-Control"] == "no-store"
    assert "GMT" in head.headers["Upload-Expires"]
    checksum = base64_of(hashlib.sha256(CONFIG[10:]).digest())
    last = part(client, upload, CONFIG[10:], 10, **{"Upload-Checksum": f"sha256 {checksum}"})
    assert last.headers["Upload-Offset"] == str(len(CONFIG))
    assert Api(company.devi).get(f"uploads/{upload}").body["sha256"] == (
        hashlib.sha256(CONFIG).hexdigest()
    )
    options = client.options("/api/v1/uploads")
    assert options.headers["Tus-Extension"] == "creation,checksum,expiration,termination"


def test_what_is_wrong_with_a_part_is_told_by_its_status(company: Company) -> None:
    client = signed_in(company.devi)
    upload = begin(client)["id"]
    wrong = base64_of(hashlib.sha256(b"other").digest())
    for answer, status, code in (
        (part(client, upload, b"x", 7), 409, "offset_mismatch"),
        (part(client, upload, b"x", "-1"), 400, "invalid_input"),
        (part(client, upload, b"x", "²"), 400, "invalid_input"),
        (part(client, upload, CONFIG + b"x", 0), 413, "too_large"),
        (part(client, upload, b"x", 0, content_type="text/plain"), 415, None),
        (part(client, upload, b"{}", 0, content_type="application/json"), 400, "invalid_input"),
        (
            part(client, upload, b"x", 0, **{"Upload-Checksum": f"sha256 {wrong}"}),
            460,
            "checksum_mismatch",
        ),
        (part(client, upload, b"x", 0, **{"Upload-Checksum": "md5 eA=="}), 400, "invalid_input"),
        (part(client, upload, b"x", 0, **{"Tus-Resumable": "0.2.2"}), 412, "tus_version"),
    ):
        assert answer.status_code == status, answer.content
        assert code is None or answer.json()["code"] == code
    assert Upload.objects.get(pk=upload).received == 0


def test_a_part_over_the_bound_is_refused(company: Company, settings: Any) -> None:
    settings.UPLOAD_CHUNK_BYTES = 8
    client = signed_in(company.devi)
    upload = begin(client)["id"]
    assert part(client, upload, CONFIG[:9], 0).status_code == 413
    assert part(client, upload, CONFIG[:8], 0).status_code == 204


def test_someone_elses_upload_is_not_there_whatever_their_role(company: Company) -> None:
    upload = begin(signed_in(company.devi))["id"]
    for who in ("enzo", "ada", "fay", "asha"):
        client = signed_in(company.people[who])
        assert client.get(f"/api/v1/uploads/{upload}").status_code == 404
        assert client.head(f"/api/v1/uploads/{upload}").status_code == 404
        assert part(client, upload, b"x", 0).status_code == 404
        assert part(client, upload, b"x", 0, content_type="text/plain").status_code in {404, 415}
        assert client.delete(f"/api/v1/uploads/{upload}").status_code == 404
        assert Api(company.people[who]).get("uploads").body["results"] == []
    assert Client().head(f"/api/v1/uploads/{upload}").status_code == 401


def test_only_those_who_may_deliver_to_the_model_can_begin(company: Company) -> None:
    body = {"kind": "intake", "target": "docstring-writer", "filename": "a", "size": 1}
    problem_of(Api(company.fay).post("uploads", body), 404)
    # The base is shared: finance sees it, and may not deliver to it.
    assert Api(company.fay).post("uploads", {**body, "target": "smollm2-135m"}).status_code in {
        403,
        404,
    }
    problem_of(Api(company.vera).post("uploads", body), 403)
    problem_of(Api(company.devi).post("uploads", {**body, "size": 0}), 400)
    problem_of(Api(company.devi).post("uploads", {**body, "size": 10**15}), 413)


def test_a_session_needs_its_csrf_token(company: Company) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(company.devi)
    body = {"kind": "intake", "target": "docstring-writer", "filename": "a", "size": 1}
    answer = client.post("/api/v1/uploads", json.dumps(body), content_type="application/json")
    assert answer.status_code == 403


def test_an_intake_takes_uploads_in_place_of_files(company: Company) -> None:
    client = signed_in(company.devi)
    ids = [uploaded(client, "config.json", CONFIG), uploaded(client, "model.safetensors", WEIGHTS)]
    body = {"model": "docstring-writer", "source": "a supplier", "license": "MIT", "uploads": ids}
    made = Api(company.devi).post("intakes", body)
    assert made.status_code == 201, made.content
    intake = Intake.objects.get(pk=made.body["id"])
    assert (intake.state, intake.submitted_by) == ("checking", company.devi)
    assert {each["name"]: each["sha256"] for each in intake.files} == {
        "config.json": hashlib.sha256(CONFIG).hexdigest(),
        "model.safetensors": hashlib.sha256(WEIGHTS).hexdigest(),
    }
    assert not Upload.objects.exists()
    problem_of(Api(company.devi).post("intakes", body), 404)


def test_the_same_checks_reject_what_was_uploaded_in_parts(company: Company) -> None:
    client = signed_in(company.devi)
    ids = [uploaded(client, "../evil.pkl", b"\x80\x04.")]
    body = {"model": "docstring-writer", "source": "a supplier", "license": "MIT", "uploads": ids}
    made = Api(company.devi).post("intakes", body)
    assert (made.status_code, made.body["state"]) == (201, "rejected")
    assert not Upload.objects.exists()


@pytest.mark.parametrize("more", [{}, {"uploads": []}, {"uploads": ["x"]}, {"uploads": ["0" * 36]}])
def test_an_intake_without_files_is_refused(company: Company, more: dict[str, Any]) -> None:
    body = {"model": "docstring-writer", "source": "a supplier", "license": "MIT"}
    problem_of(Api(company.devi).post("intakes", {**body, **more}), 400)


def test_a_dataset_takes_an_upload_and_keeps_it_when_it_cannot_be_read(company: Company) -> None:
    client = signed_in(company.devi)
    rows = b'{"prompt": "def f(): pass", "completion": "Do nothing."}\n' * 2
    upload = uploaded(client, "rows.jsonl", rows, kind="dataset", target="docstrings-test")
    api = Api(company.devi)
    problem_of(
        api.post("datasets/docstrings-train/versions", {"upload": upload, "columns": {"a": "b"}}),
        400,
    )
    assert Upload.objects.filter(pk=upload).exists()
    problem_of(api.post("datasets/docstrings-train/versions", {}), 400)


def test_the_portals_form_takes_uploads_and_shows_unfinished_ones(company: Company) -> None:
    client = signed_in(company.devi)
    half = begin(client, filename="half.safetensors", size=1000)["id"]
    html = client.get("/intakes/new").content.decode()
    assert inline_in(html) == []
    assert 'data-upload-kind="intake"' in html
    assert "half.safetensors" in words(html)
    assert "half.safetensors" not in signed_in(company.enzo).get("/intakes/new").content.decode()

    ids = [uploaded(client, "config.json", CONFIG), uploaded(client, "model.safetensors", WEIGHTS)]
    form = {"model": company.writer.pk, "source": "a supplier", "license": "", "uploads": ids}
    again = client.post("/intakes/new", form)
    assert again.status_code == 400
    for upload in ids:
        assert f'name="uploads" value="{upload}"' in again.content.decode()
    answer = client.post("/intakes/new", {**form, "license": "MIT"})
    assert answer.status_code == 302
    assert Intake.objects.latest("pk").state == "checking"

    assert client.post("/intakes/new", {**form, "uploads": ["x"]}).status_code == 400
    discard = f"/uploads/{half}/discard"
    assert signed_in(company.enzo).post(discard).status_code == 404
    assert client.post(discard).status_code == 302
    assert not Upload.objects.filter(pk=half).exists()


def test_the_form_takes_an_adapter_on_a_base_of_the_list(company: Company) -> None:
    recalled = version(company.base_model, company.enzo, state="recalled")
    secret = model(company.fay, company.departments["finance"], "secret", "text-generation")
    hidden = version(secret, company.fay)
    kept = version(company.base_model, company.enzo, parameters={"quantization": "Q8_0"})
    client = signed_in(company.devi)
    page = client.get("/intakes/new?model=docstring-writer").content.decode()
    offered = page.partition('id="id_base_version"')[2].partition("</select>")[0]
    assert re.findall(r'value="(\d*)"', offered) == ["", str(company.base.pk)]

    ids = [uploaded(client, name, data) for name, data in lora_files().items()]
    form = {"model": company.writer.pk, "source": "a partner", "license": "MIT", "uploads": ids}
    for wrong in (hidden.pk, recalled.pk, kept.pk, company.first.pk, 999_999, "x"):
        refused = client.post("/intakes/new", {**form, "base_version": wrong})
        assert refused.status_code == 400, wrong
        html = refused.content.decode()
        assert inline_in(html) == []
        assert on_field("base_version", html) == (
            "This base version does not exist, or you may not use it. Choose one from the list."
        )
        assert all(f'name="uploads" value="{upload}"' in html for upload in ids)
    made = client.post("/intakes/new", {**form, "base_version": company.base.pk})
    assert made.status_code == 302, made.content
    intake = Intake.objects.latest("pk")
    assert (intake.state, intake.base, intake.model) == ("checking", company.base, company.writer)
    assert "Adapter on smollm2-135m v1" in words(client.get(made["Location"]).content.decode())
    assert "Adapter on smollm2-135m v1" in words(client.get("/intakes").content.decode())


def test_a_refused_base_is_told_on_its_field(company: Company) -> None:
    reader = model(company.enzo, company.departments["engineering"], "reader", "question-answering")
    files = [SimpleUploadedFile(name, data) for name, data in lora_files().items()]
    form = {"model": reader.pk, "source": "a partner", "license": "MIT", "files": files}
    client = signed_in(company.devi)
    refused = client.post("/intakes/new", {**form, "base_version": company.base.pk})
    assert refused.status_code == 400
    assert on_field("base_version", refused.content.decode()) == (
        "Question answering has no adapters."
    )
    assert not Intake.objects.filter(model=reader).exists()


def test_whoever_signs_an_adapter_reads_its_base(company: Company) -> None:
    Intake.objects.filter(pk=company.signable.pk).update(base=company.base)
    page = words(signed_in(company.omar).get(f"/intakes/{company.signable.pk}").content.decode())
    assert "Your signature makes it a trusted adapter on smollm2-135m v1." in page


def on_field(name: str, html: str) -> str:
    """Return the sentence next to a field of a form."""
    return words(html.partition(f'id="id_{name}_error">')[2].partition("</div>")[0])


def test_the_datasets_form_takes_an_upload(company: Company) -> None:
    client = signed_in(company.devi)
    html = client.get("/datasets/docstrings-train").content.decode()
    assert 'data-upload-kind="dataset" data-upload-target="docstrings-train"' in html
    upload = uploaded(client, "rows.txt", b"x", kind="dataset", target="docstrings-train")
    answer = client.post("/datasets/docstrings-train", {"uploads": [upload]})
    assert answer.status_code == 400
    assert f'name="uploads" value="{upload}"' in answer.content.decode()

    # The corrected file replaces the refused upload, with and without the page's script.
    corrected = SimpleUploadedFile("rows.jsonl", ROW)
    form = {"uploads": [upload], "file": corrected}
    assert client.post("/datasets/docstrings-train", form).status_code == 302
    assert company.train.dataset.versions.count() == 2


def test_a_datasets_page_lists_only_its_own_uploads(company: Company) -> None:
    client = signed_in(company.devi)
    other = begin(client, kind="dataset", target="docstrings-test", filename="other.tsv")["id"]
    begin(client, kind="dataset", target="docstrings-train", filename="mine.tsv")
    page = client.get("/datasets/docstrings-train").content.decode()
    assert "mine.tsv" in page
    assert "other.tsv" not in page
    answer = client.post(f"/uploads/{other}/discard")
    assert answer.headers["Location"] == "/datasets/docstrings-test"


def test_pages_cost_the_same_however_many_uploads_there_are(company: Company) -> None:
    client = signed_in(company.devi)
    for address in QUERIES:
        client.get(address)
    begin(client)
    few = {address: queries(client, address) - SCOPE for address in QUERIES}
    for number in range(12):
        begin(client, filename=f"{number}.json")
        begin(client, filename=f"{number}.tsv", kind="dataset", target="docstrings-train")
    many = {address: queries(client, address) - SCOPE for address in QUERIES}
    assert many == few == QUERIES
