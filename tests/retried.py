"""A proxy, and how often it has tried Alertmanager again."""

import re

from aiohttp import ClientSession
from fakes import body, exchange, post, posted, status_of


class Proxy:
    def __init__(self, running):
        self.port, self._admin = running.data_port, running.admin_port

    async def post(self, name="A"):
        """Return the status, and how often Alertmanager was tried again for it when it could not be reached."""
        before = await self.retries("refused")
        status = status_of(await exchange(self.port, post(body(posted(name)))))
        return status, await self.retries("refused") - before

    async def retries(self, cause):
        async with ClientSession() as client, client.get(f"http://127.0.0.1:{self._admin}/metrics") as answered:
            text = await answered.text()
        found = re.search(rf'^aiproxy_upstream_retries_total{{cause="{cause}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0
