"""`redis://` and its kin: decisions that several proxies share.

    PREFIX:d:IDENTITY        a decision: a hash whose time to live is what the decision has left
    {PREFIX}:state           what `write_state` was given
    {PREFIX}:generation      a random text, gone when somebody empties the server; in a Cluster each other primary has
                             its own, PREFIX:generation:{TAG}
    {PREFIX}:peers           what each proxy said of itself, and when, on the server's clock
    PREFIX:changes           the channel for `changes`

The class cache has keys of its own there: see `proxy.classification.stores.redis`.

What is written is void once its caller has given up: see `proxy.storage.rounds`.

Redis replicates behind its answer: a primary that is lost takes its last moments with it, and a claim may then be won
twice.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from proxy.alert import Identity, LabelSet
from proxy.decisions.decision import Decision
from proxy.decisions.store import Beat, Change, Kept
from proxy.decisions.stores.claims import AT_MOST, read, written
from proxy.errors import StoreError
from proxy.storage.rounds import BATCH, Call, Rounds, Script, checked
from proxy.storage.topology import topology

log = structlog.get_logger(__name__)

PATIENCE: Final = 5.0
"""Seconds for one page of a load, and for a sign of life from a silent subscription. No alert waits for either."""
SILENCE: Final = 5.0
"""Seconds without a message after which a subscription is asked whether it is still there."""
PEER: Final = 4
"""Seconds for which a proxy that said nothing more is still there: a few beats."""

_FIELDS: Final = "'life', 'labels', 'annotations', 'original', 'resolved_at', 'fires_until'"


_GET: Final = Script(f"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return false end
local held = redis.call('HMGET', KEYS[1], {_FIELDS})
if not held[1] then return false end
held[7] = redis.call('PTTL', KEYS[1])
return held
""")
# The rules of `settle`, in one go. Three elements in the answer: the new one holds, with this life.
_CLAIM: Final = Script(
    f"""
local life, labels, left, replaces, begun = ARGV[3], ARGV[4], ARGV[9], ARGV[10], tonumber(ARGV[11])
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local held = redis.call('HMGET', KEYS[1], {_FIELDS})
local goes_on = held[5] == '' and begun and (tonumber(held[6]) or 0) >= begun
if held[1] and (held[1] ~= replaces or goes_on) then
  if held[2] ~= labels or held[1] ~= ARGV[3] then
    held[7] = redis.call('PTTL', KEYS[1])
    if held[7] >= 0 and held[7] < tonumber(left) then
      redis.call('PEXPIRE', KEYS[1], left)
      held[7] = tonumber(left)
    end
    return {{time[1], time[2], unpack(held, 1, 7)}}
  end
end
redis.call('HSET', KEYS[1], 'life', life, 'labels', labels, 'annotations', ARGV[5], 'original', ARGV[6],
  'resolved_at', ARGV[7], 'fires_until', ARGV[8])
redis.call('PEXPIRE', KEYS[1], left)
return {{time[1], time[2], life}}
""",
    guarded=True,
)
_FORGET: Final = Script("return {time[1], time[2], redis.call('DEL', KEYS[1])}", guarded=True)
_TELL: Final = Script("return {time[1], time[2], redis.call('PUBLISH', ARGV[3], ARGV[4])}", guarded=True)
_WRITE_STATE: Final = Script(
    """
redis.call('SET', KEYS[1], ARGV[4])
return {time[1], time[2], redis.call('PUBLISH', ARGV[3], '')}
""",
    guarded=True,
)
_GENERATION: Final = Script(
    """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local time = redis.call('TIME')
return {time[1], time[2], redis.call('GET', KEYS[1])}
""",
    timed=True,
)
_BEAT: Final = Script(
    """
local time = redis.call('TIME')
local generation, state, peers, keep = KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[4])
redis.call('SET', generation, ARGV[1], 'NX')
redis.call('HSET', peers, ARGV[2], time[1] .. ' ' .. ARGV[3])
redis.call('EXPIRE', peers, 6 * keep)
local answer = {time[1], time[2], redis.call('GET', generation), redis.call('GET', state)}
local every = redis.call('HGETALL', peers)
for n = 1, #every, 2 do
  local at, me = string.match(every[n + 1], '^(%d+) (.*)$')
  if at and math.abs(time[1] - at) <= keep then
    table.insert(answer, every[n])
    table.insert(answer, me)
  else
    redis.call('HDEL', peers, every[n])
  end
end
return answer
""",
    timed=True,
)

_read = functools.lru_cache(maxsize=1024)(read)
"""Alerts of a class have the same texts: those of the decisions that live are in memory once."""


class RedisStore:
    """A DecisionStore that several proxies share. `async with` closes it.

    Entering it does not fail: while Redis does not answer, each operation raises StoreError, within `timeout` seconds.
    ValueError when `url` (see `topology`) or `prefix` cannot be used.
    """

    kind: ClassVar[str] = "redis"
    shared: ClassVar[bool] = True

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        prefix: str = "aiproxy",
        timeout: float = 0.1,
    ) -> None:
        prefix = checked(prefix)
        self._topology = topology(
            url,
            username=username,
            password=password,
            sentinel_username=sentinel_username,
            sentinel_password=sentinel_password,
        )
        self._timeout = timeout
        self._rounds = Rounds(self._topology, timeout)
        self._decision = f"{prefix}:d:"
        # The braces keep these in one slot of a Cluster.
        self._state, self._peers = f"{{{prefix}}}:state", f"{{{prefix}}}:peers"
        self._generation = f"{{{prefix}}}:generation"
        self._generation_of = f"{prefix}:generation:{{%s}}"
        self._channel = f"{prefix}:changes"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._topology.aclose()

    # The port

    async def load(self) -> AsyncIterator[Sequence[Kept]]:
        texts = functools.cache(read)
        self._topology.forget()
        async with self._rounds.answering(PATIENCE):
            primaries = (await self._topology.layout()).primaries
        for server in primaries:
            cursor = b"0"
            while True:
                async with self._rounds.answering(PATIENCE):
                    (page,) = await server.ask([(b"SCAN", cursor, b"MATCH", self._decision + "*", b"COUNT", BATCH)])
                    if isinstance(page, ResponseError):
                        raise page
                cursor, keys = page
                found = await self._rounds.run(_GET, [Call((key.decode(),)) for key in keys], within=PATIENCE)
                yield [
                    kept
                    for key, held in zip(keys, found, strict=True)
                    if held and (identity := self._identity(key)) and (kept := _kept(identity, held, texts))
                ]
                if cursor == b"0":
                    break

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Kept]:
        asked = list(identities)
        found = await self._rounds.run(_GET, [Call((self._key(i),)) for i in asked])
        return {i: kept for i, held in zip(asked, found, strict=True) if held and (kept := _kept(i, held, _read))}

    async def claim(self, new: Sequence[Kept], *, patient: bool = False) -> Mapping[Identity, Kept]:
        within = PATIENCE if patient else self._timeout
        held = await self._claim(new, within)
        if spoilt := [kept for kept in new if kept.decision.identity not in held]:
            # Nobody can go by what somebody else wrote there.
            await self._rounds.run(
                _FORGET, [Call((self._key(kept.decision.identity),)) for kept in spoilt], within=within
            )
            held |= await self._claim(spoilt, within)
        return held

    async def _claim(self, new: Sequence[Kept], within: float) -> dict[Identity, Kept]:
        """Claim, and leave out what nobody can read."""
        held: dict[Identity, Kept] = {}
        calls = [Call((self._key(kept.decision.identity),), _fields(kept)) for kept in new]
        for kept, (_, _, life, *rest) in zip(new, await self._rounds.run(_CLAIM, calls, within=within), strict=True):
            identity = kept.decision.identity
            holds = _kept(identity, [life, *rest], _read) if rest else _mine(kept, life)
            if holds is not None:
                held[identity] = holds
        return held

    async def forget(self, identities: Collection[Identity]) -> None:
        every = list(identities)
        for n in range(0, len(every), BATCH):
            some = every[n : n + BATCH]
            await self._rounds.run(_FORGET, [Call((self._key(i),)) for i in some])
            await self._rounds.run(_TELL, [Call((self._state,), (self._channel, " ".join(i.hex() for i in some)))])

    async def beat(self, name: str, me: str) -> Beat:
        async with self._rounds.answering(self._timeout):
            layout = await self._topology.layout()
            first = layout.server(self._state.encode())
        keys = (self._generation, self._state, self._peers)
        tags = [tag for server, tag in layout.tags.items() if server is not first]
        # One by one: the first has what all have to agree on, and must not be kept waiting by the others.
        said, *generations = await asyncio.gather(
            self._rounds.run(_BEAT, [Call(keys, (secrets.token_hex(8), name, me, PEER))]),
            *(
                self._rounds.run(_GENERATION, [Call((self._generation_of % tag,), (secrets.token_hex(8),))])
                for tag in tags
            ),
            return_exceptions=True,
        )
        others: dict[str, str] = {}
        for tag, found in zip(tags, generations, strict=True):
            if not isinstance(found, BaseException):
                others[tag] = found[0][2].decode(errors="replace")
            elif not isinstance(found, StoreError):
                raise found
        if isinstance(said, BaseException):
            raise said
        ((_, _, generation, state, *peers),) = said
        texts = [text.decode(errors="replace") for text in peers]
        return Beat(
            {"": generation.decode(errors="replace"), **others},
            None if state is None else state.decode(errors="replace"),
            dict(zip(texts[::2], texts[1::2], strict=True)),
        )

    async def write_state(self, state: str) -> None:
        await self._rounds.run(_WRITE_STATE, [Call((self._state,), (self._channel, state))])

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yield what anybody does, ourselves too. The first one says: what was before this may have been missed."""
        connection: AbstractConnection | None = None
        try:
            async with self._rounds.answering(PATIENCE):
                layout = await self._topology.layout()
                # In a Cluster any of them hears what is published on the others.
                connection = layout.server(self._state.encode()).connection()
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SUBSCRIBE", self._channel)
                await connection.read_response()
            yield Change()
            while True:
                async with self._rounds.answering(SILENCE + PATIENCE):
                    message = await connection.read_response(timeout=SILENCE)
                    if message is None:
                        await connection.send_command("PING")
                        message = await connection.read_response()
                if message[0] == b"message" and (change := _change(message[2])):
                    yield change
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)

    # Keys

    def _key(self, identity: Identity) -> str:
        return self._decision + identity.hex()

    def _identity(self, key: bytes) -> Identity | None:
        with suppress(ValueError):
            return Identity(bytes.fromhex(key.decode().removeprefix(self._decision)))
        return None


def _fields(kept: Kept) -> list[str | int]:
    decision = kept.decision
    return [
        str(kept.life),
        written(decision.labels),
        written(decision.annotations),
        kept.original,
        "" if kept.resolved_at is None else repr(kept.resolved_at),
        "" if kept.fires_until is None else repr(kept.fires_until),
        max(1, int(min(kept.left, AT_MOST) * 1000)),
        str(kept.replaces or ""),
        "" if kept.begun is None else repr(kept.begun),
    ]


def _mine(kept: Kept, life: bytes) -> Kept | None:
    """Return the claim that holds, under the life that was there first; None when that is no life."""
    try:
        return replace(kept, life=int(life), replaces=0, begun=None)
    except ValueError:
        return None


def _kept(identity: Identity, held: Sequence[Any], texts: Callable[[bytes], LabelSet]) -> Kept | None:
    """Return a hash's decision; None when somebody else wrote it."""
    life, labels, annotations, original, resolved_at, fires_until, left = held
    try:
        return Kept(
            Decision(identity, texts(labels), texts(annotations)),
            int(life),
            min(left / 1000, AT_MOST) if left >= 0 else AT_MOST,
            original.decode(),
            float(resolved_at) if resolved_at else None,
            float(fires_until) if fires_until else None,
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        log.warning("a key in Redis was not written by us", identity=identity.hex())
        return None


def _change(text: bytes) -> Change | None:
    try:
        return Change(frozenset(Identity(bytes.fromhex(i)) for i in text.decode().split()))
    except ValueError:
        return None  # not ours
