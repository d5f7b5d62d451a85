"""What may happen to two proxies before two Alertmanagers of one cluster, and to the store they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from disturbed import MIDST, Disturbance, Disturbed, begins_soon, kill, mode_of, switch
from lab import Lab, between_flushes, by_rules, lab
from ports import free_port
from real import settled
from redis_servers import Relay, redis_sentinel, redis_server

from proxy.decisions.stores.redis import PEER

IN_A_GAP = 3
"""Two proxies that label an alert differently make two notifications where one is due. When they agree again, the first
Alertmanager tells what the second had told otherwise, and the second one that the other label has ended."""
A_GAP: dict[str, Any] = {"replicas": 2, "group_interval": 6}
"""Of a laboratory in which the gap is over before groups are flushed again: at each flush each Alertmanager corrects
what the other one told."""


@dataclass(frozen=True)
class WithRedis:
    """A scenario with a Redis for both proxies, and what is done to it."""

    disturb: Callable[[redis_server, Lab], Awaitable[None]]
    extra: int = 0

    async def __call__(self, binary: str, directory: Path) -> None:
        async with redis_server(directory, free_port()) as redis:
            flags = [f"--store.url={redis.url}"]
            options = A_GAP if self.extra else {"replicas": 2}
            await Disturbed(partial(self.disturb, redis), flags, options, extra=self.extra)(binary, directory)


# No store that both know


async def nothing(run: Lab) -> None:
    await asyncio.sleep(2)


async def kill_either(run: Lab) -> None:
    for px in run.proxies:
        await kill(run, px)


async def refuse_to_switch(run: Lab) -> None:
    """Two that know nothing of each other would differ from then on."""
    for px in run.proxies:
        assert await switch(px, "transparent") == 409
        assert await mode_of(px) == "enriched"


async def one_alertmanager_restarts(run: Lab) -> None:
    await between_flushes()
    await run.ams[1].stop()
    await run.ams[1].start()
    await settled(run.ams[1])


def apart(disturb: Disturbance, *flags: str) -> Disturbed:
    return Disturbed(disturb, flags, {"replicas": 2}, by_rules=True)


UNSHARED = {
    "memory": apart(nothing, "--store.url=memory:"),
    "files": apart(nothing),
    "files, and kill -9": apart(kill_either),
    "files, and a switch is refused": apart(refuse_to_switch),
    "files, and an Alertmanager restarts": apart(one_alertmanager_restarts),
    "a Redis that is not there": apart(nothing, "--store.url=redis://127.0.0.1:1"),
}


# A Redis


async def well(_: redis_server, run: Lab) -> None:
    await asyncio.sleep(2)


async def flushed(redis: redis_server, run: Lab) -> None:
    with redis.client() as client:
        client.flushall()
    await asyncio.sleep(2)


async def frozen(redis: redis_server, run: Lab) -> None:
    redis.freeze()
    await asyncio.sleep(4)
    redis.thaw()


async def killed_and_empty(redis: redis_server, run: Lab) -> None:
    redis.kill()
    await asyncio.sleep(3)
    redis.start()


async def lost_with_both_proxies(redis: redis_server, run: Lab) -> None:
    redis.kill()
    await asyncio.gather(*(px.kill() for px in run.proxies))
    redis.start()
    await asyncio.gather(*(px.start() for px in run.proxies))


async def each_is_killed(_: redis_server, run: Lab) -> None:
    await kill_either(run)


async def an_alertmanager_restarts(_: redis_server, run: Lab) -> None:
    await one_alertmanager_restarts(run)


async def switched_at_one(_: redis_server, run: Lab) -> None:
    """The other one follows, for new alerts."""
    for mode in ("transparent", "transparent_with_recommendations", "enriched"):
        assert await switch(run.proxies[1], mode) == 200
        async with asyncio.timeout(10):
            while await mode_of(run.proxies[0]) != mode:
                await asyncio.sleep(0.1)


async def cut_off_from_one(binary: str, directory: Path) -> None:
    """The second proxy reaches Redis by a line that fails: nothing is refused, nothing answers.

    The two cannot but differ on what begins meanwhile.
    """

    async def cut(run: Lab) -> None:
        line.cut()
        await asyncio.sleep(3)
        line.mend()

    async with redis_server(directory, free_port()) as redis, Relay(redis.port) as line:
        stores = ([f"--store.url={redis.url}"], [f"--store.url=redis://127.0.0.1:{line.port}"])
        await Disturbed(cut, options=A_GAP | {"per_replica": stores}, extra=IN_A_GAP)(binary, directory)


async def cut_off_for_long(binary: str, directory: Path) -> None:
    """The others notice, and what begins from then on gets the same labels everywhere, while nobody can agree."""
    async with redis_server(directory, free_port()) as redis, Relay(redis.port) as line:
        stores = ([f"--store.url={redis.url}"], [f"--store.url=redis://127.0.0.1:{line.port}"])
        async with lab(binary, directory, replicas=2, per_replica=stores) as run:
            await run.fires("Before")
            line.cut()
            await asyncio.sleep(2 * PEER)
            await run.fires("Meanwhile")
            await run.calm()
            labels = await run.labels("Meanwhile")
            assert labels[0] == labels[1]
            assert by_rules(labels[0])
            line.mend()
            await asyncio.sleep(2 * PEER)
            await run.ends("Before", "Meanwhile")
            await run.calm()
            run.told_once("Before", "Meanwhile")


async def failover(binary: str, directory: Path) -> None:
    """A Sentinel makes the replica the primary; what was written last may be lost."""

    async def fail(run: Lab) -> None:
        await asyncio.sleep(1)
        sentinel.primary().kill()
        await asyncio.sleep(5)

    async with redis_sentinel(directory) as sentinel:
        await Disturbed(fail, [f"--store.url={sentinel.url}"], A_GAP, extra=IN_A_GAP)(binary, directory)


async def one_does_not_label(binary: str, directory: Path) -> None:
    """Both send what the one decided that was the first to know an alert; bare is a decision, too."""
    async with (
        redis_server(directory, free_port()) as redis,
        lab(binary, directory, f"--store.url={redis.url}", replicas=2) as run,
    ):
        does_not = run.proxies[1]
        does_not.command.append("--enrichment.mode=transparent")
        await does_not.stop()
        await does_not.start()
        assert await mode_of(does_not) == "transparent"
        await asyncio.gather(*(begins_soon(run, name) for name in MIDST))
        await run.calm()
        for name in MIDST:
            first, second = await run.labels(name)
            assert first == second
        await run.ends(*MIDST)
        await run.calm()
        run.told_once(*MIDST)


async def stopped_before_the_first_alert(binary: str, directory: Path) -> None:
    """Nobody has noticed yet when the alert comes."""
    async with (
        redis_server(directory, free_port()) as redis,
        lab(binary, directory, f"--store.url={redis.url}", replicas=2) as run,
    ):
        redis.kill()
        await run.fires("First")
        await run.calm()
        labels = await run.labels("First")
        assert len(labels) == 2
        assert labels[0] == labels[1]
        assert by_rules(labels[0])
        await run.ends("First")
        await run.calm()
        run.told_once("First")


REDIS = {
    "Redis is well": WithRedis(well),
    "Redis is well, and kill -9": WithRedis(each_is_killed),
    "Redis is well, and an Alertmanager restarts": WithRedis(an_alertmanager_restarts),
    "Redis is well, and one proxy is switched": WithRedis(switched_at_one),
    "Redis is stopped before the first alert": stopped_before_the_first_alert,
    "Redis is flushed": WithRedis(flushed, IN_A_GAP),
    "Redis is frozen": WithRedis(frozen, IN_A_GAP),
    "Redis is killed": WithRedis(killed_and_empty, IN_A_GAP),
    "Redis and both proxies are killed": WithRedis(lost_with_both_proxies, IN_A_GAP),
    "cut off from one": cut_off_from_one,
    "cut off from one for long": cut_off_for_long,
    "failover": failover,
}
LONG = {
    "Redis is well, and one proxy does not label": one_does_not_label,
}
