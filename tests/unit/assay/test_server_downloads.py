"""Downloads have places, of which no node takes all."""

from __future__ import annotations

import asyncio

import pytest

from assay.server.downloads import Downloads, taken_out, ungated
from assay.server.gate import Overloaded


def test_one_node_takes_a_quarter_of_the_places_and_gives_them_back() -> None:
    async def run() -> None:
        downloads = Downloads(12)
        for _ in range(3):
            await downloads.enter("gpu-1")
        with pytest.raises(Overloaded):
            await downloads.enter("gpu-1")
        await downloads.enter("gpu-2")
        downloads.leave("gpu-1")
        await downloads.enter("gpu-1")

    asyncio.run(run())


def test_all_nodes_together_take_no_more_than_there_is() -> None:
    async def run() -> None:
        downloads = Downloads(2)
        await downloads.enter("gpu-1")
        await downloads.enter("gpu-2")
        with pytest.raises(Overloaded):
            await downloads.enter("gpu-3")
        downloads.leave("gpu-1")
        await downloads.enter("gpu-3")

    asyncio.run(run())


def test_the_header_that_names_the_node_is_not_sent() -> None:
    (name, node), other = *ungated("gpu-1").items(), (b"etag", b"x")
    message = {"headers": [(name.encode(), node.encode()), other]}
    assert taken_out(message) == "gpu-1"
    assert message["headers"] == [other]
    assert taken_out(message) is None
