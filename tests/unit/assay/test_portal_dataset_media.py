"""Images and recordings on the page of a dataset: hidden, then shown to who unmasked them."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
from django.core import signing
from django.test import Client

from assay.portal import dataset_media
from governance.audit.models import AuditEvent
from governance.people.selectors import principal_for_person
from registry.catalog import get_task
from registry.catalog.formats import sample_lines
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.services import dataset_version_add
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_api_lists import SCOPE as API_SCOPE
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.registry.media_files import animated, archive, container, picture, sound
from tests.unit.registry.media_tasks import PICTURES, SPEECH, register
from tests.unit.registry.objects import Upload

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
CAT, WAV = picture(1, (400, 300)), sound(1.5)


@pytest.fixture
def company(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    register(monkeypatch)
    return company


def add(company: Company, name: str, task: str, files: dict[str, bytes]) -> DatasetVersion:
    dataset, _ = Dataset.objects.get_or_create(
        name=name,
        defaults={
            "department": company.departments["engineering"],
            "task": task,
            "classification": "confidential",
            "license": "CC0-1.0",
            "created_by": company.enzo,
        },
    )
    return dataset_version_add(
        actor=principal_for_person(company.enzo),
        dataset=dataset,
        file=Upload("data.zip", archive(files)),
    )


@pytest.fixture
def pictures(company: Company) -> DatasetVersion:
    return add(company, "photos", PICTURES.name, {"cat/a.png": CAT, "dog/b.jpg": picture(2)})


@pytest.fixture
def speech(company: Company) -> DatasetVersion:
    files = {"metadata.csv": b"file_name,text\na.wav,Good morning\n", "a.wav": WAV}
    return add(company, "calls", SPEECH.name, files)


def main(response: Any) -> str:
    assert response.status_code == 200
    html = response.content.decode()
    assert inline_in(html) == []
    return " ".join(html.split("<main")[1].split())


def addresses(html: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'src="(/datasets/[^"]*)"', html)]


def shown(client: Client, version: DatasetVersion) -> list[str]:
    response = client.post(f"/datasets/{version.dataset.name}/rows/{version.number}")
    assert response.headers["cache-control"] == "no-store"
    return addresses(main(response))


def test_files_are_described_but_hidden_until_a_lead_shows_the_rows(
    company: Company, pictures: DatasetVersion
) -> None:
    lead, viewer = signed_in(company.enzo), signed_in(company.vera)
    for client in (lead, viewer):
        page = main(client.get("/datasets/photos"))
        assert "Image, hidden" in page
        assert "400 × 300" in page
        assert addresses(page) == []
        assert ("Show files" in page) == (client is lead)
    assert viewer.post("/datasets/photos/rows/1").status_code == 403
    small, _ = shown(lead, pictures)
    assert AuditEvent.objects.filter(action="dataset:unmask", outcome="allowed").count() == 1
    answer = lead.get(small)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    whole = lead.get(small.removesuffix("&size=small"))
    assert (whole.headers["content-type"], whole.content) == ("image/png", CAT)
    # Opening a file is no event of its own.
    assert AuditEvent.objects.filter(action="dataset:unmask").count() == 2


def test_a_recording_has_a_player_that_can_seek(company: Company, speech: DatasetVersion) -> None:
    lead = signed_in(company.enzo)
    page = main(lead.post("/datasets/calls/rows/1"))
    assert "<audio" in page
    assert "1.500 s, 16,000 Hz" in page
    (address,) = addresses(page)
    answer = lead.get(address)
    assert (answer.headers["content-type"], answer.content) == ("audio/wav", WAV)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-", 206, 0, None),
        ("bytes=100-199", 206, 100, 199),
        ("bytes=-100", 206, -100, None),
        ("bytes=100-99999999", 206, 100, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=9-1", 200, 0, None),
        ("bytes=0-1,4-5", 200, 0, None),
        ("bytes=-", 200, 0, None),
        ("bytes=x-y", 200, 0, None),
        ("rows=0-1", 200, 0, None),
        ("bytes=" + "9" * 5000 + "-", 200, 0, None),
    ],
)
def test_ranges_of_a_recording_are_answered(
    company: Company,
    speech: DatasetVersion,
    asked: str,
    status: int,
    first: int,
    last: int | None,
) -> None:
    lead = signed_in(company.enzo)
    (address,) = shown(lead, speech)
    answer = lead.get(address, headers={"range": asked})
    assert answer.status_code == status
    if status != 416:
        assert answer.content == (WAV[first:] if last is None else WAV[first : last + 1])
    if status == 206:
        start = first % len(WAV)
        end = start + len(answer.content) - 1
        assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(WAV)}"


def test_a_file_is_answered_for_one_person_and_to_no_cache(
    company: Company, pictures: DatasetVersion
) -> None:
    lead = signed_in(company.enzo)
    address = shown(lead, pictures)[0]
    answer = lead.get(address)
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    # The address is no credential: not for others, be they leads or not, nor without a session.
    for other, status in ((company.fay, 404), (company.ada, 404), (company.vera, 404)):
        assert signed_in(other).get(address).status_code == status
    assert Client().get(address).status_code == 302


def test_an_address_ends_and_holds_for_one_file_of_one_version(
    company: Company,
    pictures: DatasetVersion,
    speech: DatasetVersion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lead = signed_in(company.enzo)
    address = shown(lead, pictures)[0]
    path, _, key = address.partition("?")
    assert lead.get(path).status_code == 404
    assert lead.get(f"{path}?key=x").status_code == 404
    assert lead.get(f"/datasets/calls/media/1?{key}").status_code == 404
    assert lead.get(f"/datasets/photos/media/2?{key}").status_code == 404
    forged = signing.dumps([str(company.enzo.pk), pictures.pk, "0" * 64], salt="another")
    assert lead.get(f"{path}?key={forged}").status_code == 404
    monkeypatch.setattr(dataset_media, "VALID_S", -1)
    page = lead.get(address)
    assert page.status_code == 404
    assert "Show the rows of the dataset again" in page.content.decode()


def test_a_video_is_shown_by_its_first_frame_and_opens_whole(company: Company) -> None:
    clip = animated("WEBP")
    version = add(company, "clips", "video-classification", {"left/a.webp": clip})
    lead = signed_in(company.enzo)
    page = main(lead.get("/datasets/clips"))
    assert "Video, hidden" in page
    assert "3–3 frames" in page
    assert "3 frames, 0.300 s" in page
    (small,) = shown(lead, version)
    assert lead.get(small).headers["content-type"] == "image/jpeg"
    whole = lead.get(small.removesuffix("&size=small"))
    assert (whole.headers["content-type"], whole.content) == ("image/webp", clip)


def test_a_container_has_a_player_with_its_first_frame(company: Company) -> None:
    clip = container()
    files = {"left/a.mp4": container("mp4", "vp09"), "left/b.png": clip}
    version = add(company, "films", "video-classification", files)
    lead = signed_in(company.enzo)
    first, second = shown(lead, version)
    page = main(lead.post("/datasets/films/rows/1"))
    assert page.count("<video") == 2
    assert "6 frames, 0.750 s" in page
    assert lead.get(f"{first}&size=small").headers["content-type"] == "image/jpeg"
    found = [lead.get(each, headers={"range": "bytes=0-9"}) for each in (first, second)]
    assert {each.headers["content-type"] for each in found} == {"video/mp4", "video/webm"}
    assert [each.status_code for each in found] == [206, 206]


def test_columns_and_labels_are_drawn(company: Company) -> None:
    rows = [
        {"text": "word " * length, "label": label}
        for length, label in ((1, "good"), (2, "good"), (9, "bad"))
    ]
    dataset = Dataset.objects.create(
        name="letters",
        department=company.departments["engineering"],
        task="text-classification",
        classification="internal",
        license="CC0-1.0",
        created_by=company.enzo,
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    dataset_version_add(
        actor=principal_for_person(company.enzo),
        dataset=dataset,
        file=Upload("rows.jsonl", lines),
    )
    page = main(signed_in(company.vera).get("/datasets/letters"))
    assert "Rows by characters" in page
    assert "3 distinct" in page
    assert re.findall(r"<span>(good|bad)</span>", page) == ["good", "bad"]


def test_a_series_is_drawn_on_the_page(company: Company) -> None:
    dataset = Dataset.objects.create(
        name="visits",
        department=company.departments["engineering"],
        task="time-series-forecasting",
        classification="internal",
        license="CC0-1.0",
        created_by=company.enzo,
    )
    dataset_version_add(
        actor=principal_for_person(company.enzo),
        dataset=dataset,
        file=Upload("rows.jsonl", sample_lines(get_task("time-series-forecasting")).encode()),
    )
    page = main(signed_in(company.vera).get("/datasets/visits"))
    assert page.count("<polyline") == 2
    assert "1949-01-01–1951-12-01" in page
    assert "Rows by steps" in page


def test_who_may_no_longer_unmask_opens_no_file(company: Company, pictures: DatasetVersion) -> None:
    lead = signed_in(company.enzo)
    address = shown(lead, pictures)[0]
    company.enzo.role_assignments.filter(role="lead").delete()
    assert lead.get(address).status_code in {403, 404}


def test_statistics_and_duplicates_of_files_are_shown(
    company: Company, pictures: DatasetVersion, speech: DatasetVersion
) -> None:
    client = signed_in(company.vera)
    page = main(client.get("/datasets/photos"))
    assert "2 files" in page
    assert "64–400 pixels wide" in page
    assert "0 look like another image" in page
    assert page.count("<rect x=") == 10
    assert "1.500 s in total" in main(client.get("/datasets/calls"))


def test_pages_of_files_cost_as_many_queries_for_many_rows(
    company: Company, pictures: DatasetVersion
) -> None:
    client = signed_in(company.vera)
    client.get("/datasets/photos")
    few = queries(client, "/datasets/photos")
    many = {f"cat/{number}.png": picture(number) for number in range(20)}
    add(company, "photos", PICTURES.name, many)
    assert queries(client, "/datasets/photos") == few
    lead = signed_in(company.enzo)
    address = shown(lead, pictures)[0]
    lead.get(address)
    assert (few - SCOPE, queries(lead, address) - API_SCOPE) == (11, 8)
