"""One Alertmanager, asked as it has to be for a diagnosis: over connections of one's own, and nothing is followed.

Only GETs. Credentials go to the origin that `alertmanager.url` names, and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from proxy.app.sockets import HEADER_LIMIT
from proxy.errors import UpstreamError, UpstreamRefused
from proxy.gateway.access import Access
from proxy.gateway.forwarder import cause
from proxy.storage.thread import DaemonThread

ASKED_FOR: Final = 4.0
"""Seconds for one answer: less than a check has, so that the check can say what it was waiting for."""
_STATUS_LIMIT: Final = 16 << 20
"""Bytes of an answer: a configuration with thousands of receivers has fewer."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a name and a port to the addresses behind them. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Status:
    """What an Alertmanager says of itself."""

    name: str
    """In its cluster; another one after each start. Empty: it does not cluster."""
    peers: int
    """Itself among them; 0: it does not cluster."""
    state: str
    """`ready`, `settling` or `disabled`."""
    uptime: str
    """When it started, as it wrote it."""
    version: str
    configuration: str
    """YAML."""
    shown_at: datetime
    """By its own clock, to the second."""

    @property
    def instance(self) -> tuple[str, str, str]:
        """What tells it from any other Alertmanager."""
        return self.name, self.uptime, self.version


class Upstream:
    """The Alertmanager at one address. `async with` closes it."""

    def __init__(self, url: URL, access: Access, resolve: Resolve) -> None:
        self.url = url
        """Where it is; a check that finds it elsewhere on the same host says so, and the next ones go there."""
        self.resolve = resolve
        self.status: Status | None = None
        """None: it was not reached, or something else answers in its place."""
        self.access = access
        self.ahead = timedelta()
        """How far its clock is ahead of ours."""
        self.hops: tuple[str, ...] = ()
        """Headers of what stands in between: Alertmanager sends none of these."""
        self._resolver = _Resolver(resolve)

    def session(self, address: str | None = None) -> aiohttp.ClientSession:
        """Return a session that opens a connection for each request; to `address` alone, if it is given."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                force_close=True,
                use_dns_cache=False,
                resolver=self._resolver if address is None else _Resolver(_only(address)),
            ),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
        )

    async def get(self, path: str, *, url: URL | None = None, address: str | None = None) -> Answer:
        """GET `path`, at `url` instead of where it is, if that is given. Raises UpstreamError, with what to do."""
        at = (url or self.url) / path if path else url or self.url
        headers = CIMultiDict[str]()
        self.access.authorize(headers)
        try:
            async with (
                self.session(address) as session,
                session.get(
                    at,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=ASKED_FOR),
                    allow_redirects=False,
                    ssl=self.access.context,
                    server_hostname=self.access.server_name,
                ) as answer,
            ):
                body = await answer.content.read(_STATUS_LIMIT)
                while not answer.content.at_eof():
                    if len(body) >= _STATUS_LIMIT:
                        raise UpstreamRefused(f"GET {at}: an answer of more than {_STATUS_LIMIT} bytes")
                    body += await answer.content.read(_STATUS_LIMIT - len(body))
                return Answer(answer.status, {n.lower(): v for n, v in answer.headers.items()}, body)
        except TimeoutError:
            raise UpstreamError(
                f"GET {at}: no answer within {ASKED_FOR:g} s; is it Alertmanager's address, and does a firewall let "
                "this machine through?"
            ) from None
        except aiohttp.ClientError as exc:
            raise UpstreamError(f"GET {at}: {_explained(exc, at)}") from exc

    async def ask_status(self, *, url: URL | None = None, address: str | None = None) -> Status:
        """Return its status. Raises UpstreamError for anything but the 200 of an Alertmanager."""
        answer = await self.get("api/v2/status", url=url, address=address)
        if answer.status != 200:
            raise UpstreamRefused(f"answers {answer.status}")
        return status_in(answer)


def status_in(answer: Answer) -> Status:
    """Read a status. Raises UpstreamRefused when no Alertmanager wrote it."""
    try:
        said: Any = json.loads(answer.body)
        cluster, begun = said["cluster"], said["uptime"]
        peers = cluster.get("peers") or []
        state = str(cluster["status"])
        return Status(
            str(cluster.get("name") or ""),
            0 if state == "disabled" else max(1, len(peers)),
            state,
            str(begun),
            str(said["versionInfo"].get("version") or ""),
            str((said.get("config") or {}).get("original") or ""),
            _date(answer),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UpstreamRefused("the answer is not that of an Alertmanager") from None


def _date(answer: Answer) -> datetime:
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return datetime.now(UTC)


def _explained(exc: aiohttp.ClientError, at: URL) -> str:
    """Return what happened and what to do."""
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return (
                f"the name {at.host} is not known ({exc.os_error.strerror or exc.os_error}); check alertmanager.url, "
                "and the DNS of this machine"
            )
        case aiohttp.ClientConnectorCertificateError():
            return cause(exc)
        case aiohttp.ClientSSLError():
            return _tls(exc)
        case aiohttp.ClientConnectorError():
            return f"{cause(exc)}; is Alertmanager running, and is alertmanager.url its address?"
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP; alertmanager.url has to have the port of Alertmanager's web listener"
        case _:
            return f"{cause(exc)}; something there takes connections and does not answer as a web server does"


def _tls(exc: aiohttp.ClientSSLError) -> str:
    why = str(getattr(exc.os_error, "reason", "") or type(exc.os_error).__name__).replace("_", " ").lower()
    if "version number" in why or "record layer" in why:
        return f"no TLS is spoken there ({why}); want http:// in alertmanager.url"
    return f"TLS fails ({why}); does it want a client's certificate, or another version of TLS?"


class _Resolver(AbstractResolver):
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": socket.IPPROTO_TCP,
                "flags": int(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV),
            }
            for address in await self._resolve(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _only(address: str) -> Resolve:
    async def resolve(_: str, __: int) -> Sequence[str]:
        return [address]

    return resolve


async def resolved(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a name.

    In a thread that nobody waits for at the end: a resolver that is away takes longer than any of our deadlines.
    """
    thread = DaemonThread("resolver")
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            thread, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    finally:
        thread.shutdown()
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
