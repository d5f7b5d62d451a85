"""Real Redis servers on free ports of loopback, in processes that end with the test.

    with redis_server(tmp_path) as redis:          # or async with; or a fixture of any scope
        RedisStore(redis.url)
        redis.freeze(); redis.thaw()               # SIGSTOP: it answers nobody, and reads later what it was sent
        redis.kill(); redis.start()                # SIGKILL: its data are gone; again on the same port

`redis_cluster` has three of them that are one Cluster, `redis_sentinel` a primary, its replica and a Sentinel. Starting
blocks for some 30 ms, a Cluster or a Sentinel for about 2 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from ports import free_port
from serving import Server

READY_WITHIN = 20.0


def until(true: Callable[[], Any], what: str) -> None:
    """Wait until `true()`; a server that does not answer yet is not true yet."""
    give_up = time.monotonic() + READY_WITHIN
    while time.monotonic() < give_up:
        with contextlib.suppress(redis.RedisError):
            if true():
                return
        time.sleep(0.01)
    raise AssertionError(f"not within {READY_WITHIN:g} s: {what}")


class _Block(ABC):
    """A block in which processes run."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


class redis_server(_Block):  # noqa: N801 - used as a function
    """One server. `extra` are more arguments, such as "--requirepass", "secret"."""

    def __init__(self, directory: Path, port: int = 0, *extra: str) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.home = Path(tempfile.mkdtemp(prefix="redis-", dir=directory))
        self.log = self.home / "log"
        self._extra = extra

    def client(self) -> redis.Redis:
        """Return a client for the test to look into it; use it `with`."""
        given = self._extra
        password = given[given.index("--requirepass") + 1] if "--requirepass" in given else None
        return redis.Redis(port=self.port, password=password, decode_responses=True, socket_timeout=5, retry=None)

    def start(self) -> None:
        self._spawn(
            *("--save", "", "--appendonly", "no", "--dir", str(self.home), "--enable-debug-command", "yes"),
            *self._extra,
        )
        until(self._answers, f"{self.log}:\n{self.log.read_text()}")

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    stop = kill

    def _spawn(self, *arguments: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise AssertionError("no redis-server on PATH: `make programs` installs it")
        # Should the tests be killed, the kernel ends what they started.
        tether = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no"]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*tether, program, *arguments, *common],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"LC_ALL": "C"},
            )

    def _answers(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended:\n{self.log.read_text()}")
        with self.client() as client:
            return bool(client.ping())


class _sentinel(redis_server):  # noqa: N801 - as above
    def __init__(self, directory: Path, service: str, primary: int) -> None:
        super().__init__(directory)
        self._config = self.home / "sentinel.conf"
        # It looks a frozen primary over for longer than a test freezes one.
        self._config.write_text(
            f"sentinel monitor {service} 127.0.0.1 {primary} 1\n"
            f"sentinel down-after-milliseconds {service} 1500\n"
            f"sentinel failover-timeout {service} 3000\n"
        )

    def start(self) -> None:
        self._spawn(str(self._config), "--sentinel", "--dir", str(self.home))
        until(self._answers, str(self.log))


class _Several(_Block):
    """Some servers, started together."""

    servers: Sequence[redis_server] = ()

    def stop(self) -> None:
        for server in self.servers:
            server.kill()


class redis_cluster(_Several):  # noqa: N801 - as above
    """Three primaries that are one Cluster."""

    def __init__(self, directory: Path) -> None:
        self.servers = [
            redis_server(
                directory,
                free_port(and_bus=True),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                # What the others keep can be claimed while one is down.
                *("--cluster-require-full-coverage", "no"),
            )
            for _ in range(3)
        ]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        for n, server in enumerate(self.servers):
            server.start()
            with server.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", 16384 * n // 3, 16384 * (n + 1) // 3 - 1)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
                if n:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        until(lambda: all(self._whole(server) for server in self.servers), "a cluster of three")

    @contextlib.contextmanager
    def moving(self, slot: int) -> Iterator[None]:
        """Move a slot, and what is in it, to the next primary; the block runs while it is on its way."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self.servers]
            ids = [client.execute_command("CLUSTER MYID") for client in clients]
            ranges = clients[0].execute_command("CLUSTER SLOTS")
            port = next(primary[1] for first, last, primary, *_ in ranges if first <= slot <= last)
            home = next(n for n, server in enumerate(self.servers) if server.port == port)
            there, other = (home + 1) % 3, (home + 2) % 3
            clients[there].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[home])
            clients[home].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[there])
            yield
            for key in clients[home].execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
                clients[home].execute_command("MIGRATE", "127.0.0.1", self.servers[there].port, key, 0, 5000)
            for n in (there, home, other):
                clients[n].execute_command("CLUSTER SETSLOT", slot, "NODE", ids[there])

    def _whole(self, server: redis_server) -> bool:
        with server.client() as client:
            info = client.execute_command("CLUSTER INFO")
        return (info["cluster_state"], info["cluster_size"], info["cluster_slots_ok"]) == ("ok", "3", "16384")


class redis_sentinel(_Several):  # noqa: N801 - as above
    """A primary, its replica, and a Sentinel that promotes the replica when the primary is down for 1.5 s."""

    def __init__(self, directory: Path, service: str = "main") -> None:
        # Without this a replica waits 5 s for others that might want the same.
        at_once = ("--repl-diskless-sync-delay", "0")
        first = redis_server(directory, 0, *at_once)
        self.data = [first, redis_server(directory, 0, *at_once, "--replicaof", "127.0.0.1", str(first.port))]
        self.sentinel = _sentinel(directory, service, first.port)
        self.servers = [*self.data, self.sentinel]
        self.service = service
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{service}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        until(self._replicated, "a primary with a replica that could be promoted")

    def primary(self) -> redis_server:
        """Return the server that the Sentinel names."""
        with self.sentinel.client() as client:
            port = int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)[1])
        return next(server for server in self.data if server.port == port)

    def failover(self) -> None:
        """Have the replica promoted, and return when the Sentinel names it."""
        before = self.primary()
        with self.sentinel.client() as client:
            client.execute_command("SENTINEL FAILOVER", self.service)
        until(lambda: self.primary() is not before, "another primary")

    def _replicated(self) -> bool:
        with self.sentinel.client() as sentinel, self.primary().client() as primary:
            replicas = sentinel.execute_command("SENTINEL REPLICAS", self.service)
            state = primary.info("replication").get("slave0", {"state": "absent"})["state"]
        fit = [(known["flags"], known["master-link-status"]) == ("slave", "ok") for known in replicas]
        return state == "online" and fit == [True]


class Relay:
    """A port of loopback that leads to another: `async with Relay(port) as relay`, then `relay.port`.

    While it is cut it passes nothing on, and says nothing: who connects gets no answer. What was sent meanwhile
    arrives when it is mended, as with TCP over a network that comes back.
    """

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: Server | None = None

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def __aenter__(self) -> Self:
        self._server = await Server.start(self._accept)
        self.port = self._server.port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server
        await self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self.to)
            await asyncio.gather(self._pump(reader, there), self._pump(back, writer))
        except OSError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.close()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(1 << 16):
            await self._whole.wait()
            sink.write(chunk)
            await sink.drain()
        await self._whole.wait()
        sink.write_eof()
