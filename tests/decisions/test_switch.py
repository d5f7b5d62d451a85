"""Switching the mode: when Alertmanager is asked first, and who wins when two ask at once."""

import asyncio
import contextlib

import pytest
from aiohttp import ClientSession
from fakes import body, exchange, post, posted, settings, stamp

from proxy.app import build
from proxy.decisions.decision import Names
from proxy.decisions.rollout import Rollout
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.switch import Switch
from proxy.errors import StoreError, Superseded
from proxy.policy import Mode

PLAIN, ENRICHED, TEXT = Mode.TRANSPARENT, Mode.ENRICHED, Mode.TRANSPARENT_WITH_RECOMMENDATIONS


class Recovery:
    """Counts how often it was asked; waits while `answered` is not set."""

    def __init__(self):
        self.asked = 0
        self.answered = asyncio.Event()
        self.answered.set()

    async def again(self):
        self.asked += 1
        await self.answered.wait()


@pytest.fixture
def recovery():
    return Recovery()


@pytest.fixture
def switch_from(recovery):
    async def make(mode, store=None):
        rollout = Rollout(mode, names=Names(), store=store or MemoryStore())
        await rollout.start()
        return Switch(rollout, recovery), rollout

    return make


@pytest.mark.parametrize(
    ("was", "mode", "asked"),
    [
        pytest.param(PLAIN, ENRICHED, 1, id="what passed unread must be known as bare"),
        pytest.param(TEXT, ENRICHED, 1, id="so must what came before the start"),
        pytest.param(ENRICHED, ENRICHED, 0, id="no change"),
        pytest.param(ENRICHED, PLAIN, 0, id="off at once"),
        pytest.param(PLAIN, TEXT, 0, id="text needs no recovery"),
    ],
)
async def test_alertmanager_is_asked_before_labelling_begins(switch_from, recovery, was, mode, asked):
    switch, rollout = await switch_from(was)
    await switch.to(mode, "me")
    assert (rollout.mode, recovery.asked) == (mode, asked)


async def test_the_mode_changes_after_alertmanager_was_asked(switch_from, recovery):
    switch, rollout = await switch_from(PLAIN)
    recovery.answered.clear()
    task = asyncio.create_task(switch.to(ENRICHED, "me"))
    await asyncio.sleep(0)
    assert (recovery.asked, rollout.mode) == (1, PLAIN)
    recovery.answered.set()
    await task
    assert rollout.mode is ENRICHED


@pytest.mark.parametrize("later", [PLAIN, TEXT], ids=str)
async def test_a_later_switch_overtakes_one_that_waits(switch_from, recovery, later):
    switch, rollout = await switch_from(PLAIN)
    recovery.answered.clear()
    earlier = asyncio.create_task(switch.to(ENRICHED, "me"))
    await asyncio.sleep(0)
    await switch.to(later, "you")
    recovery.answered.set()
    with pytest.raises(Superseded):
        await earlier
    assert rollout.mode is later


async def test_of_two_that_wait_the_later_one_holds(switch_from, recovery):
    switch, rollout = await switch_from(PLAIN)
    recovery.answered.clear()
    both = [asyncio.create_task(switch.to(ENRICHED, who)) for who in ("me", "you")]
    await asyncio.sleep(0)
    recovery.answered.set()
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(first, Superseded)
    assert second is None
    assert rollout.mode is ENRICHED


async def test_a_switch_that_cannot_be_kept_raises_and_changes_nothing(switch_from):
    class Broken(MemoryStore):
        async def set_labelling_since(self, since):
            if since:
                raise StoreError("gone")

    switch, rollout = await switch_from(PLAIN, Broken())
    with pytest.raises(StoreError):
        await switch.to(ENRICHED, "me")
    assert rollout.mode is PLAIN


class Admin:
    def __init__(self, client, port):
        self._client, self._url = client, f"http://127.0.0.1:{port}"

    async def switch(self, mode):
        async with self._client.post(f"{self._url}/enrichment/mode", json={"mode": mode.value}) as answered:
            return answered.status, await answered.json()

    async def status(self):
        async with self._client.get(f"{self._url}/api/v1/status") as answered:
            return await answered.json()

    async def recovered(self, wanted):
        async with asyncio.timeout(5):
            while (await self.status())["alertmanager"]["recovered"] is not wanted:
                await asyncio.sleep(0.01)


async def test_over_http_the_one_that_was_overtaken_gets_409(alertmanager):
    given = settings(alertmanager.url, alertmanager__timeout="500ms", enrichment__budget="100ms")
    async with build(given) as running, ClientSession() as client:
        admin = Admin(client, running.admin_port)
        await admin.recovered(True)
        alertmanager.silent = True
        earlier = asyncio.create_task(admin.switch(ENRICHED))
        await admin.recovered(False)
        assert await admin.switch(PLAIN) == (200, {"mode": "transparent", "source": "memory"})
        status, answer = await asyncio.wait_for(earlier, 5)
        assert status == 409
        assert "another switch" in answer["error"]
        assert (await admin.status())["mode"] == "transparent"


async def test_the_end_of_the_proxy_does_not_wait_for_a_switch_that_waits(alertmanager):
    async with ClientSession() as client:
        async with asyncio.timeout(10) as limit:
            async with build(settings(alertmanager.url)) as running:
                admin = Admin(client, running.admin_port)
                await admin.recovered(True)
                alertmanager.silent = True
                waits = asyncio.create_task(admin.switch(ENRICHED))
                await admin.recovered(False)
                limit.reschedule(asyncio.get_running_loop().time() + 4)  # Alertmanager itself would get 9 s
        with contextlib.suppress(Exception):  # answered or cut off: either is fine
            await asyncio.wait_for(waits, 5)


async def test_the_end_of_the_proxy_does_not_wait_for_a_request_that_never_ends(alertmanager):
    async with asyncio.timeout(10) as limit:
        async with build(settings(alertmanager.url)) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.admin_port)
            writer.write(b"POST /enrichment/mode HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n")
            writer.write(b"Content-Length: 100\r\n\r\n")
            await reader.readuntil(b"100 Continue\r\n\r\n")  # from now on the handler waits for the body
            limit.reschedule(asyncio.get_running_loop().time() + 4)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("was", [PLAIN, TEXT], ids=str)
async def test_what_alertmanager_got_from_others_is_bare_after_a_switch(alertmanager, was):
    direct = posted("Direct", begun=300)
    async with build(settings(alertmanager.url, enrichment__mode=was.value)) as running, ClientSession() as client:
        admin = Admin(client, running.admin_port)
        await admin.recovered(True)
        alertmanager.held = [{**direct, "updatedAt": stamp()}]
        assert (await admin.switch(ENRICHED))[0] == 200
        await exchange(running.data_port, post(body(direct, posted("New"))))
    sent, new = alertmanager.posts[-1].alerts
    assert sent == direct
    assert "ai_severity" in new["labels"]
