"""What no proxy that labels alerts can avoid: it costs as many notifications as the page of failure modes says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alone import lose_the_store, restart_with
from fakes import posted
from lab import Lab, lab
from ports import free_port
from real import send, settled
from redis_servers import redis_server

from proxy.decisions.stores.redis import PEER

ROOM = 1000
"""The fewest decisions that a store can be told to hold."""

Event = Callable[[Lab], Awaitable[None]]

# One proxy


@dataclass(frozen=True)
class Costs:
    """An alert fires while something takes its labels away; then it ends."""

    happens: Event
    firing: int
    """Notifications that say that it fires, all told."""
    resolved: int
    """Of those and the last one, how many say that one of its identities has ended."""

    async def __call__(self, binary: str, directory: Path) -> None:
        async with lab(binary, directory) as run:
            await run.fires("Through")
            await self.happens(run)
            await asyncio.sleep(run.sender.GOOD_FOR)  # Alertmanager then ends what it hears of no more
            await run.calm()
            told = len(run.hook.notifications)
            await run.calm()
            assert len(run.hook.notifications) == told == self.firing, f"no end. {run.story()}"
            await run.fires("After")
            await run.ends("After")
            run.sender.resolve("Through")
            await run.calm()
            assert len(run.hook.about("Through")) == self.firing + 1, run.story("Through")
            assert len(run.hook.told("resolved", "Through")) == self.resolved, run.story("Through")
            assert len(run.identities["Through"]) == 2
            run.told_once("After")


async def rename(run: Lab) -> None:
    await lose_the_store(run.proxy)
    await restart_with(run, "--enrichment.severity-label=llm_severity", "--enrichment.category-label=llm_category")


async def remove(run: Lab) -> None:
    run.sender.targets[:] = [am.url for am in run.ams]
    await run.proxy.stop()


async def lose_all(run: Lab) -> None:
    await asyncio.gather(lose_the_store(run.proxy), run.ams[0].stop())
    await asyncio.gather(run.ams[0].start(), run.proxy.start())


async def lost_after_a_resolve(binary: str, directory: Path) -> None:
    """The resolve is repeated, and nobody knows any more which labels the alert had."""
    async with lab(binary, directory) as run:
        await run.fires("Past")
        await run.ends("Past")
        await lose_the_store(run.proxy)
        await run.proxy.start()
        await run.calm()
        await run.calm()
        told = run.hook.told("resolved", "Past")
        assert len(run.hook.told("firing", "Past")) == 1, run.story()
        assert len(told) <= 2, run.story()
        assert len(run.hook.notifications) == 1 + len(told), run.story()


# Two proxies that do not know of each other what they decided


@dataclass(frozen=True)
class NoEnd:
    """At each flush each Alertmanager corrects what the other one told, for as long as the alert fires."""

    happens: Event
    per_replica: tuple[Sequence[str], Sequence[str]] = ((), ())
    by_rules: bool = True

    async def __call__(self, binary: str, directory: Path) -> None:
        flags = tuple(list(each) for each in self.per_replica)
        async with lab(binary, directory, replicas=2, per_replica=flags, by_rules=self.by_rules) as run:
            await self.happens(run)
            assert await grows(run), f"there was an end. {run.story()}"
            assert await grows(run), f"there was an end. {run.story()}"
            for name in run.sender.firing:
                run.sender.resolve(name)
            await asyncio.sleep(run.sender.GOOD_FOR)
            await run.calm()
            assert not await grows(run), f"no end. {run.story()}"


async def grows(run: Lab) -> bool:
    """Whether people are told of anything while nothing happens."""
    told = len(run.hook.notifications)
    await run.calm()
    return len(run.hook.notifications) > told


async def one_begins_anew(run: Lab) -> None:
    await run.fires("Through")
    await asyncio.gather(lose_the_store(run.proxies[1]), run.ams[1].stop())
    await run.ams[1].start()
    await settled(run.ams[1])
    await run.proxies[1].start()
    await asyncio.sleep(2)


async def one_is_full(run: Lab) -> None:
    full = [posted("Full", begun=0, ends=600, pod=f"p{n}") for n in range(ROOM)]
    assert await send(run.proxies[1].url, *full) == 200
    await run.fires("Through")


async def one_joins(run: Lab) -> None:
    """The first one has labelled by the model, as long as it was alone."""
    await asyncio.gather(run.proxies[1].stop(), run.ams[1].stop())
    await run.fires("Through")
    await run.proxy.stop()
    for px in run.proxies:
        px.command.append("--alertmanager.replicas=2")
    await run.ams[1].start()
    await settled(run.ams[1])
    await asyncio.gather(*(px.start() for px in run.proxies))
    await asyncio.sleep(2)


async def one_restarts_without_redis(binary: str, directory: Path) -> None:
    """Its Alertmanager hears of the alert by the rules until Redis is back; then the first one's labels hold."""
    async with (
        redis_server(directory, free_port()) as redis,
        lab(binary, directory, f"--store.url={redis.url}", replicas=2) as run,
    ):
        await run.fires("Through")
        labels = (await run.labels("Through"))[0]
        redis.kill()
        await asyncio.gather(run.proxies[1].kill(), run.ams[1].stop())
        await run.ams[1].start()
        await settled(run.ams[1])
        await run.proxies[1].start()
        await asyncio.sleep(2)
        assert await grows(run), run.story()
        redis.start()
        await asyncio.sleep(2 * PEER)
        await run.calm()
        assert not await grows(run), f"no end. {run.story()}"
        assert await run.labels("Through") == [labels, labels]
        await run.ends("Through")
        await run.calm()
        assert not await grows(run), f"no end. {run.story()}"


ONE = {
    "renamed, and file deleted, without the former labels": Costs(rename, 3, 2),
    "taken out of the way": Costs(remove, 3, 2),
    "file deleted, and Alertmanager restarts": Costs(lose_all, 2, 1),
    "file deleted and killed, after a resolve": lost_after_a_resolve,
}
TWO = {
    "one of two begins anew, and its Alertmanager": NoEnd(one_begins_anew),
    "one of two has no room": NoEnd(one_is_full, ((), [f"--store.max-decisions={ROOM}"])),
    "a second one joins": NoEnd(one_joins, (["--alertmanager.replicas=1"],) * 2, by_rules=False),
    "one of two restarts without Redis": one_restarts_without_redis,
}
