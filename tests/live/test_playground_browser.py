"""The playground in a real browser, against a real gateway: no key, no fault in the console."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest

from registry.catalog import get_task
from registry.media.store import media_put
from tests.live.browser import CHROMIUM, Browser
from tests.live.playground_page import open_playground
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_prompts import prompt_behind
from tests.unit.registry.media_files import container, picture
from tests.unit.registry.objects import stored
from workers.wire import Done, Event, InferenceRequest

__all__ = ["stage"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    started = Browser()
    yield started
    started.close()


def test_a_person_asks_a_deployment_and_sees_the_answer_without_a_key(
    browser: Browser, stage: Stage
) -> None:
    stage.deployment()
    person = open_playground(browser, stage)
    assert "API key" not in browser.run("document.getElementById('main').textContent")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelector('.turn-assistant')?.textContent === 'Hello there'")
    browser.wait("document.getElementById('facts').textContent.includes('Policy version')")
    # A second message goes by the token that the page holds.
    browser.run("document.getElementById('text').value = 'Again'")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelectorAll('.turn-assistant').length === 2")
    browser.wait("document.querySelectorAll('.turn-assistant')[1].textContent === 'Hello there'")
    assert person.playground_tokens.count() == 1
    assert browser.run("Object.keys(localStorage).concat(Object.keys(sessionStorage)).length") <= 1
    assert browser.faults == []


def test_the_variables_of_a_prompt_are_typed_and_its_fixed_settings_stay(
    browser: Browser, stage: Stage
) -> None:
    prompt_behind(
        stage.deployment(),
        {
            "system": "You answer for {{team}} in {{language}}.",
            "variables": [
                {"name": "team", "description": "Who reads the answer"},
                {"name": "language", "default": "English", "max_length": 40},
            ],
            "decoding": {"temperature": 0.25, "max_tokens": 4_000, "fixed": ["temperature"]},
        },
    )
    open_playground(browser, stage)
    send = "document.querySelector('#playground button[type=submit]').click()"
    # A variable without a default is required.
    browser.run(send)
    assert browser.run("document.querySelector('textarea:invalid').labels[0].textContent") == "team"
    assert browser.run("document.querySelector('.turn') === null")
    browser.run("document.getElementById('variable-0').value = 'Care'")
    browser.run(send)
    browser.wait("document.querySelector('.turn-assistant')?.textContent === 'Hello there'")
    (request,) = stage.responders[0].requests
    assert request.inputs["variables"] == {"team": "Care"}
    assert browser.run("document.getElementById('temperature').disabled")
    assert browser.faults == []


# Stores the files that the page offers for download in `window.files`.
FILES = """
window.files = [];
const make = URL.createObjectURL;
URL.createObjectURL = (file) => { window.files.push(file); return make(file); };
"""


def test_a_system_prompt_and_a_seed_go_with_each_message_of_a_conversation(
    browser: Browser, stage: Stage
) -> None:
    stage.deployment()
    open_playground(browser, stage)
    browser.run("document.getElementById('system').value = 'Be brief.'")
    browser.run("document.getElementById('seed').value = '7'")
    browser.run(FILES)
    assert browser.run("document.getElementById('size').checkVisibility()") is False
    send = "document.querySelector('#playground button[type=submit]').click()"
    browser.run(send)
    browser.wait("document.querySelectorAll('.turn-foot a').length === 1")
    browser.run("document.getElementById('text').value = 'Again'")
    browser.run(send)
    browser.wait("document.querySelectorAll('.turn-foot a').length === 2")
    _, second = stage.responders[0].requests
    roles = [each["role"] for each in second.inputs["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert second.options["seed"] == 7
    # The download has the whole conversation.
    browser.run(
        "window.files.at(-1).text().then((text) => { window.saved = JSON.parse(text); }); 1"
    )
    browser.wait("window.saved !== undefined")
    saved = browser.run("window.saved.messages.map((each) => each.role)")
    assert saved == [*roles, "assistant"]
    assert browser.run("document.querySelector('.turn-foot a').download") == "conversation.json"
    assert browser.faults == []


def draw(request: InferenceRequest, reply: Callable[[Event], None]) -> None:
    """Answer with one image of the requested size."""
    data = picture(size=(request.inputs["width"], request.inputs["height"]))
    stored_at = media_put(data, content_type="image/png", deployment_id=request.deployment_id)
    result = {**stored_at.to_json(), "details": {"seed": request.inputs["seed"]}}
    reply(Done("stop", 3, 0, results=[result], units=1))


def test_an_image_is_drawn_in_the_chosen_size_and_saved(browser: Browser, stage: Stage) -> None:
    stage.deployment("painter", task="text-to-image", behavior=draw)
    open_playground(browser, stage)
    assert browser.run("document.getElementById('system').checkVisibility()") is False
    send = "document.querySelector('#playground button[type=submit]').click()"
    browser.run("document.getElementById('size').value = 'large'")
    browser.run(send)
    assert browser.run("document.querySelector('.turn') === null")
    browser.run("document.getElementById('size').value = '64x48'")
    browser.run("document.getElementById('seed').value = '5'")
    browser.run(send)
    browser.wait("document.querySelector('.turn-assistant img')?.naturalWidth === 64")
    caption = "document.querySelector('.turn-assistant figcaption')"
    assert browser.run(f"{caption}.textContent") == "Seed 5Download"
    assert browser.run(f"{caption}.querySelector('a').download") == "image.png"
    assert browser.faults == []


CHOOSE = """
(() => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "%s", { type: "%s" }));
  const input = document.getElementById("file");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
})()
"""


def test_an_image_goes_with_a_message_of_a_chat(browser: Browser, stage: Stage) -> None:
    stage.deployment("eyes", task="image-text-to-text")
    open_playground(browser, stage)
    sample = get_task("image-text-to-text").sample["messages"][0]["content"][0]
    data = sample["image_url"]["url"].partition(",")[2]
    browser.run(CHOOSE % (data, "shirt.png", "image/png"))
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelector('.turn-assistant')?.textContent === 'Hello there'")
    browser.wait("document.querySelector('.turn-user img') !== null")
    # Without a file, the next message is text alone; the first one keeps its image.
    browser.run("document.getElementById('text').value = 'And now?'")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelectorAll('.turn-assistant').length === 2")
    browser.wait("document.querySelectorAll('.turn-assistant')[1].textContent === 'Hello there'")
    first, second = stage.responders[0].requests
    text = {"type": "text", "text": "What color is it?"}
    assert first.inputs["messages"][0]["content"] == [{"type": "image"}, text]
    assert len(first.inputs["images"]) == len(second.inputs["images"]) == 1
    assert second.inputs["messages"][-1]["content"] == "And now?"
    assert browser.faults == []


def label_a_record(request: InferenceRequest, reply: Callable[[Event], None]) -> None:
    """Answer with two labels."""
    scores = [{"label": "benign", "score": 0.9}, {"label": "malignant", "score": 0.1}]
    reply(Done("stop", 0, 0, results=[scores], units=2))


def test_a_video_plays_before_it_is_sent(browser: Browser, stage: Stage) -> None:
    stage.deployment("watcher", task="video-classification", behavior=label_a_record)
    open_playground(browser, stage)
    data = base64.b64encode(container()).decode()
    browser.run(CHOOSE % (data, "walk.webm", "video/webm"))
    browser.wait("document.querySelector('#file-preview video')?.videoWidth === 64")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelectorAll('.score').length > 0")
    (asked,) = stage.responders[0].requests
    assert asked.inputs["video"]["content_type"] == "video/webm"
    assert browser.faults == []


def test_a_record_is_filled_in_by_feature(browser: Browser, stage: Stage) -> None:
    features = [
        {"name": "age", "kind": "number", "example": 52.0},
        {"name": "smoker", "kind": "category", "categories": ["no", "yes"], "example": "no"},
    ]
    manifest = stored({"config.json": json.dumps({"features": features}).encode()})
    stage.deployment(
        "judge",
        task="tabular-classification",
        behavior=label_a_record,
        manifest=manifest.to_json(),
    )
    open_playground(browser, stage)
    browser.run("document.getElementById('feature-0').value = ''")
    browser.run("document.getElementById('feature-1').value = 'yes'")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelectorAll('.turn-assistant .score').length === 2")
    (asked,) = stage.responders[0].requests
    assert asked.inputs == {"table": {"age": [None], "smoker": ["yes"]}}
    code = browser.run("document.querySelector('[data-code-of=judge] pre').textContent")
    assert '"smoker": [' in code
    assert browser.faults == []
