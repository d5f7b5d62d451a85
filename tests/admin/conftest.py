from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from proxy.admin.api import admin_api
from proxy.decisions.canary import Canary
from proxy.decisions.directory import Directory
from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.state import Choice
from proxy.decisions.stores.memory import MemoryStore
from proxy.policy import CanaryBy, Mode

CONFIGURED = Canary(50, CanaryBy.IDENTITY, ('team="db"',))
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Switch:
    """Does what it is asked, unless it has an `error`; keeps what it was asked."""

    def __init__(self, error=None):
        self.mode, self.canary, self.choice, self.error = Mode.TRANSPARENT, CONFIGURED, None, error
        self.asked = []

    @property
    def source(self):
        return "memory" if self.choice else "config"

    async def to(self, mode, *, by="", origin="", lasting=None, canary=None, force=False):
        self.forced = force
        self.asked.append((mode, by, origin, lasting, canary))
        if self.error:
            raise self.error
        until = NOW + lasting if lasting else None
        self.choice = Choice(mode, NOW, by, origin, until, canary) if mode else None
        self.mode, self.canary = mode or Mode.TRANSPARENT, canary or CONFIGURED


@pytest.fixture
async def admin(aiohttp_client):
    async def make(*, token="", loopback=True, ready=True, error=None, store=None):
        async def reload():
            """Tested with a configuration of its own."""
            client.reloads += 1

        switch = Switch(error)
        store = store or MemoryStore()
        living = Living()
        app = admin_api(
            registry=CollectorRegistry(),
            current=switch,
            switch=switch,
            canary=lambda: CONFIGURED,
            directory=Directory(living, store, Reach(shared=store.shared, on_error=lambda: None)),
            explained=lambda labels: {"hash": "0123456789ab", "of": dict(labels)},
            ready=lambda: ready,
            status=lambda: {"version": "1"},
            reload=reload,
            token=lambda: token,
            loopback=loopback,
        )
        client = await aiohttp_client(app)
        client.switch, client.living, client.reloads = switch, living, 0
        return client

    return make
