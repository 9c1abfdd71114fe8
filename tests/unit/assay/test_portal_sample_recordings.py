"""Players for recordings of samples on the review page, and the files behind them."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from django.test import Client

from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation
from tests.stored import stored_file
from tests.unit.assay.portal_data import Company, evaluate, tell_story
from tests.unit.assay.test_portal_dataset_media import add
from tests.unit.assay.test_portal_pages import inline_in, signed_in
from tests.unit.registry.media_files import picture, sound
from tests.unit.registry.media_tasks import PICTURES, SPEECH, register

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Of lengths that no other file has: a test here spoils them in the store.
HEARD, UNUSED, MADE = sound(1.47), sound(0.73), sound(0.31)
PICTURE = picture(3)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def data_url(data: bytes, content_type: str = "audio/wav") -> str:
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def company(db: None, monkeypatch: pytest.MonkeyPatch) -> Company:
    register(monkeypatch)
    return tell_story()


@pytest.fixture
def speech(company: Company) -> DatasetVersion:
    metadata = b"file_name,text\na.wav,Good morning\nb.wav,Good night\n"
    return add(
        company, "calls", SPEECH.name, {"metadata.csv": metadata, "a.wav": HEARD, "b.wav": UNUSED}
    )


def measured(company: Company, data: DatasetVersion, **sample: Any) -> Evaluation:
    """The version that waits for review, measured on the data with one sample."""
    evaluation = evaluate(company.things["second"], data, {"perplexity": 9.0}, company.enzo)
    evaluation.details = {"samples": [{"input": "Recording of 1.5 s", "output": "Good", **sample}]}
    evaluation.save()
    return evaluation


def address(evaluation: Evaluation, data: bytes) -> str:
    return f"/evaluations/{evaluation.pk}/recordings/{sha256(data)}"


def test_the_review_page_plays_recordings_beside_the_transcript(
    company: Company, speech: DatasetVersion
) -> None:
    evaluation = measured(company, speech, input_audio=sha256(HEARD), output_audio=data_url(MADE))
    reviewer = signed_in(company.carla)
    review = company.things["review_open"]
    html = reviewer.get(f"/reviews/{review.pk}?tab=evidence").content.decode()
    assert inline_in(html) == []
    for data in (HEARD, MADE):
        assert f'src="{address(evaluation, data)}"' in html
        answer = reviewer.get(address(evaluation, data))
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["cache-control"] == "private, no-store"
        part = reviewer.get(address(evaluation, data), headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"RIFF")


def test_only_recordings_of_the_samples_are_opened(
    company: Company, speech: DatasetVersion
) -> None:
    evaluation = measured(company, speech, input_audio=sha256(HEARD))
    reviewer = signed_in(company.carla)
    for data in (UNUSED, b"no such file"):
        assert reviewer.get(address(evaluation, data)).status_code == 404
    elsewhere = measured(company, company.things["held_out"], input_audio=sha256(HEARD))
    assert reviewer.get(address(elsewhere, HEARD)).status_code == 404


def test_a_sample_opens_nothing_but_recordings(company: Company) -> None:
    photos = add(company, "photos", PICTURES.name, {"cat/a.png": PICTURE})
    forged = measured(
        company,
        photos,
        input_audio=sha256(PICTURE),
        output_audio=data_url(b"<script>alert(1)</script>", "audio/html"),
        expected_audio="https://evil.example/a.wav",
        baseline_audio=7,
    )
    reviewer = signed_in(company.carla)
    for data in (PICTURE, b"<script>alert(1)</script>"):
        assert reviewer.get(address(forged, data)).status_code == 404


def test_who_may_not_see_the_evaluation_hears_nothing(
    company: Company, speech: DatasetVersion
) -> None:
    evaluation = measured(company, speech, input_audio=sha256(HEARD))
    assert signed_in(company.clara).get(address(evaluation, HEARD)).status_code == 404
    assert Client().get(address(evaluation, HEARD)).status_code == 302


def test_a_changed_recording_is_not_played(company: Company, speech: DatasetVersion) -> None:
    evaluation = measured(company, speech, input_audio=sha256(HEARD))
    file = stored_file(sha256(HEARD))
    file.chmod(0o600)
    file.write_bytes(UNUSED)
    assert signed_in(company.carla).get(address(evaluation, HEARD)).status_code == 503
