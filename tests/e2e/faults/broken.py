"""What may befall a POST between the proxy and Alertmanager, or between its sender and the proxy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fakes import stamp
from faults.injector import Fault, Injector, Strike, injector
from faults.station import TIMEOUT, Answered, Client, Station, client, station

RESETS = (
    Fault.RESET_BEFORE_REQUEST,
    Fault.RESET_AFTER_REQUEST,
    Fault.RESET_IN_HEAD,
    Fault.RESET_WHEN_ANSWERED,
)
LIMITED = (f"--alertmanager.timeout={TIMEOUT}s", "--enrichment.budget=1s")


async def resets_before_alertmanager(binary: str, directory: Path) -> None:
    """The sender is answered 200 each time: the same POST once more, and it changes nothing that was taken."""
    async with station(binary, directory) as run:
        for fault in RESETS:
            run.between.break_next(fault)
            answered = await run.fine()
            attempts = [post for post in run.between.posts if post.number == answered.number]
            assert len(attempts) == (1 if fault is Fault.RESET_WHEN_ANSWERED else 2), fault
            taken = len(run.between.taken(answered.number))
            assert taken == (2 if fault in {Fault.RESET_AFTER_REQUEST, Fault.RESET_IN_HEAD} else 1), fault
            await run.fine()
        for share in (0.0, 0.1, 0.5, 0.99):
            run.between.break_next(Fault.CUT, share)
            await run.fine()
        # Two in a row: the second time it waits a little.
        run.between.break_next(Fault.RESET_AFTER_REQUEST, times=2)
        await run.fine()
        await run.one_identity_each()


async def an_answer_without_its_body(binary: str, directory: Path) -> None:
    """Alertmanager refuses a batch, and its reasons are cut off: the sender gets them whole all the same."""
    async with station(binary, directory) as run:
        run.between.break_next(Fault.RESET_AFTER_HEAD)
        before = run.between.connections
        answered = await run.post("Wrong", endsAt=stamp(-60), startsAt=stamp())
        assert answered.status == 400
        assert "start" in answered.text, "why it was refused"
        assert run.between.connections > before
        await run.fine()


async def connections_that_end_after_a_few_requests(binary: str, directory: Path) -> None:
    async with station(binary, directory) as run:
        run.between.strikes = lambda posts: Strike(Fault.RESET_BEFORE_REQUEST) if posts == 3 else None
        before = run.between.connections
        for _ in range(12):
            await run.fine()
        assert run.between.connections > before, "connections ended"
        await run.one_identity_each()


async def cut_at_random(binary: str, directory: Path) -> None:
    """A third of the attempts, anywhere: 60 POSTs, and none of them lost."""
    async with station(binary, directory) as run:
        run.between.strikes = cuts(0.3)
        for _ in range(60):
            await run.fine()
        broken = [post for post in run.between.posts if not post.taken]
        print(f"{len(broken)} of {len(run.between.posts)} attempts were cut before Alertmanager answered")
        assert broken
        await run.one_identity_each()


def cuts(share: float, seed: int = 6):
    """Return what lets a share of the attempts be cut anywhere."""
    rng = random.Random(seed)

    def strike(_: int) -> Strike | None:
        if rng.random() >= share:
            return None
        return Strike(rng.choice((*RESETS, Fault.CUT)), rng.random())

    return strike


async def slow_ways(binary: str, directory: Path) -> None:
    async with station(binary, directory) as run:
        run.between.break_next(Fault.DELAY, 0.7)
        assert (await run.fine()).seconds >= 0.7
        run.between.break_next(Fault.TRICKLE, 0.7)
        assert (await run.fine()).seconds >= 0.5
        assert (await run.fine()).seconds < 0.5
        await run.one_identity_each()


async def too_slow(binary: str, directory: Path) -> None:
    """504 at `alertmanager.timeout`; a sender may count it as lost, and Alertmanager may take it later."""
    async with station(binary, directory, *LIMITED) as run:
        for fault in (Fault.DELAY, Fault.HALF_OPEN):
            run.between.break_next(fault, 1.5 * TIMEOUT)
            gave_up(await run.post("Late"))
            await run.fine()
        await asyncio.sleep(TIMEOUT)
        await run.fine()
        await run.one_identity_each()


async def nobody_answers_the_phone(binary: str, directory: Path) -> None:
    """A firewall drops what is to connect."""
    async with station(binary, directory, *LIMITED) as run:
        await run.between.swallow()
        gave_up(await run.post("Late"))
        await run.between.open()
        await run.fine()
        await run.one_identity_each()


async def a_frozen_alertmanager(binary: str, directory: Path) -> None:
    """SIGSTOP: its connections stay open, and the kernel takes what is sent to it."""
    async with station(binary, directory, *LIMITED) as run:
        run.am.freeze()
        waiting = asyncio.create_task(run.post("Frozen"))
        await asyncio.sleep(TIMEOUT / 2)
        run.am.thaw()
        answered = await waiting
        assert answered.status == 200, "it came back in time"
        await run.holds_once("Frozen", answered)
        run.am.freeze()
        gave_up(await run.post("Late"))
        run.am.thaw()
        await run.fine()
        await run.one_identity_each()


def gave_up(answered: Answered) -> None:
    assert answered.status == 504, answered
    assert TIMEOUT <= answered.seconds < 9, "before Prometheus gives up"


async def refused(binary: str, directory: Path) -> None:
    """Nobody listens: for a second, which is tried again, and for longer, which is not."""
    async with station(binary, directory) as run:
        await run.between.refuse()
        waiting = asyncio.create_task(run.post("Waited"))
        await asyncio.sleep(1)
        await run.between.open()
        answered = await waiting
        assert (answered.status, answered.seconds >= 1) == (200, True)
        await run.holds_once("Waited", answered)

        await run.between.refuse()
        first = await run.post("Lost")
        assert (first.status, first.seconds > 3) == (502, True)
        for _ in range(20):
            later = await run.post("Lost")
            assert later.status == 502
            assert later.seconds < 1, "at once: it is not held on to"
        await run.between.open()
        await run.fine()
        # Having answered, it is waited for again.
        await run.between.refuse()
        waiting = asyncio.create_task(run.post("Again"))
        await asyncio.sleep(0.5)
        await run.between.open()
        assert (await waiting).status == 200
        await run.one_identity_each()


@asynccontextmanager
async def before_the_proxy(run: Station) -> AsyncIterator[tuple[Injector, Client]]:
    async with injector(run.proxy.url) as front, client(front.url) as sender:
        yield front, sender


async def senders_that_break(binary: str, directory: Path) -> None:
    """What a sender did not send whole never goes on; what it did goes on, whether it waits for the answer or not."""
    async with station(binary, directory) as run, before_the_proxy(run) as (front, sender):
        run.sender = Client(front.url, sender.session, run.sender.numbers)
        for share in (0.3, 0.7, 0.99):
            front.break_next(Fault.CUT, share)
            answered = await run.post("Cut")
            assert answered.status == 0
            assert not run.between.taken(answered.number)
            await run.fine()
        for fault in (Fault.RESET_IN_HEAD, Fault.RESET_AFTER_REQUEST):
            front.break_next(fault)
            answered = await run.post(fault.name)
            assert answered.status == 0
            await run.holds_once(fault.name, answered)
            await run.fine()
        front.break_next(Fault.TRICKLE, 0.5)
        await run.fine()
        assert not [alert for alert in await run.held() if alert["labels"]["alertname"] == "Cut"]
        await run.one_identity_each()


async def a_sender_that_goes_silent(binary: str, directory: Path) -> None:
    """Half of a POST, and nothing more: others go on beside it."""
    async with station(binary, directory) as run:
        address = run.proxy.target.split(":")
        _, writer = await asyncio.open_connection(*address)
        writer.write(
            b"POST /api/v2/alerts HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: 999\r\n\r\n[{"
        )
        await writer.drain()
        for _ in range(5):
            await run.fine()
        assert not [post for post in run.between.posts if not post.number], "half of a POST is none"
        writer.transport.abort()
        await run.fine()


BROKEN = {
    "resets before Alertmanager": resets_before_alertmanager,
    "an answer without its body": an_answer_without_its_body,
    "connections that end after a few requests": connections_that_end_after_a_few_requests,
    "connections cut at random": cut_at_random,
    "slow ways": slow_ways,
    "Alertmanager too slow, or half-open": too_slow,
    "nobody answers": nobody_answers_the_phone,
    "Alertmanager frozen": a_frozen_alertmanager,
    "Alertmanager refuses": refused,
    "senders that break off": senders_that_break,
    "a sender goes silent": a_sender_that_goes_silent,
}
