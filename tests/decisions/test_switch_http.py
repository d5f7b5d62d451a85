"""Switching the mode of a proxy that runs, over HTTP."""

import asyncio
import contextlib

import pytest
from aiohttp import ClientSession
from fakes import body, exchange, post, posted, settings, stamp

from proxy.app import build
from proxy.policy import Mode

PLAIN, ENRICHED, TEXT = Mode.TRANSPARENT, Mode.ENRICHED, Mode.TRANSPARENT_WITH_RECOMMENDATIONS


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
        status, answer = await admin.switch(PLAIN)
        assert (status, answer["mode"], answer["source"]) == (200, "transparent", "memory")
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
