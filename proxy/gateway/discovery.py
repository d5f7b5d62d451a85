"""Which Alertmanagers there are: those that are named, and those that a name has in DNS.

`dns+http://alertmanager:9093/prefix` is one of the second kind: each address of the name, A and AAAA alike, is an
Alertmanager. It is looked up anew all the while, and what was found last holds until another answer comes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import structlog
from yarl import URL

log = structlog.get_logger(__name__)

T = TypeVar("T")
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host. Raises OSError."""

WATCHED: Final = "dns+"
EVERY: Final = 30.0
"""Seconds between two lookups."""
SOON: Final = 2.0
"""The same as long as no Alertmanager is known."""
LOOKUP: Final = 5.0
"""Seconds that a lookup may take; the resolver of the system has limits of its own, and may be slow all the same."""


async def addresses(host: str) -> Sequence[str]:
    """Return the addresses of a host as the system finds them, in a thread. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Discovery(Generic[T]):
    """Keeps one `T` for each Alertmanager.

    `make` makes it of a URL, without `dns+`; `gone` hears when its address has gone from DNS.
    """

    def __init__(
        self,
        urls: Sequence[str],
        make: Callable[[URL], T],
        gone: Callable[[T], None],
        *,
        resolve: Resolve = addresses,
        every: float = EVERY,
        soon: float = SOON,
        lookup: float = LOOKUP,
    ) -> None:
        self._urls = urls
        self._make = make
        self._gone = gone
        self._resolve = resolve
        self._every = every
        self._soon = soon
        self._lookup = lookup
        self._last: dict[str, Sequence[URL]] = {}
        self._said: dict[str, str] = {}
        self._by_url: dict[URL, T] = {}
        self.watches = any(url.startswith(WATCHED) for url in urls)
        """Whether there is a name to be looked up."""
        self.most = 0
        """The most that there were at one time."""

    @property
    def current(self) -> Sequence[T]:
        """Those there are now: as configured, and those of one name by their addresses."""
        return tuple(self._by_url.values())

    async def look(self) -> None:
        """Look the names up, all at the same time; one that cannot be keeps what it had."""
        found = await asyncio.gather(*(self._of(url) for url in self._urls))
        urls = dict.fromkeys(url for each in found for url in each)
        before, self._by_url = self._by_url, {url: self._by_url.get(url) or self._make(url) for url in urls}
        self.most = max(self.most, len(urls))
        for url, gone in before.items():
            if url not in urls:
                self._gone(gone)
        if self.watches and before.keys() != self._by_url.keys():
            log.info("Alertmanagers found", alertmanagers=", ".join(map(str, urls)))

    async def run(self) -> None:
        """Look on; the owner cancels it."""
        while True:
            await asyncio.sleep(self._every if self._by_url else self._soon)
            try:
                await self.look()
            except Exception:
                log.exception("a bug: the Alertmanagers were not looked up")

    async def _of(self, text: str) -> Sequence[URL]:
        if not text.startswith(WATCHED):
            return [URL(text)]
        url = URL(text.removeprefix(WATCHED))
        try:
            async with asyncio.timeout(self._lookup):
                # Sorted, so that what goes to the first one goes to the same one: answers of DNS rotate.
                hosts = sorted(set(await self._resolve(url.host or "")))
        except (OSError, UnicodeError) as exc:  # a timeout is an OSError; a name that is none is the other
            self._failed(text, "no answer in time" if isinstance(exc, TimeoutError) else str(exc))
        else:
            if hosts:
                self._said.pop(text, None)
                self._last[text] = [url.with_host(host) for host in hosts]
            else:
                self._failed(text, "it has no address")
        return self._last.get(text, ())

    def _failed(self, text: str, error: str) -> None:
        if self._said.get(text) != error:
            self._said[text] = error
            log.warning(
                "cannot look Alertmanager up, its last addresses hold",
                url=text,
                error=error,
                addresses=len(self._last.get(text, ())),
            )
