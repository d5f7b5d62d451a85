"""Which store the settings choose for the class cache."""

import contextlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from configuring import load
from verdicts import a_class, a_verdict

from proxy.app.storage import open_verdicts
from proxy.classification.stores.redis import RedisVerdicts
from proxy.classification.stores.sqlite import SqliteVerdicts
from proxy.classification.verdicts import Cached
from proxy.errors import ConfigError, StoreTimeout

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


async def chosen(stack, **environ):
    return await open_verdicts(load(**environ).settings, stack)


async def test_memory_has_no_second_tier():
    async with AsyncExitStack() as stack:
        assert await chosen(stack, STORE_URL="memory:") is None


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:", "kept/verdicts.db"), ("sqlite:here/mine.db", "here/verdicts.db")]
)
async def test_verdicts_are_beside_the_decisions(url, path):
    async with AsyncExitStack() as stack:
        store = await chosen(stack, STORE_URL=url, STORAGE_PATH="kept")
        assert isinstance(store, SqliteVerdicts)
        with contextlib.suppress(StoreTimeout):  # a busy disk is late with it, and does it all the same
            await store.put({a_class("A"): Cached(a_verdict(), 60)})
    assert [str(each) for each in sorted(Path().rglob("*.db"))] == [path]  # noqa: ASYNC240 - nobody waits


async def test_a_file_cannot_be_for_both():
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match=r"store\.url: verdicts\.db is where the class cache is kept"):
            await chosen(stack, STORE_URL="sqlite:./here/verdicts.db")


async def test_redis_is_asked_with_the_settings_of_the_store(alone, prefix):
    async with AsyncExitStack() as stack:
        store = await chosen(stack, STORE_URL=alone.url, STORE_PREFIX=prefix, STORE_TIMEOUT="1s")
        assert isinstance(store, RedisVerdicts)
        await store.put({a_class("A"): Cached(a_verdict(), 60)})
        with alone.client() as client:
            assert client.keys(f"{prefix}:*") == [f"{prefix}:v:{a_class('A').hex()}"]
