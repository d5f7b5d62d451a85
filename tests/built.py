"""A proxy that was built in this process, and how to ask it."""

from __future__ import annotations

import asyncio
import json

from aiohttp import ClientSession
from fakes import body, exchange, post, status_of


class Proxy:
    def __init__(self, alertmanager, running, model):
        self.alertmanager, self.running, self.model = alertmanager, running, model

    async def post(self, *alerts):
        """Post alerts and return what was added to the first one: labels, annotations."""
        assert status_of(await exchange(self.running.data_port, post(body(*alerts)))) == 200
        got = self.alertmanager.posts[-1].alerts[0]
        return tuple(
            {name: value for name, value in got[kind].items() if name not in alerts[0][kind]}
            for kind in ("labels", "annotations")
        )

    async def get(self, path, **headers):
        url = f"http://127.0.0.1:{self.running.admin_port}{path}"
        async with ClientSession() as client, client.get(url, headers=headers) as answered:
            return answered.status, await answered.text()

    async def switch(self, mode):
        url = f"http://127.0.0.1:{self.running.admin_port}/enrichment/mode"
        async with ClientSession() as client, client.post(url, json={"mode": mode}) as answered:
            assert answered.status == 200

    async def status(self):
        return json.loads((await self.get("/api/v1/status"))[1])

    async def metrics(self, prefix):
        """The series whose names begin with `prefix`, without buckets, as {series: value}."""
        lines = (await self.get("/metrics"))[1].splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if line.startswith(prefix) and "_bucket" not in line)
        return {series: float(value) for series, value in found.items()}

    async def metric(self, series):
        return (await self.metrics(series)).get(series, 0.0)

    async def reaches(self, series, value, *, within=60):
        async with asyncio.timeout(within):
            while await self.metric(series) != value:
                await asyncio.sleep(0.02)
