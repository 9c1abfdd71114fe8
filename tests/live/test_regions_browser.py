"""Boxes and masks in a real browser: over the images of a dataset, and over an answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests import proofs
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.portal_data import tell_story
from tests.unit.assay.test_portal_dataset_media import add
from tests.unit.registry.media_files import picture
from tests.unit.registry.test_dataset_regions import NAMES, boxed, mask, masked

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
# The confirmation dialog is tested elsewhere.
SUBMIT = "HTMLFormElement.prototype.submit.call(document.querySelector('form[action*=\"/rows/\"]'))"
IMAGE = picture(1, (64, 48))
DRAW = """
  (async () => {{
    const bytes = Uint8Array.from(atob({image}), (letter) => letter.charCodeAt(0));
    const file = new File([bytes], "scene.png", {{ type: "image/png" }});
    const figure = await playgroundRegions.draw({kind}, {entries}, file);
    document.getElementById("main").append(figure);
    window.drawn = figure.querySelectorAll(".drawn-over, .legend li").length;
  }})(); null
"""


def draw(kind: str, entries: list[dict[str, Any]]) -> str:
    image = base64.b64encode(IMAGE).decode()
    return DRAW.format(image=json.dumps(image), kind=json.dumps(kind), entries=json.dumps(entries))


def test_boxes_and_masks_are_drawn_over_images(
    live_server: Any, policy: object, redis: object
) -> None:
    with transaction.atomic():
        company = tell_story()
    boxes = boxed([2, 3, 20, 30], [30.5, 10, 20, 30], categories=["shirt", "bag"])
    metadata = f"{json.dumps(boxes)}\n".encode()
    add(company, "boxes", "object-detection", {"metadata.jsonl": metadata, "a.png": IMAGE})
    files = {
        "metadata.jsonl": f"{json.dumps(masked())}\n".encode(),
        "a.png": IMAGE,
        "m.png": mask(),
    }
    add(company, "masks", "image-segmentation", files)
    session = proofs.signed_in(Client(), company.enzo).cookies["sessionid"]
    browser = Browser()

    try:
        browser.call(
            "Network.setCookie", name="sessionid", value=session.value, url=live_server.url
        )
        for name, over in (("boxes", "svg.drawn-over rect"), ("masks", "img.drawn-over")):
            browser.go(f"{live_server.url}/datasets/{name}")
            browser.run(SUBMIT)
            browser.wait(f"document.querySelector('{over}') !== null")
        browser.go(f"{live_server.url}/playground")
        box = {"xmin": 2, "ymin": 3, "xmax": 22, "ymax": 33}
        browser.run(draw("boxes", [{"label": "shirt", "score": 0.9, "box": box}]))
        browser.wait("window.drawn === 2")
        white = base64.b64encode(mask(255)).decode()
        browser.run("document.querySelector('figure.media').remove()")
        browser.run(draw("masks", [{"label": name, "score": 0.8, "mask": white} for name in NAMES]))
        browser.wait("window.drawn === 4")
        assert browser.faults == []
    finally:
        browser.close()
