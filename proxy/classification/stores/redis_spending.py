"""`redis://` and its kin: how much of a day's caps was taken by all proxies.

    PREFIX:b:DAY             a hash with a field for each unit; DAY counts from 1970, and the key goes two days after it
                             was written last

What is in a field and is no number counts as nothing, and a key of another type as absent.
"""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Final, Self

from proxy.classification.pacing import DAY, Amounts
from proxy.classification.spending import Taken
from proxy.storage.rounds import Call, Rounds, Script, checked
from proxy.storage.topology import Topology

_KEPT: Final = 2 * DAY * 1000
"""Milliseconds."""
# A number that is too long for Lua's doubles would be rounded; caps are kept far below that.
_EXCHANGE: Final = Script(
    """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local there = redis.call('EXISTS', KEYS[1]) == 1
local answer = {time[1], time[2]}
for n = 4, #ARGV, 5 do
  local change, take, limit = tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2]), tonumber(ARGV[n + 3])
  local total = tonumber(there and redis.call('HGET', KEYS[1], ARGV[n]) or ARGV[n + 4]) or 0
  total = math.max(0, total + change)
  local granted = math.max(0, math.min(take, limit - total))
  total = total + granted
  redis.call('HSET', KEYS[1], ARGV[n], string.format('%.0f', total))
  answer[#answer + 1] = granted
  answer[#answer + 1] = total
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return answer
""",
    guarded=True,
)


class RedisSpending:
    """A SpendingStore that several proxies share. `async with` closes it, and the `servers` with it.

    Entering it does not fail: while Redis does not answer, each exchange raises StoreError, within `timeout` seconds;
    what was given up so is not taken later. ValueError when `prefix` cannot be used.
    """

    shared: ClassVar[bool] = True

    def __init__(self, servers: Topology, *, prefix: str = "aiproxy", timeout: float = 0.1) -> None:
        self._rounds = Rounds(servers, timeout)
        self._day = f"{checked(prefix)}:b:"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._rounds.aclose()

    async def exchange(self, day: int, change: Amounts, take: Amounts, limit: Amounts, known: Amounts) -> Taken:
        asked = (change, take, limit, known)
        call = Call(
            (f"{self._day}{day}",),
            (
                _KEPT,
                "tokens",
                *(one.tokens for one in asked),
                "nano_usd",
                *(one.nano_usd for one in asked),
            ),
        )
        ((_, _, tokens, all_tokens, nano_usd, all_nano_usd),) = await self._rounds.run(_EXCHANGE, [call])
        return Taken(Amounts(tokens, nano_usd), Amounts(all_tokens, all_nano_usd))
