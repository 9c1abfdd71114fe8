"""The reviewers' authenticator apps: enrolled through the portal like a person's, then removed.

Decisions need a second factor. All people set a password through a one-time link; people who decide
for others also enroll an app with it. The demo computes the app's codes (RFC 6238). It removes the
apps at the end, because the one-click sign-in of personas must not require a code.
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
# Time in which a busy server verifies a code.
SENDING_S = 15
# A proof is valid for ten minutes; it is renewed shortly before it expires.
RENEWED_AFTER_S = 8 * 60
_SECRET = re.compile(r'id="secret">([A-Z2-7 ]+)<')
_REMOVE = re.compile(r'action="(/account/factors/\d+/remove)"')


def totp(secret: str, counter: int) -> str:
    """Return the six-digit code of one period of 30 seconds."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    mac = hmac.new(key, struct.pack(">Q", counter), hashlib.sha1).digest()
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at : at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


class Authenticators:
    """The apps by handle, in a file that only this user may read, so that people can still sign in
    after an interrupted run."""

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
        # Returns the link and the code of a recovery that enrolls the first factor, by handle.
        self._permit = permit
        self._apps: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self._proved: dict[str, float] = {}

    def code(self, handle: str) -> str:
        """Wait for the app's next unused code and return it; empty without an app."""
        app = self._apps.get(handle)
        if app is None:
            return ""
        # The previous period's code is accepted, too; not if that one ends while the code is sent.
        counter = max(app["used"] + 1, int(time.time() + SENDING_S) // STEP_S - 1)
        while counter > int(time.time()) // STEP_S + 1:
            time.sleep(1)
        app["used"] = counter
        self._save()
        return totp(app["secret"], counter)

    def prove(self, handle: str, step_up: Callable[[str], Any]) -> None:
        """Verify the person's identity for their access token, unless recently verified."""
        if time.monotonic() - self._proved.get(handle, -RENEWED_AFTER_S) < RENEWED_AFTER_S:
            return
        self.enroll(handle)
        step_up(self.code(handle))
        self.note_proof(handle)

    def enroll(self, handle: str) -> None:
        """Enroll an app for the person, unless they have one."""
        if handle not in self._apps:
            self._add(handle)

    def note_proof(self, handle: str) -> None:
        """Record that the person's token was verified with a code just now."""
        self._proved[handle] = time.monotonic()

    def remove_all(self) -> None:
        """Remove every app."""
        for handle in list(self._apps):
            browser = self._browser(handle)
            link = _REMOVE.search(patiently(browser, "GET", "/account", again=True).text)
            if link is not None:
                _post(browser, link[1])
            del self._apps[handle]
            self._save()

    def accept(self, handle: str, link: str, code: str = "") -> None:
        """Set the person's password through an invitation, and enroll an app if required."""
        browser = patient_client(self._url, follow_redirects=True)
        page = _open_link(browser, link, code)
        _, password = self._credentials(handle)
        fields = {"password": password, "again": password}
        if (secret := _SECRET.search(page)) is not None:
            fields["code"] = self._keep(handle, secret[1])
        _post(browser, "/sign-in/link/password", **fields)

    def _add(self, handle: str) -> None:
        browser = self._browser(handle)
        secret = _SECRET.search(_open_link(browser, *self._permit(handle)))
        if secret is None:
            raise RuntimeError(f"The portal shows no secret for the app of {handle}.")
        _post(browser, "/account/authenticator", code=self._keep(handle, secret[1]))

    def _keep(self, handle: str, secret: str) -> str:
        self._apps[handle] = {"secret": secret.replace(" ", ""), "used": 0}
        self._save()
        return self.code(handle)

    def _browser(self, handle: str) -> httpx.Client:
        """Return a client of the portal, signed in as that person, with any second factor."""
        browser = patient_client(self._url, follow_redirects=True)
        patiently(browser, "GET", "/sign-in", again=True)
        email, password = self._credentials(handle)
        # People who lack a required factor get a page that refuses them until they open their link.
        answer = _post_form(browser, "/sign-in", email=email, password=password)
        if answer.url.path == "/sign-in/second-factor":
            _post(browser, "/sign-in/second-factor", code=self.code(handle))
        return browser

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._apps, file)


def _open_link(browser: httpx.Client, link: str, code: str) -> str:
    """Open a one-time link like the page's script, and return the next page. `code` is the code of
    a recovery, else empty.
    """
    patiently(browser, "GET", "/sign-in/link", again=True)
    return _post(browser, "/sign-in/link", link=link, code=code).text


def _post(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return _post_form(browser, path, **fields).raise_for_status()


def _post_form(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    fields["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
    return patiently(browser, "POST", path, data=fields)
