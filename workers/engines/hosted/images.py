"""Images drawn from a prompt, in OpenAI's wire shape. Only images in the answer itself are read."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from registry.catalog.hosted import HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.egress.connections import ProviderFailed
from workers.engines.hosted.failures import MALFORMED, malformed, stated_failure
from workers.engines.hosted.shapes import Call, State, check_permitted, task_settings
from workers.engines.protocol import RequestRefused
from workers.engines.runner import MediaOutput
from workers.wire import Delta

_SEEDS = 2**32


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a prompt. Raises RequestRefused."""
    prompt = getattr(inputs, "prompt", None)
    if prompt is None:
        raise RequestRefused("This operation of the provider only draws images.")
    used = task_settings(description, inputs, options, content={"prompt", "width", "height"})
    body = {"model": description.model, "prompt": prompt, **used}
    width, height = getattr(inputs, "width", None), getattr(inputs, "height", None)
    if width is not None:
        check_permitted(description, "size")
        body["size"] = f"{width}x{height}"
    if "response_format" in description.parameters:
        body["response_format"] = "b64_json"
    return Call("/images/generations", body, accepts=frozenset({"application/json"}))


def reader(description: HostedDescription, call: Call) -> ImagesReader:
    """Return a reader for the answer to a call."""
    return ImagesReader(State(), count=call.body.get("n", 1), seed=call.body.get("seed"))


class ImagesReader:
    """Reads `count` images; image i was drawn with `seed` + i, if there is one."""

    def __init__(self, state: State, *, count: int, seed: int | None) -> None:
        self.state = state
        self._count, self._seed = count, seed

    def event(self, data: bytes) -> list[Delta]:
        """Raise ProviderFailed: images are sent whole."""
        raise ProviderFailed("The provider streamed an answer that was not requested as a stream.")

    def whole(self, body: bytes) -> list[Delta]:
        """Record the images of an answer; it has no pieces. Raises ProviderFailed."""
        try:
            answer = orjson.loads(body)
            if answer.get("error"):
                raise stated_failure(answer)
            self.state.names(answer.get("model"))
            rows = answer["data"]
            if len(rows) != self._count:
                raise ValueError(f"it has {len(rows)} images; {self._count} were requested")
            results: list[Any] = [self._image(number, row) for number, row in enumerate(rows)]
            usage = answer.get("usage") or {}
            self.state.usage(usage.get("input_tokens"), usage.get("output_tokens"))
        except MALFORMED as error:
            raise malformed(error) from error
        self.state.results = results
        self.state.finish, self.state.complete = {0: "stop"}, True
        return []

    def _image(self, number: int, row: Any) -> MediaOutput:
        encoded = row.get("b64_json")
        if encoded is None and row.get("url"):
            raise ProviderFailed(
                "The provider sent the URL of an image, which is never fetched. Permit "
                "response_format in the description, so that it sends the image itself."
            )
        if not isinstance(encoded, str):
            raise ValueError("it has no image")
        data = base64.b64decode(encoded, validate=True)
        details = {} if self._seed is None else {"seed": (self._seed + number) % _SEEDS}
        return MediaOutput(data, _content_type(data), details)


def _content_type(data: bytes) -> str:
    """Return the content type of an image's bytes. Raises ValueError."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("a file is no PNG, JPEG or WebP image")
