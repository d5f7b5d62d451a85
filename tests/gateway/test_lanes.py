"""One of several Alertmanagers: when it is left alone, and who is asked in its place."""

import asyncio

import aiohttp
import pytest
from multidict import CIMultiDict

from proxy.errors import UpstreamError, UpstreamTimeout
from proxy.gateway import fanout
from proxy.gateway.fanout import Fanout, Lane
from proxy.gateway.forwarder import Answer

OK = Answer(200, "OK", CIMultiDict(), b"")
TIMEOUT, REFUSED = UpstreamTimeout("silent"), UpstreamError("refused")
REFUSED.__cause__ = aiohttp.ClientConnectorError(None, OSError("refused"))


class Forwarder:
    """Answers as the test says, or never."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.posts = self.streams = 0

    async def post_alerts(self, request, body, deadline, without_annotations):
        self.posts += 1
        return await self._next()

    async def stream(self, request, prefix):
        self.streams += 1
        return await self._next()

    async def _next(self):
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Observer:
    def __init__(self):
        self.drops = 0
        self.states = []

    def dropped(self, alertmanager):
        self.drops += 1

    def suspended(self, alertmanager, suspended):
        self.states.append(suspended)


class Them:
    def __init__(self, *forwarders, **options):
        self.observer = Observer()
        self.lanes = [
            Lane(one, None, f"http://{n}", self.observer, waiting_limit=64 << 20) for n, one in enumerate(forwarders)
        ]
        self.fanout = Fanout(lambda: self.lanes, **{"min_success": 1, "timeout": 9, "lag": 0.01} | options)

    async def post(self):
        async with asyncio.timeout(5):
            return await self.fanout.post_alerts(None, b"[]", self.fanout.deadline())

    async def posts(self, number):
        for _ in range(number):
            with pytest.raises(UpstreamError):
                await self.post()
            await asyncio.sleep(0)


async def test_nobody_waits_for_the_one_that_is_suspended():
    hanging = Forwarder(TIMEOUT, TIMEOUT, None)
    them = Them(hanging, Forwarder(OK), lag=60)
    for _ in range(2):
        assert await them.post() is OK
    assert [lane.state for lane in them.lanes] == ["suspended", "answers"]
    for _ in range(3):
        assert await them.post() is OK
    assert (hanging.posts, them.observer.drops) == (3, 2)
    await them.fanout.drained(0.01)


async def test_when_all_are_suspended_the_sender_hears_it_at_once():
    them = Them(Forwarder(TIMEOUT, TIMEOUT, None), Forwarder(TIMEOUT, TIMEOUT, None))
    await them.posts(2)
    with pytest.raises(UpstreamTimeout, match="0 of 2 Alertmanagers took it, and 1 must; the rest do not answer"):
        await them.post()
    await them.fanout.drained(0.01)


@pytest.mark.parametrize("between", [REFUSED, OK], ids=["refused", "answered"])
async def test_two_timeouts_that_are_not_in_a_row_suspend_nobody(between):
    them = Them(Forwarder(TIMEOUT, between, TIMEOUT, OK), Forwarder(OK))
    for _ in range(4):
        assert await them.post() is OK
    assert them.observer.states == [False, False]
    assert them.lanes[0].state == "answers"


async def test_a_probe_that_is_refused_leaves_it_suspended():
    them = Them(Forwarder(TIMEOUT, TIMEOUT, REFUSED, OK), Forwarder(OK))
    for state in ("fails", "suspended", "suspended", "answers"):
        assert await them.post() is OK
        await them.lanes[0].idle()
        assert them.lanes[0].state == state
    assert them.observer.states == [False, False, True, False]


async def test_other_requests_go_past_one_that_was_silent_and_come_back_to_it(monkeypatch):
    first, second = Forwarder(TIMEOUT, OK), Forwarder(OK)
    them = Them(first, second)
    with pytest.raises(UpstreamTimeout):
        await them.fanout.stream(None)
    assert (first.streams, second.streams) == (1, 0), "it may have been applied"
    await them.fanout.stream(None)
    assert (first.streams, second.streams) == (1, 1)
    monkeypatch.setattr(fanout, "SILENT_FOR", -1.0)
    await them.fanout.stream(None)
    assert (first.streams, second.streams) == (2, 1)
    monkeypatch.undo()
    await them.fanout.stream(None)
    assert (first.streams, second.streams) == (3, 1), "it has answered"


async def test_an_answer_to_a_post_counts_for_other_requests_too():
    them = Them(Forwarder(TIMEOUT, OK), Forwarder(OK))
    assert await them.post() is OK
    assert not them.lanes[0].healthy
    assert await them.post() is OK
    assert them.lanes[0].healthy


async def test_when_all_refuse_the_last_refusal_is_told_and_with_nobody_that():
    with pytest.raises(UpstreamError, match="refused"):
        await Them(Forwarder(REFUSED), Forwarder(REFUSED)).fanout.stream(None)
    with pytest.raises(UpstreamError, match="no Alertmanager is known"):
        await Them().fanout.stream(None)


async def test_a_bug_in_one_is_logged_and_the_others_have_the_alerts():
    them = Them(Forwarder(ZeroDivisionError()), Forwarder(OK))
    assert await them.post() is OK


async def test_what_is_on_its_way_is_given_up_when_the_time_is_over_also_to_one_that_is_gone():
    them = Them(Forwarder(None), Forwarder(OK))
    assert await them.post() is OK
    gone = them.lanes.pop(0)
    them.fanout.gone(gone)
    assert gone.busy
    await them.fanout.drained(0.01)
    await asyncio.sleep(0)
    assert not gone.busy


async def test_when_it_is_certain_that_too_few_take_it_the_rest_is_not_waited_for():
    them = Them(Forwarder(REFUSED), Forwarder(None), Forwarder(OK), min_success=3)
    with pytest.raises(UpstreamError, match="refused"):
        await them.post()
    await them.fanout.drained(0.01)


async def test_a_probe_that_never_had_its_turn_does_not_keep_others_from_being_one():
    slow = Forwarder(TIMEOUT, TIMEOUT, None, OK)
    them = Them(slow)
    await them.posts(2)
    lane = them.lanes[0]
    await lane._turn.acquire()  # as a POST that began before it was suspended
    probe = lane.begin(None, b"[]", asyncio.get_running_loop().time() + 0.01, None)
    assert probe is None, "nobody waits for it"
    await lane.idle()
    lane._turn.release()

    slow.outcomes = [OK]
    assert lane.begin(None, b"[]", them.fanout.deadline(), None) is None
    await lane.idle()
    assert lane.state == "answers"


async def test_one_that_is_given_up_takes_no_answer_from_the_others():
    them = Them(Forwarder(None), Forwarder(REFUSED), lag=60)
    post = asyncio.create_task(them.post())
    await asyncio.sleep(0.01)  # both have begun, and the first hangs
    await them.lanes[0].close()
    with pytest.raises(UpstreamError, match="refused"):
        await post
