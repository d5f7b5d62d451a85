"""Whether a proxy with these settings runs already, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from proxy import __version__
from proxy.app.probing.findings import Finding, Level
from proxy.config import Settings
from proxy.policy import Mode

CHECK: Final = "proxy"
_ASKED_FOR: Final = 3.0
_LIMIT: Final = 1 << 20


@dataclass(slots=True)
class InForce:
    """What holds now, where a running proxy says so: a switch outranks the settings."""

    mode: Mode


async def running_proxy(settings: Settings, admin: str | None, in_force: InForce) -> AsyncIterator[Finding]:
    """Ask the admin listener at `admin`, and take up the mode that it says. None: nobody knows its port."""
    said = await _status(settings, admin) if admin else None
    if isinstance(said, dict):
        with contextlib.suppress(ValueError):
            in_force.mode = Mode(str(said.get("mode")))
        version, url = str(said.get("version")), str((said.get("alertmanager") or {}).get("url"))
        yield Finding(CHECK, Level.OK, f"a proxy runs at {admin}: version {version}, mode {said.get('mode')}")
        if version != __version__:
            yield Finding(CHECK, Level.WARNING, f"it is of version {version}, and this command of {__version__}")
        if url != (ours := ", ".join(settings.alertmanager.url)):
            yield Finding(
                CHECK,
                Level.WARNING,
                f"it forwards to {url}, and these settings say {ours}; restart it with them, or "
                "check the file that it was started with",
            )
        return
    if isinstance(said, int):
        yield Finding(
            CHECK,
            Level.OK,
            f"something answers at {admin} ({said}); a proxy would tell more with its web.admin_token",
        )
        return
    if await _taken(settings):
        yield Finding(
            CHECK,
            Level.WARNING,
            f"something listens on web.listen_address ({settings.web.listen_address}), and no proxy answers at "
            f"{admin or 'an admin listener'}: another program, a proxy with other settings, or one that wants a "
            "certificate there, is in the way of a start",
        )
    else:
        yield Finding(CHECK, Level.OK, "none runs with these settings on this machine")


async def _status(settings: Settings, admin: str) -> dict[str, Any] | int | None:
    """Return the status object, or the status of an answer that has none, or None when nothing answers."""
    token = settings.web.admin_token.reveal()
    headers = {"Authorization": f"Bearer {token}"} if token and token.isprintable() else None
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASKED_FOR)) as session,
            # On this machine, by an address that its certificate, if it has one, need not name.
            session.get(f"{admin}/api/v1/status", headers=headers, allow_redirects=False, ssl=False) as answer,
        ):
            body = await answer.content.read(_LIMIT)
            while not answer.content.at_eof() and len(body) < _LIMIT:
                body += await answer.content.read(_LIMIT - len(body))
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    return said if status == 200 and isinstance(said, dict) and "mode" in said else status


async def _taken(settings: Settings) -> bool:
    address = settings.web.listen_address
    if not address.port:
        return False
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address.host or "127.0.0.1", address.port), 1)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
