"""Rounds of scripts on the Redis servers of a topology, each answered within a time or given up.

What a guarded script writes carries the moment at which its caller gives up, in the time of the server that is to
carry it out. A server that wakes from a freeze, or hears us after the network was cut, still gets what it was sent; by
then it does nothing. Each server has its own clock, and tells it with each answer (see `Clock`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any, Final, NamedTuple

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as Disconnected

from proxy.errors import StoreError, StoreTimeout
from proxy.storage.topology import Command, Server, Topology, shown

BATCH: Final = 256
"""Keys in one round trip."""

# Ends a script that comes too late, or that was given a moment on another clock: that lies further ahead than anybody
# waits. Two elements in the answer say so.
_GUARD: Final = """
local time = redis.call('TIME')
local ahead = tonumber(ARGV[1]) - (time[1] * 1000000 + time[2])
if ahead < 0 or ahead > tonumber(ARGV[2]) then return time end
"""


class Script:
    """A script that the servers run. What is `guarded` does nothing once its caller has given up."""

    def __init__(self, text: str, *, guarded: bool = False, timed: bool = False) -> None:
        self.guarded = guarded
        self.timed = guarded or timed
        """Whether an answer begins with the server's TIME."""
        self._text = (_GUARD if guarded else "") + text
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def on(self, call: Call, guard: Sequence[int], *, unknown: bool = False) -> Command:
        """Return the command that runs it, for a server to which it is `unknown` or not."""
        script = (b"EVAL", self._text) if unknown else (b"EVALSHA", self._sha)
        return (*script, len(call.keys), *call.keys, *guard, *call.args)


class Call(NamedTuple):
    """What a script is to be run on. The keys are of one slot."""

    keys: Sequence[str]
    args: Sequence[bytes | str | int] = ()


def checked(prefix: str) -> str:
    """Return what keys may begin with; ValueError when `prefix` is no such thing."""
    if not prefix or set(prefix) & set("{}*?[]\\^ "):
        raise ValueError("the prefix is a name without spaces, braces and wildcards")
    return prefix


class Rounds:
    """The servers of `topology`, which are asked in batches; StoreError for whatever goes wrong.

    An answer takes `timeout` seconds at most, where a round is not given more.
    """

    def __init__(self, topology: Topology, timeout: float) -> None:
        self.topology = topology
        self._timeout = timeout

    async def aclose(self) -> None:
        await self.topology.aclose()

    async def run(self, script: Script, calls: Sequence[Call], *, within: float | None = None) -> list[Any]:
        """Run `script` for each of `calls`; one round trip for a batch, unless something is in the way."""
        within = within or self._timeout
        answers = []
        for n in range(0, len(calls), BATCH):
            async with self.answering(within) as gives_up_at:
                answers += await self._round(script, calls[n : n + BATCH], gives_up_at, within)
        return answers

    @asynccontextmanager
    async def answering(self, within: float) -> AsyncIterator[float]:
        """Raise StoreError for whatever goes wrong, after `within` seconds at the latest. Yield that moment."""
        try:
            async with asyncio.timeout(within) as limit:
                yield limit.when() or 0.0
        except TimeoutError:
            self.topology.forget()
            raise StoreTimeout(f"Redis at {self.topology} does not answer within {within:g} s") from None
        except (RedisError, OSError) as exc:
            self.topology.forget()
            # A server that does not know AUTH says so with the password in its answer.
            text = str(exc)
            for secret in self.topology.secrets:
                text = text.replace(secret, "***")
            raise StoreError(f"Redis at {self.topology}: {text}") from None

    async def _round(self, script: Script, calls: Sequence[Call], gives_up_at: float, within: float) -> list[Any]:
        """Ask every server that keeps one of the keys; where another one keeps it now, ask that one."""
        answers: list[Any] = [None] * len(calls)
        missing = list(range(len(calls)))
        elsewhere: dict[int, tuple[Server, bool]] = {}
        for last in (False, True):
            layout = await self.topology.layout()
            asked: dict[tuple[Server, bool], list[int]] = {}
            for n in missing:
                to = elsewhere.get(n) or (layout.server(calls[n].keys[0].encode()), False)
                asked.setdefault(to, []).append(n)
            replies = await asyncio.gather(
                *(
                    self._ask(server, script, [calls[n] for n in some], gives_up_at, within, asking=asking)
                    for (server, asking), some in asked.items()
                ),
                return_exceptions=True,
            )
            missing, errors = [], []
            for ((server, _), some), reply in zip(asked.items(), replies, strict=True):
                each = [reply] * len(some) if isinstance(reply, BaseException) else reply
                for n, answer in zip(some, each, strict=True):
                    if not isinstance(answer, BaseException):
                        answers[n] = answer
                        continue
                    missing.append(n)
                    errors.append(answer)
                    if isinstance(answer, AskError):
                        host, port = answer.node_addr
                        there = self.topology.at((host or server.address[0], port))
                        elsewhere[n] = there, not isinstance(answer, MovedError)
            if not errors:
                break
            self.topology.forget()
            if last or not all(_may_be_elsewhere(error) for error in errors):
                raise next((error for error in errors if not _may_be_elsewhere(error)), errors[0])
        return answers

    async def _ask(
        self, server: Server, script: Script, calls: Sequence[Call], gives_up_at: float, within: float, *, asking: bool
    ) -> list[Any]:
        """Run `script` on one server, again where it did not know the script or we did not know its clock."""
        if script.guarded and not server.clock.known(asyncio.get_running_loop().time()):
            await server.ask_time()

        async def send(calls: Sequence[Call], *, unknown: bool = False) -> list[Any]:
            guard = (int(server.clock.at(gives_up_at) * 1e6), int(within * 1e6)) if script.guarded else ()
            # The first one makes the script known to those behind it.
            commands = [script.on(call, guard, unknown=unknown and n == 0) for n, call in enumerate(calls)]
            if asking:
                commands = [command for pair in zip(repeat((b"ASKING",)), commands) for command in pair]
            answers = (await server.ask(commands))[asking :: 1 + asking]
            if script.timed and (told := [answer for answer in answers if isinstance(answer, list)]):
                server.clock.told(shown(told[-1]), asyncio.get_running_loop().time())
            return answers

        def void(answer: Any) -> bool:
            return script.guarded and isinstance(answer, list) and len(answer) == 2

        answers = await send(calls)
        again = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError) or void(answer)]
        if again:
            unknown = any(isinstance(answers[n], NoScriptError) for n in again)
            for n, answer in zip(again, await send([calls[n] for n in again], unknown=unknown), strict=True):
                answers[n] = ResponseError("too late, by its clock") if void(answer) else answer
        return answers


def _may_be_elsewhere(error: BaseException) -> bool:
    """Whether another server may be in the place of the one that failed."""
    lost = isinstance(error, Disconnected) and not isinstance(error, AuthenticationError | BusyLoadingError)
    return lost or isinstance(error, AskError | ReadOnlyError)
