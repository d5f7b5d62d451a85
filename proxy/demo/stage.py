"""Those who take part in the demo: how each is started, and when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import string
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web

from proxy.demo import local_model, settings
from proxy.demo.children import Child, DemoError
from proxy.demo.local_model import LocalModel
from proxy.demo.notifications import Board, webhooks
from proxy.demo.programs import HOST, ports
from proxy.demo.proxy_log import ProxyLog

_READY_WITHIN: Final = 30.0
_MODEL_READY_WITHIN: Final = 40.0
_ANSWER_WITHIN: Final = 5.0
_POLL: Final = 0.1
_GRACE: Final = 3.0
"""What Prometheus and Alertmanager have stored is thrown away, so that it does no harm to kill them."""
_PROXY_GRACE: Final = 12.0
"""It answers what has come in first, and with the local model a POST waits for up to 8 s. Killed before that, it would
leave its worker behind for some seconds."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way to start a program; when a port turns out to be taken, there is the next."""

    urls: tuple[str, ...]
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]]


class Stage:
    """Starts those who take part, and leaves it to `stack` to end them, the last first."""

    def __init__(self, stack: AsyncExitStack, home: Path, board: Board, say: Say) -> None:
        self.board = board
        self.say = say
        self.fallen: asyncio.Queue[Child] = asyncio.Queue()
        """Children that ended by themselves after they had been ready."""
        self.leaving = False
        """The end has begun: children may end."""
        self._stack = stack
        self._home = home
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_WITHIN))
        stack.push_async_callback(self._session.close)

    async def open_receiver(self) -> str:
        """Take webhooks from now on; return where."""
        runner = web.AppRunner(webhooks(self.board.take), access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, HOST, 0).start()
        return f"http://{HOST}:{runner.addresses[0][1]}"

    async def start_local_model(self) -> LocalModel:
        child, model = await local_model.start(self._stack, self.say)
        self._watch(child)
        return model

    async def start_alertmanager(self, program: str, webhook: str) -> str:
        """Return its URL."""
        file = self._write("alertmanager.yml", webhook=webhook, home=str(self._home))

        def attempts() -> Iterator[_Attempt]:
            for port in ports(9093):
                command = [program, f"--config.file={file}", f"--storage.path={self._home / 'alertmanager'}"]
                command += [f"--web.listen-address={HOST}:{port}", "--cluster.listen-address="]
                yield _Attempt((url := _url(port),), command, partial(self._is_our_alertmanager, url))

        (url,) = await self._start("Alertmanager", attempts(), _GRACE)
        return url

    async def start_proxy(self, alertmanager: str, local: LocalModel | None, flags: Sequence[str]) -> tuple[str, str]:
        """Return the URLs of its listeners for data and for admins."""

        def attempts() -> Iterator[_Attempt]:
            for data, admin in zip(ports(19093), ports(19094), strict=True):
                command = [sys.executable, "-P", "-m", "proxy", "serve", f"--alertmanager.url={alertmanager}"]
                command += [f"--web.listen-address={HOST}:{data}", f"--web.admin-listen-address={HOST}:{admin}"]
                command += [*settings.flags(local, os.environ), *flags]
                ready = partial(self._is_our_proxy, _url(admin), alertmanager)
                yield _Attempt((_url(data), _url(admin)), command, ready)

        log = ProxyLog(lambda line: None if self.leaving else self.say(line))
        environment = settings.environment(local, os.environ)
        data, admin = await self._start("the proxy", attempts(), _PROXY_GRACE, environment, log.hear)
        return data, admin

    async def start_prometheus(self, program: str, proxy: str) -> str:
        """Return its URL."""
        self._write("rules.yml")
        data = self._home / "prometheus"

        def attempts() -> Iterator[_Attempt]:
            for port in ports(9090):
                address = f"{HOST}:{port}"
                file = self._write("prometheus.yml", proxy=proxy.removeprefix("http://"), prometheus=address)
                command = [program, f"--config.file={file}", f"--storage.tsdb.path={data}"]
                # By default a firing alert is sent again after a minute. What is sent in the first five seconds is
                # lost, as Prometheus has not found its Alertmanager by then. Longer than the proxy may wait for a
                # model, all the same: alerts are sent with an end that is four times this ahead.
                command += [f"--web.listen-address={address}", "--rules.alert.resend-delay=5s"]
                yield _Attempt((_url(port),), command, partial(self._is_our_prometheus, _url(port), str(data)))

        (url,) = await self._start("Prometheus", attempts(), _GRACE)
        return url

    async def settle(self, admin: str, local: LocalModel | None) -> list[str]:
        """Wait until the proxy labels and its model answers, or for a while; return lines about who gives verdicts."""
        if local is not None:
            self.say("Warming the local model up ...")
            await local.warm_up()
        status: Any = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MODEL_READY_WITHIN):
                while True:
                    status = await self._get(f"{admin}/api/v1/status") or status
                    if status and _settled(status):
                        break
                    await asyncio.sleep(_POLL)
        return settings.describe(status["model"] if status else {}, local)

    async def page(self, url: str, *paths: str) -> str:
        """Return the URL of the first of `paths` that is there, else of the last: not every build has every page."""
        for path in paths[:-1]:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(url + path) as response:
                    if response.ok:
                        return url + path
        return url + paths[-1]

    async def _start(
        self,
        name: str,
        attempts: Iterable[_Attempt],
        grace: float,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> tuple[str, ...]:
        """Start the first attempt that gets ready; return its URLs. Raises DemoError when none does."""
        failure = DemoError(f"{name} was not started.")
        for attempt in attempts:
            child = await Child.start(name, attempt.command, cwd=self._home, env=env, on_line=on_line)
            self._stack.push_async_callback(child.stop, grace)
            if await child.becomes(attempt.ready, _READY_WITHIN):
                self._watch(child)
                return attempt.urls
            failure = await child.failure()
        raise failure

    def _watch(self, child: Child) -> None:
        child.ended.add_done_callback(lambda _: None if self.leaving else self.fallen.put_nowait(child))

    # Another program may listen where ours is to: an answer alone is no sign that it is ours.

    async def _is_our_alertmanager(self, url: str) -> bool:
        status = await self._get(f"{url}/api/v2/status")
        return status is not None and str(self._home) in status["config"]["original"]

    async def _is_our_proxy(self, admin: str, alertmanager: str) -> bool:
        status = await self._get(f"{admin}/api/v1/status")
        return status is not None and bool(status["ready"]) and status["alertmanager"]["url"].startswith(alertmanager)

    async def _is_our_prometheus(self, url: str, data: str) -> bool:
        flags = await self._get(f"{url}/api/v1/status/flags")
        return flags is not None and flags["data"]["storage.tsdb.path"] == data

    async def _get(self, url: str) -> Any:
        """Return the JSON at `url`; None while there is none."""
        try:
            async with self._session.get(url) as response:
                return await response.json() if response.ok else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    def _write(self, name: str, **values: str) -> Path:
        """Put a file of the demo in its home, with its $names filled in."""
        file = self._home / name
        text = _shipped(name)
        file.write_text(string.Template(text).substitute(values) if values else text, encoding="utf-8")
        return file


def _settled(status: Mapping[str, Any]) -> bool:
    return bool(status["alertmanager"]["recovered"]) and status["model"]["state"] not in {"stopped", "starting"}


def alertnames() -> frozenset[str]:
    """Return the names of the alerts that fire in the demo."""
    groups = yaml.safe_load(_shipped("rules.yml"))["groups"]
    return frozenset(rule["alert"] for group in groups for rule in group["rules"])


def _shipped(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"
