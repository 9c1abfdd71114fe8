"""A client with low CPU use, because it shares the cores with the measured process."""

from __future__ import annotations

import asyncio


class KeptConnection:
    """One persistent connection to a port of this machine."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"host: bench\r\nauthorization: Bearer {token}\r\n"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> bytes:
        """Send JSON; return the body of the answer.

        Raises:
            RuntimeError: the answer is not 200.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"POST {path} HTTP/1.1\r\n{self._head}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        data = await self._reader.readexactly(length)
        if not answer.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{answer.splitlines()[0]!r}: {data[:500]!r}")
        return data

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
