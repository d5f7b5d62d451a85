"""`redis://` and its kin: verdicts that several proxies share, and who of them asks the model.

    PREFIX:v:CLASS           a verdict: a record, see `records`, that goes when the time given to it is over
    PREFIX:l:CLASS           a lease: the name of the proxy that asks the model about the class just now

CLASS is a class's key in hex. A key of another type, or without an end, was not written by us: it counts as absent,
and what is written takes its place.

The servers are those that keep the decisions, but asked over connections of its own: what a question about a verdict
comes to, a connection that is thrown away or servers that are looked for anew, concerns no decision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import ClassVar, Final, Self

from proxy.classification.classes import ClassKey
from proxy.classification.stores.records import AT_MOST, LIMIT, read, written
from proxy.classification.verdicts import Cached
from proxy.storage.rounds import Call, Rounds, Script, checked
from proxy.storage.topology import Topology

ROOM: Final = 80
"""Percent of `maxmemory` beyond which no verdict is put: the rest is for decisions."""

LONGER: Final = 100
"""A lease that has so many times our own ahead of it was not given by a proxy, and nobody will end it."""

_GET: Final = Script("""
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return false end
local left = redis.call('PTTL', KEYS[1])
if left <= 0 or redis.call('STRLEN', KEYS[1]) > tonumber(ARGV[1]) then return false end
return {redis.call('GET', KEYS[1]), left}
""")
# An ACL may forbid INFO, and a server may have no limit: then there is room.
_PUT: Final = Script("""
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'string' then
  local used, limit = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)')
  if used and limit and tonumber(limit) > 0 and tonumber(used) * 100 > tonumber(limit) * tonumber(ARGV[3]) then
    return redis.error_reply('FULL its memory is almost full, the rest is for decisions')
  end
end
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
""")
_LEASE: Final = Script(
    """
local left = redis.call('PTTL', KEYS[1])
local ours = redis.call('TYPE', KEYS[1]).ok == 'string' and left > 0 and left <= tonumber(ARGV[4]) * ARGV[5]
if ours and redis.call('GET', KEYS[1]) ~= ARGV[3] then return {time[1], time[2], 0} end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return {time[1], time[2], 1}
""",
    guarded=True,
)
_RELEASE: Final = Script(
    """
local ours = redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GET', KEYS[1]) == ARGV[3]
return {time[1], time[2], ours and redis.call('DEL', KEYS[1]) or 0}
""",
    guarded=True,
)


class RedisVerdicts:
    """A VerdictStore that several proxies share. `async with` closes it, and the `servers` with it.

    Entering it does not fail: while Redis does not answer, each operation raises StoreError, within `timeout` seconds;
    a lease that was given up so is not taken later. ValueError when `prefix` cannot be used.
    """

    kind: ClassVar[str] = "redis"
    shared: ClassVar[bool] = True

    def __init__(self, servers: Topology, *, prefix: str = "aiproxy", timeout: float = 0.1) -> None:
        self._rounds = Rounds(servers, timeout)
        self._verdict, self._lease = f"{checked(prefix)}:v:", f"{prefix}:l:"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._rounds.aclose()

    async def get(self, keys: Collection[ClassKey]) -> Mapping[ClassKey, Cached]:
        asked = list(keys)
        found = await self._rounds.run(_GET, [Call((self._verdict + key.hex(),), (LIMIT,)) for key in asked])
        return {
            key: cached
            for key, held in zip(asked, found, strict=True)
            if held and (cached := read(held[0], held[1] / 1000))
        }

    async def put(self, verdicts: Mapping[ClassKey, Cached]) -> None:
        calls = [
            Call((self._verdict + key.hex(),), (written(cached.classification), _milliseconds(cached.left), ROOM))
            for key, cached in verdicts.items()
            if cached.left > 0
        ]
        await self._rounds.run(_PUT, calls)

    async def lease(self, keys: Collection[ClassKey], holder: str, seconds: float) -> Collection[ClassKey]:
        asked = list(keys)
        calls = [Call((self._lease + key.hex(),), (holder, _milliseconds(seconds), LONGER)) for key in asked]
        answers = await self._rounds.run(_LEASE, calls)
        return {key for key, (_, _, granted) in zip(asked, answers, strict=True) if granted}

    async def release(self, keys: Collection[ClassKey], holder: str) -> None:
        await self._rounds.run(_RELEASE, [Call((self._lease + key.hex(),), (holder,)) for key in keys])


def _milliseconds(seconds: float) -> int:
    return max(1, int(min(seconds, AT_MOST) * 1000))
