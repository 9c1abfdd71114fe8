"""Work that every test would repeat, or that no test needs: done once, or left out."""

from __future__ import annotations

import gc
from typing import Any

from django.core.signals import setting_changed
from django.test.client import ClientHandler

# Attributes that loading the middleware sets on a handler.
_LOADED = (
    "_view_middleware",
    "_template_response_middleware",
    "_exception_middleware",
    "_middleware_chain",
)
_shared: dict[tuple[type, bool], dict[str, Any]] = {}


def share_middleware() -> None:
    """Load the middleware once for all test clients, as a process that serves does.

    Each client would load it anew, and WhiteNoise then looks at every static file: 8 ms for each of
    some thousand clients. A test that changes a setting gets middleware that knows it.
    """
    load = ClientHandler.load_middleware

    def load_once(self: ClientHandler, is_async: bool = False) -> None:
        key = (type(self), is_async)
        if key not in _shared:
            load(self, is_async)
            _shared[key] = {name: getattr(self, name) for name in _LOADED}
        vars(self).update(_shared[key])

    ClientHandler.load_middleware = load_once  # type: ignore[method-assign]
    setting_changed.connect(lambda **_: _shared.clear(), weak=False)


def collect_garbage_less() -> None:
    """Leave modules and collected tests out of every garbage collection, and collect less often.

    There are a million such objects, none of them garbage; looking at them took 5 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
