"""Requests for cosignatures, by C2SP's tlog-witness (https://c2sp.org/tlog-witness).

All witnesses are asked at once, each with a limit on time and bytes. Does not use the database.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import httpx

from governance.audit.checkpoint import BadCheckpoint
from governance.audit.cosignature import Witness

LIMIT_S = 5.0
MAX_ANSWER_BYTES = 16 * 1024
MAX_PROOF_LINES = 63
MAX_WITNESSES = 16
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A witness, and the prefix of its URLs."""

    witness: Witness
    url: str


@dataclass(frozen=True, slots=True)
class CosignRequest:
    """A request to cosign `note`, with the proof `path` from the witness's tree of `old_size`."""

    endpoint: Endpoint
    old_size: int
    path: Sequence[bytes]
    note: str

    def body(self) -> bytes:
        """Return the body of the HTTP request."""
        if len(self.path) > MAX_PROOF_LINES:
            raise ValueError(f"A consistency proof cannot have {len(self.path)} hashes.")
        lines = [f"old {self.old_size}", *(base64.b64encode(node).decode() for node in self.path)]
        return "".join(f"{line}\n" for line in (*lines, "")).encode() + self.note.encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """A witness's answer: an HTTP status and a text; or status 0 and the error."""

    status: int
    text: str

    def size(self) -> int | None:
        """Return the size in a 409 response, or None."""
        match = _SIZE.fullmatch(self.text)
        return int(match[1]) if match else None


def endpoints(settings: Iterable[str]) -> list[Endpoint]:
    """Read `verifier-key url` for each witness.

    Raises:
        BadCheckpoint: one does not have that form or a valid key, or there are too many.
    """
    witnesses: list[Endpoint] = []
    for text in settings:
        vkey, _, url = text.partition(" ")
        url = url.strip()
        if not url.startswith(("https://", "http://")):
            raise BadCheckpoint(f"{text[:200]!r} is not a witness: `verifier-key url`.")
        witnesses.append(Endpoint(Witness.from_text(vkey), url.rstrip("/")))
    if len(witnesses) > MAX_WITNESSES:
        raise BadCheckpoint(
            f"{len(witnesses)} witnesses are named; at most {MAX_WITNESSES} are asked."
        )
    if len({str(one.witness) for one in witnesses}) != len(witnesses):
        raise BadCheckpoint("A witness is named twice.")
    return witnesses


def ask(requests: Sequence[CosignRequest], *, limit_s: float = LIMIT_S) -> list[Answer]:
    """Ask all witnesses at once; return the answers in order. Takes at most `limit_s` seconds."""
    return asyncio.run(_ask_all(requests, limit_s)) if requests else []


async def _ask_all(requests: Sequence[CosignRequest], limit_s: float) -> list[Answer]:
    async with httpx.AsyncClient(timeout=limit_s, follow_redirects=False) as client:
        return await asyncio.gather(*(_ask(client, request, limit_s) for request in requests))


async def _ask(client: httpx.AsyncClient, request: CosignRequest, limit_s: float) -> Answer:
    try:
        async with asyncio.timeout(limit_s):
            return await _post(client, request)
    except TimeoutError:
        return Answer(0, f"did not answer within {limit_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Answer(0, f"cannot be asked: {error or type(error).__name__}")


async def _post(client: httpx.AsyncClient, request: CosignRequest) -> Answer:
    # Not compressed, so that the counted bytes are the bytes in memory.
    headers = {"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"}
    url = f"{request.endpoint.url}/add-checkpoint"
    async with client.stream("POST", url, content=request.body(), headers=headers) as response:
        data = b""
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                return Answer(0, f"answered with more than {MAX_ANSWER_BYTES} bytes")
        return Answer(response.status_code, data.decode("utf-8", "replace"))
