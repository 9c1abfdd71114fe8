"""The writes of one step of the event loop leave a connection in one piece, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from assay.server.step_writer import HELD_MAX_BYTES, StepWriter


class Recorder(asyncio.Transport):
    """A transport that keeps the pieces that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = "closed"

    def abort(self) -> None:
        self.closed = "aborted"


def written(steps: Callable[[StepWriter], Awaitable[None]]) -> Recorder:
    """The transport after `steps` and one more step of the loop."""
    recorder = Recorder()

    async def run() -> None:
        await steps(StepWriter(recorder, asyncio.get_running_loop()))
        await asyncio.sleep(0)

    asyncio.run(run())
    return recorder


def test_pieces_of_one_step_leave_together() -> None:
    async def steps(writer: StepWriter) -> None:
        writer.write(b"head")
        writer.write(b"body")
        await asyncio.sleep(0)
        writer.write(b"next")

    assert written(steps).pieces == [b"headbody", b"next"]


def test_closing_sends_what_is_held() -> None:
    async def steps(writer: StepWriter) -> None:
        writer.write(b"last")
        writer.close()
        writer.write(b"too late")

    recorder = written(steps)
    assert (recorder.pieces, recorder.closed) == ([b"last"], "closed")


def test_aborting_drops_what_is_held() -> None:
    async def steps(writer: StepWriter) -> None:
        writer.write(b"lost")
        writer.abort()

    recorder = written(steps)
    assert (recorder.pieces, recorder.closed) == ([], "aborted")


def test_a_caller_may_reuse_its_buffer() -> None:
    async def steps(writer: StepWriter) -> None:
        buffer = bytearray(b"one")
        writer.write(buffer)
        buffer[:] = b"two"

    assert written(steps).pieces == [b"one"]


def test_much_in_one_step_is_not_held_back() -> None:
    """Else a fast download would fill the memory before its flow control could stop it."""
    sizes: list[int] = []

    async def steps(writer: StepWriter) -> None:
        for _ in range(4):
            writer.write(bytes(HELD_MAX_BYTES // 2 + 1))
        sizes.append(len(recorder.pieces))

    recorder = Recorder()

    async def run() -> None:
        await steps(StepWriter(recorder, asyncio.get_running_loop()))

    asyncio.run(run())
    assert sizes == [2]
