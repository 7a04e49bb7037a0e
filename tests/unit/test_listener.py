"""The API's socket: an answer leaves when it is written."""

from __future__ import annotations

import asyncio
import socket

from service.api.server import listen


def test_an_answer_of_two_writes_does_not_wait_for_the_clients_acknowledgement():
    """Asyncio switches Nagle's algorithm off where the socket says that it speaks TCP (RFC 896)."""

    async def accepted_without_delay() -> bool:
        found: asyncio.Queue[bool] = asyncio.Queue()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raw = writer.get_extra_info("socket")
            await found.put(bool(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(answer, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            return await found.get()

    assert asyncio.run(accepted_without_delay())
