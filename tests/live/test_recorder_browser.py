"""The playground's recorder in a real browser, whose microphone plays a file."""

from __future__ import annotations

import io
import math
import struct
import wave
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from registry.media.store import MediaReference, media_open
from tests.live.browser import CHROMIUM, Browser
from tests.live.playground_page import open_playground
from tests.unit.assay.gateway_support import Stage, stage
from workers.wire import Done, Event, InferenceRequest

__all__ = ["stage"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

HERTZ, RATE = 440, 48_000


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser that hears a tone of 440 Hz, and that is not asked whether it may."""
    tone = tmp_path / "tone.wav"
    samples = [round(20_000 * math.sin(2 * math.pi * HERTZ * at / RATE)) for at in range(RATE)]
    with wave.open(str(tone), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    started = Browser(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={tone}",
        "--autoplay-policy=no-user-gesture-required",
    )
    yield started
    started.close()


def pitch_of(recording: bytes) -> tuple[float, float]:
    """Return the seconds of a mono WAV of 16 bits, and how often it crosses zero upwards a second
    in its loud middle half."""
    with wave.open(io.BytesIO(recording)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        count = file.getnframes()
        samples = struct.unpack(f"<{count}h", file.readframes(count))
    middle = samples[count // 4 : -count // 4]
    rises = sum(before < 0 <= after for before, after in pairwise(middle))
    return count / 16_000, rises * 16_000 / len(middle)


def test_a_person_records_hears_and_sends_what_the_microphone_took(
    browser: Browser, stage: Stage
) -> None:
    heard: list[bytes] = []

    def write_down(request: InferenceRequest, reply: Callable[[Event], None]) -> None:
        heard.append(media_open(MediaReference.from_json(request.inputs["audio"])).read())
        said = {
            "start": 0.0, "end": 1.0, "text": "One long tone.", "language": "en",
            "language_name": "english", "segments": [],
        }  # fmt: skip
        reply(Done("stop", 0, 0, results=[said], units=1))

    stage.deployment("scribe", task="automatic-speech-recognition", behavior=write_down)
    open_playground(browser, stage)

    browser.click("#record")
    browser.wait("document.getElementById('record').textContent.trim() === 'Stop recording'")
    # The time that a person speaks: long enough for several packets of the recorder.
    browser.run("window.enough = false; setTimeout(() => { window.enough = true; }, 1500)")
    browser.wait("window.enough")
    browser.click("#record")
    browser.wait("document.querySelector('#file-preview audio')?.readyState >= 1")
    assert browser.run("document.getElementById('record').textContent.trim()") == "Record"

    # The waveform of a tone is high; of silence it is a line of one pixel.
    browser.wait("""
        (() => {
          const canvas = document.querySelector("#file-preview canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return pixels.data.filter((value, at) => at % 4 === 3 && value).length > canvas.width;
        })()
    """)
    browser.run("document.querySelector('#file-preview audio').play()")
    browser.wait("document.querySelector('#file-preview audio').currentTime > 0")

    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelector('.turn-assistant')?.textContent === 'One long tone.'")
    browser.wait("document.querySelector('.turn-user audio') !== null")
    (recording,) = heard
    seconds, hertz = pitch_of(recording)
    assert 0.5 < seconds < 15
    assert hertz == pytest.approx(HERTZ, rel=0.1)
    assert browser.faults == []
