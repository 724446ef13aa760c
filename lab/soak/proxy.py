"""The network between the functions and the server, and what may go wrong on it.

Each environment has a door of its own, a port it takes for the server's: so one of them can be cut
off alone, and a session of the server can be told to be whose.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

from lab.soak.commits import Records
from lab.soak.weather import CommitFate, Weather


@dataclass(eq=False)
class Link:
    """One connection of an environment, as far as it got to the server."""

    door: "Door"
    opened: float
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    dead: bool = False  # nothing passes any more, not even its end
    budget: int | None = None  # bytes until it is reset
    said: int = 0  # records under TLS that were passed on to the server

    @property
    def port(self) -> int:
        """Where the server sees it come from."""
        return int(self.server.get_extra_info("sockname")[1]) if self.server else 0

    def spent(self, count: int) -> bool:
        """Whether so many bytes are more than it may still carry."""
        if self.budget is None:
            return False
        self.budget -= count
        return self.budget < 0

    def reset(self) -> None:
        """Both ends learn at once that it is over."""
        for end in (self.client, self.server):
            if end is not None:
                _reset(end)


class Door:
    """One environment's way to the server.

    Args:
        network: whose weather it shares.
        timeout: seconds an invocation behind it may take; so long are leases at most.
    """

    def __init__(self, network: "Network", timeout: float) -> None:
        self.network = network
        self.timeout = timeout
        self.cut_off = False
        self.links: set[Link] = set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._server = asyncio.create_task(asyncio.start_server(self._serve, sock=listener))

    async def close(self) -> None:
        """Stop listening, and reset what is there."""
        (await self._server).close()
        for link in tuple(self.links):
            link.reset()

    def cut(self) -> None:
        """From now to `mend` it leads nowhere; what is on its way is lost for good, silently."""
        self.cut_off = True
        for link in self.links:
            link.dead = True

    def mend(self) -> None:
        """New connections get through again."""
        self.cut_off = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        weather = self.network.weather
        link = Link(self, asyncio.get_running_loop().time(), writer, dead=self.cut_off)
        if weather.break_after is not None:
            link.budget = weather.break_after()
        self.links.add(link)
        try:
            if weather.refuse:
                link.reset()
            elif link.dead:
                await _discard(reader)
            else:
                await self._join(link, reader, writer)
        except (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            self.links.discard(link)
            writer.close()

    async def _join(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self.network.weather.flows.wait()
        from_server, link.server = await asyncio.open_connection(*self.network.server)
        try:
            await asyncio.gather(
                self._pass(link, reader, link.server, Records()),
                self._pass(link, from_server, writer, None),
            )
        finally:
            link.server.close()

    async def _pass(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        records: Records | None,
    ) -> None:
        weather = self.network.weather
        while data := await _read(reader):
            commits = records is not None and records.has_commit(data)
            await weather.flows.wait()
            if link.dead:
                continue
            if records is not None:
                link.said = records.said
            if weather.pause:
                await asyncio.sleep(weather.pause)
            if commits and weather.commit is not None:
                await self._commit(link, weather.commit, data, writer)
            elif link.spent(len(data)):
                link.reset()
            else:
                await _write(writer, data, weather.trickle)
        await weather.flows.wait()
        if not link.dead and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()

    async def _commit(
        self, link: Link, fate: CommitFate, data: bytes, server: asyncio.StreamWriter
    ) -> None:
        self.network.commits_met += 1
        what, _, end = fate.partition(", ")
        if what == "half sent":
            server.write(data[: len(data) // 2])
        elif what == "done":
            # The answer must not slip through before the end.
            link.dead = True
            server.write(data)
            await asyncio.sleep(0.05)
        elif what == "late":
            await asyncio.sleep(1.0)
            server.write(data)
        if end == "reset":
            link.reset()
        elif end == "silence":
            link.dead = True


class Network:
    """All doors to one server."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.weather = Weather()
        self.doors: list[Door] = []
        self.commits_met = 0  # those that had a fate of their own

    def door(self, timeout: float) -> Door:
        """A new one, listening."""
        self.doors.append(Door(self, timeout))
        return self.doors[-1]

    @property
    def links(self) -> list[Link]:
        """All that is connected, or was and is not over."""
        return [link for door in self.doors for link in door.links]

    def owner(self, port: int) -> Link | None:
        """Whose session comes from that port of ours."""
        return next((link for link in self.links if link.port == port), None)

    async def close(self) -> None:
        """Close every door, and return when nothing is on its way any more."""
        self.weather.flows.set()
        for door in self.doors:
            await door.close()
        while self.links:
            await asyncio.sleep(0.01)


async def _write(writer: asyncio.StreamWriter, data: bytes, trickle: int) -> None:
    step = trickle or len(data)
    for begin in range(0, len(data), step):
        writer.write(data[begin : begin + step])
        await writer.drain()
        if trickle:
            await asyncio.sleep(0.02)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except OSError:  # reset by who wrote: for who reads, an end like another
        return b""


async def _discard(reader: asyncio.StreamReader) -> None:
    while await _read(reader):
        pass


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
