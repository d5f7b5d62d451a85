"""The real programs, each on a free port of loopback and in a process that ends with the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from fakes import body

ROOT = Path(__file__).parents[2]
READY_WITHIN = 30.0


def alertmanagers() -> list[str]:
    """Every Alertmanager there is: the one on PATH (Debian's) and the one that `make tools` builds."""
    on_path = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    built = ROOT / ".tools" / "bin" / "alertmanager"
    return [path for path in (on_path, str(built) if built.exists() else None) if path]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@asynccontextmanager
async def running(
    *command: str, log: Path, env: dict[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until the block ends."""
    # Should the tests be killed, the kernel ends what they started.
    tether = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *tether, *command, stdout=out, stderr=out, stdin=asyncio.subprocess.DEVNULL, env=os.environ | (env or {})
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
        await process.wait()


def said(log: Path) -> str:
    return log.read_text()


async def answers(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until `url` gives a 200."""
    async with aiohttp.ClientSession() as client, asyncio.timeout(READY_WITHIN):
        while True:
            if process.returncode is not None:
                raise AssertionError(f"ended with {process.returncode}:\n{said(log)}")
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
            for notification in self.notifications
            for alert in notification["alerts"]
            if alert["status"] == status
            and alert["labels"]["alertname"] == name
            and receiver in (None, notification["receiver"])
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


@dataclass
class Program:
    url: str
    log: Path
    process: asyncio.subprocess.Process


@asynccontextmanager
async def alertmanager(
    binary: str, config: dict[str, Any], directory: Path, *flags: str, port: int = 0, prefix: str = ""
) -> AsyncIterator[Program]:
    port = port or free_port()
    home = Path(tempfile.mkdtemp(prefix="alertmanager-", dir=directory))
    file, log = home / "alertmanager.yml", home / "log"
    file.write_text(yaml.safe_dump(config))
    async with running(
        binary,
        f"--config.file={file}",
        f"--storage.path={home}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        f"--web.route-prefix={prefix or '/'}",
        *flags,
        log=log,
    ) as process:
        await answers(f"http://127.0.0.1:{port}{prefix}/-/ready", process, log)
        yield Program(f"http://127.0.0.1:{port}", log, process)


@asynccontextmanager
async def prometheus(
    rules: Sequence[dict[str, Any]], targets: Sequence[str], directory: Path
) -> AsyncIterator[Program]:
    """Run a Prometheus that evaluates every second and sends to each of `targets` (`host:port`) every fourth.

    Its alerts end 12 s after they were sent, should the next send fail: more than a proxy may ever hold them up.
    """
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="prometheus-", dir=directory))
    file, rule_file, log = home / "prometheus.yml", home / "rules.yml", home / "log"
    rule_file.write_text(
        json.dumps({"groups": [{"name": f"group-{n}", "rules": [rule]} for n, rule in enumerate(rules)]})
    )
    file.write_text(
        json.dumps(
            {
                "global": {"evaluation_interval": "1s"},
                "rule_files": [str(rule_file)],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(targets)}]}]},
            }
        )
    )
    async with running(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={home}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=3s",
        log=log,
    ) as process:
        await answers(f"http://127.0.0.1:{port}/-/ready", process, log)
        yield Program(f"http://127.0.0.1:{port}", log, process)


@dataclass
class Proxy(Program):
    admin: str
    target: str
    """For Prometheus: `host:port` of the data listener."""


@asynccontextmanager
async def proxy(
    alertmanager_url: str, directory: Path, *flags: str, env: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    data, admin = free_port(), free_port()
    log = Path(tempfile.mkdtemp(prefix="proxy-", dir=directory)) / "log"
    async with running(
        *(sys.executable, "-m", "proxy", f"--alertmanager.url={alertmanager_url}"),
        *(f"--web.listen-address=127.0.0.1:{data}", f"--web.admin-listen-address=127.0.0.1:{admin}", *flags),
        log=log,
        env=env,
    ) as process:
        await answers(f"http://127.0.0.1:{admin}/-/ready", process, log)
        yield Proxy(f"http://127.0.0.1:{data}", log, process, f"http://127.0.0.1:{admin}", f"127.0.0.1:{data}")


async def model_ready(of: Proxy) -> None:
    """Wait until the model worker of `of` has loaded."""
    async with asyncio.timeout(90):
        while (await get(f"{of.admin}/api/v1/status"))["model"]["state"] != "ready":
            await asyncio.sleep(0.2)
