"""Whether the store can be used: Redis is asked, and files are looked at; nothing is written to either."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from proxy.app.probing.findings import Finding, Level
from proxy.config import Settings, format_duration
from proxy.decisions.stores.sqlite import NAME
from proxy.errors import StoreError
from proxy.storage.health import ServerHealth, health
from proxy.storage.topology import topology

CHECK: Final = "store"
CLOCK: Final = 60.0
"""Seconds by which a server's clock may differ from ours. Nothing compares the two; it says whether somebody set it."""
CLOCKS: Final = 2.0
"""Seconds by which those of one Redis may differ from each other: a failover must not make peers look silent."""
_ASKED_FOR: Final = 4.0
_ROOM: Final = 64 << 20
"""Bytes: a store with 50,000 decisions, and its journal."""
_HEADER: Final = b"SQLite format 3\0"


async def stored(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the store that `store.url` names."""
    url = settings.store.url
    if url == "memory:":
        yield Finding(CHECK, Level.OK, "memory: what was decided is known again from Alertmanager after a restart")
    elif url.startswith("sqlite:"):
        path = Path(url.removeprefix("sqlite:") or settings.storage.path / NAME)
        for finding in await asyncio.to_thread(lambda: list(_file(path))):
            yield finding
    else:
        async for finding in _redis(settings):
            yield finding


def _file(path: Path) -> Iterator[Finding]:
    """Look at a file of SQLite without opening it as one: that would make files beside it."""
    existing = next((one for one in (path.parent, *path.parent.parents) if one.exists()), Path("/"))
    if not existing.is_dir():
        yield Finding(CHECK, Level.ERROR, f"{path}: {existing} is no directory; name another path in store.url")
        return
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        yield Finding(
            CHECK,
            Level.ERROR,
            f"{path}: user {os.geteuid()} may not write into {existing}; give it the directory, or set storage.path",
        )
        return
    if path.exists():
        try:
            with path.open("rb") as file:
                begins = file.read(len(_HEADER))
        except OSError as exc:
            yield Finding(CHECK, Level.ERROR, f"{path}: {exc.strerror}; it has to be a file that the proxy may use")
            return
        if not os.access(path, os.W_OK, effective_ids=True):
            yield Finding(CHECK, Level.ERROR, f"{path}: user {os.geteuid()} may not write to it; make it the owner")
            return
        if begins and begins != _HEADER:
            yield Finding(CHECK, Level.ERROR, f"{path}: is no file of SQLite; name another one in store.url")
            return
    free = shutil.disk_usage(existing).free
    if free < _ROOM:
        yield Finding(
            CHECK, Level.WARNING, f"{path}: {free >> 20} MiB are free there, want {_ROOM >> 20} at least; make room"
        )
        return
    yield Finding(CHECK, Level.OK, f"{path}: {'can be written' if path.exists() else 'can be made'}")


async def _redis(settings: Settings) -> AsyncIterator[Finding]:
    store = settings.store
    try:
        servers = topology(
            store.url,
            username=store.username,
            password=store.password.reveal() or None,
            sentinel_username=store.sentinel_username,
            sentinel_password=store.sentinel_password.reveal() or None,
        )
    except (ValueError, TypeError) as exc:
        yield Finding(CHECK, Level.ERROR, f"store.url: {exc}")
        return
    try:
        found = await health(servers, _ASKED_FOR)
    except StoreError as exc:
        yield Finding(CHECK, Level.ERROR, f"{exc}; check store.url, its credentials and the network")
        return
    finally:
        await servers.aclose()
    for finding in _servers(found, settings):
        yield finding


def _servers(found: list[ServerHealth], settings: Settings) -> Iterator[Finding]:
    fine = True
    allowed = settings.store.timeout
    for one in found:
        for level, message in _server(one, allowed.total_seconds(), format_duration(allowed)):
            fine = False
            yield Finding(CHECK, level, f"Redis at {one.address}: {message}")
    if max(one.ahead for one in found) - min(one.ahead for one in found) > CLOCKS:
        fine = False
        yield Finding(
            CHECK,
            Level.WARNING,
            "the clocks of its servers differ by more than "
            f"{CLOCKS:g} s: after a failover proxies look silent that are not; have them set by NTP",
        )
    if fine:
        servers = ", ".join(one.address for one in found)
        yield Finding(CHECK, Level.OK, f"Redis at {servers} answers within {1000 * max(o.took for o in found):.0f} ms")


def _server(one: ServerHealth, allowed: float, shown: str) -> Iterator[tuple[Level, str]]:
    if one.role not in {"", "master"}:
        yield Level.ERROR, f"it is a {one.role}, which nobody can write to; name the primary, or the Sentinels"
    if abs(one.ahead) > CLOCK:
        apart = f"{abs(one.ahead):.0f} s {'ahead of' if one.ahead > 0 else 'behind'}"
        yield Level.WARNING, f"its clock is {apart} that of this machine; have both set by NTP"
    if one.took > allowed:
        took = f"{1000 * one.took:.0f} ms, longer than store.timeout ({shown})"
        meaning = "it would count as away, and new alerts get the labels of the rules; bring it nearer, or allow more"
        yield Level.WARNING, f"it took {took}: {meaning}"
    if one.evicts:
        meaning = "decisions may vanish while their alerts fire, and these notify again; want noeviction"
        yield Level.WARNING, f"its maxmemory-policy is {one.evicts}: {meaning}"
