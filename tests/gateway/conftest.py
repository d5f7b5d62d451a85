from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from fakes import settings
from posting import Proxy

from proxy.app import build


@pytest.fixture
async def proxy_with(alertmanager):
    async with AsyncExitStack() as stack:

        async def make(model=None, mode="enriched", **flags):
            running = await stack.enter_async_context(
                build(settings(alertmanager.url, enrichment__mode=mode, **flags), model=model)
            )
            return Proxy(alertmanager, running)

        yield make
