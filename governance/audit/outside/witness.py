"""Asking witnesses for cosignatures, by C2SP's tlog-witness (https://c2sp.org/tlog-witness).

All are asked at once, each within a limit of time and bytes: one that hangs or floods costs no more
than that. Pure of the database: a request in, what became of it out.
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
    """One witness, and the prefix of its addresses."""

    witness: Witness
    url: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to one witness: to cosign `note`, given the tree of `old_size`."""

    endpoint: Endpoint
    old_size: int
    path: Sequence[bytes]
    note: str

    def body(self) -> bytes:
        """The request as the protocol writes it."""
        if len(self.path) > MAX_PROOF_LINES:
            raise ValueError(f"A consistency proof of {len(self.path)} hashes is no such proof.")
        lines = [f"old {self.old_size}", *(base64.b64encode(node).decode() for node in self.path)]
        return "".join(f"{line}\n" for line in (*lines, "")).encode() + self.note.encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """A witness's answer: an HTTP status and a text; or status 0 and the error."""

    status: int
    text: str

    def size(self) -> int | None:
        """The size in a 409; None when it states none."""
        match = _SIZE.fullmatch(self.text)
        return int(match[1]) if match else None


def endpoints(settings: Iterable[str]) -> list[Endpoint]:
    """Read `verifier-key url` for each witness.

    Raises:
        BadCheckpoint: one is not of that form, a key is none, or there are too many.
    """
    found = []
    for text in settings:
        vkey, _, url = text.partition(" ")
        url = url.strip()
        if not url.startswith(("https://", "http://")):
            raise BadCheckpoint(f"{text[:200]!r} is not a witness: `verifier-key url`.")
        found.append(Endpoint(Witness.from_text(vkey), url.rstrip("/")))
    if len(found) > MAX_WITNESSES:
        raise BadCheckpoint(f"{len(found)} witnesses are named; at most {MAX_WITNESSES} are asked.")
    if len({str(one.witness) for one in found}) != len(found):
        raise BadCheckpoint("A witness is named twice.")
    return found


def ask(requests: Sequence[Asked], *, limit_s: float = LIMIT_S) -> list[Answer]:
    """Ask every witness at once; the answers in order. Takes `limit_s` seconds at most."""
    return asyncio.run(_ask_all(requests, limit_s)) if requests else []


async def _ask_all(requests: Sequence[Asked], limit_s: float) -> list[Answer]:
    async with httpx.AsyncClient(timeout=limit_s, follow_redirects=False) as client:
        return await asyncio.gather(*(_ask(client, one, limit_s) for one in requests))


async def _ask(client: httpx.AsyncClient, asked: Asked, limit_s: float) -> Answer:
    try:
        async with asyncio.timeout(limit_s):
            return await _post(client, asked)
    except TimeoutError:
        return Answer(0, f"did not answer within {limit_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Answer(0, f"cannot be asked: {error or type(error).__name__}")


async def _post(client: httpx.AsyncClient, asked: Asked) -> Answer:
    # Not compressed, so that what is counted is what is held.
    headers = {"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"}
    address = f"{asked.endpoint.url}/add-checkpoint"
    async with client.stream("POST", address, content=asked.body(), headers=headers) as response:
        data = b""
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                return Answer(0, f"answered with more than {MAX_ANSWER_BYTES} bytes")
        return Answer(response.status_code, data.decode("utf-8", "replace"))
