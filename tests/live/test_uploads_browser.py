"""Uploads in parts in a real browser: progress, and resuming after the page was reloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from registry.intake.models import Intake
from registry.uploads import files
from registry.uploads.models import Upload
from tests import proofs
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.portal_data import Company, tell_story
from tests.unit.registry.objects import safetensors

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
# Three parts of the page's script.
SIZE = 10_000_000
WEIGHTS = safetensors(
    {"weight": {"dtype": "F32", "shape": [SIZE // 4], "data_offsets": [0, SIZE]}}, b"\1" * SIZE
)

Desk = tuple[Browser, Company, str]


@pytest.fixture
def desk(live_server: Any, policy: object, redis: object) -> Iterator[Desk]:
    """A browser with Devi signed in."""
    with transaction.atomic():
        company = tell_story()
    session = proofs.signed_in(Client(), company.devi).cookies["sessionid"]
    browser = Browser()
    browser.call("Network.setCookie", name="sessionid", value=session.value, url=live_server.url)
    yield browser, company, live_server.url
    browser.close()
    for path in files.folder().iterdir() if files.folder().is_dir() else ():
        path.unlink()


@pytest.fixture
def delivery(tmp_path: Path) -> list[str]:
    (tmp_path / "config.json").write_bytes(b'{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    return [str(tmp_path / name) for name in ("config.json", "model.safetensors")]


def choose(browser: Browser, paths: list[str], field: str = "#id_files") -> None:
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector=field)["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=paths)


def fill(browser: Browser, company: Company, paths: list[str]) -> None:
    browser.fill(model=str(company.writer.pk), source="a supplier", license="MIT")
    choose(browser, paths)


def test_files_are_sent_in_parts_and_taken_in(desk: Desk, delivery: list[str]) -> None:
    browser, company, url = desk
    browser.go(f"{url}/intakes/new")
    fill(browser, company, delivery)
    browser.press("form[data-upload-kind] button[type=submit]")
    browser.wait("location.pathname.match(/^\\/intakes\\/[0-9]+$/) !== null")
    intake = Intake.objects.latest("pk")
    assert {each["name"]: each["sha256"] for each in intake.files}["model.safetensors"] == (
        hashlib.sha256(WEIGHTS).hexdigest()
    )
    assert browser.faults == []
    assert browser.run("localStorage.length") == 0


def test_an_upload_that_was_cut_off_goes_on_after_a_reload(desk: Desk, delivery: list[str]) -> None:
    browser, company, url = desk
    browser.go(f"{url}/intakes/new")
    # The network goes away after the first part of the weights, as when a train enters a tunnel.
    browser.run(
        """(() => {
          const real = window.fetch;
          let parts = 0;
          window.fetch = (...given) => {
            const large = given[1].body && given[1].body.byteLength > 1000000;
            if (large && (parts += 1) > 1) return new Promise(() => {});
            return real(...given);
          };
        })()"""
    )
    fill(browser, company, delivery)
    browser.run("document.querySelector('form[data-upload-kind] button[type=submit]').click()")
    browser.wait("document.querySelectorAll('progress')[1]?.value === 4194304")
    assert browser.run("document.querySelector('[data-upload-progress]').textContent").count(
        "4.2 MB of 10.0 MB"
    )
    browser.run("document.querySelector('[data-upload-pause]').click()")
    half = Upload.objects.get(filename="model.safetensors")
    assert half.received == 4 * 1024 * 1024

    browser.go("about:blank")
    browser.go(f"{url}/intakes/new")
    assert "4.2 MB of 10.0 MB" in browser.run("document.getElementById('main').textContent")
    browser.run(
        """(() => {
          const real = window.fetch;
          window.offsets = [];
          window.fetch = (...given) => {
            const offset = (given[1].headers || {})["Upload-Offset"];
            if (offset) sessionStorage.offsets = [sessionStorage.offsets || "", offset].join(" ");
            return real(...given);
          };
        })()"""
    )
    fill(browser, company, delivery)
    browser.press("form[data-upload-kind] button[type=submit]")
    browser.wait("location.pathname.match(/^\\/intakes\\/[0-9]+$/) !== null")
    # The small file was whole; the large one went on where it had stopped.
    assert browser.run("sessionStorage.offsets").split() == ["4194304", "8388608"]
    assert Intake.objects.latest("pk").state == "checking"
    assert not Upload.objects.exists()


def test_a_corrected_file_replaces_the_refused_one(desk: Desk, tmp_path: Path) -> None:
    browser, company, url = desk
    (tmp_path / "rows.txt").write_bytes(b"x")
    (tmp_path / "rows.jsonl").write_bytes(
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    )
    browser.go(f"{url}/datasets/docstrings-train")
    choose(browser, [str(tmp_path / "rows.txt")], "#id_file")
    browser.press("form[data-upload-kind] button[type=submit]")
    browser.wait("document.querySelector('[data-upload-attached]') !== null")

    choose(browser, [str(tmp_path / "rows.jsonl")], "#id_file")
    browser.press("form[data-upload-kind] button[type=submit]")
    browser.wait("document.querySelector('.alert-ok') !== null")

    assert company.train.dataset.versions.count() == 2
    assert not Upload.objects.exists()
