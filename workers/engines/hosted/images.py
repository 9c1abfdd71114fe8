"""Images drawn from a prompt, in OpenAI's wire shape. Only images in the answer itself are read."""

from __future__ import annotations

import base64
from typing import Any

from registry.catalog.hosted import HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.egress.connections import ProviderFailed
from workers.engines.hosted.shapes import Call, State, check_permitted, task_settings
from workers.engines.hosted.whole_answers import WholeReader
from workers.engines.protocol import RequestRefused
from workers.engines.runner import MediaOutput

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


class ImagesReader(WholeReader):
    """Reads `count` images; image i was drawn with `seed` + i, if there is one."""

    def __init__(self, state: State, *, count: int, seed: int | None) -> None:
        super().__init__(state)
        self._count, self._seed = count, seed

    def _results(self, body: bytes) -> list[Any]:
        answer = self._parsed(body)
        rows = answer["data"]
        if len(rows) != self._count:
            raise ValueError(f"it has {len(rows)} images; {self._count} were requested")
        usage = answer.get("usage") or {}
        self.state.usage(usage.get("input_tokens"), usage.get("output_tokens"))
        return [self._image(number, row) for number, row in enumerate(rows)]

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
    """Return the content type of an image. Raises ValueError for other formats."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("a file is not a PNG, JPEG or WebP image")
