"""A wire that misbehaves: a TCP relay between a region and the coordinator, in the test's own process.

It stands where tc netem cannot be had. What netem does to packets is done here to pieces of the stream, as
TCP would show it to whoever reads: a lost packet is a pause of a retransmission's length and never a gap.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PIECE = 1448
"""Bytes of one TCP segment."""
RETRANSMIT_SECONDS = 0.25
_AT_ONCE = struct.pack("ii", 1, 0)
_WAITING = 256
"""Pieces under way in one direction; then the sender is not read."""


@dataclass(frozen=True)
class Wire:
    """How the wire is now; both directions alike."""

    up: bool = True
    """Down: connections are reset, and new ones refused at once."""
    silent: bool = False
    """Nothing passes and nobody is told, as when a cable is pulled."""
    delay: float = 0.0
    """Seconds one way."""
    bytes_per_second: float | None = None
    loss: float = 0.0
    """The share of segments that come a retransmission later."""
    reset: float = 0.0
    """The share of segments that end the connection."""


GOOD, CUT, SILENT = Wire(), Wire(up=False), Wire(silent=True)
SLOW = Wire(delay=0.3, bytes_per_second=2e6 / 8)
"""2 Mbit/s, 600 ms there and back."""
LOSSY = Wire(delay=0.02, loss=0.05, reset=0.002)


class Relay:
    """Listens on ``host`` and passes on to ``target``; set ``wire`` at any time."""

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", seed: int = 0) -> None:
        self._target, self._random, self._wire = target, random.Random(seed), GOOD
        self._writers: set[asyncio.StreamWriter] = set()
        self.resets = 0
        """Connections that were ended by chance."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, host, 0))
        self.address: str = "{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    @property
    def wire(self) -> Wire:
        """How it is now."""
        return self._wire

    @wire.setter
    def wire(self, wire: Wire) -> None:
        self._wire = wire
        if not wire.up:
            self._do(self._reset(self._writers))

    def close(self) -> None:
        """End every connection and stop listening."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        try:
            if self._wire.up:
                there, back = await asyncio.open_connection(*self._target)
                ends.add(back)
                self._writers |= ends
                await asyncio.gather(self._pass(reader, back, ends), self._pass(there, writer, ends))
        except OSError:
            pass
        finally:
            await self._reset(ends)
            self._writers -= ends

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: set[asyncio.StreamWriter]
    ) -> None:
        """One direction: pieces in order, each when the wire brings it."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)
        sender = asyncio.create_task(self._send(under_way, writer))
        try:
            due = 0.0
            while piece := await reader.read(PIECE):
                wire = self._wire
                if wire.reset and self._random.random() < wire.reset:
                    self.resets += 1
                    break
                late = RETRANSMIT_SECONDS if wire.loss and self._random.random() < wire.loss else 0.0
                span = len(piece) / wire.bytes_per_second if wire.bytes_per_second else 0.0
                due = max(due + span, time.monotonic() + wire.delay + late)
                await under_way.put((due, piece))
        except OSError:
            pass
        finally:
            sender.cancel()
            await self._reset(ends)

    async def _send(
        self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while True:
                due, piece = await under_way.get()
                await asyncio.sleep(due - time.monotonic())
                while self._wire.silent:
                    await asyncio.sleep(0.05)
                writer.write(piece)
                await writer.drain()

    async def _reset(self, writers: set[asyncio.StreamWriter]) -> None:
        for writer in list(writers):
            with suppress(OSError):  # closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._reset(self._writers)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
