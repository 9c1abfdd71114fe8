"""The reviewers' authenticator apps: added in the portal as a person adds one, and removed again.

Decisions need a second factor. Everybody sets a password by a one-time link, and whoever decides
for others adds an app with it. The story computes its codes as the app on a phone does (RFC 6238),
and removes the apps at the end: signing in as a persona takes one click and must not require a
code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from assay_demo.patience import patient_client, patiently

STEP_S = 30
# A proof holds for ten minutes; one that is about to run out is renewed.
RENEWED_AFTER_S = 8 * 60
_SECRET = re.compile(r'id="secret">([A-Z2-7 ]+)<')
_REMOVE = re.compile(r'action="(/account/factors/\d+/remove)"')


def totp(secret: str, counter: int) -> str:
    """The six digits of one half minute."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    mac = hmac.new(key, struct.pack(">Q", counter), hashlib.sha1).digest()
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at : at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


class Authenticators:
    """The apps by handle, in one file that only this user may read, so that people can still sign
    in after an interrupted run."""

    def __init__(
        self,
        url: str,
        file: Path,
        credentials: Callable[[str], tuple[str, str]],
        permit: Callable[[str], tuple[str, str]],
    ) -> None:
        self._url = url
        self._file = file
        self._credentials = credentials
        # Returns the link and the code of a recovery for a first second factor, by handle.
        self._permit = permit
        self._apps: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self._proved: dict[str, float] = {}

    def code(self, handle: str) -> str:
        """The app's next code that was not used yet; empty when there is no app. Waits for it."""
        app = self._apps.get(handle)
        if app is None:
            return ""
        counter = max(app["used"] + 1, int(time.time()) // STEP_S - 1)
        while counter > int(time.time()) // STEP_S + 1:
            time.sleep(1)
        app["used"] = counter
        self._save()
        return totp(app["secret"], counter)

    def prove(self, handle: str, step_up: Callable[[str], Any]) -> None:
        """Have the person's access token prove who they are, unless it did so lately."""
        if time.monotonic() - self._proved.get(handle, -RENEWED_AFTER_S) < RENEWED_AFTER_S:
            return
        self.enroll(handle)
        step_up(self.code(handle))
        self.note_proof(handle)

    def enroll(self, handle: str) -> None:
        """Give the person an app, unless they have one."""
        if handle not in self._apps:
            self._add(handle)

    def note_proof(self, handle: str) -> None:
        """Note that a code was given with the person's token just now."""
        self._proved[handle] = time.monotonic()

    def remove_all(self) -> None:
        """Take every app off again."""
        for handle in list(self._apps):
            browser = self._browser(handle)
            found = _REMOVE.search(patiently(browser, "GET", "/account", again=True).text)
            if found is not None:
                _posted(browser, found[1])
            del self._apps[handle]
            self._save()

    def accept(self, handle: str, link: str, code: str = "") -> None:
        """Set the person's password by an invitation, with an app where their roles require one."""
        browser = patient_client(self._url, follow_redirects=True)
        page = _opened(browser, link, code)
        _, password = self._credentials(handle)
        given = {"password": password, "again": password}
        if (shown := _SECRET.search(page)) is not None:
            given["code"] = self._keep(handle, shown[1])
        _posted(browser, "/sign-in/link/password", **given)

    def _add(self, handle: str) -> None:
        browser = self._browser(handle)
        shown = _SECRET.search(_opened(browser, *self._permit(handle)))
        if shown is None:
            raise RuntimeError(f"The portal shows no secret for the app of {handle}.")
        _posted(browser, "/account/authenticator", code=self._keep(handle, shown[1]))

    def _keep(self, handle: str, secret: str) -> str:
        self._apps[handle] = {"secret": secret.replace(" ", ""), "used": 0}
        self._save()
        return self.code(handle)

    def _browser(self, handle: str) -> httpx.Client:
        """The portal, signed in to as that person, with the second factor if there is one."""
        browser = patient_client(self._url, follow_redirects=True)
        patiently(browser, "GET", "/sign-in", again=True)
        email, password = self._credentials(handle)
        # Who owes a second factor lands on a page that refuses them until their link is opened.
        answer = _sent(browser, "/sign-in", email=email, password=password)
        if answer.url.path == "/sign-in/second-factor":
            _posted(browser, "/sign-in/second-factor", code=self.code(handle))
        return browser

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._apps, file)


def _opened(browser: httpx.Client, link: str, code: str) -> str:
    """Open a one-time link as the page's script does; returns the page that it leads to. `code` is
    of a recovery; empty where there is none.
    """
    patiently(browser, "GET", "/sign-in/link", again=True)
    return _posted(browser, "/sign-in/link", link=link, code=code).text


def _posted(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return _sent(browser, path, **fields).raise_for_status()


def _sent(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    fields["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
    return patiently(browser, "POST", path, data=fields)
