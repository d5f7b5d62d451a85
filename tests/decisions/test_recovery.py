"""Recovery against an Alertmanager that answers, in turn, what the test says."""

import asyncio

import pytest
from aiohttp import ClientSession
from deciding import running, until
from fakes import answer, fake_alertmanager, posted, stamp
from recovering import ALERT, HELD, OURS, Alertmanager, Made
from structlog.testing import capture_logs
from yarl import URL

from proxy.errors import UpstreamError, UpstreamRefused
from proxy.gateway.alertmanager import AlertmanagerClient


async def test_asked_again_it_knows_nothing_until_alertmanager_has_answered():
    gate = asyncio.Event()
    made = Made(Alertmanager([HELD], gate))
    async with running(made.recovery.run()):
        await made.recovery.settled(5)
        assert made.recovery.done
        again = asyncio.create_task(made.recovery.again())
        await asyncio.sleep(0)
        assert not made.recovery.done, "or a POST would pass unread in the meantime"
        await asyncio.wait_for(made.alertmanager.busy.wait(), 5)
        assert not made.recovery.done
        assert not again.done()
        gate.set()
        await asyncio.wait_for(again, 5)
        assert made.recovery.done
    assert made.alertmanager.asked == 2
    assert made.outcomes == [True, True]


async def test_asked_again_without_an_answer_it_returns_and_is_not_done():
    made = Made(Alertmanager([HELD], UpstreamError("away")), retry=60)
    async with running(made.recovery.run()):
        await made.recovery.settled(5)
        await asyncio.wait_for(made.recovery.again(), 5)
        assert not made.recovery.done
    assert made.outcomes == [True, False]


async def test_asked_again_it_returns_when_the_proxy_ends():
    made = Made(Alertmanager([HELD], asyncio.Event()))
    async with running(made.recovery.run()) as task:
        await made.recovery.settled(5)
        again = asyncio.create_task(made.recovery.again())
        await asyncio.wait_for(made.alertmanager.busy.wait(), 5)
        assert not again.done()
        task.cancel()
        await asyncio.wait_for(again, 5)
        assert not made.recovery.done


async def test_once_it_has_succeeded_alertmanager_is_left_alone():
    made = Made(Alertmanager([HELD]))
    async with running(made.recovery.run()):
        await made.recovery.settled(5)
        for _ in range(20):
            await asyncio.sleep(0)
    assert made.alertmanager.asked == 1


async def test_what_the_wait_does_not_need_goes_back_to_the_allowance():
    clock = iter([100.0, 101.5])
    gate = asyncio.Event()
    made = Made(Alertmanager(gate), capacity=6, monotonic=lambda: next(clock))
    async with running(made.recovery.run()):
        settled = asyncio.create_task(made.recovery.settled(4))
        await asyncio.wait_for(made.alertmanager.busy.wait(), 5)
        gate.set()
        assert await asyncio.wait_for(settled, 5) == 1.5
    assert made.allowance.take(100) == 6 - 1.5


async def test_the_wait_is_drawn_from_the_allowance():
    made = Made(Alertmanager(asyncio.Event()), capacity=0.05)
    async with running(made.recovery.run()):
        await asyncio.wait_for(made.recovery.settled(60), 5)
        assert made.allowance.take(100) < 0.01
        assert await asyncio.wait_for(made.recovery.settled(60), 5) < 0.05


async def test_after_the_first_attempt_nobody_waits_however_it_ended():
    made = Made(Alertmanager(UpstreamError("away"), asyncio.Event()))
    async with running(made.recovery.run()):
        await asyncio.wait_for(made.alertmanager.busy.wait(), 5)
        assert await made.recovery.settled(60) == 0.0
        assert made.allowance.take(100) == 6


@pytest.mark.parametrize("bug", [AttributeError("items"), ValueError("x"), ZeroDivisionError()], ids=repr)
async def test_a_bug_is_logged_and_tried_again_until_it_works(bug):
    made = Made(Alertmanager(bug, bug, [HELD]))
    with capture_logs() as logs:
        async with running(made.recovery.run()):
            await until(lambda: made.recovery.done)
    assert made.outcomes == [False, False, True]
    assert made.living.seen(ALERT).labels == OURS
    [said] = [entry for entry in logs if "cannot read" in entry["event"]]
    assert (said["log_level"], said["error"]) == ("error", f"a bug: {type(bug).__name__}")
    assert said["exc_info"], "a bug comes with its traceback"


@pytest.mark.parametrize(
    "odd", [{"labels": None}, {"labels": [], "annotations": 1}, {}, None, 7], ids=lambda odd: str(odd).replace("'", "")
)
async def test_a_held_alert_that_cannot_be_read_spoils_no_other(odd):
    good = {**posted("A", begun=-60), "updatedAt": stamp()}
    good["labels"] |= OURS
    async with fake_alertmanager(held=[odd, good, odd]) as upstream, ClientSession() as session:
        made = Made(AlertmanagerClient(session, URL(upstream.url), 5))
        async with running(made.recovery.run()):
            await until(lambda: made.outcomes)
    assert made.outcomes[0] is True
    assert made.living.seen(ALERT).labels == OURS


async def test_an_answer_that_is_no_list_is_an_error_and_tried_again_until_it_is_one():
    async with fake_alertmanager(held=answer("200 OK", b'{"a":1}')) as upstream, ClientSession() as session:
        made = Made(AlertmanagerClient(session, URL(upstream.url), 5))
        with capture_logs() as logs:
            async with running(made.recovery.run()):
                await until(lambda: made.outcomes)
                assert not made.recovery.done
                upstream.held = []
                await until(lambda: made.recovery.done)
    [said] = [entry for entry in logs if "cannot read Alertmanager's" in entry["event"]]
    assert said["log_level"] == "error"


async def test_away_is_a_warning_refusing_an_error_and_neither_is_said_twice_in_a_row():
    away, refused = UpstreamError("away"), UpstreamRefused("401")
    made = Made(Alertmanager(away, away, refused, refused, away, [HELD], away, [HELD]))
    with capture_logs() as logs:
        async with running(made.recovery.run()):
            await until(lambda: made.recovery.done)
            await made.recovery.again()
            await until(lambda: made.recovery.done)
    assert [(entry["log_level"], entry.get("error", "")) for entry in logs] == [
        ("warning", "away"),
        ("error", "401"),
        ("warning", "away"),
        ("info", ""),
        ("warning", "away"),
        ("info", ""),
    ]
