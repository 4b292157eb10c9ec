"""Connections to Redis by name: the name is looked up once at a time, however many attempts want it.

It decides which address is tried. A lookup runs in one of the few threads that the event loop has for names and can't be
called off, only left: an attempt that gives up after a tenth of a second leaves its thread at work for as long as the
resolver is patient. It must never start a second lookup beside one under way, or a name of Redis that nobody answers
would keep Stripe's and the upstreams' from being looked up; nor leave one's failure unseen.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import Connection, SSLConnection

if TYPE_CHECKING:
    from redis.asyncio import Redis

_NO_ADDRESS: Final = "the name has no address"


class Names:
    """Lookups under way. Each is shared by whoever wants its answer, and outlives those who leave."""

    def __init__(self) -> None:
        self._asking: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """In the resolver's order, at least one. Raises OSError, which socket.gaierror is."""
        task = self._asking.get((host, port))
        if task is None:
            task = self._asking[host, port] = asyncio.get_running_loop().create_task(_look_up(host, port))
            task.add_done_callback(lambda done: self._answered((host, port), done))
        return await asyncio.shield(task)

    def _answered(self, name: tuple[str, int], task: asyncio.Task[list[str]]) -> None:
        del self._asking[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it; where nobody did, it is nobody's business


async def _look_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, _NO_ADDRESS)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _ByName(Connection):
    """TCP, to the first address that takes the connection."""

    def __init__(self, *, names: Names, **options: Any) -> None:
        super().__init__(**options)
        self._names = names
        self._address = self.host

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "host": self._address}

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            addresses = await self._names.addresses(self.host, self.port)
        *others, last = addresses
        for self._address in others:
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except OSError:
                continue
            return
        self._address = last
        await super()._connect()  # type: ignore[no-untyped-call]


class _ByNameOverTls(_ByName, SSLConnection):
    """The same over TLS: who answers must be known by the name, whatever the address."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self.host}


def look_names_up_once(client: Redis) -> None:
    """Have this client's connections made so. A socket of this machine has no name."""
    pool = client.connection_pool
    if issubclass(pool.connection_class, Connection):
        pool.connection_class = _ByNameOverTls if issubclass(pool.connection_class, SSLConnection) else _ByName
        pool.connection_kwargs["names"] = Names()
