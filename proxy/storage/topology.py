"""Which Redis server is to be asked: one alone, the primary that Sentinels name, or the primaries of a Cluster.

Of redis-py this takes the connections alone. Its clients retry for seconds and hide which server answered, and a claim
has to know both when it is given up and whose clock says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.connection import Connection as TcpConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError, ResponseError

Command = tuple[bytes | str | int, ...]
Address = tuple[str, int]

SLOTS: Final = 16384
IDLE: Final = 8
"""Connections to a server that are kept while nothing is asked."""
CLOCK_KEEPS: Final = 10.0
"""Seconds after which what a server said of its clock is no longer believed: two clocks drift apart."""
CLOCK_MARGIN: Final = 0.005
"""Seconds by which they may in that time."""
SECOND_OPINION: Final = 0.01
"""Seconds that the other Sentinels get after the first has answered: one that was cut off names yesterday's primary."""


class Clock:
    """What a server's clock shows, rather too little than too much.

    A server that says T says so before we hear it. So at any later moment it shows at least T and what has passed
    since we heard it.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._told_at = -CLOCK_KEEPS

    def told(self, shown: float, heard_at: float) -> None:
        """Take up that the server showed `shown` in an answer heard at `heard_at`, on our monotonic clock."""
        self._ahead, self._told_at = shown - heard_at, heard_at

    def known(self, now: float) -> bool:
        return now - self._told_at < CLOCK_KEEPS

    def at(self, moment: float) -> float:
        """Return what it shows at `moment` of our monotonic clock, at least."""
        return moment + self._ahead - CLOCK_MARGIN


class Server:
    """One Redis server."""

    def __init__(self, address: Address, connect: Callable[[Address], AbstractConnection]) -> None:
        self.address = address
        self.clock = Clock()
        self._connect = connect
        self._idle: list[AbstractConnection] = []
        self._closed = False

    def connection(self) -> AbstractConnection:
        """Return a connection that is the caller's to disconnect."""
        return self._connect(self.address)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` in one go and return the answers; an error that one of them gave is its answer.

        Whatever goes wrong on the way, a timeout and a cancellation too, costs the connection: an answer that is
        still to come must not be read as that to the next question.
        """
        connection = self._idle.pop() if self._idle else self.connection()
        try:
            if connection.is_connected and await _stale(connection):
                await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]
            # In C: it is on the alerts' way, and redis-py's own takes five times as long.
            packed = b"".join(pack_command(command) for command in commands)  # type: ignore[arg-type]
            await connection.send_packed_command(packed)
            return [await _answer(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            if self._closed or len(self._idle) >= IDLE:
                await connection.disconnect(nowait=True)
            elif connection.is_connected:
                self._idle.append(connection)
            else:
                self._idle.insert(0, connection)  # it holds the read certificates

    async def ask_time(self) -> None:
        """Learn what its clock shows."""
        (told,) = await self.ask([(b"TIME",)])
        if isinstance(told, ResponseError):
            raise told
        self.clock.told(shown(told), asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        self._closed = True
        while self._idle:
            # A server that is gone may fail to say goodbye.
            with contextlib.suppress(RedisError, OSError):
                await self._idle.pop().disconnect()


def shown(time: Sequence[bytes]) -> float:
    """Return an answer to TIME in seconds."""
    return int(time[0]) + int(time[1]) / 1e6


async def _stale(connection: AbstractConnection) -> bool:
    """Whether the server has closed the connection, or said what it was not asked."""
    try:
        return await connection.can_read()
    except (RedisError, OSError):
        return True


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as exc:
        return exc


@dataclass(frozen=True)
class Layout:
    """Which server keeps what."""

    primaries: tuple[Server, ...]
    slots: Sequence[Server | None] = ()
    """By slot; empty: the only primary keeps everything."""
    tags: dict[Server, str] = field(init=False, default_factory=dict)
    """For each primary of a Cluster a hash tag whose slot it keeps, the same for all who ask."""

    def __post_init__(self) -> None:
        for n in range(SLOTS if self.slots else 0):
            if len(self.tags) == len(self.primaries):
                break
            if server := self.slots[key_slot(b"%d" % n)]:
                self.tags.setdefault(server, str(n))

    def server(self, key: bytes) -> Server:
        server = self.slots[key_slot(key)] if self.slots else self.primaries[0]
        if server is None:
            raise Disconnected("no primary of the cluster keeps this slot")
        return server


class Topology(ABC):
    """The servers there are. What was found is kept until `forget`."""

    def __init__(self, seeds: Sequence[Address], connect: Callable[[Address], AbstractConnection]) -> None:
        self.secrets: tuple[str, ...] = ()
        """What no error may show."""
        self._connect = connect
        self._servers: dict[Address, Server] = {}
        self._seeds = [self.at(seed) for seed in seeds]
        self._layout: Layout | None = None
        self._finding = asyncio.Lock()

    def __str__(self) -> str:
        """Return where they are, for people."""
        return ", ".join(f"{host}:{port}" for host, port in (seed.address for seed in self._seeds))

    async def layout(self) -> Layout:
        async with self._finding:
            if self._layout is None:
                found = await self._find()
                for server in set(self._servers.values()) - {*found.primaries, *self._seeds}:
                    del self._servers[server.address]
                    await server.aclose()
                self._layout = found
            return self._layout

    def forget(self) -> None:
        """Find out anew when it is asked for next."""
        self._layout = None

    def at(self, address: Address) -> Server:
        """Return the server at `address`."""
        if address not in self._servers:
            self._servers[address] = Server(address, self._connect)
        return self._servers[address]

    async def aclose(self) -> None:
        for server in self._servers.values():
            await server.aclose()

    @abstractmethod
    async def _find(self) -> Layout: ...


class Alone(Topology):
    """One server, or one address behind which there always is a primary."""

    async def _find(self) -> Layout:
        return Layout((self._seeds[0],))


class Sentinels(Topology):
    """The primary that Sentinels name."""

    def __init__(
        self,
        seeds: Sequence[Address],
        connect: Callable[[Address], AbstractConnection],
        *,
        sentinels: Callable[[Address], AbstractConnection],
        service: str,
    ) -> None:
        super().__init__(seeds, connect)
        self._sentinels = [Server(seed, sentinels) for seed in seeds]
        self._service = service

    async def _find(self) -> Layout:
        answers = await _heard(self._sentinels, (b"SENTINEL", b"MASTER", self._service), SECOND_OPINION)
        known = [dict(zip(answer[::2], answer[1::2], strict=True)) for _, answer in answers]
        # The Sentinel that led the last failover gave it the highest number.
        latest = max(known, key=lambda master: int(master[b"config-epoch"]))
        return Layout((self.at((latest[b"ip"].decode(), int(latest[b"port"]))),))

    async def aclose(self) -> None:
        for sentinel in self._sentinels:
            await sentinel.aclose()
        await super().aclose()


class Cluster(Topology):
    """The primaries of a Redis Cluster."""

    async def _find(self) -> Layout:
        (told_by, ranges), *_ = await _heard(list(self._servers.values()), (b"CLUSTER", b"SLOTS"), 0)
        slots: list[Server | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            # No host: that of whom we asked.
            server = self.at((host.decode() if host else told_by.address[0], int(port)))
            slots[first : last + 1] = [server] * (last + 1 - first)
        primaries = tuple(dict.fromkeys(server for server in slots if server))
        if not primaries:
            raise Disconnected("the cluster has no slots")
        return Layout(primaries, slots)


async def _heard(servers: Sequence[Server], command: Command, others_get: float) -> list[tuple[Server, Any]]:
    """Ask all of `servers` at once; return who answered what, at least one, or raise what the last one failed with."""
    asked = {asyncio.create_task(server.ask([command])): server for server in servers}
    answers: list[tuple[Server, Any]] = []
    error: Exception = Disconnected("nobody to ask")
    try:
        waiting = set(asked)
        while waiting:
            done, waiting = await asyncio.wait(
                waiting, timeout=others_get if answers else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                try:
                    (answer,) = task.result()
                    if isinstance(answer, ResponseError):
                        raise answer
                    answers.append((asked[task], answer))
                except (RedisError, OSError) as exc:
                    error = exc
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    if not answers:
        raise error
    return answers


def topology(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    sentinel_username: str | None = None,
    sentinel_password: str | None = None,
) -> Topology:
    """Return the servers that `url` names; ValueError when it names none.

    redis://HOST:PORT/DB                              one server
    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB   the primary of SERVICE, as these Sentinels know it
    redis+cluster://HOST:PORT,HOST:PORT               a Cluster, through any of its servers

    With rediss for TLS, and behind a `?` what redis-py takes of it: ssl_ca_certs, ssl_ca_path, ssl_certfile,
    ssl_keyfile and ssl_check_hostname are what the settings let through.
    """
    try:
        split = urlsplit(url)
    except ValueError:
        raise ValueError("is no URL") from None
    scheme, _, kind = split.scheme.partition("+")
    if scheme not in {"redis", "rediss"} or kind not in {"", "sentinel", "cluster"}:
        raise ValueError("begins with redis://, redis+sentinel:// or redis+cluster://, with rediss for TLS")
    if kind == "sentinel":
        service, _, db = split.path.strip("/").partition("/")
        if not service:
            raise ValueError("redis+sentinel:// ends with the name of the service: /SERVICE")
    else:
        service, db = "", split.path.strip("/")
    if kind == "cluster" and db not in {"", "0"}:
        raise ValueError("a cluster has no databases")
    if db and not (db.isascii() and db.isdigit()):
        raise ValueError("the database is a number")
    seeds = _seeds(split.netloc, 26379 if kind == "sentinel" else 6379)
    if not kind and len(seeds) > 1:
        raise ValueError("several addresses are redis+sentinel:// or redis+cluster://")
    tls = _tls(scheme, split)
    connect = _connecting(tls, username, password, int(db or 0))
    made: Topology
    if kind == "sentinel":
        sentinels = _connecting(tls, sentinel_username, sentinel_password, 0)
        made = Sentinels(seeds, connect, sentinels=sentinels, service=unquote(service))
    else:
        made = (Cluster if kind == "cluster" else Alone)(seeds, connect)
    made.secrets = tuple(secret for secret in (password, sentinel_password) if secret)
    return made


def _seeds(hosts: str, port: int) -> list[Address]:
    found = []
    for host in hosts.split(","):
        one = urlsplit(f"//{host}")
        try:
            if not one.hostname or "@" in host:
                raise ValueError
            found.append((one.hostname, one.port or port))
        except ValueError:
            raise ValueError("names its servers as HOST:PORT, with commas between them") from None
    return found


def _tls(scheme: str, split: SplitResult) -> dict[str, Any]:
    found: dict[str, Any] = dict(parse_url(f"{scheme}://x?{split.query}"))
    del found["host"]
    if unknown := sorted(name for name in found if not name.startswith("ssl_") and name != "connection_class"):
        raise ValueError(f"takes no parameter {unknown[0]}")
    return found


def _connecting(
    tls: dict[str, Any], username: str | None, password: str | None, db: int
) -> Callable[[Address], AbstractConnection]:
    options = dict(tls)
    kind = options.pop("connection_class", TcpConnection)

    def connect(address: Address) -> AbstractConnection:
        # Timeouts are the caller's: one for connecting and answering together.
        made: AbstractConnection = kind(
            host=address[0],
            port=address[1],
            username=username,
            password=password,
            db=db,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=None,
            driver_info=None,
            **options,
        )
        return made

    return connect
