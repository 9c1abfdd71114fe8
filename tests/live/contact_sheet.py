"""Picture every screen at each width, light and dark, for `tools/screens.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, TextIO

import pytest
from django.db import transaction
from django.utils.text import slugify

from governance.audit.sealer import seal_once
from tests.abuse.company import attacked_company, person_of
from tests.abuse.invalid_forms import invalid_forms
from tests.live.browser import Browser
from tests.live.camera import Camera
from tests.live.portal_screens import (
    WIDTHS,
    Screen,
    add_classifier,
    add_hosted,
    crowd,
    crowded_screens,
    empty_screens,
    lengthen,
    screens_of,
)
from tests.unit.assay.portal_data import Company, tell_story

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
FOLDER = Path(os.environ.get("ASSAY_SCREENS", "build/screens"))
HEIGHT = 900
# Maximum height of a picture; longer pages are cut.
HEIGHT_MAX = 3000
# The sheet shows pictures at a fourth of their size.
SCALE = 4
THEMES = ("light", "dark")
# Width and theme of the pictures of invalid forms.
ERROR_VIEWS = ((1280, "light"), (390, "dark"))
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Screens of Assay</title>
<style>
  body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; }
  section { margin-bottom: 2rem; }
  h2 { font-size: 1rem; margin: 0 0 .5rem; }
  div { display: flex; gap: 1rem; align-items: flex-start; overflow-x: auto; }
  img { border: 1px solid #999; max-height: 36rem; }
</style>
<h1>Screens of Assay</h1>
"""


def sections(camera: Camera, state: str, screens: list[Screen]) -> Iterator[str]:
    """Take the pictures of screens; yield the section of the sheet for each screen."""
    for screen in screens:
        pictures = []
        for theme in THEMES:
            camera.resize(WIDTHS[0], HEIGHT)
            camera.open(screen.person, screen.path, theme)
            pictures += [taken(camera, f"{state} {screen.name}", width, theme) for width in WIDTHS]
        yield section(f"{state}: {screen.name} · {screen.person.name} · {screen.path}", pictures)


def error_sections(camera: Camera, company: Company) -> Iterator[str]:
    """Send every form with invalid values; yield the section of the sheet for each form."""
    for form in invalid_forms(company):
        person = person_of(company, form.sender) if form.sender else None
        pictures = []
        for width, theme in ERROR_VIEWS:
            camera.resize(width, HEIGHT)
            camera.send(person, form.path, form.body, theme)
            pictures.append(taken(camera, f"errors {form.path}", width, theme))
        yield section(f"errors: {form.path} · {form.sender or 'signed out'}", pictures)


def section(title: str, pictures: list[str]) -> str:
    """Return the section of one screen."""
    return f"<section><h2>{escape(title)}</h2><div>{''.join(pictures)}</div></section>\n"


def taken(camera: Camera, name: str, width: int, theme: str) -> str:
    """Take a picture of the page at this width, and return a link to it."""
    camera.resize(width, HEIGHT)
    file = slugify(f"{name} {width} {theme}".replace("/", " ")) + ".jpeg"
    (FOLDER / file).write_bytes(picture(camera, width))
    return (
        f'<a href="{file}"><img src="{file}" width="{width // SCALE}" loading="lazy" '
        f'alt="{width} pixels, {theme}"></a>'
    )


def picture(camera: Camera, width: int) -> bytes:
    """Return a picture of the page, from its top to `HEIGHT_MAX` pixels."""
    # The field that has the focus may be far down the page.
    camera.browser.run("window.scrollTo({ top: 0, behavior: 'instant' })")
    height = min(camera.browser.run("document.documentElement.scrollHeight"), HEIGHT_MAX)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    return camera.picture(format="jpeg", quality=70, clip=clip, captureBeyondViewport=True)


@pytest.fixture(scope="module")
def sheet() -> Iterator[TextIO]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "index.html").open("w", encoding="utf-8") as sheet:
        sheet.write(HEAD)
        yield sheet


@pytest.fixture
def browser() -> Iterator[Browser]:
    browser = Browser("--hide-scrollbars")
    yield browser
    browser.close()


def test_screens(
    sheet: TextIO, browser: Browser, live_server: Any, policy: object, redis: object
) -> None:
    with transaction.atomic():
        company = tell_story()
        add_classifier(company)
        add_hosted(company)
    seal_once()
    camera = Camera(browser, live_server.url, company)
    sheet.writelines(sections(camera, "usual", screens_of(company)))
    sheet.writelines(sections(camera, "no data", empty_screens()))
    crowd(company)
    sheet.writelines(sections(camera, "10,000 rows", crowded_screens(company)))
    with transaction.atomic():
        lengthen(company)
    sheet.writelines(sections(camera, "long names", screens_of(company)))


def test_errors_of_forms(
    sheet: TextIO, browser: Browser, live_server: Any, policy: object, redis: object
) -> None:
    with transaction.atomic():
        company = attacked_company()
    camera = Camera(browser, live_server.url, company)
    sheet.writelines(error_sections(camera, company))
