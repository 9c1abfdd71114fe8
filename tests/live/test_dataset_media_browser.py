"""Images and recordings in a real browser, under the portal's security policy."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests import proofs
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.portal_data import tell_story
from tests.unit.assay.test_portal_dataset_media import add
from tests.unit.assay.test_portal_sample_recordings import measured, sha256
from tests.unit.registry.media_files import container, picture, sound
from tests.unit.registry.media_tasks import PICTURES, SPEECH, register

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
# The confirmation dialog is tested elsewhere.
SUBMIT = "HTMLFormElement.prototype.submit.call(document.querySelector('form[action*=\"/rows/\"]'))"
LOAD_IMAGE = """
  const image = document.querySelector('.cell-image img');
  image.decode().then(() => { window.loaded = image.naturalWidth });
"""
LOAD_AUDIO = """
  const audio = document.querySelector('audio');
  audio.onloadedmetadata = () => { window.loaded = audio.duration };
  audio.preload = 'auto';
  audio.load();
"""


LOAD_VIDEO = """
  const video = document.querySelector('video');
  video.onloadeddata = () => { window.loaded = video.videoWidth };
  video.preload = 'auto';
  video.load();
"""


def test_images_and_players_show_what_the_rows_hold(
    live_server: Any, policy: object, redis: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    with transaction.atomic():
        company = tell_story()
    add(company, "photos", PICTURES.name, {"cat/a.png": picture(1, (200, 100))})
    metadata = b"file_name,text\na.wav,Good morning\n"
    add(company, "calls", SPEECH.name, {"metadata.csv": metadata, "a.wav": sound(2)})
    add(company, "films", "video-classification", {"left/a.webm": container()})
    session = proofs.signed_in(Client(), company.enzo).cookies["sessionid"]
    browser = Browser()
    try:
        browser.call(
            "Network.setCookie", name="sessionid", value=session.value, url=live_server.url
        )
        for name, load, measure in (
            ("photos", LOAD_IMAGE, 200),
            ("calls", LOAD_AUDIO, 2),
            ("films", LOAD_VIDEO, 64),
        ):
            browser.go(f"{live_server.url}/datasets/{name}")
            browser.run(SUBMIT)
            browser.wait("document.querySelector('.cell-image, audio, video') !== null")
            browser.run(f"{{{load}}} null")
            browser.wait(f"window.loaded === {measure}")
        assert browser.faults == []
    finally:
        browser.close()


def test_a_reviewer_plays_the_recording_of_a_sample(
    live_server: Any, policy: object, redis: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    with transaction.atomic():
        company = tell_story()
    metadata = b"file_name,text\na.wav,Good morning\n"
    speech = add(company, "calls", SPEECH.name, {"metadata.csv": metadata, "a.wav": sound(2)})
    measured(company, speech, input_audio=sha256(sound(2)))
    session = proofs.signed_in(Client(), company.carla).cookies["sessionid"]
    browser = Browser()
    try:
        browser.call(
            "Network.setCookie", name="sessionid", value=session.value, url=live_server.url
        )
        review = company.things["review_open"]
        browser.go(f"{live_server.url}/reviews/{review.pk}?tab=evidence")
        browser.wait("document.querySelector('audio') !== null")
        browser.run(f"{{{LOAD_AUDIO}}} null")
        browser.wait("window.loaded === 2")
        assert browser.faults == []
    finally:
        browser.close()
