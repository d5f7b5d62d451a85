"""The real programs, each on a free port of loopback and in a process that ends with the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
import leaks
import yaml
from aiohttp import web
from doors import PASSWORD
from fakes import body
from ports import free_port

ROOT = Path(__file__).parents[2]
READY_WITHIN = 30.0


BUILT = ROOT / ".tools" / "bin" / "alertmanager"
"""The Alertmanager that `make tools` builds, the only one with pages: Debian's package has none."""


def alertmanagers() -> list[str]:
    """Every Alertmanager there is: the one on PATH (Debian's) and the one that `make tools` builds."""
    on_path = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    return [path for path in (on_path, str(BUILT) if BUILT.exists() else None) if path]


@dataclass
class Program:
    """A program that runs. It can be frozen, killed, and started again: same ports, same files, same flags."""

    url: str
    log: Path
    command: list[str]
    ready: str
    """Where it answers 200 once it runs."""
    env: dict[str, str] = field(default_factory=dict)
    home: Path | None = None
    """Its working directory; None: that of the tests."""
    first: bool = False
    """Whether it goes before the other programs when all want the CPU, where the system lets us say so."""
    process: asyncio.subprocess.Process = field(init=False)

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        # Should the tests be killed, the kernel ends what they started.
        tether = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        first = ["nice", "-n", "-5"] if self.first else []  # says in the log that it may not, and goes on
        with self.log.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *(*tether, *first, *self.command),
                stdout=out,
                stderr=out,
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ | self.env,
                cwd=self.home,
            )
        await answers(self.ready, self)

    async def stop(self) -> None:
        """End it as an operator does."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended, and nobody has told us yet
                self.thaw()  # what is frozen hears nothing
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 15)
            except TimeoutError:
                self.process.kill()
        await self.process.wait()

    async def kill(self) -> None:
        """End it with no last word."""
        self.process.kill()
        await self.process.wait()

    def freeze(self) -> None:
        """Stop it in the middle of what it does. Its connections stay open."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


SomeProgram = TypeVar("SomeProgram", bound=Program)


@asynccontextmanager
async def running(program: SomeProgram) -> AsyncIterator[SomeProgram]:
    """Run a program until the block ends."""
    try:
        await program.start()
        yield program
    finally:
        await program.stop()


def said(log: Path) -> str:
    return log.read_text()


async def answers(url: str, program: Program) -> None:
    """Wait until `url` gives a 200."""
    async with aiohttp.ClientSession() as client, asyncio.timeout(READY_WITHIN):
        while True:
            if program.process.returncode is not None:
                raise AssertionError(f"ended with {program.process.returncode}:\n{said(program.log)}")
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(url) as answered:
                    if answered.status == 200:
                        return
            await asyncio.sleep(0.05)


async def get(url: str) -> Any:
    """Return the JSON at `url`."""
    async with aiohttp.ClientSession() as client, client.get(url) as answered:
        assert answered.status == 200, f"{url}: {answered.status} {await answered.text()}"
        return await answered.json()


async def send(url: str, *alerts: dict, path: str = "/api/v2/alerts") -> int:
    """POST alerts as Prometheus does, and return the status."""
    async with aiohttp.ClientSession() as client:
        headers = {"Content-Type": "application/json"}
        async with client.post(url + path, data=body(*alerts), headers=headers) as answered:
            return answered.status


async def metric(url: str, sample: str) -> float:
    """Return the sum of the samples whose name (and labels, where given) begin with `sample`."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as answered:
        lines = (await answered.text()).splitlines()
    found = [line for line in lines if line.startswith((sample + " ", sample + "{" if "{" not in sample else sample))]
    assert found, f"no sample {sample}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@dataclass
class Webhook:
    """A receiver that keeps every notification."""

    url: str
    notifications: list[dict[str, Any]] = field(default_factory=list)

    def told(self, status: str, name: str, receiver: str | None = None) -> list[dict[str, str]]:
        """Return, for every time that people were told that alert `name` is `status`, its labels."""
        return [
            alert["labels"]
            for notification in self.about(name)
            for alert in notification["alerts"]
            if alert["status"] == status
            and alert["labels"]["alertname"] == name
            and receiver in (None, notification["receiver"])
        ]

    def about(self, name: str) -> list[dict[str, Any]]:
        """Return the notifications in which alert `name` is."""
        return [
            notification
            for notification in self.notifications
            if any(alert["labels"]["alertname"] == name for alert in notification["alerts"])
        ]


@asynccontextmanager
async def webhook() -> AsyncIterator[Webhook]:
    port = free_port()
    hook = Webhook(f"http://127.0.0.1:{port}/")

    async def receive(request: web.Request) -> web.Response:
        hook.notifications.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield hook
    finally:
        await runner.cleanup()


class PeersLate(AssertionError):
    """Both Alertmanagers of a cluster told the same of an alert, whose identity never changed.

    The second one tells what it has not heard of from the first one within the peer timeout, which is short here. So it
    is on a machine that stands still for a moment, with any proxy and with none. It may also be that a proxy kept an
    alert from one of them: whoever meets this plays the scenario anew, and believes it when it comes again.
    """


ALONE = ("--cluster.listen-address=",)
PEER_TIMEOUT = 0.7
"""Seconds that the second Alertmanager gives the first to notify; what that one told must be gossiped by then. And what
the first one hears of one evaluation later, because its proxy was away, the second one must have told and gossiped a
second after it heard of it. On a busy machine either is late, and Alertmanager tells the same twice."""
QUICK_CLUSTER = (
    "--cluster.gossip-interval=50ms",
    "--cluster.pushpull-interval=1s",
    "--cluster.reconnect-interval=1s",
)


@asynccontextmanager
async def alertmanager(
    binary: str,
    config: dict[str, Any],
    directory: Path,
    *flags: str,
    port: int = 0,
    prefix: str = "",
    cluster: Sequence[str] = ALONE,
    ready: str = "",
) -> AsyncIterator[Program]:
    """Run an Alertmanager; `ready` is where it answers 200 once it runs, if not at its own address."""
    port = port or free_port()
    home = Path(tempfile.mkdtemp(prefix="alertmanager-", dir=directory))
    file = home / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    command = [
        binary,
        f"--config.file={file}",
        f"--storage.path={home}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.route-prefix={prefix or '/'}",
        *cluster,
        *flags,
    ]
    # One of a cluster that cannot say in time what it has told is outdone by its peer.
    async with running(Program(url, home / "log", command, ready or f"{url}{prefix}/-/ready", first=True)) as program:
        yield program


@asynccontextmanager
async def clustered(
    binary: str, config: dict[str, Any], directory: Path, peer_timeout: float = PEER_TIMEOUT
) -> AsyncIterator[list[Program]]:
    """Run two Alertmanagers in one cluster."""
    ports = [free_port(), free_port()]
    async with AsyncExitStack() as stack:
        both = await asyncio.gather(
            *(
                stack.enter_async_context(
                    alertmanager(
                        binary,
                        config,
                        directory,
                        cluster=(
                            *(f"--cluster.listen-address=127.0.0.1:{own}", f"--cluster.peer=127.0.0.1:{other}"),
                            *QUICK_CLUSTER,
                            f"--cluster.peer-timeout={peer_timeout * 1000:.0f}ms",
                        ),
                    )
                )
                for own, other in (ports, reversed(ports))
            )
        )
        await asyncio.gather(*(settled(one) for one in both))
        yield both


async def settled(of: Program, peers: int = 2) -> None:
    """Wait until an Alertmanager has found its peers and notifies."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            cluster = (await get(f"{of.url}/api/v2/status"))["cluster"]
            if cluster["status"] == "ready" and len(cluster["peers"]) == peers:
                return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def prometheus(
    rules: Sequence[dict[str, Any]],
    targets: Sequence[str],
    directory: Path,
    resend_delay: int = 3,
    every: str = "1s",
    also: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[Program]:
    """Run a Prometheus that evaluates each second, or as told, and sends to `targets` (`host:port`) every fourth.

    Its alerts end 12 s after they were sent, four times `resend_delay`, should the next send fail: more than a proxy
    may ever hold them up. `also`: what stands in prometheus.yml besides, or instead.
    """
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="prometheus-", dir=directory))
    file, rule_file = home / "prometheus.yml", home / "rules.yml"
    rule_file.write_text(
        json.dumps({"groups": [{"name": f"group-{n}", "rules": [rule]} for n, rule in enumerate(rules)]})
    )
    file.write_text(
        json.dumps(
            {
                "global": {"evaluation_interval": every},
                "rule_files": [str(rule_file)],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(targets)}]}]},
                **also,
            }
        )
    )
    url = f"http://127.0.0.1:{port}"
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={home}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--rules.alert.resend-delay={resend_delay}s",
    ]
    async with running(Program(url, home / "log", command, f"{url}/-/ready")) as program:
        yield program


@dataclass(kw_only=True)
class Proxy(Program):
    admin: str
    target: str
    """For Prometheus: `host:port` of the data listener."""


@asynccontextmanager
async def proxy(
    alertmanager_url: str, directory: Path, *flags: str, env: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy in a working directory of its own, where the files go that it keeps."""
    data, admin = free_port(), free_port()
    home = Path(tempfile.mkdtemp(prefix="proxy-", dir=directory))
    command = [
        *(sys.executable, "-m", "proxy", f"--alertmanager.url={alertmanager_url}"),
        *(f"--web.listen-address=127.0.0.1:{data}", f"--web.admin-listen-address=127.0.0.1:{admin}", *flags),
    ]
    program = Proxy(
        f"http://127.0.0.1:{data}",
        home / "log",
        command,
        f"http://127.0.0.1:{admin}/-/ready",
        env or {},
        home,
        admin=f"http://127.0.0.1:{admin}",
        target=f"127.0.0.1:{data}",
    )
    leaks.handed_in(program.env)
    async with running(program):
        yield program
        await keep_pages(program)
    assert PASSWORD not in program.log.read_text(errors="replace"), "what clients show at the door"


async def keep_pages(of: Proxy) -> None:
    """Keep what the admin listener shows, if it does, among the files that are searched for secrets."""
    limit = aiohttp.ClientTimeout(total=2)  # one that is frozen is not waited for
    async with aiohttp.ClientSession(timeout=limit) as client:
        for page in ("metrics", "api/v1/status", "api/v1/decisions"):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with client.get(f"{of.admin}/{page}") as answered:
                    (of.home or of.log.parent).joinpath(f"{page.replace('/', '-')}.page").write_bytes(
                        await answered.read()
                    )


async def model_ready(of: Proxy) -> None:
    """Wait until the model worker of `of` has loaded."""
    async with asyncio.timeout(90):
        while (await get(f"{of.admin}/api/v1/status"))["model"]["state"] != "ready":
            await asyncio.sleep(0.2)
