"""Intake's call of a provider: a fixed short request, and the list of models."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from io import BytesIO
from typing import Any

import orjson
from pydantic import ValidationError

from registry.catalog import get_task
from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions
from registry.catalog.hosted import (
    PROBE_ERROR_MAX,
    PROBE_TEXT,
    PROBE_TOKENS,
    HostedDescription,
    Operation,
    ProbeResult,
)
from registry.catalog.inputs import Inputs, Options
from registry.catalog.requests import printable
from workers.egress.connections import Egress
from workers.egress.credentials import Credential
from workers.engines.hosted.engine import shape_of
from workers.engines.hosted.exchange import listed_models, read_whole, send
from workers.engines.hosted.failures import MALFORMED, incomplete
from workers.engines.protocol import RequestRefused

# Time limit for both exchanges together.
WITHIN_S = 90.0


async def probe(
    egress: Egress, description: HostedDescription, credential: Credential | None
) -> ProbeResult:
    """Send `PROBE_TEXT` to a provider and get its list of models; return the result."""
    try:
        async with asyncio.timeout(WITHIN_S):
            return await _probed(egress, description, credential)
    except RequestRefused as error:
        return unreached(str(error))
    except TimeoutError:
        return unreached(f"{description.host} did not answer within {WITHIN_S:g} seconds.")
    except ValidationError:
        return unreached("The answer states a name that cannot be shown.")


def unreached(reason: str) -> ProbeResult:
    """Return the result of a call without an answer."""
    return ProbeResult(reached=False, error=printable(reason, PROBE_ERROR_MAX - 1))


async def _probed(
    egress: Egress, description: HostedDescription, credential: Credential | None
) -> ProbeResult:
    shape = shape_of(description)
    inputs, options = probe_request(description)
    began = time.monotonic()
    route = egress.route(description.base_url)
    call = shape.call(description, inputs, options, stream=False)
    reader = shape.reader(description, call)
    answer = await send(route, call, call.encoded(), credential, within_s=WITHIN_S)
    try:
        await read_whole(call, answer, reader)
    finally:
        answer.close()
    state = reader.state
    if not state.complete:
        raise incomplete()
    latency = time.monotonic() - began
    listed = await listed_models(route, credential, dict(call.headers), within_s=WITHIN_S)
    return ProbeResult(
        reached=True,
        # A provider may list any number of models; reading them must not delay streams.
        listed=None if listed is None else await asyncio.to_thread(_listed, description, listed),
        model=printable(state.model, 199),
        fingerprint=printable(state.fingerprint, 99),
        latency_ms=round(1000 * latency),
        prompt_tokens=state.prompt_tokens,
        completion_tokens=state.completion_tokens,
    )


def probe_request(description: HostedDescription) -> tuple[Inputs, Options]:
    """Return the fixed request of intake for a description's operation."""
    content: dict[str, Any]
    match description.operation:
        case Operation.EMBEDDINGS:
            content = {"input": [PROBE_TEXT]}
        case Operation.TRANSCRIPTION:
            content = {"audio": BytesIO(probe_audio())}
        case Operation.SPEECH:
            content = {"text": PROBE_TEXT}
        case Operation.IMAGES:
            content = {"prompt": PROBE_TEXT}
        case _:
            # A limit that the description does not permit is not sent.
            message = ChatMessage(role="user", content=PROBE_TEXT)
            limit = SamplingOptions(max_tokens=PROBE_TOKENS)
            return GenerationInputs(messages=[message]), limit
    task = get_task(description.rules.task)
    return task.input_schema.model_validate(content), task.option_schema()


def probe_audio() -> bytes:
    """Return a second of a tone as WAV: 440 Hz, 8,000 samples of 16 bits."""
    rate, size = 8_000, 16_000
    head = struct.pack(
        "<4sI8sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size),
    )
    samples = (round(8_000 * math.sin(2 * math.pi * 440 * at / rate)) for at in range(rate))
    return head + struct.pack(f"<{rate}h", *samples)


def _listed(description: HostedDescription, body: bytes) -> bool | None:
    """Return whether a list of models names the described model; None if the body is not a list."""
    try:
        answer = orjson.loads(body)
        rows = answer.get("data") if "data" in answer else answer["models"]
        # Names in Gemini's list begin with `models/`.
        names = {str(row.get("id") or row.get("name")).removeprefix("models/") for row in rows}
    except MALFORMED:
        return None
    return description.model in names
