from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakes import FakeAlertmanager, fake_alertmanager


@pytest.fixture
async def alertmanager() -> AsyncIterator[FakeAlertmanager]:
    async with fake_alertmanager() as server:
        yield server


@pytest.fixture
def a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
