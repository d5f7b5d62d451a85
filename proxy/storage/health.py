"""How the servers of a Redis are: asked once, with nothing that writes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from proxy.storage.rounds import Rounds
from proxy.storage.topology import Server, Topology, shown


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """One server that keeps data."""

    address: str
    took: float
    """Seconds for a PING on an open connection."""
    ahead: float
    """Seconds by which its clock is ahead of ours."""
    role: str
    """`master`, or what it is instead; empty: it does not tell."""
    evicts: str
    """The maxmemory-policy by which it drops keys when it is full; empty: it drops none, or does not tell."""


async def health(topology: Topology, within: float) -> list[ServerHealth]:
    """Ask every server that keeps data. Raises StoreError after `within` seconds at the latest."""
    async with Rounds(topology, within).answering(within):
        layout = await topology.layout()
        return list(await asyncio.gather(*(_asked(server) for server in layout.primaries)))


async def _asked(server: Server) -> ServerHealth:
    await server.ask([(b"PING",)])  # opens the connection, which takes its own time
    begun = time.monotonic()
    await server.ask([(b"PING",)])
    took = time.monotonic() - begun
    asked_at = time.time()
    told, role, memory = await server.ask([(b"TIME",), (b"ROLE",), (b"INFO", b"memory")])
    if isinstance(told, ResponseError):
        raise told
    ahead = shown(told) - (asked_at + time.time()) / 2
    host, port = server.address
    return ServerHealth(f"{host}:{port}", took, ahead, _role(role), _evicts(memory))


def _role(answer: Any) -> str:
    return "" if isinstance(answer, ResponseError) else bytes(answer[0]).decode(errors="replace")


def _evicts(answer: Any) -> str:
    if isinstance(answer, ResponseError):
        return ""
    fields = dict(line.split(":", 1) for line in bytes(answer).decode(errors="replace").splitlines() if ":" in line)
    policy = fields.get("maxmemory_policy", "noeviction").strip()
    # Without a limit nothing is ever dropped.
    return policy if policy != "noeviction" and fields.get("maxmemory", "0").strip() != "0" else ""
