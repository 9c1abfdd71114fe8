"""A real Chromium over its DevTools protocol, with a passkey device that answers by itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from typing import Any

import httpx
from websockets.sync.client import connect

from tests.waiting import PATIENCE_S

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class Browser:
    """One page of a Chromium with further `switches`. `faults` are what its console and its content
    security policy complained of; `loads` counts the pages that it has loaded.
    """

    def __init__(self, *switches: str) -> None:
        assert CHROMIUM is not None
        self._profile = tempfile.mkdtemp(prefix="assay-browser-")
        self._process = subprocess.Popen(
            [CHROMIUM, *SWITCHES, *switches, f"--user-data-dir={self._profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        listening = (re.search(r"ws://([^/]+)/", line) for line in self._process.stderr)
        host = next(found for found in listening if found)[1]
        pages = httpx.get(f"http://{host}/json").json()
        address = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(address, max_size=None))
        self._calls = 0
        self.faults: list[str] = []
        self.loads = 0
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._open.close()
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        number = self._calls
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if said.get("id") == number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        given = said["params"]
        self.loads += said["method"] == "Page.loadEventFired"
        if said["method"] == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.faults.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        if said["method"] == "Runtime.exceptionThrown":
            self.faults.append(given["exceptionDetails"]["text"])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def with_passkey_device(self) -> None:
        self.call("WebAuthn.enable")
        self.call("WebAuthn.addVirtualAuthenticator", options=DEVICE)

    def go(self, address: str) -> None:
        self.run("window.left = true")
        self.call("Page.navigate", url=address)
        self.wait("window.left === undefined && document.readyState === 'complete'")

    def fill(self, **values: str) -> None:
        for name, value in values.items():
            self.run(f"document.getElementById('id_{name}').value = {json.dumps(value)}")

    def press(self, selector: str) -> None:
        """Press a button that leads to another page, and wait for that."""
        self.run(f"window.left = true; document.querySelector({json.dumps(selector)}).click()")
        self.wait("window.left === undefined && document.readyState === 'complete'")

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of an element, wherever it is on the page."""
        named = json.dumps(selector)
        options = "{block: 'center', behavior: 'instant'}"
        self.run(f"document.querySelector({named}).scrollIntoView({options})")
        place = f"document.querySelector({named}).getBoundingClientRect()"
        spot = self.run(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({place})")
        hit = f"document.elementFromPoint({spot[0]}, {spot[1]})"
        assert self.run(f"document.querySelector({named}).contains({hit})"), (
            f"{selector} is covered"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": spot[0], "y": spot[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def type(self, text: str) -> None:
        """Type where the focus is."""
        self.call("Input.insertText", text=text)

    def wait(self, condition: str, timeout_s: float = PATIENCE_S) -> None:
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            answer = self.call("Runtime.evaluate", expression=condition, returnByValue=True)
            if answer["result"].get("value") is True:
                return
            time.sleep(0.05)
        raise AssertionError(f"{condition} did not come true at {self.run('location.href')}")

    @property
    def path(self) -> str:
        return str(self.run("location.pathname"))

    @property
    def heading(self) -> str:
        return str(self.run("document.querySelector('h1').textContent"))
