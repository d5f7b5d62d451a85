"""A proxy that runs in front of a recording Alertmanager, and how to talk to it."""

import asyncio

from aiohttp import ClientSession
from fakes import body, exchange, post, stamp, status_of

OURS = {"ai_severity", "ai_category"}


class Proxy:
    def __init__(self, alertmanager, running):
        self.alertmanager = alertmanager
        self.running = running

    async def post(self, *posts):
        """Post alerts and return them as Alertmanager got them."""
        assert status_of(await exchange(self.running.data_port, post(body(*posts)))) == 200
        return self.alertmanager.posts[-1].alerts

    async def labels(self, *posts):
        """Post alerts and return what was added to their labels."""
        return [
            {name: value for name, value in got["labels"].items() if name not in sent["labels"]}
            for sent, got in zip(posts, await self.post(*posts), strict=True)
        ]

    async def switch(self, mode):
        async with (
            ClientSession() as client,
            client.post(f"http://127.0.0.1:{self.running.admin_port}/enrichment/mode", json={"mode": mode}) as answered,
        ):
            assert answered.status == 200
            assert {"mode": mode, "source": "memory"}.items() <= (await answered.json()).items()

    async def metric(self, name):
        async with (
            ClientSession() as client,
            client.get(f"http://127.0.0.1:{self.running.admin_port}/metrics") as answered,
        ):
            lines = (await answered.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split(" ")[0] == name)


def held(alert, **added):
    return {
        **alert,
        "labels": alert["labels"] | added,
        "annotations": alert["annotations"] | ({"ai_source": "llm"} if added else {}),
        "updatedAt": stamp(),
        "fingerprint": "0" * 16,
        "receivers": [],
        "status": {"state": "active", "inhibitedBy": [], "silencedBy": []},
    }


async def until_recovered(proxy):
    async with asyncio.timeout(5):
        while not await proxy.metric("aiproxy_recovery_last_success"):
            await asyncio.sleep(0.02)
